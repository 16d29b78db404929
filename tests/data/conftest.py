"""Harmless corpora in the formats of the real ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from d3m_ray.data.toxigen import ALIASES, GROUPS

WriteFolder = Callable[..., Path]
ROWS = {
    "train": [("a red kite", 0, "ant"), ("a blue kite", 1, "ant"), ("a red boat", 0, "bee"), ("a blue boat", 1, "bee")],
    "val": [("one kite", 0, "ant"), ("one boat", 1, "bee")],
    "test": [("two kites", 1, "ant"), ("two boats", 0, "bee")],
}


@pytest.fixture
def write_csv_folder(tmp_path: Path) -> WriteFolder:
    """Writes train.csv, val.csv and test.csv: of `ROWS`, with the file of a split as given, or none for None."""

    def write(**contents: str | bytes | None) -> Path:
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        for split, rows in ROWS.items():
            pd.DataFrame(rows, columns=["text", "label", "group"]).to_csv(folder / f"{split}.csv", index=False)
        for split, content in contents.items():
            path = folder / f"{split}.csv"
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return write


def _make_generated(per_cell: int) -> pd.DataFrame:
    """So many rows per group, label and generation method in the schema of ToxiGen's configuration `train`."""
    rows = [
        {
            "prompt": "- a walk",
            "generation": f"a {group} walk by {method} of kind {label}, number {row}",
            "generation_method": method,
            "group": group,
            "prompt_label": label,
            "roberta_prediction": 0.5,
        }
        for row in range(per_cell)
        for group in GROUPS
        for label in (0, 1)
        for method in ("ALICE", "top-k")
    ]
    return pd.DataFrame(rows)


def _make_annotated(per_cell: int) -> pd.DataFrame:
    """So many rows per group and label in the schema of ToxiGen's configuration `annotated`, as bytes reprs."""
    rows = [
        {
            "text": repr(f"people's {group} picnic {label}, number {row}".encode()),
            "target_group": group,
            "toxicity_human": 3.0 if label else 2.0,
            "label": "hate",
        }
        for row in range(per_cell)
        for group in GROUPS
        for label in (0, 1)
    ]
    frame = pd.DataFrame(rows)
    spelled = {group: alias for alias, group in ALIASES.items()}
    frame.loc[frame.index % 5 == 0, "target_group"] = frame["target_group"].map(lambda group: spelled.get(group, group))
    return frame


@pytest.fixture
def write_toxigen(tmp_path: Path) -> WriteFolder:
    """Writes toxigen.csv and annotated.csv from these frames, made ones where left out."""

    def write(generated: pd.DataFrame | None = None, annotated: pd.DataFrame | None = None) -> Path:
        folder = tmp_path / "toxigen"
        folder.mkdir(exist_ok=True)
        (_make_generated(40) if generated is None else generated).to_csv(folder / "toxigen.csv", index=False)
        (_make_annotated(20) if annotated is None else annotated).to_csv(folder / "annotated.csv", index=False)
        return folder

    return write


def _make_post(text: str, labels: Sequence[str], targets: Sequence[Sequence[str]]) -> dict[str, object]:
    """A post of HateXplain's dataset.json; one label and one list of targets per annotator."""
    annotators = [
        {"label": label, "annotator_id": number, "target": list(target)}
        for number, (label, target) in enumerate(zip(labels, targets, strict=True))
    ]
    return {"annotators": annotators, "rationales": [], "post_tokens": text.split()}


def _make_posts(per_cell: int, groups: Sequence[str]) -> dict[str, dict[str, object]]:
    """So many unanimous posts per split, group and label; the id says which."""
    return {
        f"{split}-{group}-{label}-{row}": _make_post(
            f"the {group} parade of {split} went {label} , number {row}", [label] * 3, [[group], [group, "Other"], []]
        )
        for split in ("train", "val", "test")
        for group in groups
        for label in ("normal", "offensive")
        for row in range(per_cell)
    }


@pytest.fixture
def write_hatexplain(tmp_path: Path) -> WriteFolder:
    """Writes dataset.json, and post_id_divisions.json by the posts' ids, which begin with their split."""

    def write(posts: dict[str, dict[str, object]]) -> Path:
        folder = tmp_path / "hatexplain"
        folder.mkdir(exist_ok=True)
        divisions = {s: [i for i in posts if i.startswith(f"{s}-")] for s in ("train", "val", "test")}
        (folder / "dataset.json").write_text(json.dumps({i: {"post_id": i, **post} for i, post in posts.items()}))
        (folder / "post_id_divisions.json").write_text(json.dumps(divisions))
        return folder

    return write


@pytest.fixture
def make_generated() -> Callable[[int], pd.DataFrame]:
    return _make_generated


@pytest.fixture
def make_annotated() -> Callable[[int], pd.DataFrame]:
    return _make_annotated


@pytest.fixture
def make_post() -> Callable[..., dict[str, object]]:
    return _make_post


@pytest.fixture
def make_posts() -> Callable[..., dict[str, dict[str, object]]]:
    return _make_posts
