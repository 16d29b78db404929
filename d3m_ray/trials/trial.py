"""Run one trial: fine-tune without some ids, with a seed, and predict; then its rows of the store.

A fit is one fine-tuned model, a trial one (method, num_removed, seed) that uses a fit. Equal fits are trained once.
The first fit loads what trains, with torch: to plan trials, and to record those of stored fits, takes none of it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from d3m_ray.keys import content_hash
from d3m_ray.metrics.groups import group_metrics
from d3m_ray.records import DeviceKind, Examples, Predictions, Splits
from d3m_ray.store.experiments import PlannedTrial
from d3m_ray.store.store import Store
from d3m_ray.training.memory import let_go_with
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.registry import ERM, RECIPES, Recipe
from d3m_ray.training.settings import RobustConfig, TrainingConfig
from d3m_ray.trials.stored_fits import StoredFit, as_stored, read_fit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from d3m_ray.training.batching import TokenizedExamples
    from d3m_ray.training.fine_tuning import Fit

EVALUATED_SPLITS = ("val", "test")
TRAINING_VERSION = "3"  # raised when the same settings train to other weights: older fits are not taken for new ones
SET_ONLY = ("warmup_share", "adam_eps_root")  # training settings that enter a fit key where they are not 0


@dataclass(frozen=True, eq=False)
class TrialContext:
    """What all trials of an experiment share; it travels to each worker once."""

    experiment: str
    store: Store
    splits: Splits
    tokens: "Mapping[str, TokenizedExamples]"
    pretrained: PretrainedModel
    training: TrainingConfig
    """Its precision is float32 or bfloat16: what "auto" comes to is decided once, for all machines."""
    robust: RobustConfig
    data_hash: str
    model_hash: str
    warnings: tuple[str, ...] = ()
    """What a person should know of the model on this corpus; enters no key."""
    device: DeviceKind = "cpu"
    """What all fits are trained on."""
    recipes: Mapping[str, Recipe] = field(default_factory=lambda: dict(RECIPES))
    """By name those that trials train by. They travel to the workers, which know a plug-in's by nothing else."""
    load: "Callable[[], tuple[PretrainedModel, Mapping[str, TokenizedExamples]]] | None" = None
    """Of a context whose model was prepared before, and of which `pretrained` has the name alone: loads it and the
    tokens. What trains or scores asks for `whole()`."""

    def whole(self) -> "TrialContext":
        """With the pretrained model and the tokens of the splits, loaded where they are not yet.

        The same object each time, which the engine sends to its workers once.
        """
        return self if self.load is None else self._loaded

    @cached_property
    def _loaded(self) -> "TrialContext":
        assert self.load is not None, "a whole context has nothing to load"
        pretrained, tokens = self.load()
        return replace(self, pretrained=pretrained, tokens=tokens, load=None)

    def __post_init__(self) -> None:
        if self.training.precision == "auto":
            raise ValueError("the precision of fits is resolved before their keys are made, received auto")

    def fit_key(self, removed: np.ndarray, seed: int, recipe: str = ERM) -> str:
        """Hash of the data, the kept ids, the training configuration, the device, the model, the seed, the recipe.

        Of a recipe's settings those enter that it reads. How a fit is paired with that of the full split enters where
        something is removed, or a plug-in's recipe may leave something out: else the full split's fit is the same under
        either pairing.
        """
        trained_by = self.recipes[recipe]
        kept = np.delete(self.splits.train.example_ids, removed)
        settings = {name: value for name, value in asdict(self.training).items() if value or name not in SET_ONLY}
        paired = {name: settings.pop(name) for name in ("pairing", "step_matched")}
        if len(removed) or trained_by.of_plugin:
            settings["pairing"] = paired if self.training.pairing == "independent" else "common"
        trained = (settings, self.device, self.model_hash, str(seed))
        by_recipe = (recipe, trained_by.version, trained_by.read_settings(self.robust))
        return content_hash(TRAINING_VERSION, self.data_hash, kept.tolist(), *trained, *by_recipe)

    def trial_key(self, fit_key: str, method: str, num_removed: int, draw: int | None = None) -> str:
        """Hash of the fit and of what asks for it; of a trial that is told apart by its draw, of that too."""
        drawn = () if draw is None else (str(draw),)
        return content_hash(fit_key, self.experiment, method, str(num_removed), *drawn)


