from collections import Counter
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from d3m_ray.data.checks import DataError, Table
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.text_files import read_csv
from d3m_ray.data.toxigen import (
    ALIASES,
    ANNOTATED_COLUMNS,
    GROUPS,
    HUB_NAME,
    REDUCED_GROUPS,
    Toxigen,
    annotated_rows,
    clean_text,
    load_toxigen,
)
from d3m_ray.errors import InputError
from d3m_ray.records import Examples, Splits

WriteFolder = Callable[..., Path]
MakeRows = Callable[[int], pd.DataFrame]
SMALL = Toxigen(train_samples_per_group=80, test_samples_per_group=20)


def cells(splits: Splits, examples: Examples) -> Counter[tuple[str, int]]:
    return Counter(
        (splits.group_names[g], int(label)) for g, label in zip(examples.groups, examples.labels, strict=True)
    )


def expected_cells(whole: int, reduced: int) -> dict[tuple[str, int], int]:
    return {(g, label): reduced if label == 0 and g in REDUCED_GROUPS else whole for g in GROUPS for label in (0, 1)}


def test_every_cell_has_its_size(write_toxigen: WriteFolder) -> None:
    splits = load_toxigen(SMALL, write_toxigen())
    assert splits.group_names == tuple(sorted(GROUPS))
    assert cells(splits, splits.train) == expected_cells(32, 8)
    assert cells(splits, splits.val) == expected_cells(8, 2)
    assert cells(splits, splits.test) == expected_cells(10, 10)
    ids = [*splits.train.example_ids, *splits.val.example_ids]
    assert len(set(ids)) == len(ids), "train and val do not overlap"
    assert splits.num_dropped == {}


def test_the_content_of_a_row_stays_together(write_toxigen: WriteFolder) -> None:
    splits = load_toxigen(SMALL, write_toxigen())
    folder = write_toxigen()
    generated, annotated = pd.read_csv(folder / "toxigen.csv"), pd.read_csv(folder / "annotated.csv")
    for examples in splits.by_name().values():
        for i, example_id in enumerate(examples.example_ids):
            source, row = example_id.split("/")
            assert source == ("annotated" if examples.split == "test" else "generated")
            group = splits.group_names[examples.groups[i]]
            if source == "generated":
                found = generated.loc[int(row)]
                assert (found["generation"], found["prompt_label"]) == (examples.texts[i], examples.labels[i])
                assert found["group"] == group
            else:
                found = annotated.loc[int(row)]
                assert found["text"] == repr(examples.texts[i].encode())
                assert (found["toxicity_human"] > 2) == examples.labels[i]
                assert ALIASES.get(found["target_group"], found["target_group"]) == group


def test_the_seed_decides_and_nothing_else(write_toxigen: WriteFolder) -> None:
    folder = write_toxigen()
    first = load_toxigen(SMALL, folder)
    assert load_toxigen(SMALL, folder).content_hash() == first.content_hash()
    other = load_toxigen(Toxigen(80, 20, seed=1), folder)
    assert other.content_hash() != first.content_hash()
    assert set(other.test.example_ids) != set(first.test.example_ids)


def test_groups_are_balanced_within_each_generation_method(
    write_toxigen: WriteFolder, make_generated: MakeRows
) -> None:
    generated = make_generated(100)
    scarce = (generated["group"] == "women") & (generated["generation_method"] == "ALICE")
    generated = generated.drop(generated.index[scarce][4:]).reset_index(drop=True)
    splits = load_toxigen(SMALL, write_toxigen(generated))
    methods = generated["generation_method"].to_numpy()
    ids = np.concatenate([splits.train.example_ids, splits.val.example_ids])
    taken = Counter(methods[int(example_id.split("/")[1])] for example_id in ids)
    assert taken["ALICE"] <= 4 * len(GROUPS), "no group has more of a method than the group with the fewest"
    assert taken["top-k"] > 20 * taken["ALICE"]


def test_val_from_people(write_toxigen: WriteFolder) -> None:
    splits = load_toxigen(Toxigen(80, 20, val_from_annotated=True), write_toxigen())
    assert cells(splits, splits.train) == expected_cells(40, 10), "train keeps all generated rows"
    assert cells(splits, splits.val) == expected_cells(4, 4), "a fifth of the human-labelled rows"
    assert cells(splits, splits.test) == expected_cells(10, 10)
    assert all(example_id.startswith("annotated/") for example_id in splits.val.example_ids)
    assert not set(splits.val.example_ids) & set(splits.test.example_ids)


