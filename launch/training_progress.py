"""Shows the progress of a training: step, loss, speed and time left."""

from typing import Any

import pytorch_lightning as pl

from catalog.progress import ProgressDisplay
from launch.throughput import ThroughputMonitor


class TrainingProgress(pl.Callback):
    """Prints progress on rank zero. The loss leaves the device only when it is shown, so steps stay
    fast; costly figures are the latest of the `ThroughputMonitor`.

    A batch with `num_samples` also shows the speed, over all ranks.
    """

    def __init__(self, title: str, meter: ThroughputMonitor) -> None:
        self.title = title
        self.meter = meter
        self.display: ProgressDisplay | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.samples = self.shown_step = 0
        if trainer.is_global_zero:
            self.display = ProgressDisplay(self.title, trainer.max_steps, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.display is None:
            return
        self.samples += int(getattr(batch, "num_samples", 0)) * trainer.world_size
        step = trainer.global_step
        if step > self.shown_step and self.display.is_due(step):
            self.shown_step = step
            self.display.show(step, *self._figures(trainer, outputs, self.display.seconds))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _figures(self, trainer: pl.Trainer, outputs: Any, seconds: float) -> list[str]:
        figures = []
        loss = trainer.callback_metrics.get("loss")  # logged, and so averaged over the ranks
        if loss is None and isinstance(outputs, dict):
            loss = outputs.get("loss")
        if loss is not None:
            figures.append(f"loss {float(loss):.3f}")
        if self.samples:
            figures.append(f"{self.samples / seconds:,.0f} samples/s")
        latest = self.meter.latest
        if latest:
            figures.append(f"gradient {latest['grad_norm']:.2g}")
            figures.append(f"{latest['memory_gib']:.1f} GiB")
        if "mfu" in latest:
            figures.append(f"MFU {latest['mfu']:.0%}")
        return figures

    def _close(self) -> None:
        if self.display is not None:
            self.display.close()
            self.display = None
