"""Settings of generative recommendation by semantic ids; imports no torch."""

from dataclasses import dataclass
from typing import Literal

from catalog.config import NonNegativeFloat, NonNegativeInt, PositiveInt

Tokenizer = Literal["residual-kmeans", "rq-vae"]


@dataclass(frozen=True)
class SemanticIdConfig:
    tokenizer: Tokenizer = "residual-kmeans"
    """The quantiser that turns an item embedding into codes."""
    num_levels: PositiveInt = 3
    """Codes of each item, from coarse to fine; more are appended where items collide in all of them."""
    codebook_size: PositiveInt = 256
    """Codes of each level; in a small catalog at most a quarter of its items."""
    tokenizer_steps: NonNegativeInt = 2000
    """Training steps of the RQ-VAE."""
    num_layers: NonNegativeInt = 1
    """Attention layers of the decoder, which predicts an item's next code from those before it."""
    beam_size: PositiveInt = 50
    """Prefixes kept by the beam search at each level; also the length of the lists."""
    num_cold_candidates: NonNegativeInt = 50
    """Nearest cold items (without training interactions) that join the beam's items before all are
    reordered by dense score; 0: the beam's items alone, in the beam's order."""
    dense_loss_weight: NonNegativeFloat = 1.0
    """Weight of the loss of the dense score; not used if `num_cold_candidates` is 0."""
