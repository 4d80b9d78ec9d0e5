"""The watchdog: ends a run that hangs, and reports the rank that the others wait for.

If one rank hangs, all others wait for it in a collective: half an hour under gloo, for ever under some
backends. Each rank writes a heartbeat with its position into `ranks/` beside the checkpoints, so that
the watchdog that fires can tell which rank is behind.
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
from launch.graceful_stop import GracefulStop

EXIT_CODE = 76
"""Exit status of a process that its watchdog ended."""
GRACE = 20.0
"""Seconds that a step may take after a stop signal."""
STARTUP_FACTOR = 4.0
"""Factor of the timeout before the first step: one rank builds or converts shards for all."""
LATE = 3.0
"""Missed heartbeats after which a rank counts as stopped or gone. A longer pause between two ticks of this
process is not counted, because the process itself was suspended."""


@dataclass
class Heartbeat:
    """The position of a rank, written periodically; `count` differs each time."""

    rank: int
    step: int = 0
    doing: str = "starting"
    count: int = 0
    host: str = ""
    process: int = 0


@dataclass(frozen=True)
class RankStatus:
    """What a rank's watchdog knows of another rank, by its own clock."""

    beat: Heartbeat
    started: bool
    """Whether it has written since the observer started; an older heartbeat is of an earlier run, whose
    process id may have been reused."""
    silent: float
    """Seconds of observation in which it has written nothing new."""


class RankObserver:
    """Reads the heartbeats that the ranks of a run write into a folder."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self.folder = folder
        self.texts = [self._read(rank) for rank in range(ranks)]
        self.started = [False] * ranks
        self.since: list[float | None] = [None] * ranks
        """When the observer first saw each rank's present heartbeat."""

    def look(self, now: float) -> None:
        """Records which ranks have written since the last look; `now` in seconds of its own clock."""
        for rank, before in enumerate(self.texts):
            text = self._read(rank)
            if text != before:
                self.texts[rank], self.started[rank] = text, True
            if text != before or self.since[rank] is None:
                self.since[rank] = now

    def statuses(self, now: float) -> list[RankStatus]:
        """The status of each rank, as of the last look."""
        statuses = []
        for rank, (text, started, since) in enumerate(
            zip(self.texts, self.started, self.since, strict=True)
        ):
            beat = Heartbeat(rank)
            with contextlib.suppress(ValueError, TypeError):
                beat = Heartbeat(**json.loads(text)) if started else beat
            statuses.append(RankStatus(beat, started, 0.0 if since is None else now - since))
        return statuses

    def _read(self, rank: int) -> str:
        try:
            return (self.folder / f"{rank}.json").read_text()
        except OSError:
            return ""


