"""The sections of an experiment's page: which words, figures and tables stand in each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from d3m_ray.analysis.report.cells import TableView, as_seconds, table_view
from d3m_ray.analysis.report.columns import columns
from d3m_ray.analysis.report.costs import scoring_costs, sharing, training_costs
from d3m_ray.analysis.report.drawings import Drawing, drawings
from d3m_ray.analysis.report.gaps import absent_tables, failed_by_reason, missing_by_arm
from d3m_ray.analysis.report.setting import Facts, setting
from d3m_ray.analysis.report.tables import (
    NO_TEXTS,
    NUM_EXAMPLES,
    difference_tables,
    example_tables,
    group_tables,
    lds_tables,
    score_tables,
)
from d3m_ray.analysis.results import Results
from d3m_ray.wording import counted


@dataclass(frozen=True)
class Section:
    """One part of the page; what it lacks is not shown."""

    id: str
    title: str
    paragraphs: Sequence[str] = ()
    items: Sequence[str] = ()
    facts: Sequence[Facts] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[TableView] = ()
    has_texts: bool = False


def setting_section(results: Results) -> Section:
    """Corpus, model, settings and where the results come from."""
    return Section("setting", "The setting", facts=setting(results))


def figures_section(figures: Mapping[str, str], files: Mapping[str, Sequence[str]]) -> Section:
    """The figures, given as `<svg>` elements."""
    drawn = drawings(figures, files)
    return Section("figures", "Figures", [] if drawn else ["The store holds no trial to draw."], drawings=drawn)


def result_sections(results: Results) -> list[Section]:
    """What the experiment found: of an LDS its scores, else differences, groups, and what the methods say."""
    if len(results.lds):
        return [Section("lds", "Which scores predict retraining", tables=lds_tables(results))]
    return [
        Section("differences", "What the arms change", tables=difference_tables(results)),
        Section("accuracies-of-groups", "Groups", tables=group_tables(results)),
        Section("scores", "Scores, and what was removed by them", tables=score_tables(results)),
        _examples_section(results),
    ]


def _examples_section(results: Results) -> Section:
    views = example_tables(results)
    has_texts = any(column.is_veiled for view in views for column in view.columns)
    words = [
        f"The {NUM_EXAMPLES} train examples of lowest and of highest alignment of each method: low ones are removed "
        "first. Texts stay hidden until they are asked for, since corpora may be offensive; python -m d3m_ray examples "
        "has more of them.",
        *([] if has_texts else [NO_TEXTS]),
    ]
    nothing = ["The store holds no alignments of this experiment."]
    title = "The most harmful and most helpful examples"
    return Section("examples", title, words if views else nothing, tables=views, has_texts=has_texts)


def costs_section(results: Results) -> Section:
    """Seconds and examples a second of training and scoring, and what sharing saved."""
    cost = sharing(results)
    words = [
        f"{counted(cost.num_trials, 'trial')} took {counted(cost.num_fits, 'trained model')}, "
        f"{as_seconds(cost.train_seconds)} of training one after the other. "
        "Arms that train on the same examples with the same seed share a model: "
        f"that saved {counted(cost.num_saved, 'fit')}, about {as_seconds(cost.saved_seconds)}."
    ]
    training = table_view(
        "training-costs",
        "Training",
        "One row per way to train, over distinct models. Seconds are of the fit alone, without the wait for a worker.",
        training_costs(results),
        columns("objective", "num_fits", "num_train", "train_seconds", "seconds_per_fit", "train_examples_per_second"),
    )
    scoring = table_view(
        "scoring-costs",
        "Scoring",
        "One row per set of attribution scores; one that another experiment of the store made was not made again.",
        scoring_costs(results),
        columns("method", "scoring_seconds", "num_scored", "scored_examples_per_second", "coverage"),
        "The store holds no attribution scores of this experiment.",
    )
    return Section("costs", "Costs", words if cost.num_trials else [], tables=[training, scoring])


def gaps_section(results: Results, states: pd.DataFrame, damaged: Sequence[str]) -> Section:
    """What failed and why, what is missing, and which files are damaged."""
    failed = table_view(
        "failed",
        "Failed trials",
        "One row per reason. The same sweep, run again, tries them again.",
        failed_by_reason(states),
        columns("num_trials", "error", "trials"),
        "No trial failed.",
    )
    missing = table_view(
        "missing",
        "Missing trials",
        "One row per arm that lacks trials: they were asked for, and are neither stored nor recorded as failed.",
        missing_by_arm(states),
        columns("method", "removed", "num_missing", "num_trials", "seeds"),
        "No trial is missing.",
    )
    items = [*absent_tables(results), *dict.fromkeys(damaged)]
    return Section("gaps", "What failed and what is missing", items=items, tables=[failed, missing])
