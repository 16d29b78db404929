"""Build a classifier and its tokenizer; margin and loss per example.

Shapes: B examples, C labels.
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

import d3m_ray.training.cpu_encoder as cpu_encoder
import d3m_ray.training.cpu_layers as cpu_layers
import d3m_ray.training.device_masks as device_masks
from d3m_ray.errors import InputError
from d3m_ray.records import BINARY_LABELS
from d3m_ray.training.batching import Batch
from d3m_ray.training.model_name import TINY_MODEL, name_of_folder
from d3m_ray.training.precision import at_least_float32
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.wording import counted

_RULE = f"--model is a transformers folder, a hub name or {TINY_MODEL!r}"


def load_pretrained(
    name_or_dir: str, train_texts: Iterable[str], num_labels: int = len(BINARY_LABELS)
) -> tuple[PretrainedModel, PreTrainedTokenizerBase]:
    """The classifier and its tokenizer, from a folder, from the hub, or made here where the name is "tiny".

    A head for another number of labels is left out, and drawn from each fit's seed as a missing one is. Raises
    InputError where the model cannot be loaded.
    """
    if name_or_dir.lower() == TINY_MODEL:
        return _tiny_bert(train_texts, num_labels)
    if not Path(name_or_dir).is_dir():  # else the hub would be asked for it, again and again
        if _is_path(name_or_dir):
            raise InputError(f"{_RULE}, received {name_or_dir!r}, which is no folder: download the model to one first")
        if difflib.get_close_matches(name_or_dir.lower(), [TINY_MODEL], cutoff=0.75):
            raise InputError(f"{_RULE}, received {name_or_dir!r}: did you mean {TINY_MODEL!r}?")
    # Code that a repository brings along is never run, nor is anybody asked whether it may be.
    own_code = {"trust_remote_code": False}
    try:
        # Quiet: the head is always new. Seeded: its weights are drawn here too, and enter the hash.
        with _quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = AutoConfig.from_pretrained(name_or_dir, num_labels=num_labels, **own_code)
            tokenizer = AutoTokenizer.from_pretrained(name_or_dir, **own_code)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name_or_dir, config=config, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True, **own_code,
            )  # fmt: skip
    except Exception as error:  # readers of damaged files raise kinds of their own
        raise InputError(_why_not_loaded(name_or_dir, error)) from error
    missing = {*info["missing_keys"], *(mismatch[0] for mismatch in info["mismatched_keys"])}
    _check_body(name_or_dir, model, missing)
    pretrained = _as_pretrained(name_or_dir, model, {key.rpartition(".")[0] for key in missing})
    return replace(pretrained, warnings=_on_unread(pretrained.name, info["unexpected_keys"])), tokenizer


def _check_body(name: str, model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Raises InputError where the checkpoint lacks more than a head and a pooler: the rest would be drawn at random."""
    body = f"{model.base_model_prefix}."
    lacking = sorted(key for key in missing if key.startswith(body) and "pooler" not in key)
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise InputError(
            f"--model holds the weights of all of its body; the checkpoint of {name} has none that fit config.json for "
            f"{lacking[0]}{more}, which would be drawn at random: take the config.json that the checkpoint came with"
        )


def _on_unread(name: str, unexpected: Iterable[str]) -> tuple[str, ...]:
    """A sentence where the checkpoint holds layers that the model does not: its config.json may be another's."""
    layers = sorted(key for key in unexpected if re.search(r"\.\d+\.", key) and not key.startswith(("cls.", "lm_head")))
    if not layers:
        return ()
    return (
        f"the checkpoint of {name} holds {counted(len(layers), 'tensor')} that config.json leaves unread, "
        f"such as {layers[0]}",
    )


def _is_path(name_or_dir: str) -> bool:
    """Whether this is meant as a folder: a hub name is NAME or OWNER/NAME."""
    return name_or_dir.startswith((".", "~", "/")) or name_or_dir.count("/") > 1


def _why_not_loaded(name_or_dir: str, error: Exception) -> str:
    """One line: the rule, what was received, and the fix."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if "trust_remote_code" in reason:
        return (
            f"{_RULE}, received {name_or_dir!r}, which brings code of its own, and d3m_ray runs none: take a model "
            "of a type that transformers has built in"
        )
    if Path(name_or_dir).is_dir():
        return f"{_RULE}, and the folder {name_or_dir!r} cannot be read: {reason[:400]}; save or download it again"
    return (
        f"{_RULE}, received {name_or_dir!r}: {reason[:400]} "
        "Without a network, download the model first and name its folder."
    )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _as_pretrained(name: str, model: PreTrainedModel, new_modules: Iterable[str]) -> PretrainedModel:
    pretrained = PretrainedModel(
        name=name,
        config=model.config.to_dict(),
        weights={key: value.detach().float().cpu().numpy().copy() for key, value in model.state_dict().items()},
        new_modules=tuple(sorted(new_modules)),
    )
    folder = Path(name)
    return (
        replace(pretrained, name=name_of_folder(folder, pretrained.content_hash())) if folder.is_dir() else pretrained
    )


def _tiny_bert(train_texts: Iterable[str], num_labels: int) -> tuple[PretrainedModel, PreTrainedTokenizerBase]:
    words = sorted({word for text in train_texts for word in text.lower().split()})
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    backend = FastTokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=128,
    )  # fmt: skip
    config.num_labels = num_labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
    return _as_pretrained(TINY_MODEL, model, ["classifier"]), tokenizer


def build_classifier(pretrained: PretrainedModel, device: torch.device | str = "cpu") -> PreTrainedModel:
    """An untrained module of the pretrained model's architecture; `load_weights` and `draw_new_modules` fill it.

    On a CPU it has the attention and dropout of `cpu_layers` where its class can take them, on a GPU the masks of
    `device_masks`, else transformers' own.
    """
    options = {key: value for key, value in pretrained.config.items() if key != "model_type"}
    config = AutoConfig.for_model(pretrained.config["model_type"], **options)
    with torch.random.fork_rng(devices=[]):
        # None: the best of transformers' own that the class has, sdpa or eager. Code from elsewhere is never run.
        model = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=None, trust_remote_code=False
        )
    if torch.device(device).type == "cpu":
        cpu_layers.replace_attention(model)
        cpu_layers.replace_dropout(model)
        cpu_encoder.replace_encoder(model)
    elif torch.device(device).type == "cuda":
        device_masks.replace_masks(model)
    return model.to(device)


def load_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy the weights into the model's own tensors: arrays out of Ray's object store must never be stepped on."""
    shared = {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
    model.load_state_dict(shared)


def draw_new_modules(model: PreTrainedModel, pretrained: PretrainedModel) -> None:
    """Draw the weights that the pretrained model lacks from torch's current seed, as transformers draws them."""
    for name in pretrained.new_modules:
        module = model.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]
        model._init_weights(module)


def logits_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """[B, C] logits of a padded batch, float32 (float64 from a float64 model)."""
    with device_masks.known_padding(batch.is_padded):
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return at_least_float32(logits)


def margins_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B] margins: correct logit minus logsumexp of the others (Park et al. 2023, arXiv 2303.14186, section 3.3)."""
    correct = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return correct - others.logsumexp(dim=1)


def margin_slopes(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B, C] derivatives of `margins_of` by the logits: 1 at the label, minus the softmax of the others elsewhere."""
    others = logits.scatter(1, labels[:, None], float("-inf")).softmax(dim=1)
    return (-others).scatter(1, labels[:, None], 1.0)
