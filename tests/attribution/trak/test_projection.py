"""The projection keeps inner products on average, and is the same wherever it is drawn."""

import numpy as np
import pytest
import torch

from d3m_ray.attribution.trak.projection import SignProjection


@pytest.mark.parametrize(
    ("dim", "factors"), [(1024, (32, 32)), (2048, (32, 64)), (36, (6, 6)), (12, (3, 4)), (7, (1, 7))]
)
def test_factors_are_near_equal_and_exact(dim, factors):
    assert SignProjection(dim, 0).factors == factors


def test_signs_depend_on_seed_and_name_alone():
    signs = SignProjection(16, 3).signs("layer.out", 4, 50)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs, SignProjection(64, 3).signs("layer.out", 4, 50))
    assert not torch.equal(signs, SignProjection(16, 4).signs("layer.out", 4, 50))
    assert not torch.equal(signs, SignProjection(16, 3).signs("layer.in", 4, 50))


def test_inner_products_are_unbiased():
    """E[<Pa, Pb>] = <a, b>, for matrices and vectors, within five standard errors."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(8, 9)) + 0.3 for _ in range(2))
    u, v = (rng.normal(size=5) + 0.3 for _ in range(2))
    products = []
    for seed in range(4000):
        projection = SignProjection(16, seed)
        left, right = projection.signs("w.out", 4, 8).numpy(), projection.signs("w.in", 4, 9).numpy()
        dense = projection.signs("norm.weight", 16, 5).numpy()
        pa, pb = ((left @ m @ right.T).ravel() + dense @ w for m, w in ((a, u), (b, v)))
        products.append(projection.scale**2 * pa @ pb)
    exact = (a * b).sum() + u @ v
    error = np.std(products) / np.sqrt(len(products))
    assert abs(np.mean(products) - exact) < 5 * error
    assert error < 0.2 * abs(exact)
