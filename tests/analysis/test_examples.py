import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store
from odd_names import ODD_GROUPS, SMALL
from rich.console import Console

from d3m_ray.__main__ import main
from d3m_ray.analysis.examples import COLUMNS, MAX_TEXT, examples_table, printable, render_examples
from d3m_ray.analysis.results import Results
from d3m_ray.store.store import Store

Other = Callable[..., Results]
STEERING = "\x1b[31mred\x1b[0m \x07bell \x9b2J \u202eback [bold]loud[/bold] :smile:"
TEXTS = [STEERING, '=1+1, "quoted"', "two\nlines\rand\r\nmore\tcells", "猫と犬 naïve 🙂", "NA", "-3", "+1", "@name"]


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("of_part", [False, True])
def test_the_rows_are_those_of_a_sort(results: Results, made: MadeUp, best: bool, of_part: bool) -> None:
    group, label = (made.groups[1], made.label_names[1]) if of_part else (None, None)
    table = examples_table(results, "trak", 7, best, group, label)
    rows = [(row.alignment, place, row) for place, row in enumerate(results.alignments["trak"].itertuples())]
    ranks = {row.example_id: rank for rank, (_, _, row) in enumerate(sorted(rows), start=1)}
    rows = [row for row in rows if not of_part or (row[2].group, row[2].label) == (group, 1)]
    chosen = [row for *_, row in sorted(rows, key=lambda row: (-row[0] if best else row[0], row[1]))][:7]
    assert table["example_id"].tolist() == [row.example_id for row in chosen]
    assert table["alignment"].tolist() == [row.alignment for row in chosen]
    assert table["rank"].tolist() == [ranks[row.example_id] for row in chosen]
    assert table["group"].tolist() == [row.group for row in chosen]
    assert table["label_name"].tolist() == [made.label_names[row.label] for row in chosen]
    texts = results.examples.set_index("example_id")["text"]
    assert table["text"].tolist() == texts[table["example_id"]].tolist()


def test_each_row_has_its_scores(results: Results, made: MadeUp) -> None:
    table = examples_table(results, "ekfac", 5)
    assert list(table) == [*COLUMNS, *(f"score_{group}" for group in made.groups)]
    scores = results.store.read_all("scores", filters=[("method", "==", "ekfac")])
    stored = scores.astype({"example_id": "str", "query_set": "str"}).set_index(["example_id", "query_set"])["score"]
    for _, row in table.iterrows():
        for group in made.groups:
            assert row[f"score_{group}"] == stored[row["example_id"], group]


def test_what_a_trial_of_the_method_removed_is_marked_with_the_smallest_number(results: Results, made: MadeUp) -> None:
    table = examples_table(results, "trak", made.num_train)
    smallest = [next((number for number in made.numbers if rank <= number), None) for rank in table["rank"]]
    assert [None if pd.isna(number) else number for number in table["smallest_num_removed"]] == smallest
    assert table["smallest_num_removed"].dtype == "Int64"


def test_of_equal_alignments_the_first_in_train_order_is_lower(results: Results, other_results: Other) -> None:
    flat = results.alignments["trak"].assign(alignment=1.0)
    equal = other_results(alignments={"trak": flat})
    for best in (False, True):
        assert examples_table(equal, "trak", 5, best)["example_id"].tolist() == flat["example_id"].tolist()[:5]
    assert examples_table(equal, "trak", 3)["rank"].tolist() == [1, 2, 3]


def test_what_the_store_lacks_is_missing_in_the_table(results: Results, made: MadeUp, other_results: Other) -> None:
    assert examples_table(results, "bm25").empty
    assert examples_table(results, "trak", group="no such group").empty
    lacking = other_results(examples=results.examples.iloc[:0], scores={}, fits=results.fits.iloc[:0])
    table = examples_table(lacking, "trak", 4)
    assert list(table) == COLUMNS
    assert table[["text", "smallest_num_removed"]].isna().all(axis=None)
    whole = examples_table(results, "trak", 4)
    pd.testing.assert_frame_equal(table[COLUMNS[:5]], whole[COLUMNS[:5]])


# --- on the terminal --------------------------------------------------------------------------------------------------


