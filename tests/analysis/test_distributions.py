import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import cbook
from matplotlib.figure import Figure
from matplotlib.image import imread

from d3m_ray.analysis.distributions import distribution_figure, draw_group_distribution
from d3m_ray.records import Examples, Splits


@pytest.fixture
def splits() -> Splits:
    """ant has two examples of label 0 and one of label 1 in each split, bee one of label 1."""

    def examples(split: str) -> Examples:
        ids = np.array([f"{split}/{i}" for i in range(4)])
        return Examples(split, ids, tuple(ids), np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))

    return Splits("insects", ("ant", "bee_fly"), examples("train"), examples("val"), examples("test"))


def test_bars_are_the_counts_of_each_group_and_label(splits: Splits) -> None:
    figure = distribution_figure(splits)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["train (4)", "val (4)", "test (4)"]
    for axes in figure.axes:
        heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
        assert heights == [[2, 0], [1, 1]]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["ant", "bee fly"]
        edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bars in axes.containers for bar in bars]
        edges.sort()
        for (_, right), (left, _) in pairwise(edges):
            assert right <= left + 1e-9, "bars stand side by side"


def test_a_dollar_begins_no_formula(splits: Splits, tmp_path: Path) -> None:
    names = {"group_names": ("$1 to $5", r"$\foo$"), "label_names": ("$no$", "yes_$_")}
    figure = distribution_figure(dataclasses.replace(splits, **names))
    figure.savefig(tmp_path / "figure.png")  # a formula that is none would raise
    for axes in figure.axes:
        texts = [*axes.get_xticklabels(), *figure.legends[0].get_texts()]
        assert not [text for text in texts if cbook.is_math_text(text.get_text()) is True]


def test_the_legend_names_both_labels_once(splits: Splits) -> None:
    figure: Figure = distribution_figure(splits)
    (legend,) = figure.legends
    assert [text.get_text()[:7] for text in legend.get_texts()] == ["label 0", "label 1"]


def test_pdf_and_png_are_written(splits: Splits, tmp_path: Path) -> None:
    paths = draw_group_distribution(splits, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["distribution.pdf", "distribution.png"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert np.ptp(imread(paths[1])) > 0.5
