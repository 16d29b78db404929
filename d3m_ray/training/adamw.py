"""AdamW whose square root is smooth at zero: torch's has no number to add to the second moment inside it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # those of torch.optim.AdamW, with which all fits are trained


class RootedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with `eps_root` added to the corrected second moment.

    With moments m and v of the gradients, corrected for their start at zero, a step of rate lr takes

        theta <- (1 - lr * weight_decay) theta - lr m / (sqrt(v + eps_root) + eps)

    where torch's takes sqrt(v), whose slope at v = 0 has no bound. Groups have a `weight_decay` each. The state of a
    parameter has the names of torch's: `step`, `exp_avg`, `exp_avg_sq`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], learning_rate: float, eps_root: float) -> None:
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0})
        self.eps_root = eps_root

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step by the gradients that are there; a parameter without one stays as it is."""
        assert closure is None, "a step takes the gradients as they are"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(parameters, group["lr"], group["weight_decay"])

    def _step(self, parameters: list[torch.Tensor], learning_rate: float, weight_decay: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = torch.zeros_like(parameter), torch.zeros_like(parameter)
                self.state[parameter] = dict(
                    zip(("step", "exp_avg", "exp_avg_sq"), (torch.zeros(()), *zeros), strict=True)
                )
            self.state[parameter]["step"] += 1
        gradients = [p.grad for p in parameters if p.grad is not None]
        firsts, seconds = ([self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq"))
        numbers = [float(self.state[p]["step"]) for p in parameters]
        torch._foreach_lerp_(firsts, gradients, 1 - BETA1)
        torch._foreach_mul_(seconds, BETA2)
        torch._foreach_addcmul_(seconds, gradients, gradients, 1 - BETA2)
        roots = torch._foreach_div(seconds, [1 - BETA2**number for number in numbers])
        torch._foreach_add_(roots, self.eps_root)
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, EPS)
        torch._foreach_mul_(parameters, 1 - learning_rate * weight_decay)
        torch._foreach_addcdiv_(parameters, firsts, roots, [-learning_rate / (1 - BETA1**number) for number in numbers])
