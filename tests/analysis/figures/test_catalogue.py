"""Every figure of every made-up experiment: complete, legible, the same twice; a warning would be an error."""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from d3m_ray.analysis.figures.catalogue import all_figures
from d3m_ray.analysis.figures.files import figure_files, svg
from d3m_ray.analysis.figures.style import house_style
from d3m_ray.analysis.results import Results

METRICS = ("accuracy", "loss", "fpr", "fnr", "auc", "macro_f1")
OF_BINARY_LABELS = ("fpr", "fnr", "auc")
OF_CORPUS = ("removed", "agreement", "alignments", "scores", "alignments_by_cell", "scores_by_group", "distribution")
NAMES = ["differences", "pareto", "groups", *METRICS, *OF_CORPUS]
LONG = "a name that goes on and on " * 8


Experiments = dict[str, dict[str, Figure]]
Texts = dict[str, dict[str, list[Text]]]


@pytest.fixture(scope="session")
def draws(plain: Results, odd: Results, lone: Results) -> dict[str, dict[str, Callable[[], Figure]]]:
    return {"plain": all_figures(plain), "odd": all_figures(odd), "lone": all_figures(lone)}


@pytest.fixture(scope="session")
def drawn(draws: dict[str, dict[str, Callable[[], Figure]]]) -> Experiments:
    """The figures of each experiment; metrics look all the same way, and are drawn of one experiment only."""
    return {
        experiment: {name: draw() for name, draw in of.items() if experiment == "plain" or name not in METRICS[1:]}
        for experiment, of in draws.items()
    }


@pytest.fixture(scope="session")
def texts(drawn: Experiments) -> Texts:
    """By experiment and figure, every text that it shows."""
    return {name: {n: list(_texts(figure)) for n, figure in figures.items()} for name, figures in drawn.items()}


def test_each_experiment_has_the_figures_that_it_can_show(draws: dict[str, dict[str, Callable[[], Figure]]]) -> None:
    assert list(draws["plain"]) == NAMES
    assert list(draws["odd"]) == [name for name in NAMES if name not in OF_BINARY_LABELS]
    assert list(draws["lone"]) == [name for name in NAMES if name != "agreement"]


def test_an_experiment_without_anything_has_no_figure(plain: Results) -> None:
    record = replace(plain.record, keys={}, configuration={"dataset": "insects", "model": "tiny-bert"})
    assert all_figures(replace(plain, record=record, all_trials=plain.all_trials.iloc[:0])) == {}


def test_every_text_is_inside_its_figure_and_none_is_a_formula(drawn: Experiments, texts: Texts) -> None:
    for experiment, figures in drawn.items():
        for name, figure in figures.items():
            page = figure.bbox.padded(1)
            for text in texts[experiment][name]:
                assert text.get_parse_math() is False
                box = text.get_window_extent()
                inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
                assert inside, f"{experiment} {name}: {text.get_text()!r}"


def test_no_two_texts_overlap(texts: Texts) -> None:
    for experiment, figures in texts.items():
        for name, of_figure in figures.items():
            boxes = np.array([text.get_window_extent().padded(-0.5).extents for text in of_figure])
            low, high = boxes[:, :2], boxes[:, 2:]
            touch = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(axis=2)
            pairs = [(of_figure[i].get_text(), of_figure[j].get_text()) for i, j in np.argwhere(np.triu(touch, 1))]
            assert pairs == [], f"{experiment} {name}"


def test_every_figure_says_what_it_shows_of_what(drawn: Experiments) -> None:
    seeds = {"plain": "5 seeds", "odd": "2 seeds", "lone": "1 seed"}
    sizes = {"plain": 160, "odd": 108, "lone": 48}
    for experiment, figures in drawn.items():
        for name, figure in figures.items():
            texts = [text.get_text() for text in figure.texts]
            assert figure.get_suptitle()
            setting = f"insects, tiny-bert; {seeds[experiment]}; n = {sizes[experiment]} test examples"
            assert setting in texts, name
            said = " ".join(" ".join(texts).split())
            assert re.search(r"interval|counts", said), f"{name} says what its band is, or that it has none"


