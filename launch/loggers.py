"""Where a run's figures go: files of its own, and services that are named."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger

from catalog.errors import VitrineError, nearest

NEEDS = {"csv": "", "tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
"""Name → the package it needs."""


def make_loggers(names: str, folder: Path, title: str) -> list[Logger]:
    """Loggers for `names` (commas between). VitrineError for one that is unknown or not installed."""
    found = []
    for name in (part.strip() for part in names.split(",") if part.strip()):
        if name not in NEEDS:
            raise VitrineError(f"trainer.log_to names {name!r}.{nearest(name, NEEDS)}")
        if NEEDS[name] and find_spec(NEEDS[name]) is None:
            raise VitrineError(
                f"trainer.log_to names {name}, which is not installed; pip install {NEEDS[name]}"
            )
        found.append(MAKERS[name](folder, title))
    return found


def _csv(folder: Path, title: str) -> Logger:
    return CSVLogger(folder, name="", version="")


def _tensorboard(folder: Path, title: str) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard")


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
