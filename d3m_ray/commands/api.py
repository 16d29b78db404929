"""`run` and `plan` from Python: what the command line does, as functions that raise and return."""

import dataclasses
import io
from collections.abc import Collection
from contextlib import AbstractContextManager
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from d3m_ray.commands.engines import LOCAL, check_cluster, engine_of, follow
from d3m_ray.entry_points import load_plugins
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.rules import check
from d3m_ray.store.store import Store
from d3m_ray.trials.settings import is_address
from d3m_ray.waiting import Say
from d3m_ray.wording import counted

if TYPE_CHECKING:
    from d3m_ray.analysis.results import Results
    from d3m_ray.experiment.plan import Prepared
    from d3m_ray.experiment.progress import Progress
    from d3m_ray.trials.engine import Engine

STORED, TO_RECORD, TO_TRAIN, WAITING = "stored", "to record", "to train", "waits for scores"

Asked = tuple[str, int | None, int]
"""Method, number removed, seed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What an experiment came to. Its repr is the table and the finding; a notebook shows them with the main figure."""

    store: str
    """Folder or URI of the results."""
    experiment: str
    """Its name in the store."""
    failed: tuple[str, ...] = ()
    """A line for each reason for which something has no result."""

    @cached_property
    def _results(self) -> "Results":
        from d3m_ray.analysis.results import read_results

        return read_results(Store(self.store), [self.experiment])[0]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per method and number removed: test accuracies with their intervals, as `summary.csv` has them."""
        from d3m_ray.analysis.summary import summary_table

        return summary_table(self._results)

    @cached_property
    def finding(self) -> str:
        """What was found, in a sentence, or why nothing can be said."""
        from d3m_ray.analysis.headline import headline

        return headline(self._results).sentence

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """What speaks against reading more into it, a sentence each."""
        from d3m_ray.analysis.caveats import find_caveats

        return tuple(caveat.sentence for caveat in find_caveats(self._results))

    @property
    def trials(self) -> pd.DataFrame:
        """The trials, as `d3m_ray.read_trials` gives them."""
        from d3m_ray.analysis.reading import read_trials

        return read_trials(self.store, self.experiment)

    def report(self, folder: str | Path | None = None) -> Path:
        """Write tables, figures and the page; its path. `folder` is `figures` in a local store unless it is given."""
        from d3m_ray.analysis.output import PAGE, write_report
        from d3m_ray.commands.results import default_folder

        place = default_folder(Store(self.store)) if folder is None else Path(folder).expanduser()
        write_report([self._results], place, (), lambda line: None, whole_store=False)
        return place / self.experiment / PAGE

    def __repr__(self) -> str:
        from rich.console import Console

        from d3m_ray.analysis.summary import render_summary

        title = f"{self.experiment}, test"
        drawn = io.StringIO()
        plain = Console(width=100, file=drawn, force_jupyter=False, force_terminal=False)
        plain.print(title if self.summary.empty else render_summary(self.summary, title=title))
        return "\n".join([drawn.getvalue().rstrip(), self.finding, *self._remarks()])

    def _repr_html_(self) -> str:
        from d3m_ray.analysis.figures.catalogue import all_figures
        from d3m_ray.analysis.figures.files import svg

        remarks = "".join(f"<p>{escape(line)}</p>" for line in self._remarks())
        if self.summary.empty:
            return f"<p><b>{escape(self.finding)}</b></p>{remarks}"
        table = self.summary.to_html(index=False, na_rep="", float_format="{:.3f}".format)
        drawn = next(iter(all_figures(self._results).values()), None)
        figure = "" if drawn is None else svg(drawn(), "result")
        return f"<p><b>{escape(self.finding)}</b></p>{remarks}{table}{figure}"

    def _remarks(self) -> list[str]:
        cautions = [f"caution: {line}" for line in self.cautions if line not in self.finding]
        return [*cautions, *(f"failed: {line}" for line in self.failed)]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What an experiment would do, given what its store holds. Nothing is trained or written for it."""

    experiment: str
    trials: pd.DataFrame
    """One row per trial: `method`, `num_removed` (NA where the rule decides), `seed`, `state`: stored; to record, of
    a fit that is stored; to train; or waits for scores."""
    num_fits: int
    """Fits that are to be trained before any score is needed; equal fits count once."""
    num_stored: int
    """Of the trials, how many are stored."""

    @property
    def is_done(self) -> bool:
        """Whether every trial is stored and no fit is wanted besides."""
        return self.num_stored == len(self.trials) and self.num_fits == 0

    def __repr__(self) -> str:
        counts = self.trials.groupby(["method", "state"], sort=False).size().unstack(fill_value=0)
        waiting = int((self.trials["state"] == WAITING).sum())
        return (
            f"{self.experiment}: {counted(len(self.trials), 'trial')}, {self.num_stored} of them stored; "
            f"{counted(self.num_fits, 'fit')} to train, and up to {waiting} more when their scores are made\n"
            f"{counts.to_string()}"
        )


