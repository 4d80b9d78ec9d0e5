"""What words and pictures share: who asks for what, as tokens, as training pairs, as a control."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from catalog.catalog import Catalog
from catalog.splits import Split


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
    def standardise(self, sample: Tensor, shrinkage: float = 1e-3) -> None:
        """Centres and whitens what comes in by the statistics of `sample` (num_vectors, width).

        Learned vectors share a large mean and vary along few directions; without this, gradient
        descent takes long to see the small differences between them. `shrinkage`, a share of the
        mean variance, is added to each so that directions of noise are not blown up.
        """
        known = sample[sample.ne(0).any(-1)]
        if len(known) < 2:
            return
        variances, directions = torch.linalg.eigh(torch.cov(known.T.double(), correction=0))
        spread = (variances.clamp_min(0) + shrinkage * variances.mean() + 1e-12).sqrt()
        self.mean.copy_(known.mean(0))
        self.whitener.copy_(directions / spread @ directions.T)

    def forward(self, vectors: Tensor, present: Tensor | None = None) -> Tensor:
        """(batch, width), mask (batch,) of the known → (batch, num_tokens, token_width)."""
        known = vectors.ne(0).any(-1)
        if present is not None:
            known = known & present
        projected = self.project((vectors - self.mean) @ self.whitener)
        tokens = self.norm(projected.unflatten(-1, (self.num_tokens, -1)))
        return torch.where(known[:, None, None], tokens, self.null.to(tokens.dtype))


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
    histories = [pairs[int(place)].history for place in places]
    with torch.no_grad():
        states = [
            shop.user_states(histories[start : start + 256]).float().cpu()
            for start in range(0, len(histories), 256)
        ]
    items = np.sort(rng.permutation(len(shop.item_vectors))[:most])
    vectors = torch.from_numpy(np.array(shop.item_vectors[items]))
    return torch.cat([torch.empty(0, shop.width), *states]), vectors
