"""CPU seconds per example of native TRAK beside the traker library, on the same model and texts, on one thread."""

import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro
from corpora import Benchmark, prepare

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.libraries import traker
from d3m_ray.attribution.trak import scores as trak
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.training.batching import TokenizedExamples


@dataclass(frozen=True)
class TrakerBenchmark(Benchmark):
    """What to measure on, and how much of it."""

    batch_size: int = 8
    """Examples of a batch of the library; the thesis's is 8."""
    num_batches: int = 1
    """Batches of the library that are timed, of train examples of median length."""
    num_examples: int = 256
    """Train examples that the native method scores, the library's among them; as many again are its queries."""
    projection_dim: int = 1024
    """Projected dimensions of both."""


def main(benchmark: TrakerBenchmark) -> None:
    """Print seconds per example of each method's projected gradients, and the ratios.

    Of the library over every weight, as it is commonly set up; over the vocabulary in use, as here; in larger batches.
    """
    torch.set_num_threads(1)
    pretrained, train = prepare(benchmark)
    checkpoint = Checkpoint("pretrained", pretrained, pretrained.weights)
    config = TrakConfig(projection_dim=benchmark.projection_dim)
    few = median_length(train, benchmark.num_examples)
    num_parameters = sum(array.size for array in pretrained.weights.values())
    print(f"{num_parameters / 1e6:.1f} M parameters, {few.lengths.mean():.1f} tokens a text, {config}")
    task = trak.GradientStep(checkpoint, few, config, "auto")
    native = _report("trak, gradients", len(few), lambda: trak.project_shard(task, np.arange(len(few))))
    inputs = AttributionInputs((checkpoint,), few, _as_queries(few), len(np.unique(few.groups)))
    _report("trak, whole scoring", len(few), lambda: trak.score_groups(inputs, config, LocalPool()))
    whole_base, whole_train = prepare(benchmark, trimmed=False)
    whole = Checkpoint("whole", whole_base, whole_base.weights), median_length(whole_train, benchmark.num_examples)
    largest = max(1, traker.GRADIENT_BYTES // (4 * num_parameters))
    ways = {
        f"traker, whole vocabulary, batches of {benchmark.batch_size}": (*whole, benchmark.batch_size),
        f"traker, batches of {benchmark.batch_size}": (checkpoint, few, benchmark.batch_size),
        f"traker, batches of {largest}": (checkpoint, few, largest),
    }
    for name, (of, examples, size) in ways.items():
        rows = examples.take(np.arange(min(len(examples), size * benchmark.num_batches)))
        batches = np.array_split(np.arange(len(rows)), -(-len(rows) // size))
        library = traker.TrakerStep(of, 0, rows, config, "float32", "cpu")
        seconds = _report(name, len(rows), partial(traker.featurize_shard, library, batches))
        print(f"{'':40s}{seconds / native:12.0f} times trak's")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def _report(name: str, num_examples: int, run: Callable[[], object]) -> float:
    """CPU seconds per example of one call, printed; building the model is part of it, as in a real run.

    CPU time rather than the clock's: a batch of the library takes minutes, in which a machine seldom does nothing else.
    """
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
    seconds = (time.process_time() - start) / num_examples
    print(f"{name:40s}{seconds:12.4f} CPU s per example{1 / seconds:10.2f} examples/s", flush=True)
    return seconds


def median_length(train: TokenizedExamples, num_examples: int) -> TokenizedExamples:
    """Evenly chosen examples between the quartiles of length, in a fixed random order."""
    order = np.argsort(train.lengths, kind="stable")
    middle = order[len(order) // 4 : 3 * len(order) // 4]
    chosen = middle[np.linspace(0, len(middle) - 1, num_examples).astype(int)]
    return train.take(np.random.default_rng(0).permutation(chosen))


def _as_queries(train: TokenizedExamples) -> TokenizedExamples:
    """The same texts in the role of queries, their groups numbered without gaps."""
    return TokenizedExamples(
        "val",
        train.flat_ids,
        train.offsets,
        train.labels,
        np.unique(train.groups, return_inverse=True)[1],
        train.pad_id,
    )


if __name__ == "__main__":
    main(tyro.cli(TrakerBenchmark, description=__doc__))
