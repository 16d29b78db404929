"""Token ids without padding, and length-grouped batches under a token budget.

Shapes: N examples, T tokens of the longest example of a batch, B examples of a batch.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from d3m_ray.errors import InputError
from d3m_ray.records import BINARY_LABELS, Examples, cells_of, read_only

SORT_WINDOW_BATCHES = 25  # batches that are sorted by length together: like lengths, and still a fresh mix each epoch


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    pad_token_id: int | None

    def __call__(self, text: list[str], **options: object) -> dict[str, list[list[int]]]: ...


@dataclass(frozen=True, eq=False)
class TokenizedExamples:
    """Token ids of N examples of one split, end to end, with their labels: numpy, so that workers share one copy.

    Arrays are read-only, as a worker of Ray has them: every fit and method of an experiment reads the same ones.

    `split` says what the examples may be used for; `flat_ids` is [sum of lengths] int32, `offsets` [N + 1] int64,
    `labels` and `groups` are [N] int64.
    """

    split: str
    flat_ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    pad_id: int
    num_labels: int = len(BINARY_LABELS)
    """L, of the corpus: a split need not have all of them."""

    def __post_init__(self) -> None:
        for name in ("flat_ids", "offsets", "labels", "groups"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64 token counts."""
        return np.diff(self.offsets)

    @property
    def cells(self) -> np.ndarray:
        """[N] int64: each example's cell."""
        return cells_of(self.groups, self.labels, self.num_labels)

    def take(self, indices: np.ndarray) -> "TokenizedExamples":
        """The examples at these positions, in the order given."""
        rows = [self.flat_ids[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        return dataclasses.replace(
            self,
            flat_ids=np.concatenate([self.flat_ids[:0], *rows]),
            offsets=_offsets(rows),
            labels=self.labels[indices],
            groups=self.groups[indices],
        )

    def batch(self, indices: np.ndarray, device: torch.device | str = "cpu", num_tokens: int | None = None) -> "Batch":
        """The examples at these positions, padded on the right to `num_tokens`; left out, to the longest of them.

        Another device than the CPU is given the tokens once, and for a batch the positions alone.
        """
        lengths = self.lengths[indices]
        width = int(lengths.max()) if num_tokens is None else num_tokens
        is_padded = bool((lengths < width).any())
        if torch.device(device).type != "cpu":
            return _examples_on(self, torch.device(device)).batch(on_device(indices, device), width, is_padded)
        input_ids = np.full((len(indices), width), self.pad_id, dtype=np.int64)
        for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            input_ids[row, :length] = self.flat_ids[self.offsets[index] : self.offsets[index] + length]
        attention_mask = np.arange(width) < lengths[:, None]
        return Batch(
            input_ids=torch.from_numpy(input_ids).to(device),
            attention_mask=torch.from_numpy(attention_mask.astype(np.int64)).to(device),
            labels=torch.from_numpy(self.labels[indices]).to(device),
            is_padded=is_padded,
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded tensors of B examples: `input_ids` and `attention_mask` [B, T] int64, `labels` [B] int64."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    is_padded: bool = True
    """Whether an example may be shorter than the batch is wide: known without reading the mask, for which a GPU waits.
    """


class DeviceExamples:
    """The tokens and labels of a split on a device, where batches are padded without a copy from the host."""

    def __init__(self, examples: TokenizedExamples, device: torch.device) -> None:
        self._ids = torch.tensor(examples.flat_ids, device=device)
        self._starts = torch.tensor(examples.offsets[:-1], device=device)
        self._lengths = torch.tensor(examples.lengths, device=device)
        self._labels = torch.tensor(examples.labels, device=device)
        self._pad_id = examples.pad_id

    def batch(self, positions: torch.Tensor, width: int, is_padded: bool) -> Batch:
        """The examples at these positions [B], of at most `width` tokens each, padded on the right to as many."""
        columns = torch.arange(width, device=positions.device)
        seen = columns < self._lengths[positions][:, None]
        places = (self._starts[positions][:, None] + columns).clamp_(max=len(self._ids) - 1)
        input_ids = torch.where(seen, self._ids[places].long(), self._pad_id)
        return Batch(input_ids, seen.long(), self._labels[positions], is_padded)


# Gone with the examples themselves.
_on_devices: WeakKeyDictionary[TokenizedExamples, dict[torch.device, DeviceExamples]] = WeakKeyDictionary()


def _examples_on(examples: TokenizedExamples, device: torch.device) -> DeviceExamples:
    there = _on_devices.setdefault(examples, {})
    if device not in there:
        there[device] = DeviceExamples(examples, device)
    return there[device]


def on_device(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """The array as a tensor there. A GPU fetches it by itself, from memory that stays in place, and nobody waits."""
    tensor = torch.from_numpy(np.array(array))
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def put_rows(out: np.ndarray, batches: Sequence[np.ndarray], parts: Sequence[torch.Tensor]) -> None:
    """Put what each batch gave, [B, ...], into the rows of `out` that it is of: copied from a device once for all."""
    if parts:
        out[np.concatenate(batches)] = torch.cat(list(parts)).cpu().numpy()


def tokenize(
    examples: Examples,
    tokenizer: Tokenizer,
    max_length: int,
    num_labels: int = len(BINARY_LABELS),
    pad_id: int | None = None,
) -> TokenizedExamples:
    """Token ids of the texts, special tokens included, cut at `max_length` tokens; `pad_id` left out, the tokenizer's.

    Raises InputError where that has none: id 0 is a word of most vocabularies.
    """
    pad_id = tokenizer.pad_token_id if pad_id is None else pad_id
    if pad_id is None:
        raise InputError("a tokenizer has a padding token, since texts of a batch differ in length; this one has none")
    encoded = (
        tokenizer(list(examples.texts), truncation=True, max_length=max_length) if len(examples) else {"input_ids": []}
    )
    rows = [np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]]
    return TokenizedExamples(
        split=examples.split,
        flat_ids=np.concatenate([np.zeros(0, np.int32), *rows]),
        offsets=_offsets(rows),
        labels=examples.labels,
        groups=examples.groups,
        pad_id=pad_id,
        num_labels=num_labels,
    )


def _offsets(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)


def training_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """One epoch of shuffled batches of like length, as index arrays.

    The examples are shuffled, sorted by length within windows of `SORT_WINDOW_BATCHES` batches, cut into batches of
    `batch_size`, and the batches shuffled. Only the smallest batch of an epoch can be short.
    """
    order = rng.permutation(len(lengths))
    window = batch_size * SORT_WINDOW_BATCHES
    chunks = [order[start : start + window] for start in range(0, len(order), window)]
    chunks = [chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in chunks]
    batches = [chunk[i : i + batch_size] for chunk in chunks for i in range(0, len(chunk), batch_size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def budget_batches(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Every example once, longest first, in batches of at most `max_tokens` tokens with their padding.

    An example longer than the budget makes a batch of its own. The order depends on the lengths alone.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, max_tokens // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count
