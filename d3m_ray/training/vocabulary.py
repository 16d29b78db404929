"""Token ids that a model can read: the padding token, what a tokenizer does not know, and the entries in use.

Shapes: V vocabulary entries.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from d3m_ray.errors import InputError
from d3m_ray.keys import content_hash
from d3m_ray.records import Splits
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.model import build_classifier
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.wording import counted

MIN_WORDS = 2  # entries that are no special tokens; what transformers builds without a vocabulary file has none, or "▁"
TRIED_TEXTS = 200  # that are tokenised twice: enough for a dropout of a tenth to show
WARNED_UNKNOWN_SHARE = 0.05  # of a split's tokens
MOST_UNKNOWN_SHARE = 0.5  # of train's tokens: the tokenizer is of another language or script


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Text or hash that tells two tokenizers apart by what they make of a text, wherever they lie."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return backend.to_str()
    options = {name: value for name, value in tokenizer.init_kwargs.items() if isinstance(value, bool | int | None)}
    parts = (type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.special_tokens_map, options)
    files = [getattr(tokenizer, name, None) for name in tokenizer.vocab_files_names]  # merges are no vocabulary
    contents = [Path(file).read_bytes() for file in files if isinstance(file, str) and Path(file).is_file()]
    return content_hash(*(json.dumps(part, sort_keys=True) for part in parts), *contents)


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises InputError where the tokenizer has hardly any words, as one has whose files are missing."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    num_words = len(set(tokenizer.get_vocab().values()) - special)
    if num_words < MIN_WORDS:
        raise InputError(
            f"--model holds a tokenizer with the words that the model was trained on; that of {name} has {num_words} "
            f"besides special tokens, as where tokenizer.json is missing: save it there (tokenizer.save_pretrained)"
        )


def with_padding(pretrained: PretrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[PretrainedModel, int]:
    """The model with a padding token in its configuration, and its id: the model's own, else the tokenizer's.

    The model's comes first, since classifiers of decoders find a text's last token by it, and RoBERTa's positions are
    counted from it. Raises InputError where neither has one.
    """
    config = pretrained.config
    own = config.get("pad_token_id")
    if isinstance(own, int) and own >= 0:
        return pretrained, own
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"--model has a padding token, since texts of a batch differ in length; {pretrained.name} has none in "
            "config.json (pad_token_id) and its tokenizer none: set one that no text holds, often the text end, in both"
        )
    padded = dataclasses.replace(pretrained, config={**config, "pad_token_id": int(tokenizer.pad_token_id)})
    return padded, int(tokenizer.pad_token_id)


def check_inputs(
    pretrained: PretrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> None:
    """Raises InputError where the tokenizer gives the model more than token ids, or other ones each time.

    Segments that are all zero are what a model takes when it is given none.
    """
    some = list(texts[:TRIED_TEXTS])
    encoded, again = (tokenizer(some, truncation=True, max_length=max_length) for _ in range(2))
    if encoded["input_ids"] != again["input_ids"]:
        raise InputError(
            f"--model has a tokenizer that gives a text the same tokens each time, and that of {pretrained.name} draws "
            "them at random: take the dropout out of tokenizer.json"
        )
    told = [name for name, rows in encoded.items() if any(map(np.any, rows))]
    more = sorted(set(told) - {"input_ids", "attention_mask"})
    if more:
        raise InputError(
            f"--model reads token ids alone, and the tokenizer of {pretrained.name} gives {', '.join(more)} besides: "
            "take another model"
        )


def check_ids(
    pretrained: PretrainedModel, tokenizer: PreTrainedTokenizerBase, splits: Mapping[str, TokenizedExamples]
) -> None:
    """Raises InputError where the splits' tokens are none that the model can read right.

    That is where a text has no token, a token id lies beyond the model's table, texts hold the padding token elsewhere
    than at all of their ends, or some have more end tokens than others and the model's classifier counts them (BART,
    T5).
    """
    for name, split in splits.items():
        if len(split) and split.lengths.min() == 0:
            raise InputError(
                f"every text has a token; the tokenizer of {pretrained.name} makes none of "
                f"{counted(int((split.lengths == 0).sum()), 'text')} of {name}: leave those out, or take "
                "another --model"
            )
    ids = np.unique(np.concatenate([split.flat_ids for split in splits.values()]))
    rows = pretrained.config.get("vocab_size")
    pad_id = next(iter(splits.values())).pad_id
    if isinstance(rows, int) and len(ids) and max(ids[-1], pad_id) >= rows:
        raise InputError(
            f"token ids are below the model's vocabulary size, {rows} for {pretrained.name}, and its tokenizer gives "
            f"{max(ids[-1], pad_id)}: the two do not belong together, or the model's embeddings were never resized"
        )
    if pad_id in ids:
        _check_padding(pretrained, tokenizer, splits, pad_id)
    end_id = pretrained.config.get("eos_token_id")
    if pretrained.config.get("is_encoder_decoder") and isinstance(end_id, int):
        _check_ends(pretrained, end_id, splits)


def _check_padding(
    pretrained: PretrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, TokenizedExamples],
    pad_id: int,
) -> None:
    """Raises InputError where a text holds the padding token, but for one at the end of each, as with GPT-2's."""
    for name, split in splits.items():
        ends = split.flat_ids[split.offsets[1:] - 1] == pad_id
        counts = np.add.reduceat(split.flat_ids == pad_id, split.offsets[:-1], dtype=np.int64) if len(split) else ends
        odd = np.flatnonzero(~((counts == 1) & ends)) if ends.all() else np.flatnonzero(counts)
        if len(odd):
            token = tokenizer.convert_ids_to_tokens(pad_id)
            raise InputError(
                f"padding is a token that texts do not hold: a model takes it for no word; that of {pretrained.name} "
                f"is {token!r} (id {pad_id}; its tokenizer's is {tokenizer.pad_token!r}), and text {int(odd[0])} of "
                f"{name} holds it, one of {len(odd)} there: give config.json and the tokenizer a pad_token of their "
                "own, or take the token's spelling out of the texts"
            )


