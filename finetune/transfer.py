"""What each transfer mode trains and stores: zero-shot, frozen, LoRA, full fine-tuning or from scratch."""

from collections.abc import Collection
from typing import Any

from catalog.errors import VitrineError, did_you_mean
from finetune.recommender import Recommender
from pretrain.config import SequenceConfig


def set_trainable(recommender: Recommender, transfer: str) -> None:
    """Sets `requires_grad` for a mode without LoRA: `frozen` freezes the encoder, `zero-shot` everything."""
    if transfer == "zero-shot":
        recommender.requires_grad_(False)
    if transfer == "frozen" and recommender.encoder is not None:
        recommender.encoder.requires_grad_(False)


def without_towers(features: str) -> bool:
    """Whether items are represented without content: by id embeddings alone or by random vectors."""
    return features in ("id", "random")


def selected_modalities(modalities: str, known: Collection[str]) -> set[str]:
    """The names in the setting `modalities`; VitrineError for one that the encoder does not read."""
    names = {name.strip() for name in modalities.split(",") if name.strip()}
    for name in names:
        if name not in known:
            raise VitrineError(
                f"modalities names {name!r}, which the encoder does not read.{did_you_mean(name, known)}"
            )
    return names


def has_own_encoder(transfer: str) -> bool:
    """Whether the artifact stores all weights of the item encoder."""
    return transfer in ("scratch", "full")


def id_part_width(features: str, bag_of_words: bool, id_width: int) -> int:
    """Dimensions that id and word embeddings have of their own, concatenated to the content's."""
    return id_width if features == "content+id" or (bag_of_words and features != "id") else 0


def has_own_sequence_encoder(
    features: str, transfer: str, sequence: SequenceConfig | dict[str, Any] | None, id_width: int
) -> bool:
    """Whether the sequence encoder is new instead of the one pretrained with the item encoder."""
    configured = sequence is not None and transfer != "scratch"
    return without_towers(features) or id_width > 0 or configured
