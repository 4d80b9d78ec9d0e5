"""Condition tokens, training pairs, states of purchases, and the swapped-user control."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from generate.conditioning import VectorTokens, condition_keep_mask
from generate.evaluation.users import draw_swapped_users
from generate.next_items import NextItemPairs
from generate.purchase_states import PurchaseStates


@dataclass
class _Interactions:
    offsets: np.ndarray = field(default_factory=lambda: np.array([0, 3, 5]))
    items: np.ndarray = field(default_factory=lambda: np.array([4, 1, 2, 0, 3], dtype=np.int32))

    def history(self, user: int) -> np.ndarray:
        return self.items[self.offsets[user] : self.offsets[user + 1]]


def _pairs(item_mask: np.ndarray | None = None) -> NextItemPairs:
    catalog = SimpleNamespace(interactions=_Interactions())
    split = SimpleNamespace(
        train_positions=lambda: (np.array([0, 0, 1]), np.array([1, 2, 1])),
        train_end=np.array([3, 2]),
    )
    return NextItemPairs(catalog, split, item_mask)


def test_other_purchases_are_those_of_the_training_part_before_and_after() -> None:
    assert _pairs().other_purchases(0).tolist() == [4, 2]
    assert _pairs().other_purchases(1).tolist() == [4, 1]
    pictured = np.arange(5) != 2  # item 2 is no target, but still in the history
    assert _pairs(pictured).other_purchases(0).tolist() == [4, 2]
    shorter = SimpleNamespace(
        train_positions=lambda: (np.array([0]), np.array([1])), train_end=np.array([2, 0])
    )
    held_out = NextItemPairs(SimpleNamespace(interactions=_Interactions()), shorter)
    assert held_out.other_purchases(0).tolist() == [4]


def test_absent_and_zero_vectors_become_the_same_null_tokens() -> None:
    tokens = VectorTokens(width=6, num_tokens=3, token_width=8)
    vectors = torch.randn(3, 6)
    vectors[2] = 0
    out = tokens(vectors, torch.tensor([True, False, True]))
    assert out.shape == (3, 3, 8)
    assert torch.equal(out[1], tokens.null)
    assert torch.equal(out[2], tokens.null)
    assert not torch.equal(out[0], tokens.null)


def test_a_dropped_vector_gets_no_gradient() -> None:
    tokens = VectorTokens(width=6, num_tokens=2, token_width=8)
    vectors = torch.randn(2, 6, requires_grad=True)
    (tokens(vectors, torch.tensor([True, False])) * torch.randn(2, 2, 8)).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad[0].abs().sum() > 0
    assert vectors.grad[1].abs().sum() == 0


def test_whitened_vectors_have_unit_variance_in_every_direction() -> None:
    tokens = VectorTokens(width=4, num_tokens=2, token_width=8)
    sample = torch.randn(500, 4) @ torch.diag(torch.tensor([1.0, 0.3, 0.1, 0.03])) + 5
    tokens.fit_whitening(sample, shrinkage=0)
    whitened = (sample - tokens.mean) @ tokens.whitener
    torch.testing.assert_close(whitened.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(whitened.T, correction=0), torch.eye(4), atol=1e-2, rtol=0)
    tokens.fit_whitening(torch.zeros(3, 4))  # missing conditions change nothing
    assert torch.isfinite(tokens(sample)).all()


def test_directions_that_predict_no_target_are_removed() -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(8000, 6, generator=generator)
    noise = torch.randn(8000, 6, generator=generator)
    targets = torch.cat([0.3 * sample[:, :2] + 0.95 * noise[:, :2], noise[:, 2:]], dim=1)
    mixing = torch.randn(6, 6, generator=generator)
    tokens = VectorTokens(width=6, num_tokens=2, token_width=8)
    tokens.fit_whitening(sample @ mixing, targets @ mixing, shrinkage=0)
    whitened = (sample @ mixing - tokens.mean) @ tokens.whitener
    variances = torch.linalg.eigvalsh(torch.cov(whitened.T.double(), correction=0))
    assert variances.tolist() == pytest.approx([0, 0, 0, 0, 3, 3], abs=1e-3)
    centred = sample - sample.mean(0)
    residual = centred - whitened @ torch.linalg.lstsq(whitened, centred).solution
    assert residual[:, :2].std() < 0.1 < 0.95 < residual[:, 2:].std()


def test_all_directions_stay_where_none_predicts_beyond_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(500, 16, generator=generator)  # correlations are up to .3 by chance
    plain, with_targets = (VectorTokens(width=16, num_tokens=2, token_width=8) for _ in range(2))
    plain.fit_whitening(sample)
    for targets in (torch.randn(500, 16, generator=generator), sample * 0):
        with_targets.fit_whitening(sample, targets)
        torch.testing.assert_close(with_targets.whitener, plain.whitener)


def _purchases(seed: int = 0, number: int = 4000) -> PurchaseStates:
    """Five categories in the first five directions, looks in the last three; histories share a little."""
    generator = torch.Generator().manual_seed(seed)
    categories = torch.randint(5, (number,), generator=generator)
    looks = torch.randn(number, 3, generator=generator)
    purchase_states = torch.cat([3 * torch.eye(5)[categories], looks], dim=1)
    history_states = torch.randn(number, 8, generator=generator)
    history_states[:, :5] += torch.eye(5)[categories]  # the next purchase shares the category too
    history_states[:, 5:] += 0.5 * looks
    return PurchaseStates(0.2 * history_states + 1, purchase_states, categories.numpy())


def test_a_user_state_keeps_looks_and_loses_categories() -> None:
    purchases = _purchases()
    states = purchases.purchase_states
    tokens = VectorTokens(width=8, num_tokens=2, token_width=8)
    tokens.fit_whitening(purchases.history_states, purchases.category_residuals())
    whitened = (purchases.match_moments(states) - tokens.mean) @ tokens.whitener
    assert _explained_variance(whitened, states[:, 5:]) > 0.99
    assert _explained_variance(whitened, states[:, :5]) < 0.05
    tokens.fit_whitening(purchases.history_states, states)  # categories are among the targets
    whitened = (purchases.match_moments(states) - tokens.mean) @ tokens.whitener
    assert _explained_variance(whitened, states[:, :5]) > 0.5


def _explained_variance(inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of the targets' variance that a linear map of the inputs explains."""
    targets = targets - targets.mean(0)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    residual = targets - inputs @ torch.linalg.lstsq(inputs, targets, driver="gelsd").solution
    return float(1 - residual.square().sum() / targets.square().sum())


