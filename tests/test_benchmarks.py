"""`make benchmarks`: its parts are there and on their page, sides take turns, and it runs without data.

The GPU's command: without one it says so, and what fails in it is in its exit status.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import peers

    return peers


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


def test_each_part_can_be_asked_for_and_is_on_the_page(peers: ModuleType) -> None:
    assert set(peers.PARTS) == set(get_args(peers.PartName)) == set(peers.Comparison().parts)
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^- \*\*(\w+)\*\*", page, re.MULTILINE)) == set(peers.PARTS)
    assert set(re.findall(r"^\| (\w+) \|.*\*\*", page, re.MULTILINE)) == set(peers.PARTS)
    assert "benchmarks/peers.py" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_data_and_model_are_given_together(peers: ModuleType) -> None:
    with pytest.raises(SystemExit, match="together, or neither"):
        peers.prepare(peers.Source(data=Path("texts")))


def test_sides_take_turns_and_slow_ones_are_not_warmed_up(peers: ModuleType) -> None:
    calls: list[str] = []
    sides = [peers.Side(name, lambda name=name: calls.append(name), 2, name == "a") for name in "abc"]
    assert peers.by_turns(sides, 2).shape == (2, 3)
    assert calls == list("bcabcabc")


def test_ratios_are_of_the_same_round(peers: ModuleType) -> None:
    sides = [peers.Side(name, lambda: None, 1) for name in ("other", "ours")]
    found = peers.compared(sides, np.array([[2.0, 1.0], [30.0, 10.0], [4.0, 1.0]]))
    assert found["other"]["times_as_long"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert found["other"]["seconds_an_example"]["median"] == 4.0
    assert peers.rows("training", found) == ["| training | other | **3** (2 to 4) | 4e+03 | 1e+03 |"]


@pytest.mark.slow
def test_it_runs_without_data(peers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found" / "peers.json"
    peers.main(peers.Comparison(size="tiny", parts=("predictions",), num_rounds=2, out=out))
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {"cpu", "threads", "precision"} <= set(found["machine"])
    assert {"commit", "library_versions", "traker", "kronfluence", "bergson"} <= set(found["versions"])
    assert list(found["predictions"]) == ["transformers: same precision and batches", "d3m_ray"]
    assert [len(side["rounds"]) for side in found["predictions"].values()] == [2, 2]
    assert "| predictions | transformers: same precision and batches | **" in capsys.readouterr().out


def test_without_the_gpu_that_is_asked_for_a_line_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.main(gpu.Options(out=tmp_path / "found.json")) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert len(printed.err.splitlines()) == 1
    assert "--device cpu" in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (lambda: {"rate": 1.0}, 0),
        (lambda: {}["none"], 1),
        (lambda: {"trak": 0.0, "ekfac": {"failed": ["why"]}}, 1),
        (lambda: {"float32": True, "bfloat16": False}, 1),
    ],
    ids=["all well", "raises", "a method failed", "other bits"],
)
def test_what_fails_on_a_gpu_is_in_the_exit_status_and_the_others_are_written(
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    second: Callable[[], object],
    status: int,
) -> None:
    parts = {"first": lambda _: {"rate": 2.0}, "second": lambda _: second(), "third": lambda _: {"rate": 3.0}}
    monkeypatch.setattr(gpu, "PARTS", parts)
    out = tmp_path / "new" / "found.json"
    assert gpu.main(gpu.Options(device="cpu", out=out)) == status
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [found["first"], found["third"]] == [{"rate": 2.0}, {"rate": 3.0}]
    assert ("failed: second;" in capsys.readouterr().err) == bool(status)


@pytest.mark.slow
def test_the_speeds_of_a_gpu_are_measured_on_a_cpu_too(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is ready for the day when there is one."""
    monkeypatch.setattr(gpu, "PARTS", {name: gpu.PARTS[name] for name in ("training", "stacks", "scoring")})
    out = tmp_path / "found.json"
    options = gpu.Options(device="cpu", size="tiny", num_steps=1, num_scored=20, stacks=(1, 2), out=out)
    assert gpu.main(options) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["stacks"]) == {"1 at once", "2 at once"}
    assert all(rate > 0 for rate in found["scoring"].values())
    assert not capsys.readouterr().err
