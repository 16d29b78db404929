"""Refit the last linear layer of a fine-tuned classifier on cell-balanced data: deep feature reweighting (DFR).

Shapes: N examples, B examples of a batch, H inputs of the last layer.
"""

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.data.cells import balancing
from d3m_ray.training.batching import TokenizedExamples, budget_batches, put_rows
from d3m_ray.training.budgets import tokens_at_once
from d3m_ray.training.cpu_encoder import only_logits
from d3m_ray.training.fine_tuning import PREDICTION_TOKENS
from d3m_ray.training.model import logits_of
from d3m_ray.training.precision import at_least_float32, autocast

NUM_SUBSETS = 10  # balanced subsets whose coefficients are averaged, as in the authors' code
_FIRST_STREAM = 100  # of `balancing`: the removal arms have the small numbers
MAX_ITERATIONS = 10_000


def layer_to_refit(model: nn.Module, examples: TokenizedExamples) -> nn.Linear:
    """The last linear layer of as many outputs as there are labels, which makes the logits.

    Raises ValueError where the model has none with a bias, or the examples to refit it to lack a label.
    """
    num_labels = examples.num_labels
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == num_labels]
    if not layers or layers[-1].bias is None:
        raise ValueError(
            f"dfr refits the last linear layer of {num_labels} outputs and a bias, and {type(model).__name__} has "
            "none: leave dfr out of --methods, or take another --model"
        )
    labels = np.unique(examples.labels)
    if len(labels) < num_labels:
        raise ValueError(
            f"dfr tells the {num_labels} labels apart, so the split that it refits to has all of them; "
            f"{examples.split} has {labels.tolist()}: name the other of val and train by --dfr-data"
        )
    return layers[-1]


def refit_last_layer(
    model: PreTrainedModel,
    layer: nn.Linear,
    examples: TokenizedExamples,
    precision: str,
    seed: int,
    inverse_l2: float,
) -> None:
    """Put into the layer the logistic regression of the labels on its inputs, standardised, averaged over subsets.

    Kirichenko et al. 2022 (arXiv 2204.02937), section 4, with their code's average over 10 subsets, in each of which
    every cell has as many examples, drawn at random, as the smallest that has any; here under an L2 penalty of strength
    1 / `inverse_l2`. Of two labels, the logits are minus and plus half of the regression's decision function, so that
    the margin is all of it; of more, they are the multinomial regression's.
    """
    from sklearn.linear_model import LogisticRegression  # half a second, which no other recipe waits for
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    features = scaler.fit_transform(layer_inputs(model, layer, examples, precision).astype(np.float64))
    weights, biases = [], []
    for subset in range(NUM_SUBSETS):
        rows = np.delete(np.arange(len(examples)), balancing(examples.cells, seed, _FIRST_STREAM + subset))
        regression = LogisticRegression(C=inverse_l2, max_iter=MAX_ITERATIONS)
        regression.fit(features[rows], examples.labels[rows])
        weights.append(regression.coef_)
        biases.append(regression.intercept_)
    weight = np.mean(weights, axis=0) / scaler.scale_
    bias = np.mean(biases, axis=0) - weight @ scaler.mean_
    if len(bias) == 1:  # two labels: scikit-learn gives one decision function for both
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def layer_inputs(model: PreTrainedModel, layer: nn.Linear, examples: TokenizedExamples, precision: str) -> np.ndarray:
    """[N, H] float32: what the layer reads of each example when the model predicts."""
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = np.zeros((len(examples), layer.in_features), dtype=np.float32)
    model.eval()
    try:
        with torch.inference_mode(), autocast(model.device, precision), only_logits():
            batches = list(budget_batches(examples.lengths, tokens_at_once(model, PREDICTION_TOKENS)))
            for positions in batches:
                logits_of(model, examples.batch(positions, model.device))
            put_rows(features, batches, [at_least_float32(inputs) for inputs in seen])
    finally:
        handle.remove()
    return features
