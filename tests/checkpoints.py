"""Checkpoints as others would make them, tiny and random, to be loaded by path."""

import json
from pathlib import Path
from typing import Any

from transformers import BertConfig, BertForMaskedLM, ViTConfig, ViTForImageClassification

from pretrain.tokenizer import train_tokenizer

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def text_checkpoint(folder: Path, **changes: Any) -> Path:
    """A BERT of 64 positions, with a tokenizer."""
    tokenizer = train_tokenizer(["item 0 1 2 3 a red cup, a blue mug"] * 20, 60)
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, **{**SMALL, **changes}
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def image_checkpoint(folder: Path) -> Path:
    """A ViT of 16 pixels, with a preprocessor."""
    ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **SMALL)).save_pretrained(
        folder
    )
    settings = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
