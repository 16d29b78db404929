"""Examples per second of TRAK's projected gradients, beside a plain forward and backward of the same batches."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import tyro
from corpora import Benchmark, prepare
from processes import examples_per_second

from d3m_ray.attribution.shards import make_shards
from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.attribution.trak.scores import GRADIENT_TOKENS
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.training.batching import Batch, TokenizedExamples, budget_batches
from d3m_ray.training.model import build_classifier, load_weights, logits_of, margins_of
from d3m_ray.training.precision import autocast

NUM_WARM_UP = 2
PASSES = ("forward", "forward and backward", "TRAK gradients")


def main(benchmark: Benchmark) -> None:
    """Print the examples per second of every pass, in one process and in two at once."""
    print(f"{'examples/s, one thread a process':40s}{'1 process':>12s}{'2 processes':>14s}")
    for name in PASSES:
        alone, together = examples_per_second(measure, benchmark, name)
        print(f"{name:40s}{alone:12.1f}{together:14.1f}", flush=True)


def measure(ready: Callable[[], object], benchmark: Benchmark, name: str) -> float:
    """Examples per second of one pass over evenly chosen batches of the train split, in one process."""
    pretrained, train = prepare(benchmark)
    model = build_classifier(pretrained).eval()
    load_weights(model, pretrained.weights)
    if name == "TRAK gradients":
        config = TrakConfig()
        one_pass: Callable[[Batch], object] = ProjectedGradients(
            model, SignProjection(config.projection_dim, config.projection_seed), "auto"
        )
    else:

        def one_pass(batch: Batch) -> None:
            model.requires_grad_(name != "forward")
            with autocast("cpu", "auto"):
                logits = logits_of(model, batch)
            if name != "forward":
                margins_of(logits, batch.labels).sum().backward()
                model.zero_grad()

    batches = list(_batches(train))
    every = max(1, len(batches) // benchmark.num_steps)
    for indices in batches[:NUM_WARM_UP]:
        one_pass(train.batch(indices))
    ready()
    start = time.perf_counter()
    for indices in batches[::every]:
        one_pass(train.batch(indices))
    return sum(map(len, batches[::every])) / (time.perf_counter() - start)


def _batches(train: TokenizedExamples) -> Iterator[np.ndarray]:
    for shard in make_shards(train):
        for batch in budget_batches(train.lengths[shard], GRADIENT_TOKENS):
            yield shard[batch]


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
