"""Item cold start: imputes the id embeddings of items without training interactions."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from finetune.exact_search import search_exact
from finetune.recommender import Recommender

NEIGHBOURS = 10
"""Nearest warm items whose id embeddings are averaged for a cold-start item."""
QUERIES = 256
"""Cold-start items per nearest-neighbour search."""


@torch.no_grad()
def impute_cold_embeddings(
    recommender: Recommender,
    content: Tensor,
    rows: Tensor | None,
    item_vectors: NDArray[np.floating],
    warm_items: NDArray[np.bool_],
) -> Tensor:
    """Id embeddings of cold-start items: the mean of those of the nearest warm items by content.

    As Airbnb does for new listings (Grbovic and Cheng, 2018, section 3.1). With zeros the vector of a
    cold-start item would be its content alone, normalised to unit length, which no state was trained on and
    which weighs content more than in any other item; an untrained id embedding is noise. Items with
    words get zeros, because their word embeddings are trained.

    `content` (n, content width): of the cold-start items `rows` int (n,), or of all items with known words;
    `item_vectors` (num_items, content width + id width); `warm_items` bool (num_items,): items with a
    trained id embedding. Returns (n, id width).
    """
    adapted = F.normalize(recommender.adaptor(content), dim=-1)
    most = min(NEIGHBOURS, int(warm_items.sum()))
    means = [np.empty((0, item_vectors.shape[1] - adapted.shape[1]), dtype=np.float32)]
    for some in adapted.split(QUERIES):
        _, nearest = search_exact(some, item_vectors, most, warm_items)
        means.append(item_vectors[nearest.numpy()][:, :, adapted.shape[1] :].mean(axis=1))
    ids = torch.from_numpy(np.concatenate(means)).to(content.device)
    if recommender.bag_of_words is not None:
        ids = ids.masked_fill((recommender.bag_of_words(rows) != 0).any(dim=1, keepdim=True), 0.0)
    return ids
