"""What the kronfluence library asks of a project: a data set, the losses of a batch, and where its padding is.

Shapes: N examples, B examples of a batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from kronfluence.task import Task
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from d3m_ray.attribution.targets import target_values
from d3m_ray.records import QueryTarget
from d3m_ray.training.batching import Batch, TokenizedExamples
from d3m_ray.training.model import logits_of, margins_of

BATCH_TOKENS = 2048  # padded tokens of a batch: activations of a small model stay in cache
BATCH_EXAMPLES = 32  # of a batch at most: the library holds a layer's gradient of each example, several times over


class SortedExamples(Dataset):
    """Examples with a drawn label each, longest first, so that a batch of neighbours has little padding."""

    def __init__(self, examples: TokenizedExamples, drawn: np.ndarray) -> None:
        self.order = np.argsort(-examples.lengths, kind="stable")
        """[N] the positions that the examples had before they were sorted."""
        self.examples = examples.take(self.order)
        self.drawn = drawn[self.order]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> "tuple[SortedExamples, int]":
        return self, index

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """The tensors of a `Batch`, and the [B] drawn labels, in a dictionary: the library reads B from its tensors."""
        of_batch = np.array(indices)
        return {**vars(self.examples.batch(of_batch)), "drawn": torch.from_numpy(self.drawn[of_batch])}

    def batch_size(self, indices: np.ndarray) -> int:
        """Examples of a batch that keeps to the two limits wherever it begins among these."""
        return max(1, min(BATCH_EXAMPLES, BATCH_TOKENS // int(self.examples.lengths[indices].max())))


def collate(items: list[tuple[SortedExamples, int]]) -> dict[str, torch.Tensor]:
    """The batch of items of one set."""
    return items[0][0].batch([index for _, index in items])


class MarginTask(Task):
    """The summed cross-entropy of true or drawn labels, and minus the summed target, over the named layers."""

    def __init__(self, layers: Sequence[str], query_target: QueryTarget = "margin") -> None:
        self._layers = list(layers)
        self._query_target = query_target

    def compute_train_loss(
        self, batch: dict[str, torch.Tensor], model: nn.Module, sample: bool = False
    ) -> torch.Tensor:
        labels = batch["drawn" if sample else "labels"]
        return cross_entropy(_logits(batch, model), labels, reduction="sum")

    def compute_measurement(self, batch: dict[str, torch.Tensor], model: nn.Module) -> torch.Tensor:
        margins = margins_of(_logits(batch, model), batch["labels"])
        return -target_values(margins, self._query_target).sum()

    def get_influence_tracked_modules(self) -> list[str]:
        return self._layers

    def get_attention_mask(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """[B, T]: keeps padding out of the covariances of inputs, and out of the counts of inputs and gradients.

        The library masks nothing else, and need not: no token attends to padding, so its gradients are zero.
        """
        return batch["attention_mask"]


def _logits(batch: dict[str, torch.Tensor], model: nn.Module) -> torch.Tensor:
    return logits_of(model, Batch(batch["input_ids"], batch["attention_mask"], batch["labels"]))