def _check_ends(pretrained: PretrainedModel, end_id: int, splits: Mapping[str, TokenizedExamples]) -> None:
    counts = {
        name: np.add.reduceat(split.flat_ids == end_id, split.offsets[:-1], dtype=np.int64)
        for name, split in splits.items()
        if len(split)
    }
    usual = int(np.median(np.concatenate([*counts.values()])))
    odd = [
        f"the text {int(np.flatnonzero(c != usual)[0])} of {name}" for name, c in counts.items() if (c != usual).any()
    ]
    if odd or usual == 0:
        raise InputError(
            f"every text has as many end tokens (id {end_id}) as the others, since the classifier of {pretrained.name} "
            f"reads the last; most have {usual}, others {', '.join(odd) or 'too'}: take the token's spelling out of "
            "the texts"
        )


def check_words(
    pretrained: PretrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Splits,
    tokens: Mapping[str, TokenizedExamples],
) -> list[str]:
    """What a person should know: a sentence for each split of which many tokens are unknown to the tokenizer.

    Raises InputError where most of those of train are.
    """
    told = []
    for name, examples in splits.by_name().items():
        share = _unknown_share(tokenizer, examples.texts, tokens[name])
        sentence = f"{share:.0%} of the {name} tokens are unknown to the tokenizer of {pretrained.name}"
        if share > MOST_UNKNOWN_SHARE and name == "train":
            raise InputError(
                f"--model knows the words of the corpus, and {sentence} ({tokenizer.unk_token}): take a model of the "
                "corpus' language, or save the model's own tokenizer in its folder"
            )
        if share > WARNED_UNKNOWN_SHARE:
            told.append(f"{sentence}, so texts lose what those words say")
    return told


