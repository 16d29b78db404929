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

    A matrix parameter's block is the Kronecker product of a [k_out, O] and a [k_in, I] sign matrix, so that the
    projected gradient of a linear layer needs only its inputs and output gradients (Choe et al. 2024,
    arXiv 2405.13954, section 3.2); a vector parameter's block is a [d, D] sign matrix. Signs are +-1; all blocks share
    the factor `scale` = 1 / sqrt(d), applied once to the sum. Inner products of projected gradients are unbiased.
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
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        bits = np.unpackbits(rng.integers(0, 256, size=-(-num_rows * num_columns // 8), dtype=np.uint8))
        signs = bits[: num_rows * num_columns].astype(np.float32) * 2 - 1
        return torch.from_numpy(signs.reshape(num_rows, num_columns))
