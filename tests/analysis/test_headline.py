from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up_results import Simulated, simulate
from made_up_store import MadeUp, fill_store

from d3m_ray.analysis.contrasts import declared_table
from d3m_ray.analysis.headline import Headline, headline
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store

NUM_STORES = 200
GAIN = {("trak", 100): 0.12}
LEVELS = (1.0, 0.9, 0.9, 0.3)  # one group is clearly the worst
SMALL = Simulated(("trak", "ekfac"), (50, 100), num_test=2400, group_levels=LEVELS, luck=0.02, noise=0.2)

WriteTrial = Callable[..., None]


def of_store(store: Store) -> Headline:
    (results,) = read_results(store)
    return headline(results)


@pytest.mark.slow
def test_null_stores_are_called_null(tmp_path: Path) -> None:
    """Half have arms like random removal, half have arms that differ on the examples that are in the test set alone."""
    kinds = [
        headline(simulate(made, draw, tmp_path)).kind
        for made in (Simulated(), Simulated(fixed=1.0))
        for draw in range(NUM_STORES // 2)
    ]
    assert set(kinds) <= {"none", "effect", "harm"}
    assert kinds.count("none") >= 0.95 * NUM_STORES


def test_a_planted_effect_is_found_and_set_beside_the_base(tmp_path: Path) -> None:
    results = simulate(replace(SMALL, gains=GAIN), 0, tmp_path)
    row = declared_table(results).set_index("method").loc["trak"]
    base = declared_table(results, "base").set_index("method").loc["trak"]
    found = headline(results)
    assert found.kind == "effect"
    interval = f"95% interval {100 * row['boot_low']:+.1f} to {100 * row['boot_high']:+.1f}"
    assert found.sentence.startswith(
        f"trak (100 train examples removed) raises the worst group's test accuracy by {100 * row['difference']:.1f} "
        f"points against random removal of as many ({interval}, 6 seeds, p < 0.001, "
    )
    assert "against removing nothing " in found.sentence
    assert f"against removing nothing {100 * base['difference']:+.1f} points (95% interval " in found.sentence
    assert found.sentence.endswith("No difference is shown for ekfac.")
    assert any(
        detail.startswith("trak (100 train examples removed), the best of 2 numbers on val") for detail in found.details
    )
    assert any("exact sign-flip p is never below 0.031, and 2 arms are tested" in detail for detail in found.details)


def test_a_harm_is_called_so(tmp_path: Path) -> None:
    harm = {("trak", number): -0.12 for number in (50, 100)}
    found = headline(simulate(replace(SMALL, gains=harm), 0, tmp_path))
    assert found.kind == "harm"
    assert " lowers the worst group's test accuracy by " in found.sentence


def test_several_claims_are_all_named_and_gains_come_first(tmp_path: Path) -> None:
    gains = {("trak", number): -0.15 for number in (50, 100)} | {("ekfac", 100): 0.15}
    found = headline(simulate(replace(SMALL, gains=gains), 0, tmp_path))
    assert found.kind == "effect"
    assert found.sentence.index("ekfac (100 train examples removed) raises") < found.sentence.index("trak (")
    assert "No difference is shown" not in found.sentence


def test_what_could_have_been_shown_stands_where_nothing_is(tmp_path: Path) -> None:
    results = simulate(SMALL, 1, tmp_path)
    declared = declared_table(results)
    smallest = 100 * declared["smallest_difference"]
    found = headline(results)
    assert found.kind == "none"
    assert found.sentence.startswith("No difference shown for any of 2 arms (ekfac and trak); the highest is ")
    said = f"6 seeds could have shown is {smallest.min():.1f} to {smallest.max():.1f} points by arm; a difference of 2 "
    assert said in found.sentence


def test_of_many_arms_some_are_named_in_the_sentence_and_all_in_the_details(tmp_path: Path) -> None:
    methods = tuple(f"arm_{number}" for number in range(12))
    found = headline(simulate(replace(SMALL, methods=methods, numbers=(50,), num_test=400), 0, tmp_path))
    assert "any of 12 arms (arm_0, arm_1, arm_10, arm_11, arm_2, arm_3, arm_4, arm_5 and 4 more)" in found.sentence
    assert all(any(detail.startswith(f"{method} (") for detail in found.details) for method in methods)


def test_one_arm_without_effect_is_one_sentence(tmp_path: Path) -> None:
    one = replace(SMALL, methods=("trak",), numbers=(50,))
    sentence = headline(simulate(one, 3, tmp_path)).sentence
    assert sentence.startswith("No difference shown: trak (50 train examples removed) ")
    assert " by arm" not in sentence


def test_too_small_a_test_set_is_said(tmp_path: Path) -> None:
    made = Simulated(methods=("trak",), numbers=(50,), fixed=2.0, noise=0.1, num_test=80)
    found = headline(simulate(made, 1, tmp_path))
    assert found.kind == "none"
    assert "a difference of 2 points would take a larger test set, however many the seeds." in found.sentence


@pytest.fixture(scope="module")
def null_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("headline") / "store")
    fill_store(store, MadeUp(methods=("trak", "random"), numbers=(50, 100), num_train=200, num_val=200, rules={}))
    return store


