"""CPU time an example of TRAK's projected gradients, beside plain passes over the same batches, taken by turns."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from corpora import Benchmark, loaded, prepare

from d3m_ray.attribution.shards import gradient_batches, make_shards
from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.training.batching import Batch
from d3m_ray.training.model import logits_of, margins_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.pretrained import PretrainedModel

GRADIENTS = "TRAK gradients"
REFERENCE = "forward, backward to the activations"


@dataclass(frozen=True)
class ScoringBenchmark(Benchmark):
    """What to measure on, and how often."""

    num_repeats: int = 3
    """Times that each batch goes through each pass, of which the median counts."""


def main(benchmark: ScoringBenchmark) -> None:
    """Print CPU milliseconds an example of every pass, and their ratio to the pass that no gradient can do without."""
    torch.set_num_threads(1)
    pretrained, train = prepare(benchmark)
    passes = passes_of(pretrained)
    chosen = [shard[batch] for shard in make_shards(train) for batch in gradient_batches(train.lengths[shard])]
    chosen = chosen[:: max(1, len(chosen) // benchmark.num_steps)]
    for one_pass in passes.values():
        one_pass(train.batch(chosen[0]))
    seconds = np.array([_by_turns(passes, train.batch(batch), benchmark.num_repeats) for batch in chosen]).sum(axis=0)
    num_examples = sum(map(len, chosen))
    reference = seconds[list(passes).index(REFERENCE)]
    print(f"{'CPU ms an example, one thread':40s}{'ms':>8s}{'of the reference':>20s}")
    for name, of_pass in zip(passes, seconds, strict=True):
        print(f"{name:40s}{1e3 * of_pass / num_examples:8.2f}{of_pass / reference:20.3f}")


def passes_of(pretrained: PretrainedModel) -> dict[str, Callable[[Batch], object]]:
    """What is timed, by name: each goes through a batch."""
    config = TrakConfig()
    projection = SignProjection(config.projection_dim, config.projection_seed)
    return {
        "forward": _plain(pretrained, None),
        REFERENCE: _plain(pretrained, False),
        "forward, whole backward": _plain(pretrained, True),
        GRADIENTS: ProjectedGradients(loaded(pretrained), projection, "auto"),
    }


def _by_turns(passes: dict[str, Callable[[Batch], object]], batch: Batch, num_repeats: int) -> np.ndarray:
    """[passes] median CPU seconds of each over the batch."""
    seconds = np.zeros((num_repeats, len(passes)))
    for repeat in range(num_repeats):
        for number, one_pass in enumerate(passes.values()):
            start = time.process_time()
            one_pass(batch)
            seconds[repeat, number] = time.process_time() - start
    median: np.ndarray = np.median(seconds, axis=0)
    return median


def _plain(pretrained: PretrainedModel, weights: bool | None) -> Callable[[Batch], object]:
    """A forward pass, with a backward pass to the activations, to the weights too, or, with None, without one."""
    model = loaded(pretrained).eval().requires_grad_(bool(weights))
    if weights is False:
        model.get_input_embeddings().register_forward_hook(lambda _, args, output: output.requires_grad_())

    def one_pass(batch: Batch) -> None:
        with torch.set_grad_enabled(weights is not None):
            with autocast("cpu", "auto"):
                logits = logits_of(model, batch)
            if weights is not None:
                margins_of(logits, batch.labels).sum().backward()
                model.zero_grad()

    return one_pass


if __name__ == "__main__":
    main(tyro.cli(ScoringBenchmark, description=__doc__))
