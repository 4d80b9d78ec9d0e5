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
    """How the model is spread: one device or DDP by itself (auto), or DeepSpeed ZeRO."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = (
        "32-true"
    )
    """Lightning's: what weights and steps are computed in. Artifacts hold float32 in any case."""
    gradient_clip: NonNegativeFloat = 1.0
    """Clip the gradient's global norm to this; 0 leaves it alone."""
    accumulate: PositiveInt = 1
    """Batches summed before one optimiser step."""
    log_every: PositiveInt = 10
    """Steps between two points of the learning curves."""
    checkpoint_every: NonNegativeInt = 500
    """Steps between two checkpoints, from the newest of which a stopped run goes on; 0 keeps none."""
    checkpoint_keep: PositiveInt = 2
    """Checkpoints that stay: were the newest found spoilt, a run goes on from the one before."""
    async_checkpoint: bool = False
    """Let training go on while a copy of its state is written; not under ZeRO."""
    hang_timeout: NonNegativeFloat = 300.0
    """Seconds without any progress after which a run ends, naming the rank it waits for; 0: never."""
    log_to: str = "csv,tensorboard"
    """Where figures go, with commas between: csv, tensorboard, wandb, mlflow."""
    max_nonfinite_steps: PositiveInt = 10
    """So many steps in a row whose gradient is not finite end the run; single ones are left out."""
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
    """Decay of a moving average of the weights (EMA), such as 0.999, that the run ends with; 0: none."""


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
    """On what is read and in each layer."""
    max_history: PositiveInt = 32
    """Latest items of a history that are read."""
    mean_residual: bool = True
    """Start as the mean of the history, and learn what to add to it."""
    recency: NonNegativeFloat = 0.0
    """In that mean an item begins with e^-recency times the weight of the one after it."""
    model: str = ""
    """A Hugging Face decoder, by name or folder, that reads instead of such layers (HLLM)."""
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
    """What reads a history of item vectors."""
    modality_dropout: Fraction = 0.2
    """Chance to hide one of an item's modalities while training."""

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
    """Weight of InfoNCE between items that one person took one after the other."""
    edges: NonNegativeFloat = 0.0
    """Weight of InfoNCE between items that the catalog's `edges` table links."""
    bag_of_words: NonNegativeFloat = 1.0
    """Weight of telling an item's words from its vector."""
    reconstruction: NonNegativeFloat = 0.0
    """Weight of telling what modality dropout hid from what it left."""
    language_modeling: NonNegativeFloat = 0.0
    """Weight of telling each token from those before it; for text towers that are decoders."""
    temperature: PositiveFloat = 0.07
    """Start of the learned temperatures of the objectives that are InfoNCE."""


@dataclass(frozen=True)
class PretrainDataConfig:
    rows: PositiveInt = 12
    """Packed rows in one step on each device."""
    row_length: PositiveInt = 12
    """Items in a row: stretches of several people's histories, side by side."""
    uniform_share: Fraction = 0.25
    """Share of the rows filled with items drawn evenly, so that unpopular ones are read too."""
    edges_share: Fraction = 0.25
    """Share of the rows filled with linked items, where `objectives.edges` is used."""
    num_micro_batches: PositiveInt = 1
    """Parts in which a step's items go through the towers, each twice (GradCache): less memory,
    about a third more time."""
    activation_checkpointing: bool = False
    """Each layer of a tower is computed again in the backward pass (activation checkpointing)."""
    compile: bool = False
    """Compile the towers' layers (torch.compile): on a GPU steps are faster after a slow first one."""
    held_out: Annotated[float, Bounds(0, 0.5)] = 0.02
    """Share of the items, at most 1,000, that no step reads: the retrieval report asks for them."""
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
