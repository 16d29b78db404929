"""The encoder without padding, against transformers' own layers: the same logits, gradients and dropout."""

import contextlib
import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, RobertaConfig
from transformers.models.roberta import RobertaForSequenceClassification

from d3m_ray.training.batching import Batch
from d3m_ray.training.cpu_encoder import UnpaddedEncoder, only_logits, replace_encoder
from d3m_ray.training.cpu_layers import dropout_of_rows, replace_attention, replace_dropout
from d3m_ray.training.model import logits_of

SIZES = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
LENGTHS = (7, 3, 7, 1, 5)
KEPT = np.array([1, 2, 4])


def classifier(model_class: type = BertForSequenceClassification, config_class: type = BertConfig) -> PreTrainedModel:
    """A model in training mode, in float64, whose every weight tells."""
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES, max_position_embeddings=20, num_labels=3))
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    replace_attention(model)
    replace_dropout(model)
    replace_encoder(model)
    return model.double().train()


def batch(lengths: tuple[int, ...] = LENGTHS) -> Batch:
    rng = np.random.default_rng(0)
    seen = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(seen, rng.integers(5, SIZES["vocab_size"], seen.shape), 1)
    labels = torch.arange(len(lengths)) % 3
    return Batch(torch.from_numpy(ids), torch.from_numpy(seen.astype(np.int64)), labels)


def part(whole: Batch, rows: np.ndarray) -> Batch:
    return Batch(whole.input_ids[rows], whole.attention_mask[rows], whole.labels[rows])


def encoder(model: PreTrainedModel) -> nn.Module:
    return model.base_model.encoder


def losses(model: Any, given: Batch, inside: Callable[[], Any]) -> torch.Tensor:
    torch.manual_seed(1)
    with inside():
        return nn.functional.cross_entropy(logits_of(model, given), given.labels, reduction="none")


def gradients(model: PreTrainedModel, given: Batch, inside: Callable[[], Any]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses(model, given, inside).mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@contextlib.contextmanager
def kept_alone() -> Any:
    with dropout_of_rows(len(LENGTHS), KEPT), only_logits():
        yield


@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4), (1, 1)])
@pytest.mark.parametrize(
    "of", [(BertForSequenceClassification, BertConfig), (RobertaForSequenceClassification, RobertaConfig)]
)
def test_a_training_step_is_that_of_the_layers_of_transformers(of, lengths):
    """Dropout included, of every parameter: what is left out enters no logit."""
    model, given = classifier(*of), batch(lengths)
    assert isinstance(encoder(model), UnpaddedEncoder)
    torch.testing.assert_close(
        losses(model, given, only_logits), losses(model, given, contextlib.nullcontext), rtol=1e-12, atol=1e-12
    )
    found, expected = (gradients(model, given, inside) for inside in (only_logits, contextlib.nullcontext))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert len(found) == len(list(model.parameters()))


def test_dropout_is_drawn():
    model, given = classifier(), batch()
    assert not torch.equal(losses(model, given, only_logits), losses(model.eval(), given, only_logits))


def test_a_part_of_a_batch_has_its_dropout_of_the_whole():
    model, whole = classifier(), batch()
    alone = losses(model, part(whole, KEPT), kept_alone)
    torch.testing.assert_close(alone, losses(model, whole, only_logits)[KEPT], rtol=1e-12, atol=1e-12)


def test_under_autocast_it_is_as_near_to_float32_as_the_layers_of_transformers():
    model, given = classifier().float(), batch()
    exact = losses(model, given, contextlib.nullcontext)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (losses(model, given, inside) for inside in (only_logits, contextlib.nullcontext))
    assert not torch.equal(ours, exact)
    assert (ours - exact).abs().max() < 2 * (theirs - exact).abs().max() + 1e-3


def test_it_can_be_differentiated_twice_and_forward():
    model, given = classifier(), batch()
    parameters = dict(model.named_parameters())
    torch.manual_seed(2)
    along = {name: torch.randn_like(p) for name, p in parameters.items()}

    def curvature(inside: Callable[[], Any]) -> list[torch.Tensor]:
        first = torch.autograd.grad(losses(model, given, inside).mean(), list(parameters.values()), create_graph=True)
        products = sum((g * v).sum() for g, v in zip(first, along.values(), strict=True))
        return list(torch.autograd.grad(products, list(parameters.values()), materialize_grads=True))

    def slope(inside: Callable[[], Any]) -> torch.Tensor:
        with torch.no_grad(), forward_ad.dual_level():
            moved = {name: forward_ad.make_dual(p.detach(), along[name]) for name, p in parameters.items()}
            by_moved = lambda **options: functional_call(model, moved, (), options)  # noqa: E731
            return forward_ad.unpack_dual(losses(by_moved, given, inside)).tangent

    torch.testing.assert_close(curvature(only_logits), curvature(contextlib.nullcontext), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(slope(only_logits), slope(contextlib.nullcontext), rtol=1e-9, atol=1e-11)


def test_the_last_layer_is_computed_for_the_first_token_alone():
    model, given = classifier(), batch()
    shapes: list[torch.Size] = []

    class Norms(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
            if function is nn.functional.layer_norm:
                shapes.append(args[0].shape)
            return function(*args, **(kwargs or {}))

    with Norms():
        losses(model, given, only_logits)
        losses(model, given, contextlib.nullcontext)
    last_of_each = shapes[6], shapes[13]  # each pass has one of the embeddings and two of each layer
    assert last_of_each == ((len(LENGTHS), 24), (len(LENGTHS), max(LENGTHS), 24))


def test_outside_every_module_is_called_as_before():
    model, given = classifier(), batch()
    called: list[str] = []
    for name, module in encoder(model).named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    losses(model, given, contextlib.nullcontext)
    assert {"layer.0.attention.self.query", "layer.2.output.dense"} <= set(called)


def test_names_of_weights_stay():
    model = classifier()
    stock = BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=20, num_labels=3))
    assert list(model.state_dict()) == list(stock.state_dict())


