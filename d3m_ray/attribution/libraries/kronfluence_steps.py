"""The steps of a worker: each runs the kronfluence library on one of its own data partitions, in a folder of its own.

Shapes: n train examples of a partition, q queries of a step, I inputs of a linear layer and one for its bias, O its
outputs.

The library keeps what it makes in files, and takes a file of the right name for done whatever made it. So the folder is
new in every step, names in it hash what the files depend on, and factors travel between the steps as arrays.
"""

import contextlib
import gc
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.factor.covariance import load_covariance_matrices
from kronfluence.factor.eigen import load_lambda_matrices, perform_eigendecomposition
from kronfluence.module.linear import TrackedLinear
from kronfluence.score.pairwise import load_pairwise_scores
from kronfluence.utils.constants import ACTIVATION_COVARIANCE_MATRIX_NAME, ALL_MODULE_NAME, FACTOR_ARGUMENTS_NAME
from kronfluence.utils.dataset import DataLoaderKwargs, make_indices_partition
from kronfluence.utils.save import save_json
from kronfluence.utils.state import State
from safetensors.numpy import save_file
from torch import nn

from d3m_ray.attribution.inputs import Checkpoint, ScoringPrecision
from d3m_ray.attribution.libraries.kronfluence_margin import MarginTask, SortedExamples, collate
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.keys import content_hash
from d3m_ray.records import QueryTarget

Factors = dict[str, dict[str, np.ndarray]]
"""The library's matrices by its name for the factor, then by the name of the layer."""


@dataclass(frozen=True, eq=False)
class FactorStep:
    """What a checkpoint's steps need besides the number of the partition."""

    name: str
    """Hash of all that the factors depend on, under which the library stores them."""
    checkpoint: Checkpoint
    layers: tuple[str, ...]
    precision: ScoringPrecision
    train: SortedExamples
    num_partitions: int
    factors: Factors
    """What the steps before left: nothing, eigenvectors, eigenvectors and Lambda."""

    @property
    def dtype(self) -> torch.dtype:
        """float64 where the precision is, else float32: the library has bfloat16 only for all factors together."""
        return torch.float64 if self.precision == "float64" else torch.float32


@dataclass(frozen=True, eq=False)
class ScoreStep:
    """What scoring a partition needs besides its number and the queries."""

    fitted: FactorStep
    queries: SortedExamples
    num_partitions: int
    query_batch: int | None
    """Queries of a pass over the partition; None: those of a step are one query, the sum of their gradients."""
    query_target: QueryTarget


def fit_covariances(task: FactorStep, partition: int) -> Factors:
    """Sums over the partition's tokens of each layer's inputs' products [I, I], its gradients' [O, O], and counts."""
    with _analyzer(task) as analyzer:
        analyzer.fit_covariance_matrices(**_fitting(task, partition))
        folder = analyzer.factors_output_dir(task.name)
        return _as_arrays(load_covariance_matrices(folder, _stored(partition, task.num_partitions)))


def decompose_layer(_: None, covariances: Factors) -> Factors:
    """Eigenvectors and eigenvalues of one layer's mean covariances, found in float64.

    The library takes one layer after another and reads nothing of the model but their names.
    """
    (layer,) = covariances[ACTIVATION_COVARIANCE_MATRIX_NAME]
    tensors = {name: {layer: torch.from_numpy(np.array(matrices[layer]))} for name, matrices in covariances.items()}
    named = TrackedLinear(layer, nn.Linear(1, 1))
    return _as_arrays(perform_eigendecomposition(tensors, named, State(), FactorArguments(), disable_tqdm=True))


def fit_lambdas(task: FactorStep, partition: int) -> Factors:
    """Sums over the partition of each layer's squared gradients in its eigenbasis [O, I], and the examples' number."""
    with _analyzer(task) as analyzer:
        analyzer.fit_lambda_matrices(**_fitting(task, partition))
        folder = analyzer.factors_output_dir(task.name)
        return _as_arrays(load_lambda_matrices(folder, _stored(partition, task.num_partitions)))


