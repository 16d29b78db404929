"""`report`, `table` and `figures`: what they write and say of whole, half-done, damaged and empty stores."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from made_up_store import STUDY, MadeUp, fill_store
from matplotlib.figure import Figure

from d3m_ray.__main__ import main
from d3m_ray.analysis import output
from d3m_ray.analysis.figures.catalogue import all_figures
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.analysis.written_tables import all_tables, explained
from d3m_ray.commands.results import show_results
from d3m_ray.store.store import Store

SMALL = MadeUp(numbers=(20, 40), num_train=80, num_val=80, num_test=160)
OTHER = MadeUp(name="birds-0f0f0f0f", methods=("trak", "random"), numbers=(10,), seeds=(0, 1), num_train=40, num_val=40)


@pytest.fixture(scope="module", autouse=True)
def _few_figures() -> Iterator[None]:
    """Two figures stand for all: what is drawn is tested with the figures, and takes seconds."""

    def two_of_all(results: Results) -> dict[str, Callable[[], Figure]]:
        return {name: draw for name, draw in all_figures(results).items() if name in ("pareto", "distribution")}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d3m_ray.analysis.figures.catalogue.all_figures", two_of_all)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two experiments, with the report of both."""
    folder = tmp_path_factory.mktemp("results") / "store"
    for made in (SMALL, OTHER):
        fill_store(Store(folder), made)
    main(["report", str(folder)])
    return folder


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "store", copy_function=shutil.copy2))


