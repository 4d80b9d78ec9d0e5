"""Looks at validation now and then and keeps the weights that ranked best."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from catalog.splits import Targets
from finetune.metrics import Ranking, mean_ndcg


class BestWeights(pl.Callback):
    """Ranks the validation targets of up to `people` every `every` steps; restores the best at the end.

    Under ZeRO-3, where no rank holds whole weights, and without targets the last weights are kept, the
    curve stays empty and `best` None. A score that is not finite raises NotFinite (`finetune.evaluate`).
    """

    def __init__(
        self,
        rank: Callable[[Any, Targets], Ranking],
        targets: Targets,
        every: int,
        people: int,
    ) -> None:
        """`rank` ranks targets by the module in training."""
        self.targets = targets.of_people(people)
        self.rank = rank
        self.every = every
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

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if name in self.kept:
                    parameter.copy_(self.kept[name])

    def look(self, module: pl.LightningModule, step: int) -> None:
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if len(self.targets.users) == 0 or any(hasattr(p, "ds_id") for p in trained.values()):
            return
        training = module.training
        ranking = self.rank(module, self.targets)
        module.train(training)
        ndcg = mean_ndcg(ranking)
        self.curve.append([step, ndcg])
        if self.best is None or ndcg > self.best:
            self.best, self.best_step = ndcg, step
            self.kept = {name: p.detach().clone() for name, p in trained.items()}
