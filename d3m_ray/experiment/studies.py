"""Studies of the attribution methods: how well they predict retraining, and all of them beside each other."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from tyro.conf import arg

from d3m_ray.attribution.registry import METHODS
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.metrics.lds import MIN_SUBSETS
from d3m_ray.records import FIRST_DRAW
from d3m_ray.rules import check, check_methods, check_values
from d3m_ray.selection.numbers import is_removal

SubsetSeeds = Literal["own", "base"]

MAX_FITS = 100  # of a subset
SAME_SEED_SHARE = 0.9  # kept: 10% dropped is the setting in which exact metagradients are published
ACROSS_SEEDS_SHARE = 0.5  # the half-subsets of the TRAK paper
FITS_ACROSS_SEEDS = 2  # of each subset: two tell what a perfect method would reach


@dataclass(frozen=True)
class LdsConfig:
    """An experiment whose --methods are attribution methods, judged by how well they predict retraining."""

    experiment: ExperimentConfig
    """The corpus, the model and the methods; --num-removed and --seeds do not apply."""
    num_subsets: int = 100
    """Random subsets of train, of each --keep-share, that are retrained on."""
    keep_shares: Annotated[tuple[float, ...], arg(name="keep-share")] = (0.5,)
    """Shares of train that a subset keeps, each a study of its own: above 0 and below 1."""
    fits_per_subset: int = 2
    """Models trained on each subset, whose mean is its outcome: num_subsets times this many fits for each share. How
    far two of them agree says which LDS a perfect method would reach, so one fit leaves that unknown."""
    subset_seeds: SubsetSeeds = "own"
    """own: every fit of a subset has a seed of its own; base: the r-th fit has the r-th base model's, so that under
    common pairing it differs from that model by what it lacks alone."""
    removal_shares: tuple[str, ...] = ()
    """Shares of train (1% 5% 10%) that go by each method's alignment, and at random, to see what removal does: a fit
    for each method, share and removal seed. None: no fit."""
    removal_seeds: tuple[int, ...] = (100, 101, 102, 103, 104)
    """Seeds of these fits, and of as many of all of train. Others than the base models', whose seeds count from 0:
    what scores know of a seed does not count then."""

    def __post_init__(self) -> None:
        check_methods(self.experiment.methods, METHODS, "attribution method")
        check(self.num_subsets >= MIN_SUBSETS, f"--num-subsets is at least {MIN_SUBSETS}", self.num_subsets)
        check(self.num_subsets < FIRST_DRAW, f"--num-subsets is below {FIRST_DRAW}", self.num_subsets)
        check(1 <= self.fits_per_subset <= MAX_FITS, f"--fits-per-subset is 1 to {MAX_FITS}", self.fits_per_subset)
        check_values(self)
        check(bool(self.keep_shares), "--keep-share is one or more shares of train, such as .5 .9", self.keep_shares)
        for share in self.keep_shares:
            check(0 < share < 1, "each of --keep-share is above 0 and below 1, such as .5", share)
        self._check_removals()
        num_checkpoints = self.experiment.num_checkpoints
        if self.subset_seeds == "base" and self.fits_per_subset > num_checkpoints:
            raise InputError(
                "with --subset-seeds base each fit of a subset has the seed of a base model, received "
                f"--fits-per-subset {self.fits_per_subset} and --num-checkpoints {num_checkpoints}: take "
                f"--num-checkpoints {self.fits_per_subset}, or --fits-per-subset {num_checkpoints}"
            )
        if self.experiment.protocol != "standard":
            raise InputError("an LDS is measured on val; leave out --protocol")
        if self.experiment.selection.rounds != 1:
            raise InputError("an LDS judges scores of the base models, before any round; leave out --rounds")
        for name in ("keep_shares", "removal_shares", "removal_seeds"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))

    def _check_removals(self) -> None:
        """The rules of what goes by alignment, and of its seeds, which are not those that tell subsets apart."""
        for share in self.removal_shares:
            is_share = is_removal(share) and float(share.removesuffix("%")) > 0
            check(is_share, "each of --removal-shares is a share of train above 0% and below 100%, such as 5%", share)
        check(bool(self.removal_seeds), "--removal-seeds is one or more whole numbers", self.removal_seeds)
        highest = max(self.removal_seeds)
        check(highest < FIRST_DRAW, f"each of --removal-seeds is below {FIRST_DRAW}", highest)
        lowest, num_models = min(self.removal_seeds), self.experiment.num_checkpoints
        rule = f"each of --removal-seeds is {num_models} or more: scores know the seeds of the base models below it"
        check(not self.removal_shares or lowest >= num_models, rule, lowest)


@dataclass(frozen=True)
class LeaderboardConfig:
    """An experiment whose --methods are attribution methods, ranked by LDS, by what removal does and by their cost."""

    experiment: ExperimentConfig
    """The corpus, the model and the methods; --num-removed and --seeds do not apply."""
    num_same_seed_subsets: int = 20
    """Subsets of 90% of train that are retrained on under the base models' seeds: --num-checkpoints fits of each."""
    num_across_seeds_subsets: int = 50
    """Halves of train that are retrained on under seeds of their own: two fits of each."""
    removal_shares: tuple[str, ...] = ("5%", "10%", "20%")
    """Shares of train that go by each method's alignment, and at random: a fit for each method, share and seed."""
    removal_seeds: tuple[int, ...] = (100, 101, 102, 103, 104)
    """Seeds of these fits, and of as many of all of train; five at least for an interval."""

    def __post_init__(self) -> None:
        for name in ("num_same_seed_subsets", "num_across_seeds_subsets"):
            flag, number = f"--{name.replace('_', '-')}", getattr(self, name)
            check(number >= MIN_SUBSETS, f"{flag} is at least {MIN_SUBSETS}", number)
        check_values(self)
        self.studies()  # whose rules hold too

    def studies(self) -> tuple[LdsConfig, LdsConfig]:
        """The two LDS that it takes, of one experiment: across seeds, with the removals, and under the base models'."""
        same_seed = LdsConfig(
            self.experiment,
            num_subsets=self.num_same_seed_subsets,
            keep_shares=(SAME_SEED_SHARE,),
            fits_per_subset=self.experiment.num_checkpoints,
            subset_seeds="base",
        )
        across_seeds = replace(
            same_seed,
            num_subsets=self.num_across_seeds_subsets,
            keep_shares=(ACROSS_SEEDS_SHARE,),
            fits_per_subset=FITS_ACROSS_SEEDS,
            subset_seeds="own",
            removal_shares=self.removal_shares,
            removal_seeds=self.removal_seeds,
        )
        return across_seeds, same_seed
