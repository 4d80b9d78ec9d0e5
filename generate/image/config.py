"""Settings of the image generator; imports no torch."""

from dataclasses import dataclass, field

from catalog.config import CatalogConfig, SplitConfig
from pretrain.config import OptimizerConfig, TrainerConfig


@dataclass(frozen=True)
class CodecConfig:
    patch_size: int = 16
    """Pixels a side of a patch; each patch becomes one latent position."""
    channels: int = 128
    """Principal components kept of a patch."""
    overlap: int = 2
    """Pixels by which a patch reaches into each neighbour, so that no seams show."""
    whitening: float = 0.4
    """0 keeps each component's own spread, so that loss is error in pixels; 1 gives all the same."""
    fit_pictures: int = 1000
    """Pictures the components are found on."""


@dataclass(frozen=True)
class DenoiserConfig:
    width: int = 192
    """Width of the transformer."""
    layers: int = 4
    """Its blocks."""
    heads: int = 4
    """Attention heads of each block."""
    user_tokens: int = 4
    """Tokens made from the user state."""
    item_tokens: int = 4
    """Tokens made from the item vector."""


@dataclass(frozen=True)
class DrawConfig:
    user_scale: float = 6.0
    """How far to lean towards the person; 1 follows what was learned, 0 ignores the person."""
    item_scale: float = 3.0
    """How far to lean towards the item."""
    guide_above: float = 0.6
    """Lean only while more than this share of the picture is noise; 0 leans to the end."""
    steps: int = 12
    """Steps of the solver; each costs up to three passes of the denoiser."""
    batch_size: int = 64
    """Pictures drawn at once."""
    seed: int = 0
    """The same request with the same seed gives the same picture."""


@dataclass(frozen=True)
class ImageConfig:
    recommender: str = ""
    """Folder of a recommender artifact."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    """Only the training part of each history is read."""
    image_size: int = 64
    """Pixels a side of the pictures drawn; a multiple of the codec's patch."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    drop_user: float = 0.1
    """Chance that a training picture hides its person."""
    drop_item: float = 0.3
    """Chance that a training picture hides its item."""
    sibling_share: float = 0.8
    """Chance that a training picture is asked for by the vector of another item of its kind, so
    that the item says what to draw and only the person can say how."""
    ema_decay: float = 0.995
    """Of the average of the weights that draws the pictures; it is shorter in the first steps."""
    batch_size: int = 32
    """Pictures in one step on each device."""
    workers: int = 0
    """Loader processes."""
    draw: DrawConfig = field(default_factory=DrawConfig)
    """Saved with the generator as its defaults."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-3))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_steps=2000))
