"""Model selection on validation NDCG@10: keeps the best weights, and stops training early."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from catalog.splits import Targets
from finetune.metrics import Ranking, mean_ndcg
from pretrain.eval_mode import eval_mode


def trained_weights(module: pl.LightningModule) -> dict[str, torch.nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Validation:
    """When validation targets are ranked, and when training stops early."""

    every: int
    """Steps between two validations."""
    max_users: int
    """Users whose targets are ranked, at most."""
    patience: int = 0
    """Early stopping after this many validations without a better one; 0: none."""


class BestWeights(pl.Callback):
    """Ranks validation targets as `validation` says, and restores the best weights at the end.

    Under ZeRO-3, where no rank holds whole weights, and without validation targets the last weights are
    kept, the curve stays empty and `best` None. A score that is not finite raises NonFiniteError
    (`finetune.evaluate`).
    """

    def __init__(
        self,
        rank: Callable[[Any, Targets], Ranking],
        targets: Targets,
        validation: Validation,
        weights: Callable[[Any], Mapping[str, torch.nn.Parameter]] = trained_weights,
    ) -> None:
        """`rank` ranks targets with the module in training; `weights` are those that it ranks with."""
        self.targets = targets.sample_users(validation.max_users)
        self.rank = rank
        self.validation = validation
        self.weights = weights
        self.curve: list[list[float]] = []
        self.best: float | None = None  # no validation yet
        self.best_step = 0
        self.best_weights: dict[str, torch.Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        names = ("curve", "best", "best_step", "best_weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        step = trainer.global_step
        due = step % self.validation.every == 0 or step == trainer.max_steps
        if due and (not self.curve or self.curve[-1][0] != step):
            self.validate(pl_module, step)
            trainer.should_stop |= self.should_stop

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.should_stop  # resumed from a checkpoint of the last step

    @property
    def should_stop(self) -> bool:
        """Whether `patience` validations in a row have not improved on the best one."""
        waited = sum(step > self.best_step for step, _ in self.curve)
        return 0 < self.validation.patience <= waited

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = self.weights(pl_module)
        with torch.no_grad():
            for name, best in self.best_weights.items():
                weights[name].copy_(best)

    def validate(self, module: pl.LightningModule, step: int) -> None:
        """Ranks the validation targets, and copies the weights if NDCG@10 is the best so far."""
        weights = self.weights(module)
        if len(self.targets.users) == 0 or any(hasattr(p, "ds_id") for p in weights.values()):
            return
        with eval_mode(module):
            ranking = self.rank(module, self.targets)
        ndcg = mean_ndcg(ranking)
        self.curve.append([step, ndcg])
        if self.best is None or ndcg > self.best:
            self.best, self.best_step = ndcg, step
            self.best_weights = {name: p.detach().clone() for name, p in weights.items()}