def run(config: ExperimentConfig, store: str | Path | None = None, engine: str | None = None) -> Result:
    """Bring a store to hold every trial of an experiment, and return what it shows; equal work is never done twice.

    `store` is a folder or URI, `config.store` by default. `engine` is "ray", "local" (this process, without Ray), or
    the address of a cluster (HOST:PORT, ray://HOST:PORT); `config.execution` by default. Raises InputError where an
    input breaks a rule, StoreError where the store cannot be used, ConnectionError where the cluster cannot, RunError
    where nothing can go on; what fails alone is in `Result.failed`, and the same call tries it again.
    """
    from d3m_ray.experiment.failures import told
    from d3m_ray.experiment.progress import Progress
    from d3m_ray.experiment.story import prepare, run_experiment
    from d3m_ray.experiment.thesis import WARNING

    config = placed(config, store, engine)
    opened = Store(config.store)
    opened.check_writable()
    with Progress() as progress:
        _tell_of_broken_plugins(progress)
        if config.protocol == "thesis":
            progress.stage(WARNING)
        check_cluster(config, opened, progress)
        prepared = prepare(config, opened, progress)
        follow(prepared, progress)
        with engine_for(prepared, progress) as running:
            outcome = run_experiment(prepared, running, progress)
    return Result(config.store, outcome.experiment, tuple(told(outcome.failed, outcome.unscored)))


def plan(config: ExperimentConfig, store: str | Path | None = None) -> Plan:
    """What `run` would train, and what is stored already. Every input is checked as it would be, nothing is written."""
    return planned(placed(config, store, None), numbers_chosen=True)


def planned(config: ExperimentConfig, numbers_chosen: bool) -> Plan:
    """As `plan`; where nobody chose the numbers removed, without those that a command leaves out."""
    from d3m_ray.experiment.progress import Progress
    from d3m_ray.experiment.story import prepare

    opened = Store(config.store).reader()
    with Progress() as progress:
        _tell_of_broken_plugins(progress)
        return plan_of(prepare(config, opened, progress, numbers_chosen), progress.stage)


def plan_of(prepared: "Prepared", say: Say = lambda line: None) -> Plan:
    """What is stored already of an experiment that was prepared, and what is not. Nothing is deleted or written.

    `say` is told, once, of each damaged file that it comes to, which counts as not stored: a run deletes it, and makes
    it again.
    """
    from rich.console import Console

    from d3m_ray.experiment.keys import checkpoint_keys
    from d3m_ray.experiment.plan import asked_trials, plan_trials, reads_base_models
    from d3m_ray.experiment.progress import Progress
    from d3m_ray.experiment.run import Run
    from d3m_ray.experiment.scoring import lacks_scores
    from d3m_ray.experiment.stages import gather_evidence
    from d3m_ray.experiment.versions import trained_otherwise
    from d3m_ray.trials.engine import LocalEngine

    opened, damaged = prepared.context.store.reader(), dict[str, None]()
    config, context = prepared.config, dataclasses.replace(prepared.context, store=opened)
    base_models = checkpoint_keys(config, context) if reads_base_models(config) else []
    unscored = lacks_scores(config, context, damaged.setdefault)
    quiet = Progress(Console(quiet=True))  # what it would say of damaged files is told here
    ready = plan_trials(config, context, gather_evidence(Run(config, context, LocalEngine(), quiet)))
    begun = _begun(opened, context.experiment, damaged.setdefault)
    selected = {trial.method for trial in ready if trial.num_removed}
    waiting = begun[begun["method"].isin({*config.methods} - selected) & (begun["num_removed"] > 0)]
    begun = begun[~begun["trial_key"].isin(trained_otherwise(waiting, context))]
    asked_fits = [*base_models, *begun["fit_key"], *(trial.fit.fit_key for trial in ready)]
    fits = opened.whole_keys("fits", dict.fromkeys(asked_fits), damaged.setdefault)
    stored = _whole_trials(begun, fits, opened, damaged.setdefault)
    of_begun = begun.to_records(index=False).tolist()
    of_ready = [(t.method, t.num_removed, t.seed, t.trial_key, t.fit.fit_key) for t in ready]
    known: dict[Asked, tuple[str, str]] = {}
    for method, number, seed, key, fit in [*of_begun, *of_ready]:  # whose selection is another now counts so
        known |= _under_both_numbers(method, number, seed, (_state(key in stored, fit in fits), fit))
    found = {asked: known.get(asked, (WAITING, "")) for asked in asked_trials(config, context)}
    rows = [(*asked, state) for asked, (state, _) in found.items()]
    trials = pd.DataFrame(rows, columns=["method", "num_removed", "seed", "state"]).astype({"num_removed": "Int64"})
    wanted = {fit for state, fit in found.values() if state == TO_TRAIN} | (set(base_models) - fits)
    if unscored:  # which are made with the weights, and these may have been deleted
        wanted |= {key for key in base_models if not opened.has_whole_checkpoint(key, damaged.setdefault)}
    for line in damaged:
        say(line)
    return Plan(context.experiment, trials, len(wanted), int((trials["state"] == STORED).sum()))