@dataclass(frozen=True, eq=False)
class FitSpec:
    """One model to fine-tune: positions of train examples that it does without [M], its seed, and how."""

    fit_key: str
    removed: np.ndarray
    seed: int
    keeps_weights: bool = False
    """Whether its weights go to the store, as a checkpoint that attribution reads."""
    recipe: str = ERM
    """A name of `registry.RECIPES`."""


@dataclass(frozen=True, eq=False)
class TrialSpec:
    """One (method, num_removed, seed) and the fit that answers it."""

    trial_key: str
    method: str
    num_removed: int
    seed: int
    """The fit's seed; of a draw that has a number of its own, this."""
    fit: FitSpec
    selection: Mapping[str, Any] = field(default_factory=dict)
    """What its metadata say of how its selection came about: JSON values; enters no key."""
    may_have_failed: bool = True
    """Whether a failure of it may be stored, which is to be forgotten when it succeeds."""


def plan_trial(
    context: TrialContext,
    method: str,
    removed: np.ndarray,
    seed: int,
    recipe: str = ERM,
    draw: int | None = None,
) -> TrialSpec:
    """The trial of a method that removes these positions and trains with this seed and recipe.

    With `draw`, many trials of one number removed share a seed of training, and the draw tells them apart.
    """
    fit = FitSpec(context.fit_key(removed, seed, recipe), removed, seed, recipe=recipe)
    key = context.trial_key(fit.fit_key, method, len(removed), draw)
    return TrialSpec(key, method, len(removed), seed if draw is None else draw, fit)


_models: "dict[str, PreTrainedModel]" = {}  # at most one, by a hash of all that it was built from


def run_fit(context: TrialContext, spec: FitSpec) -> StoredFit:
    """Fine-tune, predict val and test, and store the fit; the weights first, so that a stored fit is whole."""
    from d3m_ray.training.fine_tuning import predict
    from d3m_ray.training.recipes import FitInputs

    recipe = context.recipes[spec.recipe]
    model = _model_for(context)
    if recipe.of_plugin:
        forget_model()  # what it freezes, hooks or replaces in the model is for no other fit
    kept = np.delete(np.arange(len(context.splits.train)), spec.removed)
    inputs = FitInputs(
        model=model,
        pretrained=context.pretrained,
        train=context.tokens["train"],
        kept=kept,
        val=context.tokens["val"],
        config=context.training,
        seed=spec.seed,
        robust=context.robust,
        settings=recipe.settings,
    )
    fit: Fit = recipe.fit(inputs)
    predictions = {
        split: predict(model, context.tokens[split], context.training.precision) for split in EVALUATED_SPLITS
    }
    if not all(np.isfinite(of_split.margins).all() for of_split in predictions.values()):
        raise FloatingPointError("the trained model gives no finite answers: lower --learning-rate")
    if spec.keeps_weights:
        weights = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
        context.store.write_checkpoint(spec.fit_key, weights)
    frames = [_fit_rows(context, spec.fit_key, context.splits.by_name()[s], p) for s, p in predictions.items()]
    rows, configuration = pd.concat(frames), _fit_configuration(context, spec, len(kept), fit)
    context.store.write("fits", spec.fit_key, rows, configuration)
    return as_stored(rows, configuration)


