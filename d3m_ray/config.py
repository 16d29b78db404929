"""Every setting of an experiment, checked when constructed: the fields are the command line's flags."""

import difflib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from tyro.conf import arg

from d3m_ray.data import CorpusOptions
from d3m_ray.datamodeling import MIN_SUBSETS
from d3m_ray.errors import InputError
from d3m_ray.selection import ARMS, ATTRIBUTION_SETTINGS, is_removal

Precision = Literal["auto", "float32", "bfloat16"]
Protocol = Literal["standard", "thesis"]
FinalModel = Literal["last", "val_accuracy", "val_wga"]
GroupWeights = Literal["softmax", "loss", "uniform"]

MAX_SEED = 2**32 - 1  # what the generators of numpy, torch and scikit-learn all take
MAX_COUNT = 2**31 - 1
MAX_NAME_LENGTH = 100  # a name becomes folders and, with an ending, files: 255 bytes at most
MAX_LISTED = 12  # so many names are listed where one is wrong, and no more
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ADDRESS = re.compile(r"auto|local|(ray://)?[^\s/]+:\d{1,5}")


def _check(holds: bool, rule: str, received: object) -> None:
    if not holds:
        raise InputError(f"{rule}, received {received!r}")


def _check_methods(methods: Sequence[str], known: Collection[str], kind: str) -> None:
    """Raises InputError at the first name that is none of the known ones, with those that are most like it."""
    _check(bool(methods), f"--methods names one or more {kind}s", methods)
    unknown = next((method for method in methods if method not in known), None)
    if unknown is None:
        return
    if "," in unknown:
        mend = f"separate names by blanks: --methods {' '.join(unknown.replace(',', ' ').split())}"
    elif close := difflib.get_close_matches(unknown.lower(), known, n=3):
        mend = f"did you mean {' or '.join(close)}?"
    elif len(known) <= MAX_LISTED:
        mend = f"they are {', '.join(known)}"
    else:
        mend = "the README lists them all, trak, ekfac and random among them"
    raise InputError(f"each of --methods is the name of an {kind}, received {unknown!r}; {mend}")


def _check_removals(numbers: Sequence[int | str]) -> None:
    _check(bool(numbers), "--num-removed is one or more counts, or shares of train", numbers)
    rule = "each of --num-removed is a count from 0, or a share of train below 100%, such as 5%"
    for number in numbers:
        if not is_removal(number):
            blanks = " ".join(str(number).replace(",", " ").split())
            mend = f"; a list is separated by blanks, not commas: {blanks}" if "," in str(number) else ""
            if re.fullmatch(r"0?\.\d+", str(number)):
                mend = f"; did you mean {100 * float(number):g}%?"
            raise InputError(f"{rule}, received {number!r}{mend}")


def _check_numbers(config: Any) -> None:
    """The rules for every number of these settings and of those within: finite, and no larger than generators take."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _check_numbers(value)
        named = getattr(hints[field.name], "__metadata__", ())
        flag = "--" + (named[0].name if named else field.name.replace("_", "-"))
        is_seed = field.name in ("seed", "seeds") or field.name.endswith("_seed")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                _check(math.isfinite(number), f"{flag} is a finite number", number)
            elif isinstance(number, int) and is_seed:
                _check(0 <= number <= MAX_SEED, f"{flag} is a whole number from 0 to {MAX_SEED}", number)
            elif isinstance(number, int):
                _check(number <= MAX_COUNT, f"{flag} is at most {MAX_COUNT}", number)


@dataclass(frozen=True)
class TrainingConfig:
    """How every model of an experiment is fine-tuned. All of it enters the fit key."""

    num_epochs: int = 10
    """Passes over the kept train examples."""
    learning_rate: float = 1e-5
    """AdamW's learning rate at the first step; it falls linearly to zero."""
    batch_size: int = 32
    """Examples in an optimiser step."""
    max_length: int = 128
    """Tokens of a text, special ones included; the rest is cut off."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay of every weight but biases and normalisation."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this L2 norm."""
    precision: Precision = "auto"
    """Matrix products in bfloat16 where the device multiplies it fast (auto), or always one of the two."""
    final_model: FinalModel = "val_accuracy"
    """The weights after the last epoch, or those of the epoch with the best val accuracy or val WGA."""
    step_matched: bool = False
    """Whether a small kept set takes as many optimiser steps as the full train split, in more passes over it."""

    def __post_init__(self) -> None:
        _check(self.num_epochs >= 1, "--num-epochs is at least 1", self.num_epochs)
        _check(self.learning_rate > 0, "--learning-rate is above 0", self.learning_rate)
        _check(self.batch_size >= 1, "--batch-size is at least 1", self.batch_size)
        _check(self.max_length >= 3, "--max-length is at least 3 (two special tokens and a word)", self.max_length)
        _check(self.weight_decay >= 0, "--weight-decay is at least 0", self.weight_decay)
        _check(self.max_grad_norm > 0, "--max-grad-norm is above 0", self.max_grad_norm)