def shown(table: pd.DataFrame, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(render_examples(table, "insects, trak"))
    return console.file.getvalue()


def test_a_text_cannot_steer_the_terminal(results: Results) -> None:
    table = examples_table(results, "trak", 1).assign(text=STEERING, group="\x1b]0;title\x07", label_name="[/b]x")
    drawn = shown(table, width=240)
    for letter in "\x07\x9b\u202e":
        assert letter not in drawn
    assert "\x1b[31m" not in drawn
    assert "\x1b]0" not in drawn
    assert r"\x1b[31mred\x1b[0m \x07bell \x9b2J \u202eback [bold]loud[/bold] :smile:" in drawn, "and is no markup"
    assert r"\x1b]0;title\x07" in drawn
    assert "[/b]x" in drawn


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\nb\r\n\tc\x0bd\u2028e", "a b c d e"), ("plain 猫 🙂 é", "plain 猫 🙂 é"), ("\x00\x7f", r"\x00\x7f"), ("", "")],
)
def test_a_text_is_shown_on_one_line(text: str, line: str) -> None:
    assert printable(text) == line


@pytest.mark.parametrize("width", [60, 80, 200])
def test_names_and_texts_are_cut_and_lines_fit(results: Results, width: int) -> None:
    table = examples_table(results, "trak", 3).assign(text="word " * 400, group="g" * 200)
    drawn = shown(table, width)
    assert max(map(len, drawn.splitlines())) <= width
    assert 3 * (MAX_TEXT // 5 - 2) <= drawn.count("word") <= 3 * MAX_TEXT // 5
    assert "g" * 41 not in drawn.replace("\n", "").replace(" ", "")


def test_an_example_without_text_says_so(results: Results) -> None:
    drawn = shown(examples_table(results, "trak", 2).assign(text=None))
    assert drawn.count("(no text)") == 2


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose train texts are as odd as they come."""
    store = Store(tmp_path_factory.mktemp("examples") / "store")
    fill_store(store, replace(SMALL, seeds=(0,), groups=("ant", "=cmd", "None", ODD_GROUPS[7])))
    key = f"data-{SMALL.name}"
    rows = store.read("examples", key)
    of_train = rows["split"] == "train"
    rows.loc[of_train, "text"] = [TEXTS[place % len(TEXTS)] for place in range(of_train.sum())]
    store.write("examples", key, rows, {})
    return store


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Store:
    """A copy that a test may spoil."""
    return Store(shutil.copytree(str(whole), tmp_path / "store"))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Run]:
    """Runs the command; its exit status, what it printed and what it said."""

    def go(store: Store, *arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            main(["examples", str(store), *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capfdbinary.readouterr()
        return status, said.out.decode(), said.err.decode()

    return go


def test_the_default_is_a_table_of_the_twenty_lowest(whole: Store, run: Run) -> None:
    status, out, err = run(whole, "--method", "trak")
    assert (status, err) == (0, "")
    assert f"{SMALL.name}, trak: train examples of lowest alignment" in out
    assert [line.split()[0] for line in out.splitlines() if line[:4].strip().isdigit()] == [
        str(n) for n in range(1, 21)
    ]
    assert "\x1b" not in out.replace("\\x1b", "")


def test_csv_gives_back_every_text(whole: Store, run: Run) -> None:
    status, out, err = run(whole, "--method", "trak", "--worst", "90", "--format", "csv")
    assert (status, err) == (0, "")
    texts = dict(whole.read_all("examples")[["example_id", "text"]].itertuples(index=False, name=None))
    table = pd.read_csv(io.BytesIO(out.encode()), keep_default_na=False, lineterminator=None)
    assert table["text"].tolist() == [texts[example_id] for example_id in table["example_id"]]
    assert set(table["text"]) == set(TEXTS)
    scores = whole.read_all("scores", filters=[("method", "==", "trak")]).astype({"example_id": "str"})
    ant = scores[scores["query_set"] == "ant"].set_index("example_id")["score"]
    np.testing.assert_array_equal(table["score_ant"].astype("float32"), ant[table["example_id"]])


def test_json_is_a_list_of_records(whole: Store, run: Run) -> None:
    status, out, err = run(whole, "--method", "trak", "--best", "90", "--format", "json")
    assert (status, err) == (0, "")
    assert "猫と犬 naïve 🙂" in out, "UTF-8, not escaped"
    records = json.loads(out)
    assert [record["rank"] for record in records] == list(range(90, 0, -1))
    assert records[0]["smallest_num_removed"] is None
    assert records[-1]["smallest_num_removed"] == 10
    assert {record["text"] for record in records} == set(TEXTS)
    (alignment,) = whole.read_all("alignments", filters=[("method", "==", "trak")])["alignment"].nlargest(1)
    assert records[0]["alignment"] == alignment, "to the last bit"


def test_parquet_goes_into_a_pipe_or_a_file(whole: Store, run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "d3m_ray", "examples", str(whole), "--method", "trak", "--format", "parquet"]
    piped = subprocess.run(command, capture_output=True, check=True)
    assert piped.stderr == b""
    file = tmp_path / "new" / "folder" / "worst.parquet"
    status, out, err = run(whole, "--method", "trak", "--format", "parquet", "--out", str(file))
    assert (status, out, err) == (0, "", f"20 examples: {file}\n")
    for table in (pd.read_parquet(io.BytesIO(piped.stdout)), pd.read_parquet(file)):
        assert table["rank"].tolist() == list(range(1, 21))
        assert table["smallest_num_removed"].notna().all()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_parquet_is_not_written_to_a_terminal(whole: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, err = run(whole, "--method", "trak", "--format", "parquet")
    assert (status, out) == (2, "")
    assert err == "error: parquet is no text and the standard output is a terminal: name a file by --out, or pipe it\n"


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_file_holds_what_would_be_printed(whole: Store, run: Run, tmp_path: Path, form: str) -> None:
    file = tmp_path / "examples.txt"
    file.write_text("earlier")
    assert run(whole, "--method", "trak", "--format", form, "--out", str(file))[0] == 0
    _, printed, _ = run(whole, "--method", "trak", "--format", form)
    written = file.read_bytes().decode()
    if form == "table":
        assert "train examples of lowest alignment" in written
        assert "\x1b" not in written
    else:
        assert written == printed


@pytest.mark.parametrize("group", ["=cmd", "None", ODD_GROUPS[7]])
def test_one_group_and_label_can_be_asked_for(whole: Store, run: Run, group: str) -> None:
    arguments = ["--method", "ekfac", "--group", group, "--label", "rude", "--format", "json"]
    status, out, _ = run(whole, *arguments)
    assert status == 0
    assert {(record["group"], record["label_name"]) for record in json.loads(out)} == {(group, "rude")}


REFUSED = {
    "both ends": (["--worst", "2", "--best", "3"], "--worst and --best exclude each other; received 2 and 3: "),
    "none": (["--worst", "0"], "--worst is a whole number from 1; received 0\n"),
    "fewer than none": (["--best", "-4"], "--best is a whole number from 1; received -4\n"),
    "a method": (["--method", "trka"], "--method is one of 'ekfac', 'trak'; received 'trka' (did you mean 'trak'?)\n"),
    "an arm": (["--method", "trak_heuristic"], "received 'trak_heuristic' (did you mean 'trak'?)\n"),
    "a group": (["--group", "aunt"], "'ant'; received 'aunt' (did you mean 'ant'?)\n"),
    "a label": (["--label", "1"], "--label is one of 'kind', 'rude'; received '1'\n"),
    "an experiment": (["--experiment", "insects"], "--experiment is one of 'insects-1a2b3c4d'; received 'insects' "),
    "a folder": (["--out", "/"], "--out is a file, and / is none; name another, or leave it out "),
    "a format": (["--format", "xml"], "invalid choice 'xml'"),
    "no number": (["--worst", "few"], "--worst: invalid literal"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(whole: Store, run: Run, what: str) -> None:
    arguments, message = REFUSED[what]
    method = [] if "--method" in arguments else ["--method", "trak"]
    status, out, err = run(whole, *method, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_of_several_experiments_one_is_named(store: Store, run: Run) -> None:
    fill_store(store, replace(SMALL, name="birds-5e6f7a8b", methods=("trak",), seeds=(0,), numbers=(), rules={}))
    status, out, err = run(store, "--method", "trak")
    assert (status, out) == (2, "")
    assert err == (
        f"error: 2 experiments of {store} have trak: birds-5e6f7a8b, insects-1a2b3c4d; name one by --experiment\n"
    )
    assert run(store, "--method", "ekfac")[0] == 0, "which one alone has"
    status, out, _ = run(store, "--method", "trak", "--experiment", "birds-5e6f7a8b", "--format", "csv")
    assert status == 0
    assert "score_dog" in out


def test_a_store_without_an_alignment_is_a_clear_error(run: Run, tmp_path: Path) -> None:
    empty = Store(tmp_path / "empty")
    status, out, err = run(empty, "--method", "trak")
    assert (status, out) == (2, "")
    assert err == f"error: the store {empty} is not there; name what a run was given as --store\n"
    empty.write_experiment("bare", {"dataset": "insects", "model": "tiny-bert"}, [("random", 5, 0)])
    assert run(empty, "--method", "trak")[2].startswith(f"error: {empty} holds no alignment of bare: ")
    asked = {"alignments": {"trak": "absent"}}
    empty.write_experiment("bare", {"dataset": "insects", "model": "tiny-bert"}, [("trak", 5, 0)], asked)
    status, out, err = run(empty, "--method", "trak")
    assert (status, out) == (2, "")
    assert err == f"error: {empty} holds no alignment of trak of bare; run the sweep, which goes on from there\n"


@pytest.mark.parametrize("table", ["examples", "scores", "removals"])
def test_a_gap_in_the_table_is_said(store: Store, run: Run, table: str) -> None:
    shutil.rmtree(Path(str(store)) / table)
    status, out, err = run(store, "--method", "trak", "--format", "csv")
    assert status == 0
    assert err.startswith("caution: ")
    assert err.count("\n") == 1
    assert len(pd.read_csv(io.StringIO(out))) == 20
    said = {"examples": "the column text is empty", "scores": "no scores of trak", "removals": "2 of 2 trials of trak"}
    assert said[table] in err


@pytest.mark.parametrize("table", ["alignments", "scores", "removals", "trials", "examples"])
def test_a_damaged_file_is_named_and_left_out(store: Store, run: Run, table: str) -> None:
    path = max((Path(str(store)) / table).rglob("*.parquet"))
    path.write_bytes(b"no parquet")
    method = path.parent.name.removeprefix("method=") if table != "examples" else "trak"
    status, out, err = run(store, "--method", method, "--format", "csv")
    assert status == 1
    assert f"error: {path} is damaged" in err
    if table == "alignments":
        assert out == ""
    else:
        assert len(pd.read_csv(io.StringIO(out))) == 20


def test_a_damaged_record_is_named(store: Store, run: Run) -> None:
    (path,) = (Path(str(store)) / "experiments").iterdir()
    path.write_bytes(b"{")
    status, out, err = run(store, "--method", "trak")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {path} is damaged")


def test_a_mistake_is_told_beside_what_is_damaged(store: Store, run: Run) -> None:
    fill_store(store, replace(SMALL, name="birds-5e6f7a8b", methods=("trak",), seeds=(0,), numbers=(), rules={}))
    path = Path(str(store)) / "experiments" / "birds-5e6f7a8b.json"
    path.write_bytes(b"{")
    status, out, err = run(store, "--method", "trka")
    assert (status, out) == (2, "")
    damage, mistake = err.splitlines()
    assert damage.startswith(f"error: {path} is damaged")
    assert "did you mean 'trak'" in mistake


def test_a_part_without_examples_is_an_empty_table(store: Store, run: Run) -> None:
    (path,) = (Path(str(store)) / "alignments" / "method=trak").iterdir()
    rows = store.read("alignments", path.stem, "trak").drop(columns="method")
    store.write("alignments", path.stem, rows[(rows["group"] != "ant") | (rows["label"] == 0)], {}, "trak")
    status, out, err = run(store, "--method", "trak", "--group", "ant", "--label", "rude", "--format", "json")
    assert (status, json.loads(out)) == (0, [])
    assert err == "caution: no train example is of that group and label\n"


def test_a_terminal_that_lacks_letters_gets_them_spelled_out(whole: Store) -> None:
    command = [sys.executable, "-m", "d3m_ray", "examples", str(whole), "--method", "trak"]
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "ascii", "COLUMNS": "160"}
    outcome = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    assert rb"\u732b" in outcome.stdout


def test_it_starts_without_what_takes_long_to_load(whole: Store) -> None:
    code = (
        "import sys; from d3m_ray.__main__ import main; "
        f"main(['examples', {str(whole)!r}, '--method', 'trak', '--format', 'csv']); "
        "print({name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(eval(outcome.stderr))
    assert "pandas" in loaded
    assert not {"torch", "ray", "transformers", "sklearn", "scipy", "matplotlib", "datasets"} & loaded
