"""CPU seconds of EK-FAC scores per group, native and by kronfluence over partitions, beside kronfluence's common use.

That is: every text padded to 128 tokens, and a pairwise score of every train example and every query, in one process.
All are given the same examples, all linear layers and one thread. Of the native way each pass is told apart: two trees
are compared by running this with `--native-only` by turns, PYTHONPATH naming one and the other.
"""

import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from corpora import Source, evenly, prepare_splits
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import nn
from torch.nn.functional import cross_entropy, pad

from d3m_ray.attribution.ekfac import scores as ekfac
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.libraries import kronfluence
from d3m_ray.pool import LocalPool
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.model import build_classifier, load_weights, margins_of

PADDED_LENGTH = 128
TRAIN_BATCH = 32
QUERY_BATCH = 16


@dataclass(frozen=True)
class EkfacBenchmark(Source):
    """What to measure on, and how much of it."""

    num_train: int = 256
    """Train examples, evenly chosen from the split."""
    num_queries: int = 64
    """Val examples, evenly chosen from the split."""
    native_only: bool = False
    """Leave out the library."""


class PaddedTask(Task):
    """The library's documented use on a classifier: labels sampled from the logits, minus the margin measured."""

    def compute_train_loss(
        self, batch: dict[str, torch.Tensor], model: nn.Module, sample: bool = False
    ) -> torch.Tensor:
        logits = self._logits(batch, model)
        labels = torch.multinomial(logits.detach().softmax(-1), 1).flatten() if sample else batch["labels"]
        return cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch: dict[str, torch.Tensor], model: nn.Module) -> torch.Tensor:
        return -margins_of(self._logits(batch, model), batch["labels"]).sum()

    def get_attention_mask(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["attention_mask"]

    def _logits(self, batch: dict[str, torch.Tensor], model: nn.Module) -> torch.Tensor:
        logits: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return logits


def main(benchmark: EkfacBenchmark) -> None:
    """Print the CPU seconds of each way from the weights to the scores, and how many times faster than the first it is.

    CPU time rather than the clock's: the first takes many minutes, in which a machine seldom does nothing else.
    """
    torch.set_num_threads(1)
    inputs = prepare(benchmark)
    print(
        f"{len(inputs.train)} train examples, {len(inputs.queries)} queries in {inputs.num_groups} groups, one thread"
    )
    ways: dict[str, Callable[[], object]] = {
        "kronfluence, padded, pairwise": lambda: padded_pairwise(inputs),
        "kronfluence, over partitions, per group": lambda: kronfluence.score_groups(inputs, EkfacConfig(), LocalPool()),
        "native, per group": lambda: ekfac.score_groups(inputs, EkfacConfig(), LocalPool()),
    }
    if benchmark.native_only:
        ways = {}
    slowest: float | None = None
    for name, way in ways.items():
        start = time.process_time()
        way()
        seconds = time.process_time() - start
        slowest = slowest or seconds
        print(f"{name:42s}{seconds:10.1f} CPU s{slowest / seconds:10.1f} x", flush=True)
    passes = Passes()
    start = time.process_time()
    ekfac.score_groups(inputs, EkfacConfig(), LocalPool(passes))
    whole = time.process_time() - start
    for name, seconds in {**passes.seconds, "whole": whole}.items():
        print(f"{name:42s}{seconds:10.2f} CPU s{1e3 * seconds / len(inputs.train):10.2f} ms an example", flush=True)


class Passes:
    """CPU seconds of each pass, from the end of one step to the end of the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def __call__(self, label: str, num_done: int, num_shards: int) -> None:
        now = time.process_time()
        name = label.partition(",")[0]
        self.seconds[name] = self.seconds.get(name, 0) + now - self._last
        self._last = now


def prepare(benchmark: EkfacBenchmark) -> AttributionInputs:
    """The base model as a checkpoint, and examples evenly chosen, with the groups that the chosen queries have."""
    pretrained, tokens = prepare_splits(benchmark)
    queries = evenly(tokens["val"], benchmark.num_queries)
    groups, renumbered = np.unique(queries.groups, return_inverse=True)
    checkpoint = Checkpoint("benchmark", pretrained, pretrained.weights)
    queries = dataclasses.replace(queries, groups=renumbered)
    return AttributionInputs((checkpoint,), evenly(tokens["train"], benchmark.num_train), queries, len(groups))


def padded_pairwise(inputs: AttributionInputs) -> torch.Tensor:
    """[Q, N] scores by the library's own calls in this process."""
    checkpoint, task = inputs.checkpoints[0], PaddedTask()
    model = build_classifier(checkpoint.pretrained)
    load_weights(model, checkpoint.weights)
    train, queries = _padded_rows(inputs.train), _padded_rows(inputs.queries)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyzer = Analyzer("padded", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=folder)
        analyzer.fit_all_factors(
            "factors", train, per_device_batch_size=TRAIN_BATCH, factor_args=FactorArguments(strategy="ekfac")
        )
        analyzer.compute_pairwise_scores(
            "scores", "factors", queries, train, per_device_query_batch_size=QUERY_BATCH,
            per_device_train_batch_size=TRAIN_BATCH, score_args=ScoreArguments(damping_factor=None),
        )  # fmt: skip
        scores: torch.Tensor = analyzer.load_pairwise_scores("scores")["all_modules"]
        return scores


def _padded_rows(examples: TokenizedExamples) -> list[dict[str, torch.Tensor]]:
    batch = examples.batch(np.arange(len(examples)))
    padding = (0, max(0, PADDED_LENGTH - batch.input_ids.shape[1]))
    columns = {
        "input_ids": pad(batch.input_ids, padding, value=examples.pad_id),
        "attention_mask": pad(batch.attention_mask, padding),
        "labels": batch.labels,
    }
    return [{name: column[row] for name, column in columns.items()} for row in range(len(examples))]


if __name__ == "__main__":
    main(tyro.cli(EkfacBenchmark, description=__doc__))