def test_states_of_purchases_get_the_mean_and_spread_of_states_of_histories() -> None:
    purchases = _purchases()
    moved = purchases.match_moments(purchases.purchase_states)
    mean = purchases.history_states.mean(0)
    torch.testing.assert_close(moved.mean(0), mean, atol=1e-4, rtol=0)
    spread = [(part - part.mean(0)).std().item() for part in (moved, purchases.history_states)]
    assert spread[0] == pytest.approx(spread[1], rel=1e-4)
    missing = torch.zeros(2, 8)
    assert torch.equal(purchases.match_moments(missing), missing)


def test_conditions_drop_independently_and_repeatably() -> None:
    drop_probs = torch.tensor([0.1, 0.3]).expand(20_000, 2)
    users, items = condition_keep_mask(drop_probs, torch.Generator().manual_seed(0)).unbind(1)
    again, _ = condition_keep_mask(drop_probs, torch.Generator().manual_seed(0)).unbind(1)
    assert torch.equal(users, again)
    assert (~users).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (~items).float().mean().item() == pytest.approx(0.3, abs=0.015)
    assert (~users & ~items).float().mean().item() == pytest.approx(0.03, abs=0.006)


def test_pairs_hold_what_came_before_and_what_came_next() -> None:
    pairs = _pairs()
    assert len(pairs) == 3
    assert [(p.user, p.history.tolist(), p.item) for p in (pairs[0], pairs[1], pairs[2])] == [
        (0, [4], 1),
        (0, [4, 1], 2),
        (1, [0], 3),
    ]


def test_pairs_leave_out_masked_items() -> None:
    pairs = _pairs(item_mask=np.array([True, True, False, True, True]))
    assert pairs.items.tolist() == [1, 3]
    assert pairs[1].history.tolist() == [0]


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_each_user_is_swapped_with_another_exactly_once(count: int) -> None:
    users = np.arange(count) + 5
    swapped = draw_swapped_users(users, seed=1)
    assert sorted(swapped) == list(range(count))
    assert (users[swapped] != users).all()
    assert (swapped == draw_swapped_users(users, seed=1)).all()


def test_a_repeated_user_is_never_swapped_with_themselves() -> None:
    for seed in range(20):
        users = np.array([1, 1, 2, 3, 3, 4])
        swapped = draw_swapped_users(users, seed)
        assert sorted(swapped) == list(range(6))
        assert (users[swapped] != users).all()


def test_a_single_user_cannot_be_swapped() -> None:
    with pytest.raises(ValueError, match="at least two"):
        draw_swapped_users(np.array([3]), seed=0)
