"""What to do about items that lack a modality: mask it, leave such items out, or fill something in.

The study takes a modality away from some items at random and fits the same recommender on what each
way leaves of them, the towers standing still. The ways to fill in by the graph of what people took
together follow Malitesta et al. (2024), "Do we really need to drop items with missing modalities in
multimodal recommendation?"; masking is the encoder's own.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import VitrineError, did_you_mean
from catalog.splits import Split
from finetune.baselines.item_knn import USUAL_SHRINK, ItemKNN
from finetune.config import FinetuneConfig, MissingModalityConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.embed_items import embed_items
from pretrain.encoder import ItemEncoder

NEIGHBOURS = 20
"""Edges from each item of the graph."""
PAGERANK_STEPS = 20


def check_missing_modality(config: FinetuneConfig) -> None:
    """That what is asked for can be done with the other settings."""
    asked = config.missing_modality
    if not 0 <= asked.percent < 100:
        raise VitrineError(
            f"missing_modality.percent is {asked.percent:g}; give 0 or more, below 100"
        )
    if asked.percent and config.transfer != "frozen":
        raise VitrineError(
            f"missing_modality.percent {asked.percent:g} is a study of pretrained embeddings, but "
            f"transfer is '{config.transfer}'; use --transfer frozen"
        )
    if asked.percent and config.vectors:
        raise VitrineError(
            f"the vectors {config.vectors} know of every {asked.modality}; leave out --vectors, or "
            "--missing_modality.percent"
        )


def take_away(
    asked: MissingModalityConfig, reader: ItemContentLoader, seed: int
) -> NDArray[np.bool_]:
    """Lets a reader find less than there is; bool (num_items,): which items lost the modality.

    What is missing at one share is missing at every larger one.
    """
    if asked.modality not in reader.kinds:
        raise VitrineError(
            f"missing_modality.modality is {asked.modality!r}, which the encoder does not read."
            f"{did_you_mean(asked.modality, reader.kinds)}"
        )
    num_items = reader.catalog.num_items
    order = np.random.default_rng((seed, 77)).permutation(num_items)
    lost = order < round(asked.percent / 100 * num_items)
    reader.drop_modality(asked.modality, lost)
    return lost


def filled_content(
    asked: MissingModalityConfig,
    encoder: ItemEncoder,
    reader: ItemContentLoader,
    catalog: Catalog,
    split: Split,
    progress: bool,
) -> Tensor:
    """Item vectors (num_items, width), where every item has the modality, its own or filled in."""
    place = encoder.modalities.index(asked.modality)
    shape = (catalog.num_items, len(encoder.modalities), encoder.config.width)
    read = np.empty(shape, dtype=np.float32)
    embed_items(
        encoder, reader, read, of=lambda found: found.modality_embeddings, progress=progress
    )
    parts = torch.from_numpy(read)
    present = (parts != 0).any(dim=2)
    known = present[:, place]
    with torch.no_grad():
        if asked.imputation == "zeros":
            silent = torch.zeros(1, encoder.kinds[asked.modality].width)
            absent = encoder.projections[asked.modality](silent).expand(len(parts), -1)
        else:
            mean = parts[known, place].mean(dim=0, keepdim=True).nan_to_num()
            absent = mean.expand(len(parts), -1)
            if asked.imputation != "mean":
                absent = over_the_graph(asked, parts[:, place], known, walk_over(catalog, split))
        parts[:, place] = torch.where(known.unsqueeze(1), parts[:, place], absent)
        present[:, place] = True
        fused = [
            encoder.gate(*some) for some in zip(parts.split(8192), present.split(8192), strict=True)
        ]
        return F.normalize(torch.cat(fused), dim=-1)


def walk_over(catalog: Catalog, split: Split) -> Tensor:
    """A step from each item to those taken with it in training: sparse (num_items, num_items).

    Edges are those of item-kNN, in both directions; rows sum to 1, or to 0 where there is no edge.
    """
    near = ItemKNN.fit(catalog, split, NEIGHBOURS, USUAL_SHRINK)
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


def over_the_graph(
    asked: MissingModalityConfig, values: Tensor, known: Tensor, walk: Tensor
) -> Tensor:
    """For each item the mean of what `known` items have, (num_items, width), near ones weighing more.

    neighbours: one step away; multi-hop: `hops` steps, at each of which the known keep their own
    (Rossi et al., 2022); pagerank: as often as a walk that starts again with chance `restart` is
    there (Haveliwala, 2002). Where no known item is reached, the mean of all.
    """
    own = torch.cat([values, torch.ones(len(values), 1)], dim=1) * known.unsqueeze(1)
    reached = own
    steps = {"neighbours": 1, "multi-hop": asked.hops}.get(asked.imputation, PAGERANK_STEPS)
    for _ in range(steps):
        reached = torch.sparse.mm(walk, reached)
        if asked.imputation == "pagerank":
            reached = (1 - asked.restart) * reached + asked.restart * own
        else:
            reached = torch.where(known.unsqueeze(1), own, reached)
    mass = reached[:, -1:]
    everyone = values[known].mean(dim=0).nan_to_num()
    return torch.where(mass > 0, reached[:, :-1] / mass.clamp(min=1e-12), everyone)
