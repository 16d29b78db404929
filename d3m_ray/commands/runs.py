"""The commands `run`, `plan`, `lds` and `leaderboard`: on a corpus by its name, or on an experiment's record."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from d3m_ray.commands.sweeps import run_lds_sweep, run_leaderboard_sweep, run_plan, run_sweep
from d3m_ray.commands.terminal import on_standard_output, say, tell_of_broken_plugins
from d3m_ray.data.corpora import CORPORA
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.repeat import config_of
from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
from d3m_ray.rules import check_known
from d3m_ray.selection.arms import ARMS, AUTO_SUFFIX
from d3m_ray.store.results import is_name
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.wording import counted

HUNDREDS_OF_FITS = TrainingConfig(num_epochs=3, learning_rate=5e-5, final_model="last")  # such studies take them
FOR_TINY = TrainingConfig(num_epochs=3, learning_rate=1e-3, final_model="last")
LDS_METHODS = ("trak", "ekfac", "embedding", "random")
# All but the two reference libraries, which are slow and give what trak and ekfac give.
BOARD_METHODS = ("trak", "ekfac", "metagradient", "tracin", "gradcos", "embedding", "bm25", "loss", "random")


@dataclasses.dataclass(frozen=True)
class RunCommand:
    """A command that runs on a corpus: what it does, from which settings, and by which function."""

    does: str
    start: Callable[[str, Any, list[str], str], None]
    settings: Callable[[ExperimentConfig], Any] = lambda config: config
    methods: tuple[str, ...] = ()
    """Of a study, the attribution methods that it judges on a corpus; of a record it takes the record's."""


def _lds(config: ExperimentConfig) -> LdsConfig:
    return LdsConfig(config, removal_shares=("1%", "5%", "10%"))


COMMANDS: Mapping[str, RunCommand] = {
    "run": RunCommand("Prune the corpus by each method and retrain; show what it came to.", run_sweep),
    "plan": RunCommand("Show what `run` would train and what is stored already; do nothing.", run_plan),
    "lds": RunCommand("Rank methods by how well their scores predict retraining.", run_lds_sweep, _lds, LDS_METHODS),
    "leaderboard": RunCommand(
        "Rank methods by LDS, by what removal does, and by seconds.",
        run_leaderboard_sweep,
        LeaderboardConfig,
        BOARD_METHODS,
    ),
}


def start(command: str, arguments: Sequence[str]) -> None:
    """Run one of `COMMANDS`: its corpus, or the record of an experiment, then flags; ends the process.

    Raises InputError where the corpus is none that is known, or the record cannot be repeated.
    """
    tell_of_broken_plugins()
    if not arguments or arguments[0] in ("-h", "--help"):
        with on_standard_output():
            print(_help(command))
        return
    named, *flags = arguments
    of = COMMANDS[command]
    if named.endswith(".json"):
        defaults, subject = _of_record(named), f"the experiment {Path(named).stem}"
        flags = ["--store", defaults.store, *flags]  # as good as given: no D3M_RAY_STORE stands in its place
        if of.methods:
            defaults = _judged(defaults)
    else:
        check_known("the corpus", named, CORPORA)
        defaults, subject = defaults_of(named), f"the corpus {named}: {CORPORA[named].summary}"
        if of.methods:
            training = HUNDREDS_OF_FITS if defaults.training == TrainingConfig() else defaults.training
            defaults = dataclasses.replace(defaults, methods=of.methods, training=training)
    of.start(f"{of.does} On {subject}.", of.settings(defaults), flags, f"d3m-ray {command} {named}")


def defaults_of(corpus: str) -> ExperimentConfig:
    """What a run of this corpus does unless told otherwise."""
    found = CORPORA[corpus]
    config = ExperimentConfig(corpus=found.options(), num_removed=found.num_removed)
    if corpus != "planted":
        return config
    return dataclasses.replace(  # the demonstration: offline, within minutes
        config,
        model="tiny",
        store="results/demo",
        methods=("trak", "trak_heuristic", "random"),
        training=FOR_TINY,
    )


def _judged(config: ExperimentConfig) -> ExperimentConfig:
    """The attribution methods of a repeated experiment, under a name of the study's own, so that no tables mix.

    Raises InputError where it has none, or was aligned on test.
    """
    instead = "name its corpus in the place of its record, and --methods"
    if config.protocol != "standard":
        raise InputError(f"an LDS is measured on val; {config.experiment} aligns on test, as the thesis did: {instead}")
    alignments = [alignment for arm in config.methods if (alignment := ARMS[arm].alignment) is not None]
    if not alignments:
        raise InputError(
            f"an LDS judges attribution methods; {config.experiment} has the arms {', '.join(config.methods)}, none of "
            f"which goes by one: {instead}"
        )
    methods = (*(alignment.removesuffix(AUTO_SUFFIX) for alignment in alignments), "random")
    selection = dataclasses.replace(config.selection, rounds=1)  # it judges the scores that the first round goes by
    return dataclasses.replace(config, methods=methods, experiment=None, selection=selection)


def _of_record(path: str) -> ExperimentConfig:
    """What the record of an experiment, STORE/experiments/NAME.json, asked for."""
    folder, _, name = path.rpartition("/")
    root, _, kind = folder.rpartition("/")
    if kind != "experiments" or not is_name(name.removesuffix(".json")):
        raise InputError(f"the record of an experiment is STORE/experiments/NAME.json, received {path!r}")
    root = root or ("/" if path.startswith("/") else ".")
    experiment = Store(root).read_experiment(name.removesuffix(".json"))
    if experiment is None:
        raise InputError(f"the record of an experiment is STORE/experiments/NAME.json; there is none at {path!r}")
    config = config_of(experiment, root)
    numbers = len(config.num_removed)
    num_asked = len(config.seeds) * sum(1 if ARMS[method].chooses_number else numbers for method in config.methods)
    if num_more := num_asked - len(set(experiment.plan)):
        say(
            f"{experiment.name} was asked for in parts: repeated, it has every arm with every number and seed, "
            f"{counted(num_more, 'trial')} more than its plan"
        )
    return config


def _help(command: str) -> str:
    corpora = "\n".join(f"  {corpus.name:<12} {corpus.summary}" for corpus in CORPORA.values())
    return (
        f"usage: d3m-ray {command} CORPUS [OPTIONS]\n"
        f"       d3m-ray {command} STORE/experiments/NAME.json [OPTIONS]\n\n"
        f"{COMMANDS[command].does}\n\ncorpora:\n{corpora}\n\nexamples:\n"
        f"  d3m-ray {command} planted\n"
        f"  d3m-ray {command} own --data reviews/ --store results/reviews --learning-rate 5e-5\n"
        f"  d3m-ray {command} own --help\n\n"
        "The last shows every flag with its default. --model names another model than the hub's BERT.\n"
    )
