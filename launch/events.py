"""The event log of a run: one line of JSON for each event, in `events.jsonl` beside the checkpoints.

    {"time": "2026-01-31T12:00:00.123+00:00", "rank": 0, "event": "checkpoint", "step": 500, …}

start (world_size, strategy), resume (step), checkpoint (step, seconds, bytes), fallback (a skipped
checkpoint, and why), skipped_step (its gradient was not finite), stop (signal), hang, end.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"


class Events:
    """Appends to the log of one run; ranks write to the same file, a line at a time."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.path = folder / EVENTS
        self.rank = rank

    def write(self, event: str, **facts: Any) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "rank": self.rank, "event": event, **facts}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write of a short line at the end of a file is never mixed with another's.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All events, oldest first; a truncated last line is skipped."""
    path = folder / EVENTS
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
