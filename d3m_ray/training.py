"""Fine-tune a classifier and predict with it: one plain loop, the same for every arm of an experiment.

Shapes: N train examples, B examples of a batch.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import nn
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from d3m_ray.batching import TokenizedExamples, budget_batches, training_batches
from d3m_ray.config import FinalModel, TrainingConfig
from d3m_ray.metrics import worst_group_accuracy
from d3m_ray.model import BaseModel, autocast, draw_new_modules, load_weights, logits_of, margins_of
from d3m_ray.records import Predictions

PREDICTION_TOKENS = 4096  # padded tokens of a prediction batch: keeps the activations of a small model in cache


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
    base: BaseModel,
    train: TokenizedExamples,
    val: TokenizedExamples,
    config: TrainingConfig,
    seed: int,
    num_full: int | None = None,
    objective: Objective = ERM_OBJECTIVE,
) -> Fit:
    """Fine-tune `model` from the base weights on `train`; it ends in evaluation mode with the chosen weights.

    AdamW with linear decay to zero and gradient clipping. The seed decides the weights of new modules, the order of
    the examples and dropout; on one machine, device and thread count the result is the same to the bit. `num_full` is
    the size of the full train split, of which `train` is what is kept (left out, all of it): where the configuration
    is step-matched, an epoch has as many steps as a pass over the full split, whatever the number of passes.
    Raises ValueError where no train example is left, FloatingPointError where the loss is not finite.
    """
    if len(train) == 0:
        raise ValueError("fine-tuning takes at least one train example, received none: lower --num-removed")
    start = time.perf_counter()
    device = model.device
    with seeded(seed, device):
        load_weights(model, base.weights)
        draw_new_modules(model, base)
        num_counted = num_full if config.step_matched and num_full is not None else len(train)
        steps_per_epoch = -(-num_counted // config.batch_size)
        optimizer = build_optimizer(model, config)
        schedule = get_linear_schedule_with_warmup(optimizer, 0, steps_per_epoch * config.num_epochs)
        choice = _Choice(config.final_model, config.num_epochs)
        batches = _endless_batches(train.lengths, config.batch_size, seed, objective.sampling_weights)
        for epoch in range(config.num_epochs):
            epoch_batches = itertools.islice(batches, steps_per_epoch)
            _train_epoch(model, train, epoch_batches, config, objective, optimizer, schedule)
            choice.consider(epoch + 1, model, val, config)
        chosen_epoch = choice.restore(model)
    model.eval()
    return Fit(steps_per_epoch * config.num_epochs, chosen_epoch, time.perf_counter() - start)


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


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: biases and normalisation weights are the vectors of a model."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _train_epoch(
    model: PreTrainedModel,
    train: TokenizedExamples,
    batches: Iterable[np.ndarray],
    config: TrainingConfig,
    objective: Objective,
    optimizer: torch.optim.AdamW,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> None:
    model.train()
    total_loss = torch.zeros((), device=model.device)
    for positions in batches:
        batch = train.batch(positions, model.device)
        with autocast(model.device, config.precision):
            logits = logits_of(model, batch)
        if objective.batch_loss is None:
            loss = nn.functional.cross_entropy(logits, batch.labels)
        else:
            losses = nn.functional.cross_entropy(logits, batch.labels, reduction="none")
            loss = objective.batch_loss(losses, positions)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total_loss += loss.detach()
    if not torch.isfinite(total_loss):  # once an epoch: reading it at each step would make a GPU wait
        raise FloatingPointError("the training loss is not finite: lower --learning-rate or use --precision float32")


class _Choice:
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
    with torch.inference_mode(), autocast(model.device, precision):
        for indices in budget_batches(examples.lengths, PREDICTION_TOKENS):
            batch = examples.batch(indices, model.device)
            logits = logits_of(model, batch)
            margins[indices] = margins_of(logits, batch.labels).cpu().numpy()
            predicted[indices] = _predicted_labels(logits, batch.labels).cpu().numpy()
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
