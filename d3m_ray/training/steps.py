"""Which examples each step of a fit sees, and in which dropout: what pairs the fits of a seed, and replays one.

Shapes: N train examples, M removed ones, B examples of a batch, K of them that are kept, C labels.

Two fits of a seed that differ by what they remove are compared. Under `common` pairing a fit without some examples is
the fit of the full split without them: the same batches in the same order, the same first weights of the head, and for
each example that stays the same dropout. So what differs is what was removed, and removing nothing is no change at all.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from d3m_ray.training.batching import TokenizedExamples, on_device, training_batches
from d3m_ray.training.cpu_encoder import only_logits
from d3m_ray.training.cpu_layers import NotByExampleError, dropout_of_rows
from d3m_ray.training.model import logits_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.settings import TrainingConfig

ROUNDING = 1e-4  # of the largest logit: float32 stays far below it, another mask is far above
_MASK_63_BITS = 2**63 - 1  # torch takes seeds below 2**63


@dataclass(frozen=True, eq=False)
class Step:
    """One optimiser step: the batch that it is planned for, and what is kept of that."""

    number: int
    """From 0, over all epochs."""
    batch: np.ndarray
    """[B] positions in train."""
    kept_rows: np.ndarray
    """[K] ascending places in the batch: the loss is the mean over these."""

    @property
    def positions(self) -> np.ndarray:
        """[K] positions in train of what is kept."""
        return self.batch[self.kept_rows]

    @property
    def is_whole(self) -> bool:
        """Whether everything in the batch is kept."""
        return len(self.kept_rows) == len(self.batch)


def steps_per_epoch(num_train: int, num_kept: int, config: TrainingConfig) -> int:
    """Optimiser steps of an epoch: of a pass over the full split under common pairing or where they are matched."""
    counted = num_train if config.pairing == "common" or config.step_matched else num_kept
    return -(-counted // config.batch_size)


def learning_rate_at(number: int, num_steps: int, config: TrainingConfig) -> float:
    """The learning rate of a step, from 0, of `num_steps` in all: a linear rise over the warm-up, then to zero."""
    num_warm_up = round(config.warmup_share * num_steps)
    if number < num_warm_up:
        return config.learning_rate * (number / num_warm_up)
    return config.learning_rate * ((num_steps - number) / (num_steps - num_warm_up))


def training_steps(
    lengths: np.ndarray,
    kept: np.ndarray,
    config: TrainingConfig,
    seed: int,
    sampling_weights: np.ndarray | None = None,
) -> Iterator[Step]:
    """The steps of a fit, without end: the first `num_epochs * steps_per_epoch` of them are taken.

    `lengths` is [N] of the full split, `kept` the ascending positions [N - M] that the fit has. Batches come in passes
    that hold every example once or, given `sampling_weights` [N], as many draws in these shares, with replacement;
    each pass has a random stream of its own. Under common pairing passes are over the full split, and what is removed
    is left out of its batches, else over what is kept.
    """
    is_kept = np.isin(np.arange(len(lengths)), kept)
    drawn_from = np.arange(len(lengths)) if config.pairing == "common" else kept
    weights = None if sampling_weights is None else sampling_weights[drawn_from]
    batches = _endless_batches(lengths[drawn_from], config.batch_size, seed, weights)
    for number, places in enumerate(batches):
        batch = drawn_from[places]
        yield Step(number, batch, np.flatnonzero(is_kept[batch]))


def _endless_batches(
    lengths: np.ndarray, batch_size: int, seed: int, sampling_weights: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Positions [B] of one batch after another, in passes without end; pass i has a random stream of its own."""
    num_examples = len(lengths)
    shares = None if sampling_weights is None else sampling_weights / sampling_weights.sum()
    for number in itertools.count():
        rng = np.random.default_rng([seed, number])
        if shares is None:
            yield from training_batches(lengths, batch_size, rng)
        else:
            drawn = rng.choice(num_examples, size=num_examples, p=shares)
            yield from (drawn[batch] for batch in training_batches(lengths[drawn], batch_size, rng))


def seed_step(seed: int, number: int) -> None:
    """Start torch's random streams for a step of a fit: dropout follows from these two numbers, so any step replays."""
    drawn = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(drawn) & _MASK_63_BITS)


def step_logits(
    model: PreTrainedModel, train: TokenizedExamples, step: Step, precision: str, can_cut: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """[K, C] logits of what a step keeps and their [K] labels, with the dropout that the full batch would draw.

    Where `can_cut` (see there) only what is kept goes through the model, padded and masked as in the full batch; else
    the full batch does. A batch of which nothing is kept goes through whole, for logits of no example.
    """
    if can_cut and 0 < len(step.kept_rows) < len(step.batch):
        length = int(train.lengths[step.batch].max())
        batch = train.batch(step.positions, model.device, length)
        with autocast(model.device, precision), only_logits(), dropout_of_rows(len(step.batch), step.kept_rows):
            return logits_of(model, batch), batch.labels
    batch = train.batch(step.batch, model.device)
    with autocast(model.device, precision), only_logits():
        logits = logits_of(model, batch)
    if step.is_whole:
        return logits, batch.labels
    rows = on_device(step.kept_rows, model.device)
    return logits[rows], batch.labels[rows]


def can_cut(model: PreTrainedModel, train: TokenizedExamples) -> bool:
    """Whether a part of a batch gives what it gives in the whole batch in training: tried on three examples.

    It does where all dropout is that of `cpu_layers` and by example, or none is drawn, and examples do not meet. Where
    the logits do not show which dropout was drawn, as those of a head of zeros, nothing is proven, and it is taken for
    one that does not. Leaves the model in training mode, and its weights as they are; buffers may have moved.
    """
    order = np.argsort(train.lengths, kind="stable")
    batch = order[[0, len(order) // 2, -1]]
    model.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        tried = [_tried_logits(model, train, Step(number, batch, np.arange(3))) for number in range(2)]
        rounding = ROUNDING * float(tried[0].abs().max())
        is_shown = rounding > 0 and (not _draws(model, train, batch) or _apart(*tried) > rounding)
        return is_shown and all(
            _gives_alike(model, train, Step(number, batch, np.array(rows)), whole[rows], rounding)
            for number, whole in enumerate(tried)
            for rows in ([0, 2], [1])
        )


def _gives_alike(
    model: PreTrainedModel, train: TokenizedExamples, step: Step, expected: torch.Tensor, rounding: float
) -> bool:
    """Whether what a step keeps, alone, has the logits [K, C] that are expected."""
    try:
        return _apart(expected, _tried_logits(model, train, step)) <= rounding
    except NotByExampleError:
        return False


def _draws(model: PreTrainedModel, train: TokenizedExamples, batch: np.ndarray) -> bool:
    """Whether a forward pass in training moves a random stream of torch's."""
    seed_step(0, 0)
    before = _random_states(model)
    step_logits(model, train, Step(0, batch, np.arange(len(batch))), "float32", can_cut=True)
    return any(not torch.equal(*states) for states in zip(before, _random_states(model), strict=True))


def _random_states(model: PreTrainedModel) -> list[torch.Tensor]:
    on_device = [torch.cuda.get_rng_state(model.device)] if model.device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def _tried_logits(model: PreTrainedModel, train: TokenizedExamples, step: Step) -> torch.Tensor:
    seed_step(0, step.number)
    return step_logits(model, train, step, "float32", can_cut=True)[0]
