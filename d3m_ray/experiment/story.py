"""THE STORY: data, base models, attribution, alignment, selection, trials; each stage skips what the store has.

Data gives disjoint train, val and test examples. We fine-tune base checkpoints. Attribution gives every train example
one score per group. Alignment weighs the groups by their val loss. Selection names the examples to remove, in rounds if
asked, each after models without what went before. Trials retrain without them, over seeds, beside random removals of
the same size. Val says which number is best, if an arm asks. Every result lands in the store.
"""

import functools

from d3m_ray.experiment.best import record_best
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.failures import Unscored, lost_trials, settle_unselected
from d3m_ray.experiment.fits import Fits
from d3m_ray.experiment.plan import (
    Prepared,
    alignment_names,
    check_name_is_free,
    plan_trials,
    read_corpus,
    reads_base_models,
    record_plan,
    with_numbers_that_fit,
)
from d3m_ray.experiment.preparing import prepare_on
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.run import Outcome, Run, despite_lost_engines
from d3m_ray.experiment.scoring import attribute_and_align, is_aligned
from d3m_ray.experiment.stages import (
    base_models,
    discard_incomplete,
    forget_superseded,
    gather_evidence,
    go_through_rounds,
    selected_by,
    tell_of_spared,
    unless_it_fails,
)
from d3m_ray.experiment.versions import check_versions
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import Engine


def prepare(config: ExperimentConfig, store: Store, progress: Progress, numbers_chosen: bool = True) -> Prepared:
    """Load the corpus and the model and check all that was asked for, before a cluster is joined; writes nothing.

    Where nobody chose the numbers removed, those that would take more than half of train are left out. Raises
    InputError where an input breaks a rule, StoreError where the store cannot be used.
    """
    splits = read_corpus(config, progress)
    if not numbers_chosen:
        config = with_numbers_that_fit(config, splits, progress)
    prepared = prepare_on(config, splits, store, progress)
    check_name_is_free(prepared.config, prepared.context)
    check_versions(prepared.config, prepared.context)
    return prepared


@despite_lost_engines
def run_experiment(prepared: Prepared, engine: Engine, progress: Progress) -> Outcome:
    """Bring the store to hold every trial of an experiment that `prepare` has checked."""
    config, context = prepared.config, prepared.context
    store = context.store
    record_plan(prepared, progress)
    run = Run(config, context, engine, progress)
    discard_incomplete(run)

    # What begins here overlaps: fits go on while a method is scored, and its arms train while the next one is.
    progress.stage(f"experiment {context.experiment} in {store}: base models, and trials that wait for no attribution")
    fits = Fits(run)
    models = base_models(run) if reads_base_models(config) else []
    fits.begin(plan_trials(config, context, gather_evidence(run)), models)
    fits.wait(models)
    fits.begin(selected_by(None, run), by="the base models' losses")

    unscored: list[Unscored] = []
    for name in alignment_names(config):
        if not is_aligned(name, run):
            unscored += unless_it_fails(name, run, fits.failed, functools.partial(attribute_and_align, name, run))
            fits.begin(selected_by(name, run), by=name)
    unscored += go_through_rounds(run, fits)

    evidence = gather_evidence(run)
    trials = plan_trials(config, context, evidence)
    tell_of_spared(run, trials)
    fits.begin(trials, by="what waited for more than one alignment")
    fits.wait()

    forget_superseded(run, trials)
    settle_unselected(config, context, evidence, fits.failed, unscored)
    unscored += record_best(run, evidence)
    unscored += lost_trials(context, trials, fits.failed)
    return Outcome(context.experiment, fits.failed, unscored)
