"""CONTRIBUTING's tree names every file of the package; the commands of all pages exist, with their flags."""

import dataclasses
import io
import re
import runpy
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.__main__ import main
from d3m_ray.data.corpora import CORPORA
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCS = ROOT / "docs"
RESULTS = DOCS / "results.md"
FIRST_STEPS = DOCS / "first-steps.md"
PAGES = (README, CONTRIBUTING, *sorted(DOCS.rglob("*.md")))
TREE_TOP = "d3m_ray/"

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
CHOSEN = re.compile(r"^trak \((\d+) train examples removed\) .* by ([\d.]+) points against random", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
ENTRY = re.compile(r"[\w.-]+(?:/|\.py)")
MAKE_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)\b")
PYTHON_COMMAND = re.compile(r"\bpython3? (-m d3m_ray [a-z]\w*|(?:sweeps|benchmarks)/\w+\.py)([^\n|&;#]*)")
INSTALLED = re.compile(r"\bd3m-ray ((?:run|plan|lds|leaderboard) \w+|(?!run|plan|lds|leaderboard)[a-z]+)([^\n|&;#]*)")
SUBMITTED = re.compile(r"\bray submit \S+ (sweeps/\w+\.py)([^\n|&;#]*)")
TYPES = {
    "double": "float64",
    "float": "float32",
    "timestamp[us, tz=UTC]": "timestamp, µs, UTC",
    "dictionary<values=string, indices=int32, ordered=0>": "string, dictionary",
}
"""What the page of the store calls Arrow's types."""
FLAG = re.compile(r"(?<!\S)--[a-z][a-z0-9-]*")
OF_A_PAGE = {"--length-power", "--mild-most"}  # which plug-ins of a page bring: test_documentation.py runs them


def tree_entries(readme: str) -> dict[str, str]:
    """What the tree says of each path below d3m_ray/: `{"store.py": "the Parquet store"}`.

    The tree is the fenced block with a line that begins with `d3m_ray/`. Lines are nested by indentation or by drawn
    branches, start with one or more names, and go on with what these are for; a comma may bring in the next name.
    """
    block = next((b for b in FENCE.findall(readme) if re.search(f"^{TREE_TOP}", b, re.MULTILINE)), None)
    if block is None:
        raise ValueError(f"a page has a fenced block with the tree of the files below {TREE_TOP}; found none")
    entries: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in block.splitlines():
        plain = re.sub("[│├└─]", " ", line)
        indent = len(plain) - len(plain.lstrip())
        parents = [(depth, name) for depth, name in parents if depth < indent]
        for part in re.split(r",\s+(?=\w+\.py\b)", plain.strip()):
            words = part.split()
            num_names = next((i for i, word in enumerate(words) if not ENTRY.fullmatch(word)), len(words))
            description = " ".join(words[num_names:])
            for name in words[:num_names]:
                path = "".join(parent for _, parent in parents) + name
                if path in entries:
                    raise ValueError(f"a path stands once in the tree; {path} stands twice")
                entries[path] = description
                if name.endswith("/"):
                    parents.append((indent, name))
    return {path.removeprefix(TREE_TOP): text for path, text in entries.items() if path.startswith(TREE_TOP)}


def commands(readme: str) -> dict[str, set[str]]:
    """The project's commands on a page, `-m d3m_ray run own` or `sweeps/demo.py`, with the flags given."""
    found: dict[str, set[str]] = {}
    for code in _code(readme):
        for pattern in (PYTHON_COMMAND, SUBMITTED):
            for command, rest in pattern.findall(code):
                found.setdefault(command, set()).update(FLAG.findall(rest))
        for command, rest in INSTALLED.findall(code):
            found.setdefault(f"-m d3m_ray {command}", set()).update(FLAG.findall(rest))
    return found


def _code(readme: str) -> list[str]:
    """The fenced blocks, long commands joined to one line, and the inline code outside them."""
    return [re.sub(r"\\\n\s*", " ", block) for block in FENCE.findall(readme)] + INLINE.findall(FENCE.sub("", readme))


def _all_pages() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


