"""What TRAK's projected gradients multiply, counted: a guard of speed that no busy machine disturbs."""

import numpy as np
import pytest
from counted_model import LAYERS, B, C, E, F, T, made_examples, made_model, operations

from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection

PROJECTION = SignProjection(48, seed=0)


def passes() -> int:
    """Of the forward pass, and of the backward pass to the activations: no weight has a gradient."""
    linear = LAYERS * B * T * (4 * E * E + 2 * E * F) + B * (E * E + E * C)
    attention = LAYERS * 2 * B * T * T * E
    return 2 * (2 * linear + 3 * attention)


def projections() -> int:
    """Of both sides of every linear layer and of the outputs of three embeddings, and of one product an example."""
    k_out, k_in = PROJECTION.factors
    inputs = LAYERS * B * T * (5 * E + F) + B * 2 * E
    outputs = LAYERS * B * T * (5 * E + F) + B * (E + C) + 3 * B * T * E
    tokens = LAYERS * 6 * B * T + 2 * B + 3 * B * T
    return 2 * (inputs * k_in + outputs * k_out + tokens * k_in * k_out)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_multiply_both_passes_and_their_projections_and_no_more(precision):
    """No gradient of a weight is ever formed: that would be about half as much again as both passes."""
    gradients_of = ProjectedGradients(made_model(), PROJECTION, precision)
    batch = made_examples().batch(np.arange(B))
    gradients_of(batch)  # the first one also looks at how the layers are used
    assert operations(lambda: gradients_of(batch)) == passes() + projections()
