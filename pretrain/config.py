"""Settings of pretraining, and of the trainer that all stages share; imports no torch."""

from dataclasses import dataclass, field, replace
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

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"]
"""Lightning's names, and `auto` (`pretrain.devices`)."""


@dataclass(frozen=True)
class TrainerConfig:
    max_steps: NonNegativeInt = 1000
    """Optimiser steps."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps, as --device; auto: as accelerator says."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Lightning's accelerator; auto: the GPU where there is one."""
    devices: PositiveInt = 1
    """Devices on each node."""
    nodes: PositiveInt = 1
    """Machines."""
    strategy: Literal[
        "auto", "ddp", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload"
    ] = "auto"
    """How the model is distributed: one device or DDP (auto), or DeepSpeed ZeRO."""
    precision: Precision = "32-true"
    """Lightning's precision; auto: bf16-mixed where the device multiplies it fast, else 32-true. Artifacts
    hold float32 in any case."""
    gradient_clip: NonNegativeFloat = 1.0
    """Clip the gradient's global norm to this value; 0: no clipping."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are accumulated for one optimizer step."""
    log_every: PositiveInt = 10
    """Steps between two points of the learning curves."""
    checkpoint_every: NonNegativeInt = 500
    """Steps between two checkpoints; a stopped run resumes from the newest. 0: no checkpoints."""
    checkpoint_keep: PositiveInt = 2
    """Number of newest checkpoints on disk; if the newest is damaged, a run resumes from the one before."""
    async_checkpoint: bool = False
    """Write checkpoints in the background while training continues; not under ZeRO."""
    hang_timeout: NonNegativeFloat = 300.0
    """Seconds without progress after which the watchdog ends a run; 0: never. It names the rank it awaits."""
    log_to: str = "csv,tensorboard"
    """Loggers of metrics, comma-separated: csv, tensorboard, wandb, mlflow."""
    max_nonfinite_steps: PositiveInt = 10
    """Consecutive steps with a non-finite gradient after which the run ends; each of them is skipped."""
    seed: Seed = 0
    """Seed of initial weights, data order and dropout."""
    progress: bool = True
    """Show a progress bar (without a terminal, a line every few seconds)."""


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: PositiveFloat = 1e-3
    """Peak of the schedule."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay of AdamW, on matrices only."""
    warmup_share: Fraction = 0.1
    """Share of the steps with linear warm-up of the learning rate; cosine decay follows."""
    layer_decay: FractionAboveZero = 1.0
    """Layer-wise learning rate decay: factor per layer below a tower's top layer."""
    ema_decay: FractionBelowOne = 0.0
    """Decay of the exponential moving average (EMA) of the weights that the run ends with, such as 0.999;
    0: no EMA."""


@dataclass(frozen=True)
class AugmentationConfig:
    crop_area: FractionAboveZero = 1.0
    """Smallest share of an image's area that a random resized crop keeps; 1: no crops."""
    flip: Fraction = 0.0
    """Probability that an image is mirrored."""
    color_jitter: Fraction = 0.0
    """Largest relative change of brightness, contrast and saturation."""


@dataclass(frozen=True)
class TowerConfig:
    model: str = ""
    """A Hugging Face name or folder whose weights are loaded; empty builds from `config`."""
    config: dict[str, Any] = field(default_factory=dict)
    """A Hugging Face config as a mapping with `model_type`; used where `model` is empty."""
    frozen: bool = False
    """Freeze the tower's weights."""
    lora_rank: NonNegativeInt = 0
    """Rank of LoRA updates, trained instead of the weights and merged into them at the end; 0: none."""
    layer: int = -1
    """Hidden state that is used: -1 the last one, 0 the embeddings, k the output of layer k."""
    pooling: Literal[
        "auto", "mean", "cls", "last", "max", "sqrt_mean", "weighted_mean", "embedding"
    ] = "auto"
    """Pooling over tokens: their mean, the first one (cls), the last one (for decoders), and others as in
    sentence-transformers; embedding: the model's own embedding (CLIP's projection, a pooler's output).
    auto: as the checkpoint says; else embedding for half of a dual encoder, last for a decoder, mean."""
    max_tokens: NonNegativeInt = 0
    """Text only: maximum number of tokens of an item; longer texts are truncated. 0: as the checkpoint
    says, at most 512; 48 for towers built from a config."""
    prompt: str | None = None
    """Text only: what precedes each text, such as "passage: " for E5; null: as the checkpoint says."""
    vocab_size: PositiveInt = 2048
    """Text only, from config: size of the tokenizer trained on the catalog."""
    length_groups: PositiveInt = 4
    """Text only: groups of similar length that are encoded separately, each padded to its own length."""
    image_size: NonNegativeInt = 0
    """Images and video only: width and height in pixels. 0: as the checkpoint's image processor says; 64
    for towers built from a config."""
    pad_to_square: bool = False
    """Images and video only: pad images to squares before the checkpoint's processor crops them. (For
    towers built from a config they are always padded.)"""
    scaled_decoding: bool = False
    """Images only: decode JPEGs much larger than the tower's images at a fraction of their size, twice as
    fast. The pixels are then those of the checkpoint's processor within 45 dB, not to the bit. (For towers
    built from a config always.)"""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Images and video only: random changes of images while the tower is trained, never when it embeds."""


Kind = Literal["text", "image", "audio", "video", "attributes", "features"]


@dataclass(frozen=True)
class ModalityConfig(TowerConfig):
    kind: Kind = "text"
    """Kind of content, which determines how it is read (see pretrain/modalities)."""
    source: str = ""
    """The items' column (attributes: several, comma-separated), or the file of features in the catalog's
    folder."""
    tower: str = ""
    """Another modality whose tower also encodes this one, such as `image` for a second image."""
    frames: NonNegativeInt = 0
    """Video only: number of evenly spaced frames. 0: as many as a video tower reads; 4 for an image tower,
    which encodes each."""
    seconds: PositiveFloat = 5.0
    """Audio only: seconds from the beginning that are encoded."""


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
    """Kind of layers: SASRec's causal attention, or HSTU."""
    layers: PositiveInt = 2
    """Number of layers."""
    heads: PositiveInt = 4
    """Attention heads per layer."""
    dropout: FractionBelowOne = 0.1
    """Dropout on the input and in each layer."""
    max_history: PositiveInt = 32
    """Latest items of a history that the sequence encoder reads."""
    mean_residual: bool = True
    """Add the output to the mean of the history, so that training learns a correction to it."""
    recency: NonNegativeFloat = 0.0
    """Initial decay of that mean: an item has e^-recency times the weight of the next one."""
    model: str = ""
    """A Hugging Face decoder, by name or folder, in place of these layers (HLLM)."""
    decoder: dict[str, Any] = field(default_factory=dict)
    """Config of an untrained decoder instead of `model`, as a mapping with `model_type`."""


