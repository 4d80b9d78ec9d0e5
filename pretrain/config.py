"""Settings of pretraining, and of the trainer every stage shares; imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from catalog.config import (
    Bounds,
    CatalogConfig,
    Fraction,
    FractionAboveZero,
    FractionBelowOne,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    SplitConfig,
)


@dataclass(frozen=True)
class TrainerConfig:
    max_steps: NonNegativeInt = 1000
    """Optimiser steps."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Lightning's accelerator."""
    devices: PositiveInt = 1
    """Devices on each node."""
    nodes: PositiveInt = 1
    """Machines."""
    strategy: Literal[
        "auto", "ddp", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload"
    ] = "auto"
    """How the model is distributed: one device or DDP (auto), or DeepSpeed ZeRO."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = (
        "32-true"
    )
    """Lightning's precision. Artifacts hold float32 in any case."""
    gradient_clip: NonNegativeFloat = 1.0
    """Clip the gradient's global norm to this; 0 leaves it alone."""
    accumulate: PositiveInt = 1
    """Batches summed before one optimiser step."""
    log_every: PositiveInt = 10
    """Steps between two points of the learning curves."""
    checkpoint_every: NonNegativeInt = 500
    """Steps between two checkpoints; a stopped run resumes from the newest. 0: no checkpoints."""
    checkpoint_keep: PositiveInt = 2
    """Checkpoints that are kept: where the newest is damaged, a run resumes from the one before."""
    async_checkpoint: bool = False
    """Write checkpoints in the background while training continues; not under ZeRO."""
    hang_timeout: NonNegativeFloat = 300.0
    """Seconds without any progress after which a run ends, naming the rank it waits for; 0: never."""
    log_to: str = "csv,tensorboard"
    """Where figures go, with commas between: csv, tensorboard, wandb, mlflow."""
    max_nonfinite_steps: PositiveInt = 10
    """Steps in a row with a gradient that is not finite, after which the run ends; each one is skipped."""
    seed: Seed = 0
    """Seed of weights, order and dropout."""
    progress: bool = True
    """Show a progress bar (or a line every few seconds where there is no terminal)."""


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: PositiveFloat = 1e-3
    """Peak of the schedule."""
    weight_decay: NonNegativeFloat = 0.05
    """AdamW's, on matrices only."""
    warmup_share: Fraction = 0.1
    """Share of the steps with rising rate; cosine decay follows."""
    layer_decay: FractionAboveZero = 1.0
    """A tower's layers learn at this to the power of their distance from its top."""
    ema_decay: FractionBelowOne = 0.0
    """Decay of the exponential moving average (EMA) of the weights that the run ends with, such as 0.999;
    0: no EMA."""


@dataclass(frozen=True)
class TowerConfig:
    model: str = ""
    """A Hugging Face name or folder whose weights are loaded; empty builds from `config`."""
    config: dict[str, Any] = field(default_factory=dict)
    """A Hugging Face config as a mapping with `model_type`; used where `model` is empty."""
    frozen: bool = False
    """Keep the tower's weights as they are."""
    lora_rank: NonNegativeInt = 0
    """Train low-rank updates of this rank instead of the weights; merged into them at the end."""
    layer: int = -1
    """Hidden state that is read: -1 the last one, 0 the embeddings, k what layer k gives."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """One vector of many: their mean, the first one's, or the last one's (for decoders)."""
    max_tokens: PositiveInt = 48
    """Text only: tokens kept of each item."""
    vocab_size: PositiveInt = 2048
    """Text only, from config: size of the tokenizer trained on the catalog."""
    length_groups: PositiveInt = 4
    """Text only: groups of like length that go through the tower apart, each padded to its own."""
    image_size: PositiveInt = 64
    """Pictures and video only: pixels a side."""


Kind = Literal["text", "image", "audio", "video", "attributes", "features"]


@dataclass(frozen=True)
class ModalityConfig(TowerConfig):
    kind: Kind = "text"
    """What it is; says how it is read (see pretrain/modalities)."""
    source: str = ""
    """The items' column (attributes: several with commas between), or the features' file in the
    catalog's folder."""
    tower: str = ""
    """Another modality whose tower reads this one too, such as `image` for a second picture."""
    frames: PositiveInt = 4
    """Video only: frames, evenly spaced, each through the image tower."""
    seconds: PositiveFloat = 5.0
    """Audio only: how much of the beginning is heard."""


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
class SequenceConfig:
    block: Literal["attention", "hstu"] = "attention"
    """Its layers: SASRec's causal attention, or HSTU's."""
    layers: PositiveInt = 2
    """How many of them."""
    heads: PositiveInt = 4
    """Attention heads of each."""
    dropout: FractionBelowOne = 0.1
    """On the input and in each layer."""
    max_history: PositiveInt = 32
    """Latest items of a history that the sequence encoder reads."""
    mean_residual: bool = True
    """Add the output to the mean of the history, so that training learns a correction to it."""
    recency: NonNegativeFloat = 0.0
    """Initial decay of that mean: an item has e^-recency times the weight of the next one."""
    model: str = ""
    """A Hugging Face decoder, by name or folder, in place of these layers (HLLM)."""
    decoder: dict[str, Any] = field(default_factory=dict)
    """The same from a config, as a mapping with `model_type`, untrained."""