def record_trial(context: TrialContext, trial: TrialSpec, fitted: StoredFit | None = None) -> float:
    """Store the rows of a trial whose fit is stored, and return its val WGA. The removed ids go first.

    The fit is read where it is not given. The trial's metadata say how its own experiment trains: a full split's fit
    may be that of an experiment of another pairing.
    """
    fit_key = trial.fit.fit_key
    fitted = read_fit(context.store, fit_key) if fitted is None else fitted
    configuration = fitted.configuration
    frames = []
    for split in EVALUATED_SPLITS:
        examples = context.splits.by_name()[split]
        predictions = fitted.predictions(examples)
        names = context.splits.group_names, context.splits.label_names
        frames.append(group_metrics(predictions, examples, *names).assign(split=split))
    rows = pd.concat(frames, ignore_index=True).assign(
        trial_key=trial.trial_key,
        fit_key=fit_key,
        experiment=context.experiment,
        dataset=context.splits.name,
        model=context.pretrained.name,
        objective=trial.fit.recipe,
        num_removed=trial.num_removed,
        seed=trial.seed,
        created_at=datetime.now(UTC),
        **configuration["fit"],
    )
    trial_configuration = {
        **configuration,
        "training": asdict(context.training),
        "experiment": context.experiment,
        "method": trial.method,
        "selection": dict(trial.selection),
    }
    if trial.num_removed:
        ids = pd.DataFrame({"example_id": context.splits.train.example_ids[trial.fit.removed]})
        ids.insert(0, "trial_key", trial.trial_key)
        context.store.write("removals", trial.trial_key, ids, trial_configuration, trial.method)
    context.store.write("trials", trial.trial_key, rows, trial_configuration, trial.method)
    if trial.may_have_failed:
        context.store.delete_failure(trial.trial_key, trial.method)
    return float(rows.query("split == 'val' and group == 'worst'")["accuracy"].iloc[0])


def record_failure(context: TrialContext, trial: TrialSpec, error: str, traceback: str) -> None:
    """Store why a trial has no result; it is tried again at the next run."""
    planned = PlannedTrial(trial.method, trial.num_removed, trial.seed)
    _write_failure(context, trial.trial_key, planned, error, traceback)


def record_unselected(context: TrialContext, trial: PlannedTrial, error: str, traceback: str) -> None:
    """Store why the selection of a trial could not be made, so that it has no fit yet, and no key of its own."""
    _write_failure(context, unselected_key(context, trial), trial, error, traceback)


def unselected_key(context: TrialContext, trial: PlannedTrial) -> str:
    """What stands for the key of a trial whose selection is not known."""
    return content_hash("unselected", context.experiment, *map(str, trial))


def _write_failure(context: TrialContext, key: str, trial: PlannedTrial, error: str, traceback: str) -> None:
    row = {
        "trial_key": key,
        "experiment": context.experiment,
        "num_removed": trial.num_removed,
        "seed": trial.seed,
        "error": error,
        "traceback": traceback,
        "created_at": datetime.now(UTC),
    }
    context.store.write("failures", key, pd.DataFrame([row]), asdict(context.training), trial.method)


def forget_model() -> None:
    """Keep no model in this process: the next fit builds it again."""
    _models.clear()


let_go_with(forget_model)


def _model_for(context: TrialContext) -> "PreTrainedModel":
    from d3m_ray.training.model import build_classifier
    from d3m_ray.training.precision import device_of

    # Not of `model_hash`: one model has the words of each corpus that it is fine-tuned on.
    key = content_hash(json.dumps(context.pretrained.config, sort_keys=True, default=str), context.device)
    if key not in _models:
        _models.clear()
        _models[key] = build_classifier(context.pretrained, device_of(context.device))
    return _models[key]


def _fit_rows(context: TrialContext, fit_key: str, examples: Examples, predictions: Predictions) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "fit_key": fit_key,
            "split": examples.split,
            "example_id": examples.example_ids,
            "group": np.array(context.splits.group_names)[examples.groups],
            "label": examples.labels,
            "margin": predictions.margins,
            "predicted": predictions.predicted,
            "probability": predictions.probabilities,
        }
    )


def _fit_configuration(context: TrialContext, spec: FitSpec, num_train: int, fit: "Fit") -> dict[str, Any]:
    from d3m_ray.training.precision import device_name

    recipe = context.recipes[spec.recipe]
    return {
        "data_hash": context.data_hash,
        "model_hash": context.model_hash,
        "model": context.pretrained.name,
        "dataset": context.splits.name,
        "label_names": list(context.splits.label_names),
        "training": asdict(context.training),
        "objective": spec.recipe,
        **({"robust": asdict(context.robust)} if recipe.reads else {}),
        **({"recipe": asdict(recipe.settings)} if recipe.settings is not None else {}),
        "seed": spec.seed,
        "chosen_epoch": fit.chosen_epoch,
        "device": device_name(),
        "fit": {"train_seconds": fit.train_seconds, "num_steps": fit.num_steps, "num_train": num_train},
    }
