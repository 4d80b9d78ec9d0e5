"""Turns item vectors into identifiers: a sequence of codes for each item, which no two items share."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.semantic.config import SemanticConfig
from finetune.semantic.kmeans import assign, kmeans
from finetune.semantic.rq_vae import fit_rq_vae


@dataclass(frozen=True, eq=False)
class Identifiers:
    codes: NDArray[np.int64]
    """(num_items, length); no two rows are the same."""
    metrics: dict[str, float]
    """How well codes are used, told before items with the same ones were told apart."""

    @property
    def sizes(self) -> list[int]:
        """Of each level: how many codes there may be."""
        return (self.codes.max(axis=0) + 1).tolist()


def make_identifiers(
    vectors: Tensor,
    config: SemanticConfig,
    seed: int,
    progress: bool = False,
    counted: NDArray[np.bool_] | None = None,
) -> Identifiers:
    """Of item vectors (num_items, width), by the tokeniser that `config` asks for, which learns from
    those `counted`, bool (num_items,), by default all."""
    learned = vectors if counted is None else vectors[torch.from_numpy(counted).to(vectors.device)]
    num_codes = min(config.codes, max(2, len(learned) // 4))
    if config.tokenizer == "rq-vae":
        codes, missed = fit_rq_vae(
            vectors, config.levels, num_codes, seed, config.tokenizer_steps, progress, learned
        )
    else:
        codes, missed = residual_kmeans(vectors, config.levels, num_codes, seed, learned)
    # Vectors that are equal, but for how float32 rounds, are missed by next to nothing.
    floor = 1e-12 + 1e-10 * vectors.square().sum()
    spread = (vectors - vectors.mean(dim=0)).square().sum() + floor
    found = codes.cpu().numpy()
    metrics = {
        "reconstruction_error": float(missed.sum() / spread),
        **usage(found, num_codes),
    }
    return Identifiers(tell_apart(found, num_codes), metrics)


def residual_kmeans(
    vectors: Tensor, levels: int, num_codes: int, seed: int, learned: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes int64 (n, levels), each the nearest centre to what those before it have left of the vector;
    and the square of what is left of it at the end, (n,). Centres are those of `learned`, by default
    of all vectors."""
    left, codes = vectors.clone(), []
    known = left if learned is None else learned.clone()
    for level in range(levels):
        centers = kmeans(known, num_codes, seed + level)
        if known is not left:
            known -= centers[assign(known, centers)[0]]
        nearest, _ = assign(left, centers)
        left -= centers[nearest]
        codes.append(nearest)
    return torch.stack(codes, dim=1), left.square().sum(dim=1)


def tell_apart(codes: NDArray[np.int64], num_codes: int) -> NDArray[np.int64]:
    """`codes` (n, levels) with as many further columns as give every row a sequence of its own.

    Rows with the same codes are numbered in their order; the number is written with `num_codes`
    digits, so that one column suffices nearly always, and none is needed where none collide.
    """
    numbers = _numbers_within(codes)
    digits = []
    while numbers.any():
        digits.insert(0, numbers % num_codes)
        numbers = numbers // num_codes
    return np.column_stack([codes, *digits])


def usage(codes: NDArray[np.int64], num_codes: int) -> dict[str, float]:
    """Flat: `collisions`, the share of items whose codes another has too; `largest_collision`, items
    with the same codes at most; of each level the share of codes in use and their perplexity."""
    _, counts = np.unique(codes, axis=0, return_counts=True)
    found = {
        "codes": float(num_codes),
        "collisions": float(counts[counts > 1].sum() / len(codes)),
        "largest_collision": float(counts.max()),
    }
    for level, column in enumerate(codes.T, 1):
        shares = np.bincount(column, minlength=num_codes) / len(codes)
        there = shares[shares > 0]
        found[f"usage_{level}"] = float(len(there) / num_codes)
        found[f"perplexity_{level}"] = float(np.exp(-(there * np.log(there)).sum()))
    return found


def _numbers_within(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's place among those equal to it: (n,), 0 for the first."""
    _, groups, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    groups = groups.ravel()
    order = np.argsort(groups, kind="stable")
    numbers = np.empty(len(codes), dtype=np.int64)
    numbers[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return numbers
