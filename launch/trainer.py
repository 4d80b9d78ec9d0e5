"""Builds the `pytorch_lightning.Trainer` of a stage from its settings."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from catalog.errors import VitrineError, one_line_message
from launch.broadcast_buffers import BroadcastBuffersOnce
from launch.checkpoints import STATE, Checkpoints, SeedEachStep, StateFile
from launch.events import Events
from launch.graceful_stop import GracefulStop
from launch.loggers import make_loggers
from launch.nonfinite_guard import NonFiniteGuard
from launch.resume import choose_checkpoint
from launch.strategies import ElasticDeepSpeedStrategy, kind_of, make_strategy
from launch.throughput import ThroughputMonitor
from launch.training_progress import TrainingProgress
from launch.watchdog import Watchdog
from pretrain.checkpoint_files import read_checkpoint_manifest
from pretrain.config import TrainerConfig
from pretrain.devices import Compute, resolve_precision, training_device
from pretrain.shards import is_sharded


class StageTrainer(pl.Trainer):
    """Resumes from the newest valid checkpoint in its folder, if there is one."""

    title = ""
    events: Events
    watchdog: Watchdog | None = None

    def fit(
        self,
        model: pl.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """As Lightning's; `ckpt_path` overrules the folder."""
        loaders = (train_dataloaders, val_dataloaders, datamodule)
        with self.watchdog.watching(self) if self.watchdog else nullcontext():
            super().fit(model, *loaders, ckpt_path, weights_only)
        if not is_sharded(model):
            model.float()  # whatever it was trained in, it is evaluated and stored in float32
        if self.is_global_zero:
            self.events.write("end", step=self.global_step)

    @override
    def _run(
        self,
        model: pl.LightningModule,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> Any:
        """Chooses the checkpoint, once all ranks are connected and before Lightning reads one."""
        self.strategy.setup_environment()  # ranks meet; Lightning's own call finds it done
        path = ckpt_path or self._resume()
        if self.is_global_zero:
            world = {"world_size": self.world_size, "strategy": kind_of(self.strategy)}
            world |= {"device": self.strategy.root_device.type, "precision": self.precision}
            self.events.write("start", title=self.title, max_steps=self.max_steps, **world)
        return super()._run(model, path, weights_only)

    def _resume(self) -> Path | None:
        work = Path(self.default_root_dir)
        checkpoint = choose_checkpoint(work, self.events if self.is_global_zero else None)
        if checkpoint is None:
            return None
        facts, kind = read_checkpoint_manifest(checkpoint), kind_of(self.strategy)
        if facts["strategy"] != kind:
            raise VitrineError(
                f"{checkpoint} was written under strategy {_ways(facts['strategy'])}; resume with that, "
                f"or remove {checkpoint.parent} to start afresh with {_ways(kind)}"
            )
        others = facts["world_size"] != self.world_size
        if others and isinstance(self.strategy, ElasticDeepSpeedStrategy):
            self.strategy.prepare_elastic_load(checkpoint / STATE)
            self.strategy.barrier()
        if self.is_global_zero:
            self.events.write("resume", step=facts["step"], written_by=facts["world_size"])
            print(f"{self.title}: resuming at step {facts['step']}", file=sys.stderr, flush=True)
        return checkpoint / STATE


def _ways(kind: str) -> str:
    return "auto or ddp" if kind == "whole" else kind


def build_trainer(
    config: TrainerConfig,
    folder: Path,
    title: str,
    callbacks: Sequence[pl.Callback] = (),
    **options: Any,
) -> pl.Trainer:
    """A Trainer that writes its metrics, events and checkpoints to `folder`, and shows `title`.

    It resumes from a checkpoint in `folder`, so a folder must belong to one request (`pretrain.work`).
    `options` go to `pytorch_lightning.Trainer` as they are, for what only one stage needs (such as
    `val_check_interval`). Each rank reads what its data module gives it: no sampler is put in.
    """
    _quieten()
    check_running(config)
    device = training_device(config)
    precision = resolve_precision(config.precision, device)
    events = Events(folder, int(os.environ.get("RANK", 0)))
    own, watchdog = _callbacks(config, folder, title, events)
    settings: dict[str, Any] = {
        "max_steps": config.max_steps,
        "max_epochs": -1,
        "accelerator": config.accelerator if config.device == "auto" else device.type,
        "devices": [device.index] if ":" in config.device else config.devices,
        "num_nodes": config.nodes,
        "strategy": make_strategy(config),
        "precision": precision,
        "gradient_clip_val": config.gradient_clip or None,
        "accumulate_grad_batches": config.accumulate,
        "log_every_n_steps": config.log_every,
        "callbacks": [*callbacks, *own],
        "logger": make_loggers(config.log_to, folder, title),
        "default_root_dir": folder,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    if not config.strategy.startswith("zero"):  # DeepSpeed reads and writes by itself
        settings["plugins"] = [StateFile()]
    try:
        trainer = StageTrainer(**{**settings, **options})
    except (MisconfigurationException, ValueError) as error:  # no GPU here; a clash of settings
        raise VitrineError(
            f"no training can be set up with accelerator {config.accelerator}, {config.devices} "
            f"devices, strategy {config.strategy}, precision {precision}: {one_line_message(error)}"
        ) from error
    Compute(device, precision).set_tf32()
    trainer.title, trainer.events, trainer.watchdog = title, events, watchdog
    return trainer


def _callbacks(
    config: TrainerConfig, folder: Path, title: str, events: Events
) -> tuple[list[pl.Callback], Watchdog | None]:
    """The callbacks of every training, checkpoints last; and the watchdog among them."""
    stop = GracefulStop(events)
    monitor = ThroughputMonitor(config.log_every)
    callbacks: list[pl.Callback] = [
        stop,
        monitor,
        NonFiniteGuard(config.max_nonfinite_steps, stop, events),
        SeedEachStep(config.seed),
        BroadcastBuffersOnce(),
    ]
    if config.progress:
        callbacks.append(TrainingProgress(title, monitor))
    watchdog = None
    if config.hang_timeout:
        watchdog = Watchdog(folder, config.hang_timeout, stop, events, events.rank)
        callbacks.append(watchdog)
    every, keep, background = (
        config.checkpoint_every,
        config.checkpoint_keep,
        config.async_checkpoint,
    )
    callbacks.append(Checkpoints(folder, every, keep, stop, events, background))
    return callbacks, watchdog


def check_running(config: TrainerConfig) -> None:
    """VitrineError for invalid settings of checkpoints, logging and the watchdog."""
    least = {"checkpoint_every": 0, "checkpoint_keep": 1, "hang_timeout": 0, "log_every": 1}
    for name, number in least.items():
        given = getattr(config, name)
        if given < number:
            raise VitrineError(f"trainer.{name} is {given:g}; give {number} or more")
    if config.async_checkpoint and config.strategy.startswith("zero"):
        raise VitrineError(
            f"trainer.async_checkpoint is true, but under {config.strategy} every rank writes a share "
            "of its own; use --trainer.async_checkpoint false"
        )


def _quieten() -> None:
    """Silences Lightning's tips; warnings of errors remain."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*ended before the epoch ended and your dataloader is not resumable.*",  # it is: StepSampler
        ".*When saving the DeepSpeed Stage 3 checkpoint.*",
        ".*but CUDA is not available.*",
        ".*`srun` command is available.*",
        ".*GPU available but not used.*",
        r".*module\(s\) in eval mode at the start of training.*",  # on purpose: see FinetuneModule
        # Calls made inside Lightning and DeepSpeed.
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*torch.distributed.(all_gather_into|reduce_scatter)_tensor. is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
