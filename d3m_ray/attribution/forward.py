"""Forward passes over shards of examples: what each example's loss, margin or embedding is made from.

Shapes: n examples of a shard, C labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, ScoringPrecision
from d3m_ray.attribution.shards import make_shards
from d3m_ray.attribution.targets import target_slopes
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.pool import WorkerPool
from d3m_ray.training.batching import TokenizedExamples, budget_batches, put_rows
from d3m_ray.training.budgets import tokens_at_once
from d3m_ray.training.model import logits_of, margins_of
from d3m_ray.training.precision import autocast

FORWARD_TOKENS = 4096  # padded tokens of a forward batch on a CPU: activations of a small model stay in cache


@dataclass(frozen=True, eq=False)
class ForwardStep:
    """What a shard of forward passes needs besides its example positions."""

    checkpoint: Checkpoint
    examples: TokenizedExamples
    precision: ScoringPrecision


def forward_pass(
    label: str,
    step: Callable[[ForwardStep, np.ndarray], np.ndarray],
    inputs: AttributionInputs,
    checkpoint: Checkpoint,
    examples: TokenizedExamples,
    pool: WorkerPool,
) -> np.ndarray:
    """[N, ...] what the step gives for each example of a shard, over all shards, in the order of the N examples."""
    shards = make_shards(examples)
    shared = pool.put(ForwardStep(checkpoint, examples, inputs.precision))
    return np.concatenate(list(pool.map(label, step, shared, shards)))[np.argsort(np.concatenate(shards))]


def query_slopes(label: str, inputs: AttributionInputs, checkpoint: Checkpoint, pool: WorkerPool) -> np.ndarray:
    """[Q] float64 slopes of the target at each query's margin under a checkpoint; ones where it is the margin."""
    if inputs.query_target == "margin":
        return np.ones(len(inputs.queries))  # without a forward pass
    margins = forward_pass(label, margins_of_shard, inputs, checkpoint, inputs.queries, pool)
    return target_slopes(torch.from_numpy(margins), inputs.query_target).numpy()


def margins_of_shard(shared: ForwardStep, positions: np.ndarray) -> np.ndarray:
    """[n] float64 margins of the examples at these positions."""
    logits = torch.from_numpy(logits_of_shard(shared, positions))
    return margins_of(logits, torch.from_numpy(shared.examples.labels[positions])).numpy()


def logits_of_shard(shared: ForwardStep, positions: np.ndarray) -> np.ndarray:
    """[n, C] float64 logits of the examples at these positions."""
    model, _ = loaded_model(shared.checkpoint, "logits", shared.precision, lambda model: None)
    logits = np.zeros((len(positions), shared.examples.num_labels))
    batches = list(budget_batches(shared.examples.lengths[positions], tokens_at_once(model, FORWARD_TOKENS)))
    parts = []
    with torch.inference_mode():
        for batch in batches:
            padded = shared.examples.batch(positions[batch], model.device)
            with autocast(model.device, shared.precision):
                parts.append(logits_of(model, padded).double())
        put_rows(logits, batches, parts)
    return logits
