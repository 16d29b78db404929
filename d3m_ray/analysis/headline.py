"""What an experiment shows, in one sentence written from its numbers, and what belongs beside it.

A difference is claimed where it stands after everything that was tried is allowed for: seeds, the finite test set, the
choice of the number removed on val, and the number of arms (`contrasts.declared_table`). All else is none shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from d3m_ray.analysis.caveats import Caveat, find_caveats
from d3m_ray.analysis.choice import REFERENCE_METHOD, arms_of, chose_nothing, is_mirror
from d3m_ray.analysis.contrasts import Row, declared_table
from d3m_ray.analysis.power import SIGNIFICANCE
from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import CONFIDENCE, MIN_VALUES
from d3m_ray.wording import counted

ON_TEST = (
    "Chosen ON TEST, by the protocol `thesis`: the examples that say what to remove also judge it, and this says "
    "nothing of new data. "
)
MAX_NAMES = 8  # of arms without a finding, which the details name all

Kind = Literal["effect", "harm", "none", "no conclusion"]


@dataclass(frozen=True)
class Headline:
    """What an experiment shows."""

    sentence: str
    """What was found with its interval, or what could have been found, or why nothing can be said."""
    details: tuple[str, ...]
    """A sentence on each arm, then what speaks against a finding."""
    kind: Kind
    """`effect` where some arm raises the worst group's accuracy, `harm` where arms only lower it that should not,
    `none` where no difference is shown but for a mirror's expected fall, `no conclusion` where none could have been."""


@once
def headline(results: Results) -> Headline:
    """The finding of an experiment, whatever its store holds or lacks; it begins with the thesis's protocol."""
    found = _finding(results)
    found = replace(found, sentence=found.sentence + _of_nothing_chosen(results))
    is_on_test = results.configuration.get("protocol") == "thesis"
    return replace(found, sentence=ON_TEST + found.sentence) if is_on_test else found


def _finding(results: Results) -> Headline:
    caveats = find_caveats(results)
    against = tuple(caveat.sentence for caveat in caveats)
    declared = declared_table(results)
    rows = declared.to_dict("records")
    by_base = declared_table(results, "base").set_index("method").to_dict("index")
    details = (*(_detail(row, by_base.get(row["method"])) for row in rows), *_of_sign_flips(rows), *against)
    reason = _why_nothing_can_be_said(results, rows, caveats)
    if reason:
        untold = _of_uncompared(results, rows) if rows else ""
        return Headline(f"No conclusion: {reason}{untold}", details, "no conclusion")
    tested = [row for row in rows if not np.isnan(row["p_holm"])]
    raised = [row for row in tested if row["p_holm"] <= SIGNIFICANCE and row["difference"] > 0]
    lowered = [row for row in tested if row["p_holm"] <= SIGNIFICANCE and row["difference"] < 0]
    expected = [row for row in lowered if is_mirror(row["method"])]
    lowered = [row for row in lowered if row not in expected]
    others = [row for row in tested if row not in [*raised, *lowered, *expected]]
    claims = [_claim(row, by_base.get(row["method"]), len(tested)) for row in [*raised, *lowered, *expected]]
    if raised or lowered:
        rest = [f"No difference is shown for {_listed([row['method'] for row in others])}."] if others else []
        sentences = [*claims, *rest]
    else:
        sentences = [*([_nothing_shown(others)] if others else []), *claims]
    kind: Kind = "effect" if raised else "harm" if lowered else "none"
    return Headline(" ".join(sentences) + _of_untested(rows) + _of_uncompared(results, rows), details, kind)


