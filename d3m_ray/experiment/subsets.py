"""The subsets of train that an LDS retrains on: what each keeps, under which seeds it is trained, and what came of it.

Shapes: M subsets, F fits of each, N train examples, Q val examples. A fit of a subset is a trial of the arm `random`.
Its seed in the store names the draw: the r-th fit of subset m has FIRST_DRAW (r + 1) + m, which is the seed it is
trained with too; or, of the base models' seeds, that much above `OF_BASE_SEEDS`, and it is trained with the seed r.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from d3m_ray.errors import InputError
from d3m_ray.experiment.studies import LdsConfig
from d3m_ray.records import FIRST_DRAW
from d3m_ray.selection.arms import random_subset
from d3m_ray.trials.trial import TrialContext, TrialSpec, plan_trial, stored_predictions

OF_BASE_SEEDS = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Subsets:
    """The subsets that keep one share of train, each with its fits."""

    keep_share: float
    trials: tuple[tuple[TrialSpec, ...], ...]
    """M tuples of F."""

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def all_trials(self) -> list[TrialSpec]:
        return [trial for of_subset in self.trials for trial in of_subset]

    @property
    def fit_keys(self) -> list[str]:
        return [trial.fit.fit_key for trial in self.all_trials]

    def trained(self, given_up: Collection[str]) -> "Subsets":
        """The subsets none of whose fits were given up."""
        whole = (of for of in self.trials if not any(trial.fit.fit_key in given_up for trial in of))
        return replace(self, trials=tuple(whole))

    def kept(self, num_train: int) -> np.ndarray:
        """[M, N] bool: whether a subset has a train example."""
        kept = np.ones((len(self), num_train), dtype=bool)
        for row, of_subset in zip(kept, self.trials, strict=True):
            row[of_subset[0].fit.removed] = False
        return kept

    def margins(self, context: TrialContext) -> np.ndarray:
        """[M, F, Q] float32 margins in val of the stored fits."""
        val = context.splits.val
        return np.stack(
            [
                [stored_predictions(context.store, trial.fit.fit_key, val).margins for trial in of_subset]
                for of_subset in self.trials
            ]
        )


def plan_subsets(config: LdsConfig, context: TrialContext) -> list[Subsets]:
    """The subsets of each share, in the order of --keep-share. Raises as `numbers_left_out`."""
    num_train = len(context.splits.train)
    numbers = numbers_left_out(config.keep_shares, num_train)
    return [_plan(share, number, config, context) for share, number in zip(config.keep_shares, numbers, strict=True)]


def numbers_left_out(keep_shares: Collection[float], num_train: int) -> list[int]:
    """How many train examples a subset of each share lacks, rounded down.

    Raises InputError where that is none, or the same for two shares.
    """
    numbers = [int((1 - share) * num_train + 1e-6) for share in keep_shares]
    for share, number in zip(keep_shares, numbers, strict=True):
        if number == 0:
            raise InputError(
                f"--keep-share leaves out at least one train example, received {share:g} of {num_train}: lower it"
            )
    if len(set(numbers)) < len(numbers):
        raise InputError(
            f"each of --keep-share leaves out another number of train examples, received shares of {num_train} that "
            f"leave out {' '.join(map(str, numbers))}: leave one of them out"
        )
    return numbers


def _plan(share: float, number: int, config: LdsConfig, context: TrialContext) -> Subsets:
    planned = []
    for subset in range(config.num_subsets):
        removed = random_subset(len(context.splits.train), number, subset)
        draws = [FIRST_DRAW * (fit + 1) + subset for fit in range(config.fits_per_subset)]
        if config.subset_seeds == "own":
            fits = [plan_trial(context, "random", removed, seed=draw) for draw in draws]
        else:
            fits = [
                plan_trial(context, "random", removed, seed, draw=OF_BASE_SEEDS + draw)
                for seed, draw in enumerate(draws)
            ]
        planned.append(tuple(fits))
    return Subsets(share, tuple(planned))
