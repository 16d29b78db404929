import numpy as np
import pandas as pd
import pytest

from d3m_ray.analysis.choice import arms_of, chosen_numbers
from d3m_ray.analysis.results import Results
from d3m_ray.store.experiments import Experiment
from d3m_ray.store.store import Store

RECORD = Experiment("insects", {"dataset": "insects", "model": "tiny"}, ())


Rows = list[dict[str, object]]


def trial(method: str, number: int, seed: int, val: float, test: float, objective: str = "erm") -> Rows:
    shared = {"method": method, "num_removed": number, "seed": seed, "objective": objective, "fit_key": "f"}
    return [
        {**shared, "split": split, "group": group, "accuracy": accuracy}
        for split, accuracy in (("val", val), ("test", test))
        for group in ("worst", "all")
    ]


def results_of(tmp_path: object, *trials: Rows) -> Results:
    return Results(Store(f"{tmp_path}/store"), RECORD, pd.DataFrame(np.concatenate(trials).tolist()))


def test_the_number_is_chosen_on_val_whatever_test_says(tmp_path: object) -> None:
    results = results_of(
        tmp_path,
        trial("trak", 0, 0, 0.9, 0.9),  # the base model is no choice
        trial("trak", 50, 0, 0.6, 0.9),
        trial("trak", 50, 1, 0.8, 0.9),
        trial("trak", 100, 0, 0.9, 0.5),
        trial("trak", 100, 1, 0.7, 0.5),
    )
    assert chosen_numbers(results) == {"trak": 100}


def test_of_equals_the_smallest_is_chosen(tmp_path: object) -> None:
    trials = [trial("trak", number, 0, 0.75, number / 1000) for number in (200, 50, 100)]
    assert chosen_numbers(results_of(tmp_path, *trials)) == {"trak": 50}


@pytest.mark.parametrize(("number", "objective"), [(0, "group_dro"), (137, "erm")])
def test_an_arm_of_one_number_has_that_one(tmp_path: object, number: int, objective: str) -> None:
    results = results_of(tmp_path, trial("arm", number, 0, 0.5, 0.5, objective), trial("random", 0, 0, 0.9, 0.9))
    assert chosen_numbers(results) == {"arm": number}
    assert set(arms_of(results.trials)["method"]) == {"arm"}
