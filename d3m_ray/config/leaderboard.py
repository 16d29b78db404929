"""Every attribution method on one corpus, by everything that it can be judged by."""

from dataclasses import dataclass, replace

from d3m_ray.config.checks import check, check_numbers
from d3m_ray.config.experiment import ExperimentConfig, LdsConfig
from d3m_ray.datamodeling import MIN_SUBSETS

SAME_SEED_SHARE = 0.9  # kept: 10% dropped is the setting in which exact metagradients are published
ACROSS_SEEDS_SHARE = 0.5  # the half-subsets of the TRAK paper
FITS_ACROSS_SEEDS = 2  # of each subset: two tell what a perfect method would reach


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
        check_numbers(self)
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
