"""Every model type that transformers can build for text: ours padded = ours alone = transformers' own, to rounding.

`python tests/test_model_types.py` prints the differences as a table.
"""

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from d3m_ray.errors import InputError
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.cpu_encoder import UnpaddedEncoder, only_logits
from d3m_ray.training.model import build_classifier, load_weights, logits_of
from d3m_ray.training.preparation import try_model
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.vocabulary import trim_vocabulary

PADDING, START, END, FIRST_WORD, VOCABULARY = 0, 1, 2, 5, 100
ROUNDING = 1e-5

# What the fields of configurations are called, and how small they are made.
SMALL: Mapping[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "embed_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads", "num_decoder_layers"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "sliding_window"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "dff", "hidden_dim", "n_inner", "d_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx"), 64),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "num_decoder_layers"), 2),
    "vocab_size": VOCABULARY,
    "pad_token_id": PADDING,
    "bos_token_id": START,
    "eos_token_id": END,
    "cls_token_id": START,
    "sep_token_id": END,
    "decoder_start_token_id": START,
}
ALL_HEADS = {"num_key_value_heads": 4}  # latent attention, where a key head serves one query head
STARTED = {"decoder_start_token_id": PADDING}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
MAMBA = {"use_mamba_kernels": False, "mamba_d_state": 4}
HYBRID = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "hybrid"] * 2, **ALL_HEADS}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "pad_token_id": PADDING,
}  # fmt: skip
GROUPED_TEXT = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
IMAGE = {"image_size": 14, "patch_size": 7, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = IMAGE | {"hidden_size": 16, "intermediate_size": 16}

# What a type wants besides, or must not be as small in.
BESIDES: Mapping[str, Mapping[str, Any]] = {
    "axk1": ALL_HEADS | {"n_group": 1, "topk_group": 1},
    "axk2": ALL_HEADS,
    "canine": {
        "downsampling_rate": 2, "local_transformer_stride": 8, "num_hash_buckets": 50, "upsampling_kernel_size": 2,
    },
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE},
    },
    "deepseek_v2": ALL_HEADS,
    "deepseek_v3": ALL_HEADS,
    "esmc": ALL_HEADS,
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_head": 8},
    "gemma3": {"text_config": GROUPED_TEXT | {"layer_types": ["full_attention"] * 2}, "vision_config": VISION},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"rotary_dim": 4},
    "jamba": MAMBA | {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "mamba_dt_rank": 4,
    },
    "layoutlm": {"max_2d_position_embeddings": 20},
    "layoutlmv3": {"coordinate_size": 5, "shape_size": 6, "visual_embed": False, "max_2d_position_embeddings": 20},
    "lilt": {"hidden_size": 48, "channel_shrink_ratio": 4},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "markuplm": {
        "max_xpath_tag_unit_embeddings": 20, "max_xpath_subs_unit_embeddings": 20, "max_depth": 4,
        "xpath_unit_hidden_size": 4, "tag_pad_id": 19, "subs_pad_id": 19,
    },
    "minicpm3": ALL_HEADS,
    "mistral4": ALL_HEADS | {
        "rope_parameters": ROPE | {
            "partial_rotary_factor": 0.5, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64,
        }
    },
    "modernvbert": {
        "text_config": TEXT | dict.fromkeys(("cls_token_id", "bos_token_id"), START)
        | dict.fromkeys(("sep_token_id", "eos_token_id"), END),
        "vision_config": VISION,
    },
    "mt5": STARTED,
    "perceiver": {
        "num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 1, "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4, "num_blocks": 1,
    },
    "qwen3_5": {
        "text_config": GROUPED_TEXT | LINEAR,
        "vision_config": VISION | {"depth": 1, "num_heads": 2, "out_hidden_size": 32},
    },
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "reformer": {
        "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8], "attn_layers": ["local", "lsh"],
        "attention_head_size": 8, "feed_forward_size": 48, "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4,
        "num_buckets": 2, "is_decoder": False, "num_hashes": 1,
    },
    "roc_bert": {
        "shape_vocab_size": 20, "pronunciation_vocab_size": 20, "shape_embed_dim": 8, "pronunciation_embed_dim": 8,
    },
    "t5": STARTED,
    "t5gemma": {
        "encoder": GROUPED_TEXT | {"layer_types": ["full_attention"] * 2},
        "decoder": GROUPED_TEXT | {"layer_types": ["full_attention"] * 2, "cross_attention_hidden_size": 32},
    },
    "ultravbert": {"text_config": TEXT, "vision_config": VISION},
    "umt5": STARTED,
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": MAMBA | HYBRID | {"attention_head_dim": 16, "mamba_dt_rank": 4},
    "zamba2": MAMBA | HYBRID | {
        "layers_block_type": ["mamba", "hybrid"] * 2, "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_ngroups": 1,
        "num_mem_blocks": 1,
    },
}  # fmt: skip

