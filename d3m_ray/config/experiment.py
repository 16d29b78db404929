"""A whole experiment: a corpus, a model, the arms that are compared, and how."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from d3m_ray.config.attribution import AlignmentConfig, EkfacConfig, MetagradientConfig, TrakConfig
from d3m_ray.config.checks import check, check_best_arms, check_methods, check_numbers, check_removals, check_rounds
from d3m_ray.config.execution import ExecutionConfig
from d3m_ray.config.selection import SelectionConfig
from d3m_ray.config.training import RobustConfig, TrainingConfig
from d3m_ray.data import CorpusOptions
from d3m_ray.datamodeling import MIN_SUBSETS
from d3m_ray.errors import InputError
from d3m_ray.selection import ARMS, ATTRIBUTION_SETTINGS, is_removal

Protocol = Literal["standard", "thesis"]
SubsetSeeds = Literal["own", "base"]

FIRST_DRAW = 1_000_000  # seeds from here on belong to the subsets of an LDS
MAX_FITS = 100  # of a subset
MAX_NAME_LENGTH = 100  # a name becomes folders and, with an ending, files: 255 bytes at most
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ExperimentConfig:
    """A corpus, a model, the arms that are compared, and how. Every field is a flag of each sweep."""

    corpus_options: CorpusOptions
    """How the corpus is cut into splits."""
    data: Path | None = None
    """Folder of the corpus in its original format, or of train.csv, val.csv and test.csv; left out, the hub. Of an
    own corpus, its folder or file."""
    model: str = "google-bert/bert-base-uncased"
    """A transformers folder or hub name, or "tiny": a two-layer BERT of random weights."""
    store: str = "results"
    """Folder or URI (s3://, gs://) of the results; the same store goes on where it was left."""
    store_texts: bool = True
    """Whether the store keeps the texts of train beside their labels and groups, to be shown with their scores."""
    methods: tuple[str, ...] = ("trak", "random")
    """Arms that are compared: an attribution method (trak, ekfac, ...), a control (random, ...), a way to train
    (group_dro, ...). The README lists them all."""
    num_removed: tuple[int | str, ...] = (0, 50, 100, 200)
    """How many train examples an arm removes, as counts or as shares of train (5%); 0 is the base model."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every arm is trained once per seed."""
    num_checkpoints: int = 1
    """Base models that attribution averages over; their seeds count from 0."""
    skip_unsupported: bool = False
    """Whether methods that cannot serve the model are left out, and the others go on; else they end the command."""
    protocol: Protocol = "standard"
    """standard: removal is chosen on train and val. thesis: as a master's thesis had it, ON TEST, for comparison."""
    experiment: str | None = None
    """Name of the experiment in the store; left out, the corpus and a hash of its settings."""
    figures: Path | None = None
    """Folder for tables and figures; left out, `figures` in a local store, else in this folder."""
    training: TrainingConfig = TrainingConfig()
    robust: RobustConfig = RobustConfig()
    trak: TrakConfig = TrakConfig()
    ekfac: EkfacConfig = EkfacConfig()
    metagradient: MetagradientConfig = MetagradientConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    selection: SelectionConfig = SelectionConfig()
    execution: ExecutionConfig = ExecutionConfig()

    def __post_init__(self) -> None:
        check_methods(self.methods, ARMS, "arm")
        check_removals(self.num_removed)
        check(bool(self.seeds), "--seeds is one or more whole numbers", self.seeds)
        highest = max(self.seeds)
        rule = f"each of --seeds is below {FIRST_DRAW}: others are those of an LDS's subsets"
        check(highest < FIRST_DRAW, rule, highest)
        check(self.num_checkpoints >= 1, "--num-checkpoints is at least 1", self.num_checkpoints)
        check_numbers(self)
        check_best_arms(self.methods, self.num_removed, self.seeds, self.protocol)
        check_rounds(self.methods, self.selection.rounds)
        name_ok = self.experiment is None or _NAME.fullmatch(self.experiment) is not None
        rule = "--experiment is letters, digits, '.', '_' and '-', a letter or digit first"
        check(name_ok, rule, self.experiment)
        long_rule = f"--experiment has at most {MAX_NAME_LENGTH} characters"
        check(len(self.experiment or "") <= MAX_NAME_LENGTH, long_rule, self.experiment)
        check(bool(self.store.strip()), "--store is a folder or URI", self.store)
        check(bool(self.model.strip()), "--model is a folder, a hub name or tiny", self.model)
        for name in ("methods", "num_removed", "seeds"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))


@dataclass(frozen=True)
class LdsConfig:
    """An experiment whose --methods are attribution methods, judged by how well they foretell retraining."""

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
    for each method, share and removal seed; left out, none."""
    removal_seeds: tuple[int, ...] = (100, 101, 102, 103, 104)
    """Seeds of these fits, and of as many of all of train. Others than the base models', whose seeds count from 0:
    what scores know of a seed does not count then."""

    def __post_init__(self) -> None:
        check_methods(self.experiment.methods, ATTRIBUTION_SETTINGS, "attribution method")
        check(self.num_subsets >= MIN_SUBSETS, f"--num-subsets is at least {MIN_SUBSETS}", self.num_subsets)
        check(self.num_subsets < FIRST_DRAW, f"--num-subsets is below {FIRST_DRAW}", self.num_subsets)
        check(1 <= self.fits_per_subset <= MAX_FITS, f"--fits-per-subset is 1 to {MAX_FITS}", self.fits_per_subset)
        check_numbers(self)
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
