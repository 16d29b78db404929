"""The whole story on models that are no plain BERT: tied weights, unsupported methods, and what is said of them."""

import dataclasses
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.lds import prepare_lds, run_lds
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.experiment.studies import LdsConfig
from d3m_ray.store.store import Store
from d3m_ray.training.model import build_classifier, load_pretrained, load_weights
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import LocalEngine

PLANTED = Planted(num_train=40, num_val=16, num_test=16)
ONE_STEP = TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last", max_length=30, precision="float32")


class Untrained(LocalEngine):
    """Fails where anything would be trained."""

    def begin_fits(self, context, fits, on_fit):
        raise AssertionError("a fit was begun")


@pytest.fixture
def asked(model_folder):
    """An experiment on a tiny model that knows the planted words, or the first few of them."""

    def make(architecture: str, *methods: str, num_words: int | None = None, **options) -> ExperimentConfig:
        train = load_splits(PLANTED, None).train
        words = sorted({word for text in train.texts for word in text.lower().split()})[:num_words]
        folder = model_folder(architecture, words=words, vocab_size=len(words) + 5, pad_token_id=0)
        return ExperimentConfig(
            corpus=PLANTED, model=str(folder), methods=methods, num_removed=(0, 4), seeds=(0,),
            training=ONE_STEP, trak=TrakConfig(projection_dim=16), **options,
        )  # fmt: skip

    return make


def run(config: ExperimentConfig | LdsConfig, store: Store, engine=None) -> str:
    """What the run says on screen."""
    screen = StringIO()
    with Progress(Console(file=screen, width=300)) as progress:
        if isinstance(config, LdsConfig):
            outcome = run_lds(prepare_lds(config, store, progress), engine or LocalEngine(), progress)
        else:
            outcome = run_experiment(prepare(config, store, progress), engine or LocalEngine(), progress)
    assert outcome.failed == []
    return screen.getvalue()


def test_a_checkpoint_of_tied_weights_comes_back_whole(asked, tmp_path):
    config, store = asked("bart", "trak"), Store(tmp_path / "store")
    run(config, store)
    assert set(store.read_all("trials")["num_removed"]) == {0, 4}
    [key] = store.read_all("trials").query("num_removed == 0")["fit_key"].unique()
    weights = store.read_checkpoint(key)
    tied = [name for name in weights if name.endswith(("embed_tokens.weight", "shared.weight"))]
    assert len(tied) == 3
    assert all(np.array_equal(weights[tied[0]], weights[name]) for name in tied)
    pretrained, _ = load_pretrained(config.model, [])
    trimmed = {**pretrained.config, "vocab_size": len(weights[tied[0]])}
    model = build_classifier(dataclasses.replace(pretrained, config=trimmed))
    load_weights(model, weights)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[name])


def test_what_a_method_covers_is_stored_and_said(asked, tmp_path):
    config, store = asked("gpt2", "trak", "ekfac"), Store(tmp_path / "store")
    screen = run(config, store)
    shares = {
        method: store.read_metadata("alignments", key, method)["configuration"]["coverage"]
        for method in ("trak", "ekfac")
        for key in store.keys("alignments", method)
    }
    assert shares["trak"] == 1
    assert 0.5 < shares["ekfac"] < 0.9
    assert f"ekfac reads the gradients of linear layers, {shares['ekfac']:.0%} of the model's parameters" in screen
    assert "trak reads" not in screen


def test_a_method_that_cannot_serve_ends_the_command_before_anything_is_trained(asked, tmp_path):
    config, store = asked("albert", "trak", "ekfac", "random"), Store(tmp_path / "store")
    with pytest.raises(InputError, match=r"ekfac cannot serve albert-\S+ \(albert\): EK-FAC takes layers"):
        run(config, store, Untrained())
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_the_others_go_on_where_that_is_asked(asked, tmp_path):
    config, store = asked("albert", "loss", "ekfac", "random", skip_unsupported=True), Store(tmp_path / "store")
    screen = run(config, store)
    assert screen.count("left out: ekfac cannot serve") == 1
    assert set(store.read_all("trials")["method"]) == {"loss", "random"}


def test_an_lds_is_checked_alike(asked, tmp_path):
    config, store = LdsConfig(asked("albert", "trak", "ekfac"), num_subsets=5), Store(tmp_path / "store")
    with pytest.raises(InputError, match="ekfac cannot serve"):
        run(config, store, Untrained())


def test_unknown_words_are_said_once_and_stored(asked, tmp_path):
    config, store = asked("bert", "random", num_words=90), Store(tmp_path / "store")
    screen = run(config, store)
    assert screen.count("of the train tokens are unknown to the tokenizer") == 1
    [experiment] = store.read_experiments().values()
    warnings = experiment.configuration["warnings"]
    assert [warning.split()[3] for warning in warnings] == ["train", "val", "test"]
    assert all(screen.count(warning) == 1 for warning in warnings)
    run(config, store, Untrained())  # the same experiment goes on
