"""What an experiment cost: seconds and examples a second of each stage, and what sharing saved."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.analysis.results import Results


@dataclass(frozen=True)
class Sharing:
    """How many models were trained for how many trials."""

    num_trials: int
    num_fits: int
    train_seconds: float
    """Of all distinct fits, added up: of one after the other, whatever ran at once."""
    saved_seconds: float
    """What the shared fits would have taken a second time."""

    @property
    def num_saved(self) -> int:
        return self.num_trials - self.num_fits


def sharing(results: Results) -> Sharing:
    """What the stored trials cost: arms that remove the same examples under one seed share a fit."""
    seconds = float(results.fits["train_seconds"].sum())
    fits = _distinct_fits(results)
    own = float(fits["train_seconds"].sum())
    return Sharing(len(results.fits), len(fits), own, seconds - own)


def training_costs(results: Results) -> pd.DataFrame:
    """One row per way to train and per number of train examples kept, from the distinct fits.

    Columns: `objective`, `num_train` (fewest to most, as text), `num_fits`, `train_seconds` (of all), `seconds_per_fit`
    (mean) and `train_examples_per_second`.
    """
    fits = _distinct_fits(results)
    fits = fits.assign(num_seen=_num_seen(fits, results))
    rows = []
    for objective, of_objective in fits.groupby("objective", sort=True):
        seconds = of_objective["train_seconds"].sum()
        known = of_objective[of_objective["num_seen"].notna()]
        of_known = known["train_seconds"].sum()
        low, high = of_objective["num_train"].min(), of_objective["num_train"].max()
        rows.append(
            {
                "objective": objective,
                "num_train": f"{low:,}" if low == high else f"{low:,} to {high:,}",
                "num_fits": len(of_objective),
                "train_seconds": seconds,
                "seconds_per_fit": seconds / len(of_objective),
                "train_examples_per_second": known["num_seen"].sum() / of_known if of_known > 0 else np.nan,
            }
        )
    return pd.DataFrame(rows)


def scoring_costs(results: Results) -> pd.DataFrame:
    """One row per set of scores: `method`, `coverage`, `scoring_seconds`, `num_scored` and how many a second."""
    rows = []
    for name, metadata in results.scores_metadata.items():
        seconds = _number(metadata.get("scoring_seconds"))
        scores = results.scores.get(name)
        row: dict[str, Any] = {
            "method": name,
            "coverage": _number(metadata.get("coverage")),
            "scoring_seconds": seconds,
        }
        if scores is not None:
            num_scored = len(scores.example_ids)
            row |= {"num_scored": num_scored, "scored_examples_per_second": num_scored / seconds if seconds else None}
        rows.append(row)
    return pd.DataFrame(rows)


def _number(value: Any) -> float | None:
    """A value of a record where it is a number."""
    return value if isinstance(value, int | float) else None


def _distinct_fits(results: Results) -> pd.DataFrame:
    return results.fits.drop_duplicates("fit_key")


def _num_seen(fits: pd.DataFrame, results: Results) -> pd.Series:
    """How many examples each fit saw, repeats counted; NaN where the record does not say.

    Where the steps are those of whole epochs over what was kept, it is exact; else steps times batch size, of which the
    last batch of an epoch may lack some.
    """
    training: Any = results.configuration.get("training")
    batch_size, num_epochs = (
        training.get(name) if isinstance(training, dict) else None for name in ("batch_size", "num_epochs")
    )
    if not isinstance(batch_size, int) or batch_size < 1:
        return pd.Series(np.nan, index=fits.index)
    by_steps = fits["num_steps"] * batch_size
    if not isinstance(num_epochs, int):
        return by_steps
    whole_epochs = fits["num_steps"] == num_epochs * -(-fits["num_train"] // batch_size)
    return by_steps.where(~whole_epochs, fits["num_train"] * num_epochs)
