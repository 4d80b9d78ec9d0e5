"""Builds the Trainer every stage is given: from settings to `pytorch_lightning.Trainer`."""

import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from launch.guard import StepGuard
from launch.strategies import make_strategy
from launch.training_progress import TrainingProgress
from pretrain.config import TrainerConfig


def build_trainer(
    config: TrainerConfig,
    folder: Path,
    title: str,
    callbacks: Sequence[pl.Callback] = (),
    **options: Any,
) -> pl.Trainer:
    """A Trainer that keeps `metrics.csv` and its checkpoints in `folder`, and shows `title`.

    `options` go to `pytorch_lightning.Trainer` as they are, for what only one stage needs (such as
    `val_check_interval`). Each rank reads what its data module gives it: no sampler is put in.
    """
    _quieten()
    added: list[pl.Callback] = [StepGuard(config.give_up_after)]
    if config.progress:
        added.append(TrainingProgress(title))
    if config.checkpoint_every:
        added.append(_resumable_checkpoints(folder, config.checkpoint_every))
    settings: dict[str, Any] = {
        "max_steps": config.max_steps,
        "max_epochs": -1,
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.nodes,
        "strategy": make_strategy(config),
        "precision": config.precision,
        "gradient_clip_val": config.gradient_clip or None,
        "accumulate_grad_batches": config.accumulate,
        "log_every_n_steps": config.log_every,
        "callbacks": [*callbacks, *added],
        "logger": CSVLogger(folder, name="", version=""),
        "default_root_dir": folder,
        "enable_checkpointing": config.checkpoint_every > 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return pl.Trainer(**{**settings, **options})


def resume_point(folder: Path) -> Path | None:
    """The newest complete checkpoint of a Trainer with this folder, for `fit(ckpt_path=...)`."""
    complete = [path for path in (folder / "checkpoints").glob("step=*.ckpt") if _complete(path)]
    return max(complete, key=_step_of, default=None)


def _resumable_checkpoints(folder: Path, every: int) -> ModelCheckpoint:
    """One checkpoint named by its step; the one before it goes only when the new one is whole."""
    return ModelCheckpoint(
        dirpath=folder / "checkpoints",
        filename="{step}",
        every_n_train_steps=every,
        save_top_k=1,
        enable_version_counter=False,
    )


def _complete(checkpoint: Path) -> bool:
    """A file is renamed into place; of a DeepSpeed folder, `latest` is written last."""
    return checkpoint.is_file() or (checkpoint / "latest").is_file()


def _step_of(checkpoint: Path) -> int:
    match = re.search(r"step=(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1


def _quieten() -> None:
    """Keeps Lightning's advice and advertisements out of the way; its warnings of harm remain."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*but CUDA is not available.*",
        ".*GPU available but not used.*",
        ".*modules in eval mode at the start of training.*",  # on purpose: see FinetuneModule
        # Calls made inside Lightning and DeepSpeed.
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*torch.distributed.(all_gather_into|reduce_scatter)_tensor. is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
