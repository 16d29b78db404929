"""All figures by name, each drawn when it is asked for, and those left out that have nothing to show."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from d3m_ray.analysis.choice import chosen_numbers
from d3m_ray.analysis.figures.curves import metric_figure
from d3m_ray.analysis.figures.datamodeling import lds_figure, mean_lds
from d3m_ray.analysis.figures.files import write_figure
from d3m_ray.analysis.figures.forest import forest_figure, group_differences
from d3m_ray.analysis.figures.histograms import alignment_figure, score_figure
from d3m_ray.analysis.figures.pareto import pareto_figure
from d3m_ray.analysis.figures.sizes import distribution_figure
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.metrics import METRICS
from d3m_ray.store import Store

Draw = Callable[[], Figure]


def all_figures(results: Results) -> dict[str, Draw]:
    """By name, in the order of reading, what draws each figure that the results have something to show in."""
    return {**_of_trials(results), **_of_attribution(results), **_of_corpus(results)}


def _of_trials(results: Results) -> dict[str, Draw]:
    if results.trials.empty:
        return {}
    figures: dict[str, Draw] = {}
    chosen = chosen_numbers(results)
    figures["pareto"] = partial(pareto_figure, results)
    by_group = group_differences(results, chosen)
    if len(by_group):
        figures["groups"] = partial(forest_figure, results, by_group)
    present = [metric for metric in METRICS if results.trials[metric].notna().any()]
    return figures | {metric: partial(metric_figure, results, metric) for metric in present}


def _of_attribution(results: Results) -> dict[str, Draw]:
    figures: dict[str, Draw] = {}
    if results.alignments:
        figures["alignments"] = partial(alignment_figure, results, chosen_numbers(results))
    if results.scores:
        figures["scores"] = partial(score_figure, results)
    means = mean_lds(results.lds)
    if len(means):
        figures["lds"] = partial(lds_figure, results, means)
    return figures


def _of_corpus(results: Results) -> dict[str, Draw]:
    distribution = results.examples.groupby(["split", "group", "label_name"]).size().reset_index(name="num_examples")
    return {"distribution": partial(distribution_figure, results, distribution)} if len(distribution) else {}


def write_figures(store: Store, experiment: str, folder: Path) -> list[Path]:
    """Write every figure of an experiment as PDF, PNG and SVG into the folder; returns the paths.

    Raises StoreError where the store has no such experiment.
    """
    (results,) = read_results(store, [experiment])
    figures = all_figures(results)
    return [path for name, draw in figures.items() for path in write_figure(draw(), folder, name)]
