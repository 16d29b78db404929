from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from d3m_ray.analysis.caveats import find_caveats
from d3m_ray.analysis.results import read_results
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES

EXPERIMENT = "insects-1a2b3c4d"
CONFIGURATION = {"dataset": "insects", "model": "tiny-bert"}


def caveats_of(store: Store) -> list[str]:
    (results,) = read_results(store)
    return [caveat.sentence for caveat in find_caveats(results)]


def write_fit(store: Store, key: str, labels: Sequence[int], answers: Sequence[int], split: str = "val") -> None:
    labels, answers = np.array(labels), np.array(answers)
    margins = np.where(labels == answers, 1.5, -1.5)
    frame = pd.DataFrame(
        {
            "fit_key": key,
            "split": split,
            "example_id": [f"{split}/{row}" for row in range(len(labels))],
            "group": "ant",
            "label": labels,
            "margin": margins,
            "probability": np.where(answers == 1, 0.8, 0.2),
            "predicted": answers,
        }
    )
    store.write("fits", key, frame[TABLES["fits"].schema.names], {})


def write_base_fits(store: Store, labels: Sequence[int], *answers: Sequence[int]) -> None:
    for seed, of_seed in enumerate(answers):
        write_fit(store, f"base-0-{seed}", labels, of_seed)


HALVES = [0] * 50 + [1] * 50


def test_a_sound_experiment_has_none(filled_store: Store) -> None:
    write_base_fits(filled_store, HALVES, *[[0] * 40 + [1] * 60] * 5)
    assert caveats_of(filled_store) == []


def test_a_base_model_of_one_label_is_named(filled_store: Store) -> None:
    sound, always_0 = [0] * 40 + [1] * 60, [0] * 100
    write_base_fits(filled_store, HALVES, sound, sound, sound, sound, always_0)
    (caveat,) = caveats_of(filled_store)
    assert caveat.startswith("1 of 5 base models answered label 0 for 100.0% of val: a group's accuracy is little but")


def test_a_base_model_at_chance_is_named_with_its_recalls(filled_store: Store) -> None:
    answers = [1] * 24 + [0] * 26 + [0] * 20 + [1] * 30  # 56 of 100 are right
    write_base_fits(filled_store, HALVES, *[answers] * 5)
    (caveat,) = caveats_of(filled_store)
    assert caveat == (
        "5 of 5 base models did no better on val, by accuracy, than always answering label 0: accuracy 56.0% "
        f"of 100 examples against 50.0% (one-sided binomial test, p = {binom.sf(55, 100, 0.5):.2g}; "
        "recall: label 0 52.0%, label 1 60.0%)."
    )


def test_many_right_answers_of_a_rare_label_are_measured_against_the_frequent_one(filled_store: Store) -> None:
    labels = [0] * 90 + [1] * 10
    write_base_fits(filled_store, labels, *[[0] * 85 + [1] * 15] * 5)
    (caveat,) = caveats_of(filled_store)
    assert "accuracy 95.0% of 100 examples against 90.0%" in caveat
    assert "recall: label 0 94.4%, label 1 100.0%" in caveat


def test_base_models_that_differ_by_their_seed_are_named_and_who_reads_them(filled_store: Store) -> None:
    keys = {"fits": {"base model, seed 0": "base-0-0"}}
    filled_store.write_experiment(EXPERIMENT, CONFIGURATION, [], keys)
    poor, good = [0] * 34 + [1] * 16 + [0] * 16 + [1] * 34, [0] * 40 + [1] * 60
    write_base_fits(filled_store, HALVES, poor, good, good, good, good)
    (caveat,) = caveats_of(filled_store)
    assert caveat.startswith(
        "Base models differ by their seed alone: val accuracy from 68.0% (base model, seed 0) to 90.0% (base model, "
        "seed 1); attribution reads base model, seed 0. Train longer"
    )


def test_a_trained_model_that_misses_a_label_is_named_with_its_arm(filled_store: Store, write_trial) -> None:
    filled_store.write_experiment(EXPERIMENT, {**CONFIGURATION, "label_names": ["0", "1"]}, [])
    write_base_fits(filled_store, HALVES, *[[0] * 40 + [1] * 60] * 5)
    write_trial("dfr", 77, 0)
    rows = filled_store.read("trials", "dfr-77-0", "dfr").drop(columns="method")
    rows["accuracy"] = rows["accuracy"].where(~rows["group"].str.endswith("/1"), 0.0)
    filled_store.write("trials", "dfr-77-0", rows, {}, "dfr")
    told = [caveat for caveat in caveats_of(filled_store) if "got no test example" in caveat]
    assert told == ["1 of 36 models trained for arms got no test example of '1' right: dfr, 77 removed."]


def test_a_missed_label_is_found_among_groups_whose_names_end_like_cells(store: Store, write_trial) -> None:
    store.write_experiment(EXPERIMENT, {**CONFIGURATION, "label_names": ["0", "1"]}, [])
    for method, missed in (("group_dro", "/0"), ("random", "none")):
        write_trial(method, 50, 0)
        rows = store.read("trials", f"{method}-50-0", method).drop(columns="method")
        names = {name: f"{name}/0" for name in ("ant", "bee", "cat", "dog")}
        rows["group"] = [
            "/".join([names[g.split("/")[0]], *g.split("/")[1:]]) if g.split("/")[0] in names else g
            for g in rows["group"]
        ]
        is_missed = rows["group"].str.count("/").eq(2) & rows["group"].str.endswith(missed)
        rows["accuracy"] = rows["accuracy"].where(~is_missed, 0.0)
        store.write("trials", f"{method}-50-0", rows, {}, method)
    told = [caveat for caveat in caveats_of(store) if "got no test example" in caveat]
    assert told == ["1 of 2 models trained for arms got no test example of '0' right: group_dro, 50 removed."]


