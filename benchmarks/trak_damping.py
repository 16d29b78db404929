"""Which ridge suits TRAK on a corpus, by train alone: what it predicts of what it did not see, and how stable it is.

Shapes: N train examples, d projected dimensions, G groups.

Two base models are fine-tuned. For each ridge (in means of the Gram matrix's nonzero eigenvalues, as --trak-damping has
it): the share of the variance of the model's outputs on a fifth of train that the ridge regression on the projected
gradients of the rest explains, mean over the fifths; and how well the scores of the two models agree (Spearman, mean
over groups), with the train examples of each group as its queries. Neither reads val or test.
"""

from dataclasses import dataclass

import numpy as np
import tyro
from corpora import Benchmark, prepare
from scipy.stats import spearmanr

from d3m_ray.attribution.inputs import Checkpoint
from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.trak.scores import GradientStep, project_shard, solve_gram
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.fine_tuning import fine_tune
from d3m_ray.training.model import build_classifier
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig

DAMPINGS = (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
NUM_FOLDS = 5
SEEDS = (0, 1)


@dataclass(frozen=True)
class Settings:
    """The corpus and model, and how the two base models are trained."""

    benchmark: Benchmark
    training: TrainingConfig = TrainingConfig(num_epochs=2, learning_rate=5e-5, final_model="last")  # noqa: RUF009


def main(settings: Settings) -> None:
    """Print both figures for each ridge."""
    pretrained, train = prepare(settings.benchmark)
    features = [_features(pretrained, train, settings.training, seed) for seed in SEEDS]
    print(f"{'damping':>10s}{'variance explained':>20s}{'agreement':>12s}")
    for damping in DAMPINGS:
        explained = np.mean([held_out_share(x, margins, train.labels, damping) for x, margins in features])
        print(f"{damping:10g}{explained:20.3f}{agreement(features, train.groups, damping):12.3f}", flush=True)


def _features(
    pretrained: PretrainedModel, train: TokenizedExamples, training: TrainingConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """[N, d] projected gradients of the margin and [N] margins of a model that was trained under the seed."""
    model = build_classifier(pretrained)
    fine_tune(model, pretrained, train, train.take(np.arange(2)), training, seed)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    task = GradientStep(Checkpoint(f"seed {seed}", pretrained, weights), train, TrakConfig(), training.precision)
    features = project_shard(task, np.arange(len(train)))
    return features.gradients.astype(np.float64), features.margins.astype(np.float64)


def held_out_share(gradients: np.ndarray, margins: np.ndarray, labels: np.ndarray, damping: float) -> float:
    """The share of the outputs' variance on held-out examples that the rest predicts, mean over the folds.

    The output is the log odds of label 1, whose gradient is that of the margin with the label's sign.
    """
    signs = np.where(labels == 1, 1.0, -1.0)
    x, y = signs[:, None] * gradients, signs * margins
    folds = np.random.default_rng(0).permutation(len(y)) % NUM_FOLDS
    shares = []
    for fold in range(NUM_FOLDS):
        seen, unseen = folds != fold, folds == fold
        centre, mean = x[seen].mean(axis=0), y[seen].mean()
        rows = x[seen] - centre
        weights = solve_gram(rows.T @ rows, rows.T @ (y[seen] - mean)[:, None], damping)[:, 0]
        residual = y[unseen] - mean - (x[unseen] - centre) @ weights
        shares.append(1 - residual.var() / y[unseen].var())
    return float(np.mean(shares))


def agreement(features: list[tuple[np.ndarray, np.ndarray]], groups: np.ndarray, damping: float) -> float:
    """The mean over groups of the rank correlation of two models' scores [N, G], train examples being the queries."""
    scores = []
    for gradients, margins in features:
        targets = group_scores(gradients.T, groups, int(groups.max()) + 1)  # [d, G]
        directions = solve_gram(gradients.T @ gradients, targets, damping)
        scores.append((gradients @ directions) / (1 + np.exp(margins))[:, None])
    return float(np.mean([spearmanr(one, other).statistic for one, other in zip(*[s.T for s in scores], strict=True)]))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)))
