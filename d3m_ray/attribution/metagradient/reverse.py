"""Back along a replayed run: the derivatives of targets by the weights of the train examples in every batch.

Shapes: N examples of the full train split, K of a step's batch that are kept, P weights that training moves, S targets.

With example weights w the batch loss is L = sum_i w_i l_i / sum_i w_i, the mean over what is kept where a weight is 1
or 0, so that a derivative at 1 is the slope toward the fit without the example under common pairing. Of a step with the
cotangents (tb, mb, vb) of what it leaves and gb of its gradient (`optimiser`), exactly (Ilyas and Engstrom 2025,
arXiv 2504.16430; the equations in closed form, with clipping and dropout),

    tb += H gb            H: Hessian of L by the weights
    dw_i += <gb, dg / dw_i> = <gb, grad l_i - grad L> / K

both of one double backward, grad(g, [parameters, w], gb). Without the first line the gradients of the steps are taken
as given, whatever the weights they are taken at: TracIn (Pruthi et al. 2020, arXiv 2002.08484) through AdamW. Then
<gb, grad l_i> is the derivative of l_i along gb, by one forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from d3m_ray.attribution.metagradient.differentials import BatchGradient, losses_along, mean_gradient
from d3m_ray.attribution.metagradient.optimiser import Cotangent, clip_share, pull_clip, pull_update
from d3m_ray.attribution.metagradient.replay import Replay, State, Taken, Trainee, joined, replay_steps, trainee_of
from d3m_ray.attribution.targets import target_slopes
from d3m_ray.training.batching import budget_batches
from d3m_ray.training.fine_tuning import seeded
from d3m_ray.training.model import logits_of, margins_of
from d3m_ray.training.precision import autocast

SAME_STEP = 0.05  # of a gradient's norm: bfloat16 rounds by far less, another dropout mask is far above
QUERY_TOKENS = 4096  # padded tokens of a batch of queries


@dataclass(frozen=True, eq=False)
class Traced:
    """How far the derivatives of S targets have been taken back."""

    weights: np.ndarray
    """[S, P] by the weights before the step that comes next; with `moments` and `squares`, by AdamW's."""
    moments: np.ndarray
    squares: np.ndarray
    example_slopes: np.ndarray
    """[S, N] float64 by the weights of the examples of the full train split, of the steps so far."""
    growth: np.ndarray
    """[S] the largest norm that `weights` had, in those that it began with."""
    first_norms: np.ndarray
    """[S]"""


def begin_trace(task: Replay, index: int, state: State) -> Traced:
    """The gradient of each target at a run's last state, without dropout."""
    trainee = trainee_of(task, index)
    trainee.load(state)
    weights = np.stack([_target_gradient(task, trainee, of_target) for of_target in task.query_weights])
    norms = np.linalg.norm(weights.astype(np.float64), axis=1)
    slopes = np.zeros((len(weights), len(trainee.run.train)))
    zeros = np.zeros_like(weights)
    return Traced(weights, zeros, zeros.copy(), slopes, np.ones(len(weights)), norms)


def _target_gradient(task: Replay, trainee: Trainee, query_weights: np.ndarray) -> np.ndarray:
    """[P] the gradient of sum_q weight_q f(m_q) over the queries [Q] of one target."""
    model = trainee.model.eval()
    model.zero_grad()
    counted = np.flatnonzero(query_weights)
    for places in budget_batches(task.queries.lengths[counted], QUERY_TOKENS):
        batch = task.queries.batch(counted[places], model.device)
        with autocast(model.device, trainee.precision):
            logits = logits_of(model, batch)
        margins = margins_of(logits, batch.labels)
        weights = torch.from_numpy(query_weights[counted[places]]).to(margins)
        (margins * weights * target_slopes(margins.detach(), task.query_target)).sum().backward()
    zeros = (p.new_zeros(p.shape) if p.grad is None else p.grad for p in trainee.parameters)
    gradient: np.ndarray = joined(list(zeros)).cpu().numpy()
    model.zero_grad()
    return gradient


