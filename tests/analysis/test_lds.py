"""The tables of LDS: means and groups over the most subsets, ceilings, methods beside each other, and their words."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_up_store import STUDY
from rich.console import Console

from d3m_ray.analysis.lds import lds_differences, lds_remarks, lds_table, leading_kind
from d3m_ray.analysis.lds_on_screen import render_lds
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store


def write(
    store: Store,
    method: str,
    num_subsets: int,
    shift: float,
    resampled: Sequence[float | None] | None = None,
    fits: Sequence[str] = ("f1",),
    **columns: Any,
) -> None:
    targets = [("query", "v1"), ("query", "v2"), ("query", "mean"), ("group", "ant"), ("group", "mean")]
    rows = pd.DataFrame(targets, columns=["kind", "target"]).assign(
        experiment="insects",
        lds=[0.1 + shift, 0.3 + shift, 0.2 + shift, 0.4 + shift, 0.4 + shift],
        lds_low=0.0,
        lds_high=0.9,
        num_subsets=num_subsets,
        scoring_seconds=12.3,
        **{**STUDY, **columns},
    )
    key = f"{method}-{num_subsets}-{rows['keep_share'].iloc[0]}-{rows['subset_seeds'].iloc[0]}"
    means = {} if resampled is None else {"resampled_means": {kind: list(resampled) for kind in ("query", "group")}}
    store.write("lds", key, rows.assign(lds_key=key), {"fits": list(fits), **means}, method)


@pytest.fixture
def filled(store: Store) -> Results:
    store.write_experiment("insects", {"dataset": "insects", "model": "tiny"}, [])
    write(store, "bm25", 5, 0.0)
    write(store, "trak", 3, 0.5)
    write(store, "trak", 5, 0.1)
    return read_results(store)[0]


def shown(table: pd.DataFrame) -> str:
    console = Console(width=160, file=StringIO())
    console.print(render_lds(table))
    return console.file.getvalue()


def test_of_each_method_the_rows_over_the_most_subsets_count(filled: Results) -> None:
    table = lds_table(filled).set_index(["method", "kind", "target"])
    assert table.index.is_unique
    assert table.loc[("trak", "query", "mean"), "lds"] == pytest.approx(0.3)
    assert set(table["num_subsets"]) == {5}
    assert ("trak", "query", "v1") not in table.index
    assert ("bm25", "group", "ant") in table.index


def test_scores_made_anew_stand_in_the_place_of_the_earlier(store: Store) -> None:
    keys = {"alignments": {"trak": "now"}}
    store.write_experiment("insects", {"dataset": "insects", "model": "tiny"}, [], keys)
    write(store, "trak", 9, 0.5)
    rows = store.read("lds", "trak-9-0.5-own", "trak").drop(columns="method")
    store.write("lds", "trak-9-0.5-own", rows, {"fits": ["f1"], "alignment_key": "before"}, "trak")
    for key, shift in (("a", 0.0), ("b", 0.1)):  # over as many subsets, of which another one failed in each
        again = rows.assign(num_subsets=5, lds=rows["lds"] - shift, lds_key=key)
        store.write("lds", key, again, {"fits": [key], "alignment_key": "now"}, "trak")
    (results,) = read_results(store)
    table = lds_table(results)
    assert set(table["num_subsets"]) == {5}
    assert table.set_index(["method", "kind", "target"]).index.is_unique


def test_shares_and_seeds_are_studies_of_their_own(store: Store, filled: Results) -> None:
    write(store, "trak", 3, 0.6, keep_share=0.9)
    write(store, "trak", 3, 0.7, keep_share=0.9, subset_seeds="base")
    (results,) = read_results(store)
    means = lds_table(results).query("target == 'mean' and kind == 'query' and method == 'trak'")
    found = means[["subset_seeds", "keep_share", "lds"]].round(3).itertuples(index=False, name=None)
    assert list(found) == [("base", 0.9, 0.9), ("own", 0.5, 0.3), ("own", 0.9, 0.8)]
    text = shown(lds_table(results))
    assert "90% base seeds" in text
    assert text.count("ceiling") == 3 + 1  # a line each, and the caption


def test_rows_of_an_earlier_version_are_halves_of_one_fit(store: Store, filled: Results, tmp_path: Path) -> None:
    for path in Path(str(store)).glob("lds/**/*.parquet"):
        content = pq.read_table(path)
        pq.write_table(content.drop_columns(list(STUDY)), path)
    (results,) = read_results(store)
    table = lds_table(results)
    assert len(table) == 6
    assert set(table[["keep_share", "subset_seeds", "fits_per_subset"]].itertuples(index=False, name=None)) == {
        (0.5, "own", 1)
    }
    assert table["ceiling"].isna().all()
    assert (
        "no ceiling is known of one fit of each subset; d3m-ray lds --fits-per-subset 2 gives one"
        in lds_remarks(results)[0]
    )
    assert lds_differences(results).empty


def test_a_score_of_few_subsets_stands_without_an_interval(filled: Results) -> None:
    unknown = dict.fromkeys(("lds_low", "lds_high", "ceiling_low", "ceiling_high"), np.nan)
    text = shown(lds_table(filled).assign(**unknown))
    assert "nan" not in text
    assert "[" not in text


def test_the_best_method_comes_first_with_its_interval_and_the_ceiling_last(filled: Results) -> None:
    text = shown(lds_table(filled))
    assert text.index("trak") < text.index("bm25") < text.index("ceiling")
    assert "0.30 [0.00, 0.90]" in text
    assert "0.76 [0.43, 0.87]" in text
    assert "5 x 2" in text


def test_an_experiment_without_scores_has_an_empty_table(store: Store) -> None:
    store.write_experiment("bees", {"dataset": "bees", "model": "tiny"}, [])
    (results,) = read_results(store)
    assert lds_table(results).empty
    assert lds_differences(results).empty


def test_methods_are_compared_in_the_same_resamples(store: Store) -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=1000)  # what both share makes neither interval of the difference
    store.write_experiment("insects", {"dataset": "insects", "model": "tiny"}, [])
    write(store, "bm25", 20, 0.0, 0.2 + shared)
    write(store, "trak", 20, 0.1, 0.3 + shared + 0.01 * rng.normal(size=1000))
    write(store, "ekfac", 20, 0.1, 0.3 + shared + rng.normal(size=1000))
    write(store, "loss", 20, 0.1, 0.3 + shared, fits=("f2",))
    write(store, "random", 20, 0.1, [None] * 1000)
    (results,) = read_results(store)
    rows = lds_differences(results).query("kind == 'query'").set_index(["first", "second"])
    assert set(rows.index) == {
        *(("bm25", "ekfac"), ("bm25", "trak"), ("ekfac", "trak")),
        *(("bm25", "random"), ("ekfac", "random"), ("random", "trak")),
    }
    pair = rows.loc[("bm25", "trak")]
    assert pair["lds_difference"] == pytest.approx(-0.1)
    assert -0.13 < pair["lds_difference_low"] < -0.1 < pair["lds_difference_high"] < -0.07
    assert pair["verdict"] == "apart"
    assert rows.loc[("bm25", "ekfac"), "verdict"] == "within noise"
    assert pd.isna(rows.loc[("bm25", "random"), "verdict"])
    (of_query,) = (remark for remark in lds_remarks(results) if "per val example" in remark)
    assert "Apart, not corrected for 3 pairs: trak above bm25 by 0.10. Other differences are within noise." in of_query


def remark(store: Store, **columns: Any) -> str:
    store.write_experiment("insects", {"dataset": "insects", "model": "t", "training": {"pairing": "common"}}, [])
    write(store, "trak", 20, 0.1, **columns)
    return lds_remarks(read_results(store)[0])[0]


def test_where_the_ceiling_leaves_no_room_it_is_said(store: Store) -> None:
    said = remark(store)
    assert said == (
        "LDS per val example, 50% of train kept, own seeds: two fits of one subset correlate 0.40 [0.10, 0.60], so a "
        "perfect method would reach about 0.76, 0.87 at most. Their intervals do not tell from it: trak 0.30 "
        "[0.00, 0.90]."
    )


def test_where_there_is_room_nothing_is_said_of_it(store: Store) -> None:
    assert remark(store, ceiling=0.95, ceiling_high=0.98).endswith("about 0.95, 0.98 at most.")


def test_fits_that_do_not_agree_leave_nothing_to_predict(store: Store) -> None:
    unknown = {"ceiling": np.nan, "ceiling_low": 0.0, "ceiling_high": 0.3}
    said = remark(store, fit_correlation=-0.1, fit_correlation_low=-0.3, fit_correlation_high=0.05, **unknown)
    assert "two fits of one subset correlate -0.10 [-0.30, 0.05]: nothing that could be predicted shows above" in said
    assert "0.30 at most" in said
    of_base = remark(store, subset_seeds="base", fit_correlation=-0.1, **unknown)
    assert "a method that reads them may predict them all the same" in of_base
    assert "at most" not in of_base


def test_outcomes_that_do_not_vary_are_not_fixed_by_a_second_fit(store: Store) -> None:
    said = remark(store, fit_correlation=np.nan, ceiling=np.nan)
    assert "no ceiling is known of outcomes that do not vary." in said
    assert "--fits-per-subset" not in said


def test_a_ceiling_of_base_seeds_is_of_what_they_share(store: Store) -> None:
    said = remark(store, subset_seeds="base")
    assert "That is of what the seeds have in common" in said
    assert "a method that reads them may go beyond" in said
    assert "do not tell from it" not in said


def test_methods_without_scores_of_single_examples_are_ordered_with_the_others(store: Store, filled: Results) -> None:
    rows = store.read("lds", "trak-5-0.5-own", "trak").drop(columns="method")
    of_alignment = rows.iloc[-1:].assign(kind="alignment", target="mean", lds_key="m")
    store.write("lds", "m", of_alignment.assign(lds=0.9), {"fits": ["f1"]}, "metagradient")
    store.write("lds", "trak-5-0.5-own", pd.concat([rows, of_alignment.assign(lds_key="trak-5-0.5-own")]), {}, "trak")
    (results,) = read_results(store)
    assert leading_kind(results.lds) == "group"  # bm25 has no alignment: there is no kind that all have
    store.delete_result("lds", "bm25-5-0.5-own", "bm25")
    (results,) = read_results(store)
    assert leading_kind(results.lds) == "alignment"
    text = shown(lds_table(results))
    assert text.index("metagradient") < text.index("trak")
