"""Sums of r r^T against whole products, for widths around the blocks' edges."""

import pytest
import torch

from d3m_ray.attribution.ekfac.second_moment import SecondMoment


@pytest.mark.parametrize("width", [1, 3, 32, 191, 193, 385, 700, 1601])
def test_batches_add_up_to_the_whole_product(width):
    rows = torch.randn(40, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = SecondMoment()
    for batch in rows.split(17):
        moment.add(batch)
    found = moment.matrix()
    torch.testing.assert_close(found, rows.T @ rows, rtol=1e-12, atol=1e-12)
    assert torch.equal(found, found.T)


def test_bfloat16_rows_are_summed_in_float32():
    rows = torch.ones(300, 2, dtype=torch.bfloat16)
    moment = SecondMoment()
    for row in rows.split(1):
        moment.add(row)
    assert torch.equal(moment.matrix(), torch.full((2, 2), 300.0))  # of which bfloat16 has no place for the last 44
