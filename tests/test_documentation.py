"""What the pages of docs/ show runs as it stands, and the defaults that they name are those of the code."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest

import d3m_ray
from d3m_ray.attribution.registry import METHODS
from d3m_ray.commands.flags import narrowed
from d3m_ray.data.corpora import CORPORA
from d3m_ray.data.planted import Planted, make_planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
from d3m_ray.records import Splits
from d3m_ray.selection.arms import ARMS

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
    with mock.patch.dict(METHODS), mock.patch.dict(ARMS), mock.patch.dict(CORPORA), mock.patch.dict(sys.modules):
        yield importlib.import_module("lengths")


def test_the_method_the_arm_and_the_corpus_of_the_page_run(lengths: ModuleType, tmp_path: Path) -> None:
    """By the page's own second block; the new flag enters the key of the scores."""
    names: dict[str, Any] = {}
    exec(code_of("adding-a-method.md")[1], names)
    result, store = names["result"], tmp_path / "results" / "notes"
    assert not result.failed
    trials = d3m_ray.read_trials(store)
    assert set(trials["method"]) == {"length", "length_helpful", "first_rows", "random"}
    removals = d3m_ray.read_removals(store).set_index("method")["example_id"]
    assert list(removals["first_rows"].unique()) == [f"train/{row}" for row in range(6)]

    scores = d3m_ray.read_scores(store, "length")
    corpus = lengths.notes(lengths.NoteOptions(), tmp_path / "notes")
    assert scores.groupby("query_set").size().to_dict() == dict.fromkeys(corpus.group_names, len(corpus.train))

    assert not (d3m_ray.plan(names["config"], store).trials["state"] != "stored").any()
    powered = dataclasses.replace(names["config"], plugins={"length": lengths.LengthConfig(power=2.0)})
    states = d3m_ray.plan(powered, store).trials.query("num_removed > 0").groupby("method")["state"].unique()
    assert states["length"].tolist() == ["waits for scores"]
    assert hasattr(narrowed(powered), "length")  # from which the flag --length.power follows


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


def defaults_of(config: Any, found: dict[str, set[str]] | None = None) -> dict[str, set[str]]:
    """By flag, what it is unless told otherwise, as text."""
    found = {} if found is None else found
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            defaults_of(value, found)
            continue
        renamed = next((m.name for m in getattr(field.type, "__metadata__", ()) if getattr(m, "name", None)), None)
        flag = renamed or field.name.replace("_", "-")
        values = value if isinstance(value, tuple) else (value,)
        found.setdefault(flag, set()).add(" ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values))
    return found


def test_the_defaults_that_pages_name_are_those_of_the_code() -> None:
    experiment = ExperimentConfig(corpus=Planted())
    known = defaults_of(LdsConfig(experiment)) | defaults_of(LeaderboardConfig(experiment))
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    named = [found for page in pages for found in DEFAULT.findall(page.read_text(encoding="utf-8"))]
    assert len(named) >= 5
    wrong = [(flag, value) for flag, value in named if value.replace(",", "") not in known[flag]]
    assert not wrong, f"defaults that differ from the code's: {wrong}"
