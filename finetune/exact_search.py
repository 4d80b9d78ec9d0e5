"""Exact top-k search by inner product over many vectors, one chunk at a time."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.memory import release_pages
from pretrain.inner_products import inner_products

CHUNK = 16_384
"""Vectors per chunk."""


@torch.no_grad()
def search_exact(
    queries: Tensor, vectors: NDArray[np.floating], k: int, allowed: NDArray[np.bool_] | None = None
) -> tuple[Tensor, Tensor]:
    """The k rows of `vectors` (num_rows, width) with the largest inner products, best first.

    `queries` (n, width), a few hundred at most. `vectors` may be memory-mapped, and wider: further
    columns are not read. `allowed` bool (num_rows,): rows that may be found. Returns scores float32
    and rows int64, (n, k) each; the score is −∞ if there are fewer than k.
    """
    queries = queries.cpu()
    best = torch.full((len(queries), k), float("-inf"))
    rows = torch.zeros((len(queries), k), dtype=torch.int64)
    for start in range(0, len(vectors), CHUNK):
        part = np.array(vectors[start : start + CHUNK, : queries.shape[1]], dtype=np.float32)
        scores = inner_products(queries, torch.from_numpy(part))
        if allowed is not None:
            scores[:, torch.from_numpy(~allowed[start : start + CHUNK])] = float("-inf")
        top, places = scores.topk(min(k, scores.shape[1]), dim=1)
        best, order = torch.cat([best, top], dim=1).topk(k, dim=1)
        rows = torch.cat([rows, places + start], dim=1).gather(1, order)
    release_pages(vectors)
    return best, rows