def _why_nothing_can_be_said(results: Results, rows: Sequence[Row], caveats: Sequence[Caveat]) -> str:
    """Why no arm could be judged, empty where one could."""
    trials = results.trials
    if trials.empty:
        return "no test trial is stored."
    void = [caveat.sentence for caveat in caveats if caveat.voids]
    if void:
        return " ".join(void)
    arms = arms_of(trials)
    if arms.empty:
        return "only models that were trained on everything are stored, and no arm to compare with them."
    if (arms["method"] == REFERENCE_METHOD).all():
        return "only random removal is stored, and no arm to compare with it."
    if not rows:
        return (
            "no arm, with its number removed chosen on val, shares a seed with random removal of as many or with a "
            "model that was trained on everything."
        )
    if all(row["num_pairs"] < MIN_VALUES for row in rows):
        most = max(row["num_pairs"] for row in rows)
        values = "; ".join(f"{_name(row)}: {_points(row['difference'])} {_against(row)}" for row in rows)
        return f"{_seeds(most)} cannot tell an arm from chance, {MIN_VALUES} are the fewest for an interval; {values}."
    if all(np.isnan(row["p_holm"]) for row in rows):
        return "the models' answers on test are not stored, and without them chance in the test set is not known."
    same = {arm for caveat in caveats if caveat.kind == "identical pairs" for arm in caveat.arms}
    if all((row["method"], row["num_removed"]) in same for row in rows):
        return next(caveat.sentence for caveat in caveats if caveat.kind == "identical pairs")
    return ""


def _claim(row: Row, by_base: Row | None, num_tested: int) -> str:
    verb = "raises" if row["difference"] > 0 else "lowers"
    over = "" if num_tested == 1 else f", adjusted for {num_tested} arms"
    sentence = (
        f"{_name(row)} {verb} the worst group's test accuracy{_of_mirror(row)} by "
        f"{100 * abs(row['difference']):.1f} points {_against(row)} "
        f"({_interval(row)}, {_seeds(row['num_pairs'])}, {_p(row['p_holm'])}{over})"
    )
    if row["reference"] == "base" or by_base is None:
        return f"{sentence}."
    return f"{sentence}; {_beside_base(by_base)}."


def _of_mirror(row: Row) -> str:
    """What to expect of removing the examples that help most."""
    if not is_mirror(row["method"]):
        return ""
    fall = row["difference"] < 0
    return ", as removing the most helpful should," if fall else ", though removing the most helpful should lower it,"


def _beside_base(row: Row) -> str:
    """How an arm compares to doing nothing, which to beat random removal does not say."""
    if row["num_pairs"] < MIN_VALUES:
        return f"against removing nothing {_points(row['difference'])} over {_seeds(row['num_pairs'])}, too few to tell"
    told = "" if row["p_holm"] <= SIGNIFICANCE else ", no difference shown"
    return f"against removing nothing {_points(row['difference'])} ({_interval(row)}){told}"


def _nothing_shown(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: row["difference"])
    if len(rows) == 1:
        first = f"No difference shown: {_name(best)} {_points(best['difference'])} {_against(best)} ({_interval(best)})"
    else:
        names = _listed([row["method"] for row in rows])
        first = (
            f"No difference shown for any of {counted(len(rows), 'arm')} ({names}); the highest is {_name(best)}, "
            f"{_points(best['difference'])} {_against(best)} ({_interval(best)})"
        )
    smallest = [row["smallest_difference"] for row in rows]
    needed = [row["num_seeds_for_2_points"] for row in rows]
    return (
        f"{first}. The smallest difference that {_range([row['num_pairs'] for row in rows])} seeds could have shown is "
        f"{_range(smallest, 100, '.1f')} points{_by_arm(smallest)}; {_needed(needed)}."
    )


def _needed(needed: Sequence[float]) -> str:
    finite = [number for number in needed if np.isfinite(number)]
    if not finite:
        return "a difference of 2 points would take a larger test set, however many the seeds"
    more = "" if len(finite) == len(needed) else ", and a larger test set for some"
    return f"a difference of 2 points would take {_range(finite, 1, ',.0f')} seeds{_by_arm(finite)}{more}"


