"""What a process has done, on whose account."""

import threading
from pathlib import Path

import numpy as np
import pytest

from d3m_ray import meter
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.plan import make_context
from d3m_ray.meter import DoneFor, Meter
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.training import fine_tuning
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials import engine
from d3m_ray.trials.engine import PlannedFit, train_and_record
from d3m_ray.trials.trial import plan_trial


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """In the place of this process's meter, wherever it is read."""
    made = Meter()
    for module in (meter, fine_tuning, engine):
        monkeypatch.setattr(module, "METER", made)
    return made


def test_what_is_done_is_put_on_the_account_of_the_moment() -> None:
    counted = Meter()
    counted.add(steps=1)
    counted.charge(DoneFor("one", "trak"))
    counted.add(steps=2, examples=64)
    counted.add(steps=3)
    assert counted.read() == {DoneFor(): {"steps": 1}, DoneFor("one", "trak"): {"steps": 5, "examples": 64}}


def test_no_count_is_lost_between_threads() -> None:
    counted = Meter()
    threads = [threading.Thread(target=lambda: [counted.add(steps=1) for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.read()[DoneFor()]["steps"] == 16000


def test_calls_of_the_store_are_counted_also_where_they_fail(tmp_path: Path, fresh: Meter) -> None:
    store = Store(tmp_path)
    before = fresh.read().get(DoneFor(), {}).get("store_calls", 0)
    store.write_log("one", "now", b"{}\n")
    with pytest.raises(StoreError):
        store.read("fits", "0" * 8)
    after = fresh.read()[DoneFor()]
    assert after["store_calls"] == before + 2
    assert after["store_seconds"] > 0


def test_a_fit_counts_what_it_goes_through_under_its_arm(tmp_path: Path, fresh: Meter) -> None:
    """Two epochs over all but the eight removed, whose tokens are left out."""
    training = TrainingConfig(num_epochs=2, batch_size=16, final_model="last")
    config = ExperimentConfig(
        Planted(num_train=48, num_val=16, num_test=16), model="tiny", num_removed=(8,), training=training
    )
    context = make_context(config, load_splits(config.corpus), Store(tmp_path))
    trial = plan_trial(context, "random", np.arange(8), seed=0)
    train_and_record(context, PlannedFit(trial.fit, (trial,)))
    done = fresh.read()[DoneFor(context.experiment, "random")]
    assert (done["steps"], done["examples"]) == (2 * 3, 2 * 40)
    assert done["tokens"] == 2 * context.tokens["train"].lengths[8:].sum()
    assert done["store_calls"] >= 3
