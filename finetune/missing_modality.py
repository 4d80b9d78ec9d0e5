"""Missing-modality study: masks, leaves out or imputes a modality that is dropped from random items.

The same recommender is fitted to what each method makes of these items, with frozen towers. The
imputations that propagate features over the graph of items bought together follow Malitesta et al.
(2024), "Do we really need to drop items with missing modalities in multimodal recommendation?"; masking
is the encoder's own.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import VitrineError, did_you_mean
from catalog.splits import Split
from finetune.baselines.item_knn import DEFAULT_SHRINK, ItemKNN
from finetune.config import FinetuneConfig, MissingModalityConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.embed_items import embed_items
from pretrain.encoder import ItemEncoder

NEIGHBOURS = 20
"""Edges from each item of the graph."""
PAGERANK_STEPS = 20


def check_missing_modality(config: FinetuneConfig) -> None:
    """Raises VitrineError if the study contradicts the other settings."""
    settings = config.missing_modality
    if not 0 <= settings.percent < 100:
        raise VitrineError(
            f"missing_modality.percent is {settings.percent:g}; give 0 or more, below 100"
        )
    if settings.percent and config.transfer != "frozen":
        raise VitrineError(
            f"missing_modality.percent {settings.percent:g} is a study of pretrained embeddings, but "
            f"transfer is '{config.transfer}'; use --transfer frozen"
        )
    if settings.percent and config.vectors:
        raise VitrineError(
            f"the vectors {config.vectors} contain every {settings.modality}; leave out --vectors, or "
            "--missing_modality.percent"
        )


def drop_modality_at_random(
    settings: MissingModalityConfig, loader: ItemContentLoader, seed: int
) -> NDArray[np.bool_]:
    """Drops the modality of random items from a loader; returns which, bool (num_items,).

    An item without it at one percentage is without it at every larger one.
    """
    if settings.modality not in loader.kinds:
        raise VitrineError(
            f"missing_modality.modality is {settings.modality!r}, which the encoder does not read."
            f"{did_you_mean(settings.modality, loader.kinds)}"
        )
    num_items = loader.catalog.num_items
    order = np.random.default_rng((seed, 77)).permutation(num_items)
    lost = order < round(settings.percent / 100 * num_items)
    loader.drop_modality(settings.modality, lost)
    return lost


def imputed_embeddings(
    settings: MissingModalityConfig,
    encoder: ItemEncoder,
    loader: ItemContentLoader,
    split: Split,
    progress: bool = False,
) -> Tensor:
    """Item embeddings (num_items, width), in which every item has the modality, its own or an imputed one."""
    catalog = loader.catalog
    index = encoder.modalities.index(settings.modality)
    shape = (catalog.num_items, len(encoder.modalities), encoder.config.width)
    stored = np.empty(shape, dtype=np.float32)
    embed_items(
        encoder, loader, stored, of=lambda vectors: vectors.modality_embeddings, progress=progress
    )
    parts = torch.from_numpy(stored)
    present = (parts != 0).any(dim=2)
    known = present[:, index]
    with torch.no_grad():
        if settings.imputation == "zeros":
            empty = torch.zeros(1, encoder.kinds[settings.modality].width)
            imputed = encoder.projections[settings.modality](empty).expand(len(parts), -1)
        else:
            mean = parts[known, index].mean(dim=0, keepdim=True).nan_to_num()
            imputed = mean.expand(len(parts), -1)
            if settings.imputation != "mean":
                imputed = propagate(settings, parts[:, index], known, item_graph(catalog, split))
        parts[:, index] = torch.where(known.unsqueeze(1), parts[:, index], imputed)
        present[:, index] = True
        fused = [
            encoder.gate(*some) for some in zip(parts.split(8192), present.split(8192), strict=True)
        ]
        return F.normalize(torch.cat(fused), dim=-1)


def item_graph(catalog: Catalog, split: Split) -> Tensor:
    """Transition matrix between items bought together in training: sparse (num_items, num_items).

    Edges are those of item-kNN, in both directions; rows sum to 1, or to 0 where there is no edge.
    """
    near = ItemKNN.fit(catalog, split, NEIGHBOURS, DEFAULT_SHRINK)
    sources = torch.arange(catalog.num_items).repeat_interleave(near.items.shape[1])
    targets, weights = near.items.flatten(), near.similarities.flatten()
    kept = weights > 0
    edges = torch.stack([sources[kept], targets[kept]])
    both = torch.sparse_coo_tensor(
        torch.cat([edges, edges.flip(0)], dim=1),
        weights[kept].repeat(2),
        (catalog.num_items, catalog.num_items),
        check_invariants=False,
    ).coalesce()
    rows = both.indices()[0]
    sums = torch.zeros(catalog.num_items).index_add_(0, rows, both.values())
    return torch.sparse_coo_tensor(
        both.indices(),
        both.values() / sums[rows],
        both.shape,
        is_coalesced=True,
        check_invariants=False,
    )


def propagate(
    settings: MissingModalityConfig, values: Tensor, known: Tensor, graph: Tensor
) -> Tensor:
    """Feature propagation: per item a weighted mean of the `values` of `known` items, (num_items, width).

    neighbours: of the items one step away; multi-hop: over `hops` steps, at each of which known items
    keep their own value (Rossi et al., 2022); pagerank: weighted by personalised PageRank with restart
    probability `restart` (Haveliwala, 2002). The mean of all if no known item is reached.
    """
    own = torch.cat([values, torch.ones(len(values), 1)], dim=1) * known.unsqueeze(1)
    reached = own
    steps = {"neighbours": 1, "multi-hop": settings.hops}.get(settings.imputation, PAGERANK_STEPS)
    for _ in range(steps):
        reached = torch.sparse.mm(graph, reached)
        if settings.imputation == "pagerank":
            reached = (1 - settings.restart) * reached + settings.restart * own
        else:
            reached = torch.where(known.unsqueeze(1), own, reached)
    mass = reached[:, -1:]
    overall = values[known].mean(dim=0).nan_to_num()
    return torch.where(mass > 0, reached[:, :-1] / mass.clamp(min=1e-12), overall)
