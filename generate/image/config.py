"""Settings of the image generator; imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from catalog.config import (
    CatalogConfig,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed63,
    SplitConfig,
)
from finetune.config import LoraConfig
from generate.config import BatchJobConfig
from pretrain.config import OptimizerConfig, TrainerConfig


@dataclass(frozen=True)
class CodecConfig:
    patch_size: PositiveInt = 16
    """Side of a patch in pixels; each patch becomes one latent position."""
    channels: PositiveInt = 128
    """Latent channels: principal components kept of each patch."""
    overlap: NonNegativeInt = 2
    """Pixels by which a patch reaches into each neighbour, so that no seams show."""
    whitening: Fraction = 0.8
    """0 keeps the variance of each component: the loss is the error in pixels; 1 makes all equal."""
    fit_images: PositiveInt = 1000
    """Images that the components are fitted to."""


@dataclass(frozen=True)
class DenoiserConfig:
    width: PositiveInt = 192
    """Width of the transformer."""
    layers: PositiveInt = 4
    """Number of transformer blocks."""
    heads: PositiveInt = 4
    """Attention heads of each block."""
    user_tokens: NonNegativeInt = 4
    """Condition tokens projected from the user state."""
    item_tokens: NonNegativeInt = 4
    """Condition tokens projected from the item embedding."""


Mode = Literal["concept", "creative"]
Solver = Literal["pc", "dpm++", "heun", "euler", "ddim"]
Offload = Literal["none", "model", "sequential"]


@dataclass(frozen=True)
class SamplingConfig:
    mode: Mode = "concept"
    """concept: a new design of the item's kind for the user, never to be shown as an item on sale;
    creative: the item's own pixels unchanged, in front of a background generated for the user."""
    user_guidance_scale: NonNegativeFloat = 4.0
    """Classifier-free guidance scale of the user; 1 samples the learned conditional, 0 ignores the user."""
    item_guidance_scale: NonNegativeFloat = 3.0
    """Classifier-free guidance scale of the item."""
    structure_guidance_scale: NonNegativeFloat = 0.0
    """Classifier-free guidance scale of the item's outline and edges; creative uses 1 at least."""
    guidance_min_noise: Fraction = 0.3
    """Guidance scales above 1 apply only while the noise level is at least this; 0 applies them always."""
    solver: Solver = "pc"
    """ODE solver of the flow (generate/image/solvers.py)."""
    steps: PositiveInt = 12
    """Solver steps; each takes up to four passes of the denoiser, with heun twice as many."""
    shift: PositiveFloat = 1.0
    """Time shift: above 1 steps are denser at high noise, below 1 at low noise."""
    num_candidates: PositiveInt = 1
    """Images sampled for each request; the one most similar to item and user is kept (best of n)."""
    reject_near_copies: bool = True
    """Reject and resample images that are closer to a training image than catalog images to each other."""
    segmentation_model: str = ""
    """A semantic segmentation model of the Hugging Face hub, or a folder, that finds the item in creative
    mode where its picture has no alpha channel and the catalog no column `mask`; empty: GrabCut."""
    segmentation_labels: tuple[str, ...] = ()
    """Labels of the segmentation model that are the item; empty: all but background."""
    safety_model: str = ""
    """An image classifier of the Hugging Face hub, or a folder; images to which it gives one of
    `safety_labels` are rejected."""
    safety_labels: tuple[str, ...] = ("nsfw", "unsafe", "porn", "hentai", "sexy")
    max_retries: NonNegativeInt = 3
    """Further rounds of sampling, at most, for requests whose images were all rejected."""
    batch_size: PositiveInt = 64
    """Images sampled at once."""
    vae_slicing: bool = False
    """Of a pretrained model: its VAE decodes images one at a time, which takes less memory."""
    vae_tiling: bool = False
    """Of a pretrained model: its VAE works on large images in overlapping tiles, which takes less memory and
    may change pixels where tiles meet."""
    offload: Offload = "none"
    """Of a pretrained model on a GPU: model keeps its network and its VAE in the machine's memory while the
    other works, sequential each layer until it is its turn, which is slow and takes the least memory."""
    seed: Seed63 = 0
    """Seed of the noise; the same request with the same seed gives the same image."""


@dataclass(frozen=True)
class ImageBatchConfig(BatchJobConfig):
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True)
class ImageScoreConfig:
    num_users: PositiveInt = 300
    """Users with a test target for whom images are sampled, at most."""
    num_contact_sheet_users: NonNegativeInt = 6
    """Users on the contact sheet."""
    image_encoder: str = ""
    """An image encoder of the Hugging Face hub, or a folder, that no generator was conditioned on; empty
    trains a small attribute classifier on the catalog's own labels and reports its accuracy."""
    classifier_steps: PositiveInt = 600
    """Training steps of that attribute classifier."""
    ground_truth: str = ""
    """Folder of the demo world's ground truth; empty for other catalogs."""
    seed: Seed63 = 0
    """Seed of the choice of users, their swap partners, and the noise."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True)
class ImageConfig:
    recommender: str = ""
    """Folder of a recommender artifact."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    """Only the training part of each history is read."""
    model: str = ""
    """A pretrained diffusion pipeline of the Hugging Face hub, or a folder (Stable Diffusion 1.5, 2, XL, 3;
    PixArt; Flux; Sana): kept frozen, with an IP-Adapter for item and user. Empty: a small denoiser from
    scratch."""
    prompt: str = "a product photo"
    """Text prompt of a pretrained model, the same for every image."""
    distilled_guidance: NonNegativeFloat = 3.5
    """Guidance scale that a guidance-distilled pretrained model (FLUX.1-dev) takes; others take none."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """LoRA of a pretrained model's attention; rank 0: none."""
    image_size: PositiveInt = 64
    """Side in pixels of square images, or of the square of the same area; a multiple of the codec's
    patch size."""
    num_resolution_buckets: PositiveInt = 1
    """Image shapes (aspect ratios), at most: those nearest to most of the catalog's images."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    drop_user: Fraction = 0.1
    """Probability that a training row drops the user condition (classifier-free guidance)."""
    drop_item: Fraction = 0.3
    """Probability that a training row drops the item condition."""
    drop_structure: Fraction = 0.5
    """Probability that a training row drops the structure condition."""
    sibling_prob: Fraction = 0.8
    """Probability that a training row is conditioned on the embedding of another item of the same
    category, so that the item determines what is shown and only the user can determine its style."""
    self_condition_prob: Fraction = 0.7
    """Probability that a training row is conditioned on the state of its target item alone, the clearest
    signal of style in a state; otherwise on the state of the user's other purchases. Near 1 images are
    more specific to the user, near 0 they are more coherent."""
    batch_size: PositiveInt = 32
    """Images in one step on each device."""
    workers: NonNegativeInt = 0
    """Data loader processes."""
    sample_every: NonNegativeInt = 500
    """Training steps between grids of sampled images in the logs; 0 logs none."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Saved with the generator as its defaults."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-3, ema_decay=0.995)
    )
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_steps=2000))
