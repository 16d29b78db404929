"""What the pages of docs/ show runs as it stands, and the defaults that they name are those of the code."""

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from experiment.test_identity import ENTERS
from made_up_store import MadeUp, fill_store

import d3m_ray
from d3m_ray import __main__ as command_line
from d3m_ray.__main__ import READERS, main
from d3m_ray.analysis.figures.catalogue import all_figures
from d3m_ray.analysis.results import read_results
from d3m_ray.attribution.registry import METHODS
from d3m_ray.data.corpora import CORPORA
from d3m_ray.data.planted import Planted, make_planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
from d3m_ray.records import Splits
from d3m_ray.selection.arms import ARMS
from d3m_ray.store.store import Store
from d3m_ray.training.registry import RECIPES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CODE = re.compile(r"^```py[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
DEFAULT = re.compile(r"`--([a-z-]+)` \(default ([^)\n]+)\)")


def code_of(page: str) -> list[str]:
    """The blocks of Python of a page of docs/."""
    return CODE.findall((DOCS / page).read_text(encoding="utf-8"))


def write_notes(splits: Splits, folder: Path) -> None:
    """The corpus as the page's own loader reads it."""
    folder.mkdir()
    for name, examples in splits.by_name().items():
        rows = zip(examples.groups, examples.labels, examples.texts, strict=True)
        lines = [f"{splits.group_names[g]} | {'good' if label else 'bad'} | {text}" for g, label, text in rows]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's file, imported as a user would, in a folder with its corpus; what it registers goes again."""
    (tmp_path / "lengths.py").write_text(code_of("adding-a-method.md")[0], encoding="utf-8")
    write_notes(make_planted(Planted(num_train=64, num_val=32, num_test=32)), tmp_path / "notes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with ExitStack() as registered:
        registered.callback(sys.modules.pop, "lengths", None)  # what it imports stays: torch is loaded once only
        for registry in (METHODS, ARMS, RECIPES, CORPORA):
            registered.enter_context(mock.patch.dict(registry))  # type: ignore[arg-type]
        yield importlib.import_module("lengths")


def test_all_that_the_page_registers_runs(
    lengths: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the page's own second block; the flag of the method enters the key of its scores."""
    names: dict[str, Any] = {}
    exec(code_of("adding-a-method.md")[1], names)
    result, store = names["result"], tmp_path / "results" / "notes"
    assert not result.failed
    trials = d3m_ray.read_trials(store)
    assert set(trials["method"]) == {"length", "length_positive", "first_rows", "mild", "random"}
    removals = d3m_ray.read_removals(store).set_index("method")["example_id"]
    assert list(removals["first_rows"].unique()) == [f"train/{row}" for row in range(6)]
    labels = d3m_ray.read_examples(store, split="train").set_index("example_id")["label"]
    assert set(labels[removals["length_positive"]]) == {1}

    scores = d3m_ray.read_scores(store, "length")
    corpus = lengths.notes(lengths.NoteOptions(), tmp_path / "notes")
    assert scores.groupby("query_set").size().to_dict() == dict.fromkeys(corpus.group_names, len(corpus.train))

    assert not (d3m_ray.plan(names["config"], store).trials["state"] != "stored").any()

    why = code_of("store.md")[1]
    for shown, meant in (("results/demo", str(store)), ("'trak'", "'length'"), ("== 30", "== 6")):
        assert shown in why
        why = why.replace(shown, meant)
    exec(why, names)
    assert names["shared"]["method"].tolist() == ["length"]
    assert names["made_from"]["seed"] == 0

    command = "plan notes --data notes --model tiny --store results/notes --methods length --num-removed 0 10%"
    trained = "--num-epochs 1 --learning-rate 1e-3"
    for power, stored in ((1, 10), (2, 0)):  # five seeds, of nothing and of length; other settings, other experiment
        capsys.readouterr()
        with suppress(SystemExit):
            main([*command.split(), *trained.split(), "--length-power", str(power)])
        assert f"10 trials, {stored} of them stored" in capsys.readouterr().out


def test_the_method_of_the_page_scores(lengths: ModuleType) -> None:
    """Positive where the labels agree, larger where the texts are of like length."""
    from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
    from d3m_ray.training.batching import TokenizedExamples

    def of_lengths(split: str, *lengths: int) -> TokenizedExamples:
        labels, groups = np.arange(len(lengths)) % 2, np.arange(len(lengths)) // 2
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return TokenizedExamples(split, np.zeros(sum(lengths), np.int32), offsets, labels, groups, pad_id=0)

    base: Any = None  # which this method does not read
    checkpoints, train, queries = (Checkpoint("k", base, {}),), of_lengths("train", 4, 8), of_lengths("val", 4, 4, 2, 8)
    inputs = AttributionInputs(checkpoints, train, queries, num_groups=2)
    scorers = METHODS["length"].load()
    by_query = scorers.score_queries(inputs, lengths.LengthConfig(), None)  # type: ignore[misc, arg-type]
    np.testing.assert_allclose(by_query, [[1, -1, 0.5, -0.5], [-0.5, 0.5, -0.25, 1]])
    squared = scorers.score_groups(inputs, lengths.LengthConfig(power=2), None)  # type: ignore[arg-type]
    np.testing.assert_allclose(squared, [[0, 0], [0, (1 - 0.0625) / 2]])


def test_the_pages_name_every_public_name() -> None:
    named = set(re.findall(r"^::: d3m_ray\.(\w+)$", "\n".join(p.read_text() for p in DOCS.rglob("*.md")), re.MULTILINE))
    assert named == set(d3m_ray.__all__) - {"__version__"}


def test_the_pages_name_every_arm_and_method() -> None:
    """Each by itself in `code`, but those that follow from a method's name by a suffix."""
    page = (DOCS / "arms.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_0-9]+)`", page))
    suffixes = ("_heuristic", "_helpful", "_auto", "_best")
    plain = {arm for arm in ARMS if not arm.endswith(suffixes)} | set(METHODS)
    assert plain <= named
    assert {suffix for suffix in suffixes if f"METHOD`{suffix}`" in page} == set(suffixes)


def settings(config: Any, before: str = "") -> Iterator[tuple[str, str, Any]]:
    """Of each setting its path, `trak.damping`, its flag, `trak-damping`, and what it is unless told otherwise."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{field.name}.")
        else:
            renamed = [m.name for m in getattr(field.type, "__metadata__", ()) if getattr(m, "name", None)]
            yield before + field.name, renamed[0] if renamed else field.name.replace("_", "-"), value


def as_text(value: Any) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def test_the_defaults_that_pages_name_are_those_of_the_code() -> None:
    experiment = ExperimentConfig(corpus=Planted())
    studies = (LdsConfig(experiment), LeaderboardConfig(experiment))
    known = {(flag, as_text(value)) for study in studies for _, flag, value in settings(study)}
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    named = {found for page in pages for found in DEFAULT.findall(page.read_text(encoding="utf-8"))}
    assert len(named) >= 5
    wrong = {(flag, value) for flag, value in named if (flag, value.replace(",", "")) not in known}
    assert not wrong, f"defaults that differ from the code's: {wrong}"


def test_every_flag_is_named_on_a_page() -> None:
    """Of every corpus and study, and of the commands that read a store; the README is a page."""
    configs = [ExperimentConfig(corpus=corpus.options()) for corpus in CORPORA.values()]
    studies = [study(config) for config in configs for study in (LdsConfig, LeaderboardConfig)]
    flags = {flag for study in studies for _, flag, _ in settings(study)} - {"plugins"}  # of none, no flag
    for command in READERS:
        parameters = inspect.signature(getattr(command_line, command)).parameters
        flags |= {name.replace("_", "-") for name in parameters if name != "store"}
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *DOCS.rglob("*.md")))
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", pages))
    assert len(flags) > 80
    assert sorted(flags - named) == []


def test_the_page_of_the_store_says_what_each_flag_enters() -> None:
    """The table of `test_identity`, by flag: each setting once, with its words."""
    page = (DOCS / "store.md").read_text(encoding="utf-8")
    section = page[page.index("### What a flag makes again") :]
    rows = re.findall(r"^\| (`--.+) \| (.+) \|$", section, re.MULTILINE)
    said = [(flag, enters) for flags, enters in rows for flag in re.findall("`--([a-z0-9-]+)`", flags)]
    config = ExperimentConfig(corpus=Planted())
    expected = [(flag, ENTERS[path]) for path, flag, _ in settings(config) if path in ENTERS]
    assert len(expected) == len(ENTERS)
    assert sorted(said) == sorted(expected)


def test_the_page_of_costs_names_every_figure(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill_store(store, MadeUp(num_train=40, num_val=40, num_test=48, numbers=(8,), seeds=(0, 1)))
    (results,) = read_results(store)
    page = (DOCS / "costs.md").read_text(encoding="utf-8")
    section = re.split("^## ", page, flags=re.MULTILINE)[3]
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE))))
    assert set(all_figures(results)) | {"lds"} == named
