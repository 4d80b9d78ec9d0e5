"""The content that items start from in fine-tuning: loader, first embeddings, whitening, word bags."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from catalog.artifacts import Artifact
from catalog.catalog import Catalog
from catalog.errors import NonFiniteError
from catalog.splits import Split
from finetune.assembly import AssembledRecommender
from finetune.components import Components
from finetune.config import FinetuneConfig
from finetune.fitting import FitRequest
from finetune.missing_modality import drop_modality_at_random, imputed_embeddings
from finetune.recommender import Adaptor
from finetune.transfer import selected_modalities
from pretrain.artifact import EncoderBundle
from pretrain.content_loader import ItemContentLoader
from pretrain.devices import running_on, training_device
from pretrain.embed_items import embed_items
from pretrain.frozen import cache_frozen_features
from pretrain.projection_init import initialize_projections
from pretrain.vectors_artifact import check_vectors, load_item_vectors

SAMPLED_ITEMS = 2_000
"""Items that are read to find out which modality is missing."""


@dataclass
class ItemContent:
    """What a recommender knows of its items before the first step."""

    loader: ItemContentLoader | None
    """Loads content for the towers; None without towers."""
    embeddings: Tensor | None
    """(num_items, width), not yet adapted; None for ids alone."""
    held_out: NDArray[np.bool_] | None
    """bool (num_items,): items in no training row (`missing_modality.imputation` drop)."""
    towers_learn: bool
    """The towers get gradients, so the embeddings are a cache."""


def prepare_content(
    request: FitRequest, components: Components, assembled: AssembledRecommender
) -> ItemContent:
    """Embeds the content of all items, and fits what is computed from it (whitening, projections)."""
    config, catalog = request.config, request.catalog
    recommender, parts, progress = assembled.recommender, components.parts, config.trainer.progress
    learned = learned_items(config, request.split)
    device = training_device(config.trainer)
    loader = build_content_loader(config, catalog, parts)
    towers_learn = loader is not None and config.transfer not in ("zero-shot", "frozen")
    held_out = None
    if loader is not None and parts is not None:
        if towers_learn or not config.vectors:
            only = None if towers_learn else frozen_in_pretraining(components.base)
            cache_frozen_features(parts.encoder, loader, device, only=only, progress=progress)
        if config.transfer == "scratch":
            items = np.arange(catalog.num_items) if learned is None else np.flatnonzero(learned)
            initialize_projections(parts.encoder, loader, items, config.trainer.seed, device)
        if config.missing_modality.percent:
            lost = drop_modality_at_random(config.missing_modality, loader, config.trainer.seed)
            held_out = lost if config.missing_modality.imputation == "drop" else None
    embeddings = initial_embeddings(request, components, loader, recommender.content_width)
    if embeddings is not None:
        whiten(recommender.adaptor, embeddings, catalog, loader, learned)
    if components.vocabulary is not None:
        assert recommender.bag_of_words is not None
        permutation = None if loader is None else loader.permutation
        recommender.bag_of_words.set_items(components.vocabulary.read(catalog, permutation))
    return ItemContent(loader, embeddings, held_out, towers_learn)


def frozen_in_pretraining(base: Artifact | None) -> set[str]:
    """The modalities whose towers have the weights of their checkpoints still, so that others use their
    cached features, too."""
    encoder = {} if base is None else base.manifest["config"].get("encoder", {})
    towers = {"text": encoder.get("text"), "image": encoder.get("image")}
    towers |= encoder.get("extra_modalities", {})
    return {name for name, tower in towers.items() if tower and tower["frozen"]}


def learned_items(config: FinetuneConfig, split: Split) -> NDArray[np.bool_] | None:
    """The items that content statistics are computed from, bool (num_items,); None: all items."""
    return split.warm_items if config.content_statistics == "trained" else None


def build_content_loader(
    config: FinetuneConfig, catalog: Catalog, parts: EncoderBundle | None
) -> ItemContentLoader | None:
    """The loader of item content for the towers of `parts`, or, as a control, of other items' content."""
    if parts is None:
        return None
    permutation = None
    if config.features == "shuffled":  # the same for every arm
        permutation = np.random.default_rng(7).permutation(catalog.num_items)
    loader = parts.content_loader(catalog, permutation)
    if config.modalities:
        loader.keep_modalities(selected_modalities(config.modalities, loader.kinds))
    return loader


def initial_embeddings(
    request: FitRequest, components: Components, loader: ItemContentLoader | None, width: int
) -> Tensor | None:
    """Item embeddings before the first step: (num_items, width), or None for ids alone."""
    config, catalog = request.config, request.catalog
    if config.features == "id":
        return None
    if config.features == "random":
        generator = torch.Generator().manual_seed(7)
        return F.normalize(torch.randn(catalog.num_items, width, generator=generator), dim=-1)
    if config.vectors:
        assert components.base is not None
        vectors = np.array(load_item_vectors(config.vectors, components.base, catalog))
        check_vectors(vectors, catalog, config.vectors)
        permutation = None if loader is None else loader.permutation
        return torch.from_numpy(vectors if permutation is None else vectors[permutation])
    assert components.parts is not None
    assert loader is not None
    encoder, missing = components.parts.encoder, config.missing_modality
    if missing.percent and missing.imputation not in ("mask", "drop"):
        return imputed_embeddings(
            missing, encoder, loader, request.split, progress=config.trainer.progress
        )
    content = np.empty((catalog.num_items, width), dtype=np.float32)
    with running_on(encoder, training_device(config.trainer)):
        embed_items(encoder, loader, content, progress=config.trainer.progress)
    return torch.from_numpy(content)


def whiten(
    adaptor: Adaptor,
    content: Tensor,
    catalog: Catalog,
    loader: ItemContentLoader | None,
    learned_items: NDArray[np.bool_] | None = None,
) -> None:
    """Fits the adaptor's whitening to `content` (num_items, width), by default of all items.

    With `learned_items`, bool (num_items,), to those alone. If it cannot be fitted because no item has a
    modality that is read, NonFiniteError names the modalities.
    """
    try:
        adaptor.whiten(
            content if learned_items is None else content[torch.from_numpy(learned_items)]
        )
    except NonFiniteError:
        if loader is None:
            raise
        items = np.arange(min(catalog.num_items, SAMPLED_ITEMS))
        read = [
            name for name in loader.kinds if not loader.dropped.get(name, np.zeros(1, bool)).all()
        ]
        content_of = loader.read(items)
        absent = [name for name in read if not content_of[name]["present"].any()]
        if absent != read:
            raise
        raise NonFiniteError(
            f"no item of {catalog.name} has a modality that is read ({', '.join(read)}), so all content "
            "vectors are the same and whitening has no direction to scale; read another modality "
            "(--modalities), or use --features id --transfer scratch"
        ) from None
