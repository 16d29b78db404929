"""Tokens without gradients are left out where they are many, and layers of one input have it as one tensor."""

import numpy as np
import pytest
import torch

from d3m_ray.attribution.ekfac.layers import tracked_linears
from d3m_ray.attribution.ekfac.linear_gradients import PROBED, LinearGradients, where_gradients_are
from d3m_ray.training.model import build_classifier, margin_slopes


def _sparse(where: list[list[int]], num_outputs: int = 2 * PROBED) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and gradients of eight tokens each, with gradients at these alone."""
    generator = torch.Generator().manual_seed(0)
    inputs, dense = (
        torch.randn(len(where), 8, 3, generator=generator),
        torch.randn(len(where), 8, num_outputs, generator=generator),
    )
    gradients = torch.zeros_like(dense)
    for example, places in enumerate(where):
        gradients[example, places] = dense[example, places]
    return inputs, gradients


@pytest.mark.parametrize("where", [[[0], [7]], [[1, 5], [], [0, 2, 3, 7]], [[], []]])
def test_what_is_left_out_adds_nothing(where):
    inputs, gradients = _sparse(where)
    few_inputs, few_gradients = where_gradients_are(inputs, gradients)
    assert few_inputs.shape[1] == few_gradients.shape[1] == max(1, *map(len, where))
    expected = torch.bmm(gradients.transpose(1, 2), inputs)
    torch.testing.assert_close(torch.bmm(few_gradients.transpose(1, 2), few_inputs), expected)


def test_a_token_whose_first_outputs_alone_have_no_gradient_stays():
    inputs, gradients = _sparse([[0, 1, 2, 3, 4, 5], [0]])
    gradients[..., :PROBED] = 0
    assert where_gradients_are(inputs, gradients)[0] is inputs


def test_what_is_not_finite_stays():
    inputs, gradients = _sparse([[0], [0]])
    gradients[1, 3, -1] = float("nan")
    assert where_gradients_are(inputs, gradients)[1].isnan().any()


def test_layers_of_one_input_have_one_tensor_and_a_last_layer_one_token(tiny_base, made_tokens):
    model = build_classifier(tiny_base("bert"))
    layers = LinearGradients(model, tracked_linears(model, ()), "float32")
    batch = made_tokens(num_examples=4).batch(np.arange(4))
    caught = layers.backward(margin_slopes(layers.forward(batch), batch.labels))
    query, key, value = (caught[f"bert.encoder.layer.1.attention.self.{name}"] for name in ("query", "key", "value"))
    assert query[0] is key[0] is value[0]
    assert where_gradients_are(*query)[0].shape[1] == 1
    assert where_gradients_are(*key)[0].shape[1] > 1
