"""What words and pictures share: who asks for what, as tokens, as training pairs, as a control."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from catalog.catalog import Catalog
from catalog.splits import Split
from pretrain.shards import like_weights

NOISE = 1e-10
"""Variance below this share of the mean square is what float32 rounds away."""


class Shop(Protocol):
    """A trained recommender, as `generate` sees it."""

    width: int
    item_vectors: NDArray[np.float32]
    """float32 (num_items, width), unit length; may be memory-mapped."""

    def user_states(self, histories: list[NDArray[Any]]) -> Tensor:
        """Histories of item rows, oldest first → float32 (batch, width); empty gives zeros."""
        ...

    def rank(self, history: NDArray[Any], k: int) -> list[tuple[int, float]]:
        """The k best items not in the history, with their scores, best first."""
        ...

    def picture_vectors(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """What an item would be of which these pictures are all there is: float32 (pictures, width)."""
        ...


class VectorTokens(nn.Module):
    """Turns one vector into a few tokens a transformer can attend to (IP-Adapter's projection).

    An absent condition becomes learned null tokens, which is what classifier-free guidance
    (Ho & Salimans 2022) compares with. A vector of zeros, the state of an empty history, is absent.
    """

    mean: Tensor
    whitener: Tensor

    def __init__(self, width: int, num_tokens: int, token_width: int) -> None:
        super().__init__()
        self.width = width
        self.num_tokens = num_tokens
        self.register_buffer("mean", torch.zeros(width))
        # Unit vectors have entries near 1/√width; the layer wants them near 1.
        self.register_buffer("whitener", width**0.5 * torch.eye(width))
        self.project = nn.Linear(width, num_tokens * token_width)
        self.norm = nn.LayerNorm(token_width)
        self.null = nn.Parameter(torch.randn(num_tokens, token_width))

    @torch.no_grad()
    def standardise(
        self, sample: Tensor, aims: Tensor | None = None, shrinkage: float = 1e-3
    ) -> None:
        """Centres and whitens what comes in by the statistics of `sample` (num_vectors, width).

        Learned vectors share a large mean and vary along few directions; without this, gradient
        descent takes long to see the small differences between them. `shrinkage`, a share of the
        mean variance, is added to each so that directions of noise are not blown up.

        `aims` (num_vectors, width): what each of `sample` should foretell. Of the directions those stay
        that say something of it (see `foretelling`).
        """
        known = sample.ne(0).any(-1)
        if known.sum() < 2:
            return
        sample = sample[known].double()
        whitener = _whitener(sample, shrinkage)
        if aims is not None:
            aims = aims[known].double()
            aims = (aims - aims.mean(0)) @ _whitener(aims, shrinkage)
            whitener = whitener @ foretelling((sample - sample.mean(0)) @ whitener, aims)
        self.mean.copy_(sample.mean(0))
        self.whitener.copy_(whitener)

    def forward(self, vectors: Tensor, present: Tensor | None = None) -> Tensor:
        """(batch, width), mask (batch,) of the known → (batch, num_tokens, token_width)."""
        known = vectors.ne(0).any(-1)
        if present is not None:
            known = known & present
        centred = like_weights(vectors, self.mean) - self.mean
        projected = self.project(centred @ self.whitener)
        tokens = self.norm(projected.unflatten(-1, (self.num_tokens, -1)))
        return torch.where(known[:, None, None], tokens, self.null.to(tokens.dtype))


def _whitener(sample: Tensor, shrinkage: float) -> Tensor:
    """(width, width) that gives `sample` (num_vectors, width) the identity as covariance.

    Directions in which it does not vary, but for how float32 rounds, stay quiet.
    """
    variances, directions = torch.linalg.eigh(torch.cov(sample.T, correction=0))
    floor = 1e-12 + NOISE * sample.square().mean()
    spread = (variances.clamp_min(0) + shrinkage * variances.mean().clamp_min(0) + floor).sqrt()
    return directions / spread @ directions.T


def foretelling(white: Tensor, aims: Tensor) -> Tensor:
    """Symmetric (width, width) that keeps the directions of `white` that foretell `aims`, both white
    (num_vectors, width).

    Those whose canonical correlation (Hotelling 1936) is above what chance makes of a sample of this
    size: 2 √(width / num_vectors), the edge of the singular values of a square matrix of noise
    (Marchenko & Pastur 1967). They count alike, and make up for those left out, so that the mean variance
    is 1. Where nothing is foretold beyond chance all stay.
    """
    number, width = white.shape
    directions, correlations, _ = torch.linalg.svd(white.T @ aims / number)
    kept = directions[:, correlations > 2 * (width / number) ** 0.5]
    if kept.shape[1] == 0:
        return torch.eye(width, dtype=white.dtype)
    return (width / kept.shape[1]) ** 0.5 * kept @ kept.T


def kept_conditions(chances: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mask of the conditions that stay, of `chances` that each is dropped; each by its own coin.

    Independent coins teach all cases, so that guidance can have a scale for each condition (Brooks et
    al. 2023, InstructPix2Pix, section 3.2.1).
    """
    return torch.rand(chances.shape, generator=generator) >= chances


@dataclass(frozen=True)
class NextItem:
    user: int
    """Row of the person."""
    history: NDArray[np.integer]
    """Item rows before the next one, oldest first."""
    item: int
    """Row of the item that came next."""


class NextItemPairs(Dataset[NextItem]):
    """What each person had, and what came next, over the training part of a split.

    Holds indices alone: a history is a view into the catalog's interactions.
    """

    def __init__(self, catalog: Any, split: Any, keep: NDArray[np.bool_] | None = None) -> None:
        """`keep` bool (num_items,): only pairs whose next item is marked stay."""
        users, positions = split.train_pairs()
        self.interactions = catalog.interactions
        self.split = split
        rows = self.interactions.offsets[users] + positions
        items = np.asarray(self.interactions.items)[rows]
        kept = np.ones(len(items), dtype=bool) if keep is None else keep[items]
        self.users: NDArray[np.integer] = np.asarray(users)[kept]
        self.positions: NDArray[np.integer] = np.asarray(positions)[kept]
        self.items: NDArray[np.integer] = items[kept]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> NextItem:
        user, position = int(self.users[index]), int(self.positions[index])
        history = self.interactions.history(user)[:position]
        return NextItem(user, history, int(self.items[index]))

    def beside(self, index: int) -> NDArray[np.integer]:
        """Item rows of all else that the person took in the training part, before and after, in order."""
        user, position = int(self.users[index]), int(self.positions[index])
        taken = self.interactions.history(user)
        return np.concatenate([taken[:position], taken[position + 1 : self.split.train_end[user]]])


def keyed_order(num_rows: int, seed: int, start: int = 0) -> Iterator[int]:
    """Rows in shuffled passes without end, from place `start` of that endless order.

    The order depends on the seed alone, so a resumed run reads on where it stopped.
    """
    if num_rows < 1:
        raise ValueError("num_rows is 0; an order needs at least one row.")
    epoch, place = divmod(start, num_rows)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(num_rows)
        yield from order[place:].tolist()
        epoch, place = epoch + 1, 0


def derived_seed(seed: int, *place: int) -> int:
    """A seed of its own for each place, below 2⁶³."""
    drawn = np.random.SeedSequence([seed % 2**63, *place]).generate_state(1, np.uint64)[0]
    return int(drawn >> 1)


def swap_partners(users: NDArray[np.integer], seed: int) -> NDArray[np.int64]:
    """Places (len(users),) of another person for each: the swapped-person control.

    Nobody keeps their own place, nor meets the same person again where `users` repeats and a
    stranger can be found; everybody is somebody's partner exactly once. A random cycle, so each
    partner is as likely as any other.
    """
    users = np.asarray(users)
    num_users = len(users)
    if num_users < 2:
        raise ValueError("swapping needs at least two people.")
    rng = np.random.default_rng(seed)
    partners = np.empty(num_users, dtype=np.int64)
    cycle = rng.permutation(num_users)
    partners[cycle] = np.roll(cycle, -1)
    for place in np.flatnonzero(users[partners] == users):
        # Trading partners with another place mends this one and must not spoil the other.
        for other in rng.permutation(num_users):
            given, taken = users[partners[other]], users[partners[place]]
            if given != users[place] and taken != users[other]:
                partners[[place, other]] = partners[[other, place]]
                break
    return partners


def sample_conditions(
    catalog: Catalog, split: Split, shop: Shop, seed: int, most: int = 2048
) -> tuple[Tensor, Tensor]:
    """User states of at most `most` training pairs, and as many item vectors: (number, width)."""
    rng = np.random.default_rng(seed)
    pairs = NextItemPairs(catalog, split)
    places = rng.permutation(len(pairs))[:most]
    states = states_of(shop, [pairs[int(place)].history for place in places])
    items = np.sort(rng.permutation(len(shop.item_vectors))[:most])
    return states, torch.from_numpy(np.array(shop.item_vectors[items]))


@dataclass(frozen=True)
class Purchases:
    """A sample of what people took, and beside what."""

    beside: Tensor
    """float32 (purchases, width): states that all else the person took leads to."""
    alone: Tensor
    """float32 (purchases, width): states that the purchase leads to by itself."""
    kinds: NDArray[Any]
    """(purchases,): the items' categories."""

    def looks(self) -> Tensor:
        """What sets each purchase apart from the others of its kind: (purchases, width)."""
        kinds = torch.from_numpy(np.unique(self.kinds, return_inverse=True)[1])
        counts = torch.bincount(kinds)[:, None]
        sums = torch.zeros(len(counts), self.alone.shape[1]).index_add(0, kinds, self.alone)
        return self.alone - (sums / counts)[kinds]

    def as_history(self, alone: Tensor) -> Tensor:
        """States of single purchases (batch, width), moved and scaled to lie as those of histories do."""
        there, here, ratio = self._lie
        return torch.where(alone.ne(0).any(-1, keepdim=True), there + ratio * (alone - here), alone)

    @cached_property
    def _lie(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means of both kinds of state, and how far the first spread to the second."""
        width = self.alone.shape[1]
        if len(self.alone) < 2:
            return torch.zeros(width), torch.zeros(width), torch.ones(())
        there, here = self.beside.mean(0), self.alone.mean(0)
        spread = (self.alone - here).std()
        if (
            spread <= 1e-12 + NOISE**0.5 * self.alone.square().mean().sqrt()
        ):  # equal, but for rounding
            return there, here, torch.ones(())
        return there, here, (self.beside - there).std() / spread


def sample_purchases(
    catalog: Catalog, split: Split, shop: Shop, seed: int, most: int = 2**15
) -> Purchases:
    """At most `most` training pairs of which something is known beside the purchase."""
    pairs = NextItemPairs(catalog, split)
    places = np.random.default_rng(seed).permutation(len(pairs))[:most]
    beside = states_of(shop, [pairs.beside(int(place)) for place in places])
    known = beside.ne(0).any(-1).numpy()
    items, purchases = np.unique(pairs.items[places[known]], return_inverse=True)
    alone = states_of(shop, [items[place : place + 1] for place in range(len(items))])
    categories = catalog.items["category"]
    kinds = np.array([categories[item] or "" for item in items.tolist()])
    return Purchases(beside[known], alone[torch.from_numpy(purchases)], kinds[purchases])


@torch.no_grad()
def states_of(shop: Shop, histories: Sequence[NDArray[Any]], at_once: int = 256) -> Tensor:
    """float32 (histories, width), on the CPU."""
    starts = range(0, len(histories), at_once)
    read = [shop.user_states(list(histories[start : start + at_once])) for start in starts]
    return torch.cat([torch.empty(0, shop.width), *(states.float().cpu() for states in read)])