def _begun(store: Store, experiment: str, say: Say) -> pd.DataFrame:
    """One row per stored trial of an experiment: `method`, `num_removed`, `seed`, `trial_key`, `fit_key`."""
    columns = ["method", "num_removed", "seed", "trial_key", "fit_key"]
    rows = store.read_all("trials", columns=columns, filters=[("experiment", "==", experiment)], say=say)
    return rows.drop_duplicates()


def _whole_trials(begun: pd.DataFrame, fits: Collection[str], store: Store, say: Say) -> set[str]:
    """The keys of the stored trials whose fit, and the list of what they removed, are stored and whole too."""
    removing = begun[begun["num_removed"] > 0]
    methods: dict[str, str | None] = dict(zip(removing["trial_key"], removing["method"], strict=True))
    lacking = methods.keys() - store.whole_keys("removals", methods, say)
    return set(begun.loc[begun["fit_key"].isin(fits) & ~begun["trial_key"].isin(lacking), "trial_key"])


def _under_both_numbers(
    method: str, num_removed: int, seed: int, told: tuple[str, str]
) -> dict[Asked, tuple[str, str]]:
    """By its number, and by None: so a trial is asked for where the arm's rule decides how many go."""
    return {(method, num_removed, seed): told, (method, None, seed): told}


def _state(trial_is_stored: bool, fit_is_stored: bool) -> str:
    if trial_is_stored:
        return STORED
    return TO_RECORD if fit_is_stored else TO_TRAIN


def placed(config: ExperimentConfig, store: str | Path | None, engine: str | None) -> ExperimentConfig:
    """The configuration with this store and engine in the place of its own. Raises InputError where it is none."""
    rule = "run and plan take an ExperimentConfig; d3m-ray lds and d3m-ray leaderboard run the studies of methods"
    check(isinstance(config, ExperimentConfig), rule, type(config).__name__)
    if store is not None:
        config = dataclasses.replace(config, store=str(store))
    if engine is None:
        return config
    if engine in ("ray", LOCAL):
        execution = dataclasses.replace(config.execution, engine=LOCAL if engine == LOCAL else "ray")
    elif is_address(engine):
        execution = dataclasses.replace(config.execution, engine="ray", address=engine)
    else:
        raise InputError(f"engine is ray, local, HOST:PORT or ray://HOST:PORT, received {engine!r}")
    return dataclasses.replace(config, execution=execution)


def engine_for(prepared: "Prepared", progress: "Progress") -> "AbstractContextManager[Engine]":
    """As `engine_of`, for an experiment: where all of it is stored, a cluster is not wanted."""
    config = prepared.config
    wanted = config.execution.engine == LOCAL or not plan_of(prepared).is_done  # this process costs nothing to have
    return engine_of(config, prepared.context, progress, wanted)


def _tell_of_broken_plugins(progress: "Progress") -> None:
    for line in load_plugins():
        progress.stage(f"warning: {line}")
