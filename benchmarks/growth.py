"""How time and memory of scoring, storing and alignment grow with the train split and with the number of groups.

A tiny model of random weights and random words. Each size runs in a process of its own, whose peak memory counts; an
exponent of 1 is linear growth. Takes some minutes.
"""

import dataclasses
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro

from d3m_ray.attribution.ekfac import scores as ekfac
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.trak import scores as trak
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.made_up import made_inputs, made_tokens
from d3m_ray.pool import LocalPool
from d3m_ray.selection.alignment import group_alignment, pseudo_groups
from d3m_ray.store.store import Store


@dataclass(frozen=True)
class Growth:
    """The sizes to measure."""

    num_train: tuple[int, ...] = (10_000, 50_000, 200_000)
    """Train examples."""
    num_groups: tuple[int, ...] = (13, 100)
    """Groups of the queries; the first goes with every size, the others with the smallest."""
    num_queries: int = 400
    """Val examples: columns of the scores of each query that are stored and split into pseudo-groups."""
    stages: tuple[str, ...] = ("trak", "ekfac", "alignment", "query scores", "pseudo-groups")
    """Which stages are measured."""


def main(growth: Growth) -> None:
    """Print CPU seconds and GiB of every stage and size, and the exponents of growth between neighbouring sizes."""
    print(f"{'stage':16s}{'train':>9s}{'groups':>8s}{'CPU s':>10s}{'GiB':>8s}{'exponents: time':>18s}{'memory':>8s}")
    for stage in growth.stages:
        first, *others = growth.num_groups
        sizes = [(number, first) for number in growth.num_train]
        found = {size: _measured(stage, *size, growth.num_queries) for size in sizes}
        for before, size in zip([sizes[0], *sizes], sizes, strict=False):
            _report(stage, size, found[size], found[before], size[0] / before[0])
        for number in others if stage in ("trak", "ekfac", "alignment") else ():
            size = sizes[0][0], number
            _report(stage, size, _measured(stage, *size, growth.num_queries), found[sizes[0]], number / first)


def _report(
    stage: str, size: tuple[int, int], found: tuple[float, float], before: tuple[float, float], growth: float
) -> None:
    powers = [
        np.log(now / was) / np.log(growth) if growth > 1 and min(now, was) > 0 else np.nan
        for now, was in zip(found, before, strict=True)
    ]
    print(
        f"{stage:16s}{size[0]:9d}{size[1]:8d}{found[0]:10.2f}{found[1]:8.2f}{powers[0]:18.2f}{powers[1]:8.2f}",
        flush=True,
    )


def _measured(stage: str, num_train: int, num_groups: int, num_queries: int) -> tuple[float, float]:
    """CPU seconds of a stage, and the GiB by which it raised the peak memory of a process, with its input arrays."""
    spawning = multiprocessing.get_context("spawn")
    results = spawning.SimpleQueue()
    process = spawning.Process(target=_run, args=(stage, num_train, num_groups, num_queries, results))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{stage} of {num_train} train examples ended with {process.exitcode}")
    found: tuple[float, float] = results.get()
    return found


def _run(stage: str, num_train: int, num_groups: int, num_queries: int, results: Any) -> None:
    torch.set_num_threads(1)
    _stage("trak", 60, 2, 6)()  # what is loaded and built once is not growth
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = _stage(stage, num_train, num_groups, num_queries)
    start = time.process_time()
    run()
    seconds = time.process_time() - start
    results.put((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20))


def _stage(stage: str, num_train: int, num_groups: int, num_queries: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    if stage == "trak":
        return lambda: trak.score_groups(_inputs(num_train, num_groups, num_queries), TrakConfig(), LocalPool())
    if stage == "ekfac":
        return lambda: ekfac.score_groups(_inputs(num_train, num_groups, num_queries), EkfacConfig(), LocalPool())
    if stage == "alignment":
        scores = rng.normal(size=(num_train, num_groups)).astype(np.float32)
        return lambda: group_alignment(scores, np.full(num_groups, 1 / num_groups))
    scores = rng.standard_normal(size=(num_train, num_queries), dtype=np.float32)
    return (lambda: _store(scores)) if stage == "query scores" else (lambda: _pseudo_groups(scores))


def _inputs(num_train: int, num_groups: int, num_queries: int) -> AttributionInputs:
    made = made_inputs()
    train, queries = made_tokens("train", num_train, 2), made_tokens("val", num_queries, 2)
    queries = dataclasses.replace(queries, groups=np.arange(num_queries) % num_groups)
    return dataclasses.replace(made, train=train, queries=queries, num_groups=num_groups, precision="float32")


def _store(scores: np.ndarray) -> None:
    ids, names = (
        [f"train/{place}" for place in range(len(scores))],
        [f"val/{place}" for place in range(scores.shape[1])],
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.write_scores("query_scores", "benchmark", scores, ids, names, {}, "trak")
        store.has_whole("query_scores", "benchmark", "trak", print)
        store.read_scores("query_scores", "benchmark", ids, names, "trak")


def _pseudo_groups(scores: np.ndarray) -> np.ndarray:
    groups = pseudo_groups(scores, np.arange(scores.shape[1]) % 2)
    return group_scores(scores, groups, int(groups.max()) + 1)


if __name__ == "__main__":
    main(tyro.cli(Growth, description=__doc__))