def score_partition(task: ScoreStep, queries: np.ndarray, partition: int) -> np.ndarray:
    """[q, n] scores of the partition for each of these queries, or [1, n] for the sum of them."""
    fitted = task.fitted
    name = content_hash(fitted.name, str(task.query_batch), task.query_target, queries.tobytes())
    query_batch = task.queries.batch_size(queries)
    with _analyzer(fitted, task.query_target) as analyzer:
        analyzer.compute_pairwise_scores(
            name,
            fitted.name,
            query_dataset=task.queries,
            train_dataset=fitted.train,
            per_device_query_batch_size=min(query_batch, task.query_batch or query_batch),
            per_device_train_batch_size=_train_batch(fitted, partition, task.num_partitions),
            query_indices=queries.tolist(),
            score_args=ScoreArguments(
                damping_factor=0.0,  # the Lambda matrices hold it
                data_partitions=task.num_partitions,
                aggregate_query_gradients=task.query_batch is None,
                per_sample_gradient_dtype=fitted.dtype,
                precondition_dtype=fitted.dtype,
                score_dtype=fitted.dtype,
            ),
            target_data_partitions=_target(partition, task.num_partitions),
        )
        scores = load_pairwise_scores(analyzer.scores_output_dir(name), _stored(partition, task.num_partitions))
        return scores[ALL_MODULE_NAME].numpy().copy()


@contextlib.contextmanager
def _analyzer(task: FactorStep, query_target: QueryTarget = "margin") -> Iterator[Analyzer]:
    """The library over the checkpoint's model and a new folder that holds the task's factors."""
    asked = MarginTask(task.layers, query_target)
    key = f"kronfluence-{content_hash(*task.layers)}"
    _, model = loaded_model(task.checkpoint, key, task.precision, lambda model: prepare_model(model, asked))
    # Not by the library's own log level, which it sets for every logger of the process.
    logging.getLogger("kronfluence").setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="d3m_ray_kronfluence_") as folder,
        warnings.catch_warnings(),
        _garbage_is_new(),
    ):
        warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.GradScaler", FutureWarning)
        analyzer = Analyzer(task.name, model, asked, disable_tqdm=True, output_dir=folder)
        analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=collate))
        _write_factors(task, analyzer.factors_output_dir(task.name))
        yield analyzer


@contextlib.contextmanager
def _garbage_is_new() -> Iterator[None]:
    """Hide from the collector what exists: the library calls it several times a step, a quarter second each."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _write_factors(task: FactorStep, folder: Path) -> None:
    """The task's factors and the arguments that they were fitted with, as the library stores them."""
    folder.mkdir()
    save_json(_factor_arguments(task).to_dict(), folder / f"{FACTOR_ARGUMENTS_NAME}_arguments.json")
    for name, matrices in task.factors.items():
        save_file(matrices, folder / f"{name}.safetensors")


def _fitting(task: FactorStep, partition: int) -> dict[str, Any]:
    """The library's arguments for fitting factors to one partition."""
    return {
        "factors_name": task.name,
        "dataset": task.train,
        "per_device_batch_size": _train_batch(task, partition, task.num_partitions),
        "factor_args": _factor_arguments(task),
        "target_data_partitions": _target(partition, task.num_partitions),
    }


def _factor_arguments(task: FactorStep) -> FactorArguments:
    return FactorArguments(
        strategy="ekfac",
        covariance_max_examples=None,
        covariance_data_partitions=task.num_partitions,
        activation_covariance_dtype=task.dtype,
        gradient_covariance_dtype=task.dtype,
        lambda_max_examples=None,
        lambda_data_partitions=task.num_partitions,
        per_sample_gradient_dtype=task.dtype,
        lambda_dtype=task.dtype,
    )


def _train_batch(task: FactorStep, partition: int, num_partitions: int) -> int:
    return task.train.batch_size(np.arange(*make_indices_partition(len(task.train), num_partitions)[partition]))


def _target(partition: int, num_partitions: int) -> list[int] | None:
    """The library's argument for one partition, which it refuses where there is but one."""
    return None if num_partitions == 1 else [partition]


def _stored(partition: int, num_partitions: int) -> tuple[int, int] | None:
    """The library's name for the files of one data partition, whose modules are not divided."""
    return None if num_partitions == 1 else (partition, 0)


def _as_arrays(factors: dict[str, dict[str, torch.Tensor]]) -> Factors:
    """Arrays that outlive the files."""
    return {
        name: {layer: matrix.numpy().copy() for layer, matrix in matrices.items()} for name, matrices in factors.items()
    }
