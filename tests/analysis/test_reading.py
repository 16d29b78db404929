"""Reading by program: tidy frames of every table, for one experiment or all, without anything that trains."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store

import d3m_ray
from d3m_ray.analysis import reading
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store

INSECTS = MadeUp(seeds=(0, 1), num_train=120, num_val=40, num_test=48, numbers=(20,), rules={"balanced": (30, "erm")})
BIRDS = MadeUp("birds-1", ("jay", "owl"), seeds=(3,), num_train=40, num_val=16, num_test=24, numbers=(5,), rules={})
READERS = {name: getattr(d3m_ray, name) for name in d3m_ray.__all__ if name.startswith("read_")}
NOT_LOADED = ("torch", "ray", "transformers", "sklearn", "scipy", "matplotlib")
ONE_CPU_SECOND_AND_A_HALF = 1.5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    filled = Store(tmp_path_factory.mktemp("reading"))
    for made in (INSECTS, BIRDS):
        fill_store(filled, made)
    return filled


@pytest.fixture
def mine(tmp_path: Path) -> Store:
    """A small store that a test may change."""
    filled = Store(tmp_path / "mine")
    fill_store(filled, BIRDS)
    return filled


@pytest.mark.parametrize("name", READERS)
def test_the_columns_are_those_that_the_docstring_lists_and_their_types_are_plain(name: str, store: Store) -> None:
    frame = READERS[name](store)
    documented = re.findall(r"`([a-z_0-9]+)`", READERS[name].__doc__)
    assert set(frame.columns) == set(documented) - {"read_trials", "read_examples"}
    counts = {"num_removed", "seed", "label", "predicted", "num_examples", "num_train", "num_steps"}
    for column, dtype in frame.dtypes.astype(str).items():
        if column in counts:
            assert dtype == "int64"
        elif column in ("margin", "probability", "score") and name != "read_trials":
            assert dtype == "float32"
        elif column == "created_at":
            assert dtype == "datetime64[us, UTC]"
        elif f"`{column}` (float64" in READERS[name].__doc__ or column in frame.select_dtypes("float64").columns:
            assert dtype == "float64"
        else:
            assert dtype == ("category" if name == "read_scores" else "str")


@pytest.mark.parametrize("name", READERS)
def test_a_store_may_be_a_folder_a_uri_or_itself(name: str, store: Store) -> None:
    for form in (str(store), Path(str(store)), f"file://{store}"):
        pd.testing.assert_frame_equal(READERS[name](form), READERS[name](store))


@pytest.mark.parametrize("name", READERS)
def test_one_experiments_rows_are_its_part_of_all(name: str, store: Store) -> None:
    everything = READERS[name](store)
    assert set(everything["experiment"]) == {"insects-1a2b3c4d", "birds-1"}
    for experiment in ("insects-1a2b3c4d", "birds-1"):
        expected = everything[everything["experiment"] == experiment].reset_index(drop=True)
        found = READERS[name](store, experiment=experiment)
        assert len(found) > 0
        pd.testing.assert_frame_equal(found.astype(object), expected.astype(object))


def test_trials_are_the_stored_ones_in_order(store: Store) -> None:
    trials = d3m_ray.read_trials(store)
    key = ["experiment", "method", "num_removed", "seed", "split", "group"]
    assert trials[key].apply(tuple, axis=1).is_monotonic_increasing
    stored = store.read_all("trials").sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(trials, stored[trials.columns.tolist()])
    of_val = d3m_ray.read_trials(store, split="val")
    pd.testing.assert_frame_equal(of_val, trials[trials["split"] == "val"].reset_index(drop=True))


def test_of_a_trial_that_was_run_again_no_earlier_row_counts(mine: Store) -> None:
    before = d3m_ray.read_trials(mine)
    again = mine.read("trials", "trial-birds-1-trak-5-3", "trak").drop(columns="method")
    of_an_earlier_version = again.assign(
        trial_key="earlier", created_at=again["created_at"] - pd.Timedelta("1h"), group=again["group"] + " of old"
    )
    mine.write("trials", "earlier", of_an_earlier_version, {}, "trak")
    pd.testing.assert_frame_equal(d3m_ray.read_trials(mine), before)
    removed = pd.DataFrame({"trial_key": "earlier", "example_id": ["train/0"]})
    mine.write("removals", "earlier", removed, {}, "trak")
    assert "earlier" not in set(d3m_ray.read_removals(mine)["trial_key"])


def test_removals_are_those_of_each_trial_and_take_their_groups_from_the_examples(store: Store) -> None:
    removals, examples = d3m_ray.read_removals(store), d3m_ray.read_examples(store, split="train")
    sizes = removals.groupby(["experiment", "method", "num_removed", "seed"]).size().reset_index(name="size")
    assert (sizes["size"] == sizes["num_removed"]).all()
    trials = d3m_ray.read_trials(store).drop_duplicates(["experiment", "method", "num_removed", "seed"])
    assert len(sizes) == (trials["num_removed"] > 0).sum()
    merged = removals.merge(examples, on=["experiment", "example_id"], validate="many_to_one")
    assert len(merged) == len(removals)
    assert set(d3m_ray.read_removals(store, method="balanced")["method"]) == {"balanced"}


def test_fits_stand_once_for_each_trial_that_they_answer(store: Store) -> None:
    fits = d3m_ray.read_fits(store, split="test")
    assert set(fits["split"]) == {"test"}
    right = (fits["predicted"] == fits["label"]).groupby([fits[name] for name in reading.TRIAL]).mean()
    trials = d3m_ray.read_trials(store, split="test").query("group == 'all'").set_index(reading.TRIAL)["accuracy"]
    pd.testing.assert_series_equal(right, trials, check_names=False)
    base = fits.query("experiment == 'birds-1' and num_removed == 0")
    assert len(set(base["fit_key"])) == 1
    assert base.groupby("method").size().to_dict() == {"ekfac": 24, "random": 24, "trak": 24}
    of_random = d3m_ray.read_fits(store, method="random", experiment="birds-1", split="val")
    assert of_random.groupby(["method", "num_removed"]).size().to_dict() == {("random", 0): 16, ("random", 5): 16}


def test_scores_make_a_matrix_of_train_by_groups(store: Store) -> None:
    scores = d3m_ray.read_scores(store, method="trak", experiment="birds-1")
    matrix = scores.pivot(index="example_id", columns="query_set", values="score")
    assert matrix.shape == (40, 2)
    alignments = d3m_ray.read_alignments(store, method="trak", experiment="birds-1")
    means = matrix.mean(axis=1)[alignments["example_id"]]
    assert means.tolist() == pytest.approx(alignments["alignment"].tolist(), abs=1e-6)


def test_a_shared_result_stands_once_for_each_experiment_and_one_of_none_is_kept(mine: Store) -> None:
    record = mine.read_experiment("birds-1")
    mine.write_experiment("birds-2", record.configuration, [], record.keys)
    mine.write_experiment("birds-3", {"dataset": "birds", "model": "of an earlier version"}, [])
    for name, number in (("read_alignments", 40), ("read_scores", 80)):
        for method in ("trak", "ekfac"):
            rows = READERS[name](mine, method=method)
            assert rows["experiment"].value_counts().to_dict() == {"birds-1": number, "birds-2": number}
            assert set(rows["method"]) == {method}
            assert len(READERS[name](mine, experiment="birds-2", method=method)) == number
        assert READERS[name](mine, experiment="birds-3").empty
    assert d3m_ray.read_examples(mine)["experiment"].value_counts().to_dict() == {"birds-1": 80, "birds-2": 80}
    stray = mine.read("alignments", "alignment-birds-1-trak", "trak").drop(columns="method")
    mine.write("alignments", "stray", stray.assign(alignment_key="stray"), {}, "trak")
    rows = d3m_ray.read_alignments(mine)
    assert rows.loc[rows["experiment"].isna(), "alignment_key"].tolist() == ["stray"] * 40
    assert len(d3m_ray.read_alignments(mine, experiment="birds-1")) == 80


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_in_the_store_is_refused_with_what_is(name: str, store: Store, tmp_path: Path) -> None:
    read = READERS[name]
    with pytest.raises(StoreError, match=r"(holds no experiment|is not there); name what a run was given as --store"):
        read(tmp_path / "nowhere")
    for unknown in ("birds", "../birds", ""):
        with pytest.raises(StoreError, match=rf"no experiment '{unknown}'; it has birds-1, insects-1a2b3c4d"):
            read(store, experiment=unknown)
    if "method" in read.__annotations__:
        with pytest.raises(StoreError, match=r"of method 'trap'; it has .*trak"):
            read(store, method="trap", experiment="birds-1")
        with pytest.raises(StoreError, match=r"no experiment 'birds'; it has"):
            read(store, method="trap", experiment="birds")
    if "split" in read.__annotations__:
        with pytest.raises(StoreError, match=r"of split 'dev'; it has test,.* val"):
            read(store, split="dev")


@pytest.mark.parametrize("name", READERS)
def test_an_experiment_that_has_only_begun_has_empty_frames_of_the_same_columns(name: str, tmp_path: Path) -> None:
    begun, full = Store(tmp_path / "begun"), Store(tmp_path / "full")
    fill_store(full, BIRDS)
    record = full.read_experiment("birds-1")
    begun.write_experiment("birds-1", record.configuration, record.plan, record.keys)
    for arguments in ({}, {"experiment": "birds-1"}):
        empty = READERS[name](begun, **arguments)
        assert empty.empty
        dtypes = READERS[name](full, **arguments).dtypes.map(lambda dtype: dtype.name)
        pd.testing.assert_series_equal(empty.dtypes.map(lambda dtype: dtype.name), dtypes)
    if "method" in READERS[name].__annotations__:
        with pytest.raises(StoreError, match="of method 'trak'; it has none yet"):
            READERS[name](begun, method="trak")


def test_a_damaged_file_is_named(mine: Store) -> None:
    path = Path(mine.file_of("alignments", "alignment-birds-1-trak", "trak"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"{path} is damaged"):
        d3m_ray.read_alignments(mine)


def test_reading_loads_nothing_that_trains_or_draws_and_starts_fast() -> None:
    code = (
        "import sys, d3m_ray\n"
        "assert 'pandas' not in sys.modules\n"
        "assert set(d3m_ray.__all__) <= set(dir(d3m_ray))\n"
        "d3m_ray.read_trials\n"
        f"print([name for name in {NOT_LOADED} if name in sys.modules])\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert loaded.strip() == "[]"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < ONE_CPU_SECOND_AND_A_HALF


def test_the_package_knows_its_readers_and_nothing_else() -> None:
    assert all(READERS[name] is getattr(reading, name) for name in READERS)
    assert len(READERS) == 6
    with pytest.raises(AttributeError, match="no attribute 'read_nothing'"):
        d3m_ray.read_nothing  # noqa: B018
