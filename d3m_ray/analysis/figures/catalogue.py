"""All figures by name, each drawn when it is asked for, and those left out that have nothing to show."""

from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from d3m_ray.analysis.agreement import agreement_table
from d3m_ray.analysis.choice import chosen_numbers
from d3m_ray.analysis.comparison import removed_table
from d3m_ray.analysis.contrasts import contrast_table
from d3m_ray.analysis.corpus import distribution_table
from d3m_ray.analysis.figures.agreement import agreement_figure
from d3m_ray.analysis.figures.curves import metric_figure
from d3m_ray.analysis.figures.differences import differences_figure, of_worst_group
from d3m_ray.analysis.figures.forest import forest_figure, group_differences
from d3m_ray.analysis.figures.heat_maps import alignment_heat_maps, score_heat_maps
from d3m_ray.analysis.figures.histograms import alignment_figure, score_figure
from d3m_ray.analysis.figures.lds import lds_figure
from d3m_ray.analysis.figures.pareto import pareto_figure
from d3m_ray.analysis.figures.removed import removed_figure, shown_arms
from d3m_ray.analysis.figures.sizes import distribution_figure
from d3m_ray.analysis.figures.style import method_order
from d3m_ray.analysis.lds import mean_lds
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.score_tables import mean_alignments, mean_scores
from d3m_ray.metrics.groups import METRICS

Draw = Callable[[], Figure]


def all_figures(results: Results) -> dict[str, Draw]:
    """By name, in the order of reading, what draws each figure that the results have something to show in."""
    return {**_of_trials(results), **_of_attribution(results), **_of_corpus(results)}


def _of_trials(results: Results) -> dict[str, Draw]:
    if results.trials.empty:
        return {}
    figures: dict[str, Draw] = {}
    chosen = chosen_numbers(results)
    contrasts = contrast_table(results)
    if len(of_worst_group(contrasts)):
        figures["differences"] = partial(differences_figure, results, contrasts, chosen)
    figures["pareto"] = partial(pareto_figure, results)
    by_group = group_differences(results, chosen)
    if len(by_group):
        figures["groups"] = partial(forest_figure, results, by_group)
    present = [metric for metric in METRICS if results.trials[metric].notna().any()]
    return figures | {metric: partial(metric_figure, results, metric) for metric in present}


def _of_attribution(results: Results) -> dict[str, Draw]:
    figures: dict[str, Draw] = {}
    chosen = chosen_numbers(results)
    removed = removed_table(results)
    if shown_arms(removed, chosen):
        figures["removed"] = partial(removed_figure, results, removed, chosen)
    agreement = agreement_table(results)
    if len(agreement):
        figures["agreement"] = partial(agreement_figure, results, agreement)
    if results.alignments:
        figures["alignments"] = partial(alignment_figure, results, chosen)
    if results.scores:
        figures["scores"] = partial(score_figure, results)
    of_cells = _not_empty({name: mean_alignments(results, name) for name in results.alignments})
    if of_cells:
        figures["alignments_by_cell"] = partial(alignment_heat_maps, results, of_cells)
    of_groups = _not_empty({name: mean_scores(results, name) for name in results.scores})
    if of_groups:
        figures["scores_by_group"] = partial(score_heat_maps, results, of_groups)
    means = mean_lds(results.lds)
    if len(means):
        figures["lds"] = partial(lds_figure, results, means)
    return figures


def _not_empty(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables that hold a number, in the order of methods."""
    return {name: tables[name] for name in method_order(tables) if tables[name].notna().to_numpy().any()}


def _of_corpus(results: Results) -> dict[str, Draw]:
    distribution = distribution_table(results)
    return {"distribution": partial(distribution_figure, results, distribution)} if len(distribution) else {}