def trace_segment(task: Replay, index: int, state: State | None, stop: int, traced: Traced) -> Traced:
    """The derivatives before step `stop` taken back to a state's, or to the run's start."""
    trainee = trainee_of(task, index)
    device = trainee.model.device
    all_taken = replay_steps(trainee, state, stop)
    slopes, growth = traced.example_slopes.copy(), traced.growth.copy()
    parts = (np.array(values) for values in (traced.weights, traced.moments, traced.squares))  # never Ray's own
    weights, moments, squares = (torch.from_numpy(values).to(device) for values in parts)
    cotangents = [Cotangent(*of_target) for of_target in zip(weights, moments, squares, strict=True)]
    with seeded(trainee.run.seed, device):
        if not task.has_hessian:  # else each step's is checked as it is differentiated
            _check_first_gradient(trainee, all_taken)
        while all_taken:
            taken = all_taken.pop()
            slopes[:, taken.step.positions] += _trace_step(trainee, taken, cotangents, task.has_hessian)
            norms = torch.linalg.vector_norm(weights, dim=1, dtype=torch.float64).cpu().numpy()
            growth = np.maximum(
                growth, np.divide(norms, traced.first_norms, where=traced.first_norms > 0, out=growth * 0)
            )
    first, second, third = (values.cpu().numpy() for values in (weights, moments, squares))
    return Traced(first, second, third, slopes, growth, traced.first_norms)


def _check_first_gradient(trainee: Trainee, all_taken: Sequence[Taken]) -> None:
    """`_check_gradient` of the first of these steps that keeps something: kernels are the same in all."""
    first = next((taken for taken in all_taken if len(taken.step.positions)), None)
    if first is not None:
        trainee.load(first.before)
        _check_gradient(mean_gradient(trainee.parameters, lambda: trainee.losses(first.step)), first, trainee)


def _graph_of(trainee: Trainee, taken: Taken) -> BatchGradient:
    """A step's gradient with its graph. Raises ValueError where it is not the one that training took."""
    graph = BatchGradient(trainee.parameters, lambda: trainee.losses(taken.step))
    _check_gradient(graph.gradients, taken, trainee)
    return graph


def _check_gradient(gradients: Sequence[torch.Tensor], taken: Taken, trainee: Trainee) -> None:
    """Raises ValueError where a step's gradient, computed once more as here, is not the one that training took."""
    again = joined(gradients).mul_(clip_share(taken.norm, trainee.run.config.max_grad_norm))
    if not float((again - taken.clipped).norm()) <= SAME_STEP * float(taken.clipped.norm()):
        raise ValueError(
            "metagradient and tracin go back through the gradients that training took, and this device's attention "
            "draws other dropout where it is differentiated twice or forward: take a model without attention dropout, "
            "or a CPU"
        )


def _trace_step(trainee: Trainee, taken: Taken, cotangents: Sequence[Cotangent], has_hessian: bool) -> np.ndarray:
    """[S, K] derivatives by the weights of what a step keeps; the cotangents move to before it."""
    step, config = taken.step, trainee.run.config
    constants, device = trainee.constants(step), trainee.model.device
    moments, squares = (torch.from_numpy(v).to(device) for v in (taken.after.moments, taken.after.squares))
    trainee.load(taken.before)
    if not len(step.positions):  # a batch of which nothing is kept has no gradient, whatever the weights
        for cotangent in cotangents:
            pull_update(cotangent, taken.clipped, moments, squares, constants)
        return np.zeros((len(cotangents), 0))
    graph = _graph_of(trainee, taken) if has_hessian else None
    slopes = []
    for cotangent in cotangents:
        pulled = pull_update(cotangent, taken.clipped, moments, squares, constants)
        pulled = pull_clip(pulled, taken.clipped, taken.norm, config.max_grad_norm)
        if graph is None:
            with torch.no_grad():
                along = losses_along(
                    trainee.model, trainee.parameters, trainee.split(pulled), lambda model: trainee.losses(step, model)
                )
            slopes.append((along - along.mean()) / len(along))
        else:
            curvatures, of_examples = graph.pull(trainee.split(pulled), is_last=cotangent is cotangents[-1])
            cotangent.weights.add_(joined(curvatures))
            slopes.append(of_examples)
    return torch.stack(slopes).double().cpu().numpy()
