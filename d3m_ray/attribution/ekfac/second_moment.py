"""The sum over rows of r r^T, by the blocks on and below its diagonal: the rest is their mirror image."""

import torch
from torch.nn.functional import pad

from d3m_ray.training.precision import at_least_float32

MIN_BLOCK = 192  # columns: smaller products are slower than what they spare
MAX_BLOCKS = 8  # of a side: with more, strips below the diagonal have little left to spare
ALIGNED = 32  # columns of rows that a processor multiplies at full speed: a column of ones makes them an odd number


class SecondMoment:
    """Adds rows [R, W] up, batch by batch, in the dtype in which they come, sums in float32 at least."""

    def __init__(self) -> None:
        self._width = 0
        self._strips: list[tuple[slice, torch.Tensor]] = []  # rows of the matrix, up to the end of their diagonal block

    def add(self, rows: torch.Tensor) -> None:
        if not self._strips:
            self._begin(rows)
        padded = pad(rows, (0, -rows.shape[1] % ALIGNED))
        for where, total in self._strips:
            total.add_(at_least_float32(padded[:, where].T @ padded[:, : where.stop]))

    def matrix(self) -> torch.Tensor:
        """[W, W], exactly symmetric."""
        size = self._strips[-1][0].stop
        lower = self._strips[0][1].new_zeros(size, size)
        for where, total in self._strips:
            lower[where, : where.stop] = total
        lower = lower[: self._width, : self._width].tril()
        return lower + lower.tril(-1).T

    def _begin(self, rows: torch.Tensor) -> None:
        self._width = rows.shape[1]
        size = self._width + -self._width % ALIGNED
        block = max(MIN_BLOCK, -(-size // MAX_BLOCKS))
        dtype = torch.promote_types(rows.dtype, torch.float32)
        for start in range(0, size, block):
            stop = min(start + block, size)
            self._strips.append((slice(start, stop), rows.new_zeros(stop - start, stop, dtype=dtype)))
