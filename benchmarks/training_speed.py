"""Examples per second of fine-tuning: the thesis's path, then each thing that makes it faster, side by side."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from corpora import Benchmark, loaded, prepare, stock
from processes import examples_per_second
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.training.batching import Batch, TokenizedExamples, training_batches
from d3m_ray.training.cpu_encoder import only_logits
from d3m_ray.training.fine_tuning import build_optimizer
from d3m_ray.training.model import logits_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig

NUM_WARM_UP = 3
BATCH_SIZE = 32
PADDED_LENGTH = 128


@dataclass(frozen=True)
class Variant:
    """One way to train the same model; the defaults are this package's."""

    name: str
    padded: bool = False
    precision: str = "auto"
    like_lengths: bool = True
    trimmed: bool = True
    own_layers: bool = True
    only_logits: bool = True


VARIANTS = (
    Variant("padded to 128, float32 (the thesis)", True, "float32", False, False, False),
    Variant("padded to the batch's longest", False, "float32", False, False, False),
    Variant("+ bfloat16 where it is fast", False, "auto", False, False, False),
    Variant("+ batches of like length", False, "auto", True, False, False),
    Variant("+ only the vocabulary in use", False, "auto", True, True, False),
    Variant("+ CPU attention and dropout", only_logits=False),
    Variant("+ no padding, last layer on one token: d3m_ray"),
)


def main(benchmark: Benchmark) -> None:
    """Print the examples per second of every variant, in one process and in two at once."""
    print(f"{'examples/s, one thread a process':40s}{'1 process':>12s}{'2 processes':>14s}")
    for variant in VARIANTS:
        num_steps = max(4, benchmark.num_steps // 8) if variant.padded else benchmark.num_steps
        shorter = dataclasses.replace(benchmark, num_steps=num_steps)
        alone, together = examples_per_second(measure, shorter, variant)
        print(f"{variant.name:40s}{alone:12.1f}{together:14.1f}", flush=True)


def measure(ready: Callable[[], object], benchmark: Benchmark, variant: Variant) -> float:
    """Examples per second of the optimiser steps of one process."""
    pretrained, train = prepare(benchmark, variant.trimmed)
    model = model_of(pretrained, variant)
    optimizer = build_optimizer(model, TrainingConfig())
    batches = batches_of(train, variant)[: benchmark.num_steps + NUM_WARM_UP]
    take_steps(model, train, batches[:NUM_WARM_UP], variant, optimizer)
    ready()
    start = time.perf_counter()
    take_steps(model, train, batches[NUM_WARM_UP:], variant, optimizer)
    return sum(map(len, batches[NUM_WARM_UP:])) / (time.perf_counter() - start)


def model_of(pretrained: PretrainedModel, variant: Variant) -> PreTrainedModel:
    """The model that the variant trains, in training mode."""
    return (loaded if variant.own_layers else stock)(pretrained).train()


def batches_of(train: TokenizedExamples, variant: Variant) -> list[np.ndarray]:
    """Positions of an epoch's batches, in the order that the variant takes them in."""
    rng = np.random.default_rng(0)
    if variant.like_lengths:
        return list(training_batches(train.lengths, BATCH_SIZE, rng))
    order = rng.permutation(len(train))
    return [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]


def take_steps(
    model: PreTrainedModel,
    train: TokenizedExamples,
    batches: Sequence[np.ndarray],
    variant: Variant,
    optimizer: torch.optim.Optimizer,
) -> None:
    """A step of the optimiser for each batch."""
    for indices in batches:
        batch = train.batch(indices)
        if variant.padded:
            batch = _padded(batch, train.pad_id)
        with autocast("cpu", variant.precision), only_logits() if variant.only_logits else nullcontext():
            logits = logits_of(model, batch)
        nn.functional.cross_entropy(logits, batch.labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _padded(batch: Batch, pad_id: int) -> Batch:
    missing = (0, PADDED_LENGTH - batch.input_ids.shape[1])
    input_ids = nn.functional.pad(batch.input_ids, missing, value=pad_id)
    return Batch(input_ids, nn.functional.pad(batch.attention_mask, missing), batch.labels)


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
