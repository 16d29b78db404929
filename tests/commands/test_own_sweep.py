"""A corpus of one's own with three labels in words, from files to figures, by arms of every kind."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.commands.results import show_results
from d3m_ray.data.own_options import Own
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import LocalEngine

LABELS = ("bad", "fair", "good")
METHODS = ("trak", "ekfac", "random", "random_majority", "balanced", "dfr", "jtt", "group_dro")
CUES = {"bad": ("leaky", "noisy"), "fair": ("plain", "usual"), "good": ("spotless", "sunny")}


def write_reviews(path: Path, num_rows: int = 180) -> None:
    kinds = itertools.cycle(itertools.product(LABELS, ("inn", "campsite")))
    rows = [
        {"text": f"review {row}: the {group} was {CUES[label][row % 2]}", "label": label, "group": group}
        for row, (label, group) in zip(range(num_rows), kinds, strict=False)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the corpus, the store and the figures."""
    folder = tmp_path_factory.mktemp("reviews")
    write_reviews(folder / "reviews.csv")
    config = ExperimentConfig(
        Own(labels=LABELS),
        data=folder / "reviews.csv",
        model="tiny",
        methods=METHODS,
        num_removed=(0, "5%", "10%"),
        seeds=(0,),
        training=TrainingConfig(num_epochs=2, learning_rate=1e-3, final_model="last"),
        trak=TrakConfig(projection_dim=64),
    )
    store = Store(folder / "store")
    with Progress() as progress:
        outcome = run_experiment(prepare(config, store, progress), LocalEngine(), progress)
    assert outcome.failed == []
    show_results(store, outcome.experiment, folder / "figures")
    return folder


@pytest.mark.slow
def test_every_arm_is_measured_in_three_labels(swept: Path) -> None:
    trials = pd.read_parquet(swept / "store" / "trials")
    test = trials[trials["split"] == "test"]
    assert set(test["method"]) == set(METHODS)
    assert set(test["dataset"]) == {"reviews"}
    assert set(test.loc[test["method"] == "trak", "num_removed"]) == {0, 5, 11}, "of 108 train examples"
    cells = {f"{group}/{label}" for group in ("campsite", "inn") for label in LABELS}
    assert set(test["group"]) == cells | {"campsite", "inn", "all", "worst", "worst_cell"}
    whole = test[test["group"] == "all"]
    assert whole["macro_f1"].between(0, 1).all()
    assert test[["fpr", "fnr", "auc"]].isna().all(axis=None), "two labels' metrics"


@pytest.mark.slow
def test_the_predicted_labels_are_stored_and_give_the_accuracy(swept: Path) -> None:
    fits = pd.read_parquet(swept / "store" / "fits")
    assert set(fits["predicted"]) <= {0, 1, 2}
    assert set(fits["label"]) == {0, 1, 2}
    trials = pd.read_parquet(swept / "store" / "trials")
    for (fit_key, split), rows in fits.groupby(["fit_key", "split"]):
        whole = trials[(trials["fit_key"] == fit_key) & (trials["split"] == split) & (trials["group"] == "all")]
        (accuracy,) = whole["accuracy"].unique()
        assert accuracy == pytest.approx(np.mean(rows["predicted"] == rows["label"]))


@pytest.mark.slow
def test_ids_join_the_results_to_the_rows_of_the_file(swept: Path) -> None:
    texts = pd.read_csv(swept / "reviews.csv")
    removed = pd.read_parquet(swept / "store" / "alignments").drop_duplicates("example_id")
    rows = removed["example_id"].str.removeprefix("train/").astype(int)
    assert (texts["group"].to_numpy()[rows] == removed["group"].to_numpy()).all()
    assert (np.array(LABELS)[removed["label"]] == texts["label"].to_numpy()[rows]).all()


@pytest.mark.slow
def test_the_figures_name_the_labels(swept: Path) -> None:
    (folder,) = (swept / "figures").iterdir()
    assert {"summary.csv", "distribution.csv", "distribution.pdf"} <= {path.name for path in folder.iterdir()}
    distribution = pd.read_csv(folder / "distribution.csv")
    assert set(distribution["label_name"]) == set(LABELS)