def _unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokens: TokenizedExamples) -> float:
    """Of the tokens that are no special ones."""
    unknown_id = tokenizer.unk_token_id
    if unknown_id is None:
        return 0.0
    special = set(tokenizer.all_special_ids) - {unknown_id}
    ids = tokens.flat_ids
    if list(tokenizer.special_tokens_map.values()).count(tokenizer.unk_token) > 1:
        # The token stands for padding or an end as well (GPT-2, Llama): only without these it is an unknown word.
        rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    words = ids[~np.isin(ids, [*special])]
    return float((words == unknown_id).mean()) if len(words) else 0.0


def trim_vocabulary(
    pretrained: PretrainedModel, splits: Mapping[str, TokenizedExamples]
) -> tuple[PretrainedModel, dict[str, TokenizedExamples]]:
    """The same model and token ids over only the vocabulary entries that the splits, or the special tokens, use.

    Exact for every prediction on these splits: an entry that no example uses has a zero gradient and is never read.
    It spares AdamW the rows that never change, half of a small BERT's parameters. The padding id keeps its place where
    the position table is laid out from it (RoBERTa).
    """
    num_rows = pretrained.config.get("vocab_size")
    tables = _token_tables(pretrained)
    if num_rows is None or not tables:  # none to be found by itself: leave the model whole rather than guess
        return pretrained, dict(splits)
    pad_id = next(iter(splits.values())).pad_id
    special = {key: value for key, value in pretrained.config.items() if key.endswith("token_id")}
    used = _used_ids(splits, [i for value in special.values() for i in _as_list(value) if 0 <= i < num_rows], pad_id)
    new_ids = np.zeros(num_rows, dtype=np.int32)
    new_ids[used] = np.arange(len(used), dtype=np.int32)
    moved = {key: _renumber(value, new_ids) for key, value in special.items()}
    config = {**pretrained.config, **moved, "vocab_size": len(used)}
    weights = {**pretrained.weights, **{table: pretrained.weights[table][used] for table in tables}}
    trimmed = {
        name: dataclasses.replace(split, flat_ids=new_ids[split.flat_ids], pad_id=int(new_ids[pad_id]))
        for name, split in splits.items()
    }
    return dataclasses.replace(pretrained, config=config, weights=weights), trimmed


def _used_ids(splits: Mapping[str, TokenizedExamples], special: Sequence[int], pad_id: int) -> np.ndarray:
    """[V] int64: old token ids in the order of the new ones, rising but for the padding's, which keeps its number."""
    used = np.unique(np.concatenate([*(split.flat_ids for split in splits.values()), special, [pad_id]]))
    used = used.astype(np.int64)
    if pad_id < len(used):
        place = int(np.searchsorted(used, pad_id))
        used[place], used[pad_id] = used[pad_id], used[place]
    return used


def _as_list(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [each for each in values if isinstance(each, int)]


def _renumber(value: Any, new_ids: np.ndarray) -> Any:
    """The same special token, or list of them (the ends of a text of Llama 3), by its new id."""
    if isinstance(value, list | tuple):
        return [_renumber(each, new_ids) for each in value]
    return int(new_ids[value]) if isinstance(value, int) and 0 <= value < len(new_ids) else value


def _token_tables(pretrained: PretrainedModel) -> list[str]:
    """Names of the table of token embeddings, several where weights are tied; none where another has as many rows."""
    num_rows = pretrained.config.get("vocab_size")
    try:
        with torch.device("meta"):  # shapes and ties alone
            model = build_classifier(pretrained, "meta")
        table = model.get_input_embeddings().weight
    except (NotImplementedError, AttributeError, RuntimeError):  # as transformers says that there is none
        return []
    parameters = dict(model.named_parameters(remove_duplicate=False))
    as_long = {name for name, value in pretrained.weights.items() if value.shape[:1] == (num_rows,)}  # I-BERT has two
    tables = [name for name, parameter in parameters.items() if parameter is table]
    return tables if as_long == set(tables) else []
