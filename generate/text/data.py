"""Training data of the text generator: true texts with their user and item, with condition dropout."""

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
from generate.requests import HistoryPrefix
from generate.text.config import TextConfig
from generate.text.model import TextGenerator
from generate.text.prompts import prompts_of
from generate.text.task_texts import TaskTexts
from pretrain.devices import move
from pretrain.packing import step_sampler

HIDE_RESTATED = 0.5
"""Share of training texts whose prompt leaves out what they restate: with it a model learns to keep to
facts, without it to write."""


class TextBatch(NamedTuple):
    """The arguments of `TextGenerator.forward`, in its order."""

    user_states: Tensor
    """float32 (batch, width); zeros where the user condition is dropped."""
    item_vectors: Tensor
    """float32 (batch, width); zeros where the item condition is dropped."""
    style_ids: Tensor
    """int (batch, longest): tokens of each user's earlier reviews, padded with −100."""
    task_ids: Tensor
    """int (batch,)."""
    token_ids: Tensor
    """int (batch, longest): prompts with slots for soft tokens, then texts; padded with −100."""
    labels: Tensor
    """int (batch, longest): `token_ids` with −100 for the prompts, which the loss ignores."""

    @property
    def num_samples(self) -> int:
        return len(self.task_ids)


@dataclass(frozen=True)
class TextRow:
    pair: NextItem
    task: int
    text: str
    keep_user: bool
    keep_item: bool
    hide_restated: bool
    """Whether the prompt leaves out what the text restates (`Task.restated`)."""
    lora_only: bool
    """Whether the row belongs to `lora_steps`: conditioned on the history as text only, without the item."""


class TextRows(Dataset[TextRow]):
    """An endless dataset of training texts: tasks alternate, each in shuffled epochs over its own texts.

    Row r and the conditions it drops depend on (seed, r) alone: any rank can read any row, and a run that
    resumes at row r reads exactly the rows of an uninterrupted one. Each condition is dropped
    independently, so that all four combinations are trained.
    """

    def __init__(
        self,
        texts: TaskTexts,
        pairs: NextItemPairs,
        seed: int = 0,
        drop_user: float = 0.0,
        drop_item: float = 0.0,
    ) -> None:
        self.num_lora_only = 0
        """Number of rows, from the first on, that belong to `lora_steps`."""
        self.texts = texts
        self.pairs = pairs
        self.tasks = tuple(texts.tasks)
        self.seed = seed
        self.drop_probs = (drop_user, drop_item)
        self.indices = [np.flatnonzero(texts.has_text(task, pairs)) for task in texts.tasks]
        """For each task: indices (num_texts,) of the pairs that have a text."""
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    @property
    def num_texts(self) -> int:
        return sum(len(indices) for indices in self.indices)

    def __getitem__(self, row: int) -> TextRow:
        number, task = divmod(row, len(self.tasks))
        epoch, position = divmod(number, len(self.indices[task]))
        index = int(self._order(task, epoch)[position])
        one = slice(index, index + 1)
        text = self.texts.texts_of(
            self.tasks[task], self.pairs.users[one], self.pairs.positions[one]
        )[0]
        assert text is not None
        *drawn, restating = np.random.default_rng((self.seed, row)).random(3)
        keep_user, keep_item = np.array(drawn) >= self.drop_probs
        lora_only = row < self.num_lora_only
        return TextRow(
            self.pairs[index],
            task,
            text,
            bool(keep_user),
            bool(keep_item) and not lora_only,
            bool(restating < HIDE_RESTATED),
            lora_only,
        )

    def _order(self, task: int, epoch: int) -> NDArray[np.int64]:
        """The task's indices, shuffled for an epoch; the order of the latest epoch is cached."""
        if task not in self._orders or self._orders[task][0] != epoch:
            rng = np.random.default_rng((self.seed, task, epoch))
            self._orders[task] = epoch, rng.permutation(self.indices[task])
        return self._orders[task][1]


class TextData(pl.LightningDataModule):
    """Lightning data module; reads only the training part of each history."""

    def __init__(
        self,
        texts: TaskTexts,
        ranker: Ranker,
        pairs: NextItemPairs,
        generator: TextGenerator,
        config: TextConfig,
    ) -> None:
        super().__init__()
        settings = generator.settings
        self.prompts = prompts_of(settings, texts.catalog, ranker)
        self.ranker = ranker
        self.generator = generator
        self.config = config
        self.rows = TextRows(texts, pairs, config.trainer.seed, config.drop_user, config.drop_item)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        rows_of_step = (
            self.config.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        )
        self.rows.num_lora_only = self.config.lora_steps * rows_of_step
        return DataLoader(
            self.rows,
            batch_sampler=step_sampler(self.trainer, self.config.batch_size),
            num_workers=self.config.workers,
            collate_fn=self.collate,
            persistent_workers=self.config.workers > 0,
        )

    def collate(self, rows: list[TextRow]) -> TextBatch:
        user_states = self.ranker.user_states([row.pair.history for row in rows])
        item_vectors = np.stack([self.ranker.item_vectors[row.pair.item] for row in rows])
        prefixes = [
            HistoryPrefix(row.pair.user, len(row.pair.history))
            if row.keep_user
            else HistoryPrefix()
            for row in rows
        ]
        style_texts = [
            "" if row.lora_only else self.prompts.style_text(prefix)
            for row, prefix in zip(rows, prefixes, strict=True)
        ]
        keep_user = torch.tensor([[row.keep_user and not row.lora_only] for row in rows])
        keep_item = torch.tensor([[row.keep_item] for row in rows])
        tasks = [row.task for row in rows]
        token_ids, labels = self.generator.sequences.training_rows(
            tasks, self._data(rows, prefixes), [row.text for row in rows]
        )
        return TextBatch(
            user_states * keep_user,
            torch.from_numpy(item_vectors) * keep_item,
            self.generator.style_ids(style_texts, len(rows)),
            torch.tensor(tasks),
            token_ids,
            labels,
        )

    def _data(self, rows: list[TextRow], prefixes: list[HistoryPrefix]) -> list[str] | None:
        if not self.prompts.in_words:
            return None
        facts = self.prompts.kind == "facts"
        tasks = self.generator.settings.tasks
        return [
            self.prompts.data(
                prefix,
                # LoRA alone reads no item vector; facts in words it does.
                row.pair.item if row.keep_item or (facts and row.lora_only) else None,
                tasks[row.task],
                tasks[row.task].restated if row.hide_restated else frozenset(),
            )
            for row, prefix in zip(rows, prefixes, strict=True)
        ]

    def transfer_batch_to_device(
        self, batch: TextBatch, device: torch.device, dataloader_idx: int
    ) -> TextBatch:
        return TextBatch(*(move(part, device) for part in batch))
