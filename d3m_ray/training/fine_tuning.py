"""Fine-tune a classifier and predict with it: one plain loop, the same for every arm of an experiment.

Shapes: N train examples, B examples of a batch.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.meter import METER
from d3m_ray.metrics.groups import worst_group_accuracy
from d3m_ray.records import Predictions
from d3m_ray.training.adamw import RootedAdamW
from d3m_ray.training.batching import TokenizedExamples, budget_batches, put_rows
from d3m_ray.training.budgets import tokens_at_once
from d3m_ray.training.cpu_encoder import only_logits
from d3m_ray.training.model import draw_new_modules, load_weights, logits_of, margins_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import FinalModel, TrainingConfig
from d3m_ray.training.steps import (
    Step,
    can_cut,
    learning_rate_at,
    seed_step,
    step_logits,
    steps_per_epoch,
    training_steps,
)

PREDICTION_TOKENS = 4096  # padded tokens of a prediction batch on a CPU: a small model's activations stay in cache
NOT_FINITE = "the training loss is not finite: lower --learning-rate or use --precision float32"


@dataclass(frozen=True, eq=False)
class Objective:
    """What fine-tuning minimises: as it stands, the mean loss over passes that hold every train example once."""

    sampling_weights: np.ndarray | None = None
    """[N] shares of the train examples in a pass, which then draws N of them with replacement."""
    batch_loss: Callable[[torch.Tensor, np.ndarray], torch.Tensor] | None = None
    """(losses [B], positions in train [B]) -> the scalar that a step goes down on; left out, the mean."""


ERM_OBJECTIVE = Objective()


@dataclass(frozen=True)
class Fit:
    """What fine-tuning did, besides leaving the chosen weights in the model."""

    num_steps: int
    """Optimiser steps taken."""
    chosen_epoch: int
    """1-based epoch whose weights the model holds."""
    train_seconds: float
    """Of a fit in a stack, its share of the stack's."""


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str) -> Iterator[None]:
    """Torch's random streams started from `seed` inside, the caller's restored after; exact kernels on a GPU."""
    cuda = torch.device(device).type == "cuda"
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
        torch.manual_seed(seed)
        # On a CPU every kernel used here is deterministic already, and the switch would also fill fresh memory.
        torch.use_deterministic_algorithms(deterministic or cuda)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)


def fine_tune(
    model: PreTrainedModel,
    pretrained: PretrainedModel,
    train: TokenizedExamples,
    val: TokenizedExamples,
    config: TrainingConfig,
    seed: int,
    kept: np.ndarray | None = None,
    objective: Objective = ERM_OBJECTIVE,
) -> Fit:
    """Fine-tune `model` from the pretrained weights; it ends in evaluation mode with the chosen weights.

    AdamW with linear decay to zero and gradient clipping. `train` is the full train split and `kept` the ascending
    positions that the fit has of it, left out all; `training_steps` says what pairs it with the full split's fit. The
    seed decides the weights of new modules, the order of the examples and dropout; on one machine, device and thread
    count the result is the same to the bit. Raises ValueError where no train example is left, FloatingPointError where
    the loss is not finite.
    """
    kept = np.arange(len(train)) if kept is None else kept
    check_kept(kept)
    start = time.perf_counter()
    with seeded(seed, model.device):
        cuts = begin_fit(model, pretrained, train, kept, config)
        num_steps = steps_per_epoch(len(train), len(kept), config)
        optimizer = build_optimizer(model, config)
        choice = Choice(config.final_model, config.num_epochs)
        lengths = train.lengths
        steps = training_steps(lengths, kept, config, seed, objective.sampling_weights)
        for epoch in range(config.num_epochs):
            model.train()
            total_loss = torch.zeros((), device=model.device)
            for step in itertools.islice(steps, num_steps):
                seed_step(seed, step.number)
                logits, labels = step_logits(model, train, step, config.precision, cuts)
                set_learning_rate(optimizer, learning_rate_at(step.number, num_steps * config.num_epochs, config))
                total_loss += _descend(model, loss_of(logits, labels, step, objective), config, optimizer)
                METER.add(steps=1, examples=len(step.kept_rows), tokens=int(lengths[step.positions].sum()))
            if not torch.isfinite(total_loss):  # once an epoch: reading it at each step would make a GPU wait
                raise FloatingPointError(NOT_FINITE)
            choice.consider(epoch + 1, model, val, config)
        chosen_epoch = choice.restore(model)
    model.eval()
    return Fit(num_steps * config.num_epochs, chosen_epoch, time.perf_counter() - start)


def check_kept(kept: np.ndarray) -> None:
    """Raises ValueError where a fit is left no train example."""
    if len(kept) == 0:
        raise ValueError("fine-tuning takes at least one train example, received none: lower --num-removed")


