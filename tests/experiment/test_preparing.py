"""What a preparation is looked up by: everything that it follows from, and nothing else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.experiment import preparing
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.preparing import preparation_key, prepare_on
from d3m_ray.experiment.progress import Progress
from d3m_ray.records import Splits
from d3m_ray.store.store import Store

CONFIG = ExperimentConfig(Planted(num_train=48, num_val=24, num_test=24), model="tiny", num_removed=(0, 6))
SPLITS = load_splits(CONFIG.corpus)


def with_settings(stage: str, **settings: object) -> ExperimentConfig:
    return dataclasses.replace(CONFIG, **{stage: dataclasses.replace(getattr(CONFIG, stage), **settings)})


def with_text(text: str) -> Splits:
    test = dataclasses.replace(SPLITS.test, texts=(text, *SPLITS.test.texts[1:]))
    return dataclasses.replace(SPLITS, test=test)


@pytest.fixture
def model(model_folder: Callable[..., Path]) -> Path:
    return model_folder("bert")


def test_what_a_preparation_follows_from_enters_its_key(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_folder = dataclasses.replace(CONFIG, model=str(model))
    keys = [
        preparation_key(config, SPLITS)
        for config in (
            CONFIG,
            of_folder,
            dataclasses.replace(CONFIG, methods=("trak", "jtt")),
            dataclasses.replace(CONFIG, skip_unsupported=True),
            with_settings("training", max_length=64),
            with_settings("training", precision="float32"),
            with_settings("ekfac", modules=("encoder",)),
            with_settings("robust", dfr_data="train"),
        )
    ]
    keys.append(preparation_key(CONFIG, with_text("a text of its own")))
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    keys.append(preparation_key(of_folder, SPLITS))
    monkeypatch.setattr(preparing, "environment_hash", lambda: "another machine")
    keys.append(preparation_key(CONFIG, SPLITS))
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_what_has_no_part_in_a_preparation_does_not_enter_its_key() -> None:
    for config in (
        dataclasses.replace(CONFIG, store="elsewhere", experiment="named", seeds=(7,), num_removed=(0, 3)),
        with_settings("training", num_epochs=3, learning_rate=1e-3),
        with_settings("execution", num_workers=3, engine="local"),
    ):
        assert preparation_key(config, SPLITS) == preparation_key(CONFIG, SPLITS)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(CONFIG, model="google-bert/bert-base-uncased"),
        with_settings("execution", gpus_per_trial=1),
        with_settings("execution", gpus_per_worker=0.5),
    ],
)
def test_where_it_cannot_be_told_there_is_no_key(config: ExperimentConfig) -> None:
    assert preparation_key(config, SPLITS) is None


def test_without_a_key_nothing_is_kept_or_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "environment_hash", lambda: None)
    monkeypatch.setattr(Store, "read_preparation", lambda *_: pytest.fail("looked up"))
    prepared = prepare_on(CONFIG, SPLITS, Store(tmp_path), Progress())
    assert prepared.keep_as is None
    assert prepared.context.load is None


def test_a_model_that_changes_while_it_is_prepared_is_not_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = iter([("tiny", "as it was"), ("tiny", "as it is")])
    monkeypatch.setattr(preparing, "files_of_model", lambda name: next(contents))
    assert prepare_on(CONFIG, SPLITS, Store(tmp_path), Progress()).keep_as is None


def test_arms_that_were_left_out_are_told_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaves_out(config, pretrained, tokens, tell):  # type: ignore[no-untyped-def]
        tell("left out: trak cannot serve it")
        return dataclasses.replace(config, methods=("random",))

    monkeypatch.setattr("d3m_ray.experiment.compatibility.supported", leaves_out)
    prepared = prepare_on(CONFIG, SPLITS, Store(tmp_path), Progress())
    assert (prepared.config.methods, prepared.keep_as) == (("random",), None)
    assert "left out: trak cannot serve it" in capsys.readouterr().err


def test_what_was_prepared_before_has_the_same_keys_and_is_whole_when_it_is_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = prepare_on(CONFIG, SPLITS, store, Progress())
    assert first.keep_as is not None
    store.write_preparation(first.keep_as, first.preparation)
    again = prepare_on(CONFIG, SPLITS, store, Progress())
    assert (again.preparation, again.keep_as) == (first.preparation, None)
    assert again.context.tokens == {}
    whole = again.context.whole()
    assert again.context.whole() is whole, "workers are sent it once, whatever the stage"
    assert whole.whole() is whole
    assert whole.load is None
    assert whole.pretrained.content_hash() == first.context.pretrained.content_hash()
    for name, split in first.context.tokens.items():
        assert (whole.tokens[name].flat_ids == split.flat_ids).all()
    for field in ("experiment", "training", "data_hash", "model_hash", "warnings", "device"):
        values = [getattr(context, field) for context in (first.context, again.context, whole)]
        assert values[0] == values[1] == values[2]
