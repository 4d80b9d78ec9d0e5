"""The checkpoints in a run's work folder: lists them, reads their manifests, removes them.

`launch.checkpoints` writes them.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from catalog.checksums import json_digest, loads_with_checksum
from catalog.errors import VitrineError

CHECKPOINT_NAME = r"step=(\d+)"
"""Pattern of a checkpoint folder's name."""
CHECKPOINT_MANIFEST = "checkpoint.json"
"""Manifest of a checkpoint: its step, number of ranks, strategy, and size and sha256 of each file."""


def list_checkpoints(work: Path) -> list[Path]:
    """The complete checkpoints, oldest first; VitrineError where the folder cannot be listed."""
    try:
        entries = list((work / "checkpoints").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # there may be checkpoints: the user decides whether to start again
        raise VitrineError(
            f"the checkpoints in {work} cannot be listed ({error}); make the folder readable, and start "
            "the same command again"
        ) from error
    steps = {
        path: int(match[1])
        for path in entries
        if (match := re.fullmatch(CHECKPOINT_NAME, path.name))
    }
    return sorted(steps, key=lambda path: steps[path])


def newest_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that has a valid manifest."""
    for path in reversed(list_checkpoints(work)):
        try:
            read_checkpoint_manifest(path)
        except (OSError, ValueError):
            continue
        return path
    return None


def read_checkpoint_manifest(checkpoint: Path) -> dict[str, Any]:
    """step, world_size, strategy and files of a checkpoint; ValueError where its checksum differs."""
    return loads_with_checksum((checkpoint / CHECKPOINT_MANIFEST).read_text(encoding="utf8"))


def checkpoint_digest(checkpoint: Path) -> str:
    """Sha256 of a checkpoint's manifest: equal where step, ranks and every file are equal.

    Raises ValueError as `read_checkpoint_manifest`.
    """
    return json_digest(read_checkpoint_manifest(checkpoint))


def remove_checkpoints(work: Path) -> None:
    """Removes a request's checkpoints, once its artifact is complete."""
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
