import json
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from d3m_ray.__main__ import main
from d3m_ray.analysis.status import differing_settings, experiment_status, render_status
from d3m_ray.store.store import Store

EXPERIMENT = "insects-1a2b3c4d"
CONFIGURATION = {"dataset": "insects", "model": "tiny-bert"}


def write_failure(store: Store, method: str, num_removed: int | None, seed: int, error: str) -> None:
    frame = pd.DataFrame(
        {
            "trial_key": ["failed"],
            "experiment": EXPERIMENT,
            "num_removed": pd.array([num_removed], dtype="Int64"),
            "seed": seed,
            "error": error,
            "traceback": "Traceback",
            "created_at": pd.Timestamp("2026-01-02", tz="UTC"),
        }
    )
    store.write("failures", "failed", frame, {}, method)


@pytest.fixture
def half_done(store: Store, write_trial: Callable[..., None]) -> Store:
    plan = [(method, count, seed) for method in ("trak", "random") for count in (0, 50) for seed in (0, 1)]
    store.write_experiment(EXPERIMENT, CONFIGURATION, [*plan, ("trak_heuristic", None, 0), ("trak_heuristic", None, 1)])
    for seed in (0, 1):
        write_trial("trak", 0, seed)
    write_trial("trak", 50, 0)
    write_trial("trak_heuristic", 137, 0)
    write_failure(store, "trak", 50, 1, "RuntimeError: out of [memory]\nsecond line")
    return store


def statuses(store: Store) -> dict[tuple[str, int | None, int], str]:
    status = experiment_status(store, store.read_experiments()[EXPERIMENT])
    counts = [None if pd.isna(count) else int(count) for count in status["num_removed"]]
    return dict(zip(zip(status["method"], counts, status["seed"], strict=True), status["state"], strict=True))


def test_every_planned_trial_has_its_state(half_done: Store) -> None:
    assert statuses(half_done) == {
        ("trak", 0, 0): "done",
        ("trak", 0, 1): "done",
        ("trak", 50, 0): "done",
        ("trak", 50, 1): "failed",
        ("random", 0, 0): "missing",
        ("random", 0, 1): "missing",
        ("random", 50, 0): "missing",
        ("random", 50, 1): "missing",
        ("trak_heuristic", None, 0): "done",
        ("trak_heuristic", None, 1): "missing",
    }


def test_a_trial_that_failed_and_then_succeeded_is_done(half_done: Store, write_trial: Callable[..., None]) -> None:
    write_trial("trak", 50, 1)
    assert statuses(half_done)["trak", 50, 1] == "done"


@pytest.mark.parametrize("num_removed", [None, 137])
def test_a_failure_of_a_rule_is_found_with_and_without_its_number(half_done: Store, num_removed: int | None) -> None:
    half_done.delete_failure("failed", "trak")
    write_failure(half_done, "trak_heuristic", num_removed, 1, "OSError: disk full")
    assert statuses(half_done)["trak_heuristic", None, 1] == "failed"


def test_a_stored_trial_outside_the_plan_is_listed(half_done: Store, write_trial: Callable[..., None]) -> None:
    write_trial("trak", 75, 4)
    assert statuses(half_done)["trak", 75, 4] == "done"


def test_the_rendering_counts_seeds_and_names_errors(half_done: Store) -> None:
    console = Console(width=80, file=StringIO())
    console.print(render_status(half_done))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert lines[0].startswith("insects-1a2b3c4d insects, tiny-bert begun 20")
    assert lines[1] == "10 trials: 4 done, 1 failed, 5 missing"
    assert "removed trak random trak_heuristic" in lines
    assert "0 2/2 0/2" in lines
    assert "50 1/2, 1 failed 0/2" in lines
    assert "by rule 1/2" in lines
    assert "failed: trak, removed 50, seed 1: RuntimeError: out of [memory]" in lines


def test_two_experiments_of_one_store_are_told_apart(half_done: Store) -> None:
    half_done.write_caveats(EXPERIMENT, ["Fewer than 5 seeds."])
    settings = {"training": {"num_epochs": 3, "batch_size": 8}, "methods": {"a": [1, 2]}, "num_dropped": {"blank": 1}}
    other = {"training": {"num_epochs": 10, "batch_size": 8}, "methods": {"a": [1]}, "num_dropped": {}}
    same_corpus = {"data_hash": "d1", "model_hash": "m1"}
    for name, configuration in (
        ("birds-1", {"dataset": "birds", "model": "small", **same_corpus, **settings}),
        ("birds-2", {"dataset": "birds", "model": "small", "data_hash": "d2", "model_hash": "m1", **other}),
        ("fish-1", {"dataset": "fish", "model": "other", "data_hash": "d3", "model_hash": "m2", **other}),
    ):
        half_done.write_experiment(name, configuration, [("trak", 0, 0)])
    console = Console(width=160, file=StringIO())
    console.print(render_status(half_done))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    today = half_done.read_experiments()["fish-1"].created_at[:10]
    place = lines.index(f"birds-1 birds, small begun {today}")
    assert lines[place + 1] == (
        "differs from the others in: data_hash=d1, training.num_epochs=3, training.batch_size=8, methods.a=1 2"
    )
    place = lines.index(f"fish-1 fish, other begun {today}")
    assert lines[place + 1].startswith("differs from the others in: data_hash=d3, training.num_epochs=10,")
    assert "model_hash" not in "".join(lines)
    assert "caution: Fewer than 5 seeds." in lines


def test_one_experiment_differs_from_nothing(half_done: Store) -> None:
    (experiment,) = half_done.read_experiments().values()
    assert differing_settings([experiment]) == {EXPERIMENT: {}}


