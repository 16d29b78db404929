import matplotlib as mpl
import pytest

from d3m_ray.analysis.figures.style import BASE_STYLES, house_style, label_style, method_order, method_styles

VARIANTS = ("", "_heuristic", "_helpful", "_auto", "_auto_heuristic", "_auto_helpful")


def test_no_two_methods_look_alike_in_grey() -> None:
    """Whatever their colours: another marker, or the marker filled another way, or another kind of arm's colour."""
    methods = [*BASE_STYLES, *(f"trak{suffix}" for suffix in VARIANTS), "home_made", "other", "third"]
    styles = method_styles(list(dict.fromkeys(methods)))
    marks = {(style.colour, style.marker, style.fill) for style in styles.values()}
    assert len(marks) == len(styles)
    scored = [m for m in styles if not m.startswith(("balanced", "group_dro", "jtt", "dfr"))]
    assert len({(styles[m].marker, styles[m].fill) for m in scored}) == len(scored)


def test_a_method_looks_the_same_whatever_is_beside_it() -> None:
    assert method_styles(["trak"])["trak"] == method_styles(["ekfac", "random", "trak"])["trak"]


def test_methods_stand_in_a_known_order_with_their_variants() -> None:
    assert method_order(["zoo", "random", "trak_heuristic", "ekfac", "trak"]) == [
        *("trak", "trak_heuristic", "ekfac", "random", "zoo")
    ]


def test_no_two_of_many_labels_share_colour_and_hatch() -> None:
    assert len({(label_style(i)["facecolor"], label_style(i)["hatch"]) for i in range(56)}) == 56


def test_the_users_own_settings_change_no_figure() -> None:
    with mpl.rc_context({"text.usetex": True, "axes.grid": True, "savefig.dpi": 30}):
        with house_style():
            assert (mpl.rcParams["text.usetex"], mpl.rcParams["axes.grid"]) == (False, False)
        assert mpl.rcParams["text.usetex"] is True


@pytest.mark.parametrize("method", ["trak", "random"])
def test_a_known_method_has_its_colour(method: str) -> None:
    assert method_styles([method])[method].colour == BASE_STYLES[method][0]
