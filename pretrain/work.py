"""Where a stage keeps what is under way, so that a run that was stopped goes on, and no other does.

Each request (settings, catalog, parents) has a folder of its own beside the artifact it will become;
what lies there was made for it. What another request left beside it is told of, and kept.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only

from catalog.artifacts import StrPath, artifact_hash, request_hash
from catalog.atomic_write import replace_file
from catalog.checksums import dumps_with_checksum, json_digest, loads_with_checksum
from catalog.errors import VitrineError

CHECKPOINT = r"step=(\d+)"
"""How the folder of a checkpoint is called."""
WRITTEN = "written.json"
"""In a checkpoint: its step, the ranks and strategy that wrote it, size and sha256 of each file."""

REQUEST = "request.json"
"""In a request's folder: its settings, catalog and parents, to say what another one has otherwise."""
SHOWN = 4
"""Differences that are named."""

PLACES = {"encoder", "generator", "image", "recommender", "text", "vectors"}
"""Settings that may name the folder of something made before; that is compared by its hash, as a
parent, and vectors by those of the encoder and the catalog they were made from."""
RUNTIME_ONLY_SETTINGS = {
    "": {"workers", "sample_every"},
    "catalog": {"path"},
    "data": {"workers", "num_micro_batches", "activation_checkpointing", "compile", "max_broken"},
    "trainer": {
        "accelerator",
        "async_checkpoint",
        "checkpoint_every",
        "checkpoint_keep",
        "devices",
        "max_nonfinite_steps",
        "hang_timeout",
        "log_every",
        "log_to",
        "nodes",
        "progress",
        "strategy",
    },
}
"""Settings, by section, that say how a run goes or where things lie, but not what it learns: a catalog
counts by its fingerprint."""


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
    of fewer or more devices is waiting, VitrineError says so.

    Another `trainer.max_steps` goes on from the same checkpoints, and says so on standard error: the
    learning rate follows the new length from there. VitrineError where the newest one is already past
    it. Where this request begins at step 0 beside checkpoints of another, what lies there and what
    differs is said too; it stays.
    """
    settings = asdict(config)
    section, _, name = rows.rpartition(".")
    each: int = (settings[section] if section else settings)[name]
    home = output.with_name(output.name + ".work")

    def folder(devices: int) -> Path:
        learned = what_is_learned(settings, devices)
        learned["trainer"].pop("max_steps")
        return home / request_hash(kind, learned, parents, catalog)[:12]

    devices = config.trainer.devices * config.trainer.nodes
    mine = folder(devices)
    others = [other for other in sorted(home.glob("*")) if other != mine]
    waiting = {
        other: checkpoint
        for other in others
        if (checkpoint := newest_checkpoint(other)) is not None
    }
    for other, checkpoint in waiting.items():
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
    request = {
        "settings": what_is_learned(settings, devices),
        "catalog": catalog,
        "parents": {key: artifact_hash(parent) for key, parent in (parents or {}).items()},
    }
    _compare_lengths(mine, request)
    if newest_checkpoint(mine) is None:
        for other, checkpoint in waiting.items():
            _tell(
                f"{other} holds {checkpoint.name} of another request ({_differences(other, request)}); "
                "it is kept, and this one begins at step 0: ask as before to go on from it, or remove "
                "the folder"
            )
    if _first_process():
        mine.mkdir(parents=True, exist_ok=True)
        _write(mine / REQUEST, dumps_with_checksum(request))
    return mine


def _compare_lengths(mine: Path, request: Mapping[str, Any]) -> None:
    """Says that checkpoints of a shorter or longer run are gone on from, or why they cannot be."""
    checkpoint, before = newest_checkpoint(mine), _read_request(mine)
    if checkpoint is None or before is None:
        return
    was, now = (each["settings"]["trainer"]["max_steps"] for each in (before, request))
    if was == now:
        return
    step = written(checkpoint)["step"]
    if step >= now:
        raise VitrineError(
            f"{checkpoint} is of a run of {was} steps, and trainer.max_steps is {now}; give more than "
            f"{step} to go on from it, or another --output, or remove {mine} to start afresh"
        )
    _tell(
        f"goes on from {checkpoint}, of a run of {was} steps, to {now}: the learning rate follows the "
        f"schedule of {now} steps from there, so the result is not that of one run of {now}"
    )


def _differences(other: Path, request: Mapping[str, Any]) -> str:
    """What the request that lies there has otherwise: "data.rows 12 → 6, the catalog"."""
    before = _read_request(other)
    if before is None:
        return "its settings are not known any more"
    old, new = _flat(before["settings"]), _flat(request["settings"])
    told = [
        f"{name} {old.get(name, 'unset')} → {new.get(name, 'unset')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    told += ["the catalog"] if before["catalog"] != request["catalog"] else []
    old, new = before["parents"], request["parents"]
    told += [f"the {name}" for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    shown = ", ".join(told[:SHOWN])
    return f"{shown} and {len(told) - SHOWN} more" if len(told) > SHOWN else shown


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _read_request(work: Path) -> dict[str, Any] | None:
    """What the folder was made for; None where that cannot be read, as in folders of older versions."""
    try:
        return loads_with_checksum((work / REQUEST).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None


def _first_process() -> bool:
    """Whether this is rank zero, also before ranks can talk."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def _tell(line: str) -> None:
    if _first_process():
        print(f"vitrine: {line}", file=sys.stderr, flush=True)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf8")
    replace_file(partial, path)


