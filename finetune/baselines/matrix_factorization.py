"""Matrix factorization by pairwise ranking: BPR-MF (Rendle et al., 2009), VBPR (He and McAuley, 2016)."""

import copy
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Split, Targets, train_user_items
from finetune.config import MatrixFactorizationConfig
from finetune.evaluate import ScoreFunction
from pretrain.inner_products import inner_products
from pretrain.optim import GuardedAdamW
from pretrain.packing import step_sampler


class TripletSampler:
    """Samples triplets of a user, a positive item and a negative item (negative sampling).

    Batch n is a function of (seed, n), so a resumed run samples the same. Cold items, without training
    interactions, are never negatives: most were not on sale yet, and would learn to rank last.
    """

    def __init__(self, catalog: Catalog, split: Split, size: int, seed: int) -> None:
        """`size`: triplets per batch. VitrineError if no user has a negative item."""
        users, items = train_user_items(catalog, split)
        self.positives = np.unique(users * catalog.num_items + items)
        self.candidates = np.flatnonzero(split.warm_items)
        num_positives = np.bincount(
            self.positives // catalog.num_items, minlength=catalog.num_users
        )
        # A user who bought every candidate has no negative item.
        useful = num_positives[users] < len(self.candidates)
        if not useful.any():
            raise VitrineError(
                f"every user of {catalog.name} took all {len(self.candidates):,} items of the training "
                "part, so none is left to rank below them; use another baseline, such as item-knn"
            )
        self.users, self.items = users[useful], items[useful]
        self.num_items, self.size, self.seed = catalog.num_items, size, seed

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.items) // self.size)

    def __getitem__(self, draw: int) -> NDArray[np.int64]:
        """(3, size): users, positive items, negative items."""
        rng = np.random.default_rng((self.seed, draw))
        rows = rng.integers(len(self.items), size=self.size)
        users, negatives = self.users[rows], np.empty(self.size, dtype=np.int64)
        invalid = np.arange(self.size)
        while len(invalid):
            negatives[invalid] = self.candidates[
                rng.integers(len(self.candidates), size=len(invalid))
            ]
            invalid = invalid[self._is_positive(users[invalid], negatives[invalid])]
        return np.stack([users, self.items[rows], negatives])

    def _is_positive(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        keys = users * self.num_items + items
        positions = np.searchsorted(self.positives, keys).clip(max=len(self.positives) - 1)
        return self.positives[positions] == keys


class TripletData(pl.LightningDataModule):
    """Batches of a `TripletSampler`, in the order of the trainer's steps and ranks."""

    def __init__(self, sampler: TripletSampler) -> None:
        super().__init__()
        self.sampler = sampler

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return DataLoader(
            self.sampler,  # pyright: ignore[reportArgumentType]
            batch_sampler=step_sampler(self.trainer, 1),
            collate_fn=lambda draws: torch.from_numpy(np.concatenate(draws, axis=1)),
        )


class Factors(nn.Module):
    """Factors of BPR-MF and VBPR: item bias + user · item, with content + visual user factor · projected
    content + content bias (VBPR, eq. 4).
    """

    def __init__(self, num_users: int, num_items: int, width: int, content_width: int = 0) -> None:
        """`content_width`: size of the content vectors; 0: without content (BPR-MF)."""
        super().__init__()
        self.users = nn.Embedding(num_users, width)
        self.items = nn.Embedding(num_items, width)
        self.bias = nn.Embedding(num_items, 1)
        tables = [self.users, self.items]
        if content_width:
            self.taste = nn.Embedding(num_users, width)
            self.projection = nn.Linear(content_width, width, bias=False)
            self.content_bias = nn.Linear(content_width, 1, bias=False)
            nn.init.zeros_(self.content_bias.weight)
            tables.append(self.taste)
        for table in tables:
            nn.init.normal_(table.weight, std=0.01)
        nn.init.zeros_(self.bias.weight)

    def forward(
        self, users: Tensor, positives: Tensor, negatives: Tensor, content: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The score margins of triplets (n,), positive minus negative, float32 (n,), and the L2 penalty.

        The penalty is the sum of squares of each triplet's parameters (Rendle et al., eq. 4): its user, its
        items, and the content projection and content bias, which all triplets share; without a penalty on
        those two VBPR overfits. `content` (num_items, c).
        """
        user, positive, negative = self.users(users), self.items(positives), self.items(negatives)
        bias, other_bias = self.bias(positives).squeeze(-1), self.bias(negatives).squeeze(-1)
        margin = (user * (positive - negative)).sum(-1) + bias - other_bias
        penalized = [user, positive, negative, bias, other_bias]
        shared = []
        if content is not None:
            difference, taste = content[positives] - content[negatives], self.taste(users)
            margin = margin + (taste * self.projection(difference)).sum(-1)
            margin = margin + self.content_bias(difference).squeeze(-1)
            penalized.append(taste)
            shared = [self.projection.weight, self.content_bias.weight]
        squares = [values.square().sum() for values in penalized]
        squares += [len(users) * values.square().sum() for values in shared]
        return margin, torch.stack(squares).sum()


class MatrixFactorization(pl.LightningModule):
    """Trains `Factors` on triplets with the BPR loss; the EMA of the weights is evaluated and stored.

    A step moves the embeddings of single users and items far; the average over about a hundred steps
    ranks better than any of them (Polyak and Juditsky, 1992).
    """

    content: Tensor | None

    def __init__(
        self,
        num_users: int,
        num_items: int,
        config: MatrixFactorizationConfig,
        content: Tensor | None = None,
    ) -> None:
        """`content` float32 (num_items, c): fixed content vectors (VBPR)."""
        super().__init__()
        width = 0 if content is None else content.shape[1]
        self.factors = Factors(num_users, num_items, config.width, width)
        self.ema_factors = copy.deepcopy(self.factors).requires_grad_(False)
        self.register_buffer("content", content, persistent=False)
        self.config = config

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        margin, squares = self.factors(*batch.unbind(), self.content)
        loss = -F.logsigmoid(margin).mean()
        self.log("loss", loss, sync_dist=True, batch_size=len(margin))
        return loss + self.config.regularization / 2 * squares / len(margin)

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate: the number of steps is unknown with early stopping."""
        group = {"params": list(self.factors.parameters()), "weight_decay": 0.0}
        return GuardedAdamW([group], self.config.learning_rate)

    def scorer(self, targets: Targets, split: Split) -> ScoreFunction:
        """Scores by the EMA weights. A cold user gets the biases alone; a cold item has the mean item's bias,
        0, and no embedding, so that it is scored by its content alone."""
        factors, device = self.ema_factors, self.ema_factors.bias.weight.device
        users = torch.from_numpy(targets.users.astype(np.int64)).to(device)
        known_users = torch.from_numpy((split.train_end > 0).astype(np.float32)).to(device)
        known_items = torch.from_numpy(split.warm_items.astype(np.float32)).to(device)

        def score(indices: Tensor, part: slice) -> Tensor:
            chosen = users[indices.to(device)]
            weight = known_users[chosen].unsqueeze(1)
            scores = inner_products(
                weight * factors.users.weight[chosen], factors.items.weight[part]
            )
            scores = (scores + factors.bias.weight[part].T) * known_items[part]
            if self.content is not None:
                shown = self.content[part]
                taste = weight * factors.taste.weight[chosen]
                scores = scores + inner_products(taste, factors.projection(shown))
                scores = scores + factors.content_bias(shown).T
            return scores.float().cpu()

        return score


class EMAUpdate(pl.Callback):
    """Updates the EMA of a `MatrixFactorization`'s weights after every step."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        assert isinstance(pl_module, MatrixFactorization)
        step = trainer.global_step
        # A smaller decay at first, so that the EMA does not lean on the initial weights.
        decay = min(pl_module.config.ema_decay, (1 + step) / (10 + step))
        pairs = zip(pl_module.ema_factors.parameters(), pl_module.factors.parameters(), strict=True)
        with torch.no_grad():
            for averaged, trained in pairs:
                averaged.lerp_(trained, 1 - decay)
