"""Retrieval report: an encoder's recall on held-out items and interactions.

Cross-modal retrieval: one modality of items held out of training retrieves the other. Next-item retrieval: a
history retrieves the next item, an interaction after the training part. All items of the report are
candidates, and equal scores are ordered by a fixed key. The baselines are chance and, for next items,
popularity.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import NonFiniteError, VitrineError
from catalog.hashing import hash_ids
from catalog.splits import Split, Targets, target_rows
from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.embed_items import embed_items
from pretrain.encoder import ItemEncoder
from pretrain.eval_mode import eval_mode
from pretrain.inner_products import inner_products
from pretrain.sequence_encoder import SequenceEncoder
from pretrain.shards import precision_context

CUTOFFS = (1, 5, 10)
MAX_HELD_OUT = 1000
MAX_USERS = 2000
MAX_CANDIDATES = 50_000
"""Maximum number of candidates: of a larger catalog a sample that contains the targets."""
CHUNK = 256


@dataclass(frozen=True)
class Retrieval:
    """The result of one retrieval task, a line of the report."""

    task: str
    """Such as "text → image" or "history → next item"."""
    candidates: int
    ranks: NDArray[np.int64]
    """(queries,): the rank of each query's target; 1 is the best."""
    popular: NDArray[np.int64] | None = None
    """(queries,): the ranks by popularity."""

    def figures(self) -> dict[str, float]:
        """R@k of the encoder, of chance and, if known, of popularity; numbers of queries and candidates."""
        results: dict[str, float] = {"queries": len(self.ranks), "candidates": self.candidates}
        for k in CUTOFFS:
            results[f"R@{k}"] = float((self.ranks <= k).mean())
            results[f"chance R@{k}"] = min(1.0, k / self.candidates)
            if self.popular is not None:
                results[f"popularity R@{k}"] = float((self.popular <= k).mean())
        return results

    def __str__(self) -> str:
        figures = self.figures()
        recalls = " · ".join(f"R@{k} {figures[f'R@{k}']:.3f}" for k in CUTOFFS)
        baselines = f"chance {figures['chance R@10']:.3f}"
        if self.popular is not None:
            baselines += f", popularity {figures['popularity R@10']:.3f}"
        return (
            f"{self.task:<24} {recalls}   (R@10 of {baselines}; {len(self.ranks):,} of "
            f"{self.candidates:,})"
        )


def hold_out(catalog: Catalog, share: float) -> NDArray[np.bool_]:
    """Held-out items, bool (num_items,): about `share` of all, at most 1,000, chosen by their ids alone."""
    if not 0 <= share <= 0.5:
        raise VitrineError(f"data.held_out is {share:g}; give a share from 0 to 0.5")
    chosen = np.zeros(catalog.num_items, dtype=bool)
    num_held_out = min(MAX_HELD_OUT, round(share * catalog.num_items))
    if not num_held_out:
        return chosen
    hashes = hash_ids(catalog.items["item_id"][:], key=b"vitrine held out")
    chosen[np.argsort(hashes)[:num_held_out]] = True
    return chosen


class RetrievalReport(pl.Callback):
    """Computes the report at the end of training, on its devices, with sharded weights.

    Every rank computes all of it: under ZeRO-3 all ranks run each forward pass of a tower together.
    """

    def __init__(
        self, loader: ItemContentLoader, split: Split, held_out: NDArray[np.bool_]
    ) -> None:
        self.loader = loader
        self.split = split
        self.held_out = held_out
        self.results: list[Retrieval] = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        encoder, sequence_encoder = pl_module.encoder, pl_module.sequence_encoder
        with precision_context(trainer):
            self.results = retrieval_report(
                encoder,
                sequence_encoder,
                self.loader,
                self.loader.catalog,
                self.split,
                self.held_out,
            )


@torch.no_grad()
def retrieval_report(
    encoder: ItemEncoder,
    sequence_encoder: SequenceEncoder,
    loader: ItemContentLoader,
    catalog: Catalog,
    split: Split,
    held_out: NDArray[np.bool_],
) -> list[Retrieval]:
    """Retrieval between all pairs of modalities, in both directions, and of validation's next items."""
    targets = _some(split.validation)
    with eval_mode(encoder, sequence_encoder):
        results = between_modalities(encoder, loader, np.flatnonzero(held_out))
        if len(targets):
            results.append(next_items(encoder, sequence_encoder, loader, catalog, split, targets))
    return results


