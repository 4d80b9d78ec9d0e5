"""Tokenizes items: quantises each item embedding into a semantic id, a sequence of codes unique to it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.semantic_ids.config import SemanticIdConfig
from finetune.semantic_ids.kmeans import assign, kmeans
from finetune.semantic_ids.rq_vae import RqVaeFit, fit_rq_vae


@dataclass(frozen=True, eq=False)
class SemanticIds:
    codes: NDArray[np.int64]
    """(num_items, length); no two rows are equal."""
    metrics: dict[str, float]
    """Codebook usage and collisions, before collisions are resolved."""

    @property
    def sizes(self) -> list[int]:
        """Number of codes of each level."""
        return (self.codes.max(axis=0) + 1).tolist()


def assign_semantic_ids(
    vectors: Tensor,
    config: SemanticIdConfig,
    seed: int,
    progress: bool = False,
    learned_items: NDArray[np.bool_] | None = None,
) -> SemanticIds:
    """The semantic id of each item embedding (num_items, width), by the tokenizer of `config`.

    The tokenizer is fitted to the items of `learned_items`, bool (num_items,), by default to all.
    """
    learned = vectors
    if learned_items is not None:
        learned = vectors[torch.from_numpy(learned_items).to(vectors.device)]
    num_codes = min(config.codebook_size, max(2, len(learned) // 4))
    if config.tokenizer == "rq-vae":
        settings = RqVaeFit(config.num_levels, num_codes, seed, config.tokenizer_steps, progress)
        codes, errors = fit_rq_vae(vectors, settings, learned)
    else:
        codes, errors = residual_kmeans(vectors, config.num_levels, num_codes, seed, learned)
    # Vectors that are equal up to float32 rounding have an error of almost zero.
    floor = 1e-12 + 1e-10 * vectors.square().sum()
    spread = (vectors - vectors.mean(dim=0)).square().sum() + floor
    raw_codes = codes.cpu().numpy()
    metrics = {
        "reconstruction_error": float(errors.sum() / spread),
        **codebook_usage(raw_codes, num_codes),
    }
    return SemanticIds(resolve_collisions(raw_codes, num_codes), metrics)


def residual_kmeans(
    vectors: Tensor, levels: int, num_codes: int, seed: int, learned: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Residual quantisation by k-means: codes int64 (n, levels), and the squared final residual (n,).

    Each code is the nearest centre to the residual of the levels before it. Centres are fitted to
    `learned`, by default to all vectors.
    """
    residuals, codes = vectors.clone(), []
    known = residuals if learned is None else learned.clone()
    for level in range(levels):
        centers = kmeans(known, num_codes, seed + level)
        if known is not residuals:
            known -= centers[assign(known, centers)[0]]
        nearest, _ = assign(residuals, centers)
        residuals -= centers[nearest]
        codes.append(nearest)
    return torch.stack(codes, dim=1), residuals.square().sum(dim=1)


def resolve_collisions(codes: NDArray[np.int64], num_codes: int) -> NDArray[np.int64]:
    """`codes` (n, levels) with further columns appended that make every row unique.

    Colliding rows are numbered in their order; the number is written in base `num_codes`, so that one
    column nearly always suffices, and none is appended without collisions.
    """
    numbers = _collision_indices(codes)
    digits = []
    while numbers.any():
        digits.insert(0, numbers % num_codes)
        numbers = numbers // num_codes
    return np.column_stack([codes, *digits])


def codebook_usage(codes: NDArray[np.int64], num_codes: int) -> dict[str, float]:
    """`collisions`: share of items that share all codes with another; `largest_collision`: most items
    with the same codes; `usage_l`, `perplexity_l`: share of codes in use at level l and their perplexity."""
    _, counts = np.unique(codes, axis=0, return_counts=True)
    metrics = {
        "codes": float(num_codes),
        "collisions": float(counts[counts > 1].sum() / len(codes)),
        "largest_collision": float(counts.max()),
    }
    for level, column in enumerate(codes.T, 1):
        shares = np.bincount(column, minlength=num_codes) / len(codes)
        used = shares[shares > 0]
        metrics[f"usage_{level}"] = float(len(used) / num_codes)
        metrics[f"perplexity_{level}"] = float(np.exp(-(used * np.log(used)).sum()))
    return metrics


def _collision_indices(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each row among the rows equal to it: (n,), 0 for the first."""
    _, groups, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    groups = groups.ravel()
    order = np.argsort(groups, kind="stable")
    numbers = np.empty(len(codes), dtype=np.int64)
    numbers[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers
