"""Whether results are right on a device: the same bits twice, the CPU's up to rounding, a stack's those of its fits."""

import dataclasses
import itertools
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from corpora import loaded, made_examples, made_model
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, TrainingRun
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.registry import METHODS, Method
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.training.fine_tuning import fine_tune, predict
from d3m_ray.training.model import build_classifier
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.stacked import build_stackable, fine_tune_stacked

SETTINGS = {"trak": TrakConfig(), "ekfac": EkfacConfig(), "metagradient": MetagradientConfig()}
SKIPPED = ("random", "bm25", "traker", "kronfluence")  # draw, read no model, or are other libraries


def tried(part: Callable[[], Any]) -> Any:
    """What a part found, or how it failed: the others go on."""
    try:
        return part()
    except Exception:
        return {"failed": traceback.format_exc().splitlines()[-12:]}


def config_of(**changes: Any) -> TrainingConfig:
    """The thesis's training, in whatever precision is fast."""
    return dataclasses.replace(TrainingConfig(num_epochs=1, learning_rate=5e-5, final_model="last"), **changes)


def fitted(pretrained: PretrainedModel, device: str, config: TrainingConfig, num_train: int = 320) -> PreTrainedModel:
    """A model after one fit on made-up examples."""
    model = build_classifier(pretrained, device)
    train = made_examples("train", num_train)
    fine_tune(model, pretrained, train, train, config, seed=0)
    return model


def vector(model: nn.Module) -> torch.Tensor:
    """[P] float64 on the CPU: all parameters end to end."""
    return torch.cat([p.detach().flatten().double().cpu() for p in model.parameters()])


def same_bits(device: str) -> dict[str, bool]:
    """Whether a fit twice has the same bits, in each precision, and without some examples of it too."""
    pretrained, train = made_model("tiny"), made_examples("train", 320)
    found = {}
    for precision, kept in itertools.product(("float32", "bfloat16"), (None, np.arange(20, 320))):
        vectors = []
        for _ in range(2):
            model = build_classifier(pretrained, device)
            config = config_of(precision=precision)
            fine_tune(model, pretrained, train, train, config, seed=0, kept=kept)
            vectors.append(vector(model))
        found[f"{precision}, {'all' if kept is None else 'without 20'}"] = torch.equal(*vectors)
    return found


def beside_cpu(device: str) -> dict[str, float]:
    """How far a fit without dropout is from the CPU's, in the way that training went; and its predictions."""
    pretrained = made_model("tiny", dropout=0.0)
    start = vector(loaded(pretrained, "cpu"))
    cpu, other = (fitted(pretrained, each, config_of(precision="float32")) for each in ("cpu", device))
    val = made_examples("val", 200)
    margins = [predict(model, val, "float32").margins for model in (cpu, other)]
    return {
        "weights": float((vector(other) - vector(cpu)).norm() / (vector(cpu) - start).norm()),
        "margins": float(np.abs(margins[0] - margins[1]).max() / np.abs(margins[0]).max()),
    }


def stacked_beside_single(device: str) -> dict[str, Any]:
    """Fits in a stack beside the same one by one, dropout and all, in the way that training went; and their bits."""
    pretrained, train, config = made_model("tiny"), made_examples("train", 320), config_of(precision="float32")
    kept = [np.arange(num_removed, 320) for num_removed in (0, 20, 100)]
    singles = []
    for of_fit in kept:
        model = build_stackable(pretrained, device)
        fine_tune(model, pretrained, train, train, config, seed=0, kept=of_fit)
        singles.append(vector(model))
    start = vector(loaded(pretrained, "cpu"))

    def stacked(removals: list[np.ndarray]) -> list[torch.Tensor]:
        model = build_stackable(pretrained, device)
        fits = fine_tune_stacked(model, pretrained, train, train, config, 0, removals)
        found = []
        for place in range(len(removals)):
            fits.load(place)
            found.append(vector(model))
        return found

    once = stacked(kept)
    return {
        "weights": max(float((a - b).norm() / (b - start).norm()) for a, b in zip(once, singles, strict=True)),
        "same bits twice": all(map(torch.equal, once, stacked(kept))),
        "same bits beside others": torch.equal(once[1], stacked([kept[2], kept[1], kept[2]])[1]),
    }


def inputs_on(device: Any, pretrained: PretrainedModel, num_train: int, precision: Any) -> AttributionInputs:
    """What a method scores, on a device: a checkpoint that the CPU trained without dropout."""
    config = config_of(precision="float32")
    weights = {name: value.cpu().numpy() for name, value in fitted(pretrained, "cpu", config, 64).state_dict().items()}
    train = made_examples("train", num_train)
    run = TrainingRun(config, 0, 1, train, np.arange(num_train))
    checkpoint = Checkpoint("made up", pretrained, weights, run, device)
    return AttributionInputs((checkpoint,), train, made_examples("val", 40), 4, precision=precision)


def methods(device: str) -> dict[str, Any]:
    """How far each method's scores of groups are from the CPU's, of the largest; in float32."""
    found: dict[str, Any] = {}
    for name, method in METHODS.items():
        if name in SKIPPED:
            continue
        settings = SETTINGS.get(method.settings or "")
        found[name] = tried(partial(scores_apart, method, settings, device))
    return found


def scores_apart(method: Method, settings: Any, device: str) -> float:
    """How far one method's scores of groups are from the CPU's, of the largest."""
    cpu, other = (
        method.load().score_groups(
            inputs_on(each, made_model("tiny", dropout=0.0), 64, "float32"), settings, LocalPool()
        )
        for each in ("cpu", device)
    )
    return float(np.abs(cpu - other).max() / np.abs(cpu).max())
