"""AdamW with a smooth root against torch's, and against its formula."""

import torch

from d3m_ray.training.adamw import BETA1, BETA2, EPS, RootedAdamW


def _groups(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 4), (5,), (2, 2))
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    return [
        {"params": tensors[:1], "weight_decay": 0.1},
        {"params": tensors[1:], "weight_decay": 0.0},
    ]


def _train(groups, optimizer, num_steps=7):
    tensors = [tensor for group in groups for tensor in group["params"]]
    for number in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (number + 1)
        optimizer.zero_grad()
        sum((tensor**3).sum() for tensor in tensors[:2]).backward()  # the last has no gradient
        optimizer.step()
    return tensors


def test_without_a_root_of_its_own_it_is_torchs():
    ours, theirs = _groups(), _groups()
    found = _train(ours, RootedAdamW(ours, 0.1, 0.0))
    expected = _train(theirs, torch.optim.AdamW(theirs, lr=0.1))
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
    assert torch.equal(found[2], _groups()[1]["params"][1])


def test_a_step_follows_the_formula():
    groups = _groups()
    before = [tensor.detach().clone() for tensor in groups[0]["params"] + groups[1]["params"]]
    after = _train(groups, RootedAdamW(groups, 0.1, 1e-2), num_steps=1)
    for left, right, decay in zip(before[:2], after[:2], (0.1, 0), strict=True):
        gradient = 3 * left**2
        moment, square = (1 - BETA1) * gradient / (1 - BETA1), (1 - BETA2) * gradient**2 / (1 - BETA2)
        expected = (1 - 0.1 * decay) * left - 0.1 * moment / ((square + 1e-2).sqrt() + EPS)
        torch.testing.assert_close(right.detach(), expected, rtol=1e-12, atol=0)