@dataclass(frozen=True)
class RobustConfig:
    """Settings of the arms that train otherwise and remove nothing. They enter the fit keys of those arms only."""

    dro_step_size: float = 0.01
    """Group DRO: step size of the exponentiated gradient on the cells' weights."""
    jtt_first_epochs: int = 1
    """JTT: epochs of the model whose errors on train are upweighted."""
    jtt_upweight: int = 6
    """JTT: how often an error stands in the second model's train set."""
    dfr_data: Literal["val", "train"] = "val"
    """DFR: the split whose cell-balanced subsets the last layer is fitted to."""
    dfr_inverse_l2: float = 1.0
    """DFR: inverse strength of the last layer's L2 penalty, scikit-learn's C."""

    def __post_init__(self) -> None:
        _check(self.dro_step_size >= 0, "--dro-step-size is at least 0", self.dro_step_size)
        _check(self.jtt_first_epochs >= 1, "--jtt-first-epochs is at least 1", self.jtt_first_epochs)
        _check(self.jtt_upweight >= 1, "--jtt-upweight is at least 1", self.jtt_upweight)
        _check(self.dfr_inverse_l2 > 0, "--dfr-inverse-l2 is above 0", self.dfr_inverse_l2)


@dataclass(frozen=True)
class TrakConfig:
    """Settings of TRAK, native or by the traker library. They enter the alignment keys of these two."""

    projection_dim: int = 1024
    """Dimensions that a gradient is projected to, a product of two near-equal factors (1024 = 32 x 32)."""
    damping: Annotated[float, arg(name="trak-damping")] = 1.0
    """Ridge on the Gram matrix, in means of its nonzero eigenvalues; needed where examples are not many times more."""
    projection_seed: int = 0
    """Seed of the random projection."""

    def __post_init__(self) -> None:
        _check(self.projection_dim >= 4, "--projection-dim is at least 4", self.projection_dim)
        _check(self.damping >= 0, "--trak-damping is at least 0", self.damping)


@dataclass(frozen=True)
class EkfacConfig:
    """Settings of EK-FAC, native or by the kronfluence library. They enter the alignment keys of these two."""

    modules: Annotated[tuple[str, ...], arg(name="ekfac-modules")] = ()
    """Linear layers, or modules that hold some, by their dotted names; left out, every linear layer."""
    damping: Annotated[float, arg(name="ekfac-damping")] = 0.1
    """Added to a layer's corrected eigenvalues, in means of them."""
    label_seed: Annotated[int, arg(name="ekfac-label-seed")] = 0
    """Seed of the labels drawn from the model's own probabilities for the Fisher matrix."""

    def __post_init__(self) -> None:
        _check(self.damping > 0, "--ekfac-damping is above 0", self.damping)


