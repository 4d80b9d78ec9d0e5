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
from pretrain.config import OptimizerConfig, TrainerConfig


@dataclass(frozen=True)
class CodecConfig:
    patch_size: PositiveInt = 16
    """Pixels a side of a patch; each patch becomes one latent position."""
    channels: PositiveInt = 128
    """Principal components kept of a patch."""
    overlap: NonNegativeInt = 2
    """Pixels by which a patch reaches into each neighbour, so that no seams show."""
    whitening: Fraction = 0.8
    """0 keeps each component's own spread, so that loss is error in pixels; 1 gives all the same."""
    fit_pictures: PositiveInt = 1000
    """Pictures the components are found on."""


@dataclass(frozen=True)
class DenoiserConfig:
    width: PositiveInt = 192
    """Width of the transformer."""
    layers: PositiveInt = 4
    """Its blocks."""
    heads: PositiveInt = 4
    """Attention heads of each block."""
    user_tokens: NonNegativeInt = 4
    """Tokens made from the user state."""
    item_tokens: NonNegativeInt = 4
    """Tokens made from the item vector."""


Mode = Literal["concept", "creative"]
Solver = Literal["pc", "dpm++", "heun", "euler", "ddim"]


@dataclass(frozen=True)
class DrawConfig:
    mode: Mode = "concept"
    """concept: a new design for the person, of the item's kind, never to be shown as an item on sale;
    creative: the item's own pixels as they are, what surrounds them made for the person."""
    user_scale: NonNegativeFloat = 4.0
    """How far to lean towards the person; 1 follows what was learned, 0 ignores the person."""
    item_scale: NonNegativeFloat = 3.0
    """How far to lean towards the item."""
    structure_scale: NonNegativeFloat = 0.0
    """How far to keep to the item's outline and edges; creative asks for 1 at least."""
    guide_above: Fraction = 0.3
    """Lean only while more than this share of the picture is noise; 0 leans to the end."""
    solver: Solver = "pc"
    """How a picture comes out of the noise in few steps (generate/image/solvers.py)."""
    steps: PositiveInt = 12
    """Steps of the solver; each costs up to four passes of the denoiser, with heun twice as many."""
    shift: PositiveFloat = 1.0
    """Above 1 steps are closer together while most is noise, below 1 towards the end."""
    candidates: PositiveInt = 1
    """Pictures drawn for each request, of which that is kept which item and person like best."""
    refuse_copies: bool = True
    """Draw anew what is nearer to a picture it learned from than the catalog's own are to each other."""
    safety_model: str = ""
    """An image classifier of the Hugging Face hub, or a folder; what it calls by a name of
    `safety_labels` is drawn anew."""
    safety_labels: tuple[str, ...] = ("nsfw", "unsafe", "porn", "hentai", "sexy")
    tries: NonNegativeInt = 3
    """Rounds more, at most, for what was refused."""
    batch_size: PositiveInt = 64
    """Pictures drawn at once."""
    seed: Seed63 = 0
    """The same request with the same seed gives the same picture."""


@dataclass(frozen=True)
class ImageBulkConfig:
    generator: str = ""
    """Folder of an image-generator artifact."""
    recommender: str = ""
    """One extended from the recommender it was trained with, to know its items."""
    items: str = "top:3"
    """Of what: each person's so many best items, or ids with commas between."""
    users: str = ""
    """For whom: a file with an id on each line; empty: everybody."""
    draw: DrawConfig = field(default_factory=DrawConfig)


@dataclass(frozen=True)
class ImageScoreConfig:
    people: PositiveInt = 300
    """Test targets for whom pictures are drawn, at most."""
    shown: NonNegativeInt = 6
    """People on the contact sheet."""
    judge: str = ""
    """An image encoder on the Hugging Face hub, or a folder, that nothing was conditioned on, to say what
    pictures are like; empty learns a small one from the catalog's own labels, and checks it."""
    judge_steps: PositiveInt = 600
    """Steps in which that is learned."""
    truth: str = ""
    """Folder of the demo world's truth; empty where nobody knows it."""
    seed: Seed63 = 0
    """Chooses people, strangers and noise."""
    draw: DrawConfig = field(default_factory=DrawConfig)


@dataclass(frozen=True)
class ImageConfig:
    recommender: str = ""
    """Folder of a recommender artifact."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    """Only the training part of each history is read."""
    model: str = ""
    """A pretrained diffusion pipeline of the Hugging Face hub, or a folder (Stable Diffusion 1.5, 2, XL;
    PixArt): kept frozen, with adapters that listen to item and person. Empty: a small denoiser from
    nothing."""
    prompt: str = "a product photo"
    """What a pretrained model is told in words, for every picture."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank updates of a pretrained model's attention; rank 0: none."""
    image_size: PositiveInt = 64
    """Pixels a side of the pictures drawn, or of the square as large as they are; a multiple of the
    codec's patch."""
    frames: PositiveInt = 1
    """Shapes of pictures, at most: those that most of the catalog's pictures are near to."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    drop_user: Fraction = 0.1
    """Chance that a training picture hides its person."""
    drop_item: Fraction = 0.3
    """Chance that a training picture hides its item."""
    drop_structure: Fraction = 0.5
    """Chance that a training picture hides its outline."""
    sibling_share: Fraction = 0.8
    """Chance that a training picture is asked for by the vector of another item of its kind, so
    that the item says what to draw and only the person can say how."""
    alone_share: Fraction = 0.7
    """Chance that a training picture is for somebody known by nothing but this purchase, the clearest case
    of what a state says of looks; else for the person as all else that they took tells. Near 1 pictures
    say more of the person, near 0 they hold together better."""
    batch_size: PositiveInt = 32
    """Pictures in one step on each device."""
    workers: NonNegativeInt = 0
    """Loader processes."""
    sample_every: NonNegativeInt = 500
    """Steps between grids of pictures in the logs; 0 draws none."""
    draw: DrawConfig = field(default_factory=DrawConfig)
    """Saved with the generator as its defaults."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-3, average=0.995)
    )
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_steps=2000))
