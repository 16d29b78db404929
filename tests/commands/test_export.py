"""The command `export`: what an arm keeps and removes of train, as files that are read again as a corpus."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.__main__ import main
from d3m_ray.analysis.headline import headline
from d3m_ray.analysis.results import read_results
from d3m_ray.commands.export import REASONS
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.own_options import Own
from d3m_ray.selection.arms import ARMS
from d3m_ray.store.store import Store

MADE = MadeUp(num_train=96, num_val=32, num_test=32, numbers=(8, 16), seeds=(0, 1))
TEXTS = ['=1+1, "quoted"', "two\nlines\rand\r\nmore\tcells", "猫と犬 naïve 🙂", "NA", "-3", " blanks ", "#x", "it's"]
TRAIN = [f"{number}: {TEXTS[number % len(TEXTS)]}" for number in range(MADE.num_train)]
TRAIN[:8] = TEXTS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose train texts are as odd as they come; not to be changed."""
    store = Store(tmp_path_factory.mktemp("export") / "store")
    fill_store(store, MADE)
    rows = store.read("examples", f"data-{MADE.name}")
    rows.loc[rows["split"] == "train", "text"] = TRAIN
    store.write("examples", f"data-{MADE.name}", rows, {})
    return store


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Store:
    """A copy that a test may spoil."""
    return Store(shutil.copytree(str(whole), tmp_path / "store"))


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; its exit status and what it said."""

    def go(store: Store, out: Path | str, *arguments: str) -> tuple[int, str]:
        status = 0
        try:
            main(["export", str(store), "--out", str(out), *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, capsys.readouterr().err

    return go


def rows_of(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [{k: str(v) for k, v in json.loads(line).items()} for line in path.read_text().split("\n") if line]


def corpus_of(store: Store) -> dict[str, tuple[str, str, str]]:
    """By example id of train, its text, label and group."""
    rows = store.read_all("examples").query("split == 'train'")
    columns = ["example_id", "text", "label_name", "group"]
    return {row[0]: row[1:] for row in rows[columns].itertuples(index=False, name=None)}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_two_files_are_train_to_the_letter_and_one_is_read_again(
    whole: Store, run: Run, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / "new" / f"train.{ending}"
    status, said = run(whole, out, "--method", "trak", "--num-removed", "16")
    assert status == 0
    assert said.startswith(f"{MADE.name}, trak: 16 of 96 train examples removed, as asked for\n")
    assert "--labels kind rude" in said
    beside = out.with_name(f"train.removed.{ending}")
    kept, removed = rows_of(out), rows_of(beside)
    corpus = corpus_of(whole)
    assert {r["example_id"]: (r["text"], r["label"], r["group"]) for r in (*kept, *removed)} == corpus
    alignment = whole.read_all("alignments").query("method == 'trak'").set_index("example_id")["alignment"]
    assert [row["example_id"] for row in removed] == alignment.sort_values(kind="stable").index[:16].tolist()
    assert [row["example_id"] for row in kept] == [name for name in corpus if name in {r["example_id"] for r in kept}]

    for split in ("val", "test"):
        texts = [f"{split} {number}" for number in range(16)]
        cells = {"label": ["kind", "rude"] * 8, "group": sorted(MADE.groups * 4)}
        pd.DataFrame({"text": texts, **cells}).to_csv(out.with_name(f"{split}.csv"), index=False)
    splits = load_splits(Own(labels=tuple(MADE.label_names)), out.parent)
    read = zip(splits.train.texts, splits.train.labels, splits.train.groups, strict=True)
    assert [(text, MADE.label_names[label], splits.group_names[group]) for text, label, group in read] == [
        (row["text"], row["label"], row["group"]) for row in kept
    ]


def test_each_removed_row_has_its_reason(whole: Store, run: Run, tmp_path: Path) -> None:
    assert run(whole, tmp_path / "a.csv", "--method", "ekfac", "--num-removed", "8")[0] == 0
    removed = pd.read_csv(tmp_path / "a.removed.csv").set_index("example_id")
    assert removed["rank"].tolist() == list(range(1, 9))
    assert set(removed["method"]) == {"ekfac"}
    assert set(removed["num_removed"]) == {8}
    alignment = whole.read_all("alignments").query("method == 'ekfac'").set_index("example_id")["alignment"]
    assert removed["alignment"].tolist() == alignment[removed.index].tolist(), "to the last bit"
    scores = whole.read_all("scores").query("method == 'ekfac'").astype({"example_id": str, "query_set": str})
    wide = scores.pivot(index="example_id", columns="query_set", values="score").loc[removed.index]
    assert removed["most_hurt_group"].tolist() == wide.idxmin(axis=1).tolist()
    assert removed["most_hurt_score"].tolist() == pytest.approx(wide.min(axis=1).tolist())
    first = removed.iloc[0]
    assert first["reason"] == (
        f"ekfac alignment {first['alignment']:+.4g}, rank 1 of 96 from the lowest; "
        f"lowest score {first['most_hurt_score']:+.3g}, for {first['most_hurt_group']}"
    )


def test_without_scores_the_reason_is_the_alignment_alone(store: Store, run: Run, tmp_path: Path) -> None:
    shutil.rmtree(Path(str(store)) / "scores")
    assert run(store, tmp_path / "a.csv", "--method", "trak", "--num-removed", "8")[0] == 0
    removed = pd.read_csv(tmp_path / "a.removed.csv")
    assert "most_hurt_group" not in removed
    assert removed["reason"].str.endswith("of 96 from the lowest").all()


def test_scores_that_are_of_no_single_group_name_none(store: Store, run: Run, tmp_path: Path) -> None:
    key, ids = f"scores-{MADE.name}-trak", list(corpus_of(store))
    store.write_scores("scores", key, np.zeros((96, 1), np.float32), ids, ["weighed groups"], {}, "trak")
    assert run(store, tmp_path / "a.csv", "--method", "trak", "--num-removed", "8")[0] == 0
    assert "most_hurt_group" not in pd.read_csv(tmp_path / "a.removed.csv")


def test_a_random_removal_is_that_of_one_seed(whole: Store, run: Run, tmp_path: Path) -> None:
    random = ["--method", "random", "--num-removed", "8"]
    status, said = run(whole, tmp_path / "a.csv", *random)
    assert status == 2
    assert said == "error: random removes other examples under each seed: name one of 0, 1 by --seed\n"
    assert run(whole, tmp_path / "a.csv", *random, "--seed", "1")[0] == 0
    removed = pd.read_csv(tmp_path / "a.removed.csv")
    key = f"trial-{MADE.name}-random-8-1"
    assert set(removed["example_id"]) == set(whole.read("removals", key, "random")["example_id"])
    assert set(removed["reason"]) == {"drawn at random"}
    assert "rank" not in removed


def test_the_number_left_out_is_the_one_that_val_chose(store: Store, run: Run, tmp_path: Path) -> None:
    for number in MADE.numbers:
        for seed in MADE.seeds:
            key = f"trial-{MADE.name}-trak-{number}-{seed}"
            rows = store.read("trials", key, "trak").drop(columns="method")
            lucky = (rows["split"] == "val") & (rows["group"] == "worst")
            rows.loc[lucky, "accuracy"] = 0.9 if number == 16 else 0.5
            rows.loc[(rows["split"] == "test") & (rows["group"] == "worst"), "accuracy"] = 0.9 if number == 8 else 0.5
            store.write("trials", key, rows, {}, "trak")
    status, said = run(store, tmp_path / "a.csv", "--method", "trak")
    assert status == 0
    assert "16 of 96 train examples removed, of highest mean val worst-group accuracy among 2 numbers" in said
    assert len(pd.read_csv(tmp_path / "a.csv")) == 80


def test_nothing_removed_is_all_of_train(whole: Store, run: Run, tmp_path: Path) -> None:
    assert run(whole, tmp_path / "a.csv", "--method", "trak", "--num-removed", "0")[0] == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == 96
    assert pd.read_csv(tmp_path / "a.removed.csv").empty


@pytest.mark.parametrize(("number", "why"), [(8, "which val shows to raise"), (0, "as val shows no number to raise")])
def test_the_best_number_is_that_of_its_arm(store: Store, run: Run, tmp_path: Path, number: int, why: str) -> None:
    fill_store(store, replace(MADE, rules={"trak_best": (number, "erm")}))
    for seed in MADE.seeds if number else ():
        ids = store.read("removals", f"trial-{MADE.name}-trak-{number}-{seed}", "trak")["example_id"]
        key = f"trial-{MADE.name}-trak_best-{number}-{seed}"
        store.write("removals", key, pd.DataFrame({"trial_key": key, "example_id": ids}), {}, "trak_best")
    status, said = run(store, tmp_path / "a.csv", "--method", "trak_best")
    assert status == 0
    assert f"trak_best: {number} of 96 train examples removed, {why} the target" in said
    assert len(pd.read_csv(tmp_path / "a.csv")) == 96 - number


def test_a_file_is_replaced_only_where_that_is_asked_for(whole: Store, run: Run, tmp_path: Path) -> None:
    arguments = ["--method", "trak", "--num-removed", "8"]
    for there in ("a.csv", "a.removed.csv"):
        (tmp_path / there).write_text("mine")
        status, said = run(whole, tmp_path / "a.csv", *arguments)
        assert status == 2
        assert said == (
            f"error: export replaces no file, and {tmp_path / there} is there; name another --out, or give "
            "--overwrite\n"
        )
        assert [path.name for path in tmp_path.iterdir()] == [there]
        (tmp_path / there).unlink()
    (tmp_path / "a.csv").write_text("mine")
    assert run(whole, tmp_path / "a.csv", *arguments, "--overwrite")[0] == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == 88


REFUSED = {
    "a method": (["--method", "trka"], "'trak'; received 'trka' (did you mean 'trak'?)\n"),
    "a number": (["--num-removed", "9"], "--num-removed is one of 0, 8, 16, of which trak has trials; received 9\n"),
    "less than none": (["--num-removed", "-1"], "--num-removed is a count from 0; received -1\n"),
    "a seed": (["--num-removed", "8", "--seed", "7"], "--seed is one of 0, 1, of which trak has trials with 8 removed"),
    "an experiment": (["--experiment", "x"], "--experiment is one of 'insects-1a2b3c4d'; received 'x'"),
    "an ending": (["--out", "a.xlsx"], "--out is a file that ends in .csv, .jsonl, .ndjson; received 'a.xlsx'\n"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(whole: Store, run: Run, tmp_path: Path, what: str) -> None:
    arguments, message = REFUSED[what]
    method = [] if "--method" in arguments else ["--method", "trak"]
    status, said = run(whole, tmp_path / "a.csv", *method, *arguments)
    assert status == 2
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_arm_that_removes_nothing_has_no_clean_corpus(store: Store, run: Run, tmp_path: Path) -> None:
    fill_store(store, replace(MADE, rules={"jtt": (0, "jtt")}))
    status, said = run(store, tmp_path / "a.csv", "--method", "jtt")
    assert status == 2
    assert said == "error: --method is an arm that removes train examples; jtt trains on all of them\n"


def test_of_several_experiments_one_is_named(store: Store, run: Run, tmp_path: Path) -> None:
    fill_store(store, replace(MADE, name="birds-5e6f7a8b"))
    status, said = run(store, tmp_path / "a.csv", "--method", "trak")
    assert status == 2
    assert said.endswith(f"have trak: birds-5e6f7a8b, {MADE.name}; name one by --experiment\n")
    assert run(store, tmp_path / "a.csv", "--method", "trak", "--experiment", "birds-5e6f7a8b")[0] == 0


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("experiments", "holds no experiment"),
        ("trials", "holds no trial"),
        ("examples", "holds no texts of train"),
        ("removals", "does not hold all 8 examples that trak removed under seed 0"),
        ("alignments", "holds no alignment of trak"),
    ],
)
def test_what_the_store_lacks_is_said_and_nothing_is_written(
    store: Store, run: Run, tmp_path: Path, lost: str, said: str
) -> None:
    shutil.rmtree(Path(str(store)) / lost)
    status, error = run(store, tmp_path / "new" / "a.csv", "--method", "trak", "--num-removed", "8")
    assert status == 2
    assert said in error
    assert not (tmp_path / "new").exists()


def test_texts_that_were_not_stored_are_missed(store: Store, run: Run, tmp_path: Path) -> None:
    key = f"data-{MADE.name}"
    store.write("examples", key, store.read("examples", key).assign(text=pd.Series(None, dtype="str")), {})
    status, said = run(store, tmp_path / "a.csv", "--method", "trak", "--num-removed", "8")
    assert status == 2
    assert "run the same sweep with --store-texts, which trains nothing again" in said


@pytest.mark.parametrize("table", ["removals", "alignments", "trials", "examples"])
def test_a_damaged_file_of_the_arm_is_refused(store: Store, run: Run, tmp_path: Path, table: str) -> None:
    paths = sorted((Path(str(store)) / table).rglob("*.parquet"))
    (damaged, *_) = [path for path in paths if table == "examples" or path.parent.name == "method=trak"]
    damaged.write_bytes(b"no parquet")
    status, said = run(store, tmp_path / "a.csv", "--method", "trak", "--num-removed", "16")
    assert status == 2
    assert f"{damaged} is damaged" in said
    assert not (tmp_path / "a.csv").exists()


def test_damage_elsewhere_is_told(store: Store, run: Run, tmp_path: Path) -> None:
    (damaged, *_) = (Path(str(store)) / "trials" / "method=random").iterdir()
    damaged.write_bytes(b"no parquet")
    status, said = run(store, tmp_path / "a.csv", "--method", "trak", "--num-removed", "16")
    assert status == 1
    assert said.splitlines()[-1].startswith(f"error: {damaged} is damaged")
    assert len(pd.read_csv(tmp_path / "a.csv")) == 80


def test_what_another_alignment_removed_has_no_reason(store: Store, run: Run, tmp_path: Path) -> None:
    """As where another version went on with the experiment. Either end of a cell is right, a middle is not."""
    key = f"alignment-{MADE.name}-trak"
    rows = store.read("alignments", key, "trak").drop(columns="method")
    cell = (rows["group"] == "ant") & (rows["label"] == 0)
    arguments = ["--method", "trak", "--num-removed", "8", "--overwrite"]
    removed = rows["example_id"].isin(rows.loc[cell, "example_id"][3:11])
    for seed in MADE.seeds:
        trial_key = f"trial-{MADE.name}-trak-8-{seed}"
        ids = pd.DataFrame({"trial_key": trial_key, "example_id": rows.loc[removed, "example_id"]})
        store.write("removals", trial_key, ids, {}, "trak")
    for sign in (1, -1):
        ranked = rows.assign(alignment=sign * np.where(removed, -2.0, np.where(cell, -1.0, -3.0)))
        store.write("alignments", key, ranked, {}, "trak")
        assert run(store, tmp_path / "a.csv", *arguments)[0] == 0
    assert len(pd.read_csv(tmp_path / "a.removed.csv")) == 8
    store.write("alignments", key, rows.assign(alignment=np.arange(96) % 7), {}, "trak")
    status, said = run(store, tmp_path / "b.csv", *arguments)
    assert status == 2
    assert "holds another alignment of trak of insects-1a2b3c4d than the one that its removal went by" in said
    assert not (tmp_path / "b.csv").exists()


def test_what_was_chosen_on_test_is_said(store: Store, run: Run, tmp_path: Path) -> None:
    record = store.read_experiments()[MADE.name]
    configuration = {**record.configuration, "protocol": "thesis"}
    store.write_experiment(MADE.name, configuration, record.plan, record.keys)
    assert "caution: chosen ON TEST" in run(store, tmp_path / "a.csv", "--method", "trak", "--num-removed", "8")[1]


def test_what_the_experiment_shows_stands_beside_the_export(whole: Store, run: Run, tmp_path: Path) -> None:
    _, said = run(whole, tmp_path / "clean.csv", "--method", "trak", "--num-removed", "8")
    assert f"what the experiment shows: {headline(read_results(whole)[0]).sentence}" in said


def test_every_arm_that_reads_no_alignment_has_a_reason() -> None:
    removing = {name for name, arm in ARMS.items() if arm.alignment is None and arm.recipe == "erm"}
    assert set(REASONS) == removing
