"""Writes files and folders atomically: staged beside the final path, fsynced, and renamed.

After a kill or a power cut the path holds either the old content or all of the new.
"""

import contextlib
import glob
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from catalog.errors import VitrineError

PROGRESS_FILE = "VITRINE_PROGRESS_FILE"
"""Environment variable: path of the file that `signal_progress` touches."""


@contextlib.contextmanager
def stage_folder(final: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `final`, to be renamed by `replace_folder` or `publish_first`.

    It is removed where the block raises, and so are staging folders of processes that were killed.
    `shared`: processes of several machines write beside `final`, so that others' folders stay.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    if shared:
        staging = final.with_name(f".{final.name}.partial-{platform.node()}-{os.getpid()}")
        shutil.rmtree(staging, ignore_errors=True)
    else:
        remove_leftovers(final)
        staging = final.with_name(f".{final.name}.partial-{os.getpid()}")
    staging.mkdir()
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def publish(staging: Path, final: Path) -> None:
    """Renames a file or folder that was fsynced to `final`, and fsyncs the folder that holds it."""
    staging.replace(final)
    fsync_folder(final.parent)


def publish_first(staging: Path, final: Path) -> None:
    """`publish`, unless another process has published the same content; then `staging` is removed."""
    try:
        publish(staging, final)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        if not final.exists():
            raise


def replace_file(partial: Path, final: Path) -> None:
    """Fsyncs a file that was just written and renames it to `final`, replacing an existing file."""
    fsync_file(partial)
    publish(partial, final)


def replace_folder(staging: Path, final: Path, marker: str) -> None:
    """Renames `staging`, which was fsynced, to `final`; the folder it replaces stays until then.

    Only a folder that holds a file `marker`, or nothing, is replaced. Otherwise the new folder is renamed
    to a free name beside it, which VitrineError reports.
    """
    replaced = final.with_name(f".{final.name}.replaced-{os.getpid()}")
    occupied = final.exists() and (not final.is_dir() or any(final.iterdir()))
    if occupied and not (final / marker).is_file():
        _keep_beside(staging, final)
    if occupied:
        final.rename(replaced)
    publish(staging, final)
    signal_progress()
    if occupied:
        shutil.rmtree(replaced)


def remove_leftovers(final: Path) -> None:
    """Removes staging folders of killed processes; restores a folder that was being replaced."""
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
            shutil.rmtree(left, ignore_errors=True)


def _belongs_to_other(left: Path) -> bool:
    """Whether a staging folder belongs to another process that is still alive."""
    pid = left.name.rpartition("-")[2]
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def signal_progress() -> None:
    """Touches the file that the environment variable VITRINE_PROGRESS_FILE names, where it is set.

    Called after each write of data that a resumed command continues from: a checkpoint, an artifact, a
    block. A batch script requeues a stopped job as long as each run makes progress.
    """
    path = os.environ.get(PROGRESS_FILE)
    if path:
        with contextlib.suppress(OSError):
            Path(path).touch()


def _keep_beside(staging: Path, final: Path) -> NoReturn:
    """Moves `staging` to a free name beside `final`, so that neither folder is lost; raises VitrineError."""
    number = 1
    while (kept := final.with_name(f"{final.name}.{number}")).exists():
        number += 1
    staging.rename(kept)
    raise VitrineError(
        f"{final} holds files that are no artifact, so it was not replaced; the new artifact is "
        f"kept at {kept}: move it, or choose another output."
    )


def fsync_tree(folder: Path) -> None:
    """Fsyncs every file and folder below, and the folder itself."""
    for path in list_files(folder):
        fsync_file(path)
    fsync_folders(folder)


def fsync_folders(folder: Path) -> None:
    """Fsyncs the folder and every folder below, but no file."""
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        fsync_folder(inner)


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
