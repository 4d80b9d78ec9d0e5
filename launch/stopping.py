"""Ends a run when it is asked to: after the step in hand, with a checkpoint, on every rank alike.

Schedulers send SIGTERM or SIGUSR1 some time before they kill; a person presses Ctrl-C. The handler
only remembers it, so that no signal, nor a second one, meets half-written state. Ranks agree on the
step (`launch.guard` carries the bit), as signals reach them at different moments.
"""

import signal
import sys
import threading
import time
from typing import Any

import pytorch_lightning as pl

from catalog.errors import VitrineError
from launch.events import Events
from launch.submit.config import GOES_ON, INTERRUPTED, NOTHING_KEPT
from pretrain.distributed import world

ASKS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(VitrineError):
    """A run that ended because it was asked to, with a checkpoint where any are written."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StopWhenAsked(pl.Callback):
    """Keeps what signals asked for; `Checkpoints` acts on it."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.asked: signal.Signals | None = None
        self.asked_at = 0.0
        self.agreed = False
        """All ranks know that one was asked, and end after this step."""
        self.before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {name: signal.signal(name, self._note) for name in ASKS}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _note(self, number: int, _: Any) -> None:
        name = signal.Signals(number)
        if self.asked is None:
            self.asked, self.asked_at = name, time.monotonic()
            return
        if name == signal.SIGINT:  # a person who insists
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)
        self.before = {}

    def stopped(self, trainer: pl.Trainer, step: int, written: bool) -> Stopped:
        """What to raise once everything is on disk."""
        name = "another rank's signal" if self.asked is None else self.asked.name
        if trainer.is_global_zero:
            self.events.write("stop", step=step, signal=name, checkpoint=written)
        kept = (
            "the same command goes on from there"
            if written
            else "there is no checkpoint, as trainer.checkpoint_every is 0: the same command begins at step 0"
        )
        code = GOES_ON if written else NOTHING_KEPT
        if self.asked == signal.SIGINT:
            code = INTERRUPTED
        return Stopped(f"stopped by {name} after step {step}; {kept}", code)


def end(stop: Stopped) -> int:
    """Says why a run ended, on rank zero alone; the exit status."""
    if world()[0] == 0:
        print(f"vitrine: {stop}", file=sys.stderr)
    return stop.code
