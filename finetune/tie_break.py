"""Deterministic tie breaking among equal scores, in full ranking, top-k lists and ANN search alike."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def tie_keys(num_items: int) -> NDArray[np.int64]:
    """The sort key of each item among equal scores: int64 (num_items,), a fixed random permutation."""
    return np.random.default_rng(20_011).permutation(num_items)


def topk_with_tie_break(scores: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores of each row of `scores` (b, n); ties are broken by `keys`, int (n,) or (b, n).

    Returns values and indices, (b, min(k, n)) each. `torch.topk` alone does not define which of several
    equal values it returns.
    """
    keys = keys.expand_as(scores)
    size = scores.shape[1]
    values, indices = scores.topk(min(k + 1, size), dim=1)
    if size > k:
        cut = (
            (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
        )  # equals on both sides of the cut
        values, indices = values[:, :k], indices[:, :k]
        if len(cut):
            by_key = keys[cut].argsort(dim=1)
            ordered = scores[cut].gather(1, by_key)
            some, order = ordered.sort(dim=1, descending=True, stable=True)
            values[cut], indices[cut] = some[:, :k], by_key.gather(1, order[:, :k])
    indices = indices.gather(1, keys.gather(1, indices).argsort(dim=1))
    values, order = scores.gather(1, indices).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)
