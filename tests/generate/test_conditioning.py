"""Who and what as tokens, training pairs, the swapped-person control."""

from dataclasses import dataclass, field
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from generate.conditioning import (
    NextItemPairs,
    Purchases,
    VectorTokens,
    kept_conditions,
    keyed_order,
    swap_partners,
)


@dataclass
class _Interactions:
    offsets: np.ndarray = field(default_factory=lambda: np.array([0, 3, 5]))
    items: np.ndarray = field(default_factory=lambda: np.array([4, 1, 2, 0, 3], dtype=np.int32))

    def history(self, user: int) -> np.ndarray:
        return self.items[self.offsets[user] : self.offsets[user + 1]]


def _pairs(keep: np.ndarray | None = None) -> NextItemPairs:
    catalog = SimpleNamespace(interactions=_Interactions())
    split = SimpleNamespace(
        train_pairs=lambda: (np.array([0, 0, 1]), np.array([1, 2, 1])), train_end=np.array([3, 2])
    )
    return NextItemPairs(catalog, split, keep)


def test_beside_a_purchase_stands_all_else_of_the_training_part() -> None:
    assert _pairs().beside(0).tolist() == [4, 2]
    assert _pairs().beside(1).tolist() == [4, 1]
    pictured = np.arange(5) != 2  # item 2 is no target, but still in the history
    assert _pairs(pictured).beside(0).tolist() == [4, 2]
    shorter = SimpleNamespace(
        train_pairs=lambda: (np.array([0]), np.array([1])), train_end=np.array([2, 0])
    )
    held_out = NextItemPairs(SimpleNamespace(interactions=_Interactions()), shorter)
    assert held_out.beside(0).tolist() == [4]


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


def test_standardised_vectors_differ_as_much_in_every_direction() -> None:
    tokens = VectorTokens(width=4, num_tokens=2, token_width=8)
    sample = torch.randn(500, 4) @ torch.diag(torch.tensor([1.0, 0.3, 0.1, 0.03])) + 5
    tokens.standardise(sample, shrinkage=0)
    seen = (sample - tokens.mean) @ tokens.whitener
    torch.testing.assert_close(seen.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(seen.T, correction=0), torch.eye(4), atol=1e-2, rtol=0)
    tokens.standardise(torch.zeros(3, 4))  # says nothing, changes nothing
    assert torch.isfinite(tokens(sample)).all()


def test_directions_that_foretell_nothing_are_not_heard() -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(8000, 6, generator=generator)
    noise = torch.randn(8000, 6, generator=generator)
    aims = torch.cat([0.3 * sample[:, :2] + 0.95 * noise[:, :2], noise[:, 2:]], dim=1)
    mixing = torch.randn(6, 6, generator=generator)
    tokens = VectorTokens(width=6, num_tokens=2, token_width=8)
    tokens.standardise(sample @ mixing, aims @ mixing, shrinkage=0)
    seen = (sample @ mixing - tokens.mean) @ tokens.whitener
    variances = torch.linalg.eigvalsh(torch.cov(seen.T.double(), correction=0))
    assert variances.tolist() == pytest.approx([0, 0, 0, 0, 3, 3], abs=1e-3)
    meant = sample - sample.mean(0)
    told = meant - seen @ torch.linalg.lstsq(seen, meant).solution
    assert told[:, :2].std() < 0.1 < 0.95 < told[:, 2:].std()


def test_where_nothing_is_foretold_beyond_chance_all_is_heard() -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(500, 16, generator=generator)  # correlations are up to .3 by chance
    plain, aimed = (VectorTokens(width=16, num_tokens=2, token_width=8) for _ in range(2))
    plain.standardise(sample)
    for aims in (torch.randn(500, 16, generator=generator), sample * 0):
        aimed.standardise(sample, aims)
        torch.testing.assert_close(aimed.whitener, plain.whitener)


