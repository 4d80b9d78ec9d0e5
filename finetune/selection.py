"""Looks at validation now and then and keeps the weights that ranked best."""

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from catalog.splits import Targets
from finetune.metrics import Ranking, mean_ndcg


def trained_weights(module: pl.LightningModule) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


class BestWeights(pl.Callback):
    """Ranks the validation targets of up to `people` every `every` steps; restores the best at the end.

    Under ZeRO-3, where no rank holds whole weights, and without targets the last weights are kept, the
    curve stays empty and `best` None. A score that is not finite raises NonFiniteError (`finetune.evaluate`).
    """

    def __init__(
        self,
        rank: Callable[[Any, Targets], Ranking],
        targets: Targets,
        every: int,
        people: int,
        patience: int = 0,
        weights: Callable[[Any], Mapping[str, torch.nn.Parameter]] = trained_weights,
    ) -> None:
        """`rank` ranks targets by the module in training; `weights`: which of its weights it is by;
        `patience`: looks without a better one after which training ends, 0: it never does."""
        self.targets = targets.sample_users(people)
        self.rank = rank
        self.every = every
        self.patience = patience
        self.weights = weights
        self.curve: list[list[float]] = []
        self.best: float | None = None  # no look yet
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
            trainer.should_stop |= self.exhausted

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.exhausted  # resumed from a checkpoint of the last step

    @property
    def exhausted(self) -> bool:
        """As many looks as `patience` says have not found better weights."""
        waited = sum(step > self.best_step for step, _ in self.curve)
        return 0 < self.patience <= waited

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = self.weights(pl_module)
        with torch.no_grad():
            for name, kept in self.kept.items():
                weights[name].copy_(kept)

    def look(self, module: pl.LightningModule, step: int) -> None:
        weights = self.weights(module)
        if len(self.targets.users) == 0 or any(hasattr(p, "ds_id") for p in weights.values()):
            return
        training = module.training
        ranking = self.rank(module, self.targets)
        module.train(training)
        ndcg = mean_ndcg(ranking)
        self.curve.append([step, ndcg])
        if self.best is None or ndcg > self.best:
            self.best, self.best_step = ndcg, step
            self.kept = {name: p.detach().clone() for name, p in weights.items()}
