"""Ends a run that has stopped moving, and says which rank it waits for.

Where one rank hangs, all others wait for it in a collective, for as long as it takes: half an hour
under gloo, for ever under some. Each rank writes down now and then that it lives and where it is, in
`ranks/` beside the checkpoints, so that the one that fires can tell which of the others is behind.
"""

import contextlib
import faulthandler
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from catalog import progress
from launch.events import Events
from launch.stopping import StopWhenAsked

EXIT_CODE = 76
"""Of a process that was ended for not moving."""
GRACE = 20.0
"""Seconds that a step may take once a signal has asked for the end."""
BEGINNING = 4.0
"""Until the first step a rank may take so many time-outs: shards are made, or converted, by one for all."""
LATE = 3.0
"""A rank that has not said for so many beats that it lives is stopped, or gone."""


@dataclass
class Beat:
    """Where a rank is."""

    rank: int
    step: int
    doing: str
    alive: float
    """Seconds since the epoch, when it last said so."""
    moved: float
    """When it last came on."""
    host: str = ""
    process: int = 0


class Watchdog(pl.Callback):
    """A thread that looks whether steps come on, every tenth of `timeout` seconds at most.

    Reading, ranking and embedding between steps count as moving: they tell `catalog.progress`.
    """

    def __init__(
        self, folder: Path, timeout: float, stop: StopWhenAsked, events: Events, rank: int
    ) -> None:
        self.folder = folder / "ranks"
        self.timeout = timeout
        self.stop = stop
        self.events = events
        self.beat = Beat(rank, 0, "starting", 0.0, 0.0, platform.node(), os.getpid())
        self.pause = min(1.0, timeout / 10)
        self.ended = threading.Event()
        self.begun = 0.0
        self.thread: threading.Thread | None = None

    def move(self, doing: str = "", step: int = -1) -> None:
        """This rank has come on."""
        self.beat.moved = time.time()
        if doing:
            self.beat.doing = doing
        if step >= 0:
            self.beat.step = step

    @contextlib.contextmanager
    def watching(self, trainer: pl.Trainer) -> Iterator[None]:
        """From before ranks first wait for each other, which no hook of Lightning's is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ranks = trainer.world_size
        self.begun = time.time()
        self.move("starting", trainer.global_step)
        self._write()
        progress.LISTENERS.append(self.move)
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()
        try:
            yield
        finally:
            self.ended.set()
            progress.LISTENERS.remove(self.move)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.move("starting", trainer.global_step)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.move("forward", trainer.global_step)

    def on_before_backward(self, *_: Any) -> None:
        self.move("backward")

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.move("optimizer step")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.move("between steps", trainer.global_step)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.ended.set()

    def _watch(self) -> None:
        while not self.ended.wait(self.pause):
            self._write()
            still = self.beat.alive - self.beat.moved
            allowed = self.timeout * (BEGINNING if self.beat.doing == "starting" else 1)
            if self.stop.asked is not None and not self.stop.agreed:  # then a checkpoint is written
                still = min(still, time.monotonic() - self.stop.asked_at)
                allowed = min(allowed, GRACE)
            if still > allowed:
                self._give_up(still)

    def _write(self) -> None:
        self.beat.alive = time.time()
        path = self.folder / f"{self.beat.rank}.json"
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(asdict(self.beat)))
            partial.replace(path)
        except OSError:
            pass  # a full disk is for others to report

    def _give_up(self, still: float) -> None:
        where = f"step {self.beat.step}, {self.beat.doing}"
        behind = behind_of(self._beats(), self.beat.alive, LATE * max(1.0, self.pause))
        blame = ""
        if behind is not None:
            last = f"last heard of at step {behind.step}, {behind.doing}"
            last = last if behind.alive else "which has not begun"
            blame = f"; it waits for rank {behind.rank}, {last}"
        told = f"rank {self.beat.rank} has not moved for {still:.0f} s ({where}){blame}"
        sys.stderr.write(f"vitrine: {told}; its threads were at:\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)
        try:
            facts = {"step": self.beat.step, "doing": self.beat.doing, "seconds": round(still, 1)}
            self.events.write("hang", **facts, behind=behind and behind.rank)
        except OSError:
            pass
        sys.stderr.flush()
        if behind is not None:
            self._kill(behind)
        os._exit(EXIT_CODE)

    def _kill(self, other: Beat) -> None:
        """One that is stopped hears no other signal, and whoever started it would wait for it."""
        silent = time.time() - other.alive > LATE * max(1.0, self.pause)
        if silent and other.alive and other.rank != self.beat.rank and other.host == self.beat.host:
            with contextlib.suppress(OSError):
                os.kill(other.process, signal.SIGKILL)

    def _beats(self) -> list[Beat]:
        """Of all ranks; one that has said nothing since this one began has `alive` 0: what lies there
        is of an earlier start, and its process may by now be anybody's."""
        found = []
        for rank in range(self.ranks):
            beat = Beat(rank, 0, "starting", 0.0, 0.0)
            try:
                told = Beat(**json.loads((self.folder / f"{rank}.json").read_text()))
                beat = told if told.alive >= self.begun else beat
            except (OSError, ValueError, TypeError):
                pass
            found.append(beat)
        return found


ORDER = ("starting", "forward", "backward", "optimizer step", "between steps")


def behind_of(beats: list[Beat], now: float, late: float) -> Beat | None:
    """The rank the others wait for: one that no longer says it lives, else the one least far on.

    None where all are equally far.
    """
    silent = [beat for beat in beats if now - beat.alive > late]
    if silent:
        return min(silent, key=lambda beat: beat.alive)

    def far(beat: Beat) -> tuple[int, int]:
        return beat.step, ORDER.index(beat.doing) if beat.doing in ORDER else len(ORDER)

    places = {far(beat) for beat in beats}
    return min(beats, key=far) if len(places) > 1 else None