def test_incomplete_repeated_and_leaked_rows_are_dropped_and_counted(
    write_toxigen: WriteFolder, make_generated: MakeRows, make_annotated: MakeRows
) -> None:
    generated, annotated = make_generated(60), make_annotated(10)
    generated["prompt_label"] = generated["prompt_label"].astype(object)
    generated.loc[0, "generation"] = None
    generated.loc[1, "generation_method"] = "  "
    generated.loc[2, "prompt_label"] = None
    generated.loc[3, "generation"] = generated.loc[4, "generation"].upper()
    generated.loc[6, "generation"] = "b''"
    leaked = clean_text(annotated.loc[0, "text"])
    generated.loc[5, "generation"] = f"  {leaked.upper()} "
    annotated.loc[len(annotated)] = {"text": "b''", "target_group": "asian", "toxicity_human": 1.0, "label": "hate"}
    splits = load_toxigen(SMALL, write_toxigen(generated, annotated))
    assert splits.num_dropped == {
        "generated row without text, group, label or method": 4,
        "generated text repeats another": 1,
        "train text also in test": 1,
        "annotated row without text, group or toxicity": 1,
    }
    assert leaked in splits.test.texts


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("b'a walk'", "a walk"),
        ('b"the dog\'s walk"', "the dog's walk"),
        (r"b'it\'s a walk\n'", "it's a walk"),
        (r"b'caf\xc3\xa9'", "café"),
        (" a plain walk ", "a plain walk"),
        ("b'a 'quoted' walk'", "a 'quoted' walk"),
        ("b'unfinished", "b'unfinished"),
    ],
)
def test_texts_are_taken_out_of_their_wrapping(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "parts"),
    [
        ("generated", 7, "group", "martians", ["toxigen.csv, line 9", "'martians'", "native_american"]),
        ("generated", 7, "prompt_label", 3, ["toxigen.csv, line 9", "prompt_label is 0 or 1", "'3'"]),
        ("annotated", 2, "toxicity_human", 9.5, ["annotated.csv, line 4", "from 1 to 5", "9.5"]),
        ("annotated", 2, "target_group", "the martians", ["annotated.csv, line 4", "'the martians'"]),
    ],
)
def test_an_error_names_file_row_and_value(
    write_toxigen: WriteFolder,
    make_generated: MakeRows,
    make_annotated: MakeRows,
    table: str,
    row: int,
    column: str,
    value: object,
    parts: list[str],
) -> None:
    frames = {"generated": make_generated(2), "annotated": make_annotated(2)}
    frames[table].loc[row, column] = value
    with pytest.raises(DataError) as caught:
        load_toxigen(SMALL, write_toxigen(**frames))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (Toxigen(400, 20), ["toxigen.csv", "--train-samples-per-group asks for 200", "there are 80"]),
        (Toxigen(80, 60), ["annotated.csv", "--test-samples-per-group asks for 30", "there are 20"]),
    ],
    ids=["train", "test"],
)
def test_too_few_rows_are_refused(write_toxigen: WriteFolder, options: Toxigen, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        load_toxigen(options, write_toxigen())
    for part in parts:
        assert part in str(caught.value)


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"toxigen\.csv.* toxigen, annotated missing, it holds nothing"):
        load_splits(Toxigen(), tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"train_samples_per_group": 39}, {"test_samples_per_group": 1}, {"seed": -1}], ids=lambda w: next(iter(w))
)
def test_options_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(wrong)).replace('_', '-')} is at least"):
        Toxigen(**wrong)


def test_parquet_and_the_hub_give_what_csv_gives(
    write_toxigen: WriteFolder,
    make_generated: MakeRows,
    make_annotated: MakeRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generated, annotated = make_generated(40), make_annotated(20)
    expected = load_toxigen(SMALL, write_toxigen(generated, annotated)).content_hash()
    (tmp_path / "parquet").mkdir()
    generated.to_parquet(tmp_path / "parquet" / "toxigen.parquet")
    annotated.to_parquet(tmp_path / "parquet" / "annotated.parquet")
    assert load_toxigen(SMALL, tmp_path / "parquet").content_hash() == expected
    published = write_toxigen(generated)
    (published / "annotated.csv").unlink()
    annotated[:300].to_csv(published / "annotated_train.csv", index=False)
    annotated[300:].drop(columns="label").to_parquet(published / "annotated_test.parquet")
    assert load_toxigen(SMALL, published).content_hash() == expected, "the published files are the hub's"

    def from_hub(name: str, configuration: str, revision: str | None) -> datasets.DatasetDict:
        assert (name, revision) == (HUB_NAME, None)
        frames = (
            {"train": generated} if configuration == "train" else {"train": annotated[:300], "test": annotated[300:]}
        )
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_pandas(frame, preserve_index=False) for split, frame in frames.items()}
        )

    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    assert load_splits(SMALL).content_hash() == expected


def test_a_hub_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", out_of_reach)
    with pytest.raises(DataError, match=r"toxigen/toxigen-data could not be loaded.*no route"):
        load_splits(SMALL)


def test_the_real_annotated_rows_agree_with_the_prepared_ones(test_data_dir: Path) -> None:
    table: Table = read_csv(test_data_dir / "toxigen" / "annotated.csv", ANNOTATED_COLUMNS)
    num_dropped: dict[str, int] = {}
    rows = annotated_rows(table, num_dropped)
    assert (len(rows), sum(num_dropped.values())) == (5999, 1)
    prepared = pd.read_csv(test_data_dir / "toxigen" / "prepared" / "test.csv", keep_default_na=False)
    both = prepared.merge(rows, on="text", suffixes=("", "_here"))
    assert len(both) > 0.94 * len(prepared), "the prepared texts keep the escapes of their wrapping"
    assert (both["label"] == both["label_here"]).all()
    assert (both["group"] == both["group_here"]).all()
