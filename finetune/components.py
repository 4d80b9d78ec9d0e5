"""Builds the components of a recommender for a transfer mode: pretrained ones are loaded, others are new."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from catalog.artifacts import Artifact
from catalog.catalog import Catalog
from finetune.bag_of_words import Vocabulary
from finetune.config import FinetuneConfig
from finetune.transfer import has_own_sequence_encoder, id_part_width, without_towers
from pretrain.artifact import EncoderBundle, new_encoder, open_encoder
from pretrain.config import (
    AugmentationConfig,
    EncoderConfig,
    ModalityConfig,
    SequenceConfig,
    TowerConfig,
)
from pretrain.sequence_encoder import SequenceEncoder, new_sequence_encoder


@dataclass
class Components:
    """The parts a domain's recommender is assembled from: item encoder, sequence encoder, vocabulary."""

    base: Artifact | None
    """The encoder artifact; None if items are represented by id alone and none was given."""
    parts: EncoderBundle | None
    """Pretrained, or new for `scratch`; None without towers."""
    history: SequenceEncoder
    own_sequence_encoder: bool
    """`history` is new instead of the one pretrained with the encoder."""
    id_width: int
    """Dimensions of id and word embeddings that are concatenated to the content's."""
    vocabulary: Vocabulary | None
    """Words with embeddings (`bag_of_words`)."""


def build_components(
    config: FinetuneConfig, catalog: Catalog, learned_items: NDArray[np.bool_] | None = None
) -> Components:
    """The components of `config`'s transfer mode, pretrained or untrained.

    The vocabulary of words is that of the items of `learned_items`, bool (num_items,), by default of all.
    """
    base, parts, settings = None, None, EncoderConfig(width=config.width)
    if config.encoder or not without_towers(config.features):
        base, parts = open_encoder(config.encoder)
        if config.transfer == "scratch" or id_part_width(
            config.features, config.bag_of_words, config.id_width
        ):
            settings = untrained_encoder_config(base)
        else:
            settings = replace(settings, width=parts.sequence_encoder.config.width)
    if config.sequence is not None:
        settings = replace(settings, sequence=config.sequence)
    if without_towers(config.features):
        parts = None
    elif config.transfer == "scratch":
        parts = new_encoder(settings, catalog)
    id_width = id_part_width(config.features, config.bag_of_words, config.id_width)
    own = has_own_sequence_encoder(config.features, config.transfer, config.sequence, id_width)
    if own:
        history = new_sequence_encoder(settings.sequence, settings.width + id_width)
    else:
        assert parts is not None
        history = parts.sequence_encoder
    if config.dropout is not None:
        for module in history.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
    vocabulary = Vocabulary.learn(catalog, learned_items) if config.bag_of_words else None
    return Components(base, parts, history, own, id_width, vocabulary)


def untrained_encoder_config(base: Artifact) -> EncoderConfig:
    """The config of an encoder artifact as before its pretraining, for transfer `scratch`.

    A tower with weights of its own that was frozen stays frozen: what it knows does not come from
    pretraining. A tower of untrained weights learns.
    """
    values = dict(base.manifest["config"]["encoder"])

    def reset_tower(tower: dict[str, Any]) -> dict[str, Any]:
        frozen = bool(tower["model"]) and tower["frozen"]
        augmentation = AugmentationConfig(**tower.get("augmentation", {}))
        return {**tower, "frozen": frozen, "lora_rank": 0, "augmentation": augmentation}

    for tower in ("text", "image"):
        if values[tower] is not None:
            values[tower] = TowerConfig(**reset_tower(values[tower]))
    values["extra_modalities"] = {
        n: ModalityConfig(**reset_tower(modality))
        for n, modality in values["extra_modalities"].items()
    }
    values["sequence"] = SequenceConfig(**values["sequence"])
    return EncoderConfig(**values)
