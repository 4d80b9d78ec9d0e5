"""Matrix factorisation from pairs: BPR-MF (Rendle et al., 2009) and VBPR (He and McAuley, 2016)."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from catalog.catalog import Catalog
from catalog.splits import Split, Targets, training_pairs
from finetune.evaluate import ScoreChunk
from pretrain.config import OptimizerConfig
from pretrain.optim import make_optimizer
from pretrain.rows import order_for


class Pairs:
    """Draw n of a training: who took what, and something they did not take.

    A function of (seed, n): a resumed run draws what it would have drawn.
    """

    def __init__(self, catalog: Catalog, split: Split, size: int, seed: int) -> None:
        """`size`: triples in one draw."""
        self.users, self.items = training_pairs(catalog, split)
        self.taken = np.unique(self.users * catalog.num_items + self.items)
        self.num_items, self.size, self.seed = catalog.num_items, size, seed

    def __getitem__(self, draw: int) -> NDArray[np.int64]:
        """(3, size): people, items they took, items they did not take in training."""
        rng = np.random.default_rng((self.seed, draw))
        rows = rng.integers(len(self.items), size=self.size)
        users, others = self.users[rows], rng.integers(self.num_items, size=self.size)
        for _ in range(10):  # somebody may have taken nearly everything
            wrong = self._took(users, others)
            if not wrong.any():
                break
            others[wrong] = rng.integers(self.num_items, size=int(wrong.sum()))
        return np.stack([users, self.items[rows], others])

    def _took(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        keys = users * self.num_items + items
        places = np.searchsorted(self.taken, keys).clip(max=len(self.taken) - 1)
        return self.taken[places] == keys


class PairData(pl.LightningDataModule):
    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.pairs = pairs

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return DataLoader(
            self.pairs,  # pyright: ignore[reportArgumentType]
            batch_sampler=order_for(self.trainer, 1),
            collate_fn=lambda draws: torch.from_numpy(np.concatenate(draws, axis=1)),
        )


class Factorisation(pl.LightningModule):
    """Scores are the item's bias + person · item, and with `features` + person's taste · what the
    item shows + the bias of what it shows (VBPR, eq. 4). Who took nothing in training gets the biases.
    """

    features: Tensor | None

    def __init__(
        self,
        num_people: int,
        num_items: int,
        width: int,
        optimizer: OptimizerConfig,
        features: Tensor | None = None,
    ) -> None:
        """`features` float32 (num_items, f): fixed vectors of what items show."""
        super().__init__()
        self.people = nn.Embedding(num_people, width)
        self.items = nn.Embedding(num_items, width)
        self.bias = nn.Embedding(num_items, 1)
        for table in (self.people, self.items):
            nn.init.normal_(table.weight, std=0.01)
        nn.init.zeros_(self.bias.weight)
        self.register_buffer("features", features, persistent=False)
        if features is not None:
            self.taste = nn.Embedding(num_people, width)
            nn.init.normal_(self.taste.weight, std=0.01)
            self.shows = nn.Linear(features.shape[1], width, bias=False)
            self.shown_bias = nn.Linear(features.shape[1], 1, bias=False)
        self.optimizer_config = optimizer

    def score(self, people: Tensor, items: Tensor) -> Tensor:
        """Of each person (n,) with the item beside them (n,): (n,)."""
        scores = (self.people(people) * self.items(items)).sum(-1) + self.bias(items).squeeze(-1)
        if self.features is not None:
            shown = self.features[items]
            scores = scores + (self.taste(people) * self.shows(shown)).sum(-1)
            scores = scores + self.shown_bias(shown).squeeze(-1)
        return scores

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        people, taken, other = batch.unbind()
        loss = -F.logsigmoid(self.score(people, taken) - self.score(people, other)).mean()
        self.log("loss", loss, sync_dist=True, batch_size=len(people))
        return loss

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.parameters(), self.optimizer_config, self.trainer.max_steps)

    def scorer(self, targets: Targets, known: NDArray[np.bool_]) -> ScoreChunk:
        """`known` bool (num_people,): who took something in training."""
        users = torch.from_numpy(targets.users.astype(np.int64))
        counts = torch.from_numpy(known.astype(np.float32))

        def score(people: Tensor, part: slice) -> Tensor:
            chosen = users[people]
            weight = counts[chosen].unsqueeze(1)
            scores = (weight * self.people.weight[chosen]) @ self.items.weight[part].T
            scores = scores + self.bias.weight[part].T
            if self.features is not None:
                shown = self.features[part]
                scores = scores + (weight * self.taste.weight[chosen]) @ self.shows(shown).T
                scores = scores + self.shown_bias(shown).T
            return scores

        return score
