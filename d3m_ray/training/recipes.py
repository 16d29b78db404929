"""The ways to train a model: plain, and those that look after the worst groups without removing anything.

Shapes: N train examples, B of a batch, C cells that train has; a cell is a (group, label).
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from d3m_ray.training.batching import TokenizedExamples, on_device
from d3m_ray.training.fine_tuning import ERM_OBJECTIVE, Fit, Objective, fine_tune, predict
from d3m_ray.training.last_layer import layer_to_refit, refit_last_layer
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import RobustConfig, TrainingConfig


@dataclass(frozen=True, eq=False)
class FitInputs:
    """What a fit is made from; the chosen weights are left in the model."""

    model: PreTrainedModel
    pretrained: PretrainedModel
    train: TokenizedExamples
    """The full train split."""
    kept: np.ndarray
    """Ascending positions of what the fit has of it."""
    val: TokenizedExamples
    """On which the final model is chosen, by the one rule of `fine_tune`."""
    config: TrainingConfig
    seed: int
    robust: RobustConfig
    """The settings of this package's own recipes; a plug-in's may not read them."""
    settings: Any = None
    """Those of a plug-in's recipe itself; None where it has none."""

    @property
    def kept_train(self) -> TokenizedExamples:
        """What is kept of the train split."""
        return self.train.take(self.kept)

    def fine_tune(self, objective: Objective = ERM_OBJECTIVE) -> Fit:
        """One run of the plain loop, which says what else holds."""
        return fine_tune(
            self.model, self.pretrained, self.train, self.val, self.config, self.seed, self.kept, objective
        )


Train = Callable[[FitInputs], Fit]
"""A recipe's function: it leaves the chosen weights in the model, in evaluation mode."""


def erm(inputs: FitInputs) -> Fit:
    """Empirical risk minimisation: the mean loss, plainly."""
    return inputs.fine_tune()


def balanced_sampling(inputs: FitInputs) -> Fit:
    """The mean loss over passes of N examples drawn with replacement, every cell as likely as every other."""
    return inputs.fine_tune(Objective(sampling_weights=balanced_weights(inputs.train.cells, inputs.kept)))


def group_dro(inputs: FitInputs) -> Fit:
    """Group DRO over the cells (Sagawa et al. 2020), on the balanced sampling that its authors train it with."""
    cells, kept = inputs.train.cells, inputs.kept
    loss = CellWeightedLoss(cells, kept, inputs.robust.dro_step_size)
    return inputs.fine_tune(Objective(balanced_weights(cells, kept), loss))


def jtt(inputs: FitInputs) -> Fit:
    """Just Train Twice (Liu et al. 2021, arXiv 2107.09044, algorithm 1): upweight what a first model gets wrong.

    The first model's last epoch counts, as there, and no group label. The steps and seconds are those of both models.
    """
    train, robust = inputs.kept_train, inputs.robust
    identification = dataclasses.replace(inputs.config, num_epochs=robust.jtt_first_epochs, final_model="last")
    first = dataclasses.replace(inputs, config=identification).fine_tune()
    start = time.perf_counter()
    is_wrong = ~predict(inputs.model, train, inputs.config.precision).is_correct
    upweighted = np.repeat(np.arange(len(train)), np.where(is_wrong, robust.jtt_upweight, 1))
    second = dataclasses.replace(inputs, train=train.take(upweighted), kept=np.arange(len(upweighted))).fine_tune()
    return Fit(
        num_steps=first.num_steps + second.num_steps,
        chosen_epoch=second.chosen_epoch,
        train_seconds=first.train_seconds + time.perf_counter() - start,
    )


def dfr(inputs: FitInputs) -> Fit:
    """Deep feature reweighting (Kirichenko et al. 2022): the plain fit, its last layer refitted to balanced cells."""
    model, robust = inputs.model, inputs.robust
    balanced_data = {"val": inputs.val, "train": inputs.kept_train}[robust.dfr_data]
    layer = layer_to_refit(model, balanced_data)  # before the training that it would make vain
    start = time.perf_counter()
    fit = inputs.fine_tune()
    refit_last_layer(model, layer, balanced_data, inputs.config.precision, inputs.seed, robust.dfr_inverse_l2)
    return dataclasses.replace(fit, train_seconds=time.perf_counter() - start)


def balanced_weights(cells: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """[N] float64: one over the number that each example's cell keeps, given the cells [N]; 0 of what is removed."""
    _, members, sizes = np.unique(cells[kept], return_inverse=True, return_counts=True)
    weights = np.zeros(len(cells))
    weights[kept] = 1 / sizes[members]
    return weights


class CellWeightedLoss:
    """The loss of group DRO (Sagawa et al. 2020, arXiv 1911.08731, algorithm 1), whose weights q move at each batch.

    With l_c the mean loss of the batch's examples of cell c, and 0 where it has none, q_c is multiplied by
    exp(step size * l_c), q normalised, and sum_c q_c l_c is the loss. q starts uniform over the cells that are kept.
    """

    def __init__(self, cells: np.ndarray, kept: np.ndarray, step_size: float) -> None:
        """`cells` is [N], of the full train split; `kept` are the positions that the fit has of it."""
        names = np.unique(cells[kept])
        self.members = np.searchsorted(names, cells)
        self.step_size = step_size
        self.log_weights = torch.zeros(len(names)).log_softmax(dim=0)  # log: a large loss must not overflow

    def __call__(self, losses: torch.Tensor, positions: np.ndarray) -> torch.Tensor:
        """The loss, a scalar, of a batch of losses [B], given its positions in train [B]."""
        is_member = self.members[positions][:, None] == np.arange(len(self.log_weights))  # [B, C]
        shares = on_device(is_member / is_member.sum(axis=0).clip(min=1), losses.device).to(losses)
        means = (shares * losses[:, None]).sum(dim=0)
        moved = self.log_weights.to(losses) + self.step_size * means.detach()
        self.log_weights = moved.log_softmax(dim=0)
        return (self.log_weights.exp() * means).sum()
