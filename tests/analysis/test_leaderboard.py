"""The leaderboard: each cell the study's own number, the best marked, and what noise cannot tell from it said."""

import numpy as np
import pandas as pd
import pytest

from d3m_ray.analysis import leaderboard
from d3m_ray.analysis.leaderboard import ceilings, leaderboard_markdown, leaderboard_table

METHODS = ("trak", "ekfac", "random")
LDS = {"trak": 0.4, "ekfac": 0.35, "random": 0.01}
GAINS = {"trak": 0.02, "ekfac": 0.05, "random": -0.01}


def _lds(seeds: str, share: float, kinds: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        {
            "method": method, "subset_seeds": seeds, "keep_share": share, "kind": kind, "target": target,
            "lds": LDS[method] + (0.1 if target != "mean" else 0) + (1 - share), "lds_low": 0.0, "lds_high": 0.6,
            "ceiling": 0.5, "ceiling_low": 0.4, "ceiling_high": 0.55, "num_subsets": 20,
            "fits_per_subset": 2, "scoring_seconds": 3.0 + METHODS.index(method),
        }
        for method in METHODS
        for kind in kinds
        for target in ("mean", "amber")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _pairs(seeds: str, share: float, kind: str, verdicts: dict[tuple[str, str], str | None]) -> pd.DataFrame:
    rows = [{"first": one, "second": other, "verdict": verdict} for (one, other), verdict in verdicts.items()]
    return pd.DataFrame(rows).assign(subset_seeds=seeds, keep_share=share, kind=kind)


@pytest.fixture
def results(monkeypatch):
    """Stands for an experiment with both studies, one of them of two shares, and six seeds of removal."""
    kinds = ("query", "group", "alignment")
    frames = [_lds("base", 0.9, kinds), _lds("base", 0.5, kinds), _lds("own", 0.5, ("group", "alignment"))]
    verdicts = {("ekfac", "trak"): "within noise", ("random", "trak"): "apart", ("ekfac", "random"): "apart"}
    pairs = [
        _pairs("base", 0.9, "group", verdicts),
        _pairs("base", 0.5, "group", dict.fromkeys(verdicts, "within noise")),
        _pairs("own", 0.5, "group", dict.fromkeys(verdicts)),
    ]
    noise = np.random.default_rng(0).normal(0, 0.001, (6, len(METHODS)))
    effects = [
        {
            "method": method, "num_removed": number, "reference": reference, "split": split, "effect_on": name,
            "seed": seed, "effect": sign * (GAINS[method] + noise[seed, place]) * (number == 200),
        }
        for place, method in enumerate(METHODS)
        for number in (100, 200)
        for reference in ("random", "base")
        for split in ("val", "test")
        for name, sign in (("target", 1), ("loss", -1), ("wga", 1))
        for seed in range(6)
        if (method, reference) != ("random", "random")
    ]  # fmt: skip
    monkeypatch.setattr(leaderboard, "lds_table", lambda _: pd.concat(frames, ignore_index=True))
    monkeypatch.setattr(leaderboard, "lds_differences", lambda _: pd.concat(pairs, ignore_index=True))
    monkeypatch.setattr(leaderboard, "effect_values", lambda _: pd.DataFrame(effects))
    return type("Made", (), {})()


def test_each_cell_is_the_studys_own_mean(results):
    table = leaderboard_table(results).set_index("method")
    assert table.index.tolist() == ["trak", "ekfac", "random"], "best first"
    np.testing.assert_allclose(table["same_seed_group_lds"], [0.5, 0.45, 0.11])
    np.testing.assert_allclose(table["across_seeds_alignment_lds"], [0.9, 0.85, 0.51])
    assert table["scoring_seconds"].to_dict() == {"trak": 3.0, "ekfac": 4.0, "random": 5.0}
    np.testing.assert_allclose(table.loc["ekfac", ["target_effect", "loss_effect"]].tolist(), [0.05, -0.05], atol=2e-3)
    assert table["num_removed"].dropna().tolist() == [200, 200]


def test_the_best_and_what_noise_cannot_tell_from_it_are_marked(results):
    table = leaderboard_table(results).set_index("method")
    assert table["same_seed_group_lds_standing"].tolist() == ["best", "within noise", "apart"]
    assert table["across_seeds_group_lds_standing"].tolist() == ["best", "not known", "not known"]
    assert table.loc[["trak", "ekfac"], "loss_effect_standing"].tolist() == ["apart", "best"], "less loss is better"
    assert table.loc[["trak", "ekfac"], "wga_effect_standing"].tolist() == ["apart", "best"]
    assert ceilings(results)["across_seeds_group_lds"] == (0.5, 0.4, 0.55)


def test_pairs_of_another_share_tell_nothing(results, monkeypatch):
    pairs = _pairs("base", 0.5, "group", {("ekfac", "trak"): "within noise", ("random", "trak"): "apart"})
    monkeypatch.setattr(leaderboard, "lds_differences", lambda _: pairs)
    table = leaderboard_table(type("Made", (), {})()).set_index("method")
    assert table["same_seed_group_lds_standing"].tolist() == ["best", "not known", "not known"]


def test_methods_without_scores_of_groups_are_ordered_with_the_others(results, monkeypatch):
    rows = leaderboard.lds_table(results)
    of_alignment = rows[rows["kind"] == "alignment"].query("method == 'trak'").assign(method="metagradient")
    both = pd.concat([rows, of_alignment.assign(lds=of_alignment["lds"] + 0.3)], ignore_index=True)
    monkeypatch.setattr(leaderboard, "lds_table", lambda _: both)
    table = leaderboard_table(type("Made", (), {})())
    assert table["method"].tolist() == ["metagradient", "trak", "ekfac", "random"]


def test_it_reads_as_a_table_in_markdown(results):
    lines = leaderboard_markdown(results).splitlines()
    assert lines[0].startswith("| method | LDS, same seeds: groups | LDS, same seeds: alignment |")
    assert lines[2].startswith("| trak | **0.50 [0.00, 0.60]** |")
    assert "| 0.45 [0.00, 0.60] ~ |" in lines[3]
    assert lines[4].count("| - |") + lines[4].count("- |") >= 1, "random removal is not compared with itself"
    assert lines[5].startswith("| *ceiling* | - | - | 0.50 [0.40, 0.55] |"), "under the base seeds there is none"
    assert "the 200 lowest" in lines[-1]


def test_without_both_studies_there_is_none(results, monkeypatch):
    monkeypatch.setattr(leaderboard, "lds_table", lambda _: _lds("own", 0.5, ("group",)))
    assert leaderboard_table(type("Made", (), {})()).empty