NOT_OF_TEXT = {
    "layoutlmv2": "takes images, and a library that is not here to look at them",
    "t5gemma2": "takes images beside the text",
}
"""Types that are not built here, and why."""

READS_NEIGHBOURS = {
    "canine": "strided attention and pooling over characters run past a text's end",
    "convbert": "its convolution over tokens does not stop at a text's end",
    "fnet": "its Fourier transform has no mask",
    "nystromformer": "its landmarks are means over padding too",
    "reformer": "its hashes are drawn at random, others each time",
    "t5gemma": "its classifier reads one place further where there is padding",
    "xlnet": "its classifier reads the last place, padded or not",
    "yoso": "its convolution multiplies by a mask that is made to be added",
}
"""Types whose logits in transformers itself change with a text's neighbours in the batch: refused at the start."""

TYPES = [name for name in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES if name not in NOT_OF_TEXT]
QUICK = ("bert", "mpnet", "roformer", "gpt2", "gpt_neox", "llama", "gemma2", "t5", "fnet", "xlnet")


def small_config(model_type: str) -> PretrainedConfig:
    """A configuration of the type with every size that is known made small, and no dropout."""
    fields = AutoConfig.for_model(model_type).to_dict()
    options = {name: size for name, size in SMALL.items() if isinstance(fields.get(name, []), int | None)}
    options |= {
        name: 0.0 for name, value in fields.items() if ("drop" in name or "pdrop" in name) and isinstance(value, float)
    }
    return AutoConfig.for_model(model_type, **{**options, **BESIDES.get(model_type, {})}, num_labels=2)


def small_model(model_type: str) -> tuple[PreTrainedModel, PretrainedModel]:
    """transformers' own model, eager, and the same as a base model; every weight tells, but for those of padding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stock = AutoModelForSequenceClassification.from_config(small_config(model_type), attn_implementation="eager")
        padding = [m for m in stock.modules() if isinstance(m, torch.nn.Embedding) and m.padding_idx is not None]
        rows = [m.weight[m.padding_idx].detach().clone() for m in padding]
        with torch.no_grad():
            for parameter in stock.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            for module, row in zip(padding, rows, strict=True):
                module.weight[module.padding_idx] = row
    config = {**stock.config.to_dict(), "model_type": stock.config.model_type}
    weights = {name: value.numpy().copy() for name, value in stock.state_dict().items()}
    return stock.eval(), PretrainedModel(model_type, config, weights, ())


def made_texts(lengths: Sequence[int] = (9, 5, 1)) -> TokenizedExamples:
    """Texts of so many words each, between a start and an end."""
    rng = np.random.default_rng(0)
    rows = [[START, *rng.integers(FIRST_WORD, VOCABULARY, length), END] for length in lengths]
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    labels = np.arange(len(rows)) % 2
    return TokenizedExamples("train", np.concatenate(rows).astype(np.int32), offsets, labels, labels, PADDING)


def _logits(model: PreTrainedModel, texts: TokenizedExamples, together: bool) -> torch.Tensor:
    places = [np.arange(len(texts))] if together else [np.array([i]) for i in range(len(texts))]
    with torch.no_grad():
        return torch.cat([logits_of(model, texts.batch(place)) for place in places])


def _gradients_apart(
    ours: PreTrainedModel, stock: PreTrainedModel, texts: TokenizedExamples, inside: Callable[[], Any]
) -> float:
    with inside():
        own = _gradients(ours, texts)
    theirs = _gradients(stock, texts)
    assert own.keys() == theirs.keys()
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    return max(float((own[name] - theirs[name]).abs().max()) for name in own) / largest


def _gradients(model: PreTrainedModel, texts: TokenizedExamples) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits_of(model, texts.batch(np.arange(len(texts)))).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@dataclasses.dataclass(frozen=True)
class Differences:
    """Of one type, as shares of the largest logit, or of a parameter's largest gradient."""

    attention: str
    ours_padded_to_alone: float
    ours_to_stock_alone: float
    stock_padded_to_alone: float
    gradients: float
    gradients_of_logits_alone: float
    logits_alone: float
    trimmed: float


