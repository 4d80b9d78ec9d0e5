"""Makes a ZeRO checkpoint readable by another number of ranks, through DeepSpeed's universal format.

DeepSpeed's loader does some things wrong in silence, which `finish_loading` puts right: it leaves out
buffers, and under ZeRO-3 all groups of the optimiser get the settings of the first
(weight decay where there shall be none) and share one count of steps, which then runs too fast.
"""

import io
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

NATIVE = "checkpoint"
"""Lightning's name for the folder inside a DeepSpeed checkpoint."""
UNIVERSAL = "universal"


def convert(checkpoint: Path) -> None:
    """Adds `universal/` to a DeepSpeed checkpoint: each weight and its moments whole, by name."""
    if (checkpoint / "latest_universal").exists():  # written last
        return
    from deepspeed.checkpoint.ds_to_universal import main

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


def finish_loading(engine: Any, checkpoint: Path) -> None:
    """After DeepSpeed has loaded a universal checkpoint: what it left out or mixed up."""
    folder = checkpoint / UNIVERSAL
    kept = torch.load(folder / "zero" / "optimizer_state.pt", weights_only=False)
    for group, saved in zip(engine.optimizer.param_groups, kept["param_groups"], strict=True):
        group.update({name: value for name, value in saved.items() if name != "params"})
    for state in engine.optimizer.optimizer.state.values():
        state["step"] = torch.as_tensor(state["step"]).clone()
    (first, *_) = sorted(folder.glob("*model_states.pt"))
    saved = torch.load(first, map_location="cpu", weights_only=False)["module"]
    module = engine.module
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    for name, value in module.state_dict(keep_vars=True).items():
        # Frozen weights are in no checkpoint: stages make theirs anew.
        if name not in trained and name in saved and value.shape == saved[name].shape:
            value.data.copy_(saved[name])
