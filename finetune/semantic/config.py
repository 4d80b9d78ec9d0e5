"""Settings of recommending by semantic ids; imports no torch."""

from dataclasses import dataclass
from typing import Literal

from catalog.config import NonNegativeFloat, NonNegativeInt, PositiveInt

Tokenizer = Literal["residual-kmeans", "rq-vae"]


@dataclass(frozen=True)
class SemanticConfig:
    tokenizer: Tokenizer = "residual-kmeans"
    """What makes codes of an item's vector."""
    levels: PositiveInt = 3
    """Codes of each item, from coarse to fine; further ones tell items apart that share all of them."""
    codes: PositiveInt = 256
    """Different codes at each level; in a small catalog at most a quarter of its items."""
    tokenizer_steps: NonNegativeInt = 2000
    """Training steps of the RQ-VAE."""
    layers: NonNegativeInt = 1
    """Layers of attention that read an item's codes so far and tell the next one."""
    beam: PositiveInt = 50
    """Beginnings of ids that are kept while an item is told; lists are as long."""
    cold: NonNegativeInt = 50
    """Items nobody took in training that join the beam's, nearest first, before a dense score orders
    them all; 0: the beam alone, in its own order."""
    dense: NonNegativeFloat = 1.0
    """Weight of the loss that the dense score learns from; not used where `cold` is 0."""
