"""Puts a folder in its place, all of it or nothing; knows nothing about what it holds."""

import contextlib
import glob
import os
import shutil
from pathlib import Path
from typing import NoReturn

from catalog.errors import VitrineError

KEPT = "VITRINE_KEPT"
"""Environment variable: the file that `note_kept` touches."""


def staging_path(final: Path) -> Path:
    """Where this process writes what shall stand at `final`: beside it, so a rename suffices."""
    return final.with_name(f".{final.name}.partial-{os.getpid()}")


def sweep(final: Path) -> None:
    """Removes what killed writers left, and puts back an artifact that was being replaced."""
    name = glob.escape(final.name)
    for left in final.parent.glob(f".{name}.replaced-*"):
        if _belongs_to_other(left):
            continue
        if final.exists():
            shutil.rmtree(left)
        else:
            left.rename(final)
    for left in final.parent.glob(f".{name}.partial-*"):
        if not _belongs_to_other(left):
            shutil.rmtree(left)


def _belongs_to_other(left: Path) -> bool:
    """Whether another process that is alive may still be writing it."""
    pid = left.name.rpartition("-")[2]
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def move_into_place(staging: Path, final: Path, marker: str) -> None:
    """Renames `staging` to `final`; what stood there stays until then.

    Only a folder that holds a file `marker` (or nothing) is replaced. Otherwise the new one is kept
    beside it under a number, and VitrineError says where.
    """
    replaced = final.with_name(f".{final.name}.replaced-{os.getpid()}")
    occupied = final.exists() and (not final.is_dir() or any(final.iterdir()))
    if occupied and not (final / marker).is_file():
        _keep_beside(staging, final)
    if occupied:
        final.rename(replaced)
    staging.rename(final)
    flush_folder(final.parent)
    note_kept()
    if occupied:
        shutil.rmtree(replaced)


def note_kept() -> None:
    """Something was written that the same command goes on from: a checkpoint, an artifact, a block.

    Touches the file that the environment variable VITRINE_KEPT names, if it does: a batch script queues
    a stopped job again as long as each run keeps something.
    """
    path = os.environ.get(KEPT)
    if path:
        with contextlib.suppress(OSError):
            Path(path).touch()


def _keep_beside(staging: Path, final: Path) -> NoReturn:
    """Neither the person's files nor hours of training are thrown away."""
    number = 1
    while (kept := final.with_name(f"{final.name}.{number}")).exists():
        number += 1
    staging.rename(kept)
    raise VitrineError(
        f"{final} holds files that are no artifact, so it was not replaced; the new artifact is "
        f"kept at {kept}: move it, or choose another output."
    )


def flush(folder: Path) -> None:
    """Waits until every file and folder below has reached the disk."""
    for path in files_in(folder):
        flush_file(path)
    flush_folders(folder)


def flush_folders(folder: Path) -> None:
    """Waits until the names in it, and in every folder below, have reached the disk."""
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        flush_folder(inner)


def replace_file(partial: Path, final: Path) -> None:
    """Renames a file that was just written: after a power cut the old one is there, or all of this."""
    flush_file(partial)
    partial.replace(final)
    flush_folder(final.parent)


def flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_in(folder: Path) -> list[Path]:
    """Every file below the folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
