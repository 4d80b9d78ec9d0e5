"""Sequence packing: segments of histories in rows of equal length, as a function of the seed.

Knows nothing about content. Row r depends on (seed, r) alone: any rank can build any row, and a run that
resumes at row r reads the same rows as an uninterrupted one.
"""

from collections.abc import Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from catalog.errors import VitrineError
from catalog.interactions import Interactions
from catalog.splits import training_mask

Row = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Items, segments, links, int64 (row_length,) each: the item in each slot, the number of its history segment,
and the number of its edge in rows of linked items (otherwise -1)."""


class PackedHistories(Dataset[Row]):
    """An endless dataset of rows with `row_length` slots.

    A user is drawn in proportion to the number of rows their training history would fill, then a segment
    of it. A segment is cut off at the end of the row, so no slot is padding.
    """

    def __init__(
        self,
        interactions: Interactions,
        train_end: NDArray[np.int32],
        num_items: int,
        row_length: int,
        seed: int,
        uniform_share: float = 0.0,
        edges: NDArray[np.int32] | None = None,
        edges_share: float = 0.0,
        held_out: NDArray[np.bool_] | None = None,
    ) -> None:
        """`edges` (e, 2): linked items; `edges_share` of the rows hold such pairs. `held_out` bool
        (num_items,): items that are in no row."""
        if row_length < 2:
            raise VitrineError(
                f"row_length {row_length} holds no history and next item; use 2 or more"
            )
        self.interactions = interactions
        self.train_end = train_end
        self.num_items = num_items
        self.row_length = row_length
        self.seed = seed
        if uniform_share + edges_share > 1:
            raise VitrineError(
                f"data.uniform_share {uniform_share:g} and data.edges_share {edges_share:g} are more "
                "than all rows; lower one of them"
            )
        self.uniform_share = uniform_share
        self.held_out = held_out if held_out is not None and held_out.any() else None
        self.readable = None if self.held_out is None else np.flatnonzero(~self.held_out)
        if edges is not None and self.held_out is not None:
            edges = edges[~self.held_out[edges].any(axis=1)]
        self.edges = edges
        self.edges_share = edges_share if edges is not None and len(edges) else 0.0
        windows = np.where(train_end >= 2, -(-train_end.astype(np.int64) // row_length), 0)
        self.cumulative = np.cumsum(windows)  # (num_users,)
        if self.held_out is not None and self.cumulative[-1]:
            read = interactions.items[training_mask(interactions, train_end)]
            if self.held_out[read].all():
                raise VitrineError(
                    "every item of the training part is held out; lower data.held_out"
                )
        if self.cumulative[-1] == 0 and uniform_share < 1:
            raise VitrineError(
                "no user has two interactions in the training part; there is no next item to learn from"
            )

    def __getitem__(self, row: int) -> Row:
        rng = np.random.default_rng((self.seed, row))
        places = np.arange(self.row_length)
        unlinked = np.full(self.row_length, -1)
        drawn = rng.random()
        if drawn < self.uniform_share:
            if self.readable is None:
                items = rng.integers(self.num_items, size=self.row_length)
            else:
                items = self.readable[rng.integers(len(self.readable), size=self.row_length)]
            return items, places, unlinked
        if drawn < self.uniform_share + self.edges_share:
            assert self.edges is not None
            chosen = rng.integers(len(self.edges), size=(self.row_length + 1) // 2)
            items = self.edges[chosen].astype(np.int64).ravel()[: self.row_length]
            return items, places, np.where(places // 2 * 2 + 1 < self.row_length, places // 2, -1)
        items = np.empty(self.row_length, dtype=np.int64)
        segments = np.empty(self.row_length, dtype=np.int64)
        filled = segment = 0
        while filled < self.row_length:
            stretch = self._stretch(rng, self.row_length - filled)
            items[filled : filled + len(stretch)] = stretch
            segments[filled : filled + len(stretch)] = segment
            filled += len(stretch)
            segment += 1
        return items, segments, unlinked

    def _stretch(self, rng: np.random.Generator, room: int) -> NDArray[np.int32]:
        user = int(
            np.searchsorted(self.cumulative, rng.integers(self.cumulative[-1]), side="right")
        )
        length = int(self.train_end[user])
        taken = min(length, room)
        start = int(rng.integers(length - taken + 1))
        offset = int(self.interactions.offsets[user]) + start
        stretch = self.interactions.items[offset : offset + taken]
        return stretch if self.held_out is None else stretch[~self.held_out[stretch]]


class StepSampler:
    """A batch sampler: the row numbers that this rank reads in each step.

    Step s of all ranks together is the rows [s · n, (s + 1) · n): the global batch does not depend
    on how many ranks share it, and a run that resumes at a step starts at its rows.
    """

    def __init__(
        self, num_steps: int, rows: int, *, rank: int = 0, num_ranks: int = 1, first_step: int = 0
    ) -> None:
        self.num_steps = num_steps
        self.rows = rows
        self.rank = rank
        self.num_ranks = num_ranks
        self.first_step = first_step

    def __len__(self) -> int:
        """Number of batches of the whole run: in a resumed run Lightning counts earlier ones as read."""
        return self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.num_steps):
            first = (step * self.num_ranks + self.rank) * self.rows
            yield list(range(first, first + self.rows))


def step_sampler(trainer: pl.Trainer, rows: int) -> StepSampler:
    """The batch sampler of a Trainer's run, from its current step."""
    accumulate = trainer.accumulate_grad_batches
    return StepSampler(
        trainer.max_steps * accumulate,
        rows,
        rank=trainer.global_rank,
        num_ranks=trainer.world_size,
        first_step=trainer.global_step * accumulate,
    )


def stack_rows(rows: list[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Items, segments and links, each int64 (rows, row_length); numbers are distinct over the batch."""
    items, segments, links = (
        torch.from_numpy(np.stack(columns)) for columns in zip(*rows, strict=True)
    )
    offsets = torch.arange(len(rows)).unsqueeze(1) * items.shape[1]
    return items, segments + offsets, torch.where(links < 0, -1, links + offsets)
