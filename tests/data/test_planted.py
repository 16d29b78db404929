from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from d3m_ray.data.checks import DataError
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import HARMED_GROUP, OWN_CUES, PLACES, SHARED_CUES, Planted, make_planted
from d3m_ray.errors import InputError
from d3m_ray.metrics.groups import group_metrics
from d3m_ray.records import Examples, Splits
from d3m_ray.training.batching import tokenize
from d3m_ray.training.fine_tuning import fine_tune, predict
from d3m_ray.training.model import build_classifier, load_pretrained
from d3m_ray.training.settings import TrainingConfig


def meant_labels(splits: Splits, examples: Examples) -> np.ndarray:
    """[N] labels as the words say."""
    meanings: dict[str, int] = {}
    for cues in (SHARED_CUES, *OWN_CUES.values()):
        for label in (0, 1):
            meanings |= dict.fromkeys(cues[label], label)
    said = [{meanings[word] for word in text.split() if word in meanings} for text in examples.texts]
    assert all(len(labels) == 1 for labels in said)
    return np.array([labels.pop() for labels in said])


def test_the_splits_are_balanced_and_only_the_harmful_rows_are_wrong() -> None:
    splits = make_planted(Planted())
    assert splits.group_names == tuple(PLACES)
    assert [len(examples) for examples in splits.by_name().values()] == [1200, 400, 800]
    for examples in splits.by_name().values():
        meant = meant_labels(splits, examples)
        assert set(Counter(zip(examples.groups, meant, strict=True)).values()) == {len(examples) // 8}
        wrong = set(examples.example_ids[meant != examples.labels])
        assert wrong == (splits.harmful_ids if examples.split == "train" else set())
    assert len(splits.harmful_ids) == 90
    harmful = splits.train.take(np.flatnonzero(np.isin(splits.train.example_ids, list(splits.harmful_ids))))
    assert {splits.group_names[group] for group in harmful.groups} == {HARMED_GROUP}


def test_no_text_is_written_twice_and_each_names_its_group() -> None:
    splits = make_planted(Planted(num_train=2400))
    texts = [text for examples in splits.by_name().values() for text in examples.texts]
    assert len(set(texts)) == len(texts)
    for examples in splits.by_name().values():
        for text, group in zip(examples.texts, examples.groups, strict=True):
            assert [name for name in PLACES if name in text.split()] == [splits.group_names[group]]


def test_no_word_means_two_things() -> None:
    words = [word for cues in (SHARED_CUES, *OWN_CUES.values()) for label in cues for word in label]
    assert len(set(words)) == len(words)


def test_the_seed_decides_and_nothing_else() -> None:
    first = make_planted(Planted())
    again = make_planted(Planted())
    assert (again.content_hash(), again.harmful_ids) == (first.content_hash(), first.harmful_ids)
    other = make_planted(Planted(seed=1))
    assert other.content_hash() != first.content_hash()
    assert other.harmful_ids != first.harmful_ids


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_the_fraction_is_of_the_harmed_group(fraction: float) -> None:
    splits = make_planted(Planted(num_train=800, harmful_fraction=fraction))
    assert len(splits.harmful_ids) == round(fraction * 200)


@pytest.mark.parametrize(
    "wrong",
    [{"num_train": 0}, {"num_val": 12}, {"num_test": -8}, {"harmful_fraction": 0.6}, {"seed": -1}],
    ids=lambda w: next(iter(w)),
)
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(wrong)).replace('_', '-')} is "):
        Planted(**wrong)  # type: ignore[arg-type]


def test_a_folder_of_another_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="made, not read: leave out --data"):
        load_splits(Planted(), tmp_path)


@pytest.mark.slow
def test_the_harmful_rows_make_their_group_the_worst_and_nothing_else_does() -> None:
    splits = make_planted(Planted())
    pretrained, tokenizer = load_pretrained("tiny", splits.train.texts)
    tokens = {split: tokenize(examples, tokenizer, 128) for split, examples in splits.by_name().items()}
    config = TrainingConfig(num_epochs=4, learning_rate=1e-3, final_model="last", precision="float32")
    harmful = np.flatnonzero(np.isin(splits.train.example_ids, list(splits.harmful_ids)))
    others = np.random.default_rng(0).choice(len(splits.train), len(harmful), replace=False)

    def accuracies(removed: np.ndarray) -> dict[str, float]:
        model = build_classifier(pretrained)
        kept = np.setdiff1d(np.arange(len(splits.train)), removed)
        fine_tune(model, pretrained, tokens["train"], tokens["val"], config, seed=0, kept=kept)
        predictions = predict(model, tokens["test"], "float32")
        rows = group_metrics(predictions, splits.test, splits.group_names)
        return dict(zip(rows["group"], rows["accuracy"], strict=True))

    everything = accuracies(np.zeros(0, dtype=np.int64))
    assert everything[HARMED_GROUP] == everything["worst"] < 0.8
    assert min(everything[name] for name in PLACES if name != HARMED_GROUP) > 0.95
    assert accuracies(harmful)["worst"] > 0.95
    assert accuracies(others)["worst"] < 0.9
