"""The LDS table: means and groups, of each method the rows over the most subsets."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from d3m_ray.analysis.datamodeling import lds_table, render_lds
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store import Store


def write(store: Store, method: str, num_subsets: int, shift: float) -> None:
    targets = [("query", "v1"), ("query", "v2"), ("query", "mean"), ("group", "ant"), ("group", "mean")]
    rows = pd.DataFrame(targets, columns=["kind", "target"]).assign(
        lds_key=f"{method}-{num_subsets}",
        experiment="insects",
        lds=[0.1 + shift, 0.3 + shift, 0.2 + shift, 0.4 + shift, 0.4 + shift],
        lds_low=0.0,
        lds_high=0.9,
        num_subsets=num_subsets,
        scoring_seconds=12.3,
    )
    store.write("lds", f"{method}-{num_subsets}", rows, {}, method)


@pytest.fixture
def filled(store: Store) -> Results:
    store.write_experiment("insects", {"dataset": "insects", "model": "tiny"}, [])
    write(store, "bm25", 5, 0.0)
    write(store, "trak", 3, 0.5)
    write(store, "trak", 5, 0.1)
    return read_results(store)[0]


def test_of_each_method_the_rows_over_the_most_subsets_count(filled: Results) -> None:
    table = lds_table(filled).set_index(["method", "kind", "target"])
    assert table.index.is_unique
    assert table.loc[("trak", "query", "mean"), "lds"] == pytest.approx(0.3)
    assert set(table["num_subsets"]) == {5}
    assert ("trak", "query", "v1") not in table.index
    assert ("bm25", "group", "ant") in table.index


def test_a_score_of_few_subsets_stands_without_an_interval(filled: Results) -> None:
    table = lds_table(filled).assign(lds_low=np.nan, lds_high=np.nan)
    console = Console(width=80, file=StringIO())
    console.print(render_lds(table))
    assert "nan" not in console.file.getvalue()
    assert "[" not in console.file.getvalue()


def test_the_best_method_comes_first_with_its_interval(filled: Results) -> None:
    console = Console(width=120, file=StringIO())
    table = lds_table(filled)
    console.print(render_lds(table))
    text = console.file.getvalue()
    assert text.index("trak") < text.index("bm25")
    assert "0.30 [0.00, 0.90]" in text
    assert table.shape == (6, 8)


def test_an_experiment_without_scores_has_an_empty_table(store: Store) -> None:
    store.write_experiment("bees", {"dataset": "bees", "model": "tiny"}, [])
    (results,) = read_results(store)
    assert lds_table(results).empty
