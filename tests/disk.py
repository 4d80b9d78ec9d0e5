"""What reaches the disk, and in which order: whether a power cut at any moment leaves old or new.

Two witnesses write the same list of events: `Recorder` inside a process, and strace outside of one.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch


@dataclass(frozen=True)
class Event:
    """A path that was flushed, or one that was renamed to `to`."""

    path: str
    to: str = ""
    seen: tuple[tuple[str, int, int], ...] = ()
    """In a process: each file below the path, its bytes and when it was last written, at that moment."""


class Recorder:
    """Notes every fsync and rename of this process while it is used."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @contextmanager
    def watching(self) -> Iterator["Recorder"]:
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def flush(descriptor: int) -> None:
            fsync(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            self.events.append(Event(path, seen=files_below(path)))

        def move(which: object, source: os.PathLike[str], target: os.PathLike[str]) -> None:
            path, to = os.path.realpath(source), os.path.realpath(target)
            self.events.append(Event(path, to, files_below(path)))
            (rename if which == "rename" else replace)(source, target)

        with (
            patch.object(os, "fsync", flush),
            patch.object(os, "rename", lambda *paths: move("rename", *paths)),
            patch.object(os, "replace", lambda *paths: move("replace", *paths)),
        ):
            yield self


def files_below(path: str) -> tuple[tuple[str, int, int], ...]:
    """(relative name, bytes, nanoseconds of the last write) of each; "." for a file itself."""
    place = Path(path)
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    return tuple(
        (os.path.relpath(each, place), each.stat().st_size, each.stat().st_mtime_ns)
        for each in files
    )


CALL = re.compile(
    r"(?:fsync|fdatasync)\(\d+<(?P<path>[^>]+)>\)|"
    r'rename(?:at2?)?\((?:AT_FDCWD(?:<[^>]*>)?, )?"(?P<old>[^"]+)", '
    r'(?:AT_FDCWD(?:<[^>]*>)?, )?"(?P<new>[^"]+)".*\) += 0'
)


def read_strace(text: str) -> list[Event]:
    """Of `strace -f -y -e trace=fsync,fdatasync,rename,renameat,renameat2`."""
    found = []
    for line in text.splitlines():
        if match := CALL.search(line):
            found.append(Event(match["path"] or match["old"], match["new"] or ""))
    return found


def faults(events: list[Event], final: Path) -> list[str]:
    """What is wrong about how `final`, which stands now, got there: "" of a file, names of a folder.

    Every file below was flushed before the rename and not written since; every folder was flushed
    after its last file; and the folder that holds the new name was flushed after the rename.
    """
    place = os.path.realpath(final)
    moves = [n for n, event in enumerate(events) if event.to == place]
    if not moves:
        return [f"nothing was renamed to {place}"]
    move = moves[-1]
    source, before, after = events[move].path, events[:move], events[move + 1 :]
    flushed = {event.path: n for n, event in enumerate(before) if not event.to}
    found = []
    for file in [final] if final.is_file() else [p for p in final.rglob("*") if p.is_file()]:
        name = os.path.relpath(file, final)
        path = source if name == "." else os.path.join(source, name)
        if path not in flushed:
            found.append(f"{name} was not flushed before the rename")
            continue
        seen = before[flushed[path]].seen
        then = {each: state for each, *state in events[move].seen}
        if seen and then and list(seen[0][1:]) != then[name]:
            found.append(f"{name} was written after it was flushed")
    if final.is_dir():
        folders = [final, *(p for p in final.rglob("*") if p.is_dir())]
        for folder in folders:
            path = os.path.normpath(os.path.join(source, os.path.relpath(folder, final)))
            if path not in flushed:
                found.append(f"the folder {folder.name} was not flushed before the rename")
                continue
            seen = before[flushed[path]].seen
            inside = {each for each, *_ in seen}
            names = {os.path.relpath(p, folder) for p in folder.rglob("*") if p.is_file()}
            if seen and not names <= inside:
                found.append(f"the folder {folder.name} was flushed before its last file")
    if os.path.dirname(place) not in {event.path for event in after if not event.to}:
        found.append("the folder that holds the new name was not flushed after the rename")
    return found
