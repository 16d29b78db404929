"""What the benchmarks measure on: a corpus and a model as a trial sees them, or made-up ones of the same size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from d3m_ray.data.corpora import load_splits
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.training.batching import TokenizedExamples, tokenize
from d3m_ray.training.model import build_classifier, load_pretrained, load_weights
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.vocabulary import trim_vocabulary

TOXIGEN_ROWS = {"train": 7805, "val": 1467}
SIZES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {},  # transformers' defaults are BERT-base's
}


@dataclass(frozen=True)
class Source:
    """A corpus and a model; without both, random tokens in ToxiGen's lengths and a model of random weights."""

    data: Path | None = None
    """Folder of train.csv, val.csv and test.csv."""
    model: str | None = None
    """A transformers folder or hub name."""
    size: Literal["tiny", "minilm", "base"] = "minilm"
    """Of the model that is made up where none is named."""


@dataclass(frozen=True)
class Benchmark(Source):
    """What to measure on, and how long."""

    num_steps: int = 40
    """Batches that are timed, after a few that are not."""


def prepare(source: Source, trimmed: bool = True) -> tuple[PretrainedModel, TokenizedExamples]:
    """The base model and the tokenised train split, over the vocabulary entries in use or over all of them."""
    pretrained, tokens = prepare_splits(source, trimmed)
    return pretrained, tokens["train"]


def prepare_splits(source: Source, trimmed: bool = True) -> tuple[PretrainedModel, dict[str, TokenizedExamples]]:
    """The base model and the tokenised splits: train and val at least."""
    if source.data is None and source.model is None:
        pretrained = made_model(source.size)
        tokens = {split: made_examples(split, number) for split, number in TOXIGEN_ROWS.items()}
    elif source.data is None or source.model is None:
        raise SystemExit(
            f"--data and --model are given together, or neither; received {source.data} and {source.model}: name both"
        )
    else:
        splits = load_splits(Hatexplain(), source.data)
        pretrained, tokenizer = load_pretrained(source.model, splits.train.texts)
        max_length = TrainingConfig().max_length
        tokens = {name: tokenize(examples, tokenizer, max_length) for name, examples in splits.by_name().items()}
    return trim_vocabulary(pretrained, tokens) if trimmed else (pretrained, tokens)


def made_model(size: str, dropout: float = 0.1) -> PretrainedModel:
    """A BERT of random weights."""
    options = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, **SIZES[size]}
    config = AutoConfig.for_model("bert", num_labels=2, **options)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    return PretrainedModel(f"bert {size}", {**config.to_dict(), "model_type": "bert"}, weights, ("classifier",))


def made_examples(split: str, num_examples: int) -> TokenizedExamples:
    """Random tokens in about the lengths of ToxiGen's texts: 21 on average, 92 at most."""
    rng = np.random.default_rng([num_examples, *split.encode()])
    lengths = np.clip(rng.lognormal(2.93, 0.45, num_examples).round(), 5, 92).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(1000, 12_000, offsets[-1]).astype(np.int32)
    groups = rng.permutation(np.arange(num_examples) % 4)
    return TokenizedExamples(split, ids, offsets, rng.integers(0, 2, num_examples), groups, pad_id=0)


def evenly(examples: TokenizedExamples, number: int) -> TokenizedExamples:
    """So many of the examples, or all, at even distances."""
    return examples.take(np.linspace(0, len(examples) - 1, min(number, len(examples))).round().astype(np.int64))


def loaded(pretrained: PretrainedModel, device: str = "cpu") -> PreTrainedModel:
    """The model with this package's layers where it has some, as it was pretrained."""
    model = build_classifier(pretrained, device)
    load_weights(model, pretrained.weights)
    return model


def stock(pretrained: PretrainedModel, device: str = "cpu") -> PreTrainedModel:
    """The model of transformers itself, as the thesis takes it."""
    options = {key: value for key, value in pretrained.config.items() if key != "model_type"}
    config = AutoConfig.for_model(pretrained.config["model_type"], **options)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    load_weights(model, pretrained.weights)
    return model.to(device)
