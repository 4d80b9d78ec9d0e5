"""Looks at validation now and then and keeps the weights that ranked best."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from catalog.catalog import Catalog
from catalog.splits import Targets
from finetune.evaluate import metric_values
from finetune.module import FinetuneModule
from finetune.shop import Shop


class BestWeights(pl.Callback):
    """Ranks up to `people` validation targets every `every` steps; restores the best at the end.

    `refresh`, where given, reads the whole catalog through the towers first, so that what is judged
    (and trained on afterwards) is what would be stored. Under ZeRO-3, where no rank holds whole
    weights, the last weights are kept and the curve stays empty.
    """

    def __init__(
        self,
        catalog: Catalog,
        targets: Targets,
        every: int,
        people: int,
        refresh: Callable[[pl.LightningModule], None] | None = None,
    ) -> None:
        chosen = np.sort(np.random.default_rng(0).permutation(len(targets.users))[:people])
        self.targets = Targets(targets.users[chosen], targets.positions[chosen])
        self.catalog = catalog
        self.every = every
        self.refresh = refresh
        self.curve: list[list[float]] = []
        self.best = -1.0
        self.best_step = 0
        self.kept: dict[str, torch.Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("curve", "best", "best_step", "kept")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        due = step % self.every == 0 or step == trainer.max_steps
        if due and (not self.curve or self.curve[-1][0] != step):
            self.look(pl_module, step)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if name in self.kept:
                    parameter.copy_(self.kept[name])

    def look(self, module: pl.LightningModule, step: int) -> None:
        assert isinstance(module, FinetuneModule)
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if len(self.targets.users) == 0 or any(hasattr(p, "ds_id") for p in trained.values()):
            return
        if self.refresh is not None:
            self.refresh(module)
        with torch.no_grad():
            vectors = module.item_vectors().float().cpu().numpy()
        training = module.training
        ranking = Shop(module.recommender, vectors).rank_targets(self.catalog, self.targets)
        module.train(training)
        ndcg = float(metric_values(ranking.ranks)["ndcg@10"].mean())
        self.curve.append([step, ndcg])
        if ndcg > self.best:
            self.best, self.best_step = ndcg, step
            self.kept = {name: p.detach().clone() for name, p in trained.items()}