def test_the_command_prints_the_status(
    half_done: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["d3m_ray", "status", str(half_done)])
    main()
    assert "10 trials: 4 done, 1 failed, 5 missing" in capsys.readouterr().out


DEEP = "[" * 100 + "]" * 100


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[" * 100_000 + "]" * 100_000,
        f'{{"configuration": {{"dataset": "a", "model": "b", "c": {DEEP}}}, "plan": []}}',
        '{"configuration": {"dataset": "\\ud800", "model": "b"}, "plan": []}',
        '{"configuration": {"dataset": [1], "model": "b"}, "plan": []}',
        f'{{"configuration": {{"dataset": "a", "model": "b"}}, "plan": [["random", {10**30}, 0]]}}',
        '{"configuration": {"dataset": "a", "model": "b"}, "plan": [["random", true, 0]]}',
        '{"configuration": {"dataset": "a", "model": "b"}, "plan": [], "keys": {"fits": 3}}',
        '{"configuration": {"dataset": "a", "model": "b"}, "plan": [], "caveats": [1, null]}',
        '{"configuration": {"dataset": "a", "model": "b", "training": {"beta": NaN}}, "plan": []}',
    ],
)
def test_a_damaged_record_is_said_beside_the_others(
    record: str, half_done: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(str(half_done)) / "experiments" / "broken.json"
    path.write_text(record)
    with pytest.raises(SystemExit) as ended:
        main(["status", str(half_done)])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "10 trials: 4 done, 1 failed, 5 missing" in said.out
    assert said.err.startswith(f"error: {path} is damaged (")
    assert said.err.count("\n") == 1


def test_a_program_reads_the_status(half_done: Store, capsys: pytest.CaptureFixture[str]) -> None:
    half_done.write_caveats(EXPERIMENT, ["Fewer than 5 seeds."])
    half_done.write_experiment("other", {**CONFIGURATION, "training": {"num_epochs": 3}}, [])
    main(["status", str(half_done), "--json"])
    said = capsys.readouterr()
    assert said.err == ""
    document = json.loads(said.out)
    assert (document["store"], document["damaged"]) == (str(half_done), [])
    first, second = document["experiments"]
    record = half_done.read_experiment(EXPERIMENT)
    assert {name: value for name, value in first.items() if name != "trials"} == {
        "name": EXPERIMENT, "dataset": "insects", "model": "tiny-bert", "created_at": record.created_at,
        "counts": {"done": 4, "failed": 1, "missing": 5}, "differing_settings": {"training.num_epochs": None},
        "caveats": ["Fewer than 5 seeds."],
    }  # fmt: skip
    assert second["differing_settings"] == {"training.num_epochs": 3}
    assert (second["counts"], second["trials"]) == ({"done": 0, "failed": 0, "missing": 0}, [])
    states = {(t["method"], t["num_removed"], t["seed"]): t["state"] for t in first["trials"]}
    assert states == statuses(half_done)
    (error,) = [trial["error"] for trial in first["trials"] if trial["error"] is not None]
    assert error == "RuntimeError: out of [memory]"


def test_a_program_is_told_what_is_damaged(half_done: Store, capsys: pytest.CaptureFixture[str]) -> None:
    record = Path(f"{half_done}/experiments/{EXPERIMENT}.json")
    trial = sorted(Path(f"{half_done}/trials").rglob("*.parquet"))[0]
    trial.write_bytes(trial.read_bytes()[:-9])
    for path, num_experiments in ((trial, 1), (record, 0)):
        record.write_text("{" if path == record else record.read_text())
        with pytest.raises(SystemExit) as ended:
            main(["status", str(half_done), "--json"])
        said = capsys.readouterr()
        assert ended.value.code == 1
        document = json.loads(said.out)
        assert len(document["experiments"]) == num_experiments
        (line,) = document["damaged"]
        assert line.startswith(f"{path} is damaged (")
        assert said.err == f"error: {line}\n"


def test_a_program_asking_a_store_without_experiments_gets_no_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", str(tmp_path), "--json"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith(f"error: the store {tmp_path} holds no experiment; ")


@pytest.mark.parametrize("table", ["failures", "trials"])
def test_a_damaged_result_is_said_beside_the_others(
    table: str, half_done: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted((Path(str(half_done)) / table).rglob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-9])
    half_done.write_experiment("other", CONFIGURATION, [])
    with pytest.raises(SystemExit) as ended:
        main(["status", str(half_done)])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "10 trials: " in said.out
    assert said.err.startswith(f"error: {path} is damaged (")
    assert said.err.count("\n") == 1


def test_a_method_that_looks_like_markup_is_shown(half_done: Store, capsys: pytest.CaptureFixture[str]) -> None:
    half_done.write_experiment("other", CONFIGURATION, [("[/b]x", 0, 0)])
    main(["status", str(half_done)])
    assert "[/b]x" in capsys.readouterr().out


def test_a_store_without_experiments_is_a_clear_error(tmp_path: Path) -> None:
    for folder, lacks in ((tmp_path, "holds no experiment"), (tmp_path / "absent", "is not there")):
        command = [sys.executable, "-m", "d3m_ray", "status", str(folder)]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        assert outcome.returncode == 2
        assert outcome.stderr == f"error: the store {folder} {lacks}; name what a run was given as --store\n"
        assert outcome.stdout == ""
    assert not (tmp_path / "absent").exists()


def test_analysis_imports_neither_ray_nor_torch() -> None:
    code = "import sys, d3m_ray.__main__, d3m_ray.analysis.figures; print({'ray', 'torch'} & set(sys.modules))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "set()"
