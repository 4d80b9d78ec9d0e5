"""Checks of the output folder: space, durability, speed, rename, locks, clock and limits."""

import fcntl
import mmap
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launch.checks import CheckResult

GB = 1e9
LITTLE_SPACE, NO_SPACE = 20 * GB, 2 * GB
LITTLE_SHARED_MEMORY = 1 * GB
FEW_FILES = 4096
SLOW = 20e6
"""Bytes a second."""
PROBE = 16_000_000
SKEW = 5
"""Seconds between two clocks."""
EPHEMERAL = {
    "tmpfs": "it lies in memory, and is gone with the machine",
    "ramfs": "it lies in memory, and is gone with the machine",
    "overlay": "it lies in the container's own layer, and is gone with it",
}
MOUNTS = Path("/proc/self/mounts")


def space(work: Path) -> Iterator[CheckResult]:
    from catalog.cache import cache_folder

    for what, folder in (("space for runs", work), ("space for the cache", cache_folder())):
        disk = os.statvfs(existing(folder))
        free = disk.f_bavail * disk.f_frsize
        message = f"{free / GB:.1f} GB free at {folder}"
        remedy = "make room, or another --work; $VITRINE_CACHE moves the cache"
        if free < NO_SPACE:
            yield CheckResult("fail", what, message, remedy)
        elif free < LITTLE_SPACE:
            yield CheckResult("warn", what, f"{message}; checkpoints take more", remedy)
        elif disk.f_files and not disk.f_favail:
            yield CheckResult("fail", what, f"no more files can be made at {folder}", remedy)
        else:
            yield CheckResult("ok", what, message)


def durability(work: Path) -> Iterator[CheckResult]:
    """Whether files there outlive the machine or the container."""
    kind = filesystem(existing(work))
    if kind in EPHEMERAL:
        message = f"{work} is {kind}: {EPHEMERAL[kind]}"
        yield CheckResult("warn", "file system", message, "a volume or a disk for --work")
    else:
        yield CheckResult("ok", "file system", f"{work} is {kind}")


def speed(work: Path) -> Iterator[CheckResult]:
    with _probe(work) as path:
        content = os.urandom(PROBE)
        started = time.perf_counter()
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        rate = PROBE / (time.perf_counter() - started)
    message = f"{rate / 1e6:,.0f} MB/s to {work}"
    if rate < SLOW:
        yield CheckResult("warn", "writing", message, "a faster disk, or a larger checkpoint_every")
    else:
        yield CheckResult("ok", "writing", message)


def sharing(work: Path) -> Iterator[CheckResult]:
    """What artifacts and caches need: atomic rename, file locks, memory-mapped files."""
    promises: dict[str, Callable[[Path], bool]] = {
        "rename": _renames,
        "locks": _locks,
        "mapped files": _maps,
    }
    for what, holds in promises.items():
        with _probe(work) as path:
            try:
                problem = "" if holds(path) else "does not do what it should"
            except OSError as error:
                problem = str(error)
        if problem:
            message = f"{what} at {work}: {problem}"
            yield CheckResult(
                "fail", what, message, "another file system for --work (not FUSE on objects)"
            )
        else:
            yield CheckResult("ok", what, f"as they should be at {work}")


def clock(work: Path) -> Iterator[CheckResult]:
    """Skew between the clocks of this machine and of the file system."""
    with _probe(work) as path:
        path.write_bytes(b"now")
        skew = abs(path.stat().st_mtime - time.time())
    if skew > SKEW:
        message = f"{skew:.0f} s between this machine and the file system at {work}"
        yield CheckResult(
            "warn", "clock", message, "NTP (chrony, timedatectl set-ntp true) on both"
        )
    else:
        yield CheckResult("ok", "clock", f"{skew:.1f} s from that of the file system at {work}")


def limits() -> Iterator[CheckResult]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= files < FEW_FILES:
        yield CheckResult("warn", "open files", f"at most {files}", "ulimit -n 65536")
    else:
        yield CheckResult("ok", "open files", f"at most {files}")
    shared = os.statvfs("/dev/shm")
    size = shared.f_blocks * shared.f_frsize
    message = f"/dev/shm has {size / GB:.2f} GB"
    if size < LITTLE_SHARED_MEMORY:
        remedy = "docker --shm-size 8g, or --data.workers 0"
        yield CheckResult("warn", "shared memory", f"{message}; loader processes fill it", remedy)
    else:
        yield CheckResult("ok", "shared memory", message)


def existing(folder: Path) -> Path:
    """The folder, or its nearest existing parent."""
    folder = folder.resolve()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def filesystem(folder: Path) -> str:
    """File system type of the innermost mount that holds a folder."""
    best, kind = "", "of an unknown kind"
    for line in MOUNTS.read_text().splitlines():
        _, point, name, *_ = line.split()
        point = point.encode().decode("unicode_escape")  # \040 is a space
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind


class _probe:
    """Context manager: a temporary file path in the folder, removed afterwards."""

    def __init__(self, work: Path) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix=".vitrine-doctor-", dir=existing(work))

    def __enter__(self) -> Path:
        return Path(self.folder.name) / "probe"

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


def _renames(path: Path) -> bool:
    replacement = path.with_name("replacement")
    path.write_bytes(b"old")
    replacement.write_bytes(b"new")
    with path.open("rb") as opened:
        os.replace(replacement, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return opened.read() == b"old" and path.read_bytes() == b"new" and not replacement.exists()


def _locks(path: Path) -> bool:
    with path.open("w") as first, path.open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _maps(path: Path) -> bool:
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        mapped[0] = 7
        mapped.flush()
    return path.read_bytes()[0] == 7