MADE_UP = """
Run `make test`; `make it` is no target.
```
python sweeps/hatexplain.py --data DIR \\
    --methods trak random
python -m d3m_ray status STORE    # what is done
d3m-ray run own --data DIR \\
    --num-removed 0
d3m-ray table STORE --format csv
ray submit cluster.yaml sweeps/demo.py -- --seeds 0
```
```
d3m_ray/
  records.py         the frozen values
  attribution/       methods by name
    trak.py  ekfac.py     native, fast
    traker.py
  cluster/           pool.py (actors), sweep.py (Ray Tune)
sweeps/              demo.py
```
"""


def test_the_tree_is_read() -> None:
    expected = {
        "": "",
        "records.py": "the frozen values",
        "attribution/": "methods by name",
        "attribution/trak.py": "native, fast",
        "attribution/ekfac.py": "native, fast",
        "attribution/traker.py": "",
        "cluster/": "(actors)",
        "cluster/pool.py": "(actors)",
        "cluster/sweep.py": "(Ray Tune)",
    }
    assert tree_entries(MADE_UP) == expected
    drawn = "```\nd3m_ray/\n├── data/     corpora\n│   └── csv.py  a folder\n└── trial.py  run one trial\n```\n"
    assert tree_entries(drawn) == {"": "", "data/": "corpora", "data/csv.py": "a folder", "trial.py": "run one trial"}


def test_a_readme_without_a_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="fenced block with the tree"):
        tree_entries("# d3m_ray\n```\nmake demo\n```\n")


def test_the_commands_are_read() -> None:
    assert commands(MADE_UP) == {
        "sweeps/hatexplain.py": {"--data", "--methods"},
        "-m d3m_ray status": set(),
        "-m d3m_ray run own": {"--data", "--num-removed"},
        "-m d3m_ray table": {"--format"},
        "sweeps/demo.py": {"--seeds"},
    }


def test_the_tree_names_every_file_with_a_line() -> None:
    entries = tree_entries(CONTRIBUTING.read_text(encoding="utf-8"))
    package = ROOT / "d3m_ray"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.name != "__init__.py"}
    folders = {f"{path.parent.relative_to(package).as_posix()}/" for path in package.rglob("__init__.py")} - {"./"}
    assert len(files) > 20
    assert sorted((files | folders) - set(entries)) == [], "files that CONTRIBUTING's tree does not name"
    assert sorted(set(entries) - files - folders - {""}) == [], "names in CONTRIBUTING's tree that are no files"
    assert [path for path, text in entries.items() if path and not text] == [], "names without a line"


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for code in _code(_all_pages()) for target in MAKE_TARGET.findall(code)}
    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_readme_and_the_first_steps_show_the_same_demonstration() -> None:
    """Each block that the README prints, lines broken anywhere; and the finding's number and gain are in the table."""
    shown = [" ".join(block.split()) for block in PRINTED.findall(README.read_text(encoding="utf-8"))]
    blocks = PRINTED.findall(FIRST_STEPS.read_text(encoding="utf-8"))
    explained = [" ".join(block.split()) for block in blocks]
    assert len(shown) == 3
    assert [block for block in shown if not any(block in other for other in explained)] == []
    (number, gain) = CHOSEN.findall("\n".join(explained))[0]
    (table,) = (block for block in blocks if "trak_heuristic " in block and "worst cell" in block)
    of_trak = table[table.index("\ntrak ") :]
    assert re.search(rf"^(?:trak)? +{number} .*\+{re.escape(gain)}\*$", of_trak, re.MULTILINE)


