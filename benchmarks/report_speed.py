"""Seconds that the report of a large store takes: as many made-up trials as asked for, of 13 groups and 26 cells."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from d3m_ray.metrics.groups import group_metrics
from d3m_ray.records import Examples
from d3m_ray.store.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import made_up_store as made_up

METHODS = ("random", "trak", "ekfac", "embedding", "bm25", "traker", "kronfluence", "trak_auto", "ekfac_auto", "loss")
MOST_REMOVED = 4000  # of 7,786
NUM_DRAWS = 20  # different fits: the others repeat one under another key, and are as long to read


def main(
    num_trials: int = 1000,
    num_methods: int = 5,
    num_numbers: int = 10,
    store: Path = Path("results/made-up-report"),
    rounds: int = 2,
) -> None:
    """Fill a store, unless it is there, and time its report: drawn whole, then with nothing left to draw.

    The trials are of so many methods, random removal among them, and numbers removed; as many seeds as that takes.
    """
    trials_a_seed = num_methods * (num_numbers + 1)
    made = made_up.MadeUp(
        groups=tuple(f"group {number}" for number in range(13)),
        methods=METHODS[:num_methods],
        rules={},
        numbers=tuple(MOST_REMOVED * number // num_numbers for number in range(1, num_numbers + 1)),
        seeds=tuple(range(max(1, round(num_trials / trials_a_seed)))),
        num_train=7786,
        num_val=1380,
        num_test=5870,
    )
    if not store.exists():
        seconds = _timed(lambda: fill(Store(store), made))
        print(f"{seconds:8.1f} s to make up {len(made.seeds) * trials_a_seed:,} trials", flush=True)
    out = store / "figures"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "d3m_ray", "report", str(store), "--out", str(out)]
    for number in range(rounds):
        seconds = _timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        print(f"{seconds:8.1f} s {'to report' if number == 0 else 'where all is up to date'}", flush=True)


def fill(store: Store, made: made_up.MadeUp) -> None:
    """Write all tables of an experiment, its fits drawn from a few."""
    rng = np.random.default_rng(0)
    sizes = {"train": made.num_train, "val": made.num_val, "test": made.num_test}
    splits = {split: made_up.make_examples(made, split, number, rng) for split, number in sizes.items()}
    attribution = [method for method in made.methods if method != "random"]
    made_up.write_record(store, made, attribution)
    made_up.write_examples(store, made, splits)
    alignments = {m: made_up.write_scores(store, made, m, splits["train"], rng) for m in attribution}
    draws = [_draw(made, splits, np.random.default_rng(number)) for number in range(NUM_DRAWS)]
    for seed in made.seeds:
        for method in made.methods:
            order = np.argsort(alignments[method]) if method in alignments else rng.permutation(made.num_train)
            for number in (0, *made.numbers):
                fit, metrics = draws[rng.integers(NUM_DRAWS)]
                key = made_up.fit_key(made, method if number else "base", number, seed)
                if number or method == made.methods[0]:
                    store.write("fits", key, fit.assign(fit_key=key), {})
                removed = splits["train"].example_ids[order[:number]]
                made_up.write_trial(store, made, (method, number, seed), (key, metrics), "erm", removed)


def _draw(
    made: made_up.MadeUp, splits: dict[str, Examples], rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    frames, metrics = [], []
    for split in ("val", "test"):
        predictions = made_up.draw_predictions(made, splits[split], 0.0, rng)
        frames.append(made_up.fit_rows(made, splits[split], predictions))
        of_split = group_metrics(predictions, splits[split], made.groups, made.label_names)
        metrics.append(of_split.assign(split=split))
    return pd.concat(frames, ignore_index=True), pd.concat(metrics, ignore_index=True)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    tyro.cli(main)
