"""Builds a stage's module and batches without loading weights or decoding files of items.

Towers are built from their configs, and images are random tensors of the right shape. Rows, texts and
missing modalities are the real ones.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.artifacts import Artifact, local_folder, read_manifest
from catalog.catalog import Catalog
from catalog.splits import Split
from finetune.assembly import assemble
from finetune.components import build_components
from finetune.config import FinetuneConfig
from finetune.data import FinetuneBatch, FinetuneData
from finetune.module import FinetuneModule, StepSettings
from generate.image.config import ImageConfig
from launch.memory_plan.built_stage import BuiltStage
from launch.memory_plan.image_stage import build_image_stage
from pretrain.artifact import SEQUENCE_FOLDER, EncoderBundle, new_encoder
from pretrain.config import PretrainConfig, SequenceConfig
from pretrain.data import PretrainBatch
from pretrain.encoder import ItemEncoder, ItemEncoderConfig
from pretrain.frozen import frozen_towers
from pretrain.grad_cache import enable_activation_checkpointing
from pretrain.hub import read_config
from pretrain.modalities import Content, Modality, Text
from pretrain.modalities.audio import AudioModality, feature_shape
from pretrain.modalities.base import CACHED_FEATURES
from pretrain.modalities.image import shape_of
from pretrain.module import PretrainModule
from pretrain.packing import PackedHistories, stack_rows
from pretrain.retrieval import hold_out
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.towers.build import build_tower

TEXTS_FOR_TOKENIZER = 2000
"""Texts a tokenizer is trained on here; its token counts are about those of one trained on all texts."""

StageConfig = PretrainConfig | FinetuneConfig
PlanConfig = StageConfig | ImageConfig


def build_stage(config: PlanConfig, catalog: Catalog, split: Split) -> BuiltStage:
    """Builds the stage: fake tensors within `FakeTensorMeter`, otherwise real ones with random weights."""
    if isinstance(config, ImageConfig):
        return build_image_stage(config, catalog)
    with without_weights():
        if isinstance(config, PretrainConfig):
            return _pretraining(config, catalog, split)
        return _finetuning(config, catalog, split)


def _pretraining(config: PretrainConfig, catalog: Catalog, split: Split) -> BuiltStage:
    parts = new_encoder(
        replace(config.encoder, sequence=_without_checkpoint(config.encoder.sequence)), catalog
    )
    edges = catalog.edges if config.objectives.edges else None
    module = PretrainModule(
        parts.encoder,
        parts.sequence_encoder,
        config.objectives,
        config.optimizer,
        torch.zeros(catalog.num_items),
        torch.arange(catalog.num_items),
        config.data.num_micro_batches,
        config.data.activation_checkpointing,
        linked=edges is not None,
    )
    if config.data.activation_checkpointing:
        enable_activation_checkpointing(parts.encoder)
    rows = stage_rows(config, catalog, split)
    cached_modalities = frozen_towers(parts.encoder, bool(config.objectives.language_modeling))
    content = ContentShapes(catalog, parts, cached_modalities)

    def distinct(step: int) -> tuple[Tensor, Tensor, Tensor, NDArray[np.int64], Tensor]:
        first = step * config.data.rows
        items, segments, links = stack_rows([rows[first + n] for n in range(config.data.rows)])
        found, slots = np.unique(items.numpy(), return_inverse=True)
        return items, segments, links, found, torch.from_numpy(slots).view_as(items)

    def batch(step: int) -> PretrainBatch:
        items, segments, links, found, slots = distinct(step)
        return PretrainBatch(items, segments, slots, links, content.of(found))

    items, segments, links = (part[:, :2] for part in stack_rows([rows[0]]))
    found, slots = np.unique(items.numpy(), return_inverse=True)
    slots = torch.from_numpy(slots).view_as(items)
    module.freeze_unused(PretrainBatch(items, segments, slots, links, content.of(found)))
    return BuiltStage(
        module, parts.encoder, batch, lambda step: distinct(step)[3], content.cost, keeps_best=False
    )


def _finetuning(config: FinetuneConfig, catalog: Catalog, split: Split) -> BuiltStage:
    if config.sequence is not None:
        config = replace(config, sequence=_without_checkpoint(config.sequence))
    if config.features == "auto":  # the larger of what it tries
        config = replace(config, features="content+id")
    components = build_components(config, catalog)
    built = assemble(components, config, catalog.num_items)
    encoder = built.recommender.encoder
    learns = encoder is not None and config.transfer not in ("zero-shot", "frozen")
    content = None
    if config.features != "id":
        # Not zeros: normalising them has no finite gradient, and every step would be skipped.
        content = torch.randn(catalog.num_items, built.recommender.content_width)
    module = FinetuneModule(
        built.recommender,
        content,
        torch.from_numpy(split.train_counts),
        StepSettings.of(config, catalog.num_items),
    )
    length = components.history.config.max_history
    rows = stage_rows(config, catalog, split, length)
    shapes = None
    if learns and components.parts is not None and encoder is not None:
        shapes = ContentShapes(catalog, components.parts, frozen_towers(encoder))
    chooser = FinetuneData(catalog, split, None, config.data, row_length=length, seed=0)

    def batch(step: int) -> FinetuneBatch:
        first = step * config.data.rows
        items, segments, _ = stack_rows([rows[first + n] for n in range(config.data.rows)])
        if shapes is None:
            return FinetuneBatch(items, segments, None, {})
        fresh = chooser._choose_fresh(items.numpy())
        return FinetuneBatch(items, segments, torch.from_numpy(fresh), shapes.of(fresh))

    first_items, segments, _ = (part[:, :2] for part in stack_rows([rows[0]]))
    two = np.arange(min(2, catalog.num_items))
    fresh, read_now = (None, {}) if shapes is None else (torch.from_numpy(two), shapes.of(two))
    module.freeze_unused(FinetuneBatch(first_items, segments, fresh, read_now))

    def read(step: int) -> NDArray[np.int64]:
        fresh = batch(step).fresh if shapes else None
        return np.empty(0, dtype=np.int64) if fresh is None else fresh.numpy()

    cost = shapes.cost if shapes else len
    keeps_best = len(split.validation) > 0
    return BuiltStage(module, encoder if learns else None, batch, read, cost, keeps_best)


def stage_rows(
    config: StageConfig, catalog: Catalog, split: Split, length: int = 0
) -> PackedHistories:
    """The rows that the stage reads."""
    if isinstance(config, FinetuneConfig):
        return PackedHistories(
            catalog.interactions, split.train_end, catalog.num_items, length, config.trainer.seed
        )
    return PackedHistories(
        catalog.interactions,
        split.train_end,
        catalog.num_items,
        config.data.row_length,
        config.trainer.seed,
        config.data.uniform_share,
        catalog.edges if config.objectives.edges else None,
        config.data.edges_share,
        hold_out(catalog, config.data.held_out),
    )


class ContentShapes:
    """The content of a batch's items: real texts, and random tensors of the right shape for the rest."""

    def __init__(
        self, catalog: Catalog, parts: EncoderBundle, cached_modalities: list[str]
    ) -> None:
        """`cached_modalities`: those whose frozen towers are read from a cache (see `pretrain.frozen`)."""
        self.catalog, self.kinds, self.cached_modalities = (
            catalog,
            parts.encoder.kinds,
            cached_modalities,
        )
        self.processors = parts.processors
        self.texts = {
            name: kind.open(catalog, parts.processors[name])
            for name, kind in self.kinds.items()
            if isinstance(kind, Text)
        }

    def of(self, items: NDArray[np.int64]) -> Content:
        return {name: self._of(name, kind, items) for name, kind in self.kinds.items()}

    def cost(self, items: NDArray[np.int64]) -> int:
        """Approximate number of tokens and patches that go through the towers that are not cached."""
        total = 0
        for name, kind in self.kinds.items():
            if name in self.cached_modalities:
                total += len(items)
            elif name in self.texts:
                total += int(self.texts[name].read(items)["attention_mask"].sum())
            else:
                total += kind.tokens * sum(self._has(kind, int(item)) for item in items)
        return total

    def _of(self, name: str, kind: Modality, items: NDArray[np.int64]) -> dict[str, Tensor]:
        if name in self.texts:
            inputs = self.texts[name].read(items)
        else:
            present = torch.tensor([self._has(kind, int(item)) for item in items])
            inputs = {"present": present}
        rows = max(1, int(inputs["present"].sum()))
        if name in self.cached_modalities:
            return {**inputs, CACHED_FEATURES: torch.randn(rows, kind.width)}
        if name in self.texts:
            return inputs
        return {**inputs, **self._inputs(name, kind, rows)}

    def _has(self, kind: Modality, item: int) -> bool:
        if kind.kind in ("image", "video", "audio"):
            return self.catalog.media_path(item, kind.spec["source"]) is not None
        return True

    def _inputs(self, name: str, kind: Modality, rows: int) -> dict[str, Tensor]:
        spec = kind.spec
        if kind.kind in ("image", "video"):
            frames = (spec["frames"],) if kind.kind == "video" else ()
            return {"pixel_values": torch.randn(rows, *frames, 3, *shape_of(spec))}
        if isinstance(kind, AudioModality):
            shape = feature_shape(self.processors[name], kind.samples)
            return {"values": torch.randn(rows, *shape)}
        if kind.kind == "attributes":
            categories = torch.zeros(rows, len(spec["categories"]), dtype=torch.int64)
            return {"numbers": torch.randn(rows, len(spec["numbers"])), "categories": categories}
        return {"values": torch.randn(rows, kind.width)}


