"""What scores explain: a function f of each query's margin, whose slope weighs the query's gradient.

Shapes: Q queries. With m the margin of a query, p = sigmoid(m) the probability of its true label (exactly so for any
number of labels, the margin being the log odds of that label), and theta the weights,

    f            f(m)                  f'(m)        grad_theta f = f'(m) grad_theta m
    margin       m                     1
    loss         -log(1 + exp(-m))     1 - p        minus the cross-entropy: an example that raises it lowers the loss
    probability  p                     p (1 - p)    its mean is a soft accuracy

So every f is raised by what helps. Slopes are taken at each checkpoint; the gradients of train examples have none.
"""

import torch
from torch.nn.functional import logsigmoid

from d3m_ray.records import QueryTarget


def target_values(margins: torch.Tensor, of: QueryTarget) -> torch.Tensor:
    """[Q] f(m) of margins [Q], in their precision; `loss` in nats, negative."""
    if of == "margin":
        return margins
    return logsigmoid(margins) if of == "loss" else margins.sigmoid()


def target_slopes(margins: torch.Tensor, of: QueryTarget) -> torch.Tensor:
    """[Q] f'(m) of margins [Q], in their precision: not rounded by 1 - p, and 0 only beyond margins of about 89."""
    if of == "margin":
        return torch.ones_like(margins)
    return (-margins).sigmoid() if of == "loss" else margins.sigmoid() * (-margins).sigmoid()
