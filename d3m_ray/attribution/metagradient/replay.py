"""A fit trained again, from its start or from a kept state, to the bit: what a gradient goes back along.

Shapes: P weights that training moves, end to end, matrices first.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.attribution.inputs import Checkpoint, ScoringPrecision, TrainingRun
from d3m_ray.attribution.metagradient.optimiser import AdamwStep
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.records import QueryTarget
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.fine_tuning import (
    begin_fit,
    build_optimizer,
    loss_of,
    parameters_with_gradients,
    seeded,
    set_learning_rate,
)
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.steps import Step, learning_rate_at, seed_step, step_logits, steps_per_epoch, training_steps


@dataclass(frozen=True, eq=False)
class Replay:
    """What every step of a replay shares: it travels to each machine once."""

    checkpoints: tuple[Checkpoint, ...]
    queries: TokenizedExamples
    precision: ScoringPrecision
    query_target: QueryTarget
    query_weights: np.ndarray
    """[S, Q] float64: the weight of each query in each of S targets."""
    has_hessian: bool
    """Whether a gradient goes back through the gradients of the steps, as it does, or they are taken as given."""


@dataclass(frozen=True, eq=False)
class State:
    """The weights and AdamW's two moments before a step, [P] each, in the precision of the weights."""

    number: int
    """Of the step, from 0."""
    weights: np.ndarray
    moments: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True, eq=False)
class Taken:
    """A step that was taken again: from which weights, by which gradient, and what it left."""

    step: Step
    before: State
    after: State
    clipped: torch.Tensor
    """[P] the gradient as it was clipped."""
    norm: float
    """Of the gradient before it was clipped."""


def run_of(checkpoint: Checkpoint) -> TrainingRun:
    """The run that a checkpoint came from. Raises ValueError where nobody has said."""
    if checkpoint.run is None:
        raise ValueError("a replay takes checkpoints that say which run they came from; this one does not")
    return checkpoint.run


def num_steps_to(checkpoint: Checkpoint) -> int:
    """The steps from the start of the run to the weights that it chose."""
    run = run_of(checkpoint)
    return run.chosen_epoch * steps_per_epoch(len(run.train), len(run.kept), run.config)


