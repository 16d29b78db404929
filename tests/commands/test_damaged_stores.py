"""One damaged file blocks no command that reads: it is named, with what repairs it, and the rest is shown."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from made_up_store import STUDY, MadeUp, fill_store

from d3m_ray.__main__ import main
from d3m_ray.store.store import Store

MADE = MadeUp(numbers=(8,), seeds=(0, 1), num_train=48, num_val=40, num_test=64, rules={})
OTHER = MadeUp(name="birds-0f0f0f0f", methods=("trak", "random"), numbers=(10,), seeds=(0,), num_train=40, num_val=40)
OF_ONE = ("--method", "trak", "--experiment", MADE.name)
COMMANDS: dict[str, tuple[str, ...]] = {
    "status": (),
    "status --json": ("--json",),
    "table": ("--format", "json"),
    "report": ("--out", "OUT"),
    "examples": OF_ONE,
    "export": (*OF_ONE, "--num-removed", "8", "--seed", "0", "--out", "OUT.csv"),
}
READ_BY = {  # of the report, which is slow, those that no test of it has
    "trials": {"status", "status --json", "table", "examples", "export"},
    "experiments": {"status", "status --json", "table", "examples", "export"},
    "failures": {"status", "status --json"},
    "fits": {"export"},
    "removals": {"examples"},
    "examples": {"examples", "export"},
    "alignments": set[str](),
    "scores": {"report"},
    "lds": {"table"},
}
IN_VAIN = {("export", "examples"), ("examples", "experiments"), ("export", "experiments")}
"""Commands and the one file without which they have nothing to show."""


@pytest.fixture(scope="module", autouse=True)
def _no_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d3m_ray.analysis.figures.catalogue.all_figures", lambda results: {})
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "store"
    store = Store(folder)
    for made in (MADE, OTHER):
        fill_store(store, made)
    failure = {"trial_key": "k1", "experiment": MADE.name, "num_removed": 5, "seed": 0, "error": "e", "traceback": "t"}
    row = pd.DataFrame([failure | {"created_at": pd.Timestamp(0, tz="UTC")}]).astype({"num_removed": "Int64"})
    store.write("failures", "k1", row, {}, "trak")
    lds = {"lds_key": "k1", "experiment": MADE.name, "kind": "query", "target": "mean", **STUDY}
    lds |= {"lds": 0.3, "lds_low": 0.2, "lds_high": 0.4, "num_subsets": 20, "scoring_seconds": 3.0}
    store.write("lds", "k1", pd.DataFrame([lds]), {}, "trak")
    return folder


def status_of(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("table", READ_BY)
def test_one_damaged_file_blocks_no_command(
    table: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "store"))
    paths = [path for path in sorted((folder / table).rglob("*.*")) if OTHER.name not in path.name]
    damaged = next((path for path in paths if path.stem.endswith(f"{MADE.name}-trak-8-1")), paths[0])
    damaged.write_bytes(damaged.read_bytes()[:-9])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in READ_BY[table] or {"status"}:
        given = [flag.replace("OUT", str(tmp_path / "out")) for flag in COMMANDS[name]]
        status, said = status_of(name.split()[0], str(folder), *given), capsys.readouterr()
        if name not in READ_BY[table]:
            assert (status, said.err.count("error")) == (0, 0), "it does not read the table"
            continue
        assert status == (2 if (name, table) in IN_VAIN else 1), name
        (line,) = (line for line in said.err.splitlines() if str(damaged) in line)
        assert line.startswith(f"error: {damaged} is damaged (")
        repaired = f"; d3m-ray check {folder} --repair deletes it, and the same sweep run again recomputes it"
        assert line.endswith(repaired)
        if name == "report":
            assert (tmp_path / "out" / OTHER.name / "report.html").exists()
            assert damaged.name in (tmp_path / "out" / MADE.name / "report.html").read_text()
        elif name == "export":
            assert (tmp_path / "out.csv").exists() == (status == 1)
        else:
            assert (said.out != "") == (status == 1)
            assert OTHER.name in said.out or name == "examples"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("flags", [(), ("--num-removed", "8"), ("--seed", "0")])
def test_a_removal_that_a_damaged_trial_leaves_open_is_not_exported(
    flags: tuple[str, ...], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "store"))
    (damaged,) = (folder / "trials" / "method=random").glob(f"*{MADE.name}-random-8-1.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    command = ["export", str(folder), "--method", "random", "--experiment", MADE.name, "--out"]
    assert status_of(*command, str(tmp_path / "a.csv"), *flags) == 2
    said = capsys.readouterr().err
    assert f"{damaged} is damaged" in said
    assert "name it by --num-removed and --seed" in said
    assert not (tmp_path / "a.csv").exists()
    assert status_of(*command, str(tmp_path / "a.csv"), "--num-removed", "8", "--seed", "0") == 1
    assert len(pd.read_csv(tmp_path / "a.csv")) == 40
