"""`vitrine pretrain` and `vitrine embed`: an item encoder, and the embeddings of a catalog's items."""

from dataclasses import dataclass
from pathlib import Path

from launch.commands.devices import ComputeOptions, TrainingOptions
from launch.commands.output import print_output_path
from pretrain.config import EmbedConfig, PretrainConfig


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions):
    output: str = "runs/encoder"
    """Folder of the encoder."""


def pretrain(options: PretrainOptions, settings: PretrainConfig) -> None:
    from launch.trainer import build_trainer
    from pretrain.run import run_pretraining

    print_output_path(run_pretraining(options.apply(settings), Path(options.output), build_trainer))


@dataclass(frozen=True)
class EmbedOptions(ComputeOptions):
    output: str = "runs/vectors"
    """Folder of the embeddings."""


def embed(options: EmbedOptions, settings: EmbedConfig) -> None:
    from pretrain.embed import run_embedding

    print_output_path(run_embedding(settings, Path(options.output), options.compute()))
