"""Keeps weights finite: a step whose gradient is not, on any rank, changes nothing on every rank.

One broken image or one faulty device is enough to turn all weights into NaN, after which a run would
train for days without an error.
"""

import sys
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from catalog.errors import DivergenceError
from launch.events import Events
from launch.graceful_stop import GracefulStop
from pretrain.distributed import sum_over_ranks
from pretrain.optim import GuardedAdamW, innermost


class NonFiniteGuard(pl.Callback):
    """Checks each gradient as it is computed, before ranks and shards mix it.

    So it does not matter who reduces or keeps it afterwards (DDP, ZeRO 1, 2, 3): the ranks agree on
    one bit, and the innermost optimiser skips the step. `max_nonfinite_steps` such steps in a
    row end the run with `DivergenceError`. A second bit says that one rank received a stop signal.
    """

    def __init__(self, max_nonfinite_steps: int, stop: GracefulStop, events: Events) -> None:
        self.max_nonfinite_steps = max_nonfinite_steps
        self.stop = stop
        self.events = events
        self.in_a_row = 0
        self.skipped = 0
        self.batch: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.in_a_row, self.skipped = state_dict["in_a_row"], state_dict["skipped"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.num_nonfinite = torch.zeros(1, device=pl_module.device)
        self.optimizer = innermost(trainer.optimizers[0])
        if isinstance(self.optimizer, GuardedAdamW):
            for parameter in pl_module.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(self._count_nonfinite)

    def _count_nonfinite(self, gradient: Tensor) -> None:
        # A sum is finite only if all its terms are; no step waits for the device here.
        self.num_nonfinite += ~gradient.detach().sum(dtype=torch.float32).isfinite()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.skip_step = False
        self.accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches > 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        stop_here = self.num_nonfinite.new_full((1,), float(self.stop.received is not None))
        num_nonfinite, stop = sum_over_ranks(torch.cat([self.num_nonfinite, stop_here])).tolist()
        self.stop.agreed |= stop > 0
        here = bool(self.num_nonfinite > 0)
        self.num_nonfinite.zero_()
        if not isinstance(self.optimizer, GuardedAdamW):
            return
        self.optimizer.apply_ema = trainer.global_step + 1 >= trainer.max_steps
        self.skip_step |= num_nonfinite > 0
        self.optimizer.skip_step = self.skip_step
        if here:
            self._report(trainer, pl_module)
        if self.accumulating:
            return  # DeepSpeed's engine comes here with every batch of a step
        if not self.skip_step:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.skipped += 1
        if self.in_a_row >= self.max_nonfinite_steps:
            raise DivergenceError(
                f"{self.in_a_row} steps in a row, up to step {trainer.global_step}, had a gradient "
                "that is not finite; weights and checkpoints are those from before. Look at the items "
                "named above, or lower --optimizer.learning_rate; --trainer.max_nonfinite_steps allows more"
            )

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        suspects = getattr(pl_module, "suspects", None)
        items = suspects(self.batch) if suspects is not None else ""
        self.events.write("skipped_step", step=trainer.global_step, why=f"not finite{items}")
        # In one piece: several ranks may write at this moment.
        sys.stderr.write(
            f"step {trainer.global_step} skipped on all ranks: the gradient of rank "
            f"{trainer.global_rank} is not finite{items}\n"
        )
        sys.stderr.flush()
