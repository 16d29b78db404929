"""Seeded random sign projections: the same parameter gets the same projection on every worker.

Shapes: d projected dimensions, d = k_out * k_in; O outputs and I inputs of a layer, D entries of a vector.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class SignProjection:
    """A projection P with E[P^T P] = I, block by block over the parameters of a model.

    A matrix parameter's block is `scale` = 1 / sqrt(d) times the Kronecker product of a [k_out, O] and a [k_in, I] sign
    matrix, so that the projected gradient of a linear layer needs only its inputs and output gradients (Choe et al.
    2024, arXiv 2405.13954, section 3.2). A vector parameter's block [d, D] has a single entry in each column, +-1
    (feature hashing, Weinberger et al. 2009, arXiv 0902.2206), in rows that differ as long as there are others: inner
    products of vectors of up to d entries are kept exactly, and to project is to add. Inner products of projected
    gradients are unbiased, with the variance of dense sign matrices or less.
    """

    dim: int
    seed: int

    @property
    def factors(self) -> tuple[int, int]:
        """(k_out, k_in): the two factors of `dim` nearest to each other, the smaller one first."""
        k_out = next(k for k in range(math.isqrt(self.dim), 0, -1) if self.dim % k == 0)
        return k_out, self.dim // k_out

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.dim)

    def signs(self, name: str, num_rows: int, num_columns: int) -> torch.Tensor:
        """[num_rows, num_columns] float32 entries +-1 that depend on the seed, the name and the shape alone."""
        signs = _signs(self._rng(name), num_rows * num_columns)
        return torch.from_numpy(signs.reshape(num_rows, num_columns))

    def hashing(self, name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The row of each entry of a vector, [size] int64 below d, and its sign there, [size] float32 +-1."""
        rng = self._rng(name)
        signs = _signs(rng, size)
        rows = [rng.permutation(self.dim) for _ in range(-(-size // self.dim))]  # none twice before all were once
        return torch.from_numpy(np.concatenate(rows)[:size]), torch.from_numpy(signs)

    def _rng(self, name: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _signs(rng: np.random.Generator, size: int) -> np.ndarray:
    """[size] float32 entries +-1."""
    bits = np.unpackbits(rng.integers(0, 256, size=-(-size // 8), dtype=np.uint8))
    return bits[:size].astype(np.float32) * 2 - 1
