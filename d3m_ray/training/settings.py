"""How models are fine-tuned."""

from dataclasses import dataclass
from typing import Literal

from d3m_ray.rules import check

Precision = Literal["auto", "float32", "bfloat16"]
FinalModel = Literal["last", "val_accuracy", "val_wga"]
Pairing = Literal["common", "independent"]


@dataclass(frozen=True)
class TrainingConfig:
    """How every model of an experiment is fine-tuned. All of it enters the fit key."""

    num_epochs: int = 10
    """Passes over the kept train examples."""
    learning_rate: float = 1e-5
    """AdamW's largest learning rate; it falls linearly to zero."""
    warmup_share: float = 0.0
    """Share of the optimiser steps over which the learning rate first rises linearly from zero."""
    batch_size: int = 32
    """Examples in an optimiser step."""
    max_length: int = 128
    """Tokens of a text, special ones included; the rest is cut off."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay of every weight but biases and normalisation."""
    adam_eps_root: float = 0.0
    """Added to AdamW's second moment inside the square root, which makes the fit a smoother function of its data
    (1e-8 does); 0 is plain AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this L2 norm."""
    precision: Precision = "auto"
    """Matrix products in bfloat16 where the device multiplies it fast (auto), or always one of the two."""
    final_model: FinalModel = "val_accuracy"
    """The weights after the last epoch, or those of the epoch with the best val accuracy or val WGA."""
    pairing: Pairing = "common"
    """How a fit without some examples relates to that of the full train split under its seed. common: the same batches,
    dropout and steps, without them, so that what differs is what was removed; independent: batches and dropout of its
    own."""
    step_matched: bool = False
    """Under independent pairing, whether a small kept set takes as many optimiser steps as the full train split, in
    more passes over it; under common pairing it always takes as many."""

    def __post_init__(self) -> None:
        check(self.num_epochs >= 1, "--num-epochs is at least 1", self.num_epochs)
        check(self.learning_rate > 0, "--learning-rate is above 0", self.learning_rate)
        check(self.batch_size >= 1, "--batch-size is at least 1", self.batch_size)
        check(self.max_length >= 3, "--max-length is at least 3 (two special tokens and a word)", self.max_length)
        check(self.weight_decay >= 0, "--weight-decay is at least 0", self.weight_decay)
        check(0 <= self.warmup_share < 1, "--warmup-share is at least 0 and below 1", self.warmup_share)
        check(self.adam_eps_root >= 0, "--adam-eps-root is at least 0", self.adam_eps_root)
        check(self.max_grad_norm > 0, "--max-grad-norm is above 0", self.max_grad_norm)


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
        check(self.dro_step_size >= 0, "--dro-step-size is at least 0", self.dro_step_size)
        check(self.jtt_first_epochs >= 1, "--jtt-first-epochs is at least 1", self.jtt_first_epochs)
        check(self.jtt_upweight >= 1, "--jtt-upweight is at least 1", self.jtt_upweight)
        check(self.dfr_inverse_l2 > 0, "--dfr-inverse-l2 is above 0", self.dfr_inverse_l2)
