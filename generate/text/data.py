"""Feeds the text generator: texts of next items, with the person and the item they belong to."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from generate.conditioning import Ranker
from generate.next_items import NextItem, NextItemPairs
from generate.text.config import TextConfig
from generate.text.model import TextGenerator
from generate.text.prompts import Past, Prompts
from generate.text.tasks import Words
from pretrain.rows import order_for


class TextBatch(NamedTuple):
    """In the order in which `TextGenerator` takes them."""

    user_states: Tensor
    """float32 (batch, width); zeros where the person is hidden."""
    item_vectors: Tensor
    """float32 (batch, width); zeros where the item is hidden."""
    voice_ids: Tensor
    """int (batch, said): what each person said before, filled up with −100."""
    task_ids: Tensor
    """int (batch,)."""
    token_ids: Tensor
    """int (batch, longest): what is told in words, then the text; filled up with −100."""
    labels: Tensor
    """The same, with −100 for what is told."""

    @property
    def num_samples(self) -> int:
        return len(self.task_ids)


@dataclass(frozen=True)
class TextRow:
    pair: NextItem
    task: int
    text: str
    user_shown: bool
    item_shown: bool
    in_words_alone: bool
    """The person is told by what they took, not by vectors, and the item not at all."""


class TextRows(Dataset[TextRow]):
    """Texts to learn from: tasks take turns, each in endless shuffled passes over its own texts.

    Row r is a function of (seed, r) alone, with what it hides: any rank can make any row, and a run
    that resumes at row r reads exactly what it would have read. Each condition is hidden by its own
    coin, so that all four cases are learned.
    """

    def __init__(
        self,
        words: Words,
        pairs: NextItemPairs,
        seed: int = 0,
        drop_user: float = 0.0,
        drop_item: float = 0.0,
    ) -> None:
        self.in_words_alone = 0
        """So many rows, the first, are told in words alone."""
        self.words = words
        self.pairs = pairs
        self.tasks = tuple(words.tasks)
        self.seed = seed
        self.drop = (drop_user, drop_item)
        self.places = [np.flatnonzero(with_words(words, task, pairs)) for task in words.tasks]
        """Of each task: places among the pairs, (its texts,)."""
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    @property
    def num_texts(self) -> int:
        return sum(len(places) for places in self.places)

    def __getitem__(self, row: int) -> TextRow:
        turn, task = divmod(row, len(self.tasks))
        place = int(
            self._ordered(task, turn // len(self.places[task]))[turn % len(self.places[task])]
        )
        one = slice(place, place + 1)
        text = self.words.texts_of(
            self.tasks[task], self.pairs.users[one], self.pairs.positions[one]
        )[0]
        assert text is not None
        coins = np.random.default_rng((self.seed, row)).random(2)
        user_shown, item_shown = coins >= self.drop
        alone = row < self.in_words_alone
        return TextRow(
            self.pairs[place], task, text, bool(user_shown), bool(item_shown) and not alone, alone
        )

    def _ordered(self, task: int, epoch: int) -> NDArray[np.int64]:
        """The task's places in the order of its `epoch`-th pass; the latest order is kept."""
        if task not in self._orders or self._orders[task][0] != epoch:
            rng = np.random.default_rng((self.seed, task, epoch))
            self._orders[task] = epoch, rng.permutation(self.places[task])
        return self._orders[task][1]


class TextData(pl.LightningDataModule):
    """Only the training part of each history is ever read."""

    def __init__(
        self,
        words: Words,
        ranker: Ranker,
        pairs: NextItemPairs,
        generator: TextGenerator,
        config: TextConfig,
    ) -> None:
        super().__init__()
        self.prompts = Prompts(words.catalog, ranker, generator.history_items)
        self.ranker = ranker
        self.generator = generator
        self.config = config
        self.rows = TextRows(words, pairs, config.trainer.seed, config.drop_user, config.drop_item)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        rows_of_step = (
            self.config.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        )
        self.rows.in_words_alone = self.config.lora_steps * rows_of_step
        return DataLoader(
            self.rows,
            batch_sampler=order_for(self.trainer, self.config.batch_size),
            num_workers=self.config.workers,
            collate_fn=self.collate,
            persistent_workers=self.config.workers > 0,
        )

    def collate(self, rows: list[TextRow]) -> TextBatch:
        user_states = self.ranker.user_states([row.pair.history for row in rows])
        item_vectors = np.stack([self.ranker.item_vectors[row.pair.item] for row in rows])
        pasts = [
            Past(row.pair.user, len(row.pair.history)) if row.user_shown else Past() for row in rows
        ]
        histories = None
        if self.prompts.history_items:
            shown = [row.pair.item if row.item_shown else None for row in rows]
            histories = [
                self.prompts.told(past, item) for past, item in zip(pasts, shown, strict=True)
            ]
        voices = [
            "" if row.in_words_alone else self.prompts.said(past)
            for row, past in zip(rows, pasts, strict=True)
        ]
        users_shown = [[row.user_shown and not row.in_words_alone] for row in rows]
        token_ids, labels = self.generator.tokens(histories, [row.text for row in rows])
        return TextBatch(
            user_states * torch.tensor(users_shown),
            torch.from_numpy(item_vectors) * torch.tensor([[row.item_shown] for row in rows]),
            self.generator.voice_ids(voices, len(rows)),
            torch.tensor([row.task for row in rows]),
            token_ids,
            labels,
        )

    def transfer_batch_to_device(
        self, batch: TextBatch, device: torch.device, dataloader_idx: int
    ) -> TextBatch:
        return TextBatch(*(part.to(device) for part in batch))


def with_words(
    words: Words, task: str, pairs: NextItemPairs, chunk: int = 4096
) -> NDArray[np.bool_]:
    """Which pairs have a text for the task: bool (num_pairs,)."""
    found = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), chunk):
        part = slice(start, start + chunk)
        texts = words.texts_of(task, pairs.users[part], pairs.positions[part])
        found[part] = [text is not None for text in texts]
    return found
