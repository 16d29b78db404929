"""Made-up trials: metrics follow known lines, so that tests know what tables and figures must say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store
from odd_names import ODD, SMALL

from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store

CREATED_AT = pd.Timestamp("2026-01-02 03:04:05", tz="UTC")
BASE_ACCURACIES = {"ant": 0.75, "bee": 0.85, "cat": 0.8, "dog": 0.7}
EXPERIMENT = "insects-1a2b3c4d"


def make_trial(method: str, num_removed: int, seed: int, gain: float, key_suffix: str = "") -> pd.DataFrame:
    """One trial's rows: each identity's accuracy is its base plus the gain; dog is the worst, dog/0 the worst cell."""
    identities = {name: base + gain for name, base in BASE_ACCURACIES.items()}
    cells = {f"{n}/{label}": a + (0.04 if label else -0.04) for n, a in identities.items() for label in (0, 1)}
    summaries = {"all": np.mean(list(identities.values())), "worst": min(identities.values())}
    accuracies = pd.Series(identities | cells | summaries | {"worst_cell": min(cells.values())})
    one_label = accuracies.index.str.endswith(("/0", "/1")) | (accuracies.index == "worst_cell")
    return pd.DataFrame(
        {
            "trial_key": f"{method}-{num_removed}-{seed}{key_suffix}",
            "fit_key": f"{method if num_removed else 'base'}-{num_removed}-{seed}",
            "experiment": EXPERIMENT,
            "dataset": "insects",
            "model": "tiny-bert",
            "objective": "erm",
            "num_removed": num_removed,
            "seed": seed,
            "split": "test",
            "group": accuracies.index,
            "num_examples": np.where(one_label, 50, 100),
            "accuracy": accuracies.to_numpy(),
            "loss": 1.2 - accuracies.to_numpy(),
            "fpr": np.where(one_label, np.nan, 1.05 - accuracies),
            "fnr": np.where(one_label, np.nan, 0.95 - accuracies),
            "auc": np.where(one_label, np.nan, 0.05 + accuracies),
            "macro_f1": np.where(one_label, np.nan, accuracies - 0.02),
            "margin": accuracies.to_numpy() - 0.5,
            "soft_accuracy": accuracies.to_numpy() - 0.1,
            "train_seconds": 1.5,
            "num_train": 1000 - num_removed,
            "num_steps": 30,
            "created_at": CREATED_AT,
        }
    )


WriteTrial = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def write_trial(store: Store) -> WriteTrial:
    """Stores a made-up trial: (method, num_removed, seed, gain), and columns to put in place of the made-up ones."""

    def write(
        method: str, num_removed: int, seed: int, gain: float = 0.0, key_suffix: str = "", **columns: object
    ) -> None:
        frame = make_trial(method, num_removed, seed, gain, key_suffix).assign(**columns)
        store.write("trials", frame["trial_key"].iloc[0], frame, {}, method)

    return write


@pytest.fixture
def filled_store(store: Store, write_trial: WriteTrial) -> Store:
    """trak gains 0.01 per 100 removed, random loses 0.005; seeds 0 to 4 are 0.01 apart whatever the method."""
    for seed in range(5):
        for num_removed in (0, 50, 100, 200):
            write_trial("trak", num_removed, seed, 1e-4 * num_removed + 0.01 * seed)
            write_trial("random", num_removed, seed, -5e-5 * num_removed + 0.01 * seed)
        write_trial("trak_heuristic", 137, seed, 0.03 + 0.01 * seed)
    return store


@pytest.fixture(scope="session", params=[SMALL, ODD], ids=["small", "odd"])
def made(request: pytest.FixtureRequest) -> MadeUp:
    """A made-up experiment of few trials, then one of twenty groups and three labels with odd names."""
    return request.param


@pytest.fixture(scope="session")
def results(made: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """All that a store holds of `made`; not to be changed."""
    store = Store(tmp_path_factory.mktemp("made") / "store")
    fill_store(store, made)
    (found,) = read_results(store)
    return found


@pytest.fixture(scope="session")
def other_results(results: Results) -> Callable[..., Results]:
    """Makes the same results with some of what the store holds replaced: `other_results(alignments={})`."""

    def make(**replaced: object) -> Results:
        made = Results(results.store, results.record, results.all_trials)
        made.__dict__.update(replaced)  # as the cached properties would
        return made

    return make
