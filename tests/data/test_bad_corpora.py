"""Corpora that break a rule, by the command line: exit 2, one line that says what and where, nothing written."""

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from d3m_ray.cluster import engine
from d3m_ray.commands.sweeps import run_sweep
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.data.own_options import Own
from d3m_ray.data.planted import Planted
from d3m_ray.data.toxigen import Toxigen
from d3m_ray.experiment.config import ExperimentConfig

HEADER = "text,label,group\n"
TRAIN = HEADER + "a red kite,no,ant\na blue kite,yes,ant\na red boat,no,bee\na blue boat,yes,bee\n"
VAL = HEADER + "one kite,no,ant\none boat,yes,bee\n"
TEST = HEADER + "two kites,no,ant\ntwo boats,yes,bee\n"
FILES = {"train.csv": TRAIN, "val.csv": VAL, "test.csv": TEST}
ROWS = [
    {"text": f"walk {i} by the sea", "label": "no" if i % 2 else "yes", "group": "ab"[i // 2 % 2]} for i in range(40)
]
FRAME = pd.DataFrame(ROWS)
GENERATED = "generation,generation_method,group,prompt_label\n"
ANNOTATED = "text,target_group,toxicity_human\n"
POST = {"post_tokens": ["a", "walk"], "annotators": [{"label": "normal", "target": ["African"]}] * 3}


@dataclass(frozen=True)
class Bad:
    """A corpus as files, the flags that go with it, and what must be said of it."""

    files: Mapping[str, str | bytes]
    says: Sequence[str]
    flags: Sequence[str] = ()
    options: Any = field(default_factory=Own)
    file: str = ""
    """Given to --data in the place of the folder."""


def parquet(frame: pd.DataFrame = FRAME, **columns: object) -> bytes:
    buffer = io.BytesIO()
    frame.assign(**columns).to_parquet(buffer)
    return buffer.getvalue()


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def csv(frame: pd.DataFrame = FRAME, **columns: object) -> str:
    return frame.assign(**columns).to_csv(index=False)


def own(says: Sequence[str], *flags: str, file: str = "", **changed: str | bytes) -> Bad:
    """train.csv, val.csv and test.csv, those of the given names (`train` for train.csv) changed."""
    return Bad(FILES | {f"{name}.csv": content for name, content in changed.items()}, says, flags, file=file)


def single(name: str, content: str | bytes, says: Sequence[str], *flags: str) -> Bad:
    return Bad({name: content}, says, flags, file=name)


def toxigen(says: Sequence[str], files: Mapping[str, str | bytes], *flags: str) -> Bad:
    return Bad(files, says, flags, Toxigen())


def hatexplain(says: Sequence[str], post: Mapping[str, object], **divisions: object) -> Bad:
    files = {
        "dataset.json": json.dumps({"p1": post, "p2": POST, "p3": POST}),
        "post_id_divisions.json": json.dumps({"train": ["p1"], "val": ["p2"], "test": ["p3"]} | divisions),
    }
    return Bad(files, says, options=Hatexplain())


def odd(value: object) -> list[object]:
    """A column of `FRAME`'s length whose row 3 is the value."""
    return ["yes", "no", "no", value, *["yes"] * 36]


def annotator(**changed: object) -> Mapping[str, object]:
    return POST | {"annotators": [POST["annotators"][0] | changed] * 3}  # type: ignore[index]


BAD = {
    # --- the source
    "no --data": Bad({}, ["name its folder or file with --data, received none"], file="-"),
    "a folder that is not there": Bad({}, ["--data is a folder or a file of CSV", "absent'"], file="absent"),
    "an empty folder": Bad({}, ["it holds nothing", "name another folder"]),
    "a folder of other things": Bad({"notes.txt": "a"}, ["it holds notes.txt", "add a table"]),
    "several tables": Bad({"a.csv": TRAIN, "b.csv": VAL}, ["it holds a.csv, b.csv", "--data FOLDER/FILE"]),
    "a file of another kind": single("a.xlsx", b"a", ["a table ends in .csv, .csv.gz", "write it as one of these"]),
    "test alone": Bad({"test.csv": TEST}, ["holds a train file at least", "it holds test.csv"]),
    "a split twice": Bad(FILES | {"dev.csv": VAL}, ["a split has one file", "dev.csv, val.csv", "keep one"]),
    "half of the parts": Bad(
        FILES | {"train.csv": TRAIN, "train-00000-of-00002.parquet": parquet()}, ["a split has one file", "train has"]
    ),
    "a part missing": Bad({"train-00001-of-00002.parquet": parquet()}, ["add the missing part"]),
    "a part twice": Bad(
        {f"train-00000-of-00001-{end}.parquet": parquet() for end in ("0123abcd", "4567abcd")}, ["a split has one file"]
    ),
    "a test file of another name": Bad(
        FILES | {"test.csv": TEST, "test_set.csv": TEST, "README.csv": HEADER},
        ["test_set.csv would not be, beside test.csv, train.csv, val.csv", "name one file with --data"],
    ),
    "a val file of another name": Bad({"train.csv": TRAIN, "eval.csv": VAL, "test_set.csv": TEST}, ["eval.csv, test_"]),
    "a test folder": Bad({"train.csv": TRAIN, "test/part.csv": TEST}, ["test/part.csv would not be, beside train.csv"]),
    "a test folder without tables": Bad({"train.csv": TRAIN, "test/a.arrow": b"a"}, ["; test would not be"]),
    "a test file that nothing reads": Bad({"train.csv": TRAIN, "test.csv.bz2": b"a"}, ["; test.csv.bz2 would not be"]),
    "a table below a single one": Bad({"all.csv": TRAIN, "more/b.csv": VAL}, ["more/b.csv would not be"]),
    # --- files that cannot be read
    "no rows": own(["train.csv", "holds none"], train=HEADER),
    "an empty file": own(["train.csv", "this file is empty"], train=""),
    "Latin-1": own(["train.csv, line 6", "UTF-8", "0xe9"], train=TRAIN.encode() + "café,no,ant\n".encode("latin-1")),
    "UTF-16": own(["train.csv, line 1", "encoded in UTF-8, received byte 0xff"], train=TRAIN.encode("utf-16")),
    "half a gzip file": single("a.csv.gz", gzip.compress(csv().encode())[:-9], ["not a whole gzip file"]),
    "no gzip file": single("a.csv.gz", csv(), ["a.csv.gz: not a whole gzip file"]),
    "half a Parquet file": single("a.parquet", parquet()[:-9], ["a.parquet: not a readable Parquet file"]),
    "semicolons": own(["header", "the separator is a comma"], train=TRAIN.replace(",", ";")),
    "commas in a TSV": single("a.tsv", csv(), ["header", "the separator is a tab"]),
    "an unquoted comma": own(["train.csv, line 6", "as many fields", "double quotes"], train=TRAIN + "a, b,no,ant\n"),
    "a quote never closed": own(
        ["train.csv, line 4", "the field that begins here"], train=TRAIN.replace("a red b", '"a red b')
    ),
    "a quote closed by a later one": own(
        ["train.csv, line 4", "the field that begins here"],
        train=TRAIN.replace("a red b", '"a red b') + '"so, ""well""",no,ant\n',
    ),
    "quotes that swallow rows": own(
        ["train.csv, line 3", "goes over 3 lines that look like rows"],
        train=TRAIN.replace("a blue kite", '"a blue kite').replace("a blue boat", 'a blue boat"'),
    ),
    "a JSON array": single("a.json", json.dumps(ROWS), ["a.json, line 1", "one JSON object, received list"]),
    "half a JSON line": single("a.jsonl", lines(*ROWS)[:-5], ["a.jsonl, line 40", "a line is one JSON object"]),
    # --- columns
    "a column missing": own(["train.csv, header", "group missing", "received text, label"], train="text,label\na,no\n"),
    "a column misspelt": own(["label, kind", "kind missing"], "--group-columns", "kind"),
    "two columns of one name": own(
        ["train.csv, header", "text stands twice", "rename one"], train="text,text,label,group\na,b,no,ant\n"
    ),
    "a key twice": single(
        "a.jsonl", '{"text": "a", "text": "b", "label": "no"}\n', ["line 1", "these stand twice: ['text']"]
    ),
    "a key in no line": single("a.jsonl", lines({"text": "a", "label": 1}), ["group missing, received text, label"]),
    "a key missing in a line": single(
        "a.jsonl", lines(*ROWS, {"text": "a", "label": "no"}), ["line 41", "an example has a group, this one is blank"]
    ),
    # --- texts
    "a blank text": own(["train.csv, line 6", "has a text", "--bad-rows drop"], train=TRAIN + '" ",no,ant\n'),
    "a missing text": single("a.parquet", parquet(text=odd(None)), ["a.parquet, row 3", "has a text"]),
    "a number for a text": single(
        "a.jsonl", lines(*ROWS, ROWS[0] | {"text": 3.5}), ["line 41", "text holds texts", "received 3.5"]
    ),
    "a list for a text": single(
        "a.jsonl", lines(*ROWS, ROWS[0] | {"text": ["a", "b"]}), ["line 41", "received ['a', 'b']"]
    ),
    "bytes that are no UTF-8": single(
        "a.parquet",
        parquet(text=[b"walk %d" % i for i in range(39)] + [b"caf\xe9"]),
        ["row 39", "holds texts", r"b'caf\xe9'"],
    ),
    "a lone surrogate": single(
        "a.jsonl", lines(*ROWS, ROWS[0] | {"text": "a \ud83d walk"}), ["line 41", "in Unicode", r"\ud83d"]
    ),
    "a NUL": own(["train.csv, line 6", "without NUL"], train=TRAIN + "a\0b,no,ant\n"),
    "a text in two splits": own(
        ["train.csv, line 6", "val.csv, line 2", "remove it from train", "--bad-rows drop"],
        train=TRAIN + "One  KITE,no,ant\n",
    ),
    "a text with two labels": own(["train.csv, line 6", "one label per group"], train=TRAIN + "a red kite,yes,ant\n"),
    # --- labels
    "a blank label": own(["train.csv, line 6", "has a label"], train=TRAIN + "a cap,,ant\n"),
    "a label that is not a number": own(["line 6", "received 'nan'"], train=TRAIN + "a cap,nan,ant\n"),
    "a list for a label": single(
        "a.jsonl", lines(*ROWS, ROWS[0] | {"label": [1]}), ["line 41", "label holds words", "received [1]"]
    ),
    "one label only": single("a.csv", csv(label="yes"), ["at least two different labels, received ['yes']"]),
    "scores for labels": single(
        "a.csv", csv(label=[i / 40 for i in range(40)]), ["whole numbers", "--label-threshold 0.5"]
    ),
    "ids for labels": single("a.csv", csv(label=range(40)), ["at most 20", "received 40", "and 30 more"]),
    "a label that --labels lacks": own(
        ["val.csv, line 3", "a label is no or maybe, received 'yes'"],
        "--labels",
        "no",
        "maybe",
        train=TRAIN.replace("yes", "maybe"),
    ),
    "a label that train lacks": own(["none of maybe"], val=VAL + "a cap,maybe,ant\n"),
    "labels that differ by case": own(
        ["labels of corpus 'corpus' differ by more than case", "'Yes' and 'yes'"], train=TRAIN + "a cap,Yes,ant\n"
    ),
    "a word for a score": own(["train.csv, line 2", "holds finite numbers, received 'no'"], "--label-threshold", "0.5"),
    "an infinite score": single(
        "a.jsonl", lines(ROWS[0] | {"label": float("inf")}), ["line 1", "received inf"], "--label-threshold", "0.5"
    ),
    # --- groups
    "a blank group": own(["train.csv, line 6", "has a group"], train=TRAIN + "a cap,no, \n"),
    "a missing group": single("a.parquet", parquet(group=odd(None)), ["row 3", "has a group"]),
    "a reserved group": own(["not called all, worst"], train=TRAIN + "a cap,no,worst\n"),
    "groups that differ by case": own(
        ["groups of corpus 'corpus' differ by more than case", "'Ant' and 'ant'"], train=TRAIN + "a cap,no,Ant\n"
    ),
    "a group that val lacks": own(
        ["val has no example of ['cat']", "--min-group-size 1"], train=TRAIN + "a cap,no,cat\n"
    ),
    "a group that train lacks": own(["val has ['cat']", "train has ['ant', 'bee']"], val=VAL + "a cap,no,cat\n"),
    "a group too small to cut": single(
        "a.csv",
        csv(pd.concat([FRAME, FRAME[:2].assign(text=["a", "b"], group="c")])),
        ["at least 3 different texts", "fewer: ['c']"],
    ),
    "an id for a group": single(
        "a.csv",
        csv(group=range(40)),
        ["a: a group has at least 3 different texts", "and 30 more", "--min-group-size 1"],
    ),
    "all groups are too small": own(
        ["every split has examples, train has none (left out: 8 row of a group with fewer than 9"],
        "--min-group-size",
        "9",
    ),
    "a joint in a word": own(
        ["' & '", "write it otherwise"], "--group-columns", "group", "label", train=TRAIN.replace("ant", "ant & co")
    ),
    "a word for an identity": own(
        ["line 2", "group holds finite numbers, received 'ant'"], "--identity-columns", "group"
    ),
    "an identity above one": single(
        "a.csv", csv(group=odd(7)[3:4] * 40), ["group is from 0 to 1, received '7'"], "--identity-columns", "group"
    ),
    "no row with an identity": single(
        "a.csv",
        csv(group=0),
        ["a.csv: every split", "train has none (left out: 40 row without identity"],
        "--identity-columns",
        "group",
        "--no-identity-group",
        "",
    ),
    # --- splits
    "an unknown split": single(
        "a.csv", csv(split=odd("later")), ["line 2", "received 'yes'", "--split-values"], "--split-column", "split"
    ),
    "a blank split": single(
        "a.csv",
        csv(split=["train"] * 39 + [""]),
        ["line 41", "its split is blank", "--bad-rows drop"],
        "--split-column",
        "split",
    ),
    "no row of train": single(
        "a.csv", csv(split="test"), ["has rows of train, received those of test"], "--split-column", "split"
    ),
    "files and a column": own(["from files or from --split-column"], "--split-column", "group"),
    "a share where there is a file": own(["--val-share cuts val off", "corpus has val"], "--val-share", "0.1"),
    "a seed without a cut": own(["--split-seed decides"], "--split-seed", "3"),
    "all is dropped": own(
        ["every split has examples, train has none", "1 row without text"],
        "--bad-rows",
        "drop",
        "--labels",
        "no",
        "yes",
        train=HEADER + ",no,ant\n",
    ),
    # --- options
    "a name with a blank": own(["--name is of letters", "'my corpus'"], "--name", "my corpus"),
    "a column twice": own(["--text-columns names a column once"], "--text-columns", "text", "text"),
    "groups of two kinds": own(["received both"], "--group-columns", "group", "--identity-columns", "label"),
    "a threshold without identities": own(["speaks of --identity-columns"], "--identity-threshold", "0.3"),
    "a share of all": own(["--test-share is above 0 and below 1, received 1.0"], "--test-share", "1"),
    "no share left": own(["leave train a share"], "--test-share", "0.5", "--val-share", "0.5"),
    "no share left beside a default": single(
        "a.csv", csv(), ["0.9 as val and 0.2 as test leave none"], "--val-share", "0.9"
    ),
    "a split column that is blank": single(
        "a.csv", csv(split=""), ["split is blank in every row"], "--split-column", "split", "--bad-rows", "drop"
    ),
    "three labels of a threshold": own(["makes two labels"], "--label-threshold", "1", "--labels", "a", "b", "c"),
    "a threshold that is no number": own(["--label-threshold is a finite number"], "--label-threshold", "nan"),
    "one label named": own(["--labels are two or more"], "--labels", "yes"),
    "labels of 5,000 digits": own(["train.csv, line 2", "received 'no'"], "--labels", "1" * 5000, "2" * 5000),
    "a label of 5,000 digits": own(["none of 1111"], val=VAL + f"a cap,{'1' * 5000},ant\n"),
    "a blank label named": own(["--labels are words", "one is blank"], "--labels", "no", " "),
    "one label named twice": own(["--labels are two or more, each once"], "--labels", "1", "1.0"),
    "two split values": own(["--split-values are three"], "--split-column", "group", "--split-values", "a", "b"),
    # --- numbers removed
    "a share of all removed": own(["a share of train below 100%", "'100%'"], "--num-removed", "0", "100%"),
    "a word for a number": own(["a count from 0, or a share", "'few'"], "--num-removed", "few"),
    "a fraction for a number": own(["a count from 0, or a share", "'2.5'"], "--num-removed", "2.5"),
    "more than train has": own(["received 700, train has 4"], "--num-removed", "0", "700"),
    # --- the other corpora
    "an option of ToxiGen beside CSV": toxigen(
        ["--train-samples-per-group does not apply, received 100"], FILES, "--train-samples-per-group", "100"
    ),
    "an option of HateXplain beside CSV": Bad(
        FILES, ["--min-votes does not apply"], ["--min-votes", "1"], Hatexplain()
    ),
    "an option of the demo beside CSV": Bad(FILES, ["--num-train does not apply"], ["--num-train", "80"], Planted()),
    "words for labels in a toxigen sweep": toxigen(
        ["train.csv, line 2", "a label is 0 or 1", "received 'no'", "d3m-ray run own"], FILES
    ),
    "Parquet in a toxigen sweep": toxigen(
        ["holds no file of ToxiGen, it holds test.parquet, train.parquet", "d3m-ray run own --data"],
        {"train.parquet": parquet(), "test.parquet": parquet()},
    ),
    "CSV with the wrong names in a toxigen sweep": toxigen(["it holds all.csv", "d3m-ray run own"], {"all.csv": TRAIN}),
    "JSON lines in a hatexplain sweep": Bad(
        {"train.jsonl": lines(*ROWS)},
        ["holds no file of HateXplain, it holds train.jsonl", "d3m-ray run own"],
        options=Hatexplain(),
    ),
    "gzipped CSV in a hatexplain sweep": Bad(
        {"train.csv.gz": gzip.compress(TRAIN.encode())},
        ["it holds train.csv.gz", "d3m-ray run own"],
        options=Hatexplain(),
    ),
    "a file in a toxigen sweep": Bad(
        {"a.csv": TRAIN}, ["d3m-ray run own reads a single file"], options=Toxigen(), file="a.csv"
    ),
    "ToxiGen without half of the annotated": toxigen(
        ["annotated_test missing", "it holds annotated_train.csv, toxigen.csv"],
        {"toxigen.csv": GENERATED, "annotated_train.csv": ANNOTATED},
    ),
    "ToxiGen's annotated twice": toxigen(
        ["remove the one or the two"],
        {"toxigen.csv": GENERATED, "annotated.csv": ANNOTATED, "annotated_test.csv": ANNOTATED},
    ),
    "a half label of ToxiGen": toxigen(
        ["toxigen.csv, line 2", "prompt_label is 0 or 1, received '0.5'"],
        {"toxigen.csv": GENERATED + "a walk,ALICE,women,0.5\n", "annotated.csv": ANNOTATED + "a,women,1\n"},
    ),
    "a word for ToxiGen's toxicity": toxigen(
        ["annotated_test.csv, line 2", "finite numbers, received 'high'"],
        {
            "toxigen.csv": GENERATED + "a walk,ALICE,women,0\n",
            "annotated_train.csv": ANNOTATED + "b,women,1\n",
            "annotated_test.csv": ANNOTATED + "a,women,high\n",
        },
    ),
    "an infinite toxicity": toxigen(
        ["annotated.csv, line 2", "received 'inf'"],
        {"toxigen.csv": GENERATED + "a walk,ALICE,women,0\n", "annotated.csv": ANNOTATED + "a,women,inf\n"},
    ),
    "tokens as a string": hatexplain(
        ["dataset.json, post p1", "post_tokens", "received 'a walk'"], POST | {"post_tokens": "a walk"}
    ),
    "a token that is a number": hatexplain(["post p1", "post_tokens"], POST | {"post_tokens": ["a", 1]}),
    "a target as a string": hatexplain(["post p1", "target", "received 'African'"], annotator(target="African")),
    "a lone surrogate in a token": hatexplain(
        ["post p1: post_tokens is a list of strings in Unicode"], POST | {"post_tokens": ["\ud83d"]}
    ),
    "a lone surrogate in a post's id": hatexplain(["lists the post ids", "in Unicode"], POST, train=["p1", "\ud83d"]),
    "no target": hatexplain(["post p1", "target"], annotator(target=None)),
    "a label as a list": hatexplain(["post p1", "label"], annotator(label=["normal"])),
    "annotators as an object": hatexplain(["post p1", "annotators"], POST | {"annotators": {"label": "normal"}}),
    "no annotator": hatexplain(["post p1", "annotators"], POST | {"annotators": []}),
    "a division as a string": hatexplain(["lists the post ids of train"], POST, train="p1"),
    "a post twice": Bad(
        {"dataset.json": '{"p1": {}, "p1": {}}', "post_id_divisions.json": "{}"},
        ["these stand twice: ['p1']"],
        options=Hatexplain(),
    ),
}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus that passes all checks would join a cluster, and fail the test."""

    def must_not_join(*_: object) -> None:
        raise AssertionError("a cluster was joined")

    monkeypatch.setattr(engine, "_join", must_not_join)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_corpus_is_refused_in_one_line(bad: Bad, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, store = tmp_path / "corpus", tmp_path / "store"
    folder.mkdir()
    for name, content in bad.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    data = [] if bad.file == "-" else ["--data", str(folder / bad.file if bad.file else folder)]
    arguments = [*data, "--store", str(store), "--model", "tiny", "--methods", "random", *bad.flags]
    with pytest.raises(SystemExit) as ended:
        run_sweep("a test", ExperimentConfig(bad.options), arguments)
    shown = capsys.readouterr().err
    assert ended.value.code == 2, shown
    (error,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    for part in bad.says:
        assert part in error, error
    assert "Traceback" not in shown
    assert not store.exists()


def test_there_are_enough_of_them() -> None:
    assert len(BAD) >= 35
