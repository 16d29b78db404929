"""Corpora of one's own: whatever the format, the columns and the way to the splits, the same rows come out."""

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d3m_ray.data.corpora import load_splits
from d3m_ray.data.own_options import Own
from d3m_ray.data.sampling import cut_by_share
from d3m_ray.errors import InputError
from d3m_ray.records import Examples, Splits

WORDS = ("no", "maybe", "yes")


def made_rows(split: str, num_rows: int = 12) -> pd.DataFrame:
    rows = [(f"{split} walk {i}, by the sea", WORDS[i % 3], ("ant", "bee")[i // 3 % 2]) for i in range(num_rows)]
    return pd.DataFrame(rows, columns=["text", "label", "group"])


ROWS = {split: made_rows(split) for split in ("train", "val", "test")}
WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "json": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "jsonl.gz": lambda frame, path: path.write_bytes(
        gzip.compress(frame.to_json(orient="records", lines=True).encode())
    ),
}


def write(folder: Path, ending: str, frames: dict[str, pd.DataFrame] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in frames.items():
        WRITERS[ending](frame, folder / f"{name}.{ending}")
    return folder


def cells(splits: Splits, examples: Examples) -> Counter[tuple[str, str]]:
    groups, labels = splits.group_names, splits.label_names
    return Counter((groups[g], labels[label]) for g, label in zip(examples.groups, examples.labels, strict=True))


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_rows(ending: str, tmp_path: Path) -> None:
    splits = load_splits(Own(labels=WORDS), write(tmp_path / "walks", ending))
    assert (splits.name, splits.group_names, splits.label_names) == ("walks", ("ant", "bee"), WORDS)
    assert splits.train.texts == tuple(ROWS["train"]["text"])
    assert splits.val.example_ids.tolist() == [f"val/{row}" for row in range(12)]
    assert [WORDS[label] for label in splits.test.labels] == ROWS["test"]["label"].tolist()
    assert splits.num_dropped == {}
    assert splits.content_hash() == load_splits(Own(labels=WORDS), write(tmp_path / "other", "csv")).content_hash()


def test_one_file_with_a_split_column_gives_what_files_give(tmp_path: Path) -> None:
    spelled = {"train": "Train", "val": "validation", "test": "test"}
    both = pd.concat([frame.assign(split=spelled[split]) for split, frame in ROWS.items()])
    folder = write(tmp_path / "walks", "csv", {"all": both})
    splits = load_splits(Own(split_column="split"), folder)
    expected = load_splits(Own(), write(tmp_path / "files", "csv"))
    assert splits.test.texts == expected.test.texts
    assert splits.test.example_ids.tolist() == [f"test/{row}" for row in range(24, 36)], "the row of the one file"
    assert splits.label_names == ("maybe", "no", "yes"), "words by alphabet"
    assert load_splits(Own(split_column="split"), folder / "all.csv").content_hash() == splits.content_hash()


def test_numbers_are_labels_in_their_order_however_they_are_written(tmp_path: Path) -> None:
    numbers = {"no": 2, "maybe": 10, "yes": -1}
    frames = {split: frame.assign(label=frame["label"].map(numbers)) for split, frame in ROWS.items()}
    whole = load_splits(Own(), write(tmp_path / "whole", "csv", frames))
    assert whole.label_names == ("-1", "2", "10")
    as_floats = {split: frame.assign(label=frame["label"].astype(float)) for split, frame in frames.items()}
    for ending in ("csv", "parquet"):
        other = load_splits(Own(), write(tmp_path / ending, ending, as_floats))
        assert other.content_hash() == whole.content_hash()
    turned = load_splits(Own(labels=("10", "2", "-1")), tmp_path / "whole")
    np.testing.assert_array_equal(turned.train.labels, 2 - whole.train.labels)


def test_true_and_false_are_labels_in_every_format(tmp_path: Path) -> None:
    frames = {split: frame.assign(label=frame["label"] == "yes") for split, frame in ROWS.items()}
    hashes = {
        ending: load_splits(Own(), write(tmp_path / ending, ending, frames)) for ending in ("csv", "parquet", "jsonl")
    }
    assert {splits.label_names for splits in hashes.values()} == {("False", "True")}
    assert len({splits.content_hash() for splits in hashes.values()}) == 1


def test_scores_at_the_threshold_and_numbered_groups_are_those_of_every_format(tmp_path: Path) -> None:
    columns = {"label": [0.7, 0.69, 0.9, 0.1] * 3, "group": [0.1, 0.1, 0.7, 0.7] * 3, "ant": [0.7, 0.2, 0.69] * 4}
    frames = {split: frame.assign(**columns) for split, frame in ROWS.items()}
    short = {split: frame.astype(dict.fromkeys(columns, "float32")) for split, frame in frames.items()}
    folders = write(tmp_path / "csv", "csv", frames), write(tmp_path / "short", "parquet", short)
    by_group = [load_splits(Own(label_threshold=0.7), folder) for folder in folders]
    assert [splits.group_names for splits in by_group] == [("0.1", "0.7")] * 2
    assert by_group[0].train.labels.tolist() == by_group[1].train.labels.tolist() == [1, 0, 1, 0] * 3
    options = Own(label_threshold=0.7, identity_columns=("ant",), identity_threshold=0.7)
    by_identity = [load_splits(options, folder) for folder in folders]
    assert by_identity[0].content_hash() == by_identity[1].content_hash()


def test_blanks_around_the_words_of_an_option_do_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path / "walks", "csv")
    plain = load_splits(Own(labels=WORDS), folder)
    assert load_splits(Own(labels=(" no", "maybe ", "yes")), folder).content_hash() == plain.content_hash()


def test_bytes_and_categories_of_a_parquet_file_are_texts_and_words(tmp_path: Path) -> None:
    frames = {
        split: frame.assign(text=frame["text"].str.encode("utf-8"), label=frame["label"].astype("category"))
        for split, frame in ROWS.items()
    }
    splits = load_splits(Own(), write(tmp_path / "bytes", "parquet", frames))
    assert splits.content_hash() == load_splits(Own(), write(tmp_path / "plain", "csv")).content_hash()


def test_several_columns_are_one_text_or_one_group(tmp_path: Path) -> None:
    frames = {s: f.assign(title=[f"Walk {i}" for i in range(12)], place=["sea", "hill"] * 6) for s, f in ROWS.items()}
    options = Own(text_columns=("title", "text"), group_columns=("group", "place"))
    splits = load_splits(options, write(tmp_path / "walks", "csv", frames))
    assert splits.train.texts[1] == "Walk 1 | train walk 1, by the sea"
    assert splits.group_names == ("ant & hill", "ant & sea", "bee & hill", "bee & sea")
    assert splits.notes == ("text is title | text", "group is group & place")


def test_parts_of_a_split_are_one_split(tmp_path: Path) -> None:
    frames = {"train-00000-of-00002": ROWS["train"][:5], "train-00001-of-00002": ROWS["train"][5:]}
    folder = write(tmp_path / "walks", "parquet", frames | {"validation": ROWS["val"], "test": ROWS["test"]})
    assert load_splits(Own(), folder).content_hash() == load_splits(Own(), write(tmp_path / "w", "csv")).content_hash()
    write(folder, "parquet", {"train-00001-of-00002": ROWS["train"][5:].assign(label=None)})
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet, row 0: an example has a label.*6 more rows"):
        load_splits(Own(), folder)


def test_parts_of_older_hubs_and_what_is_no_data_are_known(tmp_path: Path) -> None:
    ends = {"train": "-0123abcd", "val": "-b42a775f407cee45", "test": ""}
    frames = {f"{split}-00000-of-00001{end}": ROWS[split] for split, end in ends.items()}
    folder = write(tmp_path / "walks", "parquet", frames)
    for name in ("dataset_infos.json", "README.json", ".hidden.csv", "notes.txt", "train.log"):
        (folder / name).write_text("{}")
    expected = load_splits(Own(), write(tmp_path / "plain", "csv"))
    assert load_splits(Own(), folder).content_hash() == expected.content_hash()


def test_a_mark_carriage_returns_and_lines_inside_a_text_are_read(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbftext,label,group\r\n"a walk,\r\nand ""tea""",no,ant\r\nb,yes,ant\r\n'
    (tmp_path / "train.csv").write_bytes(content)
    for split in ("val", "test"):
        (tmp_path / f"{split}.csv").write_text(f"text,label,group\n{split} walk,no,ant\n")
    splits = load_splits(Own(name="tea"), tmp_path)
    assert splits.name == "tea"
    assert splits.train.texts == ('a walk,\r\nand "tea"', "b")


@pytest.mark.parametrize(
    ("folder", "name"), [("my corpus (2)", "my_corpus_2_"), ("..", None), ("_x", "x"), ("é", "own")]
)
def test_a_corpus_is_called_like_its_folder(folder: str, name: str | None, tmp_path: Path) -> None:
    path = tmp_path / "inside" / folder
    (tmp_path / "inside").mkdir()
    splits = load_splits(Own(), write(path, "csv"))
    assert splits.name == (name or tmp_path.name)


# --- cut by share ---------------------------------------------------------------------------------------------------


def test_every_group_and_label_gives_its_share(tmp_path: Path) -> None:
    folder = write(tmp_path / "walks", "csv", {"walks": made_rows("one", 120)})
    splits = load_splits(Own(val_share=0.1), folder)
    assert set(cells(splits, splits.train).values()) == {14}
    assert set(cells(splits, splits.val).values()) == {2}
    assert set(cells(splits, splits.test).values()) == {4}
    assert "val (10%) and test (20%) cut off train, seed 0" in splits.notes
    again = load_splits(Own(val_share=0.1), folder)
    other = load_splits(Own(val_share=0.1, split_seed=1), folder)
    assert again.content_hash() == splits.content_hash() != other.content_hash()
    rows = {
        int(i.split("/")[1]): text
        for e in splits.by_name().values()
        for i, text in zip(e.example_ids, e.texts, strict=True)
    }
    assert rows == dict(enumerate(made_rows("one", 120)["text"])), "an id names the row of the file"


def test_only_what_is_missing_is_cut(tmp_path: Path) -> None:
    folder = write(tmp_path / "walks", "csv", {split: ROWS[split] for split in ("train", "test")})
    splits = load_splits(Own(val_share=0.5), folder)
    assert splits.test.texts == tuple(ROWS["test"]["text"])
    assert (len(splits.train), len(splits.val)) == (6, 6)
    assert set(splits.train.texts) | set(splits.val.texts) == set(ROWS["train"]["text"])


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_keeps_texts_together_and_every_group_everywhere(seed: int) -> None:
    """Over random tables of few, uneven groups and repeated texts."""
    rng = np.random.default_rng(seed)
    num_texts = int(rng.integers(9, 60))
    groups = np.sort(np.concatenate([np.repeat([0, 1, 2], 3), rng.choice(3, size=num_texts - 9, p=[0.7, 0.2, 0.1])]))
    texts = pd.DataFrame({"text": [f"walk {i}" for i in range(num_texts)], "group": groups})
    texts["label"] = rng.integers(0, 3, size=num_texts)
    frame = texts.loc[np.concatenate([np.arange(num_texts), rng.integers(num_texts, size=10)])].reset_index(drop=True)
    frame.loc[num_texts:, "text"] = frame.loc[num_texts:, "text"].str.upper() + " "
    shares = {"val": float(rng.uniform(0.05, 0.4)), "test": float(rng.uniform(0.05, 0.4))}
    rest, parts = cut_by_share(frame, shares, np.random.default_rng(seed))
    every = [rest, *parts.values()]
    assert sorted(index for part in every for index in part.index) == list(range(len(frame)))
    keys = [set(part["text"].str.strip().str.lower()) for part in every]
    assert sum(map(len, keys)) == len(set.union(*keys)), "no text in two parts"
    for part in every:
        assert set(part["group"]) == {0, 1, 2}
    for part, share in shares.items():
        for group, of_group in texts.groupby("group"):
            num_texts_taken = parts[part][parts[part]["group"] == group]["text"].str.strip().str.lower().nunique()
            assert abs(num_texts_taken - share * len(of_group)) <= 1 or len(of_group) < 5


# --- rows that break a rule -----------------------------------------------------------------------------------------


def test_bad_rows_are_left_out_and_counted_if_asked(tmp_path: Path) -> None:
    train = [
        (" ", "no", "ant"),
        ("a cap", None, "ant"),
        ("a hat", "no", None),
        ("a coat", "no", "bee"),
        ("a coat", "yes", "bee"),
        ("VAL walk 0,  by the sea", "no", "ant"),
        (ROWS["test"]["text"][0], "no", "ant"),
        (ROWS["train"]["text"][0], "no", "ant"),
    ]
    more = pd.DataFrame(train, columns=["text", "label", "group"])
    val = pd.concat([ROWS["val"], ROWS["test"][:1]])
    folder = write(tmp_path / "walks", "csv", ROWS | {"train": pd.concat([ROWS["train"], more]), "val": val})
    splits = load_splits(Own(bad_rows="drop"), folder)
    assert splits.content_hash() == load_splits(Own(), write(tmp_path / "plain", "csv")).content_hash()
    assert splits.num_dropped == {
        "row without text": 1,
        "row without label": 1,
        "row without group": 1,
        "train row of a text with two labels": 2,
        "train row repeats another": 1,
        "train text also in test": 1,
        "train text also in val": 1,
        "val text also in test": 1,
    }


def test_a_row_repeats_another_that_reads_alike(tmp_path: Path) -> None:
    more = pd.DataFrame([("A\u200b  Café ", "no", "ant"), ("a cafe\u0301", "no", "ant")], columns=list(ROWS["train"]))
    folder = write(tmp_path / "walks", "csv", ROWS | {"train": pd.concat([ROWS["train"], more])})
    splits = load_splits(Own(), folder)
    assert splits.train.texts[12:] == ("A\u200b  Café ",), "the first one's text, as it stands"
    assert splits.num_dropped == {"train row repeats another": 1}
    write(folder, "csv", {"train": pd.concat([ROWS["train"], more.assign(label=["no", "yes"])])})
    with pytest.raises(InputError, match=r"train\.csv, line 15: a text has one label per group"):
        load_splits(Own(), folder)
    dropped = load_splits(Own(bad_rows="drop"), folder)
    assert dropped.train.texts == tuple(ROWS["train"]["text"])
    assert dropped.num_dropped == {"train row of a text with two labels": 2}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("column", ["label", "group"])
def test_truths_beside_numbers_are_refused(ending: str, column: str, tmp_path: Path) -> None:
    mixed = {s: f.assign(**{column: [True, False, 1, 0] * 3}) for s, f in ROWS.items()}
    mixed = {split: frame.astype({column: object}) for split, frame in mixed.items()}
    with pytest.raises(InputError, match=rf"the {column}s of .* received \['0', '1', 'False', 'True'\]"):
        load_splits(Own(), write(tmp_path / "walks", ending, mixed))


def test_groups_that_read_alike_are_no_small_groups(tmp_path: Path) -> None:
    val = ROWS["val"].replace({"group": {"ant": "Ant"}})
    with pytest.raises(InputError, match=r"two groups of corpus 'walks' .* received 'Ant' and 'ant'"):
        load_splits(Own(min_group_size=1), write(tmp_path / "walks", "csv", ROWS | {"val": val}))


def test_rows_without_a_split_are_left_out_and_counted_if_asked(tmp_path: Path) -> None:
    blank = made_rows("more", 3).assign(split=[None, " ", ""], label="another")
    every = pd.concat([*(frame.assign(split=split) for split, frame in ROWS.items()), blank])
    folder = write(tmp_path / "walks", "csv", {"all": every})
    splits = load_splits(Own(split_column="split", bad_rows="drop"), folder)
    assert [len(examples) for examples in splits.by_name().values()] == [12, 12, 12]
    assert splits.label_names == ("maybe", "no", "yes")
    assert splits.num_dropped == {"row without split": 3}


def test_small_groups_are_left_out_and_counted_if_asked(tmp_path: Path) -> None:
    more = pd.DataFrame([("a cap", "no", "cat"), ("a hat", "no", "dog")], columns=["text", "label", "group"])
    val = pd.concat([ROWS["val"], more[1:].assign(text="a scarf")])
    folder = write(tmp_path / "walks", "csv", ROWS | {"train": pd.concat([ROWS["train"], more]), "val": val})
    splits = load_splits(Own(min_group_size=1), folder)
    assert splits.group_names == ("ant", "bee")
    assert splits.num_dropped == {"row of a group with fewer than 1 rows in a split": 3}


# --- corpora as they are published ----------------------------------------------------------------------------------


def civil_comments() -> pd.DataFrame:
    """The schema of WILDS's all_data_with_identities.csv, with harmless text."""
    identities = {"male": [0.9, 0.0, 0.6, 0.0], "female": [0.0, 0.5, 0.7, 0.0], "LGBTQ": [0.0, 0.1, 0.0, 0.49]}
    rows = [
        {
            "id": 1000 + row,
            "comment_text": f"the {split} picnic,\nnumber {row}",
            "split": split,
            "created_date": "2017-01-01",
            "toxicity": (0.5, 0.1, 0.8, 0.0)[row // 4 % 4],
            **{name: scores[row % 4] for name, scores in identities.items()},
            "identity_any": 1.0,
        }
        for split in ("train", "val", "test")
        for row in range(16)
    ]
    return pd.DataFrame(rows)


def test_civil_comments_as_wilds_publishes_it(tmp_path: Path) -> None:
    civil_comments().to_csv(tmp_path / "all_data_with_identities.csv")
    options = Own(
        name="civilcomments",
        text_columns=("comment_text",),
        label_column="toxicity",
        label_threshold=0.5,
        labels=("civil", "toxic"),
        split_column="split",
        identity_columns=("male", "female", "LGBTQ"),
        min_group_size=1,
        bad_rows="drop",
    )
    splits = load_splits(options, tmp_path)
    assert splits.group_names == ("female", "male", "none")
    assert splits.label_names == ("civil", "toxic")
    assert cells(splits, splits.train) == {
        (group, label): size
        for group, size in (("male", 4), ("female", 2), ("none", 2))
        for label in ("civil", "toxic")
    }
    assert len(splits.train) == 16, "each row once"
    assert len(splits.val) == 20, "a row of two identities twice"
    assert splits.val.example_ids[:4].tolist() == ["val/16/male", "val/17/female", "val/18/male", "val/18/female"]
    assert splits.train.example_ids[2] == "train/2"
    both = [
        splits.group_names[g]
        for g, i in zip(splits.train.groups, splits.train.example_ids, strict=True)
        if int(i[6:]) % 4 == 2
    ]
    assert both == ["male"] * 4, "as rare as the other: the first named"
    assert splits.num_dropped == {}
    assert splits.notes[0] == "label toxic where toxicity >= 0.5, else civil"


def test_multinli_as_the_group_robustness_papers_publish_it(tmp_path: Path) -> None:
    rows = [
        {
            "gold_label": row % 3,
            "sentence1": f"The picnic of day {row} was long.",
            "sentence2": f"It was {'never' if row % 2 else 'always'} long, on day {row}.",
            "split": (0, 0, 1, 2)[row // 6 % 4],
            "sentence2_has_negation": row % 2,
        }
        for row in range(48)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "metadata_random.csv")
    options = Own(
        text_columns=("sentence1", "sentence2"),
        label_column="gold_label",
        split_column="split",
        split_values=("0", "1", "2"),
        identity_columns=("sentence2_has_negation",),
        no_identity_group="no_negation",
    )
    splits = load_splits(options, tmp_path / "metadata_random.csv")
    assert splits.name == "metadata_random"
    assert [len(examples) for examples in splits.by_name().values()] == [24, 12, 12]
    assert splits.group_names == ("no_negation", "sentence2_has_negation")
    assert splits.label_names == ("0", "1", "2")
    assert splits.train.texts[1] == "The picnic of day 1 was long. | It was never long, on day 1."


def test_jigsaw_as_kaggle_publishes_it(tmp_path: Path) -> None:
    """train.csv, in which identities are blank where nobody was asked, beside a test.csv without labels."""
    annotated = [{"male": 0.6, "female": 0.0}, {"male": 0.0, "female": 1.0}, {"male": 0.1, "female": 0.0}, {}]
    rows = [
        {"id": row, "target": (0.0, 0.7)[row // 4 % 2], "comment_text": f"picnic number {row}", **annotated[row % 4]}
        for row in range(80)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"id": [1], "comment_text": ["a walk"]}).to_csv(tmp_path / "test.csv", index=False)
    options = Own(
        name="jigsaw",
        text_columns=("comment_text",),
        label_column="target",
        label_threshold=0.5,
        identity_columns=("male", "female"),
    )
    splits = load_splits(options, tmp_path / "train.csv")
    assert splits.num_dropped == {"row with a blank identity": 20}
    assert splits.group_names == ("female", "male", "none")
    assert [len(examples) for examples in splits.by_name().values()] == [36, 12, 12]
    read_as_zero = load_splits(Own(**vars(options) | {"missing_identities": "zero"}), tmp_path / "train.csv")
    assert sum(len(examples) for examples in read_as_zero.by_name().values()) == 80
    without = load_splits(Own(**vars(options) | {"no_identity_group": ""}), tmp_path / "train.csv")
    assert without.group_names == ("female", "male")
    assert without.num_dropped == {"row with a blank identity": 20, "row without identity": 20}
    with pytest.raises(InputError, match=r"test\.csv, header: .* target, male, female missing"):
        load_splits(options, tmp_path)


def test_a_row_of_many_identities_trains_under_the_rarest(tmp_path: Path) -> None:
    both = {"ant": 1, "bee": 1}
    rows = [{"ant": 1, "bee": 0}] * 6 + [{"ant": 0, "bee": 1}] * 2 + [both] * 3
    frame = pd.DataFrame(rows)
    frames = {
        split: frame.assign(text=[f"{split} {i}" for i in range(11)], label=["no", "yes"] * 5 + ["no"])
        for split in ("train", "val", "test")
    }
    splits = load_splits(Own(identity_columns=("ant", "bee")), write(tmp_path / "walks", "csv", frames))
    assert np.bincount(splits.train.groups).tolist() == [6, 5]
    assert np.bincount(splits.val.groups).tolist() == [9, 5]
    assert len(set(splits.train.texts)) == len(splits.train)


# --- against a naive reading ----------------------------------------------------------------------------------------

IDENTITIES = ("ant", "bee", "cat")
Row = tuple[str, str, int, str]  # id, text, label, group


def naive_reading(table: pd.DataFrame) -> dict[str, list[Row]]:
    """What `--bad-rows drop`, a threshold and identity columns leave of a table, one plain step after the other."""
    known = [
        (row, r["text"], int(r["score"] >= 0.5), r["split"], [c for c in IDENTITIES if r[c] >= 0.5] or ["none"])
        for row, r in enumerate(table.to_dict("records"))
        if r["text"].strip() and not np.isnan(r["score"])
    ]
    counts = Counter(name for *_, split, names in known if split == "train" for name in names)
    read: dict[str, list[Row]] = {"train": [], "val": [], "test": []}
    for row, text, label, split, names in known:
        if split == "train":
            read[split].append((f"train/{row}", text, label, min(names, key=lambda name: counts[name])))
        else:
            read[split] += [(f"{split}/{row}/{name}", text, label, name) for name in names]
    for split, rows in read.items():
        single = [r for r in rows if len({o[2] for o in rows if text_and_group(o) == text_and_group(r)}) == 1]
        before = [{text_and_group(o) for o in single[:i]} for i in range(len(single))]
        read[split] = [r for r, seen in zip(single, before, strict=True) if text_and_group(r) not in seen]
    for split, other in (("train", "test"), ("train", "val"), ("val", "test")):
        there = {text_and_group(r)[0] for r in read[other]}
        read[split] = [r for r in read[split] if text_and_group(r)[0] not in there]
    return read


def text_and_group(row: Row) -> tuple[str, str]:
    """The text without case and white space, and the group."""
    return " ".join(row[1].lower().split()), row[3]


@pytest.mark.parametrize("seed", range(12))
def test_the_rows_are_those_of_a_naive_reading(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "text": [
                rng.choice([f"Walk {rng.integers(160)}", f"walk  {rng.integers(160)}", f"{i}", " "]) for i in range(150)
            ],
            "score": rng.choice([0.0, 0.2, 0.5, 0.9, np.nan], size=150),
            "split": rng.choice(["train", "train", "val", "test"], size=150),
            **{name: rng.choice([0, 0, 0.4, 0.5, 1], size=150) for name in IDENTITIES},
        }
    )
    table.to_csv(tmp_path / "walks.csv", index=False)
    options = Own(
        label_column="score",
        label_threshold=0.5,
        identity_columns=IDENTITIES,
        split_column="split",
        bad_rows="drop",
    )
    splits = load_splits(options, tmp_path)
    for split, rows in naive_reading(table).items():
        examples = splits.by_name()[split]
        groups = [splits.group_names[group] for group in examples.groups]
        assert list(zip(examples.example_ids, examples.texts, examples.labels, groups, strict=True)) == rows
