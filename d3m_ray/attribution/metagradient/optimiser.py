"""AdamW and clipping as closed formulas, transposed: from cotangents of what a step leaves to those of its gradient.

Shapes: P weights, end to end, those that decay first.

With g the gradient of the batch loss, n = |g|, C the clipping norm and t the step's number from 1, a step is

    c = min(1, C / (n + 1e-6))      h = c g
    m' = b1 m + (1 - b1) h          v' = b2 v + (1 - b2) h^2          bc1 = 1 - b1^t, bc2 = 1 - b2^t
    r = sqrt(v' / bc2 + eps_root)   d = r + eps                       theta' = (1 - lr wd) theta - (lr / bc1) m' / d

and its transpose takes the cotangents (tb, mb, vb) of (theta', m', v') to those of (theta, m, v) and of g:

    mb += -(lr / bc1) tb / d        vb += lr / (2 bc1 bc2) * tb m' / (d^2 r), 0 where r = 0
    hb = (1 - b1) mb + 2 (1 - b2) h vb
    gb = c hb, less g (hb . g) C / ((n + 1e-6)^2 n) where it was clipped
    tb *= 1 - lr wd                 mb *= b1                          vb *= b2

What is left, tb += H gb with H the Hessian of the batch loss, is not elementwise: `reverse` has it.
"""

from dataclasses import dataclass

import torch

from d3m_ray.training.adamw import BETA1, BETA2, EPS

NORM_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_'s
CHUNK = 1 << 15  # entries at once: the dozen operations on them stay in a core's cache


@dataclass(frozen=True)
class AdamwStep:
    """The constants of one step."""

    number: int
    """t, from 1."""
    learning_rate: float
    weight_decay: float
    num_decayed: int
    """The first so many of the P weights decay."""
    eps_root: float
    max_norm: float
    """C."""


@dataclass(frozen=True, eq=False)
class Cotangent:
    """Derivatives of one target by (theta, m, v), [P] each; they are changed in place."""

    weights: torch.Tensor
    moments: torch.Tensor
    squares: torch.Tensor


def pull_update(
    cotangent: Cotangent, clipped: torch.Tensor, moments: torch.Tensor, squares: torch.Tensor, step: AdamwStep
) -> torch.Tensor:
    """[P] hb, the cotangent of the clipped gradient h, given h and the step's m' and v' [P]; `cotangent` moves back."""
    rate = step.learning_rate / (1 - BETA1**step.number)
    correction = 1 - BETA2**step.number
    pulled = torch.empty_like(clipped)
    for start in range(0, len(clipped), CHUNK):
        part = slice(start, start + CHUNK)
        tb, mb, vb = cotangent.weights[part], cotangent.moments[part], cotangent.squares[part]
        root = (squares[part] / correction).add_(step.eps_root).sqrt_()
        slope = tb / (root + EPS)
        mb.sub_(slope, alpha=rate)
        ratio = torch.where(root > 0, moments[part] / root, 0.0)
        vb.add_(slope.mul_(ratio).div_(root.add_(EPS)), alpha=rate / (2 * correction))
        torch.mul(vb, clipped[part], out=pulled[part])
        pulled[part].mul_(2 * (1 - BETA2)).add_(mb, alpha=1 - BETA1)
        mb.mul_(BETA1)
        vb.mul_(BETA2)
    cotangent.weights[: step.num_decayed].mul_(1 - step.learning_rate * step.weight_decay)
    return pulled


def clip_share(norm: float, max_norm: float) -> float:
    """c: the share of a gradient of this norm that clipping leaves."""
    return min(1.0, max_norm / (norm + NORM_EPS))


def pull_clip(pulled: torch.Tensor, clipped: torch.Tensor, norm: float, max_norm: float) -> torch.Tensor:
    """[P] gb, the cotangent of the gradient g, from hb and h [P] and g's norm n; takes the place of hb."""
    share = clip_share(norm, max_norm)
    if share == 1.0:
        return pulled
    along = float(pulled @ clipped) / share  # hb . g
    return pulled.mul_(share).sub_(clipped, alpha=along * max_norm / (share * (norm + NORM_EPS) ** 2 * norm))
