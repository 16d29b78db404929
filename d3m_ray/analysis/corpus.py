"""The corpus as the store knows it: its groups, its labels, its train examples, and how many each cell has.

A store of an earlier version has no `examples` table; what its other tables say of the corpus is used instead.
"""

import pandas as pd

from d3m_ray.analysis.identities import identity_names
from d3m_ray.analysis.results import Results
from d3m_ray.metrics.groups import CELL_SEPARATOR
from d3m_ray.records import SPLIT_NAMES

CELL = ["group", "label_name"]
_SPLIT_AND_CELL = ["split", *CELL]


def named(results: Results, labels: pd.Series) -> pd.Series:
    """The name of each label; its number where the record has no names."""
    names = dict(enumerate(results.label_names))
    return labels.map({label: names.get(label, str(label)) for label in set(labels)}).astype("str")


def label_names(results: Results) -> list[str]:
    """The names of all labels, in the order of their numbers; those that train has where the record has no names."""
    return list(results.label_names) or list(dict.fromkeys(train_examples(results).sort_values("label")["label_name"]))


def train_examples(results: Results) -> pd.DataFrame:
    """One row per train example, in train order: `example_id`, `group`, `label`, `label_name` and `text`.

    Without an `examples` table, the rows of the first alignment with missing texts; empty where there is none either.
    """
    columns = ["example_id", "group", "label", "label_name", "text"]
    rows = results.examples
    rows = rows[rows["split"] == "train"]
    if rows.empty:
        aligned = next(iter(results.alignments.values()), None)
        if aligned is None:
            return rows[columns]
        texts = pd.Series(pd.NA, index=aligned.index, dtype="str")
        rows = aligned.assign(label_name=named(results, aligned["label"]), text=texts)
    return rows[columns].reset_index(drop=True)


def group_names(results: Results) -> list[str]:
    """The groups, sorted: those of the `examples` table, of train and of the trials."""
    return sorted({*results.examples["group"], *train_examples(results)["group"], *trial_identities(results)})


def trial_identities(results: Results) -> list[str]:
    """The identities that the trials have rows of, sorted."""
    return identity_names(results.all_trials["group"].unique(), label_names(results))


def distribution_table(results: Results) -> pd.DataFrame:
    """How many examples each group has by label in each split: `split`, `group`, `label_name`, `num_examples`.

    Splits in the order of the story, groups sorted, labels by their numbers; a cell without examples has a row. Without
    an `examples` table train is counted in an alignment, val and test come from the sizes of the trials' cells; a split
    of which the store knows nothing has no rows.
    """
    counts = _counted(results) if len(results.examples) else _derived(results)
    splits = [split for split in SPLIT_NAMES if split in counts.index.unique("split")]
    names = label_names(results)
    labels = [*names, *sorted(set(counts.index.unique("label_name")) - set(names))]
    cells = pd.MultiIndex.from_product([splits, group_names(results), labels], names=_SPLIT_AND_CELL)
    return counts.reindex(cells, fill_value=0).rename("num_examples").reset_index()


def _counted(results: Results) -> pd.Series:
    return results.examples.groupby(_SPLIT_AND_CELL).size()


def _derived(results: Results) -> pd.Series:
    """Of the splits that can be told, by split, group and label name."""
    counts = [train_examples(results).assign(split="train").groupby(_SPLIT_AND_CELL).size()]
    for split in ("val", "test"):
        sizes = results.trials_of(split).drop_duplicates("group").set_index("group")["num_examples"]
        groups = [name for name in trial_identities(results) if name in sizes.index]
        cells = pd.MultiIndex.from_product([[split], groups, results.label_names], names=_SPLIT_AND_CELL)
        of_cells = sizes.reindex([f"{group}{CELL_SEPARATOR}{name}" for _, group, name in cells], fill_value=0)
        counts.append(of_cells.set_axis(cells))
    return pd.concat(counts)
