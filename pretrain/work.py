"""Where a stage keeps what is under way, so that a run that was stopped goes on, and no other does.

Each request (settings, catalog, parents) has a folder of its own beside the artifact it will become;
what lies there was made for it, and nothing needs to be compared again.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from catalog.artifacts import StrPath, request_hash
from catalog.errors import VitrineError
from catalog.seals import digest_of, unseal
from catalog.staging import flush_file

CHECKPOINT = r"step=(\d+)"
"""How the folder of a checkpoint is called."""
WRITTEN = "written.json"
"""In a checkpoint: its step, the ranks and strategy that wrote it, size and sha256 of each file."""

HOW_NOT_WHAT = {
    "": {"workers", "sample_every"},
    "data": {"workers", "encode_parts", "checkpoint_layers", "compile", "max_broken"},
    "trainer": {
        "accelerator",
        "checkpoint_aside",
        "checkpoint_every",
        "checkpoint_keep",
        "devices",
        "give_up_after",
        "hang_timeout",
        "log_every",
        "log_to",
        "nodes",
        "progress",
        "strategy",
    },
}
"""Settings, by section, that change how a run goes, but not what it learns."""


def work_folder(
    output: Path,
    kind: str,
    config: Any,
    rows: str,
    *,
    catalog: str,
    parents: Mapping[str, StrPath] | None = None,
) -> Path:
    """The folder of this request, beside `output`; the rest is that of `write_artifact`.

    `rows` names the setting that says what each device reads in a step. Another number of devices is
    the same request as long as all of them together read the same. Where they do not, and a checkpoint
    of fewer or more devices is waiting, VitrineError says so: to start afresh would throw it away.
    """
    settings = asdict(config)
    section, _, name = rows.rpartition(".")
    each: int = (settings[section] if section else settings)[name]

    def folder(devices: int) -> Path:
        asked = what_is_learned(settings)
        (asked[section] if section else asked)[name] = each * devices
        request = request_hash(kind, asked, parents, catalog)
        return output.with_name(output.name + ".work") / request[:12]

    devices = config.trainer.devices * config.trainer.nodes
    mine = folder(devices)
    for other in mine.parent.glob("*"):
        checkpoint = None if other == mine else newest_checkpoint(other)
        if checkpoint is None:
            continue
        before: int = written(checkpoint)["world_size"]
        if folder(before) == other:
            total = before * each
            remedy = (
                f"set --{rows} {total // devices}"
                if total % devices == 0
                else f"take a number of devices that divides {total}"
            )
            raise VitrineError(
                f"{checkpoint} was trained with {before} × {each} rows a step, which {devices} × {each} "
                f"are not; {remedy} to go on from it, or remove {other} to start afresh"
            )
    return mine


def claim_work(work: Path, request: str) -> None:
    """Makes the folder for `request`; what was begun there for another is thrown away."""
    told = work / "request.txt"
    if work.exists() and (not told.exists() or told.read_text() != request):
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    partial = work / f"request.{os.getpid()}"
    partial.write_text(request)
    flush_file(partial)
    partial.replace(told)


def clear_work(work: Path) -> None:
    """Removes every checkpoint beside an artifact that now stands."""
    for checkpoints in work.parent.glob("*/checkpoints"):
        shutil.rmtree(checkpoints)


def checkpoints_in(work: Path) -> list[Path]:
    """Those that were renamed into place, oldest first; OSError where the folder cannot be read."""
    try:
        found = list((work / "checkpoints").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    steps = {
        path: int(match[1]) for path in found if (match := re.fullmatch(CHECKPOINT, path.name))
    }
    return sorted(steps, key=lambda path: steps[path])


def newest_checkpoint(work: Path) -> Path | None:
    """The newest in a folder that says what it is."""
    for path in reversed(checkpoints_in(work)):
        try:
            written(path)
        except (OSError, ValueError):
            continue
        return path
    return None


def written(checkpoint: Path) -> dict[str, Any]:
    """When and by whom a checkpoint was written: step, world_size, strategy, files.

    ValueError where it does not say what it said when it was written.
    """
    return unseal((checkpoint / WRITTEN).read_text(encoding="utf8"))


def seal_of(checkpoint: Path) -> str:
    """Sha256 of what a checkpoint says of itself: equal where step, ranks and every file are.

    ValueError as `written`.
    """
    return digest_of(written(checkpoint))


def what_is_learned(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the settings without those that only say how."""
    kept = {name: value for name, value in settings.items() if name not in HOW_NOT_WHAT[""]}
    for section in kept.keys() & HOW_NOT_WHAT.keys():
        left_out = HOW_NOT_WHAT[section]
        kept[section] = {n: v for n, v in kept[section].items() if n not in left_out}
    return kept
