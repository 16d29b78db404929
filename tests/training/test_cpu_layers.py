"""Attention and dropout for a CPU, against torch's own."""

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from d3m_ray.training.cpu_layers import UnsupportedAttentionError, attention, dropout, replace_dropout


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_drops_its_share(p):
    torch.manual_seed(0)
    values = torch.full((1000, 1003), 2.0)
    dropped = dropout(values, p)
    share = (dropped == 0).double().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / values.numel()) ** 0.5 + 2**-17
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / (1 - p)), rtol=1e-4, atol=0)


def test_dropout_lanes_are_independent():
    """A number of the stream serves four neighbours: none of them may say anything about the next."""
    torch.manual_seed(1)
    kept = (dropout(torch.ones(400_000), 0.5) != 0).double() - 0.5
    for distance in (1, 2, 3, 4):
        correlation = (kept[:-distance] * kept[distance:]).mean() / 0.25
        assert abs(correlation) < 5 / len(kept) ** 0.5


def test_dropout_passes_gradients_through_the_same_mask():
    values = torch.ones(50, 7, requires_grad=True)
    dropped = dropout(values, 0.3)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_no_dropout_is_no_change():
    values = torch.ones(3)
    assert dropout(values, 0.0) is values


@pytest.mark.parametrize("p", [2**-16, 1 - 2**-16, 1 - 2**-18, 1.0])
def test_dropout_of_the_least_and_the_largest_rates(p):
    """All that a rate near 1 leaves is zero, as torch's; what the least one leaves is nearly all."""
    torch.manual_seed(0)
    values = torch.ones(400_000, requires_grad=True)
    dropped = dropout(values, p)
    num_zero = int((dropped == 0).sum())
    assert num_zero == len(values) if p > 1 - 2**-17 else 0 < num_zero < len(values)
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / max(1 - p, 2**-16)))
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_replaced_modules_drop_in_training_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    replace_dropout(model)
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    inputs = torch.ones(100, 4)
    assert torch.equal(model.eval()(inputs), model[0](inputs))
    assert (model.train()(inputs) == 0).any()


@pytest.mark.parametrize("additive", [False, True])
def test_attention_is_torchs(additive):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, 5, 8, dtype=torch.float64) for _ in range(3))
    seen = torch.rand(3, 1, 5, 5) < 0.7
    seen[..., 0] = True
    lowest = torch.finfo(torch.float64).min
    mask = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, lowest) if additive else seen
    ours, _ = attention(nn.Identity().eval(), query, key, value, mask, dropout=0.5)
    theirs = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    torch.testing.assert_close(ours, theirs.transpose(1, 2))


class _Layer(nn.Module):
    """What transformers' attention functions look up of a layer."""

    def __init__(self, is_causal: bool | None = None, num_groups: int | None = None) -> None:
        super().__init__()
        if is_causal is not None:
            self.is_causal = is_causal
        if num_groups is not None:
            self.num_key_value_groups = num_groups


@pytest.mark.parametrize("of_layer", [None, False, True])
@pytest.mark.parametrize("of_call", [None, False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_that_of_transformers_for_sdpa(of_layer, of_call, masked, biased):
    """Without a mask a decoder's tokens see those before them only, and a head of keys may serve several of queries."""
    torch.manual_seed(0)
    layer = _Layer(of_layer, num_groups=2).eval()
    query = torch.randn(3, 4, 5, 8, dtype=torch.float64)
    key, value = (torch.randn(3, 2, 5, 8, dtype=torch.float64) for _ in range(2))
    mask = torch.ones(3, 1, 5, 5, dtype=torch.bool).tril() if masked else None
    options = {"is_causal": of_call, "scaling": 0.3, "sliding_window": 8}
    options |= {"position_bias": torch.randn(1, 4, 5, 5, dtype=torch.float64)} if biased else {}
    ours, _ = attention(layer, query, key, value, mask, **options)
    theirs, _ = sdpa_attention_forward(layer, query, key, value, mask, **options)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("keyword", [{"softcap": 30.0}, {"s_aux": torch.ones(2)}, {"head_mask": torch.ones(2)}])
def test_what_attention_does_not_compute_is_refused(keyword):
    query = torch.randn(1, 2, 3, 4)
    with pytest.raises(UnsupportedAttentionError, match=f"does not compute {next(iter(keyword))} of _Layer"):
        attention(_Layer(False), query, query, query, None, **keyword)
    attention(_Layer(False), query, query, query, None, **dict.fromkeys(keyword))


def test_a_dropout_of_another_kind_stays():
    class Scaled(nn.Dropout):
        def forward(self, values):
            return 2 * values

    model = nn.Sequential(Scaled(0.5))
    replace_dropout(model)
    assert type(model[0]) is Scaled


def test_a_query_that_sees_nothing_stays_finite_on_both_ways():
    query, key, value = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    seen = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])[None, None]
    result, _ = attention(nn.Identity(), query, key, value, seen)
    result[:, :2].sum().backward()
    assert torch.isfinite(result).all()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (query, key, value))