def test_a_whole_null_store_is_called_null(null_store: Store) -> None:
    assert of_store(null_store).kind == "none"


@pytest.mark.slow
def test_a_gain_planted_in_a_whole_store_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made = MadeUp(methods=("trak", "random"), numbers=(50, 100), num_test=2400, seed_noise=0.01)
    fill_store(store, made, gain=lambda method, number: 0.08 if (method, number) == ("trak", 100) else 0)
    found = of_store(store)
    assert found.kind == "effect"
    assert found.sentence.startswith("trak (100 train examples removed) raises the worst group's test accuracy by ")
    assert "No difference is shown for balanced." in found.sentence


def test_without_a_trial_nothing_can_be_said(store: Store, write_trial: WriteTrial) -> None:
    store.write_experiment("insects-1a2b3c4d", {"dataset": "insects", "model": "tiny-bert"}, [])
    assert of_store(store) == Headline("No conclusion: no test trial is stored.", (), "no conclusion")
    for seed in range(6):
        write_trial("trak", 0, seed, 0.01 * seed)
    assert of_store(store).sentence == (
        "No conclusion: only models that were trained on everything are stored, and no arm to compare with them."
    )
    for seed in range(6):
        write_trial("random", 50, seed, 0.02 * seed)
    assert of_store(store).sentence == ("No conclusion: only random removal is stored, and no arm to compare with it.")


def test_an_arm_without_anything_to_compare_with_is_said(store: Store, write_trial: WriteTrial) -> None:
    for seed in range(6):
        write_trial("trak", 50, seed, 0.01 * seed)
        write_trial("random", 50, seed + 6, 0.01 * seed)
    assert "shares a seed with random removal of as many or with a model" in of_store(store).sentence


@pytest.mark.parametrize(("num_seeds", "said"), [(1, "1 seed cannot"), (4, "4 seeds cannot")])
def test_few_seeds_are_no_conclusion(store: Store, write_trial: WriteTrial, num_seeds: int, said: str) -> None:
    for seed in range(num_seeds):
        write_trial("trak", 50, seed, 0.2 + 0.01 * seed)
        write_trial("random", 50, seed)
    found = of_store(store)
    assert found.kind == "no conclusion"
    assert found.sentence.startswith(
        f"No conclusion: {said} tell an arm from chance, 5 are the fewest for an interval; "
    )
    assert found.sentence.endswith("points against random removal of as many.")
    assert any(detail.startswith("Fewer than 5 seeds") for detail in found.details)


def test_without_answers_nothing_is_claimed(filled_store: Store) -> None:
    found = of_store(filled_store)
    assert found.kind == "no conclusion"
    assert "answers on test are not stored" in found.sentence


def test_without_a_random_arm_it_is_the_base_that_counts(tmp_path: Path) -> None:
    results = simulate(replace(SMALL, gains=GAIN), 0, tmp_path)
    kept = results.all_trials[(results.all_trials["method"] != "random") | (results.all_trials["num_removed"] == 0)]
    without = Results(results.store, results.record, kept)
    vars(without)["answers"] = results.answers
    found = headline(without)
    assert found.kind == "effect"
    assert "points against removing nothing (95% interval" in found.sentence
    assert "against random" not in found.sentence