class Watchdog(pl.Callback):
    """A watchdog thread that checks for progress, every tenth of `timeout` seconds at most.

    Reading, ranking and embedding between steps count as progress (`catalog.progress`). Time is
    what the watchdog thread itself has seen pass, on a monotonic clock: neither a clock that is set nor a
    machine or process that was asleep makes a healthy run look stuck.
    """

    def __init__(
        self, folder: Path, timeout: float, stop: GracefulStop, events: Events, rank: int
    ) -> None:
        self.folder = folder / "ranks"
        self.timeout = timeout
        self.stop = stop
        self.events = events
        self.beat = Heartbeat(rank, host=platform.node(), process=os.getpid())
        self.pause = min(1.0, timeout / 10)
        self.late = LATE * max(1.0, self.pause)
        self.ended = threading.Event()
        self.num_progress = 0
        self.thread: threading.Thread | None = None

    def report_progress(self, doing: str = "", step: int = -1) -> None:
        """Resets the watchdog: this rank has made progress."""
        self.num_progress += 1
        if doing:
            self.beat.doing = doing
        if step >= 0:
            self.beat.step = step

    @contextlib.contextmanager
    def watching(self, trainer: pl.Trainer) -> Iterator[None]:
        """Runs the watchdog from before ranks first wait for each other, which no Lightning hook covers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ranks = trainer.world_size
        self.report_progress("starting", trainer.global_step)
        progress.LISTENERS.append(self.report_progress)
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()
        try:
            yield
        finally:
            self.ended.set()
            progress.LISTENERS.remove(self.report_progress)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.report_progress("starting", trainer.global_step)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.report_progress("forward", trainer.global_step)

    def on_before_backward(self, *_: Any, **__: Any) -> None:
        self.report_progress("backward")

    def on_before_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.report_progress("optimizer step")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.report_progress("between steps", trainer.global_step)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.ended.set()

    def _watch(self) -> None:
        self.others = RankObserver(self.folder, self.ranks)
        self.clock = self.progress_at = 0.0
        self.progress_seen = self.num_progress
        self._write()
        before = time.monotonic()
        while not self.ended.wait(self.pause):
            now = time.monotonic()
            self._tick(now - before)
            before = now

    def _tick(self, passed: float) -> None:
        """Checks this rank, and the others shortly before the timeout; gives up at the timeout."""
        self.clock += min(passed, LATE * self.pause)
        if self.num_progress != self.progress_seen:
            self.progress_seen, self.progress_at = self.num_progress, self.clock
        self._write()
        still = self.clock - self.progress_at
        allowed = self.timeout * (STARTUP_FACTOR if self.beat.doing == "starting" else 1)
        if self.stop.received is not None and not self.stop.agreed:  # then a checkpoint is written
            still = min(still, time.monotonic() - self.stop.received_at)
            allowed = min(allowed, GRACE)
        if still > allowed - 2 * self.late:
            self.others.look(self.clock)
        if still > allowed:
            statuses = self.others.statuses(self.clock)
            statuses[self.beat.rank] = RankStatus(self.beat, started=True, silent=0.0)
            self._give_up(still, statuses)

    def _write(self) -> None:
        self.beat.count += 1
        path = self.folder / f"{self.beat.rank}.json"
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(asdict(self.beat)))
            partial.replace(path)
        except OSError:
            pass  # a full disk is for others to report

    def _give_up(self, still: float, statuses: list[RankStatus]) -> None:
        where = f"step {self.beat.step}, {self.beat.doing}"
        behind = rank_behind(statuses, self.late)
        blame = ""
        if behind is not None:
            last = f"last heard of at step {behind.beat.step}, {behind.beat.doing}"
            last = last if behind.started else "which has not started"
            blame = f"; it waits for rank {behind.beat.rank}, {last}"
        message = f"rank {self.beat.rank} has not moved for {still:.0f} s ({where}){blame}"
        sys.stderr.write(f"vitrine: {message}; its threads were at:\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)
        try:
            facts = {"step": self.beat.step, "doing": self.beat.doing, "seconds": round(still, 1)}
            self.events.write("hang", **facts, behind=behind and behind.beat.rank)
        except OSError:
            pass
        sys.stderr.flush()
        if behind is not None:
            self._kill(behind)
        os._exit(EXIT_CODE)

    def _kill(self, other: RankStatus) -> None:
        """Kills a rank of this host that is silent: a stopped process handles no other signal."""
        beat, silent = other.beat, other.silent > self.late
        if silent and other.started and beat.rank != self.beat.rank and beat.host == self.beat.host:
            with contextlib.suppress(OSError):
                os.kill(beat.process, signal.SIGKILL)


ORDER = ("starting", "forward", "backward", "optimizer step", "between steps")


def rank_behind(statuses: list[RankStatus], late: float) -> RankStatus | None:
    """The rank the others wait for: one without heartbeats, else the one furthest behind.

    None where all are equally far.
    """
    silent = [each for each in statuses if each.silent > late]
    if silent:
        return min(silent, key=lambda each: (each.started, -each.silent, position(each)))
    places = {position(each) for each in statuses}
    return min(statuses, key=position) if len(places) > 1 else None


def position(status: RankStatus) -> tuple[int, int]:
    """Step and phase of a rank; the smallest holds up the others."""
    beat = status.beat
    return beat.step, ORDER.index(beat.doing) if beat.doing in ORDER else len(ORDER)