def _purchases(seed: int = 0, number: int = 4000) -> Purchases:
    """Of 5 kinds, in the first five directions; looks are in the last three, histories share a little."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(5, (number,), generator=generator)
    looks = torch.randn(number, 3, generator=generator)
    alone = torch.cat([3 * torch.eye(5)[kinds], looks], dim=1)
    beside = torch.randn(number, 8, generator=generator)
    beside[:, :5] += torch.eye(5)[kinds]  # what people take next is of the same kind, too
    beside[:, 5:] += 0.5 * looks
    return Purchases(0.2 * beside + 1, alone, kinds.numpy())


def test_a_person_is_heard_in_looks_and_not_in_kinds() -> None:
    purchases = _purchases()
    tokens = VectorTokens(width=8, num_tokens=2, token_width=8)
    tokens.standardise(purchases.beside, purchases.looks())
    said = (purchases.as_history(purchases.alone) - tokens.mean) @ tokens.whitener
    of_looks = _explained(said, purchases.alone[:, 5:])
    of_kinds = _explained(said, purchases.alone[:, :5])
    assert of_looks > 0.99
    assert of_kinds < 0.05
    tokens.standardise(purchases.beside, purchases.alone)  # with kinds among the aims
    said = (purchases.as_history(purchases.alone) - tokens.mean) @ tokens.whitener
    assert _explained(said, purchases.alone[:, :5]) > 0.5


def _explained(told: torch.Tensor, meant: torch.Tensor) -> float:
    """Share of the variance that a linear map finds."""
    meant = meant - meant.mean(0)
    told = torch.cat([told, torch.ones(len(told), 1)], dim=1)
    rest = meant - told @ torch.linalg.lstsq(told, meant, driver="gelsd").solution
    return float(1 - rest.square().sum() / meant.square().sum())


def test_states_of_purchases_are_moved_to_where_those_of_histories_lie() -> None:
    purchases = _purchases()
    moved = purchases.as_history(purchases.alone)
    torch.testing.assert_close(moved.mean(0), purchases.beside.mean(0), atol=1e-4, rtol=0)
    spread = [(part - part.mean(0)).std().item() for part in (moved, purchases.beside)]
    assert spread[0] == pytest.approx(spread[1], rel=1e-4)
    nobody = torch.zeros(2, 8)
    assert torch.equal(purchases.as_history(nobody), nobody)  # whoever is not known stays so


def test_conditions_drop_independently_and_repeatably() -> None:
    chances = torch.tensor([0.1, 0.3]).expand(20_000, 2)
    users, items = kept_conditions(chances, torch.Generator().manual_seed(0)).unbind(1)
    again, _ = kept_conditions(chances, torch.Generator().manual_seed(0)).unbind(1)
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


def test_pairs_can_leave_out_items() -> None:
    pairs = _pairs(keep=np.array([True, True, False, True, True]))
    assert pairs.items.tolist() == [1, 3]
    assert pairs[1].history.tolist() == [0]


def test_keyed_order_visits_everything_once_a_pass_and_resumes_anywhere() -> None:
    first = list(islice(keyed_order(7, seed=3), 21))
    assert sorted(first[:7]) == sorted(first[7:14]) == list(range(7))
    assert first[:7] != first[7:14]
    assert list(islice(keyed_order(7, seed=3, start=10), 11)) == first[10:]
    assert list(islice(keyed_order(7, seed=4), 21)) != first


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_everybody_gets_another_person_once(count: int) -> None:
    users = np.arange(count) + 5
    partners = swap_partners(users, seed=1)
    assert sorted(partners) == list(range(count))
    assert (users[partners] != users).all()
    assert (partners == swap_partners(users, seed=1)).all()


def test_somebody_who_is_there_twice_never_meets_themselves() -> None:
    for seed in range(20):
        users = np.array([1, 1, 2, 3, 3, 4])
        partners = swap_partners(users, seed)
        assert sorted(partners) == list(range(6))
        assert (users[partners] != users).all()


def test_nobody_can_be_swapped_alone() -> None:
    with pytest.raises(ValueError, match="at least two"):
        swap_partners(np.array([3]), seed=0)
