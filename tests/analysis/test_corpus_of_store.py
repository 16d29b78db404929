import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
from made_up_store import MadeUp

from d3m_ray.analysis.corpus import distribution_table, group_names, label_names, named, train_examples
from d3m_ray.analysis.identities import identity_names
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store


def without(results: Results, folder: Path, *tables: str) -> Results:
    copied = shutil.copytree(str(results.store), folder / "store")
    for table in tables:
        shutil.rmtree(Path(copied) / table)
    (found,) = read_results(Store(copied))
    return found


def test_every_cell_of_every_split_is_counted(results: Results, made: MadeUp) -> None:
    table = distribution_table(results)
    assert list(table) == ["split", "group", "label_name", "num_examples"]
    rows = results.examples
    expected = [
        (
            split,
            group,
            label,
            int(((rows["split"] == split) & (rows["group"] == group) & (rows["label_name"] == label)).sum()),
        )
        for split in ("train", "val", "test")
        for group in sorted(made.groups)
        for label in made.label_names
    ]
    assert list(table.itertuples(index=False, name=None)) == expected
    assert table["num_examples"].dtype == "int64"


def test_an_empty_cell_has_a_row(results: Results, made: MadeUp, other_results: Callable[..., Results]) -> None:
    rows = results.examples
    first = (rows["group"] == made.groups[0]) & (rows["label"] == 0) & (rows["split"] == "val")
    fewer = other_results(examples=rows[~first])
    table, whole = distribution_table(fewer), distribution_table(results)
    changed = table[table["num_examples"] != whole["num_examples"]]
    assert changed.to_numpy().tolist() == [["val", made.groups[0], made.label_names[0], 0]]


def test_without_the_corpus_the_other_tables_tell(results: Results, tmp_path: Path) -> None:
    older = without(results, tmp_path, "examples")
    pd.testing.assert_frame_equal(distribution_table(older), distribution_table(results))
    columns = ["example_id", "group", "label", "label_name"]
    pd.testing.assert_frame_equal(train_examples(older)[columns], train_examples(results)[columns])
    assert train_examples(older)["text"].isna().all()
    assert train_examples(results)["text"].notna().all()


def test_a_split_of_which_the_store_knows_nothing_has_no_rows(results: Results, tmp_path: Path) -> None:
    only_train = distribution_table(without(results, tmp_path / "one", "examples", "trials"))
    assert set(only_train["split"]) == {"train"}
    no_train = distribution_table(without(results, tmp_path / "two", "examples", "alignments"))
    assert set(no_train["split"]) == {"val", "test"}
    nothing = without(results, tmp_path / "three", "examples", "alignments", "trials")
    assert distribution_table(nothing).empty
    assert group_names(nothing) == []


def test_a_group_with_a_slash_is_no_cell(results: Results, made: MadeUp) -> None:
    rows = results.all_trials["group"].unique()
    assert identity_names(rows, made.label_names) == group_names(results) == sorted(made.groups)


def test_without_the_labels_names_a_row_that_others_go_on_from_is_an_identity(results: Results, made: MadeUp) -> None:
    assert identity_names(results.all_trials["group"].unique(), ()) == sorted(made.groups)
    rows = ["ant", "ant/0", "ant/1", "ant/eater", "ant/eater/1", "bee", "bee/1", "all", "worst"]
    assert identity_names(rows, ()) == ["ant", "ant/eater", "bee"]


def test_a_label_without_a_name_is_its_number(results: Results, made: MadeUp) -> None:
    unnamed = Results(
        results.store, replace(results.record, configuration={"dataset": "d", "model": "m"}), results.trials
    )
    assert named(unnamed, pd.Series([2, 0, 7])).tolist() == ["2", "0", "7"]
    unnamed.__dict__["examples"] = results.examples
    assert label_names(unnamed) == list(made.label_names), "those that the corpus has"