@torch.no_grad()
def between_modalities(
    encoder: ItemEncoder, loader: ItemContentLoader, items: NDArray[np.int64]
) -> list[Retrieval]:
    """Retrieval between all pairs of modalities, in both directions, among `items` that have both."""
    projected_embeddings, present = [], []
    device = next(encoder.parameters()).device
    for start in range(0, len(items), CHUNK):
        content = loader.read(items[start : start + CHUNK])
        vectors = encoder(to_device(content, device, encoder.dtype))
        projected_embeddings.append(vectors.projected_embeddings.float().cpu())
        present.append(vectors.present.cpu())
    if not projected_embeddings:
        return []
    all_embeddings, all_present = torch.cat(projected_embeddings), torch.cat(present)
    results = []
    for one, other in encoder.pairs:
        both = all_present[:, one] & all_present[:, other]
        if both.sum() < 2:
            continue
        for query, candidate in ((one, other), (other, one)):
            own = torch.arange(int(both.sum()))
            ranks = target_ranks(all_embeddings[both, query], all_embeddings[both, candidate], own)
            names = encoder.modalities
            results.append(Retrieval(f"{names[query]} → {names[candidate]}", len(own), ranks))
    return results


@torch.no_grad()
def next_items(
    encoder: ItemEncoder,
    sequence_encoder: SequenceEncoder,
    loader: ItemContentLoader,
    catalog: Catalog,
    split: Split,
    targets: Targets,
    listed: NDArray[np.int64] | None = None,
) -> Retrieval:
    """Retrieval of `targets` (at least one) among all items, or the items `listed` (ascending)."""
    rows = target_rows(catalog.interactions, targets)
    target_items = catalog.interactions.items[rows].astype(np.int64)
    candidates = _candidates(target_items, catalog.num_items) if listed is None else listed
    length = sequence_encoder.config.max_history
    known = (targets.history(catalog.interactions, place) for place in range(len(targets)))
    read = [items[-length:] for items in known]
    # One row for each distinct item of the histories and the candidates.
    needed = np.union1d(candidates, np.concatenate(read)).astype(np.int64)
    vectors = np.empty((len(needed), encoder.config.width), dtype=np.float32)
    embed_items(encoder, loader, vectors, items=needed, title="Retrieval report")
    table = torch.from_numpy(vectors)
    states = []
    for start in range(0, len(read), CHUNK):
        part = read[start : start + CHUNK]
        slots = np.zeros((len(part), length), dtype=np.int64)
        segments = np.full((len(part), length), -1, dtype=np.int64)
        for row, items in enumerate(part):
            slots[row, : len(items)] = np.searchsorted(needed, items)
            segments[row, : len(items)] = 0
        device = next(sequence_encoder.parameters()).device
        given = table[torch.from_numpy(slots)].to(device, sequence_encoder.dtype)
        read_states = sequence_encoder(given, torch.from_numpy(segments).to(device)).float().cpu()
        last = torch.tensor([max(0, len(items) - 1) for items in part])
        states.append(read_states[torch.arange(len(part)), last])
    own = torch.from_numpy(np.searchsorted(candidates, target_items))
    gallery = table[torch.from_numpy(np.searchsorted(needed, candidates))]
    ranks = target_ranks(torch.cat(states), gallery, own)
    counts = torch.from_numpy(split.train_counts[candidates].astype(np.float32)).unsqueeze(1)
    popular = target_ranks(torch.ones(len(own), 1), counts, own)
    return Retrieval("history → next item", len(candidates), ranks, popular)


def target_ranks(queries: Tensor, candidates: Tensor, own: Tensor) -> NDArray[np.int64]:
    """The rank of each query's own candidate, by inner product: int64 (queries,), 1 is the best.

    Computed in chunks: [queries × candidates] is never in memory. Ties are broken by a fixed key.
    """
    keys = torch.from_numpy(np.random.default_rng(20_011).permutation(len(candidates)))
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), CHUNK):
        part = slice(start, start + CHUNK)
        scores = inner_products(queries[part], candidates)
        if not scores.sum().isfinite():
            raise NonFiniteError(
                "the retrieval report compares vectors that are not finite, of "
                f"{int((~candidates.isfinite().all(dim=1)).sum()):,} candidates and "
                f"{int((~queries.isfinite().all(dim=1)).sum()):,} queries; look at the encoder's weights"
            )
        mine = scores.gather(1, own[part].unsqueeze(1))
        ahead = (scores == mine) & (keys < keys[own[part]].unsqueeze(1))
        ahead |= scores > mine
        ranks[part] = (1 + ahead.sum(dim=1)).numpy()
    return ranks


def _some(targets: Targets) -> Targets:
    """One target with a history for each of at most 2,000 users, drawn uniformly."""
    targets = targets.take(targets.history_lengths > 0).first_per_user()
    if len(targets.users) <= MAX_USERS:
        return targets
    chosen = np.random.default_rng(0).permutation(len(targets.users))[:MAX_USERS]
    return targets.take(np.sort(chosen))


def _candidates(target_items: NDArray[np.int64], num_items: int) -> NDArray[np.int64]:
    """The candidate items, ascending: all, or of too many the targets and a random sample of others."""
    if num_items <= MAX_CANDIDATES:
        return np.arange(num_items)
    room = MAX_CANDIDATES - len(np.unique(target_items))
    return np.union1d(target_items, np.random.default_rng(0).choice(num_items, room, replace=False))
