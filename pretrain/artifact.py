"""Makes a new encoder from settings, writes it as an artifact, and reads it back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, BaseImageProcessor, PreTrainedTokenizerBase
from transformers.utils import logging

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from pretrain.config import EncoderConfig, TowerConfig
from pretrain.content import ContentReader
from pretrain.encoder import ItemEncoder, ItemEncoderConfig
from pretrain.history import HistoryEncoder, HistoryEncoderConfig
from pretrain.tokenizer import train_tokenizer
from pretrain.towers import tower_config


@contextmanager
def without_bars(logging: ModuleType = logging) -> Iterator[None]:
    """Switches the progress bars off: what lies in an artifact loads in an instant.

    `logging` is that of transformers or of diffusers.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@dataclass
class EncoderParts:
    """All that turns a catalog into item vectors, and histories of them into states."""

    encoder: ItemEncoder
    history: HistoryEncoder
    tokenizer: PreTrainedTokenizerBase | None

    def reader(self, catalog: Catalog, order: NDArray[np.int64] | None = None) -> ContentReader:
        config = self.encoder.config
        return ContentReader(
            catalog,
            self.tokenizer,
            max_tokens=config.max_tokens,
            image_size=config.image_size if config.image_config else None,
            image_mean=config.image_mean,
            image_std=config.image_std,
            order=order,
        )

    def save(self, folder: Path) -> None:
        """Hugging Face layout: the encoder in `folder`, the history encoder in `folder/history`."""
        with without_bars():
            self.encoder.save_pretrained(folder)
            self.history.save_pretrained(folder / "history")
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> "EncoderParts":
        with without_bars():
            encoder = ItemEncoder.from_pretrained(folder)
            history = HistoryEncoder.from_pretrained(folder / "history")
        tokenizer = AutoTokenizer.from_pretrained(folder) if encoder.config.text_config else None
        return cls(encoder, history, tokenizer)


def new_encoder(settings: EncoderConfig, catalog: Catalog) -> EncoderParts:
    """An untrained encoder (towers may bring trained weights); its tokenizer learns from `catalog`."""
    tokenizer: PreTrainedTokenizerBase | None = None
    text_config = image_config = None
    pretrained: dict[str, str] = {}
    preprocessing: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if settings.text is not None:
        if settings.text.model:
            tokenizer = AutoTokenizer.from_pretrained(settings.text.model)
            pretrained["text"] = settings.text.model
            text_config = tower_config(settings.text)
        else:
            texts = (catalog.text_of(item) or "" for item in range(catalog.num_items))
            tokenizer = train_tokenizer(texts, settings.text.vocab_size)
            text_config = tower_config(
                settings.text, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id
            )
    if settings.image is not None:
        if settings.image.model:
            pretrained["image"] = settings.image.model
            image_config = tower_config(settings.image)
            values, _ = BaseImageProcessor.get_image_processor_dict(settings.image.model)
            preprocessing = {name: values.get(name, preprocessing[name]) for name in preprocessing}
        else:
            image_config = tower_config(settings.image, image_size=settings.image.image_size)
    if text_config is None and image_config is None:
        raise VitrineError("encoder.text and encoder.image are both null; an item needs one tower")
    config = ItemEncoderConfig(
        width=settings.width,
        text_config=None if text_config is None else text_config.to_dict(),
        image_config=None if image_config is None else image_config.to_dict(),
        max_tokens=settings.text.max_tokens if settings.text else 0,
        image_size=_image_size(settings.image, image_config),
        modality_dropout=settings.modality_dropout,
        **preprocessing,
    )
    encoder = ItemEncoder(config, pretrained)
    for modality in encoder.modalities:
        if getattr(settings, modality).frozen:
            encoder.towers[modality].requires_grad_(False)
    history = HistoryEncoder(
        HistoryEncoderConfig(
            width=settings.width,
            num_layers=settings.history_layers,
            num_heads=settings.history_heads,
            max_history=settings.max_history,
            dropout=settings.dropout,
        )
    )
    return EncoderParts(encoder, history, tokenizer)


def _image_size(settings: TowerConfig | None, config: Any) -> int:
    """A pretrained tower says its own size."""
    if settings is None:
        return 0
    return (
        int(getattr(config, "image_size", settings.image_size))
        if settings.model
        else settings.image_size
    )


def open_encoder(folder: str | Path) -> tuple[Artifact, EncoderParts]:
    """A verified encoder artifact and its parts."""
    if not str(folder):
        raise VitrineError(
            "no encoder given; pass the folder that `vitrine pretrain` made: --encoder FOLDER"
        )
    artifact = open_artifact(Path(folder), kind="encoder")
    return artifact, EncoderParts.load(artifact.path)


def count_parameters(module: Any, trained_only: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)