def test_the_page_of_the_store_has_every_column_with_its_type() -> None:
    tables = re.split(r"^## (.+)$", (DOCS / "store.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = dict(zip(tables[1::2], tables[2::2], strict=True))
    for name, spec in TABLES.items():
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|[^|]*\|([^|]*)\|$", sections[name], re.MULTILINE)
        expected = [(f.name, TYPES.get(str(f.type), str(f.type)), f.nullable) for f in spec.schema]
        assert [(column, dtype, bool(null.strip())) for column, dtype, null in rows] == expected, name
        assert f"[`{name}/" in tables[0], f"{name} is not in the list of tables"


def test_the_questions_have_the_same_answers_in_pandas_and_in_sql(tmp_path: Path) -> None:
    """Beside another experiment of the same names, and a trial that was run before."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb, of the extra `dev`, is not installed")
    small = MadeUp(num_train=120, num_val=40, num_test=96, numbers=(20,), seeds=(0, 1, 2))
    store = Store(tmp_path / "store")
    for made in (dataclasses.replace(small, name="ants-1"), dataclasses.replace(small, name="other-1", draw=1)):
        fill_store(store, made)
    earlier = store.read("trials", "trial-ants-1-trak-20-0", "trak").drop(columns="method")
    earlier = earlier.assign(trial_key="earlier", accuracy=0.0, created_at=earlier["created_at"] - pd.Timedelta("1h"))
    store.write("trials", "earlier", earlier, {}, "trak")

    names: dict[str, Any] = {}
    exec(reading_snippet("python", store, "ants-1"), names)
    *views, accuracies, gains, harmful, shares, correlation = reading_snippet("sql", store, "ants-1").split(";\n")
    connection = duckdb.connect()
    for view in views:
        connection.sql(view)

    def answer(question: str) -> list[tuple[Any, ...]]:
        return connection.sql(question).fetchall()

    assert len(names["accuracies"]) == 3 * 2 + 1
    assert answer(accuracies) == approximately(names["accuracies"])
    assert names["gains"]["count"].to_dict() == {20: 3}
    assert answer(gains) == approximately(names["gains"])
    columns = ["alignment", "group", "label_name", "text"]
    assert len(names["harmful"]) == 10
    assert answer(harmful) == [tuple(row) for row in names["harmful"][columns].itertuples(index=False)]
    assert answer(shares) == approximately(names["shares"].sort_index().to_frame())
    assert names["shares"].groupby(["method", "num_removed"]).sum().tolist() == pytest.approx([1.0] * 4)
    assert answer(correlation.removesuffix(";")) == [(pytest.approx(names["correlation"]),)]
    assert 0.1 < names["correlation"] < 0.9


def reading_snippet(language: str, store: Store, experiment: str) -> str:
    """The one block of this language on the page of the results, about this store and experiment."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", RESULTS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for shown, meant in (("results/hatexplain", str(store)), ("hatexplain-1a2b3c4d", experiment)):
        assert shown in block
        block = block.replace(shown, meant)
    return re.sub(r"; --.*", ";", block).strip()


def approximately(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """The rows of a frame, its index first; numbers may differ in their last digits."""
    rows = frame.reset_index().itertuples(index=False, name=None)
    return [tuple(pytest.approx(v) if isinstance(v, float) else v for v in row) for row in rows]


@pytest.mark.slow
def test_the_commands_take_their_flags() -> None:
    pages = _all_pages()
    found, known = commands(pages), set[str]()
    assert any(command.startswith("sweeps/") for command in found)
    assert any(command.startswith("-m d3m_ray run") for command in found)
    for command, flags in found.items():
        named = set(FLAG.findall(re.sub(r"[\[\]|,│]", " ", help_of(command))))
        assert not flags - named - OF_A_PAGE, (
            f"the documentation gives {command} {sorted(flags - named)}, no flags of its --help"
        )
        known |= named
    inline = INLINE.findall(FENCE.sub("", pages))
    alone = {flag for code in inline if code.startswith("--") for flag in FLAG.findall(code)}
    assert alone <= known | OF_A_PAGE, f"the documentation speaks of {sorted(alone - known)}, which no --help names"


def help_of(command: str) -> str:
    """What `--help` prints, of a script too in this process, where all that it imports is loaded already."""
    first, *words = command.split()
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        if first == "-m":
            name, *corpus = words[1:]
            known = [word if word in CORPORA else "own" for word in corpus]  # CORPUS, a record, or a plug-in's
            main([name, *known, "--help"])
        else:
            script = ROOT / first
            with mock.patch.multiple(sys, argv=[first, "--help"], path=[str(script.parent), *sys.path]):
                runpy.run_path(str(script), run_name="__main__")
    assert "--help" in printed.getvalue(), f"{command} --help printed {printed.getvalue()[-2000:]!r}"
    return printed.getvalue()