def _without_checkpoint(sequence: SequenceConfig) -> SequenceConfig:
    """The settings with a pretrained model replaced by its config, so that no weights are loaded."""
    if not sequence.model:
        return sequence
    shape = read_config(sequence.model).to_dict()
    return replace(sequence, model="", decoder=shape)


@contextmanager
def without_weights() -> Iterator[None]:
    """Within this context no weights are loaded, and tokenizers are trained on a sample of texts."""

    def fresh_tower(config: Any, pretrained: str = "", embedding: bool = False) -> Any:
        return build_tower(config, embedding=embedding)

    def brief_tokenizer(texts: Any, vocab_size: int) -> Any:
        return learn(islice(texts, TEXTS_FOR_TOKENIZER), vocab_size)

    def shapes_of(folder: str | Path) -> tuple[Artifact, EncoderBundle]:
        return open_encoder_shapes(folder)

    from pretrain.modalities.text import train_tokenizer as learn

    with ExitStack() as stack:
        stack.enter_context(patch("pretrain.modalities.base.build_tower", fresh_tower))
        stack.enter_context(patch("pretrain.modalities.text.train_tokenizer", brief_tokenizer))
        stack.enter_context(patch("finetune.artifact.open_encoder", shapes_of))
        yield


def open_encoder_shapes(folder: str | Path) -> tuple[Artifact, EncoderBundle]:
    """An encoder artifact without its weights."""
    from pretrain.artifact import open_encoder

    if not str(folder):
        return open_encoder(folder)  # raises the error for a missing folder
    path = local_folder(folder)
    artifact = Artifact(path.resolve(), read_manifest(path))
    encoder = ItemEncoder(ItemEncoderConfig.from_pretrained(path))
    sequence_encoder = SequenceEncoder(
        SequenceEncoderConfig.from_pretrained(path / SEQUENCE_FOLDER)
    )
    processors = {
        name: kind.load_processor(path / "processors" / name)
        for name, kind in encoder.kinds.items()
        if (path / "processors" / name).is_dir()
    }
    return artifact, EncoderBundle(encoder, sequence_encoder, processors)