def claim_work(work: Path, request: str) -> None:
    """Makes the folder for `request`; what was begun there for another is put aside, and said.

    It is taken back when that is asked for again.
    """
    told = work / "request.txt"
    before = told.read_text() if told.exists() else ""
    if work.exists() and before != request:
        aside = _aside(work, before)
        shutil.rmtree(aside, ignore_errors=True)
        work.rename(aside)
        _tell(
            f"what was begun in {work} was for other settings or another catalog; it is kept in {aside} "
            "until those are asked for again, or you remove it"
        )
        if (same := _aside(work, request)).exists():
            same.rename(work)
    work.mkdir(parents=True, exist_ok=True)
    _write(told, request)


def check_claimed(work: Path, request: str, rank: int) -> None:
    """VitrineError where a rank does not see the folder that rank zero has just claimed for all."""
    told = work / "request.txt"
    if not told.exists() or told.read_text() != request:
        raise VitrineError(
            f"rank {rank} does not find in {work.resolve()} what rank 0 has just written there; give all "
            "ranks one shared folder"
        )


def _aside(work: Path, request: str) -> Path:
    return work.with_name(f"{work.stem}.{request[:12] or 'unknown'}{work.suffix}")


def clear_work(work: Path) -> None:
    """Removes a request's checkpoints, for its artifact now stands."""
    shutil.rmtree(work / "checkpoints", ignore_errors=True)


def checkpoints_in(work: Path) -> list[Path]:
    """Those that were renamed into place, oldest first; VitrineError where they cannot be listed."""
    try:
        found = list((work / "checkpoints").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # not the same as none: to start afresh is for a person to say
        raise VitrineError(
            f"the checkpoints in {work} cannot be listed ({error}); make the folder readable, and start "
            "the same command again"
        ) from error
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
    return loads_with_checksum((checkpoint / WRITTEN).read_text(encoding="utf8"))


def seal_of(checkpoint: Path) -> str:
    """Sha256 of what a checkpoint says of itself: equal where step, ranks and every file are.

    ValueError as `written`.
    """
    return json_digest(written(checkpoint))


def learned_request(
    kind: str,
    settings: Mapping[str, Any],
    parents: Mapping[str, StrPath] | None = None,
    catalog: str = "",
) -> str:
    """`request_hash` of what decides about the result: equal where the same would be learned again.

    Where things lie, devices and how often something is logged do not; what the parents and the catalog
    hold does.
    """
    return request_hash(kind, what_is_learned(settings), parents, catalog)


def what_is_learned(settings: Mapping[str, Any], devices: int = 0) -> dict[str, Any]:
    """A copy of the settings without those that only say how, or where.

    Rows are those of all devices together: of `devices`, or of as many as the settings say.
    """
    kept = {
        name: value for name, value in settings.items() if name not in RUNTIME_ONLY_SETTINGS[""]
    }
    for section in kept.keys() & RUNTIME_ONLY_SETTINGS.keys():
        left_out = RUNTIME_ONLY_SETTINGS[section]
        kept[section] = {n: v for n, v in kept[section].items() if n not in left_out}
    for name in PLACES & kept.keys():
        if isinstance(kept[name], str):
            kept[name] = bool(kept[name])
    if trainer := settings.get("trainer"):
        devices = devices or trainer["devices"] * trainer["nodes"]
        if "rows" in kept.get("data", ()):
            kept["data"]["rows"] *= devices
        elif "batch_size" in kept:
            kept["batch_size"] *= devices
    return kept
