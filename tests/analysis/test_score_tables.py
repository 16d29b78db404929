import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp

from d3m_ray.analysis.results import Results, Scores, read_results
from d3m_ray.analysis.score_tables import RANGE_COLUMNS, mean_alignments, mean_scores, score_ranges
from d3m_ray.store.store import Store

Other = Callable[..., Results]


def naive_scores(results: Results, method: str) -> dict[tuple[str, str, str], float]:
    """By (example_id, its group, query set), from the table as it lies in the store."""
    groups = dict(results.examples[["example_id", "group"]].itertuples(index=False, name=None))
    rows = results.store.read_all("scores", filters=[("method", "==", method)])
    return {(i, groups[i], q): float(score) for _, i, q, score, _ in rows.itertuples(index=False, name=None)}


def test_mean_scores_are_those_of_a_loop(results: Results, made: MadeUp) -> None:
    scores, means = naive_scores(results, "trak"), mean_scores(results, "trak")
    assert means.index.tolist() == means.columns.tolist() == sorted(made.groups)
    for group in made.groups:
        for query_set in made.groups:
            expected = fmean(score for (_, g, q), score in scores.items() if (g, q) == (group, query_set))
            assert means.loc[group, query_set] == pytest.approx(expected, rel=1e-6)


def test_mean_alignments_are_those_of_a_loop(results: Results, made: MadeUp) -> None:
    means = mean_alignments(results, "ekfac")
    assert means.index.tolist() == sorted(made.groups)
    assert means.columns.tolist() == list(made.label_names)
    rows = results.store.read_all("alignments", filters=[("method", "==", "ekfac")])
    for group in made.groups:
        for label, name in enumerate(made.label_names):
            of_cell = [r.alignment for r in rows.itertuples() if (r.group, r.label) == (group, label)]
            assert means.loc[group, name] == pytest.approx(fmean(of_cell))


def test_a_cell_without_examples_has_no_mean_and_no_range(results: Results, made: MadeUp, other_results: Other) -> None:
    rows = results.alignments["trak"]
    group, label = made.groups[0], made.label_names[1]
    without = rows[(rows["group"] != group) | (rows["label"] != 1)].reset_index(drop=True)
    fewer = other_results(alignments={"trak": without})
    means = mean_alignments(fewer, "trak")
    assert math.isnan(means.loc[group, label])
    assert means.isna().to_numpy().sum() == 1
    ranges = score_ranges(fewer)
    assert ranges[(ranges["group"] == group) & (ranges["label_name"] == label)].empty


def test_the_ranges_of_scores_are_those_of_a_loop(results: Results, made: MadeUp) -> None:
    ranges = score_ranges(results)
    scores = naive_scores(results, "trak")
    shown = ranges[(ranges["method"] == "trak") & (ranges["quantity"] == "score")]
    num_groups = len(made.groups)
    assert len(shown) == (1 + num_groups) * (1 + num_groups)
    assert shown["label_name"].isna().all()
    by_group: dict[str, list[tuple[str, str, float]]] = {}
    for (example_id, group, query_set), score in scores.items():
        by_group.setdefault(group, []).append((example_id, query_set, score))
    for _, row in shown.iterrows():
        of_examples: dict[str, list[float]] = {}
        for group in made.groups if pd.isna(row["group"]) else [row["group"]]:
            for example_id, query_set, score in by_group[group]:
                if pd.isna(row["query_set"]) or row["query_set"] == query_set:
                    of_examples.setdefault(example_id, []).append(score)
        check_range(row, [fmean(values) for values in of_examples.values()])


def test_the_ranges_of_alignments_are_those_of_a_loop(results: Results, made: MadeUp) -> None:
    ranges = score_ranges(results)
    shown = ranges[(ranges["method"] == "ekfac") & (ranges["quantity"] == "alignment")]
    assert len(shown) == 1 + len(made.groups) * (1 + len(made.label_names))
    assert shown["query_set"].isna().all()
    rows = results.store.read_all("alignments", filters=[("method", "==", "ekfac")])
    for _, row in shown.iterrows():
        wanted = {"group": row["group"], "label": row["label_name"]}
        known = {name: value for name, value in wanted.items() if not pd.isna(value)}
        part = [{"group": r.group, "label": made.label_names[r.label]} for r in rows.itertuples()]
        check_range(row, [a for a, of in zip(rows["alignment"], part, strict=True) if of | known == of])


def check_range(row: pd.Series, values: list[float]) -> None:
    assert row["num_values"] == len(values)
    expected = [min(values), fmean(values), max(values), stdev(values) if len(values) > 1 else math.nan]
    np.testing.assert_allclose(row[["min", "mean", "max", "std"]].astype(float), expected, rtol=1e-5, atol=1e-6)


def test_pseudo_groups_stay_in_their_order(results: Results, other_results: Other) -> None:
    scores = results.scores["trak"]
    names = tuple(f"pseudo_{number}" for number in range(12))
    values = np.tile(scores.values[:, :1], (1, 12)) + np.arange(12, dtype=np.float32)
    auto = other_results(scores={"trak_auto": Scores(scores.example_ids, names, values)})
    assert mean_scores(auto, "trak_auto").columns.tolist() == list(names)
    ranges = score_ranges(auto)
    assert ranges.loc[ranges["group"].isna(), "query_set"].dropna().tolist() == list(names)


def test_what_the_store_lacks_is_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write_experiment("bare", {"dataset": "insects", "model": "tiny-bert"}, [])
    (bare,) = read_results(store)
    for table in (mean_scores(bare, "trak"), mean_alignments(bare, "trak")):
        assert table.empty
    assert list(score_ranges(bare)) == RANGE_COLUMNS
    assert score_ranges(bare).empty


def test_scores_of_examples_whose_groups_are_unknown_are_only_summed_up_over_all(
    results: Results, other_results: Other
) -> None:
    unknown = other_results(alignments={}, examples=results.examples.iloc[:0])
    assert mean_scores(unknown, "trak").empty
    ranges = score_ranges(unknown)
    assert set(ranges["quantity"]) == {"score"}
    assert ranges["group"].isna().all()
