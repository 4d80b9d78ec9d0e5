"""Settings of pretraining, and of the trainer every stage shares; imports no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from catalog.config import CatalogConfig, SplitConfig


@dataclass(frozen=True)
class TrainerConfig:
    max_steps: int = 1000
    """Optimiser steps."""
    accelerator: str = "auto"
    """Lightning's accelerator: auto, cpu, gpu, ..."""
    devices: int = 1
    """Devices on each node."""
    nodes: int = 1
    """Machines."""
    strategy: Literal[
        "auto", "ddp", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload"
    ] = "auto"
    """How the model is spread: one device or DDP by itself (auto), or DeepSpeed ZeRO."""
    precision: str = "32-true"
    """Lightning's precision: 32-true, bf16-mixed, ..."""
    gradient_clip: float = 1.0
    """Clip the gradient's global norm to this; 0 leaves it alone."""
    accumulate: int = 1
    """Batches summed before one optimiser step."""
    log_every: int = 10
    """Steps between two points of the learning curves."""
    checkpoint_every: int = 500
    """Steps between two checkpoints, from the newest of which a stopped run goes on; 0 keeps none."""
    give_up_after: int = 10
    """So many steps in a row whose gradient is not finite end the run; single ones are left out."""
    seed: int = 0
    """Seed of weights, order and dropout."""
    progress: bool = True
    """Show a progress bar (or a line every few seconds where there is no terminal)."""


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    weight_decay: float = 0.05
    """AdamW's, on matrices only."""
    warmup_share: float = 0.1
    """Share of the steps with rising rate; cosine decay follows."""


@dataclass(frozen=True)
class TowerConfig:
    model: str = ""
    """A Hugging Face name or folder whose weights are loaded; empty builds from `config`."""
    config: dict[str, Any] = field(default_factory=dict)
    """A Hugging Face config as a mapping with `model_type`; used where `model` is empty."""
    frozen: bool = False
    """Keep the tower's weights as they are."""
    max_tokens: int = 48
    """Text only: tokens kept of each item."""
    vocab_size: int = 2048
    """Text only, from config: size of the tokenizer trained on the catalog."""
    image_size: int = 64
    """Images only: pixels a side."""


def _small_bert() -> TowerConfig:
    return TowerConfig(
        config={
            "model_type": "bert",
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "max_position_embeddings": 128,
        }
    )


def _small_vit() -> TowerConfig:
    return TowerConfig(
        config={
            "model_type": "vit",
            "hidden_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "patch_size": 8,
        }
    )


@dataclass(frozen=True)
class EncoderConfig:
    width: int = 128
    """Width d of item vectors and user states."""
    text: TowerConfig | None = field(default_factory=_small_bert)
    """The text tower; null leaves text out."""
    image: TowerConfig | None = field(default_factory=_small_vit)
    """The image tower; null leaves pictures out."""
    history_layers: int = 2
    """Layers of the causal transformer that reads a history of item vectors."""
    history_heads: int = 4
    """Its attention heads."""
    max_history: int = 32
    """Latest items of a history that are read."""
    dropout: float = 0.1
    """In fusion and history reading."""
    modality_dropout: float = 0.2
    """Chance to hide one of an item's modalities while training."""


@dataclass(frozen=True)
class ObjectivesConfig:
    modalities: float = 1.0
    """Weight of symmetric InfoNCE between an item's text and picture (CLIP)."""
    pairs: float = 0.0
    """Weight of the sigmoid loss over pairs of text and picture (SigLIP)."""
    behaviour: float = 1.0
    """Weight of InfoNCE between a history and its next item (UniSRec, MISSRec)."""
    words: float = 1.0
    """Weight of telling an item's words from its vector."""
    temperature: float = 0.07
    """Start of the learned temperatures of `modalities` and `behaviour`."""


@dataclass(frozen=True)
class PretrainDataConfig:
    rows: int = 12
    """Packed rows in one step on each device."""
    row_length: int = 12
    """Items in a row: stretches of several people's histories, side by side."""
    uniform_share: float = 0.25
    """Share of the rows filled with items drawn evenly, so that unpopular ones are read too."""
    encode_parts: int = 1
    """Parts in which a step's items go through the towers, each twice (GradCache): less memory,
    about a third more time."""
    workers: int = 0
    """Loader processes."""


@dataclass(frozen=True)
class PretrainConfig:
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    """Only the training part of each history is read."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    data: PretrainDataConfig = field(default_factory=PretrainDataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass(frozen=True)
class EmbedConfig:
    encoder: str = ""
    """Folder of an encoder artifact."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    batch_size: int = 256
    """Items encoded at once."""
