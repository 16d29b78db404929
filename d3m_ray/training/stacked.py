"""R fits of one seed trained at once: their weights side by side, so that a product of a step is R products in one.

Shapes: R fits, N train examples, B examples of a batch, C labels, P weights of a model.

A small batch leaves most of a large GPU idle, and its kernels cost more to launch than to run. Under common pairing the
fits of a seed start from the same weights, with the same head, and take the same batches at the same learning rates in
the same dropout; they differ by which examples of a batch their losses count. So a step of a stack pads its batch and
draws dropout once, and runs each kernel once for all fits. Fits of several seeds share neither, and their batches, each
sorted by length in an order of its own, would be padded to the longest of all: they are stacked apart.

A fit's weights are those of `fine_tune` up to rounding, and follow from nothing that its neighbours remove.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from d3m_ray.training import cpu_layers, device_masks
from d3m_ray.training.batching import Batch, TokenizedExamples, on_device
from d3m_ray.training.cpu_encoder import only_logits
from d3m_ray.training.fine_tuning import (
    NOT_FINITE,
    Choice,
    Fit,
    begin_fit,
    check_kept,
    optimizer_of,
    parameters_with_gradients,
    seeded,
    set_learning_rate,
)
from d3m_ray.training.model import build_classifier, logits_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.steps import ROUNDING, Step, learning_rate_at, seed_step, steps_per_epoch, training_steps

ATTENTION = "d3m_ray_stacked"
ALIGNED = 32  # weights of a row: libraries multiply in another order where each begins at another remainder
CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_'s

AttentionInterface.register(ATTENTION, cpu_layers.attention)
AttentionMaskInterface.register(ATTENTION, device_masks.mask)


def build_stackable(pretrained: PretrainedModel, device: torch.device | str) -> PreTrainedModel:
    """As `build_classifier`, with attention and dropout that torch can run over several weights at once on a GPU too.

    Its fused kernels of both cannot draw the same dropout for several fits.
    """
    model = build_classifier(pretrained, "cpu")
    if torch.device(device).type != "cpu" and model.config._attn_implementation == cpu_layers.ATTENTION:
        model.set_attn_implementation(ATTENTION)
    stackable: PreTrainedModel = model.to(torch.device(device))  # type: ignore[arg-type]
    return stackable


class Stack:
    """The weights of R fits of one model, which all start as the model is, in two matrices: what decays, and the rest.

    One leaf for all weights of a kind makes clipping and AdamW a few kernels, however many layers there are.
    `parameters` are those that training moves; the fits have the others in common.
    """

    def __init__(self, model: PreTrainedModel, parameters: Sequence[nn.Parameter], num_fits: int) -> None:
        self.model = model
        moved = {id(parameter) for parameter in parameters}
        named = {name: p for name, p in model.named_parameters() if id(p) in moved}
        matrices = {name: p for name, p in named.items() if p.ndim >= 2}
        self._kinds = [matrices, {name: p for name, p in named.items() if name not in matrices}]
        self.flat = [nn.Parameter(self._row(of_kind).repeat(num_fits, 1)) for of_kind in self._kinds]

    def logits(self, batch: Batch, precision: str) -> torch.Tensor:
        """[R, B, C] of every fit for one batch, in the same dropout."""
        views = {name: part for parts in map(self._parts, range(len(self.flat))) for name, part in parts.items()}
        with autocast(self.model.device, precision), only_logits():
            of_all: torch.Tensor = vmap(self._logits_of_one, in_dims=(0, None), randomness="same")(views, batch)
        return of_all

    def load(self, place: int) -> None:
        """Give the model the weights of one fit."""
        with torch.no_grad():
            for kind, of_kind in enumerate(self._kinds):
                for name, part in self._parts(kind).items():
                    of_kind[name].copy_(part[place])

    def clip(self, max_norm: float) -> None:
        """Scale the gradient of each fit down to this norm, as `clip_grad_norm_` would that of one."""
        gradients = [flat.grad for flat in self.flat if flat.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(each, dim=1) for each in gradients]).norm(dim=0)
        shares = (max_norm / (norms + CLIP_EPS)).clamp(max=1.0)
        for each in gradients:
            each.mul_(shares[:, None])

    @staticmethod
    def _row(named: Mapping[str, nn.Parameter]) -> torch.Tensor:
        """The parameters end to end, up to a multiple of `ALIGNED`."""
        joined = torch.cat([p.detach().flatten() for p in named.values()])
        return nn.functional.pad(joined, (0, -len(joined) % ALIGNED))

    def _parts(self, kind: int) -> dict[str, torch.Tensor]:
        """By name [R, ...], views of one of the two matrices."""
        named, flat = self._kinds[kind], self.flat[kind]
        sizes = [p.numel() for p in named.values()]
        *parts, _ = flat.split([*sizes, flat.shape[1] - sum(sizes)], dim=1)
        return {name: part.unflatten(1, p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}

    def _logits_of_one(self, parameters: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        def call(**options: Any) -> Any:
            return functional_call(self.model, dict(parameters), (), options)

        return logits_of(cast(nn.Module, call), batch)


class StackedFits:
    """What `fine_tune_stacked` trained: what became of each fit, in the order given, and its weights."""

    def __init__(self, stack: Stack, choices: Sequence[Choice], is_finite: np.ndarray, num_steps: int, seconds: float):
        self._stack, self._choices = stack, choices
        self._is_finite, self._num_steps, self._seconds = is_finite, num_steps, seconds

    def load(self, place: int) -> Fit:
        """Leave the chosen weights of one fit in the model, in evaluation mode, and say what its training did.

        Raises FloatingPointError where the loss of this fit was not finite; the others are untouched by it.
        """
        if not self._is_finite[place]:
            raise FloatingPointError(NOT_FINITE)
        self._stack.load(place)
        chosen_epoch = self._choices[place].restore(self._stack.model)
        self._stack.model.eval()
        return Fit(self._num_steps, chosen_epoch, self._seconds / len(self._choices))


def fine_tune_stacked(
    model: PreTrainedModel,
    pretrained: PretrainedModel,
    train: TokenizedExamples,
    val: TokenizedExamples,
    config: TrainingConfig,
    seed: int,
    kept: Sequence[np.ndarray],
) -> StackedFits:
    """Fine-tune R fits of a seed at once, by the mean loss; each has the weights of `fine_tune` up to rounding.

    `model` is of `build_stackable`, and `kept` holds for each fit the ascending positions that it has of the full train
    split. Raises ValueError where a fit is left no example, under independent pairing, or where the model's layers
    cannot run over several weights at once.
    """
    for of_fit in kept:
        check_kept(of_fit)
    if config.pairing != "common":
        raise ValueError("fits are stacked that share batches and dropout: take --pairing common, or no stacked fits")
    start = time.perf_counter()
    with seeded(seed, model.device):
        begin_fit(model, pretrained, train, np.arange(len(train)), config)
        moved = parameters_with_gradients(model, train)
        check_stackable(model, moved, train)
        stack = Stack(model, moved, len(kept))
        optimizer = optimizer_of(stack.flat[:1], stack.flat[1:], config)
        choices = [Choice(config.final_model, config.num_epochs) for _ in kept]
        is_kept = on_device(np.stack([np.isin(np.arange(len(train)), of_fit) for of_fit in kept]), model.device)
        is_finite = np.ones(len(kept), dtype=bool)
        num_steps = steps_per_epoch(len(train), len(train), config)
        steps = training_steps(train.lengths, np.arange(len(train)), config, seed)
        for epoch in range(config.num_epochs):
            model.train()
            total_losses = torch.zeros(len(kept), device=model.device)
            for step in itertools.islice(steps, num_steps):
                seed_step(seed, step.number)
                set_learning_rate(optimizer, learning_rate_at(step.number, num_steps * config.num_epochs, config))
                total_losses += take_step(stack, train, step, is_kept, config, optimizer)
            is_finite &= torch.isfinite(total_losses).cpu().numpy()
            for place, choice in enumerate(choices):
                stack.load(place)
                choice.consider(epoch + 1, model, val, config)
    return StackedFits(stack, choices, is_finite, num_steps * config.num_epochs, time.perf_counter() - start)


def take_step(
    stack: Stack,
    train: TokenizedExamples,
    step: Step,
    is_kept: torch.Tensor,
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
) -> torch.Tensor:
    """[R] losses of a step, which all fits take: each the mean over what it keeps of the batch, `is_kept` being [R, N].

    A fit that keeps nothing of a batch has a loss of zero, and the optimiser goes on as it was.
    """
    device = stack.model.device
    batch = train.batch(step.batch, device)
    logits = stack.logits(batch, config.precision)
    counted = is_kept[:, on_device(step.batch, device)]
    labels = batch.labels.expand(len(logits), -1)
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(counted)
    means = torch.where(counted, losses, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    means.sum().backward()
    stack.clip(config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return means.detach()


def check_stackable(model: PreTrainedModel, parameters: Sequence[nn.Parameter], train: TokenizedExamples) -> None:
    """Raises ValueError where two fits in a stack do not give the model's logits in training: tried on three examples.

    Leaves the model in training mode, and torch's random streams as they were.
    """
    rule = "stacked fits take a model whose layers torch runs over several weights at once, in one dropout"
    order = np.argsort(train.lengths, kind="stable")
    batch = train.batch(order[[0, len(order) // 2, -1]], model.device)
    stack = Stack(model.train(), parameters, 2)
    with torch.no_grad(), torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        seed_step(0, 0)
        expected = logits_of(model, batch)
        try:
            seed_step(0, 0)
            found = stack.logits(batch, "float32")
        except Exception as error:  # torch has many reasons, and no kind for them
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{rule}, and {type(model).__name__} is none: {reason}") from error
    if not bool(((found - expected).abs() <= ROUNDING * expected.abs().max()).all()):
        raise ValueError(f"{rule}, and {type(model).__name__} gives other logits in a stack: train its fits one by one")