def status_of(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_report_is_an_index_and_a_folder_for_each_experiment(whole: Path) -> None:
    folder = whole / "figures"
    index = (folder / "index.html").read_text()
    for made in (SMALL, OTHER):
        assert f"{made.name}/report.html" in index
        files = {path.name for path in (folder / made.name).iterdir()}
        assert {"report.html", "summary.csv", "columns.txt", "pareto.pdf", "pareto.png", "pareto.svg"} <= files
        assert not [name for name in files if name.startswith(".") and name != output.STAMP]
    assert (folder / SMALL.name / "report.html").read_text().count("<svg") == 2


def test_a_figure_replaced_alone_is_not_called_up_to_date(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill_store(store, OTHER)
    results = read_results(store)
    folder = tmp_path / "out"
    output.write_report(results, folder, (), lambda line: None)
    assert output.write_report(results, folder, (), lambda line: None).num_up_to_date == 1
    output.write_figures(results[0], folder / OTHER.name)
    assert output.write_report(results, folder, (), lambda line: None).num_written == 1


def test_what_is_up_to_date_is_not_made_again(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = whole / "figures" / SMALL.name / "report.html"
    before = page.stat().st_mtime_ns
    assert status_of("report", str(whole)) == 0
    assert "2 up to date before" in capsys.readouterr().out
    assert page.stat().st_mtime_ns == before


def test_what_tables_are_made_by_lies_all_over_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics").mkdir()
    monkeypatch.setattr(output, "PACKAGE", tmp_path)
    codes = set()
    for text in ("accuracy = 1", "accuracy = 2"):
        (tmp_path / "metrics" / "groups.py").write_text(text)
        codes.add(output._code.__wrapped__())
    assert len(codes) == 2


@pytest.mark.parametrize("spoilt", ["summary.csv", output.STAMP])
def test_a_file_that_has_gone_is_made_again(store: Path, spoilt: str) -> None:
    (store / "figures" / OTHER.name / spoilt).unlink()
    assert status_of("report", str(store), "--experiment", OTHER.name) == 0
    assert (store / "figures" / OTHER.name / spoilt).is_file()


def test_a_new_result_makes_its_own_experiment_new_and_no_other(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of("report", str(store)) == 0
    assert "2 experiments written" in capsys.readouterr().out  # their pages name another store
    (trial,) = (store / "trials" / "method=trak").glob(f"*{OTHER.name}-trak-10-1.parquet")
    trial.unlink()
    assert status_of("report", str(store)) == 0
    assert "1 experiment written, 1 up to date before" in capsys.readouterr().out


def test_a_damaged_file_is_named_left_out_and_no_stamp_is_left(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (damaged,) = (store / "trials" / "method=trak").glob(f"*{OTHER.name}-trak-10-1.parquet")
    damaged.write_bytes(damaged.read_bytes()[:300])
    for _ in range(2):  # the second time too: nothing is called up to date
        assert status_of("report", str(store), "--experiment", OTHER.name) == 1
        assert f"{damaged} is damaged" in capsys.readouterr().err
    page = (store / "figures" / OTHER.name / "report.html").read_text()
    assert damaged.name in page


@pytest.mark.parametrize("table", ["fits", "alignments"])
def test_a_file_that_was_damaged_after_its_report_is_found(
    store: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = next((store / table).rglob(f"*{OTHER.name}*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:300])
    assert status_of("report", str(store), "--experiment", OTHER.name) == 1
    assert f"{damaged} is damaged" in capsys.readouterr().err


def test_a_half_done_store_says_what_is_missing(store: Path, tmp_path: Path) -> None:
    for table in ("scores", "alignments", "examples", "removals", "fits"):
        shutil.rmtree(store / table)
    shutil.rmtree(store / "trials" / "method=trak")
    assert status_of("report", str(store), "--out", str(tmp_path / "out")) == 0
    page = (tmp_path / "out" / SMALL.name / "report.html").read_text()
    assert "Missing trials" in page


@pytest.mark.parametrize("has_lds", [False, True])
def test_an_experiment_without_trials_has_a_report(
    has_lds: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that has just begun, or one of linear datamodeling scores."""
    store = Store(tmp_path / "store")
    plan = [] if has_lds else [("trak", 10, 0)]
    store.write_experiment("bees-0", {"dataset": "bees", "model": "tiny", "label_names": ["a", "b"]}, plan)
    if has_lds:
        rows = pd.DataFrame({"kind": ["query", "group", "group"], "target": ["mean", "ant", "mean"], "lds": 0.3})
        columns = {"lds_key": "k", "experiment": "bees-0", "lds_low": 0.2, "lds_high": 0.4}
        rows = rows.assign(**columns, **STUDY, num_subsets=20, scoring_seconds=3.0)
        store.write("lds", "k", rows, {}, "trak")
    for command in ("report", "table"):
        assert status_of(command, str(store)) == 0
    said = capsys.readouterr()
    assert not said.err.count("error")
    page = (tmp_path / "store" / "figures" / "bees-0" / "report.html").read_text()
    assert ("trak 0.30 (0.20 to 0.40)" in page) == has_lds
    assert status_of("table", str(store), "--format", "csv") == 0
    assert status_of("table", str(store), "--format", "json") == 0


@pytest.mark.parametrize("command", ["report", "table", "figures"])
def test_a_store_without_an_experiment_is_refused_and_nothing_is_written(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "foreign").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign" / "table.parquet")
    assert status_of(command, str(tmp_path / "foreign")) == 2
    assert "holds no experiment" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["table.parquet"]
    assert status_of(command, str(tmp_path / "nothing")) == 2
    assert not (tmp_path / "nothing").exists()


def test_an_unknown_experiment_is_refused_with_those_there_are(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("table", str(whole), "--experiment", "bees") == 2
    assert f"it has {OTHER.name}, {SMALL.name}" in capsys.readouterr().err


def test_the_table_is_text_csv_or_json(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("table", str(whole)) == 0
    assert f"{SMALL.name}, test" in capsys.readouterr().out
    assert status_of("table", str(whole), "--format", "csv") == 0
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert set(rows["experiment"]) == {SMALL.name, OTHER.name}
    assert status_of("table", str(whole), "--format", "json", "--experiment", SMALL.name) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["experiment"] == SMALL.name
    assert document["headline"]
    assert len(document["rows"]) == (rows["experiment"] == SMALL.name).sum()


def test_figures_are_written_where_they_are_asked_for(whole: Path, tmp_path: Path) -> None:
    assert status_of("figures", str(whole), "--experiment", OTHER.name, "--out", str(tmp_path / "here")) == 0
    files = {path.suffix for path in (tmp_path / "here" / OTHER.name).iterdir()}
    assert files == {".pdf", ".png", ".svg"}
    assert [path.name for path in (tmp_path / "here").iterdir()] == [OTHER.name]


def test_a_folder_that_cannot_be_written_is_one_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a file")
    assert status_of("report", str(whole), "--out", str(tmp_path / "file")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the folder of tables and figures")
    assert len(error.splitlines()) == 1


def test_a_sweep_ends_with_the_table_the_headline_and_the_report(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_results(Store(store), OTHER.name, tmp_path / "shown")
    page = tmp_path / "shown" / OTHER.name / "report.html"
    assert "index.html" not in page.read_text(), "there is none"
    assert status_of("report", str(store), "--out", str(tmp_path / "shown")) == 0
    assert "../index.html" in page.read_text()
    shown = capsys.readouterr().out
    assert "caution: Fewer than 5 seeds (2)" in shown
    assert str(tmp_path / "shown" / OTHER.name / "report.html") in shown
    assert any("Fewer than 5 seeds" in caveat for caveat in Store(store).read_experiments()[OTHER.name].caveats)


def test_every_column_of_every_table_is_explained(whole: Path) -> None:
    results = read_results(Store(whole), [SMALL.name])[0]
    tables = {name: table for name, table in all_tables(results).items() if not name.startswith("mean_")}
    columns = {column for table in tables.values() for column in table.columns}
    assert [column for column in sorted(columns) if explained(column) is None] == []
    guide = (whole / "figures" / SMALL.name / "columns.txt").read_text()
    assert "\nwga_difference_t_low: Lower end of the 95% Student t interval of wga_difference over seeds.\n" in guide
    assert "percentage points" not in guide
