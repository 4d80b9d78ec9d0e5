"""Loggers of a run's metrics: CSV, TensorBoard, W&B and MLflow."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger

from catalog.errors import VitrineError, did_you_mean

NEEDS = {"csv": "", "tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
"""Name → the package it needs."""


def make_loggers(names: str, folder: Path, title: str) -> list[Logger]:
    """Loggers for `names` (commas between). VitrineError for one that is unknown or not installed."""
    loggers = []
    for name in (part.strip() for part in names.split(",") if part.strip()):
        if name not in NEEDS:
            raise VitrineError(f"trainer.log_to names {name!r}.{did_you_mean(name, NEEDS)}")
        if NEEDS[name] and find_spec(NEEDS[name]) is None:
            raise VitrineError(
                f"trainer.log_to names {name}, which is not installed; pip install {NEEDS[name]}"
            )
        loggers.append(MAKERS[name](folder, title))
    return loggers


def _csv(folder: Path, title: str) -> Logger:
    return CSVLogger(folder, name="", version="")


def _tensorboard(folder: Path, title: str) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    class FiniteFigures(TensorBoardLogger):
        """Logs finite values alone: a skipped step has no loss, and tensorboardX would warn each time."""

        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            finite = {name: value for name, value in metrics.items() if isfinite(value)}
            super().log_metrics(finite, step)

    return FiniteFigures(folder, name="", version="tensorboard")


def _wandb(folder: Path, title: str) -> Logger:
    from pytorch_lightning.loggers import WandbLogger

    return WandbLogger(
        name=title, project="vitrine", save_dir=folder, id=folder.name, resume="allow"
    )


def _mlflow(folder: Path, title: str) -> Logger:
    from pytorch_lightning.loggers import MLFlowLogger

    return MLFlowLogger(experiment_name="vitrine", run_name=title)


MAKERS: dict[str, Callable[[Path, str], Logger]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
