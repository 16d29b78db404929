"""What the figures show are the numbers of the results."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from d3m_ray.analysis.choice import chosen_numbers
from d3m_ray.analysis.contrasts import contrast_table
from d3m_ray.analysis.figures.bands import mean_bands
from d3m_ray.analysis.figures.curves import each_model_once, metric_figure
from d3m_ray.analysis.figures.differences import differences_figure
from d3m_ray.analysis.figures.forest import forest_figure, group_differences
from d3m_ray.analysis.figures.heat_maps import score_heat_maps
from d3m_ray.analysis.figures.histograms import alignment_figure
from d3m_ray.analysis.figures.lds import lds_figure
from d3m_ray.analysis.figures.pareto import pareto_figure
from d3m_ray.analysis.figures.style import BASE_STYLES
from d3m_ray.analysis.lds import mean_lds
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.statistics import t_interval


def with_marker(axes: Axes, method: str) -> list[np.ndarray]:
    """The places of the marks of a method, one array per drawn line."""
    colour, marker = BASE_STYLES[method]
    lines = [line for line in axes.get_lines() if line.get_marker() == marker and same_color(line.get_color(), colour)]
    return [np.asarray(line.get_xydata(), dtype=float) for line in lines]


def panel(figure: Figure, title: str) -> Axes:
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(title)]
    return axes


def test_bands_are_the_intervals_of_student(plain: Results) -> None:
    trials = plain.trials[plain.trials["group"] == "worst"]
    bands = mean_bands(trials, ["method", "num_removed"], "accuracy").set_index(["method", "num_removed"])
    for arm, rows in trials.groupby(["method", "num_removed"]):
        expected = t_interval(rows["accuracy"])
        found = bands.loc[arm]
        np.testing.assert_allclose(found[["mean", "low", "high"]], [expected.mean, expected.low, expected.high])
    of_trak = trials[(trials["method"] == "trak") & (trials["seed"] < 4)]
    assert mean_bands(of_trak, ["method"], "accuracy")["low"].notna().all(), "12 values, at three numbers"
    assert mean_bands(of_trak, ["num_removed"], "accuracy")["low"].isna().all(), "of four, no interval"


def test_bands_know_only_the_values_that_there_are() -> None:
    rows = pd.DataFrame({"method": ["a"] * 7 + ["b"], "auc": [0.5] * 6 + [np.nan, np.nan]})
    (band,) = mean_bands(rows, ["method"], "auc").itertuples(index=False)
    assert tuple(band) == ("a", 6, 0.5, 0.5, 0.5)


def test_the_base_model_is_there_once(plain: Results) -> None:
    trials = each_model_once(plain.trials)
    base = trials[trials["method"] == ""]
    assert not base.duplicated(["seed", "group"]).any()
    assert set(base["fit_key"]) == set(plain.base_fits.values())
    assert "group_dro" in set(trials["method"]), "which removes nothing and trains otherwise"


def test_curves_are_means_with_bands(plain: Results) -> None:
    axes = panel(metric_figure(plain, "accuracy"), "worst group")
    worst = plain.trials[plain.trials["group"] == "worst"]
    (line,) = with_marker(axes, "ekfac")
    means = worst[worst["method"] == "ekfac"].groupby("num_removed")["accuracy"].mean()
    np.testing.assert_allclose(line, [(number, means[number]) for number in (50, 100)])
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    assert len(bands) == 3, "of trak, ekfac and random"
    (dro,) = with_marker(axes, "group_dro")
    assert dro[0][0] == 0
    assert any(line.get_linestyle() == ":" for line in axes.get_lines()), "the base model's mean"


def test_of_few_seeds_each_is_a_point_and_there_is_no_band(odd: Results) -> None:
    axes = panel(metric_figure(odd, "accuracy"), "worst group")
    assert [band for band in axes.collections if isinstance(band, PolyCollection)] == []
    points = [line for line in axes.get_lines() if line.get_marker() == "." and line.get_linestyle() == "None"]
    assert max(len(line.get_xydata()) for line in points) == 8, "two seeds at four numbers"


def test_a_metric_has_panels_where_it_is_defined(plain: Results) -> None:
    titles = [axes.get_title(loc="left") for axes in metric_figure(plain, "auc").axes]
    assert titles == [
        *("all examples (n = 160)", "worst group (by accuracy)"),
        *(f"{group} (n = 40)" for group in ("ant", "bee", "cat", "dog")),
    ]


def test_differences_are_points_of_percent_with_their_seeds(plain: Results) -> None:
    contrasts = contrast_table(plain)
    figure = differences_figure(plain, contrasts, {"trak": 100, "trak_heuristic": 137})
    axes = figure.axes[0]
    rows = contrasts[(contrasts["reference"] == "random") & (contrasts["measure"] == "worst")]
    of_trak = rows[rows["method"] == "trak"].sort_values("num_removed")
    (line,) = [line for line in with_marker(axes, "trak") if len(line) == 2]
    np.testing.assert_allclose(line, np.c_[of_trak["num_removed"], 100 * of_trak["difference"]])
    seeds = [line.get_ydata() for line in axes.get_lines() if line.get_marker() == "."]
    assert sorted(len(of) for of in seeds) == [5] * 4
    np.testing.assert_allclose(seeds[0], [100 * float(v) for v in of_trak["differences"].iloc[0].split()])
    bars = [c.get_segments() for c in axes.collections if isinstance(c, LineCollection)]
    assert len(bars) == 2, "one per compared method"
    np.testing.assert_allclose(bars[0][0][:, 1], [100 * of_trak[name].iloc[0] for name in ("t_low", "t_high")])
    rings = [np.asarray(line.get_xydata()) for line in axes.get_lines() if line.get_markersize() == 11]
    np.testing.assert_allclose([ring for ring in rings if len(ring)], [[line[1]]])
    assert any(line.get_linestyle() == ":" and set(line.get_xdata()) == {137} for line in axes.get_lines())
    envelope = np.concatenate(
        [c.get_paths()[0].vertices[:, 1] for c in axes.collections if isinstance(c, PolyCollection)]
    )
    at_random = plain.trials[(plain.trials["group"] == "worst") & (plain.trials["method"] == "random")]
    values = at_random[at_random["num_removed"] == 50]["accuracy"]
    assert np.isclose(envelope, 100 * (values - values.mean()).max()).any()


def test_arms_that_random_removal_cannot_be_compared_with_are_named(plain: Results, lone: Results) -> None:
    said = [
        " ".join(" ".join(text.get_text() for text in figure.texts).split())
        for figure in (differences_figure(of, contrast_table(of), {}) for of in (plain, lone))
    ]
    assert "Not here, for there is no random removal of as many: group_dro." in said[0]
    assert "Not here" not in said[1]


def test_without_random_removal_the_base_model_is_zero(lone: Results) -> None:
    figure = differences_figure(lone, contrast_table(lone), chosen_numbers(lone))
    assert figure.get_suptitle().endswith("the model trained on everything")
    said = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "(1 pair)" in said
    assert "Fewer than 5 pairs have no interval" in said
    assert "grey band" not in said


def test_groups_are_compared_under_the_same_seeds(plain: Results) -> None:
    differences = group_differences(plain, {"trak": 50, "random": 50, "group_dro": 0, "trak_heuristic": 137})
    assert set(differences[["reference", "method"]].itertuples(index=False, name=None)) == {
        *[("random", "trak"), ("base", "trak"), ("base", "group_dro"), ("base", "trak_heuristic")]
    }
    trials = plain.trials.set_index(["method", "num_removed", "seed", "group"])["accuracy"]
    for row in differences.itertuples():
        other = ("random", row.num_removed) if row.reference == "random" else ("trak", 0)
        expected = trials[row.method, row.num_removed, row.seed, row.group] - trials[(*other, row.seed, row.group)]
        assert row.difference == pytest.approx(expected)
    figure = forest_figure(plain, differences)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        *("less random removal of as many", "less the model trained on everything")
    ]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == [
        *("all examples (n = 160)", "worst group"),
        *(f"{group} (n = 40)" for group in ("ant", "bee", "cat", "dog")),
    ]


def test_one_fit_under_two_names_is_no_difference(plain: Results) -> None:
    trials = plain.all_trials.copy()
    ours = (trials["method"] == "trak") & (trials["num_removed"] == 50)
    theirs = trials[(trials["method"] == "random") & (trials["num_removed"] == 50)].set_index("seed")["fit_key"]
    trials.loc[ours, "fit_key"] = trials.loc[ours, "seed"].map(theirs[~theirs.index.duplicated()])
    differences = group_differences(replace(plain, all_trials=trials), {"trak": 50})
    assert set(differences["reference"]) == {"base"}


def test_each_arm_stands_at_its_two_accuracies(plain: Results) -> None:
    (axes,) = pareto_figure(plain).axes
    trials = plain.trials[(plain.trials["method"] == "trak") & (plain.trials["num_removed"] > 0)]
    means = trials.groupby(["group", "num_removed"])["accuracy"].mean()
    (marks,) = with_marker(axes, "trak")[:1]
    np.testing.assert_allclose(marks, np.c_[means["all"], means["worst"]])
    assert {"50", "100", "137"} & {text.get_text() for text in axes.texts}


def test_heat_maps_have_zero_in_the_middle_and_the_number_in_each_cell(plain: Results) -> None:
    means = pd.DataFrame([[0.0002, -0.0004], [np.nan, 0.0]], index=["ant", "bee"], columns=["ant", "bee"])
    (axes,) = score_heat_maps(plain, {"trak": means}).axes
    (mesh,) = [mesh for mesh in axes.collections if isinstance(mesh, QuadMesh)]
    low, high = mesh.get_clim()
    assert low == -high
    assert high >= 0.0004
    assert axes.get_title(loc="left") == "trak, in units of 1e\N{MINUS SIGN}4"
    assert [text.get_text() for text in axes.texts] == ["2.00", "\N{MINUS SIGN}4.00", "", "0.00"]


def test_the_removed_part_of_a_distribution_is_marked(plain: Results) -> None:
    figure = alignment_figure(plain, {"trak": 100})
    axes = panel(figure, "trak (n = 240, 100 removed)")
    everything, removed = (patch.get_data() for patch in axes.patches)
    assert everything.values.sum() == pytest.approx(1)
    assert removed.values.sum() == pytest.approx(100 / 240)
    assert (removed.values <= everything.values + 1e-12).all()
    assert panel(figure, "ekfac (n = 240)").patches


def test_lds_are_means_over_the_most_subsets(plain: Results) -> None:
    lds = pd.DataFrame(
        [
            ("trak", "query", "mean", 0.3, 0.2, 0.4, 100),
            ("trak", "query", "mean", 0.9, 0.8, 1.0, 10),
            ("trak", "group", "mean", 0.5, np.nan, np.nan, 100),
            ("trak", "group", "ant", 0.7, 0.6, 0.8, 100),
        ],
        columns=["method", "kind", "target", "lds", "lds_low", "lds_high", "num_subsets"],
    ).assign(lds_key="k", keep_share=0.5, subset_seeds="own", fits_per_subset=2, ceiling=0.75)
    figure = lds_figure(plain, mean_lds(lds))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["per val example", "per group"]
    for axes, expected in zip(figure.axes, (0.3, 0.5), strict=True):
        (marks,) = with_marker(axes, "trak")
        np.testing.assert_allclose(marks, [[expected, 0]])
