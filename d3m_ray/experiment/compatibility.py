"""Which of the arms asked for can serve the model at hand: found before anything is trained."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch

from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.support import reasons_against
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.selection.arms import ARMS, AUTO_SUFFIX
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.last_layer import layer_to_refit
from d3m_ray.training.model import build_classifier, load_weights, logits_of
from d3m_ray.training.pretrained import PretrainedModel


def supported(
    config: ExperimentConfig,
    pretrained: PretrainedModel,
    tokens: Mapping[str, TokenizedExamples],
    tell: Callable[[str], None],
) -> ExperimentConfig:
    """The configuration as it is, or, where it skips what is unsupported, with the arms alone that can serve the model.

    Tells of each method that is left out, and why. Raises InputError, with the reason of each method that cannot serve,
    where nothing is skipped or nothing would be left.
    """
    reasons = _reasons(config.methods, config, pretrained, tokens)
    kind = f"{pretrained.name} ({pretrained.config['model_type']})"
    lines = [f"{method} cannot serve {kind}: {why}" for method, why in reasons.items()]
    left = tuple(method for method in config.methods if method not in reasons)
    if not reasons:
        return config
    if config.skip_unsupported and left:
        for line in lines:
            tell(f"left out: {line}")
        return dataclasses.replace(config, methods=left)
    others = [name for name in (*METHODS, "dfr") if name not in reasons]
    can = [name for name in others if name not in _reasons(others, config, pretrained, tokens)]
    advice = f"of the methods that read the model, these can: {', '.join(can)}; name those"
    if left:
        advice += f", or go on with {', '.join(left)} by --skip-unsupported"
    raise InputError("; ".join([*lines, advice]))


def _reasons(
    methods: tuple[str, ...] | list[str],
    config: ExperimentConfig,
    pretrained: PretrainedModel,
    tokens: Mapping[str, TokenizedExamples],
) -> dict[str, str]:
    """By arm that cannot serve the model, why."""
    attributions = {m: (ARMS[m].alignment or "").removesuffix(AUTO_SUFFIX) for m in methods}
    asked = sorted({name for name in attributions.values() if name})
    found = reasons_against(asked, pretrained, tokens["train"], config.ekfac) if asked else {}
    reasons = {method: found[name] for method, name in attributions.items() if name in found}
    for method in methods:
        if ARMS[method].recipe == "dfr":
            try:
                _try_dfr(pretrained, tokens[config.robust.dfr_data])
            except ValueError as error:
                reasons[method] = str(error)
    return reasons


def _try_dfr(pretrained: PretrainedModel, examples: TokenizedExamples) -> None:
    """Raises ValueError where there is no last layer to refit, or it is not what gives an example its logits."""
    model = build_classifier(pretrained).eval()
    load_weights(model, pretrained.weights)
    layer = layer_to_refit(model, examples)
    outputs: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    with torch.inference_mode():
        logits = logits_of(model, examples.batch(np.arange(1)))
    if len(outputs) != 1 or outputs[0].shape != logits.shape or not torch.equal(outputs[0], logits):
        raise ValueError("dfr refits the layer whose outputs are the logits, and the last linear one here is another")
