"""Which methods serve which architectures, held against docs/models.md, and that a wrong gradient is found.

`D3M_RAY_REWRITE_DOCS=1 python -m pytest tests/attribution/test_support.py` writes the page's table again.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from d3m_ray.attribution import support
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.support import coverage, reasons_against
from d3m_ray.data.planted import Planted
from d3m_ray.errors import InputError
from d3m_ray.experiment.compatibility import supported
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.training.model import build_classifier

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- made by tests/attribution/test_support.py -->", "<!-- end -->"
ALWAYS = "`bm25`, `loss`, `random`, `random_majority`, `balanced*`, `group_dro`, `jtt`"


@pytest.fixture
def tokens(made_tokens):
    """Splits for an architecture: padded as it is, each text with an end."""

    def make(pretrained):
        pad_id = pretrained.config["pad_token_id"]
        splits = {name: made_tokens(name, 12, end=pretrained.config["eos_token_id"]) for name in ("train", "val")}
        return {name: dataclasses.replace(split, pad_id=pad_id) for name, split in splits.items()}

    return make


def asked(*methods: str, **options) -> ExperimentConfig:
    return ExperimentConfig(corpus=Planted(), methods=methods, **options)


def _cell(refused: bool, share: float | None) -> str:
    """Whether a method serves a model, and of one that reads less than a tenth of its parameters that it does."""
    if refused:
        return "no"
    return "yes" if share is None or share >= 0.1 else "the head alone"


@pytest.mark.slow
def test_the_page_says_what_serves_what(common_architectures, tiny_base, tokens):
    names = [name for name in METHODS if name not in ("bm25", "loss", "random")]
    rows = [f"| | {' | '.join(f'`{name}`' for name in (*names, 'dfr'))} | {ALWAYS} |", "|---" * (len(names) + 3) + "|"]
    notes = []
    for architecture in common_architectures:
        pretrained = tiny_base(architecture)
        splits = tokens(pretrained)
        reasons = reasons_against(names, pretrained, splits["train"], EkfacConfig())
        told = []
        supported(asked("dfr", "random", skip_unsupported=True), pretrained, splits, told.append)
        if told:
            reasons["dfr"] = told[0].partition("): ")[2]
        served = [name for name in names if name not in reasons]
        shares = {name: coverage(name, pretrained, EkfacConfig()) for name in served}
        cells = [_cell(name in reasons, shares.get(name)) for name in (*names, "dfr")]
        rows.append(f"| {architecture} | {' | '.join(cells)} | yes |")
        notes += [f"- {architecture}, `{name}`: {reason}" for name, reason in reasons.items()]
    made = "\n".join([BEGIN, *rows, "", *notes, END])
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    expected = before + made + rest.partition(END)[2]
    if os.environ.get("D3M_RAY_REWRITE_DOCS"):
        PAGE.write_text(expected)
    assert PAGE.read_text() == expected


def test_methods_that_read_no_gradient_serve_whatever_classifies(tiny_base, tokens):
    pretrained = tiny_base("t5")
    assert reasons_against(("bm25", "loss", "random"), pretrained, tokens(pretrained)["train"], EkfacConfig()) == {}


class Doubled(nn.Linear):
    """A layer that computes in another way than its kind."""

    def forward(self, values):
        return 2 * super().forward(values)


def doubled(pretrained, device="cpu"):
    model = build_classifier(pretrained, device)
    layer = model.bert.encoder.layer[1].output
    wrong = Doubled(layer.dense.in_features, layer.dense.out_features)
    wrong.load_state_dict(layer.dense.state_dict())
    layer.dense = wrong
    return model


def shared(pretrained, device="cpu"):
    """Two linear layers of one weight."""
    model = build_classifier(pretrained, device)
    first, second = (layer.attention.output.dense for layer in model.bert.encoder.layer)
    second.weight = first.weight
    return model


@pytest.mark.parametrize(("build", "refusing"), [(doubled, {"trak"}), (shared, {"trak", "ekfac", "kronfluence"})])
def test_a_gradient_that_hooks_do_not_see_is_found(build, refusing, tiny_base, tokens, monkeypatch):
    pretrained = tiny_base("bert")
    monkeypatch.setattr(support, "build_classifier", build)
    methods = ("trak", "ekfac", "traker", "kronfluence", "embedding")
    assert set(reasons_against(methods, pretrained, tokens(pretrained)["train"], EkfacConfig())) == refusing


def test_coverage_is_the_share_of_the_parameters(tiny_base):
    pretrained = tiny_base("bert")
    model = build_classifier(pretrained)
    linear = sum(p.numel() for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters(recurse=False))
    share = linear / sum(p.numel() for p in model.parameters())
    assert coverage("ekfac", pretrained, EkfacConfig()) == coverage("kronfluence", pretrained, EkfacConfig()) == share
    head = 2 * 17 / sum(p.numel() for p in model.parameters())
    assert coverage("ekfac", pretrained, EkfacConfig(modules=("classifier",))) == head
    assert coverage("trak", pretrained, EkfacConfig()) == coverage("traker", pretrained, EkfacConfig()) == 1
    assert coverage("bm25", pretrained, EkfacConfig()) is None


def test_conv1d_is_covered_by_ekfac_and_not_by_kronfluence(tiny_base):
    pretrained = tiny_base("gpt2")
    embeddings = sum(pretrained.weights[f"transformer.{name}.weight"].size for name in ("wte", "wpe"))
    norms = sum(value.size for name, value in pretrained.weights.items() if ".ln_" in name)
    everything = sum(value.size for value in pretrained.weights.values())
    assert coverage("ekfac", pretrained, EkfacConfig()) == pytest.approx(1 - (embeddings + norms) / everything)
    assert coverage("kronfluence", pretrained, EkfacConfig()) == pytest.approx(32 / everything)


def test_tied_weights_count_once(tiny_base):
    pretrained = tiny_base("bart")
    assert 0.5 < coverage("ekfac", pretrained, EkfacConfig()) < 1
    assert sum(value.shape == (100, 16) for value in pretrained.weights.values()) == 3


def test_an_arm_that_cannot_serve_is_named_with_the_reason(tiny_base, tokens):
    pretrained = tiny_base("albert")
    with pytest.raises(InputError) as raised:
        supported(asked("ekfac_auto", "ekfac_helpful", "trak", "random"), pretrained, tokens(pretrained), print)
    first, second, advice, go_on = str(raised.value).split("; ")
    assert first.startswith("ekfac_auto cannot serve random (albert): EK-FAC takes layers that an example passes once")
    assert "albert_layers.0.attention.query" in first
    assert second.startswith("ekfac_helpful cannot serve")
    can = "trak, traker, metagradient, tracin, gradcos, bm25, embedding, loss, random, dfr"
    assert advice == f"of the methods that read the model, these can: {can}"
    assert go_on == "name those, or go on with trak, random by --skip-unsupported"


def test_a_long_reason_is_cut_between_words(tiny_base, tokens):
    pretrained = tiny_base("bert")
    asked_for = EkfacConfig(modules=("none",))
    (reason,) = reasons_against(["ekfac"], pretrained, tokens(pretrained)["train"], asked_for).values()
    assert len(reason) <= 300
    assert reason.endswith(".value, ...")


def test_the_others_go_on_where_that_is_asked(tiny_base, tokens):
    pretrained, told = tiny_base("albert"), []
    config = asked("ekfac", "trak", "random", skip_unsupported=True)
    assert supported(config, pretrained, tokens(pretrained), told.append).methods == ("trak", "random")
    assert [line.partition(":")[0] for line in told] == ["left out"]
    with pytest.raises(InputError, match="these can: trak"):
        supported(asked("ekfac", skip_unsupported=True), pretrained, tokens(pretrained), told.append)


def test_a_model_that_serves_all_is_left_alone(tiny_base, tokens):
    pretrained = tiny_base("bert")
    config = asked("trak", "ekfac", "embedding_auto", "dfr", "bm25")
    assert supported(config, pretrained, tokens(pretrained), print) is config


def test_nothing_is_built_for_arms_that_need_no_model(tiny_base, tokens, monkeypatch):
    pretrained = tiny_base("bert")
    monkeypatch.setattr(support, "build_classifier", lambda *_: pytest.fail("built"))
    supported(asked("random", "bm25", "loss", "balanced"), pretrained, tokens(pretrained), print)


def test_texts_of_one_length_can_be_tried(tiny_base, tokens):
    pretrained = tiny_base("bert")
    train = tokens(pretrained)["train"]
    alike = train.take(np.flatnonzero(train.lengths == np.bincount(train.lengths).argmax())[:1])
    assert len(set(alike.lengths)) == 1
    assert reasons_against(("trak",), pretrained, alike, EkfacConfig()) == {}
    assert torch.get_num_threads() == 1
