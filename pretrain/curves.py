"""Records a run's learning curves, for its artifact and its report."""

import json
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class CurveRecorder(pl.Callback):
    """Collects every logged scalar at each `every`-th step: name → [[step, value], …]."""

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self.curves: dict[str, list[list[float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curves = state_dict["curves"]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == 0:  # batches are still being accumulated for the first step
            return
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            for name, value in trainer.callback_metrics.items():
                points = self.curves.setdefault(name, [])
                new = not points or points[-1][0] != trainer.global_step
                if new and math.isfinite(float(value)):  # a skipped step has no loss
                    points.append([trainer.global_step, float(value)])

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.curves))