def _of_untested(rows: Sequence[Row]) -> str:
    few = [row["method"] for row in rows if np.isnan(row["p_holm"])]
    return f" Too little is stored to judge {_listed(few)}." if few else ""


def _of_uncompared(results: Results, rows: Sequence[Row]) -> str:
    """The arms that no contrast is declared of."""
    arms = arms_of(results.trials)["method"].unique().tolist()
    without = sorted(set(arms) - {REFERENCE_METHOD} - {row["method"] for row in rows})
    if not without:
        return ""
    return (
        f" Nothing is stored to compare {_listed(without)} with: under no seed random removal of as many, or a model "
        "that was trained on everything."
    )


def _of_nothing_chosen(results: Results) -> str:
    """The arms of a best number whose best is 0: there is nothing to compare them with."""
    methods = chose_nothing(results)
    if not methods:
        return ""
    verb = "removes" if len(methods) == 1 else "remove"
    return f" {_listed(methods)} {verb} nothing: on val no number is shown to raise the target."


def _detail(row: Row, by_base: Row | None) -> str:
    """One arm with all of its numbers."""
    chosen = f", the best of {row['num_numbers']} numbers on val" if row["num_numbers"] > 1 else ""
    start = f"{_name(row)}{chosen}: {_points(row['difference'])} {_against(row)} over {_seeds(row['num_pairs'])}"
    if row["num_pairs"] < MIN_VALUES:
        values = " ".join(f"{100 * float(value):+.1f}" for value in row["differences"].split())
        return f"{start} (each: {values})."
    parts = [
        f"Student's t {_bounds(row['t_low'], row['t_high'])}, {_p(row['p_t'])}",
        f"with the finite test set {_bounds(row['boot_low'], row['boot_high'])}, {_p(row['p_boot'])}",
        f"sign flips {_p(row['p_flip'])}",
        f"for all arms and the choice of the number {_p(row['p_holm'])}",
    ]
    if by_base is not None and row["reference"] != "base":
        parts.append(_beside_base(by_base))
    return f"{start}; {'; '.join(parts)}."


def _of_sign_flips(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the exact test cannot reach with so few pairs."""
    num_pairs = [row["num_pairs"] for row in rows if row["num_pairs"] >= MIN_VALUES]
    num_tested = len(num_pairs)
    if not num_pairs or 2 * num_tested / 2 ** min(num_pairs) <= SIGNIFICANCE:
        return ()
    of_many = f", and {num_tested} arms are tested" if num_tested > 1 else ""
    return (
        f"With {min(num_pairs)} pairs the exact sign-flip p is never below {2 / 2 ** min(num_pairs):.2g}{of_many}: it "
        "is shown beside, and can support no claim by itself.",
    )


def _name(row: Row) -> str:
    removed = f"{counted(row['num_removed'], 'train example')} removed" if row["num_removed"] else "nothing removed"
    return f"{row['method']} ({removed})"


def _against(row: Row) -> str:
    return "against random removal of as many" if row["reference"] == REFERENCE_METHOD else "against removing nothing"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _interval(row: Row) -> str:
    low, high = ("boot_low", "boot_high") if not np.isnan(row["boot_low"]) else ("t_low", "t_high")
    return f"{CONFIDENCE:.0%} interval {_bounds(row[low], row[high])}"


def _bounds(low: float, high: float) -> str:
    return "unknown" if np.isnan(low) else f"{100 * low:+.1f} to {100 * high:+.1f}"


def _seeds(number: int) -> str:
    return counted(number, "seed")


def _p(value: float) -> str:
    return "p unknown" if pd.isna(value) else "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _range(values: Sequence[float], factor: float = 1, form: str = "") -> str:
    low, high = (f"{factor * value:{form}}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _by_arm(values: Sequence[float]) -> str:
    return "" if len(values) == 1 else " by arm"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:MAX_NAMES]) + ([f"{len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
