"""The tables of results on a page: which frame each shows, in which columns, under which words."""

from collections.abc import Sequence

import pandas as pd

from d3m_ray.analysis.agreement import agreement_table
from d3m_ray.analysis.choice import BASE, chosen_numbers
from d3m_ray.analysis.comparison import base_table, comparison_table, removed_table, wide_table
from d3m_ray.analysis.contrasts import contrast_table, declared_table
from d3m_ray.analysis.corpus import distribution_table
from d3m_ray.analysis.examples import examples_table, scores_of
from d3m_ray.analysis.lds import lds_differences, lds_table
from d3m_ray.analysis.leaderboard import MEASURES, leaderboard_table
from d3m_ray.analysis.removal_effects import effect_table
from d3m_ray.analysis.report.cells import FORMATS, Column, TableView, table_view
from d3m_ray.analysis.report.columns import columns
from d3m_ray.analysis.report.visible import shortened
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.score_tables import score_ranges
from d3m_ray.analysis.worst_group import group_table, worst_group_table

NUM_EXAMPLES = 10  # of each end of a method's order; the command `examples` shows more
MAX_TEXT, MAX_LABEL = 600, 40  # characters of a text, of a column's head
METRICS = ("accuracy", "accuracy_std", "loss", "fpr", "fnr", "auc", "macro_f1")
COMPARED = (*METRICS, "margin", "soft_accuracy")
ARM = ("method", "num_removed", "num_seeds")
DIFFERENCE = (
    *("num_pairs", "difference", "boot_low", "boot_high", "p_t", "p_boot", "p_flip", "p_choice", "p_holm"),
    *("smallest_difference", "num_seeds_for_2_points", "differences", "seeds"),
)
WORST_GROUP = ("mean_of_minima", "minimum_of_means", "chance_minimum", "fixed_group", "fixed_group_accuracy")
ABOUT_EXAMPLE = ("group", "label_name", "alignment", "smallest_num_removed", "example_id")
NO_TRIALS = "The store holds no trial of test."
NO_ARMS = "The store holds no arm with a model to compare it with."
NO_SCORES = "The store holds no attribution scores and alignments of this experiment."
NO_TEXTS = (
    "The store keeps no texts of this corpus: they were opted out of (--no-store-texts), or an earlier version made "
    "the store. example_id says where each stands in the corpus."
)


def difference_tables(results: Results) -> list[TableView]:
    """What each arm changes: the declared contrasts, then all."""
    return [
        table_view(
            "declared",
            "The contrasts declared beforehand",
            "One row per arm, at the number removed that was chosen on val; accuracy of the worst group on test. The "
            "headline rests on these alone.",
            declared_table(results),
            columns("method", "num_removed", "reference", *DIFFERENCE),
            NO_ARMS,
        ),
        table_view(
            "contrasts",
            "Every arm and number removed",
            "One row per arm, number removed, reference and measure, on test. To pick the best row here would be to "
            "choose on test; p (Holm) allows for having looked at all rows of a reference and measure.",
            contrast_table(results),
            columns("method", "num_removed", "reference", "measure", *DIFFERENCE),
            NO_ARMS,
        ),
    ]


def group_tables(results: Results) -> list[TableView]:
    """How the groups fare: the worst one in its senses, the arms beside each other, each group and cell."""
    return [
        table_view(
            "worst-group",
            "The worst group, in its several senses",
            "One row for the models trained on everything, one per arm and number removed; accuracy on test.",
            worst_group_table(results),
            columns(*ARM, *WORST_GROUP),
            NO_TRIALS,
        ),
        *_tables_beside_each_other(comparison_table(results)),
        table_view(
            "groups",
            "Groups and cells of the chosen arms",
            "One row per arm at the number chosen on val, and group or cell; means over seeds on test.",
            _chosen_arms(results, group_table(results)),
            columns(*ARM, "group", "num_examples", *METRICS),
            NO_TRIALS,
        ),
        table_view(
            "base",
            "The models trained on everything",
            "One row per group and cell; means over seeds on test.",
            base_table(results),
            columns("num_seeds", "group", "num_examples", *COMPARED),
            "The store holds no model that was trained on everything.",
        ),
    ]


def _tables_beside_each_other(comparison: pd.DataFrame) -> list[TableView]:
    """The arms at their chosen numbers: accuracy by group, then every metric."""
    return [
        table_view(
            "accuracies",
            "Arms beside each other: accuracy by group",
            "One row per arm at the number removed that was chosen on val, with random removal of as many; mean test "
            "accuracy over seeds.",
            wide_table(comparison) if len(comparison) else None,
            [*columns(*ARM), *(_accuracy_of(str(group)) for group in comparison["group"].unique())],
            NO_TRIALS,
        ),
        table_view(
            "comparison",
            "Arms beside each other: every metric",
            "One row per arm (chosen as above) and group; means over seeds on test, and what was removed of the group.",
            comparison,
            columns(*ARM, "group", "num_examples", "num_removed_of_group", *COMPARED),
            NO_TRIALS,
        ),
    ]


