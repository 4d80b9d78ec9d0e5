"""Small encoders and random texts that the benchmarks of training steps share."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalog.catalog import load_catalog
from launch.pipeline.config import PipelineConfig
from launch.settings import load_settings
from pretrain.config import ModalityConfig, TowerConfig
from pretrain.encoder import ItemEncoder, ItemEncoderConfig
from pretrain.modalities import Text

WIDTH, VOCABULARY = 128, 4096
TRUNK = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
LONGEST = 77
"""Tokens of a text, at most."""
SCALE = 20.0
"""Inverse temperature of the contrastive losses."""


def item_texts() -> dict[str, Tensor]:
    """Token ids and attention masks of the fashion items' texts."""
    catalog = load_catalog(load_settings(PipelineConfig, "pipeline/fashion", []).pretrain.catalog)
    settings = ModalityConfig(
        kind="text",
        source="text",
        config={"model_type": "bert"},
        vocab_size=VOCABULARY,
        max_tokens=LONGEST,
    )
    kind, tokenizer = Text.new(settings, catalog)
    inputs = kind.open(catalog, tokenizer).read(np.arange(catalog.num_items))
    return {key: value for key, value in inputs.items() if key != "present"}


def random_texts(
    batch: int, lengths: Tensor | None, longest: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Random token ids that end in the end token; lengths are drawn from `lengths`, or all `longest`."""
    if lengths is None:
        lengths = torch.tensor([longest])
    drawn = lengths[torch.randint(len(lengths), (batch,), generator=generator)]
    width = int(drawn.max())
    mask = torch.arange(width) < drawn.unsqueeze(1)
    ids = torch.randint(4, VOCABULARY, (batch, width), generator=generator) * mask
    ids[torch.arange(batch), drawn - 1] = 3
    return {"input_ids": ids, "attention_mask": mask.long()}


def text_modality(tower: dict[str, Any], pooling: str, max_tokens: int) -> dict[str, Any]:
    about = {"name": "text", "kind": "text", "source": "text", "tower": tower, "layer": -1}
    about |= {"pooling": pooling, "max_tokens": max_tokens}
    return {**about, "length_groups": TowerConfig().length_groups}


def new_encoder(*modalities: dict[str, Any]) -> ItemEncoder:
    return ItemEncoder(ItemEncoderConfig(width=WIDTH, modalities=list(modalities)))
