"""What `d3m_ray.testing` tries plug-ins on: a tiny model, examples of random words, and a pool that copies.

Shapes: N train examples, Q queries, G groups, L labels.
"""

import contextlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, TrainingRun
from d3m_ray.pool import LocalPool
from d3m_ray.records import Examples, cells_of
from d3m_ray.selection.arms import Arm, Evidence, cell_floors
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.fine_tuning import fine_tune
from d3m_ray.training.model import build_classifier
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.recipes import FitInputs
from d3m_ray.training.registry import Recipe
from d3m_ray.training.settings import RobustConfig, TrainingConfig

NUM_TRAIN, NUM_QUERIES, NUM_GROUPS = 24, 9, 3
NUM_EVIDENCE = 60  # train examples that an arm chooses from
VOCABULARY, FIRST_WORD = 100, 5  # tokens; the first ones are special
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TRAINING = TrainingConfig(num_epochs=2, learning_rate=1e-3, batch_size=6, precision="float32", final_model="last")


def made_inputs(num_labels: int = 2) -> AttributionInputs:
    """What a method scores: a BERT of 16 dimensions, trained for a moment in float64, on examples of random words."""
    inputs: AttributionInputs = pickle.loads(_packed_inputs(num_labels))  # whatever was done to those before
    return inputs


@cache
def _packed_inputs(num_labels: int) -> bytes:
    pretrained = _tiny_model(num_labels)
    train = made_tokens("train", NUM_TRAIN, num_labels)
    model = build_classifier(pretrained).double()
    fine_tune(model, pretrained, train, train, TRAINING, seed=0)
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    run = TrainingRun(TRAINING, 0, TRAINING.num_epochs, train, np.arange(NUM_TRAIN))
    checkpoint = Checkpoint(f"made up, {num_labels} labels", pretrained, weights, run)
    queries = made_tokens("val", NUM_QUERIES, num_labels)
    return pickle.dumps(AttributionInputs((checkpoint,), train, queries, NUM_GROUPS, precision="float64"))


def made_tokens(split: str, num_examples: int, num_labels: int, seed: int = 0) -> TokenizedExamples:
    """Examples of 3 to 12 random tokens; labels and groups by turns."""
    rng = np.random.default_rng([seed, *split.encode()])
    offsets = np.concatenate([[0], np.cumsum(rng.integers(3, 13, size=num_examples))]).astype(np.int64)
    return TokenizedExamples(
        split=split,
        flat_ids=rng.integers(FIRST_WORD, VOCABULARY, size=offsets[-1]).astype(np.int32),
        offsets=offsets,
        labels=rng.permutation(np.arange(num_examples) % num_labels),
        groups=rng.permutation(np.arange(num_examples) % NUM_GROUPS),
        pad_id=0,
        num_labels=num_labels,
    )


def _tiny_model(num_labels: int) -> PretrainedModel:
    config = AutoConfig.for_model(
        "bert", vocab_size=VOCABULARY, num_labels=num_labels, max_position_embeddings=40, **TINY
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    return PretrainedModel("made up", {**config.to_dict(), "model_type": "bert"}, weights, ("classifier",))


def made_evidence(arm: Arm, num_labels: int = 2) -> Evidence:
    """What an arm chooses by: cells of unlike sizes with their floors, and whatever the arm reads, with ties."""
    rng = np.random.default_rng(num_labels)
    train = Examples(
        split="train",
        example_ids=np.array([f"train/{row}" for row in range(NUM_EVIDENCE)]),
        texts=tuple(" ".join(["word"] * length) for length in rng.integers(3, 13, size=NUM_EVIDENCE)),
        labels=rng.choice(num_labels, size=NUM_EVIDENCE),
        groups=rng.choice(NUM_GROUPS, size=NUM_EVIDENCE, p=[0.6, 0.25, 0.15]),
    )
    return Evidence(
        labels=train.labels,
        groups=train.groups,
        num_labels=num_labels,
        alignments={} if arm.alignment is None else {arm.alignment: rng.normal(size=NUM_EVIDENCE).round(1)},
        cell_losses=rng.uniform(0.1, 1.0, size=(NUM_GROUPS, num_labels)),
        cell_floors=cell_floors(cells_of(train.groups, train.labels, num_labels), NUM_GROUPS * num_labels, "10%"),
        train=train,
    )


def made_fit(recipe: Recipe, num_labels: int = 2, num_removed: int = 0) -> FitInputs:
    """What a recipe trains on: the tiny model with dropout, and every fifth train example removed, so many of them."""
    pretrained = _tiny_model(num_labels)
    return FitInputs(
        model=build_classifier(pretrained),
        pretrained=pretrained,
        train=made_tokens("train", NUM_TRAIN, num_labels),
        kept=np.delete(np.arange(NUM_TRAIN), 5 * np.arange(num_removed)),
        val=made_tokens("val", NUM_TRAIN, num_labels),
        config=TRAINING,
        seed=3,
        robust=RobustConfig(),
        settings=recipe.settings,
    )


def other_where_removed(inputs: FitInputs) -> TokenizedExamples:
    """The train split with other words, labels and groups where the fit has none of it.

    Lengths stay: pairing goes by them.
    """
    train = inputs.train
    is_removed = ~np.isin(np.arange(len(train)), inputs.kept)
    words, labels, groups = train.flat_ids.copy(), train.labels.copy(), train.groups.copy()
    of_removed = np.repeat(is_removed, train.lengths)
    words[of_removed] = VOCABULARY + FIRST_WORD - 1 - words[of_removed]
    labels[is_removed] = (labels[is_removed] + 1) % train.num_labels
    groups[is_removed] = (groups[is_removed] + 1) % NUM_GROUPS
    return replace(train, flat_ids=words, labels=labels, groups=groups)


class CopyingPool(LocalPool):
    """A pool in this process that treats a step as other processes do: it sees copies, and not in the shards' order.

    Raises AssertionError where a step, or what it is sent, cannot travel to another process.
    """

    def __init__(self, num_workers: int) -> None:
        super().__init__()
        self.num_workers = num_workers

    def put(self, value: Any) -> Any:
        return _Sent(_packed(value))

    def map(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> Iterator[Any]:
        for kept in self.map_kept(label, step, shared, *shards):
            yield pickle.loads(kept.data)

    def map_kept(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> list[Any]:
        done = []
        for arguments in reversed(list(zip(*shards, strict=True))):
            copies = [pickle.loads(a.data if isinstance(a, _Sent) else _packed(a)) for a in (shared, *arguments)]
            done.append(_Sent(_packed(pickle.loads(_packed(step))(*copies))))
        return done[::-1]


@dataclass(frozen=True)
class _Sent:
    """The handle of a value in another process."""

    data: bytes


def _packed(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # whatever a value's own code raises
        what = getattr(value, "__qualname__", type(value).__name__)
        raise AssertionError(
            f"a step is a function of a module, and it and what it is sent can be pickled, for it runs in another "
            f"process; {what} cannot be: {error}"
        ) from error


@contextlib.contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Sets the global generators within the block, and sets them back."""
    state = np.random.get_state()  # noqa: NPY002 - what a plug-in may draw from by mistake
    with torch.random.fork_rng(devices=[]):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
