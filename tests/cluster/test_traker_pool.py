"""The traker method on actors gives what it gives in this process, to the bit, for any number of them."""

import numpy as np
import pytest

from d3m_ray.attribution import AttributionInputs, Checkpoint, traker
from d3m_ray.cluster.pool import RayPool
from d3m_ray.config import TrakConfig
from d3m_ray.pool import LocalPool

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_cluster")]


@pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")
def test_traker_scores_are_those_of_the_local_pool(tiny_base, made_tokens, monkeypatch):
    bases = [tiny_base("bert", seed=seed) for seed in (0, 1)]
    checkpoints = tuple(Checkpoint(f"seed {seed}", base, base.weights) for seed, base in enumerate(bases))
    inputs = AttributionInputs(checkpoints, made_tokens("train", 60), made_tokens("val", 14, 3), 3, "auto")
    monkeypatch.setattr(traker, "GRADIENT_BYTES", 4 * 8 * sum(array.size for array in bases[0].weights.values()))
    assert len(traker.make_batches(inputs.train, checkpoints[0], inputs.precision)) == 8
    config = TrakConfig(projection_dim=128)
    expected = traker.score_groups(inputs, config, LocalPool())
    for num_workers in (1, 2):
        with RayPool(num_workers) as pool:
            np.testing.assert_array_equal(traker.score_groups(inputs, config, pool), expected)
