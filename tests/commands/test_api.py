"""`run` and `plan` from Python: what they return and show, what they leave alone, and where they run."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import d3m_ray as d3m
from d3m_ray.cluster import engine as cluster_engine
from d3m_ray.commands import api
from d3m_ray.commands.engines import engine_of
from d3m_ray.data.corpora import load_splits
from d3m_ray.errors import RunError
from d3m_ray.experiment.progress import Progress
from d3m_ray.pool import LocalPool
from d3m_ray.store.preparations import Preparation
from d3m_ray.store.store import Store
from d3m_ray.training import preparation
from d3m_ray.trials import engine as local_engine
from d3m_ray.trials import trial as trial_module
from d3m_ray.trials.engine import LocalEngine
from d3m_ray.trials.settings import ExecutionConfig

CONFIG = d3m.ExperimentConfig(
    d3m.Planted(num_train=48, num_val=24, num_test=24),
    model="tiny",
    methods=("trak", "trak_heuristic", "random"),
    num_removed=(0, 6),
    seeds=(0, 1),
    training=d3m.TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
)
NUM_TRIALS = 2 * (2 + 1 + 2)


@dataclasses.dataclass(frozen=True)
class Ran:
    """A run, and what was planned on either side of it."""

    before: d3m.Plan
    result: d3m.Result
    after: d3m.Plan


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    store = tmp_path_factory.mktemp("api") / "store"
    before = d3m.plan(CONFIG, store)
    assert not store.exists(), "a plan writes nothing"
    return Ran(before, d3m.run(CONFIG, store, engine="local"), d3m.plan(CONFIG, store))


def test_a_plan_says_what_would_be_trained_and_what_waits(ran: Ran) -> None:
    before = ran.before
    assert (len(before.trials), before.num_stored) == (NUM_TRIALS, 0)
    assert before.num_fits == 2 + 2, "all of train, of which one is the base model, and random removal, by two seeds"
    states = before.trials.groupby("method")["state"].value_counts().to_dict()
    assert states == {
        ("random", "to train"): 4,
        ("trak", "to train"): 2,
        ("trak", "waits for scores"): 2,
        ("trak_heuristic", "waits for scores"): 2,
    }
    assert before.trials.loc[before.trials["method"] == "trak_heuristic", "num_removed"].isna().all()
    first, *table = repr(before).splitlines()
    expected = "10 trials, 0 of them stored; 4 fits to train, and up to 4 more when their scores are made"
    assert first == f"{before.experiment}: {expected}"
    assert table[0].split() == ["state", "to", "train", "waits", "for", "scores"]


def test_a_plan_of_what_is_done_has_nothing_to_train(ran: Ran) -> None:
    after = ran.after
    assert (after.num_stored, after.num_fits, set(after.trials["state"])) == (NUM_TRIALS, 0, {"stored"})
    assert after.experiment == ran.before.experiment == ran.result.experiment


def test_what_is_done_is_repeated_without_a_cluster(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster_engine, "connected", lambda *_: pytest.fail("nothing is to be trained"))
    again = d3m.run(CONFIG, ran.result.store, engine="ray")
    assert again.trials.equals(ran.result.trials)
    assert f"{NUM_TRIALS} of them stored before; 0 fits to train" in capsys.readouterr().err


def test_what_is_done_is_repeated_without_its_model(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Path(ran.result.store) / "experiments" / f"{ran.result.experiment}.json"
    before = json.loads(record.read_bytes())
    monkeypatch.setattr(preparation, "prepare_model", lambda *_: pytest.fail("nothing is to be trained or scored"))
    again = d3m.run(CONFIG, ran.result.store, engine="local")
    assert again.trials.equals(ran.result.trials)
    assert f"{NUM_TRIALS} of them stored before; 0 fits to train" in capsys.readouterr().err
    after = json.loads(record.read_bytes())
    assert after["provenance"].pop("recorded_at") >= before["provenance"].pop("recorded_at")
    assert after == before
    assert repr(d3m.plan(CONFIG, ran.result.store)) == repr(ran.after)


def test_a_warning_about_the_model_is_given_again(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, key, kept = copy_with_preparation(ran, tmp_path)
    store.write_preparation(key, dataclasses.replace(kept, warnings=("6% of the texts are long",)))
    assert d3m.plan(dataclasses.replace(CONFIG, experiment=ran.result.experiment), str(store)).num_fits == 0
    assert "warning: 6% of the texts are long" in capsys.readouterr().err


def test_a_damaged_preparation_is_made_again(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key, kept = copy_with_preparation(ran, tmp_path)
    path = tmp_path / "store" / "preparations" / f"{key}.json"
    path.write_bytes(path.read_bytes().replace(b'"cpu, ', b'"cuda, '))
    assert store.read_preparation(key) is None
    assert not d3m.run(CONFIG, str(store), engine="local").failed
    assert store.read_preparation(key) == kept
    path.write_bytes(b"[]")
    assert d3m.plan(CONFIG, str(store)).is_done
    assert path.read_bytes() == b"[]", "a plan writes nothing"


def test_a_preparation_that_is_not_what_preparing_comes_to_is_refused_and_replaced(ran: Ran, tmp_path: Path) -> None:
    store, key, kept = copy_with_preparation(ran, tmp_path)
    store.write_preparation(key, dataclasses.replace(kept, model_hash="0123456789abcdef0123"))
    with pytest.raises(RunError, match=r"of tiny .* had kept something else, which is replaced"):
        d3m.run(CONFIG, str(store), engine="local")
    assert store.read_preparation(key) == kept
    assert d3m.plan(CONFIG, str(store)).is_done


def copy_with_preparation(ran: Ran, folder: Path) -> tuple[Store, str, Preparation]:
    """A copy of the store, and what it keeps of its one preparation."""
    store = Store(shutil.copytree(ran.result.store, folder / "store"))
    (path,) = (folder / "store" / "preparations").iterdir()
    kept = store.read_preparation(path.stem)
    assert kept is not None
    return store, path.stem, kept


def test_what_is_done_and_damaged_is_made_again_on_a_cluster_that_is_joined_then(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(ran.result.store, tmp_path / "store"))
    fit = next(iter(sorted((store / "fits").rglob("*.parquet"))))
    fit.write_bytes(fit.read_bytes()[:-9])
    joined = []

    @contextmanager
    def connected(*_: object) -> Iterator[LocalEngine]:
        joined.append(True)
        yield LocalEngine()

    monkeypatch.setattr(cluster_engine, "connected", connected)
    assert not d3m.run(CONFIG, store, engine="ray").failed
    assert joined == [True]
    monkeypatch.setattr(cluster_engine, "connected", lambda *_: pytest.fail("nothing is to be trained"))
    d3m.run(CONFIG, store, engine="ray")


def test_a_damaged_trial_is_planned_and_recorded_again(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path(shutil.copytree(ran.result.store, tmp_path / "store"))
    trial = min((store / "trials").rglob("*.parquet"))
    trial.write_bytes(trial.read_bytes()[:-9])
    planned = d3m.plan(CONFIG, store)
    assert (planned.num_stored, planned.num_fits, planned.is_done) == (NUM_TRIALS - 1, 0, False)
    assert f"{trial} is damaged" in capsys.readouterr().err
    again = d3m.run(CONFIG, store, engine="local")
    assert len(again.trials) == len(ran.result.trials)
    assert d3m.plan(CONFIG, store).is_done


@pytest.mark.parametrize(
    ("tables", "num_fits", "states"),
    [
        (("trials",), 0, {"to record"}),
        (("fits",), 8, {"to train"}),
        (("removals",), 0, {"stored", "to record"}),
        (("alignments",), 0, {"stored"}),
        (("alignments", "scores"), 0, {"stored"}),
        (("alignments", "scores", "checkpoints"), 1, {"stored"}),
        (("checkpoints", "examples", "preparations"), 0, {"stored"}),
        (("alignments", "trials"), 0, {"to record", "waits for scores"}),
    ],
)
def test_a_plan_deletes_no_damaged_file_and_counts_none(
    tables: tuple[str, ...],
    num_fits: int,
    states: set[str],
    ran: Ran,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Path(shutil.copytree(ran.result.store, tmp_path / "store"))
    damaged = [path for table in tables for path in sorted((store / table).rglob("*.*"))]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-9])
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    planned = d3m.plan(CONFIG, store)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    said = capsys.readouterr().err
    for path in damaged:
        is_needed = path.parent.name not in ("examples", "preparations") and (num_fits or path.suffix != ".safetensors")
        assert said.count(f"{path} is damaged (") == bool(is_needed)
    assert said.count("is damaged (") == said.count(f"d3m-ray check {store} --repair deletes it")
    assert planned.num_fits == num_fits
    assert set(planned.trials["state"]) == states
    trained = []
    begin_fits = LocalEngine.begin_fits
    monkeypatch.setattr(
        LocalEngine, "begin_fits", lambda e, c, fits, on: trained.extend(fits) or begin_fits(e, c, fits, on)
    )
    assert not d3m.run(CONFIG, store, engine="local").failed
    assert len(trained) == num_fits
    said = capsys.readouterr().err
    assert all(f"{path} is damaged (" in said for path in damaged if path.parent.name != "preparations" and num_fits)
    assert d3m.plan(CONFIG, store).is_done


def test_base_models_whose_weights_were_deleted_are_planned_where_scores_are_missing(ran: Ran, tmp_path: Path) -> None:
    store = Path(shutil.copytree(ran.result.store, tmp_path / "store"))
    more = dataclasses.replace(CONFIG, methods=(*CONFIG.methods, "embedding"))
    assert d3m.plan(more, store).num_fits == 0
    shutil.rmtree(store / "checkpoints")
    assert d3m.plan(CONFIG, store).is_done
    assert d3m.plan(more, store).num_fits == 1
    shutil.rmtree(store / "scores")
    assert d3m.plan(CONFIG, store).num_fits == 1


def test_more_seeds_are_planned_beside_what_is_stored(ran: Ran) -> None:
    more = d3m.plan(dataclasses.replace(CONFIG, seeds=(0, 1, 2)), ran.result.store)
    assert more.num_stored == NUM_TRIALS
    assert more.num_fits == 4, "of seed 2: nothing, random, trak and what the heuristic removes, by stored scores"
    assert set(more.trials["state"]) == {"stored", "to train"}


def test_what_another_version_trained_counts_as_not_stored(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "TRAINING_VERSION", "of another day")
    plan = d3m.plan(CONFIG, ran.result.store)
    pd.testing.assert_frame_equal(plan.trials, ran.before.trials)
    assert (plan.num_stored, plan.num_fits) == (0, ran.before.num_fits)


def test_trials_whose_alignment_is_lost_count_as_stored(ran: Ran, tmp_path: Path) -> None:
    store = Path(shutil.copytree(ran.result.store, tmp_path / "store"))
    shutil.rmtree(store / "alignments")
    assert d3m.plan(CONFIG, store).num_stored == NUM_TRIALS


def test_a_trial_whose_fit_is_stored_is_to_be_recorded(ran: Ran, tmp_path: Path) -> None:
    store = Path(shutil.copytree(ran.result.store, tmp_path / "store"))
    another = d3m.plan(dataclasses.replace(CONFIG, experiment="another"), store)
    assert (another.num_stored, another.num_fits) == (0, 0)
    assert set(another.trials["state"]) == {"to record"}


def test_a_result_is_its_table_its_finding_and_its_cautions(ran: Ran) -> None:
    result = ran.result
    assert result.failed == ()
    assert set(result.summary["method"]) >= {"trak", "trak_heuristic", "random"}
    assert len(result.trials.groupby(["method", "num_removed", "seed"])) == NUM_TRIALS
    assert any("Fewer than 5 seeds" in caution for caution in result.cautions)
    shown = repr(result)
    assert f"{result.experiment}, test" in shown
    assert "worst group" in shown
    assert result.finding in shown
    assert all(caution in shown for caution in result.cautions)


def test_a_notebook_shows_the_finding_the_table_and_a_figure(ran: Ran) -> None:
    page = ran.result._repr_html_()
    assert page.startswith("<p><b>")
    assert page.count("<table") == 1
    assert page.count("<svg") == 1
    assert "caution: " in page


def test_a_report_is_written_where_it_is_asked_for(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3m_ray.analysis.figures.catalogue.all_figures", lambda results: {})
    page = ran.result.report(tmp_path / "pages")
    assert page.parent == tmp_path / "pages" / ran.result.experiment
    assert "<html" in page.read_text(encoding="utf-8")
    assert ran.result.report().is_relative_to(ran.result.store), "a local store has its figures in it"


def test_a_report_is_written_below_the_users_own_folder(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3m_ray.analysis.figures.catalogue.all_figures", lambda results: {})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ran.result.report("~/pages").is_relative_to(tmp_path / "pages")


def test_what_aligns_on_test_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thesis = dataclasses.replace(CONFIG, methods=("random",), num_removed=(0,), seeds=(0,), protocol="thesis")
    d3m.run(thesis, tmp_path, engine="local")
    assert "warning: --protocol thesis aligns on the TEST set" in capsys.readouterr().err


def test_what_failed_is_in_the_result_and_the_rest_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = local_engine.run_fit

    def diverges(context: Any, spec: Any) -> None:
        if len(spec.removed):
            raise FloatingPointError(f"the loss is not finite under seed {spec.seed}")
        original(context, spec)

    monkeypatch.setattr(local_engine, "run_fit", diverges)
    result = d3m.run(dataclasses.replace(CONFIG, methods=("random",)), tmp_path, engine="local")
    assert result.failed == ("2 fits: FloatingPointError: the loss is not finite under seed 0",)
    assert f"failed: {result.failed[0]}" in repr(result)
    assert f"failed: {result.failed[0]}" in result._repr_html_()


def test_where_nothing_succeeds_that_is_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "run_fit", lambda context, spec: 1 / 0)
    result = d3m.run(dataclasses.replace(CONFIG, methods=("random",)), tmp_path, engine="local")
    finding = "No conclusion: no test trial is stored."
    failed = "failed: 4 fits: ZeroDivisionError: division by zero"
    assert repr(result).splitlines() == [f"{result.experiment}, test", finding, failed]
    assert result._repr_html_() == f"<p><b>{finding}</b></p><p>{failed}</p>"


# --- where it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (None, ("ray", "local")),
        ("ray", ("ray", "local")),
        ("local", ("local", "local")),
        ("auto", ("ray", "auto")),
        ("head:6379", ("ray", "head:6379")),
        ("ray://10.0.0.1:10001", ("ray", "ray://10.0.0.1:10001")),
    ],
)
def test_an_engine_is_a_name_or_an_address(engine: str | None, expected: tuple[str, str]) -> None:
    given = dataclasses.replace(CONFIG, execution=ExecutionConfig(address="local", gpus_per_trial=0.5))
    execution = api.placed(given, None, engine).execution
    assert (execution.engine, execution.address) == expected
    assert execution.gpus_per_trial == 0.5


@pytest.mark.parametrize("engine", ["", "lokal", "ray://head", "http://head:80", "Ray"])
def test_an_engine_that_is_neither_is_refused(engine: str, tmp_path: Path) -> None:
    with pytest.raises(d3m.InputError, match="engine is ray, local, HOST:PORT or ray://HOST:PORT, received"):
        d3m.run(CONFIG, tmp_path, engine=engine)


def a_context(folder: Path) -> Any:
    """What a cluster is told of."""
    named = SimpleNamespace(name="planted")
    return SimpleNamespace(experiment="one", store=Store(folder), splits=named, pretrained=named)


def test_an_address_is_what_ray_joins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    joined: list[ExecutionConfig] = []

    @contextmanager
    def connected(execution: ExecutionConfig, *_: object) -> Iterator[LocalEngine]:
        joined.append(execution)
        yield LocalEngine()

    monkeypatch.setattr(cluster_engine, "connected", connected)
    given = api.placed(CONFIG, tmp_path, "ray://head:10001")
    with engine_of(given, a_context(tmp_path), Progress()):
        assert [execution.address for execution in joined] == ["ray://head:10001"]


def test_this_process_computes_with_as_many_threads_as_a_trial_has(tmp_path: Path) -> None:
    """Sums of other parts round otherwise, and would differ from what Ray stores under the same key."""
    before = torch.get_num_threads()
    given = api.placed(dataclasses.replace(CONFIG, execution=ExecutionConfig(cpus_per_trial=before + 1)), None, "local")
    with engine_of(given, a_context(tmp_path), Progress()) as engine, engine.pool(lambda *_: None) as pool:
        assert isinstance(pool, LocalPool)
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_one_model_serves_two_corpora_of_a_notebook(tmp_path: Path, model_folder: Callable[..., Path]) -> None:
    """Of its vocabulary a fit has the words of its corpus: the process must not take one's model for the other's."""
    sizes = [d3m.Planted(num_train=size, num_val=8, num_test=8) for size in (16, 48)]
    words = sorted({word for text in load_splits(sizes[1]).train.texts for word in text.lower().split()})
    folder = model_folder("bert", words=words, vocab_size=len(words) + 5)
    of_both = dataclasses.replace(
        CONFIG, model=str(folder), methods=("random",), num_removed=(0,), seeds=(0,),
        training=dataclasses.replace(CONFIG.training, max_length=30),
    )  # fmt: skip
    for corpus in sizes:
        given = dataclasses.replace(of_both, corpus=corpus)
        assert d3m.run(given, tmp_path, engine="local").failed == ()


def test_a_study_is_no_experiment(tmp_path: Path) -> None:
    study = d3m.LdsConfig(d3m.ExperimentConfig("planted", methods=("trak",)))
    for do in (d3m.run, d3m.plan):
        with pytest.raises(d3m.InputError, match=r"take an ExperimentConfig; d3m-ray lds .* received 'LdsConfig'"):
            do(study, tmp_path)  # type: ignore[arg-type]


# --- what a command line would have refused ---------------------------------------------------------------------------


def test_texts_stand_for_paths_and_a_corpus(tmp_path: Path) -> None:
    given = d3m.ExperimentConfig("planted", data=str(tmp_path), figures="figures", store=tmp_path)  # type: ignore[arg-type]
    assert given == d3m.ExperimentConfig(d3m.Planted(), tmp_path, figures=Path("figures"), store=str(tmp_path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda word: d3m.ExperimentConfig("planted", protocol=word), "--protocol is one of standard, thesis"),
        (lambda word: d3m.ExecutionConfig(engine=word), "--engine is one of ray, local"),
        (
            lambda word: d3m.ExperimentConfig("planted", alignment=d3m.AlignmentConfig(target=word)),
            "--target is one of margin, loss, probability, worst_loss",
        ),
        (
            lambda word: d3m.ExperimentConfig("planted", training=d3m.TrainingConfig(pairing=word)),
            "--pairing is one of common, independent",
        ),
    ],
)
def test_a_word_that_is_none_of_a_setting_s_is_refused(make: Any, said: str) -> None:
    with pytest.raises(d3m.InputError, match=f"{said}, received 'oter'"):
        make("oter")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": "trak"}, "--methods is a list of values, received 'trak'"),
        ({"seeds": 3}, "--seeds is a list of values, received 3"),
        ({"seeds": ()}, "--seeds is one or more whole numbers"),
        ({"seeds": ("0",)}, "--seeds is one or more whole numbers"),
        ({"num_removed": (0, 0.05)}, "a share of train below 100%, such as 5%, received 0.05; did you mean 5%"),
        ({"num_removed": (0, True)}, "a share of train below 100%, such as 5%, received True"),
        ({"num_checkpoints": 2.0}, "--num-checkpoints is a whole number, received 2.0"),
        ({"experiment": 3}, "--experiment is letters, digits"),
        ({"training": {"num_epochs": 1}}, "training is a TrainingConfig, received"),
        ({"training": d3m.TrainingConfig(num_epochs=1.5)}, "--num-epochs is a whole number, received 1.5"),  # type: ignore[arg-type]
        ({"trak": d3m.TrakConfig(damping=True)}, "--trak-damping is a number, received True"),
        ({"corpus": d3m.Planted(num_train=48.0)}, "--num-train is a whole number, received 48.0"),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_another_type_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(d3m.InputError, match=re.escape(said)):
        dataclasses.replace(CONFIG, **given)


def test_arrays_and_whole_numbers_are_what_they_stand_for() -> None:
    """A key is of JSON, in which 1 is not 1.0."""
    numbers: dict[str, Any] = {"seeds": np.arange(2), "num_removed": [0, 6], "model": Path("tiny")}
    given = dataclasses.replace(
        CONFIG,
        training=dataclasses.replace(CONFIG.training, weight_decay=0, max_grad_norm=np.float32(1)),
        alignment=d3m.AlignmentConfig(beta=np.int64(2)),  # type: ignore[arg-type]
        num_checkpoints=np.int64(2),  # type: ignore[arg-type]
        **numbers,
    )
    assert (
        json.dumps([given.seeds, given.num_removed, given.model, given.num_checkpoints])
        == '[[0, 1], [0, 6], "tiny", 2]'
    )
    settings = [given.training.weight_decay, given.training.max_grad_norm, given.alignment.beta]
    assert json.dumps(settings) == "[0.0, 1.0, 2.0]"