def test_panels_of_a_row_share_a_scale_and_no_tick_is_beyond_what_can_be(drawn: Experiments) -> None:
    for figures in drawn.values():
        for metric in METRICS:
            axes_by_row: dict[float, list[Axes]] = {}
            for axes in figures[metric].axes if metric in figures else []:
                axes_by_row.setdefault(round(axes.get_position().y0, 6), []).append(axes)
                assert min(axes.get_yticks()) >= 0
                assert metric == "loss" or max(axes.get_yticks()) <= 1
            for row in axes_by_row.values():
                assert len({axes.get_ylim() for axes in row}) == 1


def test_a_shortened_name_is_in_the_key(drawn: Experiments, texts: Texts) -> None:
    for name in ("groups", "accuracy", "removed", "alignments_by_cell", "scores_by_group", "distribution"):
        lines = [" ".join(text.get_text().split()) for text in drawn["odd"][name].texts]
        (key,) = [line for line in lines if line.endswith(LONG.strip())]
        abbreviation = key.partition(":")[0]
        assert re.search(r"… \d+$", abbreviation)
        shown = {text.get_text() for text in texts["odd"][name]}
        assert any(text.startswith(abbreviation) for text in shown - {key}), name


def test_names_stand_as_they_were_typed(texts: Texts) -> None:
    shown = {text.get_text() for text in texts["odd"]["distribution"]}
    assert {"$x_1^2$", "<b>", "_leading", "under_score", "$rude$", "label_3"} <= shown
    legend = {text.get_text() for text in texts["plain"]["accuracy"]}
    assert {"trak_heuristic", "group_dro", "nothing removed"} <= legend


def test_files_are_complete_and_the_same_twice(draws: dict[str, dict[str, Callable[[], Figure]]]) -> None:
    for experiment, name in (("lone", "differences"), ("plain", "distribution")):
        first = figure_files(draws[experiment][name](), name)
        assert list(first) == [f"{name}.{suffix}" for suffix in ("pdf", "png", "svg")]
        assert figure_files(draws[experiment][name](), name) == first
        assert first[f"{name}.pdf"].startswith(b"%PDF")
        assert imread(io.BytesIO(first[f"{name}.png"]))[..., :3].std() > 0.01, "a picture is not blank"
        ElementTree.fromstring(first[f"{name}.svg"])
        assert not any(re.search(rb"CreationDate|dc:date|2026-", content) for content in first.values())


def test_every_figure_can_be_written(drawn: Experiments) -> None:
    """PDF embeds fonts and SVG draws glyphs: another way to warn of what a font lacks."""
    for name, figure in drawn["odd"].items():
        if name in ("groups", "alignments_by_cell"):
            assert len(figure_files(figure, name)) == 3


def test_figures_of_one_page_share_no_id(drawn: Experiments) -> None:
    elements = [svg(drawn[e][name], name) for e in ("plain", "lone") for name in ("differences", "alignments")]
    ids = [re.findall(r'\sid="([^"]+)"', element) for element in elements]
    assert all(len(set(of)) == len(of) > 0 for of in ids)
    assert len({name for of in ids for name in of}) == sum(map(len, ids))
    for element, of in zip(elements, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', element)) <= set(of)


def test_a_figure_in_a_page_has_a_title_and_no_size_of_its_own(drawn: Experiments) -> None:
    element = svg(drawn["odd"]["distribution"], "distribution")
    root = ElementTree.fromstring(element)
    assert element.startswith("<svg ")
    assert (root.get("role"), root.get("width"), root.get("height")) == ("img", "100%", None)
    assert root.get("viewBox", "").startswith("0 0 ")
    assert root[0].text == "Examples of each group by label"
    assert "<!DOCTYPE" not in element
    assert "<metadata" not in element
    assert not re.findall(r'(?:href|src)="(?!#)', element), "nothing is loaded from elsewhere"


def _texts(figure: Figure) -> Iterator[Text]:
    """Every text that the figure shows: its own, legends', and those of axes within their limits."""
    with house_style():
        figure.draw_without_rendering()
    unused = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text().strip() and text.get_visible() and id(text) not in unused:
            yield text