def test_arms_that_nothing_tells_apart_are_no_finding(store: Store, write_trial: WriteTrial) -> None:
    for seed in range(6):
        for method in ("trak", "random"):
            write_trial(method, 50, seed, 0.01 * seed)
    found = of_store(store)
    assert found.kind == "no conclusion"
    assert found.sentence.startswith(
        "No conclusion: All arms, whatever they removed, have the same accuracy in every group under every seed"
    )


@pytest.mark.parametrize(("num_poor", "kind"), [(6, "no conclusion"), (3, "no conclusion"), (2, "effect")])
@pytest.mark.parametrize("fault", ["one label", "chance"])
def test_base_models_that_learnt_nothing_void_a_finding(tmp_path: Path, fault: str, num_poor: int, kind: str) -> None:
    results = simulate(replace(SMALL, gains=GAIN), 0, tmp_path)
    for seed, key in results.base_fits.items():
        labels = [0, 1] * 50
        poor = [0] * 100 if fault == "one label" else [0, 1, 1, 0] * 25
        rows = pd.DataFrame({"label": labels, "predicted": poor if seed < num_poor else labels})
        rows = rows.assign(fit_key=key, split="val", group="ant", margin=1.0, probability=0.5)
        rows["example_id"] = [f"val/{row}" for row in range(100)]
        results.store.write("fits", key, rows, {})
    found = headline(results)
    assert found.kind == kind
    assert (f"{num_poor} of 6 base models" in found.sentence) == (kind == "no conclusion")
    assert any(f"{num_poor} of 6 base models" in detail for detail in found.details)


HELPFUL = Simulated(("trak", "trak_helpful"), (50, 100), num_test=2400, group_levels=LEVELS, luck=0.02, noise=0.2)


@pytest.mark.parametrize(
    ("gain", "kind", "expectation"),
    [
        (-0.15, "none", "lowers the worst group's test accuracy, as removing the most helpful should, by "),
        (
            0.15,
            "effect",
            "raises the worst group's test accuracy, though removing the most helpful should lower it, by",
        ),
    ],
)
def test_a_mirror_is_judged_by_what_it_should_do(tmp_path: Path, gain: float, kind: str, expectation: str) -> None:
    gains = {("trak_helpful", number): gain for number in HELPFUL.numbers}
    found = headline(simulate(replace(HELPFUL, gains=gains), 0, tmp_path))
    assert found.kind == kind
    assert expectation in found.sentence
    assert found.sentence.startswith("No difference shown: trak (" if gain < 0 else "trak_helpful (")
    alone = headline(simulate(replace(HELPFUL, methods=("trak_helpful",), gains=gains), 0, tmp_path))
    assert alone.kind == kind
    assert alone.sentence.startswith("trak_helpful (")


@pytest.mark.parametrize("num_seeds", [3, 6])
def test_what_was_chosen_on_test_is_said_first(tmp_path: Path, num_seeds: int) -> None:
    results = simulate(Simulated(("trak",), (50,), num_seeds=num_seeds), 0, tmp_path)
    results.record.configuration["protocol"] = "thesis"  # type: ignore[index]
    assert headline(results).sentence.startswith("Chosen ON TEST, by the protocol `thesis`: ")


def test_an_arm_without_a_pair_is_named_beside_those_judged(tmp_path: Path) -> None:
    results = simulate(SMALL, 0, tmp_path)
    trials = results.all_trials
    is_gone = (trials["num_removed"] == 0) | ((trials["method"] == "ekfac") & (trials["seed"] < 6))
    lone = trials[trials["method"] == "ekfac"].assign(seed=lambda rows: rows["seed"] + 6)
    kept = Results(results.store, results.record, pd.concat([trials[~is_gone], lone]))
    vars(kept)["answers"] = results.answers
    assert " Nothing is stored to compare ekfac with: under no seed" in headline(kept).sentence
