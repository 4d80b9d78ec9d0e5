"""Throughput of a training: samples per second, memory, gradient norm, model FLOPs utilisation (MFU)."""

import resource
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy
from torch.nn.utils import get_total_norm
from torch.utils.flop_counter import FlopCounterMode

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}
"""Dense bf16 operations a second, by what is in a device's name (NVIDIA's data sheets, SXM)."""
COUNTED = 2
"""Steps of a run before the one whose operations are counted: the first ones compile and warm up."""


class ThroughputMonitor(pl.Callback):
    """Every `every` steps logs `samples_per_second`, `memory_gib`, `grad_norm`, and `mfu`
    on devices whose peak is known.

    mfu: operations of the forward and backward pass (Chowdhery et al., 2022, without what is computed
    again), counted in one step, over the time a step takes and the device's peak.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.latest: dict[str, float] = {}
        self.counter: FlopCounterMode | None = None
        self.operations = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first = self.last_logged = trainer.global_step
        self.samples = 0
        self.since = time.perf_counter()
        self.norm = float("nan")
        name = torch.cuda.get_device_name() if pl_module.device.type == "cuda" else ""
        self.peak = next((peak for part, peak in PEAKS.items() if part in name), 0.0)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.peak and not self.operations and trainer.global_step >= self.first + COUNTED:
            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.operations = self.counter.get_total_flops() * trainer.accumulate_grad_batches
            self.counter = None

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        if self._is_due(trainer.global_step + 1) and not isinstance(
            trainer.strategy, DeepSpeedStrategy
        ):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self.norm = float(get_total_norm(gradients))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.samples += int(getattr(batch, "num_samples", 0)) * trainer.world_size
        step = trainer.global_step
        if step == self.last_logged or not self._is_due(step):
            return
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            norm = trainer.strategy.deepspeed_engine.get_global_grad_norm()
            self.norm = float("nan") if norm is None else float(norm)
        seconds = time.perf_counter() - self.since
        each = seconds / (step - self.last_logged)
        self.latest = {"grad_norm": self.norm, "memory_gib": memory_gib(pl_module.device)}
        if self.samples:
            self.latest["samples_per_second"] = self.samples / seconds
        if self.peak and self.operations:
            self.latest["mfu"] = self.operations / each / self.peak
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(self.latest, step - 1)  # as Lightning counts them
        self.samples, self.last_logged, self.since = 0, step, time.perf_counter()

    def _is_due(self, step: int) -> bool:
        return step % self.every == 0


def memory_gib(device: torch.device) -> float:
    """Peak memory of this process: on the GPU, or, without one, resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
