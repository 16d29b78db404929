"""A pretrained model and the splits in its tokens, tried on real texts: what would go wrong in a fit is refused.

Shapes: B texts of a batch, C labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from d3m_ray.errors import InputError
from d3m_ray.keys import content_hash
from d3m_ray.records import Splits
from d3m_ray.training.batching import Batch, TokenizedExamples, tokenize
from d3m_ray.training.model import build_classifier, load_pretrained, load_weights, logits_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import Precision
from d3m_ray.training.vocabulary import (
    check_ids,
    check_inputs,
    check_tokenizer,
    check_words,
    tokenizer_hash,
    trim_vocabulary,
    with_padding,
)

WARNED_CUT_SHARE = 0.05  # of a split's texts
ROUNDING = 1e-4  # of the largest logit: float32 stays below a hundredth of it, every type that mixes texts is above
TRIED_LENGTH = 1024  # tokens of a made text at most: beyond, only models without a table of positions go on


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """What all fits of an experiment start from."""

    pretrained: PretrainedModel
    """Over the vocabulary entries in use."""
    tokens: Mapping[str, TokenizedExamples]
    content_hash: str
    """Of the whole model and its tokenizer."""
    warnings: tuple[str, ...]
    """What a person should know of the model on this corpus, a sentence each."""


def prepare_model(name_or_dir: str, splits: Splits, max_length: int, precision: Precision = "float32") -> PreparedModel:
    """Load the model, tokenise the splits, and try the two on the longest and the shortest text.

    Raises InputError where the model cannot be loaded, its tokenizer does not fit it or the corpus, `max_length` is
    more than it reads, where it fails in the precision, or a text's logits depend on what stands beside it in a batch.
    """
    loaded, tokenizer = load_pretrained(name_or_dir, splits.train.texts, splits.num_labels)
    of_tokenizer = tokenizer_hash(tokenizer)  # before it is called, which leaves the truncation asked for in it
    check_tokenizer(loaded.name, tokenizer)
    whole, pad_id = with_padding(loaded, tokenizer)
    whole_tokens = {
        name: tokenize(examples, tokenizer, max_length, splits.num_labels, pad_id)
        for name, examples in splits.by_name().items()
    }
    check_inputs(whole, tokenizer, splits.train.texts, max_length)
    check_ids(whole, tokenizer, whole_tokens)
    unknown = check_words(whole, tokenizer, splits, whole_tokens)
    warnings = [*whole.warnings, *unknown, *_cut(whole_tokens, max_length)]
    logits = try_model(whole, whole_tokens, max_length, precision)
    pretrained, tokens = trim_vocabulary(whole, whole_tokens)
    # An architecture may read ids in a way of its own: then every entry stays.
    if pretrained is not whole and not _equal(_alone(_classifier(pretrained), tokens), logits):
        pretrained, tokens = whole, whole_tokens
    of_model = content_hash(whole.content_hash(), of_tokenizer)
    return PreparedModel(pretrained, tokens, of_model, tuple(warnings))


def _cut(tokens: Mapping[str, TokenizedExamples], max_length: int) -> list[str]:
    """A sentence where many texts of a split are as long as a text may be, so that their ends are not read."""
    shares = {name: float((split.lengths >= max_length).mean()) for name, split in tokens.items()}
    long = [f"{share:.0%} of the texts of {name}" for name, share in shares.items() if share > WARNED_CUT_SHARE]
    if not long:
        return []
    return [f"{', '.join(long)} reach --max-length {max_length}: what stands beyond is not read"]


def try_model(
    pretrained: PretrainedModel,
    tokens: Mapping[str, TokenizedExamples],
    max_length: int,
    precision: Precision = "float32",
) -> torch.Tensor:
    """[2, C] logits of the longest and the shortest text, the same alone and together; also reads `max_length` tokens.

    Logits are float32, whatever the precision, in which it computes too.

    Raises InputError, with the reason, where it fails, or where a text's logits depend on its neighbours.
    """
    logits_of_batch = _classifier(pretrained)
    texts = _longest_and_shortest(tokens)
    kind = f"{pretrained.name} ({pretrained.config['model_type']})"
    try:
        alone = _alone(logits_of_batch, tokens)
        together = logits_of_batch(_batch(texts, tokens))
    except Exception as error:  # whatever an architecture that is not known here raises
        _check_length(logits_of_batch, texts[0], tokens, len(texts[0]), kind)
        raise InputError(
            f"--model classifies a text by its tokens alone, and {kind} does not: {_one_line(error)}; take another"
        ) from error
    if not torch.isfinite(alone).all():
        raise InputError(f"--model gives finite logits, and {kind} gives {alone.tolist()}: its weights are damaged")
    if not _equal(together, alone):
        once_more = _alone(logits_of_batch, tokens)
        why = "reads the padding" if _equal(once_more, alone) else "draws at random in each pass"
        raise InputError(
            f"--model gives a text the same logits whatever stands beside it in a batch, and {kind} {why}: "
            f"they differ by {(together - alone).abs().max():.2g} of {alone.abs().max():.2g}; take another"
        )
    _check_length(logits_of_batch, texts[0], tokens, max_length, kind)
    _check_precision(logits_of_batch, _batch(texts, tokens), precision, kind)
    return alone


def _check_precision(
    logits_of_batch: Callable[[Batch], torch.Tensor], batch: Batch, precision: Precision, kind: str
) -> None:
    """Raises InputError where the model computes in float32 alone: some fill in numbers that bfloat16 cannot hold."""
    try:
        with autocast("cpu", precision):
            logits = logits_of_batch(batch)
        why = None if torch.isfinite(logits).all() else f"its logits are {logits.tolist()}"
    except Exception as error:  # whatever an architecture that is not known here raises
        why = _one_line(error)
    if why is not None:
        raise InputError(
            f"--precision is one that --model computes in, and {kind} does not in {precision}: {why}; take --precision "
            "float32"
        )


def _classifier(pretrained: PretrainedModel) -> Callable[[Batch], torch.Tensor]:
    """Gives the [B, C] logits of a batch."""
    model = build_classifier(pretrained).eval()
    load_weights(model, pretrained.weights)

    def logits(batch: Batch) -> torch.Tensor:
        with torch.inference_mode():
            return logits_of(model, batch)

    return logits


def _alone(logits_of_batch: Callable[[Batch], torch.Tensor], tokens: Mapping[str, TokenizedExamples]) -> torch.Tensor:
    """[2, C] logits of the longest and the shortest text, each in a batch of its own."""
    return torch.cat([logits_of_batch(_batch([text], tokens)) for text in _longest_and_shortest(tokens)])


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool((left - right).abs().max() <= ROUNDING * right.abs().max())


def _longest_and_shortest(tokens: Mapping[str, TokenizedExamples]) -> list[np.ndarray]:
    """Token ids of the first of the longest texts of all splits, and of the first of the shortest."""
    rows: list[np.ndarray] = []
    for choose in (max, min):
        name = choose((name for name in tokens if len(tokens[name])), key=lambda n: choose(tokens[n].lengths))
        split = tokens[name]
        place = int(np.flatnonzero(split.lengths == choose(split.lengths))[0])
        rows.append(split.flat_ids[split.offsets[place] : split.offsets[place + 1]])
    return rows


def _batch(rows: Sequence[np.ndarray], tokens: Mapping[str, TokenizedExamples]) -> Batch:
    """The texts in one batch, padded as the splits' batches are."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    nothing = np.zeros(len(rows), dtype=np.int64)
    pad_id = next(iter(tokens.values())).pad_id
    examples = TokenizedExamples("train", np.concatenate(rows), offsets, nothing, nothing, pad_id)
    return examples.batch(np.arange(len(rows)))


def _check_length(
    logits_of_batch: Callable[[Batch], torch.Tensor],
    text: np.ndarray,
    tokens: Mapping[str, TokenizedExamples],
    max_length: int,
    kind: str,
) -> None:
    """Raises InputError, with the most that it reads, where the model fails on a text of `max_length` tokens."""

    def reads(length: int) -> bool:
        # Special tokens stand where they stood, at the ends; what is between them goes round.
        inner = np.resize(text[1:-1] if len(text) > 2 else text, max(length - 2, 0))
        try:
            logits_of_batch(_batch([np.concatenate([text[:1], inner, text[-1:]])[:length]], tokens))
        except Exception:
            return False
        return True

    tried = min(max_length, max(TRIED_LENGTH, len(text)))
    if reads(tried):
        return
    low, high = 0, tried  # reads(low) or low is 0; not reads(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reads(middle) else (low, middle)
    if low > 0:
        raise InputError(f"--max-length is at most {low} tokens for --model {kind}, received {max_length}")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