def test_few_shared_seeds_are_named(store: Store, write_trial) -> None:
    for seed in range(5):
        write_trial("trak", 50, seed, 0.01 * seed)
        write_trial("random", 50, seed + 3, 0.0)
    (caveat,) = caveats_of(store)
    assert caveat.startswith(
        "These share fewer than 5 of their seeds with random removal of as many: trak, 50 removed (2 "
    )


def test_small_test_groups_are_named(store: Store, write_trial) -> None:
    for seed in range(5):
        write_trial("trak", 50, seed, 0.01 * seed, num_examples=27)
        write_trial("random", 50, seed, 0.0, num_examples=27)
    (caveat,) = caveats_of(store)
    assert caveat.startswith("Test groups are small, ant has 27 examples: one of them is 3.7 points of its accuracy.")


def test_a_label_that_is_never_right_is_named(filled_store: Store) -> None:
    filled_store.write_experiment(EXPERIMENT, {**CONFIGURATION, "label_names": ["calm", "cross", "glad"]}, [])
    labels = [0] * 40 + [1] * 40 + [2] * 20
    sound = [0] * 35 + [1] * 45 + [2] * 20
    write_base_fits(filled_store, labels, sound, sound, sound, sound, [0] * 40 + [1] * 60)
    assert caveats_of(filled_store) == ["1 of 5 base models got no example of 'glad' right on val."]


def test_base_models_that_no_trial_uses_are_found_by_the_record(store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(5):
        write_trial("trak", 50, seed, 0.01 * seed)
        write_trial("random", 50, seed)
    write_fit(store, "the-base", HALVES, [1] * 100)
    assert caveats_of(store) == []
    named = {**CONFIGURATION, "label_names": ["calm", "cross"]}
    store.write_experiment(EXPERIMENT, named, [], {"fits": {"base model, seed 0": "the-base"}})
    (caveat,) = caveats_of(store)
    assert caveat.startswith("The base model answered 'cross' for 100.0% of val")


def test_arms_that_are_all_alike_are_called_so(store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(5):
        for method in ("trak", "ekfac", "random"):
            for num_removed in (0, 50, 100):
                write_trial(method, num_removed, seed, 0.01 * seed)
    (caveat,) = caveats_of(store)
    assert caveat.startswith("All arms, whatever they removed, have the same accuracy in every group under every seed")
    write_trial("ekfac", 100, 3, 0.5, key_suffix="-new", created_at=pd.Timestamp("2026-05-01", tz="UTC"))
    (caveat,) = caveats_of(store)
    assert caveat == (
        "No group under any seed tells these from random removal of as many: ekfac, 50 removed; trak, 50 removed; "
        "trak, 100 removed."
    )


def test_one_model_under_several_names_is_no_null_result(store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(5):
        for method in ("trak", "random"):
            write_trial(method, 0, seed)
    assert caveats_of(store) == []


@pytest.mark.parametrize(("more", "said"), [(0, "(2):"), (1, "(2 to 3):"), (3, "(2) in some arms:")])
def test_few_seeds_are_said(store: Store, write_trial: Callable[..., None], more: int, said: str) -> None:
    for seed in range(2):
        write_trial("trak", 50, seed, 0.02 * seed)
    for seed in range(2 + more):
        write_trial("random", 50, seed, 0.01)
    (caveat,) = caveats_of(store)
    assert caveat.startswith(f"Fewer than 5 seeds {said} their values are shown, and no interval.")
    assert caveat.endswith("--seeds 0 1 2 3 4 (of an LDS: --removal-seeds, as many) gives intervals.")


def test_they_are_written_into_the_record(store: Store) -> None:
    with pytest.raises(StoreError, match="holds no experiment"):
        store.write_caveats(EXPERIMENT, ["One."])
    store.write_experiment(EXPERIMENT, CONFIGURATION, [("trak", 0, 0)])
    store.write_caveats(EXPERIMENT, ["One."])
    record = store.read_experiments()[EXPERIMENT]
    assert (record.caveats, len(record.plan)) == (("One.",), 1)
    store.write_experiment(EXPERIMENT, CONFIGURATION, [("trak", 0, 1)])
    assert store.read_experiments()[EXPERIMENT].caveats == (), "they were about a smaller plan"
    assert store.read_experiments()[EXPERIMENT].created_at == record.created_at


def test_removals_that_a_cell_floor_changed_are_named(store: Store, write_trial: Callable[..., None]) -> None:
    keys = {"alignments": {"trak": "a"}}
    store.write_experiment(EXPERIMENT, CONFIGURATION, [], keys)
    for seed in range(5):
        for method in ("trak", "random"):
            write_trial(method, 50, seed, 0.01 * seed)
        key = f"trak-50-{seed}"
        selection = {"cell_floor": "10%", "num_spared": 7, "spared_cells": {"ant/1": 7}}
        store.write(
            "trials", key, store.read("trials", key, "trak").drop(columns="method"), {"selection": selection}, "trak"
        )
    said = [caveat for caveat in caveats_of(store) if "--cell-floor" in caveat]
    assert said == [
        "Each cell keeps 10% of its train examples at least (--cell-floor), so these do not remove the lowest alone: "
        "trak, 50 removed (7 kept)."
    ]
