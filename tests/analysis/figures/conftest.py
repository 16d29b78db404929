"""Made-up experiments, each filled once: one as most are, and one with names as odd as users make them."""

import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store

LONG = "a name that goes on and on " * 8
GROUPS = ("$x_1^2$", "<b>", "猫の家", "猫の木", "_leading", "under_score", LONG, *(f"group {i}" for i in range(11)))
LABELS = ("kind", "$rude$", "label_3")


def fill(folder: pytest.TempPathFactory, made: MadeUp) -> Results:
    store = Store(folder.mktemp("store"))
    fill_store(store, made)
    return read_results(store)[0]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Four groups, five seeds, three methods, a rule of one number, and an arm that trains otherwise."""
    rules = {"trak_heuristic": (137, "erm"), "group_dro": (0, "group_dro")}
    made = MadeUp(rules=rules, numbers=(50, 100), seeds=tuple(range(5)), num_train=240, num_val=80, num_test=160)
    return fill(tmp_path_factory, made)


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """18 groups of odd names, three labels, two seeds, numbers close together and far apart."""
    made = MadeUp(
        groups=GROUPS,
        label_names=LABELS,
        methods=("trak", "ekfac", "random"),
        rules={},
        numbers=(1, 22, 24, 100),
        seeds=(0, 1),
        num_train=162,
        num_val=54,
        num_test=108,
    )
    return fill(tmp_path_factory, made)


@pytest.fixture(scope="session")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One seed of one method, and no random removal."""
    made = MadeUp(methods=("trak",), rules={}, numbers=(50,), seeds=(3,), num_train=96, num_val=48, num_test=48)
    return fill(tmp_path_factory, made)
