"""Figures of the study, made from the stored results alone: `all_figures`, and each as files or inside a page."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from d3m_ray.analysis.figures.curves import metric_figure
from d3m_ray.analysis.figures.files import svg, write_figure
from d3m_ray.analysis.figures.sizes import distribution_figure
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.metrics import METRICS
from d3m_ray.store import Store

__all__ = ["all_figures", "svg", "write_figure", "write_figures"]

Draw = Callable[[], Figure]


def all_figures(results: Results) -> dict[str, Draw]:
    """By name, in the order of reading, what draws each figure that the results have something to show in."""
    trials = results.trials
    figures: dict[str, Draw] = {
        metric: partial(metric_figure, results, metric) for metric in METRICS if trials[metric].notna().any()
    }
    distribution = results.examples.groupby(["split", "group", "label_name"]).size().reset_index(name="num_examples")
    if len(distribution):
        figures["distribution"] = partial(distribution_figure, results, distribution)
    return figures


def write_figures(store: Store, experiment: str, folder: Path) -> list[Path]:
    """Write every figure of an experiment as PDF, PNG and SVG into the folder; returns the paths.

    Raises StoreError where the store has no such experiment.
    """
    (results,) = read_results(store, [experiment])
    figures = all_figures(results)
    return [path for name, draw in figures.items() for path in write_figure(draw(), folder, name)]
