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


def _hashing(projection: SignProjection, name: str, size: int) -> np.ndarray:
    """[d, size] the block of a vector, dense."""
    rows, signs = projection.hashing(name, size)
    block = np.zeros((projection.dim, size))
    block[rows.numpy(), np.arange(size)] = signs.numpy()
    return block


@pytest.mark.parametrize("size", [5, 40])
def test_inner_products_are_unbiased(size):
    """E[<Pa, Pb>] = <a, b>, for matrices and vectors, within five standard errors."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(8, 9)) + 0.3 for _ in range(2))
    u, v = (rng.normal(size=size) + 0.3 for _ in range(2))
    products, of_vectors, of_dense = [], [], []
    for seed in range(4000):
        projection = SignProjection(16, seed)
        left, right = projection.signs("w.out", 4, 8).numpy(), projection.signs("w.in", 4, 9).numpy()
        hashing, dense = _hashing(projection, "norm.weight", size), projection.signs("dense", 16, size).numpy()
        pa, pb = (projection.scale * (left @ m @ right.T).ravel() + hashing @ w for m, w in ((a, u), (b, v)))
        products.append(pa @ pb)
        of_vectors.append((hashing @ u) @ (hashing @ v))
        of_dense.append(projection.scale**2 * (dense @ u) @ (dense @ v))
    for found, exact in ((products, (a * b).sum() + u @ v), (of_vectors, u @ v)):
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - exact) < 5 * error + 1e-12
        assert error < 0.2 * abs(exact)
    assert np.std(of_vectors) < 1.05 * np.std(of_dense)


def test_a_short_vector_keeps_its_inner_products():
    block = _hashing(SignProjection(16, 2), "norm.bias", 16)
    np.testing.assert_array_equal(block.T @ block, np.eye(16))


def test_the_rows_of_a_long_vector_are_filled_evenly_and_depend_on_seed_and_name():
    rows, signs = SignProjection(16, 2).hashing("norm.bias", 40)
    assert set(np.bincount(rows, minlength=16)) == {2, 3}
    assert set(signs.tolist()) == {-1.0, 1.0}
    for other in (SignProjection(16, 3).hashing("norm.bias", 40), SignProjection(16, 2).hashing("norm.weight", 40)):
        assert not torch.equal(rows, other[0])
        assert not torch.equal(signs, other[1])