def differences(model_type: str) -> Differences:
    """What our model makes of the same texts padded, alone, over the vocabulary in use, and transformers' own."""
    stock, pretrained = small_model(model_type)
    ours = build_classifier(pretrained).eval()
    load_weights(ours, pretrained.weights)
    texts = made_texts()
    reference = _logits(stock, texts, together=False)

    def apart(left: torch.Tensor, right: torch.Tensor) -> float:
        return float((left - right).abs().max() / reference.abs().max())

    alone = _logits(ours, texts, together=False)
    trimmed_base, trimmed_texts = trim_vocabulary(pretrained, {"train": texts})
    trimmed = build_classifier(trimmed_base).eval()
    load_weights(trimmed, trimmed_base.weights)
    with only_logits():
        logits_alone = _logits(ours, texts, together=True)
    apart_by = {"gradients": contextlib.nullcontext, "gradients_of_logits_alone": only_logits}
    return Differences(
        attention=ours.config._attn_implementation,
        ours_padded_to_alone=apart(_logits(ours, texts, together=True), alone),
        ours_to_stock_alone=apart(alone, reference),
        stock_padded_to_alone=apart(_logits(stock, texts, together=True), reference),
        **{
            name: float("nan") if model_type in READS_NEIGHBOURS else _gradients_apart(ours, stock, texts, inside)
            for name, inside in apart_by.items()
        },
        logits_alone=apart(logits_alone, alone),
        trimmed=apart(_logits(trimmed, trimmed_texts["train"], together=False), alone),
    )


def _marked(model_type: str) -> Any:
    return model_type if model_type in QUICK else pytest.param(model_type, marks=pytest.mark.slow)


@pytest.mark.filterwarnings("ignore")  # what old architectures warn of is not ours to change
@pytest.mark.parametrize("model_type", [_marked(name) for name in TYPES])
def test_margins_are_those_of_the_text_alone_in_transformers(model_type):
    if model_type in READS_NEIGHBOURS:
        _, pretrained = small_model(model_type)
        why = "draws at random" if "random" in READS_NEIGHBOURS[model_type] else "reads the padding"
        with pytest.raises(InputError, match=why):
            try_model(pretrained, {"train": made_texts()}, max_length=11)
        return
    found = differences(model_type)
    assert max(dataclasses.astuple(found)[1:]) < ROUNDING, found
    try_model(small_model(model_type)[1], {"train": made_texts()}, max_length=11)


# Every type whose layers are BERT's alone and whose head reads the first token; the others compute all of every layer.
UNPADDED = {
    "bert", "camembert", "data2vec-text", "electra", "ernie", "roberta", "roc_bert", "xlm-roberta",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_types_that_are_trained_without_padding():
    built = {name: build_classifier(small_model(name)[1]) for name in TYPES}
    found = {name for name, model in built.items() if any(isinstance(m, UnpaddedEncoder) for m in model.modules())}
    assert found == UNPADDED


def test_a_type_that_asks_for_more_than_text_is_refused_with_what_it_says():
    _, pretrained = small_model("xmod")
    without = dataclasses.replace(pretrained, config={**pretrained.config, "default_language": None})
    with pytest.raises(InputError, match=r"xmod \(xmod\) does not: ValueError: Input language unknown"):
        try_model(without, {"train": made_texts()}, max_length=11)


@pytest.mark.parametrize("model_type", ["deberta", "xmod"])
def test_a_type_whose_code_fails_in_bfloat16_is_refused_in_it_before_any_fit(model_type):
    _, pretrained = small_model(model_type)
    said = rf"{model_type}\) does not in bfloat16: RuntimeError: .*; take --precision float32"
    with pytest.raises(InputError, match=said):
        try_model(pretrained, {"train": made_texts()}, max_length=11, precision="bfloat16")


def test_the_page_names_what_is_refused():
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
    assert all(f"- {name}: {why}\n" in page for name, why in {**READS_NEIGHBOURS, **NOT_OF_TEXT}.items())


def test_what_is_left_out_or_refused_is_there():
    assert {*NOT_OF_TEXT, *READS_NEIGHBOURS, *BESIDES, *QUICK} <= set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)


def table() -> str:
    """The differences of every type, in Markdown."""
    rows = ["| model type | attention | ours padded - alone | ours - stock, alone | stock padded - alone | gradients |"]
    rows.append("|---|---|---|---|---|---|")
    for model_type in TYPES:
        found = differences(model_type)
        numbers = " | ".join(f"{number:.0e}" for number in dataclasses.astuple(found)[1:5])
        note = f": refused, {READS_NEIGHBOURS[model_type]}" if model_type in READS_NEIGHBOURS else ""
        rows.append(f"| {model_type}{note} | {found.attention} | {numbers} |")
    rows += [f"| {name}: not built, {why} |||||" for name, why in NOT_OF_TEXT.items()]
    return "\n".join(itertools.chain(rows))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(table())  # noqa: T201