class Trainee:
    """A model that takes the steps of a run again. `parameters` are those that the run moves, matrices first."""

    def __init__(self, model: PreTrainedModel, pretrained: PretrainedModel, run: TrainingRun) -> None:
        self.model = model.requires_grad_(True)
        self.pretrained, self.run = pretrained, run
        self.precision = "float32" if model.dtype == torch.float64 else run.config.precision
        train = run.train
        per_epoch = steps_per_epoch(len(train), len(run.kept), run.config)
        self.num_steps = per_epoch * run.config.num_epochs
        steps = training_steps(train.lengths, run.kept, run.config, run.seed)
        self.steps = list(itertools.islice(steps, self.num_steps))
        with seeded(run.seed, model.device):
            self.cuts = begin_fit(model, pretrained, train, run.kept, run.config)
        moved = parameters_with_gradients(model, train)
        self.parameters = [p for p in moved if p.ndim >= 2] + [p for p in moved if p.ndim < 2]
        self.num_decayed = sum(p.numel() for p in self.parameters if p.ndim >= 2)

    def first_state(self) -> State:
        """Before the first step: the pretrained weights, with new modules from the run's seed."""
        with seeded(self.run.seed, self.model.device):
            begin_fit(self.model, self.pretrained, self.run.train, self.run.kept, self.run.config)
        weights = self.weights()
        return State(0, weights, np.zeros_like(weights), np.zeros_like(weights))

    def weights(self) -> np.ndarray:
        """[P] the model's weights now, a copy."""
        return _numpy(joined(self.parameters))

    def load(self, state: State) -> None:
        """Give the model a state's weights."""
        with torch.no_grad():
            for parameter, values in zip(self.parameters, self.split(_torch(state.weights)), strict=True):
                parameter.copy_(values)

    def split(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Views of a vector [P] in the shapes of the parameters, on the model's device."""
        parts = values.to(self.model.device).split([p.numel() for p in self.parameters])
        return [part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)]

    def constants(self, step: Step) -> AdamwStep:
        """What the optimiser does at a step."""
        config = self.run.config
        rate = learning_rate_at(step.number, self.num_steps, config)
        return AdamwStep(
            step.number + 1, rate, config.weight_decay, self.num_decayed, config.adam_eps_root, config.max_grad_norm
        )

    def logits(self, step: Step, model: PreTrainedModel | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """[K, C] logits and [K] labels of what a step keeps, in its own dropout; `model` may be another than its own.

        Its own is in training mode after.
        """
        self.model.train()
        seed_step(self.run.seed, step.number)
        return step_logits(self.model if model is None else model, self.run.train, step, self.precision, self.cuts)

    def losses(self, step: Step, model: PreTrainedModel | None = None) -> torch.Tensor:
        """[K] losses of what a step keeps, as `logits`."""
        return nn.functional.cross_entropy(*self.logits(step, model), reduction="none")

    def take(self, step: Step, optimizer: torch.optim.Optimizer) -> float:
        """Take a step again; the norm of its gradient, which stays behind clipped.

        Raises ValueError where it moves other parameters than the others do.
        """
        optimizer.zero_grad()
        loss_of(*self.logits(step), step).backward()
        moved = {id(p) for p in self.model.parameters() if p.grad is not None}
        if moved != {id(p) for p in self.parameters}:
            raise ValueError("a replay takes models whose steps all move the same parameters, and this one's do not")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.run.config.max_grad_norm)
        set_learning_rate(optimizer, self.constants(step).learning_rate)
        optimizer.step()
        return float(norm)

    def optimizer_at(self, state: State) -> torch.optim.Optimizer:
        """The run's optimiser as it was before the state's step; the model gets the state's weights."""
        self.load(state)
        optimizer = build_optimizer(self.model, self.run.config)
        if state.number:
            moments, squares = (self.split(_torch(values)) for values in (state.moments, state.squares))
            for parameter, first, second in zip(self.parameters, moments, squares, strict=True):
                number = torch.tensor(float(state.number), dtype=torch.float32, device=parameter.device)
                optimizer.state[parameter] = {"step": number, "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
        return optimizer

    def state_after(self, step: Step, optimizer: torch.optim.Optimizer) -> State:
        """What a step has left."""
        of = [optimizer.state[parameter] for parameter in self.parameters]
        first, second = (_numpy(joined([state[name] for state in of])) for name in ("exp_avg", "exp_avg_sq"))
        return State(step.number + 1, self.weights(), first, second)


def trainee_of(task: Replay, index: int) -> Trainee:
    """The trainee of a checkpoint, kept by the worker from the last call for the same."""
    checkpoint = task.checkpoints[index]
    run = run_of(checkpoint)
    _, trainee = loaded_model(
        checkpoint, "replay", task.precision, lambda model: Trainee(model, checkpoint.pretrained, run)
    )
    found: Trainee = trainee
    return found


def replay_segment(task: Replay, index: int, state: State | None, stop: int) -> State:
    """The state before step `stop` of a checkpoint's run, from an earlier one, or from the run's start."""
    trainee = trainee_of(task, index)
    state = trainee.first_state() if state is None else state
    steps = trainee.steps[state.number : stop]
    with seeded(trainee.run.seed, trainee.model.device):
        optimizer = trainee.optimizer_at(state)
        for step in steps:
            trainee.take(step, optimizer)
        return trainee.state_after(steps[-1], optimizer)


def replay_steps(trainee: Trainee, state: State | None, stop: int) -> list[Taken]:
    """Every step from a state's, or from the run's first, up to `stop`, taken again."""
    state = trainee.first_state() if state is None else state
    all_taken = []
    with seeded(trainee.run.seed, trainee.model.device):
        optimizer = trainee.optimizer_at(state)
        for step in trainee.steps[state.number : stop]:
            norm = trainee.take(step, optimizer)
            clipped = joined([p.grad for p in trainee.parameters if p.grad is not None])
            after = trainee.state_after(step, optimizer)
            all_taken.append(Taken(step, state, after, clipped, norm))
            state = after
        optimizer.zero_grad()
    return all_taken


def distance_to(checkpoint: Checkpoint, trainee: Trainee, state: State) -> float:
    """How far replayed weights are from the checkpoint's, in the way that training went: 0 where all is as it was."""
    named = dict(trainee.model.named_parameters())
    names = {id(parameter): name for name, parameter in named.items()}
    stored = np.concatenate([np.ravel(checkpoint.weights[names[id(p)]]) for p in trainee.parameters])
    if np.array_equal(stored, state.weights):
        return 0.0
    went = np.linalg.norm(state.weights.astype(np.float64) - trainee.first_state().weights)
    return float(np.linalg.norm(stored.astype(np.float64) - state.weights) / went)


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """[P] the entries of tensors in the order and shapes of the parameters, end to end."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _numpy(values: torch.Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy()
    return array


def _torch(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values))  # a copy: arrays out of Ray's object store must never be written to