def test_padding_on_the_left_is_left_to_the_layers_of_transformers():
    model, given = classifier(), batch()
    flipped = Batch(given.input_ids.flip(1), given.attention_mask.flip(1), given.labels)
    assert torch.equal(losses(model, flipped, only_logits), losses(model, flipped, contextlib.nullcontext))


class Doubled(nn.Linear):
    """An adapter, as a recipe might put in the place of a layer after the model was built."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(inputs)


def _adapt(model: PreTrainedModel) -> None:
    stock = encoder(model).layer[1].output.dense
    adapted = Doubled(stock.in_features, stock.out_features, dtype=torch.float64)
    adapted.load_state_dict(stock.state_dict())
    encoder(model).layer[1].output.dense = adapted


def _hook(model: PreTrainedModel) -> None:
    encoder(model).layer[0].register_forward_hook(lambda _, inputs, output: 2 * output)


def _hook_before(model: PreTrainedModel) -> None:
    encoder(model).layer[0].output.register_forward_pre_hook(lambda _, inputs: (inputs[0], -inputs[1]))


def _hook_gradients(model: PreTrainedModel) -> None:
    encoder(model).layer[0].output.dense.register_full_backward_hook(lambda _, inputs, outputs: (2 * inputs[0],))


@pytest.mark.parametrize("change", [_adapt, _hook, _hook_before, _hook_gradients])
def test_what_is_put_into_the_layers_later_is_computed_as_outside(change):
    """Copies of a model too."""
    for model in (classifier(), copy.deepcopy(classifier())):
        given = batch()
        gradients(model, given, only_logits)
        assert encoder(model).num_unpadded == 3, "it was left out before"
        before = gradients(model, given, only_logits)
        change(model)
        found, expected = (gradients(model, given, inside) for inside in (only_logits, contextlib.nullcontext))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert not all(torch.equal(found[name], before[name]) for name in before)


@pytest.mark.parametrize("name", ["bert", "bert.encoder"])
def test_hooks_around_the_encoder_see_every_token(name):
    model, given = classifier(), batch()
    shapes: list[torch.Size] = []
    model.get_submodule(name).register_forward_hook(
        lambda _, inputs, output: shapes.append(output.last_hidden_state.shape)
    )
    losses(model, given, only_logits)
    assert shapes == [(len(LENGTHS), max(LENGTHS), 24)]


class Shifted(nn.LayerNorm):
    """A norm that is not `nn.LayerNorm`'s."""


def _add_parameter(model: PreTrainedModel) -> None:
    model.bert.encoder.layer[1].bias = nn.Parameter(torch.zeros(1))  # zero: no logit shows that it is not read


def _other_norm(model: PreTrainedModel) -> None:
    model.bert.encoder.layer[0].output.LayerNorm = Shifted(24)


def _head_of_all(model: PreTrainedModel) -> None:
    model.bert.pooler.forward = lambda states: states.mean(dim=1)


def _decoder(model: PreTrainedModel) -> None:
    model.config.is_decoder = True


def _chunks(model: PreTrainedModel) -> None:
    for layer in model.bert.encoder.layer:
        layer.chunk_size_feed_forward = 1  # which draws dropout for one place of all texts after the other


def _more_dropout(model: PreTrainedModel) -> None:
    model.bert.encoder.layer[0].intermediate.register_forward_hook(
        lambda module, inputs, output: nn.functional.dropout(output, 0.5, module.training)
    )


def _logits_of_zero(model: PreTrainedModel) -> None:
    nn.init.zeros_(model.classifier.weight)  # show nothing of what leads to them


@pytest.mark.parametrize(
    "change", [_add_parameter, _other_norm, _head_of_all, _decoder, _chunks, _more_dropout, _logits_of_zero]
)
def test_what_computes_otherwise_stays_as_it_is(change):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=20))
    replace_attention(model)
    replace_dropout(model)
    change(model)
    replace_encoder(model)
    assert not isinstance(encoder(model), UnpaddedEncoder)
    assert model.training


def test_trying_leaves_the_random_stream_where_it_was():
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=20))
    replace_attention(model)
    replace_dropout(model)
    before = torch.get_rng_state()
    replace_encoder(model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("asked", [only_logits, kept_alone])
def test_what_one_thread_asks_for_no_other_gets(asked):
    """Threads that end in another order than they began leave nothing behind, either."""
    model, given = classifier(), batch()
    called: list[str] = []
    encoder(model).layer[-1].register_forward_hook(lambda *_: called.append("last layer"))
    expected = losses(model, given, contextlib.nullcontext)
    begun, ends = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def hold(number: int) -> None:
        with asked():
            begun[number].set()
            ends[number].wait(10)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        begun[number].wait(10)
    assert torch.equal(losses(model, given, contextlib.nullcontext), expected)
    for number, thread in enumerate(threads):
        ends[number].set()
        thread.join()
    assert torch.equal(losses(model, given, contextlib.nullcontext), expected)
    assert len(called) == 3


def test_a_model_with_attention_of_transformers_stays_as_it_is():
    model = BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=20, attn_implementation="sdpa"))
    replace_dropout(model)
    replace_encoder(model)
    assert not isinstance(encoder(model), UnpaddedEncoder)
