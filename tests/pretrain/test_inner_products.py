"""Inner products of equal vectors are equal, whatever the kernel."""

import pytest
import torch

from pretrain.inner_products import COLUMNS, inner_products

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("rows", [1, 3, 256])
@pytest.mark.parametrize("width", [8, 60, 384])
def test_the_last_of_equal_vectors_scores_as_the_first(rows: int, width: int) -> None:
    torch.manual_seed(0)
    queries, vector = torch.randn(rows, width), torch.randn(1, width)
    product = torch.Tensor.__matmul__

    def by_group(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """A product whose columns beyond the last whole group are rounded otherwise."""
        scores = product(left, right)
        scores[:, scores.shape[1] // COLUMNS * COLUMNS :] *= 1 + 1e-6
        return scores

    for number in (5, 16, 17, 90, 257, 1682):
        vectors = vector.repeat(number, 1)
        scores = inner_products(queries, vectors)
        assert scores.shape == (rows, number)
        torch.testing.assert_close(scores, queries @ vectors.T, rtol=1e-4, atol=1e-4)
        assert (scores == scores[:, :1]).all()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "__matmul__", by_group)
            assert (inner_products(queries, vectors) == scores).all()
