"""Elastic resume under ZeRO: a checkpoint becomes readable by another number of ranks.

The checkpoint is converted to DeepSpeed's universal format. DeepSpeed's elastic loader makes three
silent errors, which `finish_loading` corrects: it leaves out buffers, and under ZeRO-3 all groups of
the optimiser get the settings of the first (weight decay where there should be none) and share one
count of steps, which then runs too fast.

DeepSpeed unpickles what it reads. So every file is inspected first, and refused if it names
anything but tensors and the few types that DeepSpeed's own checkpoints hold; what is read here is read
under that same list.
"""

import io
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from catalog.atomic_write import fsync_folders, replace_file
from catalog.checksums import (
    checksum_mismatch,
    compute_checksums,
    dumps_with_checksum,
    loads_with_checksum,
)
from catalog.errors import VitrineError

NATIVE = "checkpoint"
"""Lightning's name for the folder inside a DeepSpeed checkpoint."""
UNIVERSAL = "universal"
LATEST = "latest_universal"
"""File in which DeepSpeed names the folder that its loader reads."""
CHECKSUMS_FILE = "universal.json"
"""Size and sha256 of each file in `universal/`, and what LATEST says; written last."""
MAX_SHOWN = 3
"""Names of types that a refusal shows."""


def convert_to_universal(checkpoint: Path) -> None:
    """Adds `universal/` to a DeepSpeed checkpoint, for an elastic resume: weights and moments, unsharded.

    A valid conversion stays; any other is redone from the checkpoint.
    """
    if is_converted(checkpoint):
        return
    refuse_foreign_types(checkpoint / NATIVE)
    from deepspeed.checkpoint.ds_to_universal import main

    (checkpoint / CHECKSUMS_FILE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint / UNIVERSAL, ignore_errors=True)
    settings = SimpleNamespace(
        input_folder=str(checkpoint / NATIVE),
        output_folder=str(checkpoint / UNIVERSAL),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        main(settings)
    sums = compute_checksums(checkpoint / UNIVERSAL)
    fsync_folders(checkpoint / UNIVERSAL)
    partial = checkpoint / f"{CHECKSUMS_FILE}.partial"
    latest = (checkpoint / LATEST).read_text(encoding="utf8")
    partial.write_text(dumps_with_checksum({"files": sums, "latest": latest}), encoding="utf8")
    replace_file(partial, checkpoint / CHECKSUMS_FILE)


def is_converted(checkpoint: Path) -> bool:
    """Whether `universal/` exists and every file matches its checksum."""
    try:
        facts = loads_with_checksum((checkpoint / CHECKSUMS_FILE).read_text(encoding="utf8"))
        same = (checkpoint / LATEST).read_text(encoding="utf8") == facts["latest"]
        return same and not checksum_mismatch(checkpoint / UNIVERSAL, facts["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def refuse_foreign_types(folder: Path) -> None:
    """VitrineError where a file of tensors below names a type that no checkpoint of ours holds.

    Unpickling would call whatever the file names. Nothing is unpickled here.
    """
    known = {f"{each.__module__}.{each.__qualname__}" for each in allowed_types()}
    for path in sorted(folder.rglob("*.pt")):
        try:
            foreign = sorted(set(get_unsafe_globals_in_checkpoint(path)) - known)
        except Exception as error:  # no archive of torch's, or a pickle that is none
            foreign = [f"what torch cannot read ({type(error).__name__})"]
        if foreign:
            raise VitrineError(
                f"{path} holds {', '.join(foreign[:MAX_SHOWN])}, which no checkpoint of Vitrine's does and "
                "which could run code; resume from one that you trust, or remove the checkpoint"
            )


def allowed_types() -> list[Any]:
    """What DeepSpeed's checkpoints hold besides tensors and plain values."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


def finish_loading(engine: Any, checkpoint: Path) -> None:
    """Corrects what DeepSpeed leaves out or mixes up when it loads a universal checkpoint."""
    folder = checkpoint / UNIVERSAL
    with safe_globals(allowed_types()):
        optimizer_state = torch.load(folder / "zero" / "optimizer_state.pt", weights_only=True)
        (first, *_) = sorted(folder.glob("*model_states.pt"))
        saved = torch.load(first, map_location="cpu", weights_only=True)["module"]
    for group, settings in zip(
        engine.optimizer.param_groups, optimizer_state["param_groups"], strict=True
    ):
        group.update({name: value for name, value in settings.items() if name != "params"})
    for state in engine.optimizer.optimizer.state.values():
        state["step"] = torch.as_tensor(state["step"]).clone()
    module = engine.module
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    for name, value in module.state_dict(keep_vars=True).items():
        # Frozen weights are in no checkpoint: stages make theirs anew.
        if name not in trained and name in saved and value.shape == saved[name].shape:
            value.data.copy_(saved[name])