def begin_fit(
    model: PreTrainedModel,
    pretrained: PretrainedModel,
    train: TokenizedExamples,
    kept: np.ndarray,
    config: TrainingConfig,
) -> bool:
    """Give the model the weights that a fit starts from, and no gradients; whether `step_logits` may cut its batches.

    New modules come from torch's current seed, the fit's own: call it inside `seeded`.
    """
    model.zero_grad()  # what was stopped between a backward pass and its step, as by Ctrl-C in a notebook, left some
    load_weights(model, pretrained.weights)
    cuts = False
    if config.pairing == "common" and len(kept) < len(train):
        cuts = can_cut(model, train)
        load_weights(model, pretrained.weights)  # again: trying may have moved buffers
    draw_new_modules(model, pretrained)
    return cuts


def parameters_with_gradients(model: PreTrainedModel, train: TokenizedExamples) -> list[nn.Parameter]:
    """The parameters that logits depend on, in the model's order: an optimiser leaves the others alone.

    Leaves the model in evaluation mode.
    """
    model.zero_grad()
    logits_of(model.eval(), train.batch(np.arange(1), model.device)).sum().backward()
    moved = [p for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return moved


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW that decays matrices only: biases and normalisation weights are the vectors of a model."""
    parameters = list(model.parameters())
    return optimizer_of([p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2], config)


def optimizer_of(
    decayed: Sequence[nn.Parameter], others: Sequence[nn.Parameter], config: TrainingConfig
) -> torch.optim.Optimizer:
    """AdamW as a fit is configured, that decays the first of these parameters alone."""
    groups = [
        {"params": list(decayed), "weight_decay": config.weight_decay},
        {"params": list(others), "weight_decay": 0.0},
    ]
    if config.adam_eps_root > 0:
        return RootedAdamW(groups, config.learning_rate, config.adam_eps_root)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """For the optimiser's next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def loss_of(
    logits: torch.Tensor, labels: torch.Tensor, step: Step, objective: Objective = ERM_OBJECTIVE
) -> torch.Tensor:
    """The scalar that a step goes down on; zero of a batch that keeps nothing, and the optimiser goes on as it was."""
    if not len(labels):
        return logits.sum()
    if objective.batch_loss is None:
        return nn.functional.cross_entropy(logits, labels)
    return objective.batch_loss(nn.functional.cross_entropy(logits, labels, reduction="none"), step.positions)


def _descend(
    model: PreTrainedModel, loss: torch.Tensor, config: TrainingConfig, optimizer: torch.optim.Optimizer
) -> torch.Tensor:
    """Take one step of the optimiser; the loss, without its history."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


class Choice:
    """Remembers the weights of the best epoch so far; the first of equals wins."""

    def __init__(self, rule: FinalModel, num_epochs: int) -> None:
        self.rule = rule
        self.num_epochs = num_epochs
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None

    def consider(self, epoch: int, model: PreTrainedModel, val: TokenizedExamples, config: TrainingConfig) -> None:
        if self.rule == "last" or self.num_epochs == 1:
            return
        predictions = predict(model, val, config.precision)
        if self.rule == "val_wga":
            figure = worst_group_accuracy(predictions, val.groups, int(val.groups.max()) + 1)
        else:
            figure = float(predictions.is_correct.mean())
        if self.best is None or figure > self.best[0]:
            self.best = (figure, epoch, {name: tensor.clone() for name, tensor in model.state_dict().items()})

    def restore(self, model: PreTrainedModel) -> int:
        """Load the chosen weights and return their epoch."""
        if self.best is None or self.best[1] == self.num_epochs:
            return self.num_epochs
        model.load_state_dict(self.best[2])
        return self.best[1]


def predict(model: PreTrainedModel, examples: TokenizedExamples, precision: str) -> Predictions:
    """What the model says of N examples in their order, without dropout. Leaves the model in evaluation mode."""
    margins = np.zeros(len(examples), dtype=np.float32)
    predicted = np.zeros(len(examples), dtype=np.int64)
    model.eval()
    batches = list(budget_batches(examples.lengths, tokens_at_once(model, PREDICTION_TOKENS)))
    found = []
    with torch.inference_mode(), autocast(model.device, precision), only_logits():
        for indices in batches:
            batch = examples.batch(indices, model.device)
            logits = logits_of(model, batch)
            found.append((margins_of(logits, batch.labels), _predicted_labels(logits, batch.labels)))
        put_rows(margins, batches, [of_batch for of_batch, _ in found])
        put_rows(predicted, batches, [of_batch for _, of_batch in found])
    # With two labels the margin is the difference of the logits, so its sigmoid is the correct label's probability.
    signed = np.where(examples.labels == 1, margins, -margins).astype(np.float64)
    probabilities = expit(signed) if examples.num_labels == 2 else np.full(len(examples), np.nan)
    return Predictions(examples.labels, margins, predicted, probabilities.astype(np.float32))


def _predicted_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B] the label of the largest of the logits [B, C]; a tie with the true label goes to the other one.

    So a model that tells nothing apart is wrong, whatever the order of the labels.
    """
    best_other = logits.scatter(1, labels[:, None], float("-inf")).max(dim=1)
    is_correct = logits.gather(1, labels[:, None]).squeeze(1) > best_other.values
    return torch.where(is_correct, labels, best_other.indices)