@dataclass(frozen=True)
class AlignmentConfig:
    """How scores become group alignment. All of it enters the alignment key."""

    group_weights: GroupWeights = "softmax"
    """softmax: exp(beta * val loss), normalised (the D3M paper); loss: the val loss (its code); uniform."""
    beta: float = 1.0
    """Inverse temperature of softmax weights."""

    def __post_init__(self) -> None:
        _check(self.beta >= 0, "--beta is at least 0", self.beta)


@dataclass(frozen=True)
class ExecutionConfig:
    """Where the work runs. Nothing of it enters a key. A command presets fields from D3M_RAY_<FIELD>, see `flags`."""

    address: str = "auto"
    """Ray to join: auto (a running cluster, else one on this machine), local (always this machine), HOST:PORT or
    ray://HOST:PORT."""
    num_workers: int | None = None
    """Attribution actors; left out, one per GPU where workers take GPUs, else one per core."""
    gpus_per_worker: float = 0
    """GPUs, or a fraction of one, that an attribution actor takes."""
    gpus_per_trial: float = 0
    """GPUs, or a fraction of one, that a trial takes."""
    cpus_per_trial: int = 1
    """Cores, and so torch threads, of a trial and of an attribution actor."""
    max_wait_seconds: float = 1200
    """How long to wait for a cluster to have room for a worker or a trial; an autoscaler takes minutes."""
    debug: bool = False
    """Show the traceback of an error, not only what is wrong."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check(
            _ADDRESS.fullmatch(self.address) is not None,
            "--address is auto, local, HOST:PORT or ray://HOST:PORT",
            self.address,
        )
        workers_ok = self.num_workers is None or self.num_workers >= 1
        _check(workers_ok, "--num-workers is at least 1, or left out", self.num_workers)
        _check(self.gpus_per_worker >= 0, "--gpus-per-worker is at least 0", self.gpus_per_worker)
        _check(self.gpus_per_trial >= 0, "--gpus-per-trial is at least 0", self.gpus_per_trial)
        _check(self.cpus_per_trial >= 1, "--cpus-per-trial is at least 1", self.cpus_per_trial)
        _check(self.max_wait_seconds >= 0, "--max-wait-seconds is at least 0", self.max_wait_seconds)


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
    alignment: AlignmentConfig = AlignmentConfig()
    execution: ExecutionConfig = ExecutionConfig()

    def __post_init__(self) -> None:
        _check_methods(self.methods, ARMS, "arm")
        _check_removals(self.num_removed)
        _check(bool(self.seeds), "--seeds is one or more whole numbers", self.seeds)
        _check(self.num_checkpoints >= 1, "--num-checkpoints is at least 1", self.num_checkpoints)
        _check_numbers(self)
        name_ok = self.experiment is None or _NAME.fullmatch(self.experiment) is not None
        rule = "--experiment is letters, digits, '.', '_' and '-', a letter or digit first"
        _check(name_ok, rule, self.experiment)
        long_rule = f"--experiment has at most {MAX_NAME_LENGTH} characters"
        _check(len(self.experiment or "") <= MAX_NAME_LENGTH, long_rule, self.experiment)
        _check(bool(self.store.strip()), "--store is a folder or URI", self.store)
        _check(bool(self.model.strip()), "--model is a folder, a hub name or tiny", self.model)
        for name in ("methods", "num_removed", "seeds"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))


@dataclass(frozen=True)
class LdsConfig:
    """An experiment whose --methods are attribution methods, judged by how well they foretell retraining."""

    experiment: ExperimentConfig
    """The corpus, the model and the methods; --num-removed and --seeds do not apply."""
    num_subsets: int = 100
    """Random halves of train that are retrained on."""

    def __post_init__(self) -> None:
        _check_methods(self.experiment.methods, ATTRIBUTION_SETTINGS, "attribution method")
        _check(self.num_subsets >= MIN_SUBSETS, f"--num-subsets is at least {MIN_SUBSETS}", self.num_subsets)
        _check_numbers(self)
        if self.experiment.protocol != "standard":
            raise InputError("an LDS is measured on val; leave out --protocol")
