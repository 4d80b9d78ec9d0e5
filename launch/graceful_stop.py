"""Graceful stop: a signal ends the run after the current step, with a checkpoint, on every rank alike.

Schedulers send SIGTERM or SIGUSR1 some time before they kill; a user presses Ctrl-C. The handler
only records it, so that neither a first nor a second signal leaves half-written state. Ranks agree on the
step (`launch.nonfinite_guard` carries the bit), as signals reach them at different moments.
"""

import signal
import sys
import threading
import time
from typing import Any

import pytorch_lightning as pl

from catalog.errors import VitrineError
from launch.events import Events
from launch.submit.config import INTERRUPTED, NOT_RESUMABLE, RESUMABLE
from pretrain.distributed import world

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StoppedError(VitrineError):
    """The run was stopped by a signal, with a checkpoint where checkpoints are written."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class GracefulStop(pl.Callback):
    """Records signals; `Checkpoints` writes the checkpoint and ends the run."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.received: signal.Signals | None = None
        self.received_at = 0.0
        self.agreed = False
        """Whether all ranks know that one received a signal; they end after this step."""
        self.previous_handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self.previous_handlers = {
                name: signal.signal(name, self._note) for name in STOP_SIGNALS
            }

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _note(self, number: int, _: Any) -> None:
        name = signal.Signals(number)
        if self.received is None:
            self.received, self.received_at = name, time.monotonic()
            return
        if name == signal.SIGINT:  # the second Ctrl-C
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for name, handler in self.previous_handlers.items():
            signal.signal(name, handler)
        self.previous_handlers = {}

    def stopped(self, trainer: pl.Trainer, step: int, written: bool) -> StoppedError:
        """The error to raise once the checkpoint is on disk."""
        name = "another rank's signal" if self.received is None else self.received.name
        if trainer.is_global_zero:
            self.events.write("stop", step=step, signal=name, checkpoint=written)
        outcome = (
            "the same command resumes from there"
            if written
            else "there is no checkpoint, as trainer.checkpoint_every is 0: the same command starts at step 0"
        )
        code = RESUMABLE if written else NOT_RESUMABLE
        if self.received == signal.SIGINT:
            code = INTERRUPTED
        return StoppedError(f"stopped by {name} after step {step}; {outcome}", code)


def end(stop: StoppedError) -> int:
    """Prints on rank zero why the run ended; returns the exit status."""
    if world()[0] == 0:
        print(f"vitrine: {stop}", file=sys.stderr)
    return stop.code
