"""Made-up experiments, each filled once: one as most are, and one with names as odd as users make them."""

import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store import Store

LONG = "a name that goes on and on " * 8
GROUPS = ("$x_1^2$", "<b>", "猫の家", "猫の木", "_leading", "under_score", LONG, *(f"group {i}" for i in range(11)))
LABELS = tuple(f"label {i}" for i in range(12))


def fill(folder: pytest.TempPathFactory, made: MadeUp) -> Results:
    store = Store(folder.mktemp("store"))
    fill_store(store, made)
    return read_results(store)[0]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Four groups, six seeds, three methods, a rule of one number, and an arm that trains otherwise."""
    rules = {"trak_heuristic": (277, "erm"), "group_dro": (0, "group_dro")}
    return fill(tmp_path_factory, MadeUp(rules=rules, num_train=240, num_val=80, num_test=160))


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """18 groups of odd names, 12 labels, two seeds, numbers close together and far apart."""
    made = MadeUp(
        groups=GROUPS,
        label_names=LABELS,
        methods=("trak", "ekfac", "random"),
        rules={},
        numbers=(1, 2, 22, 24, 200),
        seeds=(0, 1),
        num_train=432,
        num_val=216,
        num_test=216,
    )
    return fill(tmp_path_factory, made)


@pytest.fixture(scope="session")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One seed of one method, and no random removal."""
    made = MadeUp(methods=("trak",), rules={}, numbers=(50,), seeds=(3,), num_train=96, num_val=48, num_test=48)
    return fill(tmp_path_factory, made)


def contrasts(results: Results) -> pd.DataFrame:
    """The columns of the contrast table that the figures read, of the worst group, with made-up intervals."""
    worst = results.trials[results.trials["group"] == "worst"]
    rows = []
    for (method, number), arm in worst[worst["method"] != "random"].groupby(["method", "num_removed"]):
        at_random = worst[(worst["method"] == "random") & (worst["num_removed"] == number)]
        base = worst[(worst["num_removed"] == 0) & (worst["method"] == "trak")]
        for reference, other in (("random", at_random), ("base", base)):
            difference = (arm.set_index("seed")["accuracy"] - other.set_index("seed")["accuracy"]).dropna()
            if number and len(difference):
                half = 0.01 if len(difference) >= 5 else float("nan")
                row = {"method": method, "num_removed": number, "reference": reference, "measure": "worst"}
                row |= {"num_pairs": len(difference), "difference": difference.mean()}
                row |= {"t_low": difference.mean() - half, "t_high": difference.mean() + half}
                rows.append(row | {"differences": " ".join(f"{value:.6g}" for value in difference)})
    return pd.DataFrame(rows)
