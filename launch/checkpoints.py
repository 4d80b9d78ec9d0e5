"""Writes checkpoints atomically, and makes the randomness of a step independent of earlier steps.

A run that resumes from a checkpoint equals the uninterrupted one, to the bit. A checkpoint is written
under a temporary name, hashed, flushed and renamed. The previous one is kept as well, so that a disk
error costs some steps and not the run.
"""

import re
import shutil
import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.utils._pytree import tree_map_only
from typing_extensions import override

from catalog.atomic_write import fsync_file, fsync_folders, publish, signal_progress
from catalog.checksums import Checksums, checksum_mismatch, compute_checksums, dumps_with_checksum
from catalog.errors import VitrineError
from launch.events import Events
from launch.graceful_stop import GracefulStop
from launch.strategies import kind_of
from pretrain.checkpoint_files import (
    CHECKPOINT_MANIFEST,
    CHECKPOINT_NAME,
    list_checkpoints,
    read_checkpoint_manifest,
)
from pretrain.distributed import gather_objects, world

STATE = "state"
"""Name in a checkpoint of Lightning's file, or under ZeRO of DeepSpeed's folder."""
PARTIAL, GONE, CORRUPT = ".partial", ".gone", ".corrupt"
"""Suffixes of checkpoint folders: incomplete; about to be removed; corrupt."""


class Checkpoints(Checkpoint):
    """Writes a checkpoint `checkpoints/step=N` every `every` steps (0: never) and keeps the newest `keep`.

    They hold no frozen weights where the module sets `frozen_is_unchanged`: a resumed run loads those as
    it did at first, and beside an adapter of a few MB they would be gigabytes.

    `background`: without ZeRO, a copy of the state is written by a thread while training goes on.

    Lightning calls callbacks of this kind last, when all others have seen the step.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        keep: int,
        stop: GracefulStop,
        events: Events,
        background: bool = False,
    ) -> None:
        self.folder = folder / "checkpoints"
        self.every = every
        self.keep = keep
        self.stop = stop
        self.events = events
        self.background = background
        self.writer: threading.Thread | None = None
        self.fault: BaseException | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.excludes_frozen = getattr(pl_module, "frozen_is_unchanged", False)
        pl_module.strict_loading = not self.excludes_frozen  # `on_load_checkpoint` checks the rest
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            trainer.strategy.exclude_frozen_parameters = self.excludes_frozen

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for name in frozen_names(pl_module) if self.excludes_frozen else ():
            checkpoint.get("state_dict", {}).pop(name, None)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self.excludes_frozen or "state_dict" not in checkpoint:
            return  # Lightning or DeepSpeed are strict themselves
        expected = pl_module.state_dict().keys() - frozen_names(pl_module)
        different = expected ^ (checkpoint["state_dict"].keys() - frozen_names(pl_module))
        if different:
            raise RuntimeError(f"the checkpoint is of other weights: {sorted(different)[:3]}")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.latest = trainer.global_step
        if trainer.is_global_zero:
            clean_up(self.folder, self.latest)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        step = trainer.global_step
        if step == self.latest:  # between accumulated batches, or skipped
            return
        stopping = self.stop.agreed
        if self.every and (step % self.every == 0 or stopping):
            self._write(trainer, step, background=self.background and not stopping)
            self.latest = step
        if stopping:
            self._finish()
            raise self.stop.stopped(trainer, step, written=bool(self.every))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self.writer is not None:  # the checkpoint in progress is completed
            self.writer.join()

    def _finish(self) -> None:
        """Waits for the checkpoint being written; raises its error."""
        if self.writer is not None:
            self.writer.join()
            self.writer = None
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    def _write(self, trainer: pl.Trainer, step: int, background: bool) -> None:
        self._finish()
        started = perf_counter()
        final = self.folder / f"step={step}"
        partial = final.with_name(final.name + PARTIAL)
        facts = {
            "step": step,
            "world_size": trainer.world_size,
            "strategy": kind_of(trainer.strategy),
        }
        io = trainer.strategy.checkpoint_io
        shared = isinstance(trainer.strategy, DeepSpeedStrategy)
        if isinstance(io, StateFile):
            io.holds_copy = background
        with report_write_errors(partial, self.folder, trainer):
            if trainer.is_global_zero:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            trainer.strategy.barrier()
            trainer.save_checkpoint(partial / STATE)  # all ranks have written when it returns
            if background:
                if isinstance(io, StateFile) and trainer.is_global_zero:
                    what = (io.held_state, partial, final, facts, trainer, started)
                    self.writer = threading.Thread(target=self._write_in_background, args=what)
                    self.writer.start()
                return
            sums: Checksums = {}
            if shared or trainer.is_global_zero:
                sums = checksums_over_ranks(partial) if shared else compute_checksums(partial)
            if trainer.is_global_zero:
                self._complete(partial, final, {**facts, "files": sums}, started)
        trainer.strategy.barrier()

    def _write_in_background(
        self,
        state: dict[str, Any],
        partial: Path,
        final: Path,
        facts: dict[str, Any],
        trainer: pl.Trainer,
        started: float,
    ) -> None:
        try:
            with report_write_errors(partial, self.folder, trainer):
                save_state(state, partial / STATE)
                self._complete(
                    partial, final, {**facts, "files": compute_checksums(partial)}, started
                )
        except BaseException as fault:
            self.fault = fault

    def _complete(self, partial: Path, final: Path, facts: dict[str, Any], started: float) -> None:
        (partial / CHECKPOINT_MANIFEST).write_text(dumps_with_checksum(facts), encoding="utf8")
        fsync_file(partial / CHECKPOINT_MANIFEST)
        fsync_folders(partial)
        if final.exists():
            remove(final)
        publish(partial, final)
        for older in list_checkpoints(self.folder.parent)[: -self.keep]:
            remove(older)
        signal_progress()
        total = sum(size for size, _ in facts["files"].values())
        seconds = round(perf_counter() - started, 3)
        self.events.write("checkpoint", step=facts["step"], seconds=seconds, bytes=total)


class StateFile(TorchCheckpointIO):
    """Reads and writes the state of a checkpoint; or holds a copy of it, for a background thread to write.

    A file may come from anywhere, so only tensors and plain values are loaded.
    """

    holds_copy = False
    held_state: dict[str, Any]

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if self.holds_copy:
            self.held_state = tree_map_only(Tensor, lambda x: x.detach().cpu().clone(), checkpoint)
        else:
            save_state(checkpoint, Path(path))

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Writes the state; `catalog.checksums.compute_checksums` flushes it to the disk."""
    with path.open("wb") as file:
        torch.save(state, file)


