"""Trials whose place others have taken: a reader gets what was asked for last, whatever was recorded last."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import d3m_ray as d3m
from d3m_ray.selection.arms import ARMS, Evidence
from d3m_ray.trials import engine

pytestmark = pytest.mark.usefixtures("own_registries")


def first(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
    return np.arange(num_removed)


def last(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
    return np.arange(len(evidence) - num_removed, len(evidence))


def registered(select: Callable[[Evidence, int, int], np.ndarray], chooses_number: bool) -> d3m.ExperimentConfig:
    """An experiment of an arm whose code is this now; of one that decides its number, another number."""
    ARMS.pop("picked", None)
    d3m.arm("picked")(select)
    if chooses_number:
        number = 6 if select is first else 3
        decides = dataclasses.replace(
            ARMS["picked"], select=lambda e, k, seed: np.sort(select(e, number, seed)), chooses_number=True
        )
        ARMS["picked"] = decides
    return d3m.ExperimentConfig(
        d3m.Planted(num_train=48, num_val=24, num_test=24),
        model="tiny",
        methods=("picked", "random"),
        num_removed=(0, 6),
        seeds=(0,),
        training=d3m.TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
        experiment="named",
    )


@pytest.mark.parametrize("chooses_number", [False, True])
def test_what_an_arm_selects_again_is_what_is_read(
    chooses_number: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code was changed, and changed back: the fit of the first is stored, and its trial was not the newest."""

    def read() -> list[str]:
        return sorted(d3m.read_removals(tmp_path, "picked")["example_id"])

    d3m.run(registered(first, chooses_number), tmp_path, "local")
    of_first = read()
    d3m.run(registered(last, chooses_number), tmp_path, "local")
    assert set(read()).isdisjoint(of_first)
    assert "forgotten: 1 trial of an earlier selection, of another code or version" in capsys.readouterr().err

    config = registered(first, chooses_number)
    monkeypatch.setattr(engine, "run_fit", lambda *_: pytest.fail("its fit is stored"))
    again = d3m.run(config, tmp_path, "local")
    assert read() == of_first
    assert len(again.trials.groupby(["method", "num_removed", "seed"])) == (3 if chooses_number else 4)


def test_what_could_not_be_made_takes_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = d3m.run(registered(first, chooses_number=False), tmp_path, "local")
    config = registered(last, chooses_number=False)
    monkeypatch.setattr(engine, "run_fit", lambda *_: 1 / 0)
    after = d3m.run(config, tmp_path, "local")
    assert len(after.failed) == 1
    assert after.trials.equals(before.trials)
