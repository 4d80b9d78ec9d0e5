"""The work folder of a run: a stopped run resumes from it, and a run of other settings does not.

Each request (settings, catalog, parents) has a folder of its own beside its artifact. A folder of another
request beside it is reported and not touched.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only

from catalog.artifacts import StrPath, artifact_hash, request_hash
from catalog.atomic_write import replace_file
from catalog.checksums import dumps_with_checksum, loads_with_checksum
from catalog.errors import VitrineError
from catalog.nested import flatten
from pretrain.checkpoint_files import newest_checkpoint, read_checkpoint_manifest
from pretrain.request import result_settings

REQUEST_FILE = "request.json"
"""In a request's folder: its settings, catalog and parents, from which differences are reported."""
SHOWN = 4
"""Differences that are listed at most."""


def work_folder(
    output: Path,
    kind: str,
    config: Any,
    rows: str,
    *,
    catalog: str,
    parents: Mapping[str, StrPath] | None = None,
) -> Path:
    """The folder of this request, beside `output`; the other arguments are those of `write_artifact`.

    `rows` names the setting with each device's batch size. Another number of devices is the same request
    as long as the global batch is the same. Where it is not, and there is a checkpoint of another number
    of devices, VitrineError names the setting that resumes from it.

    Another `trainer.max_steps` resumes from the same checkpoints and says so on standard error: the
    learning rate follows the new length from there. VitrineError where the newest checkpoint is already
    past it. Where this request starts at step 0 beside checkpoints of another, they are reported with
    the settings that differ, and kept.
    """
    settings = asdict(config)
    home = output.with_name(output.name + ".work")

    def folder(devices: int) -> Path:
        result = result_settings(settings, devices)
        result["trainer"].pop("max_steps")
        return home / request_hash(kind, result, parents, catalog)[:12]

    devices = config.trainer.devices * config.trainer.nodes
    own = folder(devices)
    others = {
        other: checkpoint
        for other in sorted(home.glob("*"))
        if other != own and (checkpoint := newest_checkpoint(other)) is not None
    }
    for other, checkpoint in others.items():
        before: int = read_checkpoint_manifest(checkpoint)["world_size"]
        if folder(before) == other:
            raise _other_batch_size(checkpoint, before, devices, rows, settings)
    request = {
        "settings": result_settings(settings, devices),
        "catalog": catalog,
        "parents": {key: artifact_hash(parent) for key, parent in (parents or {}).items()},
    }
    _compare_lengths(own, request)
    if newest_checkpoint(own) is None:
        for other, checkpoint in others.items():
            _print_once(
                f"{other} holds {checkpoint.name} of another request ({_differences(other, request)}); "
                "it is kept, and this one begins at step 0: to resume it, use its settings again; to free "
                "space, remove the folder"
            )
    if _is_rank_zero():
        own.mkdir(parents=True, exist_ok=True)
        _write(own / REQUEST_FILE, dumps_with_checksum(request))
    return own


def _other_batch_size(
    checkpoint: Path, before: int, devices: int, rows: str, settings: Mapping[str, Any]
) -> VitrineError:
    """The error for a checkpoint of `before` devices whose global batch differs from that of `devices`."""
    section, _, name = rows.rpartition(".")
    each: int = (settings[section] if section else settings)[name]
    total = before * each
    remedy = (
        f"set --{rows} {total // devices}"
        if total % devices == 0
        else f"take a number of devices that divides {total}"
    )
    return VitrineError(
        f"{checkpoint} was trained with {before} × {each} rows a step, which {devices} × {each} "
        f"are not; {remedy} to go on from it, or remove {checkpoint.parents[1]} to start afresh"
    )


def _compare_lengths(own: Path, request: Mapping[str, Any]) -> None:
    """Reports that a run resumes from checkpoints of another `max_steps`, or raises where it cannot."""
    checkpoint, before = newest_checkpoint(own), _read_request(own)
    if checkpoint is None or before is None:
        return
    was, now = (each["settings"]["trainer"]["max_steps"] for each in (before, request))
    if was == now:
        return
    step = read_checkpoint_manifest(checkpoint)["step"]
    if step >= now:
        raise VitrineError(
            f"{checkpoint} is of a run of {was} steps, and trainer.max_steps is {now}; give more than "
            f"{step} to go on from it, or another --output, or remove {own} to start afresh"
        )
    _print_once(
        f"goes on from {checkpoint}, of a run of {was} steps, to {now}: the learning rate follows the "
        f"schedule of {now} steps from there, so the result is not that of one run of {now}"
    )


def _differences(other: Path, request: Mapping[str, Any]) -> str:
    """The settings that differ from those of the request in `other`: "data.rows 12 → 6, the catalog"."""
    before = _read_request(other)
    if before is None:
        return "its settings are not known any more"
    old, new = flatten(before["settings"]), flatten(request["settings"])
    differing = [
        f"{name} {old.get(name, 'unset')} → {new.get(name, 'unset')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    differing += ["the catalog"] if before["catalog"] != request["catalog"] else []
    old, new = before["parents"], request["parents"]
    differing += [
        f"the {name}" for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    ]
    named = ", ".join(differing[:SHOWN])
    return f"{named} and {len(differing) - SHOWN} more" if len(differing) > SHOWN else named


def _read_request(work: Path) -> dict[str, Any] | None:
    """The request of a folder; None where it cannot be read, as in folders of older versions."""
    try:
        return loads_with_checksum((work / REQUEST_FILE).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None


def _is_rank_zero() -> bool:
    """Whether this is rank zero, also before the process group exists."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def _print_once(line: str) -> None:
    if _is_rank_zero():
        print(f"vitrine: {line}", file=sys.stderr, flush=True)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf8")
    replace_file(partial, path)


def claim_work(work: Path, request: str) -> None:
    """Creates the folder for `request`; the folder of another request is renamed, and that is reported.

    It gets its name back when that request comes again.
    """
    request_file = work / "request.txt"
    before = request_file.read_text() if request_file.exists() else ""
    if work.exists() and before != request:
        aside = _aside(work, before)
        shutil.rmtree(aside, ignore_errors=True)
        work.rename(aside)
        _print_once(
            f"the unfinished run in {work} is of other settings or another catalog; it is kept in {aside}: "
            "to resume it, use its settings again; to free space, remove the folder"
        )
        if (same := _aside(work, request)).exists():
            same.rename(work)
    work.mkdir(parents=True, exist_ok=True)
    _write(request_file, request)


def check_claimed(work: Path, request: str, rank: int) -> None:
    """Raises VitrineError where a rank does not see the folder that rank zero has just claimed."""
    request_file = work / "request.txt"
    if not request_file.exists() or request_file.read_text() != request:
        raise VitrineError(
            f"rank {rank} does not find in {work.resolve()} what rank 0 has just written there; give all "
            "ranks one shared folder"
        )


def _aside(work: Path, request: str) -> Path:
    return work.with_name(f"{work.stem}.{request[:12] or 'unknown'}{work.suffix}")