@dataclass(frozen=True)
class EncoderConfig:
    width: PositiveInt = 128
    """Width d of item vectors and user states."""
    text: TowerConfig | None = field(default_factory=_small_bert)
    """The text tower; null leaves text out."""
    image: TowerConfig | None = field(default_factory=_small_vit)
    """The image tower; null leaves pictures out."""
    extra_modalities: dict[str, ModalityConfig] = field(default_factory=dict)
    """Further modalities by name: sound, video, attributes, vectors made elsewhere, a second
    picture, a title apart from the description."""
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    """The causal sequence encoder over histories of item vectors."""
    modality_dropout: Fraction = 0.2
    """Probability that modality dropout hides one of an item's modalities while training."""

    def modalities(self) -> dict[str, ModalityConfig]:
        """All of them by name, in the order the encoder keeps them in."""
        named = {"text": self.text, "image": self.image}
        return {
            **{
                name: ModalityConfig(**vars(tower), kind=name, source=name)  # type: ignore[arg-type]
                for name, tower in named.items()
                if tower is not None
            },
            **self.extra_modalities,
        }


@dataclass(frozen=True)
class ObjectivesConfig:
    cross_modal: NonNegativeFloat = 1.0
    """Weight of symmetric InfoNCE between an item's modalities, every two of them (CLIP)."""
    sigmoid: NonNegativeFloat = 0.0
    """Weight of the sigmoid loss over pairs of modalities (SigLIP)."""
    next_item: NonNegativeFloat = 1.0
    """Weight of InfoNCE between a history and its next item (UniSRec, MISSRec)."""
    co_engagement: NonNegativeFloat = 0.0
    """Weight of InfoNCE between consecutive items of one user's history (co-engagement)."""
    edges: NonNegativeFloat = 0.0
    """Weight of InfoNCE between items that the catalog's `edges` table links."""
    bag_of_words: NonNegativeFloat = 1.0
    """Weight of predicting an item's bag of words from its vector."""
    reconstruction: NonNegativeFloat = 0.0
    """Weight of predicting the modalities that modality dropout hid from the visible ones."""
    language_modeling: NonNegativeFloat = 0.0
    """Weight of next-token prediction on the text; for text towers that are decoders."""
    temperature: PositiveFloat = 0.07
    """Initial value of the learned temperatures of the InfoNCE objectives."""


@dataclass(frozen=True)
class PretrainDataConfig:
    rows: PositiveInt = 12
    """Packed rows in one step on each device."""
    row_length: PositiveInt = 12
    """Items in a row: stretches of several users' histories, packed side by side."""
    uniform_share: Fraction = 0.25
    """Share of the rows filled with items drawn evenly, so that unpopular ones are read too."""
    edges_share: Fraction = 0.25
    """Share of the rows filled with linked items, where `objectives.edges` is used."""
    num_micro_batches: PositiveInt = 1
    """Micro-batches in which a step's items go through the towers, each twice (gradient caching,
    GradCache): less memory, about a third more time."""
    activation_checkpointing: bool = False
    """Recompute each layer of a tower in the backward pass (activation checkpointing, also called
    gradient checkpointing)."""
    compile: bool = False
    """Compile the towers' layers (torch.compile): on a GPU steps are faster after a slow first one."""
    held_out: Annotated[float, Bounds(0, 0.5)] = 0.02
    """Fraction of the items, at most 1,000, held out of every step for the retrieval report."""
    max_broken: Fraction = 0.01
    """Where a larger share of what items name (pictures, …) cannot be read, training is refused."""
    workers: NonNegativeInt = 0
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
class ExtractConfig(ModalityConfig):
    modality: str = ""
    """A modality of the encoder whose tower is read; else `model` or `config` names a tower."""


@dataclass(frozen=True)
class EmbedConfig:
    encoder: str = ""
    """Folder of an encoder artifact; may stay empty where `extract` names towers."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    extract: dict[str, ExtractConfig] = field(default_factory=dict)
    """Further vectors by name, straight from towers: any layer, any pooling, in the same pass."""
    batch_tokens: PositiveInt = 8192
    """Tokens and patches that go through the towers at once."""
