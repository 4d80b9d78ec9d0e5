"""Shows progress of long work: a progress bar in a terminal, periodic lines elsewhere.

Knows nothing about training, and imports no torch.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

Item = TypeVar("Item")
SECONDS_BETWEEN_REFRESHES = 0.25
SECONDS_BETWEEN_LINES = 10.0
LISTENERS: list[Callable[[], None]] = []
"""Called whenever tracked work advances; the watchdog listens for it."""


class ProgressDisplay:
    """Shows the progress of a known number of steps on standard error, from creation until `close`."""

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        console: Console | None = None,
        transient: bool = False,
    ) -> None:
        """`transient`: the bar is removed when it is full."""
        self.title, self.total, self.first = title, total, done
        self.started = self.shown = time.monotonic()
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
            status = TextColumn("{task.fields[status]}")
            self.bar = Progress(*columns, status, console=self.console, transient=transient)
            self.bar.start()
            self.task: TaskID = self.bar.add_task(title, total=total, completed=done, status="")

    @property
    def seconds(self) -> float:
        """Seconds since creation."""
        return max(time.monotonic() - self.started, 1e-9)

    def is_due(self, step: int) -> bool:
        """Whether `show` should be called now, since its figures may be expensive to compute."""
        pause = SECONDS_BETWEEN_REFRESHES if self.bar else SECONDS_BETWEEN_LINES
        return step >= self.total or time.monotonic() - self.shown >= pause

    def show(self, step: int, *figures: str) -> None:
        """Shows the step, the figures and the estimated time left."""
        self.shown = time.monotonic()
        parts = [*figures]
        if step >= self.total:
            parts.append(f"took {duration(self.seconds)}")
        elif step > self.first:
            left = self.seconds / (step - self.first) * (self.total - step)
            parts.append(f"{duration(left)} left")
        status = " · ".join(parts)
        if self.bar:
            self.bar.update(self.task, completed=step, status=status)
        else:
            line = f"{self.title}: step {step}/{self.total} · {status}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()


def track(items: Sequence[Item], title: str, *, shown: bool = True) -> Iterator[Item]:
    """Yields the items and shows progress; work that ends within seconds prints no line."""
    if not shown or not len(items):
        for item in items:
            yield item
            _notify()
        return
    display = ProgressDisplay(title, len(items), transient=True)
    has_bar = display.bar is not None
    try:
        for place, item in enumerate(items):
            yield item
            _notify()
            late = display.seconds >= SECONDS_BETWEEN_LINES
            if display.is_due(place + 1) and (has_bar or late):
                display.show(place + 1)
    finally:
        display.close()


def _notify() -> None:
    for listener in LISTENERS:
        listener()


def duration(seconds: float) -> str:
    """75 → '1:15', 3700 → '1:01:40'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
