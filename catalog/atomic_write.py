"""Puts a folder in its place, all of it or nothing; knows nothing about what it holds."""

import contextlib
import glob
import os
import shutil
from pathlib import Path
from typing import NoReturn

from catalog.errors import VitrineError

PROGRESS_FILE = "VITRINE_PROGRESS_FILE"
"""Environment variable: path of the file that `signal_progress` touches."""


def staging_path(final: Path) -> Path:
    """Where this process writes what shall stand at `final`: beside it, so a rename suffices."""
    return final.with_name(f".{final.name}.partial-{os.getpid()}")


def remove_leftovers(final: Path) -> None:
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


def replace_folder(staging: Path, final: Path, marker: str) -> None:
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
    fsync_folder(final.parent)
    signal_progress()
    if occupied:
        shutil.rmtree(replaced)


def signal_progress() -> None:
    """Touches the file that the environment variable VITRINE_PROGRESS_FILE names, where it is set.

    Called whenever something was written that a resumed command continues from: a checkpoint, an
    artifact, a block. A batch script requeues a stopped job as long as each run makes progress.
    """
    path = os.environ.get(PROGRESS_FILE)
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


def fsync_tree(folder: Path) -> None:
    """Waits until every file and folder below has reached the disk."""
    for path in list_files(folder):
        fsync_file(path)
    fsync_folders(folder)


def fsync_folders(folder: Path) -> None:
    """Waits until the names in it, and in every folder below, have reached the disk."""
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        fsync_folder(inner)


def replace_file(partial: Path, final: Path) -> None:
    """Renames a file that was just written: after a power cut the old one is there, or all of this."""
    fsync_file(partial)
    partial.replace(final)
    fsync_folder(final.parent)


def fsync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_files(folder: Path) -> list[Path]:
    """Every file below the folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