def score_tables(results: Results) -> list[TableView]:
    """What the methods say of the train examples, how far they agree, and what was removed."""
    return [
        table_view(
            "removed",
            "What was removed",
            "One row per arm, number removed, and group and label of train; means over seeds.",
            removed_table(results),
            columns(
                *("method", "num_removed", "group", "label_name", "num_removed_of_cell", "num_train_of_cell"),
                *("share", "share_by_chance", "ratio"),
            ),
            "The store does not hold what was removed, or nothing was.",
        ),
        table_view(
            "agreement",
            "How far the methods agree",
            "One row per two methods and measure, over their alignments of the train examples.",
            agreement_table(results).rename(columns={"measure": "agreement"}),
            columns("first", "second", "agreement", "num_removed", "value", "by_chance"),
            "Fewer than two methods have alignments in the store.",
        ),
        _range_table(results),
        table_view(
            "distribution",
            "Examples by split, group and label",
            "One row per split, group and label.",
            distribution_table(results),
            columns("split", "group", "label_name", "num_examples"),
            "The store holds no examples and no trials to count them by.",
        ),
    ]


def _range_table(results: Results) -> TableView:
    ranges = score_ranges(results)
    parts = ["group", "label_name", "query_set"]
    return table_view(
        "ranges",
        "How far scores and alignments reach",
        "One row per method and part of train. A score is the effect of a train example on the "
        f"{results.explained} of a query set: above 0 it raises it. An alignment weighs the scores of all groups: "
        "low hurts those that fail.",
        ranges.assign(**{name: ranges[name].astype("object").fillna("all") for name in parts}),
        columns("method", "quantity", *parts, "num_values", "min", "mean", "max", "std"),
        NO_SCORES,
    )


def example_tables(results: Results) -> list[TableView]:
    """The train examples of lowest and of highest alignment of each method, the texts veiled."""
    views: list[TableView] = []
    for method in results.alignments:
        for end, best in (("most harmful", False), ("most helpful", True)):
            frame = examples_table(results, method, NUM_EXAMPLES, best)
            scores = [_score_of(name) for name in scores_of(frame)]
            views.append(
                table_view(
                    f"examples-{len(views)}",
                    f"{method}: the {end}",
                    f"The {len(frame)} train examples of {'highest' if best else 'lowest'} alignment.",
                    frame,
                    [*columns("rank"), TEXT, *columns(*ABOUT_EXAMPLE), *scores],
                )
            )
    return views


def lds_tables(results: Results) -> list[TableView]:
    """How well each method's scores predict retraining: over all, and by group; none for other experiments."""
    if results.lds.empty:
        return []
    study = ("keep_share", "subset_seeds", "kind")
    of_study = ("num_subsets", "fits_per_subset", "scoring_seconds")
    return [
        table_view(
            "lds-table",
            "Linear datamodeling scores",
            "One row per method, share of train that is kept, and group or mean; of each over the most subsets that "
            "are stored.",
            lds_table(results),
            columns("method", *study, "target", "lds", "ceiling", "fit_correlation", *of_study),
        ),
        table_view(
            "lds-differences",
            "Methods beside each other",
            "One row per two methods; the difference of their mean LDS over the same subsets.",
            lds_differences(results),
            columns(*study, "first", "second", "lds_difference", "verdict", "num_subsets"),
            "Fewer than two methods were held against the same fits.",
        ),
        *_leaderboard_views(results),
        effects_view(results),
    ]


def _leaderboard_views(results: Results) -> list[TableView]:
    """The methods by all that judges them; none without an LDS under the base models' seeds and one across seeds."""
    table = leaderboard_table(results)
    if table.empty:
        return []
    measures = [measure.name for measure in MEASURES if measure.name in table]
    number = ["num_removed"] if "num_removed" in table else []
    return [
        table_view(
            "leaderboard",
            "The leaderboard",
            "One row per method. Each LDS is of the study that keeps the most of train; effects are on test, less "
            "random removal of as many at the same seeds, of the largest number removed. Which differences are within "
            "noise, leaderboard.md and leaderboard.csv say.",
            table,
            columns("method", *measures, *number, "scoring_seconds"),
        )
    ]


def effects_view(results: Results) -> TableView:
    """What removal by each alignment changes."""
    return table_view(
        "removal-effects",
        "What removal changes",
        "One row per method, number removed, reference, split and what is changed, where the examples of lowest "
        "alignment go; means over seeds.",
        effect_table(results),
        columns("method", "num_removed", "reference", "split", "effect_on", "effect", "num_pairs"),
        "The store holds no trial that removes by alignment, with one to compare it with (--removal-shares).",
    )


TEXT = Column(
    name="text",
    label="text",
    explanation=f"The text, hidden until it is asked for; the first {MAX_TEXT} characters of a longer one.",
    write=lambda text: shortened(text, MAX_TEXT),
    is_number=False,
    is_veiled=True,
)


def _accuracy_of(group: str) -> Column:
    known = {"all": "all test examples", "worst": "the group that is worst in each model"}
    known["worst_cell"] = "the group and label that is worst in each model"
    explanation = f"Mean test accuracy over seeds of {known.get(group, group)}."
    return Column(group, shortened(group, MAX_LABEL), explanation, FORMATS["percent"])


def _score_of(name: str) -> Column:
    query_set = name.removeprefix("score_")
    explanation = f"Effect of the example on {query_set}, on what the target asks of it: above 0 it raises that."
    return Column(name, f"score: {shortened(query_set, MAX_LABEL)}", explanation, FORMATS["number"])


def _chosen_arms(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    chosen = {(BASE, 0), *chosen_numbers(results).items()}
    arms: Sequence[tuple[str, int]] = list(table[["method", "num_removed"]].itertuples(index=False, name=None))
    return table[[arm in chosen for arm in arms]]
