"""Linear layers are chosen by their names, or by those of modules that hold them."""

import pytest

from d3m_ray.attribution.ekfac.layers import tracked_linears
from d3m_ray.errors import InputError
from d3m_ray.training.model import build_classifier

LAYER = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
LAYER_0 = [f"bert.encoder.layer.0.{name}" for name in (*LAYER, "intermediate.dense", "output.dense")]


def test_without_names_every_linear_layer_is_tracked(tiny_base):
    layers = tracked_linears(build_classifier(tiny_base("bert")), ())
    assert layers[:6] == LAYER_0
    assert layers[-2:] == ["bert.pooler.dense", "classifier"]
    assert len(layers) == 2 * 6 + 2


def test_a_module_stands_for_the_layers_beneath_it(tiny_base):
    model = build_classifier(tiny_base("bert"))
    assert tracked_linears(model, ("classifier", "bert.encoder.layer.0")) == [*LAYER_0, "classifier"]
    assert tracked_linears(model, ("classifier", "classifier")) == ["classifier"]


@pytest.mark.parametrize("name", ["bert.embeddings", "bert.encoder.layer.", "class", "classifier.weight"])
def test_a_name_without_linear_layers_is_an_error_that_lists_them(tiny_base, name):
    model = build_classifier(tiny_base("bert"))
    with pytest.raises(InputError, match=rf"received '{name}'.*bert\.encoder\.layer\.0-1\.output\.dense.*classifier$"):
        tracked_linears(model, ("classifier", name))
