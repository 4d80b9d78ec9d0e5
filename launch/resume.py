"""Chooses the checkpoint a run resumes from, on all ranks alike.

Rank zero chooses; every other rank must hold the same one, whole, in its own view of the folder.
Ranks that resumed at different steps would end without an error, with meaningless weights.
"""

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from catalog.errors import AllRanksError, VitrineError
from launch.checkpoints import checkpoint_fault, newest_valid_checkpoint
from launch.events import Events
from pretrain.checkpoint_files import checkpoint_digest, list_checkpoints, read_checkpoint_manifest
from pretrain.distributed import gather_objects, world


@dataclass(frozen=True)
class Choice:
    """The checkpoint rank zero resumes from; `step` None: none. `error`: why it cannot choose one."""

    folder: str
    name: str = ""
    step: int | None = None
    seal: str = ""
    error: str = ""


def choose_checkpoint(work: Path, events: Events | None = None) -> Path | None:
    """The newest valid checkpoint of `work` as rank zero sees it, which every rank holds; None: none.

    Called by all ranks once they are connected. AllRanksError, on every rank, where rank zero finds
    checkpoints of which none is sound, and where a rank holds another one, a damaged one or none.
    """
    rank, ranks = world()
    if ranks == 1:
        return newest_valid_checkpoint(work, events)
    mine = _choice(work, events) if rank == 0 else Choice("")
    choice = gather_objects(mine)[0]
    problem = choice.error or _difference(work, choice)
    if problem and not choice.error:
        problem = f"rank {rank} ({platform.node()}) {problem}"
    problems = [problem for problem in gather_objects(problem) if problem]
    if problems:
        if rank == 0:
            print(f"vitrine: {problems[0]}", file=sys.stderr, flush=True)
        dist.barrier()  # no rank's end may cut rank zero's line short
        raise AllRanksError(problems[0])
    return None if choice.step is None else work / "checkpoints" / choice.name


def _choice(work: Path, events: Events | None) -> Choice:
    folder = str(work.resolve())
    try:
        checkpoint = newest_valid_checkpoint(work, events)
        if checkpoint is None:
            return Choice(folder)
        return Choice(
            folder,
            checkpoint.name,
            read_checkpoint_manifest(checkpoint)["step"],
            checkpoint_digest(checkpoint),
        )
    except VitrineError as error:
        return Choice(folder, error=str(error))


def _difference(work: Path, choice: Choice) -> str:
    """How this rank's view of the folder differs from rank zero's; "" where it does not."""
    remedy = "give all ranks one shared folder, in which all see the same, and start the same command again"
    folder = work.resolve()
    try:
        held = [path.name for path in list_checkpoints(work)]
    except VitrineError as error:
        return f"cannot go on: {error}"
    if choice.step is None:
        if not held:
            return ""
        return (
            f"holds {held[-1]} in {folder}, but rank 0 begins at step 0, without a checkpoint in "
            f"{choice.folder}; {remedy}"
        )
    resumes = f"rank 0 resumes at step {choice.step} from {choice.folder}"
    if choice.name not in held:
        held_here = f"only {', '.join(held)}" if held else "no checkpoint"
        return f"holds {held_here} in {folder}, but {resumes}; {remedy}"
    checkpoint = work / "checkpoints" / choice.name
    fault = checkpoint_fault(checkpoint)
    if fault:
        return f"cannot use {checkpoint}: {fault}; {resumes}; {remedy}"
    if (seal := checkpoint_digest(checkpoint)) != choice.seal:
        return (
            f"holds another {choice.name} in {folder} (seal {seal[:12]}…) than rank 0 in "
            f"{choice.folder} (seal {choice.seal[:12]}…); {remedy}"
        )
    return ""
