"""What the arms that take another arm's best number chose among, and by which gains on val: from their metadata."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from d3m_ray.analysis.after_choice import MAX_CORRELATION, choice_correlation
from d3m_ray.analysis.choice import BEST_SUFFIX
from d3m_ray.analysis.results import Results, once


@dataclass(frozen=True, eq=False)
class BestChoice:
    """The choice of one arm."""

    source: str
    """The arm whose numbers they are."""
    numbers: tuple[int, ...]
    """All that were compared with removing nothing."""
    gains: pd.DataFrame
    """Of the val target over removing nothing: seeds (rows) by numbers, NaN where there is none."""


@once
def best_choices(results: Results) -> dict[str, BestChoice]:
    """By arm of a best number, its choice; without those of whose trials the metadata say nothing."""
    found = {}
    arms = results.fits[results.fits["method"].str.endswith(BEST_SUFFIX)].drop_duplicates("method")
    for method, key in zip(arms["method"], arms["trial_key"], strict=True):
        configuration = results.made_with("trials", key, method)
        selection = configuration.get("selection", {})
        if "best_of" in selection:
            numbers = tuple(selection["numbers"])
            by_number = dict(zip(numbers, selection["gains"], strict=True))
            gains = pd.DataFrame(by_number, index=selection["seeds"], dtype=np.float64)
            found[str(method)] = BestChoice(selection["best_of"], numbers, gains)
    return found


def correlation_of_best(choice: BestChoice, differences: Mapping[int, pd.Series]) -> float:
    """`choice_correlation` of one arm: its gains on val with the tested differences of the same fits.

    `differences` are by number those of the arm that it is of, over the seeds. The law of `after_choice` holds for the
    choice here too: a claim needs the number taken and its test passed, and of the numbers that may be taken it is the
    one of largest val gain. That a number is taken only if its gain stands out of chance makes claims rarer still: of
    20,000 simulated arms without any effect on test (6 seeds, a fit's val and test values correlated by 1) a gain was
    claimed in 4.7% with 3 numbers and with 8 where all raise val, by Student's t alone in 5.7% and 9.9%; in 0.5% where
    none does. Where too few are stored to tell, the largest correlation that there can be.
    """
    numbers = [number for number in choice.numbers if number in differences]
    gains, tested = choice.gains[numbers].dropna(), pd.DataFrame({number: differences[number] for number in numbers})
    if len(numbers) < 2 or len(gains.index.intersection(tested.dropna().index)) < 2:
        return MAX_CORRELATION
    return choice_correlation([gains], [tested])
