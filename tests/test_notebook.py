"""The notebook of the documentation: every cell runs, in a kernel of its own, and shows what its text says."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "first_experiment.ipynb"
SMALLER = {
    "d3m.Planted()": "d3m.Planted(num_train=240, num_val=160, num_test=160)",
    "(0, 50, 100)": "(0, 40)",
    "(0, 1, 2, 3, 4)": "(0, 1)",
}
"""What the test puts in the place of the notebook's numbers, to be done in seconds."""


def _codes(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _shown(cell: nbformat.NotebookNode) -> str:
    """All that a cell printed or displayed, in every form of it."""
    texts = [output["text"] for output in cell.outputs if output.output_type == "stream"]
    for output in cell.outputs:
        texts += map(str, output.get("data", {}).values())
    return "\n".join(texts)


def test_the_notebook_is_committed_without_what_a_run_printed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.outputs or cell.execution_count for cell in _codes(notebook))


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_the_text_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = _codes(notebook)[0]
    for what, smaller in SMALLER.items():
        assert what in settings.source
        settings.source = settings.source.replace(what, smaller)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, plan, result, finding, trials, harmful, page = map(_shown, _codes(notebook))
    assert "trials, 0 of them stored" in plan
    assert "<svg" in result
    assert "<table" in result
    assert "nothing removed" in result
    assert "\x1b[" not in result
    assert finding.startswith(("No conclusion", "No difference", "trak"))
    assert all(group in trials for group in ("amber", "birch", "cedar", "dune", "worst"))
    assert "valley" in harmful
    assert list(tmp_path.glob("results/notebook/**/report.html"))
    assert "report.html" in page
