"""The chunked softmax over the catalog is the softmax over the catalog."""

import pytest
import torch
import torch.nn.functional as F

from finetune.softmax import catalog_cross_entropy


@pytest.mark.parametrize("some_excluded", [False, True])
@pytest.mark.parametrize("chunk", [1, 10, 37, 512])
def test_loss_and_gradients_equal_the_whole_matrix(chunk: int, some_excluded: bool) -> None:
    torch.manual_seed(0)
    states = torch.randn(37, 16, dtype=torch.float64, requires_grad=True)
    items = torch.randn(91, 16, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 60, (37,))
    excluded = torch.arange(91) >= 60 if some_excluded else None
    leaves = (states, items, scale)
    ours = torch.autograd.grad(
        catalog_cross_entropy(states, items, targets, scale, excluded, chunk) * 2, leaves
    )
    scores = scale * states @ (items[:60] if some_excluded else items).T
    whole = F.cross_entropy(scores, targets) * 2
    for mine, theirs in zip(ours, torch.autograd.grad(whole, leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_no_positions_cost_nothing() -> None:
    states = torch.zeros(0, 4, requires_grad=True)
    items = torch.randn(5, 4, requires_grad=True)
    loss = catalog_cross_entropy(states, items, torch.zeros(0, dtype=torch.int64), torch.ones(1))
    loss.backward()
    assert loss.item() == 0
    assert items.grad is not None
    assert items.grad.abs().sum() == 0