def checksums_over_ranks(folder: Path) -> Checksums:
    """Checksums of all files below `folder`, the ranks sharing the work."""
    shares = gather_objects(compute_checksums(folder, *world()))
    return {name: facts for share in shares for name, facts in share.items()}


def checkpoint_fault(checkpoint: Path) -> str:
    """Why a checkpoint is invalid, in a few words; "" where it is valid."""
    try:
        return checksum_mismatch(checkpoint, read_checkpoint_manifest(checkpoint)["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{CHECKPOINT_MANIFEST} cannot be read ({type(error).__name__})"


def newest_valid_checkpoint(work: Path, events: Events | None = None) -> Path | None:
    """The newest valid checkpoint; invalid ones that it skips are reported.

    VitrineError where there are checkpoints but none is valid, or where they cannot be listed: the user
    decides whether to start from step 0.
    """
    found = list_checkpoints(work)
    faults = []
    for checkpoint in reversed(found):
        fault = checkpoint_fault(checkpoint)
        if not fault:
            return checkpoint
        faults.append(f"{checkpoint}: {fault}")
        if events is not None:
            events.write("fallback", skipped=checkpoint.name, why=fault)
            print(f"vitrine: skipped a corrupt checkpoint, {faults[-1]}", file=sys.stderr)
    if found:
        raise VitrineError(
            f"no checkpoint in {work} is what was written ({'; '.join(faults)}); remove the folder to "
            "start afresh"
        )
    return None


def clean_up(folder: Path, step: int) -> None:
    """Removes partial checkpoints; renames checkpoints newer than the resumed step to `.corrupt`."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = re.fullmatch(CHECKPOINT_NAME, path.name)
        if match is None:
            shutil.rmtree(path, ignore_errors=True)
        elif int(match[1]) > step:
            path.rename(path.with_name(path.name + CORRUPT))


def remove(checkpoint: Path) -> None:
    """Renames the checkpoint before deleting it, so that a half-deleted one is never read."""
    gone = checkpoint.with_name(checkpoint.name + GONE)
    shutil.rmtree(gone, ignore_errors=True)
    checkpoint.rename(gone)
    shutil.rmtree(gone)


class report_write_errors:
    """Context manager: reports in one line why a checkpoint could not be written, with the bytes needed."""

    def __init__(self, partial: Path, folder: Path, trainer: pl.Trainer) -> None:
        self.partial = partial
        self.folder = folder
        self.trainer = trainer

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, OSError | RuntimeError):
            return
        free = shutil.disk_usage(self.folder).free
        needed = state_bytes(self.trainer)
        reason = first_cause(error, OSError)
        if reason is None and free >= needed:
            return
        if self.trainer.is_global_zero:
            shutil.rmtree(self.partial, ignore_errors=True)
        found = list_checkpoints(self.folder.parent)
        fallback = f"{found[-1].name} stands" if found else "there is none before it"
        raise VitrineError(
            f"cannot write the checkpoint {self.partial.with_suffix('')}: {reason or error}; it needs about "
            f"{needed:,} bytes, and {free:,} are free; {fallback}; make room, and start the same command "
            "again"
        ) from error


def first_cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The first error of type `kind` in the chain of causes."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def state_bytes(trainer: pl.Trainer) -> int:
    """Approximate bytes of a rank's state: trained weights and optimiser state."""
    module = trainer.lightning_module
    tensors = [p for p in module.parameters() if p.requires_grad]
    for optimizer in trainer.optimizers:
        for state in getattr(optimizer, "state", {}).values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def frozen_names(module: torch.nn.Module) -> set[str]:
    """Names of the frozen weights in the state; shared weights by each of their names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}


class SeedEachStep(pl.Callback):
    """Seeds torch before each batch, so that its random numbers (dropout) depend on (seed, batch, rank)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = (self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.default_rng(place).integers(2**63)))