@dataclass(frozen=True)
class EncoderConfig:
    width: PositiveInt = 128
    """Width d of item vectors and user states."""
    dual: str = ""
    """A dual encoder by Hugging Face name or folder (CLIP, SigLIP, CLAP), whose halves encode text, images
    and audio with their own projections, so that training starts from their aligned space."""
    text: TowerConfig | None = field(default_factory=_small_bert)
    """The text tower; null: without text."""
    image: TowerConfig | None = field(default_factory=_small_vit)
    """The image tower; null: without images."""
    extra_modalities: dict[str, ModalityConfig] = field(default_factory=dict)
    """Further modalities by name: audio, video, attributes, precomputed features, a second image, a title
    separate from the description."""
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    """The causal sequence encoder over histories of item vectors."""
    modality_dropout: Fraction = 0.2
    """Probability that modality dropout hides one of an item's modalities while training."""

    def modalities(self) -> dict[str, ModalityConfig]:
        """All modalities by name, in the encoder's order."""
        named = {"text": self.text, "image": self.image}
        modalities = {
            **{
                name: ModalityConfig(**vars(tower), kind=name, source=name)  # type: ignore[arg-type]
                for name, tower in named.items()
                if tower is not None
            },
            **self.extra_modalities,
        }
        if not self.dual:
            return modalities
        return {
            name: replace(modality, model=self.dual)
            if modality.kind in ("text", "image", "audio")
            and not (modality.model or modality.tower)
            else modality
            for name, modality in modalities.items()
        }


@dataclass(frozen=True)
class ObjectivesConfig:
    cross_modal: NonNegativeFloat = 1.0
    """Weight of symmetric InfoNCE between all pairs of an item's modalities (CLIP)."""
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
    """Items in a row: segments of several users' histories, packed (sequence packing)."""
    uniform_share: Fraction = 0.25
    """Share of the rows filled with uniformly drawn items, so that unpopular ones are trained on, too."""
    edges_share: Fraction = 0.25
    """Share of the rows filled with linked items, where `objectives.edges` is used."""
    num_micro_batches: PositiveInt = 1
    """Micro-batches in which a step's items are encoded, each twice (gradient caching, GradCache): less
    memory, about a third more time."""
    activation_checkpointing: bool = False
    """Recompute each layer of a tower in the backward pass (activation checkpointing, also called
    gradient checkpointing)."""
    compile: bool = False
    """Compile the towers' layers (torch.compile): on a GPU steps are faster after a slow first one."""
    held_out: Annotated[float, Bounds(0, 0.5)] = 0.02
    """Fraction of the items, at most 1,000, held out of every step for the retrieval report."""
    max_broken: Fraction = 0.01
    """Maximum share of items with broken media files (images, …); with more, training is refused."""
    workers: NonNegativeInt = 0
    """Loader processes."""


@dataclass(frozen=True)
class PretrainConfig:
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    """The split of the histories, of which only the training part is read."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    data: PretrainDataConfig = field(default_factory=PretrainDataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass(frozen=True)
class ExtractConfig(ModalityConfig):
    modality: str = ""
    """A modality of the encoder whose tower is used; if empty, `model` or `config` names a tower."""


@dataclass(frozen=True)
class EmbedConfig:
    encoder: str = ""
    """Folder of an encoder artifact; may be empty if `extract` names towers."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    extract: dict[str, ExtractConfig] = field(default_factory=dict)
    """Further vectors by name, of single towers at any layer and pooling, computed in the same pass."""
    batch_tokens: PositiveInt = 8192
    """Tokens and patches per forward pass of the towers."""
