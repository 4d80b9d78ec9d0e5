"""The encoder artifact: builds a new encoder from settings, saves it, and loads it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError, did_you_mean
from pretrain.config import EncoderConfig, ModalityConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.encoder import ItemEncoder, ItemEncoderConfig
from pretrain.lora import add_lora
from pretrain.modalities import MODALITIES, Modality, Processor
from pretrain.sequence_encoder import SequenceEncoder, new_sequence_encoder
from pretrain.shards import float32_state
from pretrain.towers.dual import check_dual

SEQUENCE_FOLDER = "sequence_encoder"
"""In an encoder artifact: the folder of its sequence encoder."""


@contextmanager
def without_bars(logging: ModuleType = logging) -> Iterator[None]:
    """Disables progress bars inside the block, since an artifact's models load at once.

    `logging` is the logging module of transformers or of diffusers.
    """
    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()


Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass
class EncoderBundle:
    """The item encoder, the sequence encoder and the processors (tokenizers) of the modalities."""

    encoder: ItemEncoder
    sequence_encoder: SequenceEncoder
    processors: dict[str, Processor]
    """Modality → its tokenizer or feature extractor, for modalities that need one."""

    def content_loader(
        self, catalog: Catalog, permutation: NDArray[np.int64] | None = None
    ) -> ItemContentLoader:
        return ItemContentLoader(catalog, self.encoder.kinds, self.processors, permutation)

    def save(self, folder: Path) -> None:
        """Saves in Hugging Face layout: the item encoder in `folder`, the sequence encoder in
        `folder/sequence_encoder`, processors in `folder/processors/<modality>`."""
        with without_bars():
            for model, place in (
                (self.encoder, folder),
                (self.sequence_encoder, folder / SEQUENCE_FOLDER),
            ):
                model.save_pretrained(place, state_dict=float32_state(model))
            for name, processor in self.processors.items():
                processor.save_pretrained(folder / "processors" / name)

    @classmethod
    def load(cls, folder: Path) -> "EncoderBundle":
        with without_bars():
            encoder = _load_whole(ItemEncoder, folder)
            sequence_encoder = _load_whole(SequenceEncoder, folder / SEQUENCE_FOLDER)
            processors = {
                name: kind.load_processor(folder / "processors" / name)
                for name, kind in encoder.kinds.items()
                if (folder / "processors" / name).is_dir()
            }
        return cls(encoder, sequence_encoder, processors)


def _load_whole(cls: type[Model], folder: Path) -> Model:
    """A model of `folder` in float32; VitrineError unless its weights are exactly those of the class, since
    transformers would initialise what is missing at random."""
    model, info = cls.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)  # pyright: ignore[reportGeneralTypeIssues]
    wrong = sorted(
        [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]], key=str
    )
    if wrong:
        raise VitrineError(
            f"{folder} and its config disagree about {len(wrong)} weights, such as {wrong[0]}; make the "
            "encoder again with this version of transformers"
        )
    return model


def new_encoder(settings: EncoderConfig, catalog: Catalog) -> EncoderBundle:
    """An untrained encoder (towers may bring trained weights); its tokenizers learn from `catalog`."""
    modalities = settings.modalities()
    if not modalities:
        raise VitrineError("encoder.text and encoder.image are both null; an item needs one tower")
    _check_names(modalities, settings)
    if settings.dual:
        check_dual(settings.dual, modalities)
    built = {
        name: MODALITIES[modality.kind].new(modality, catalog)
        for name, modality in modalities.items()
        if not modality.tower
    }
    kinds: dict[str, Modality] = {}
    processors: dict[str, Processor] = {}
    for name, modality in modalities.items():
        kind, processor = built[modality.tower or name]
        if modality.tower:
            catalog.check_column(modality.source)
            kind = MODALITIES[modality.kind].sharing(modality, kind)
        if settings.dual and modality.model == settings.dual:
            kind = type(kind)(kind.spec | {"dual": True})
        kinds[name] = kind
        if processor is not None:
            processors[name] = processor
    config = ItemEncoderConfig(
        width=settings.width,
        modalities=[{"name": name, **kind.spec} for name, kind in kinds.items()],
        modality_dropout=settings.modality_dropout,
    )
    pretrained = {name: m.model for name, m in modalities.items() if m.model and not m.tower}
    encoder = ItemEncoder(config, pretrained)
    for name, tower in encoder.towers.items():
        if modalities[name].frozen:
            tower.requires_grad_(False)
        if modalities[name].lora_rank:
            add_lora(tower, name, modalities[name].lora_rank)
    sequence_encoder = new_sequence_encoder(settings.sequence, settings.width)
    return EncoderBundle(encoder, sequence_encoder, processors)


def _check_names(modalities: dict[str, ModalityConfig], settings: EncoderConfig) -> None:
    for name, modality in settings.extra_modalities.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in ("text", "image"):
            raise VitrineError(
                f"encoder.extra_modalities has a modality called {name!r}; use another name, of lower-case "
                "letters, digits and _"
            )
        if not modality.source:
            raise VitrineError(
                f"encoder.extra_modalities.{name} does not say what it reads; set source to a column of the "
                "items, or to a file of vectors"
            )
        if modality.tower and (
            modality.tower not in modalities or modalities[modality.tower].tower
        ):
            raise VitrineError(
                f"encoder.extra_modalities.{name}.tower is {modality.tower!r}, which has no tower of its own."
                f"{did_you_mean(modality.tower, modalities)}"
            )


def open_encoder(folder: str | Path) -> tuple[Artifact, EncoderBundle]:
    """The verified encoder artifact of `folder`, and its models and processors."""
    if not str(folder):
        raise VitrineError(
            "no encoder given; pass the folder that `vitrine pretrain` made: --encoder FOLDER"
        )
    artifact = open_artifact(Path(folder), kind="encoder")
    return artifact, EncoderBundle.load(artifact.path)


def count_parameters(module: Any, trained_only: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)
