"""Items that nobody took in training: what stands in for the id vectors they never learned."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from finetune.exact_search import search_exact
from finetune.recommender import Recommender

NEIGHBOURS = 10
"""Items whose id vectors stand in for those of an item that has none."""
QUERIES = 256
"""Items whose neighbours are looked for at a time."""


@torch.no_grad()
def impute_cold_embeddings(
    recommender: Recommender,
    content: Tensor,
    rows: Tensor | None,
    known: NDArray[np.floating],
    taken: NDArray[np.bool_],
) -> Tensor:
    """Id vectors beside content, for items without: the mean of those of the nearest by content.

    As Airbnb does for new listings (Grbovic and Cheng, 2018, section 3.1). With zeros an item would
    be half a vector, such as no state was trained on, and its content, brought to unit length, would
    count for more than anybody else's; an id nobody trained is noise. Who has words needs nobody to
    speak for it, and gets zeros.

    `content` (n, content width): of items `rows` int (n,), or of all whose words are known; `known`
    (num_items, content width + id width): item vectors; `taken` bool (num_items,): whose id vector
    learned anything. Returns (n, id width).
    """
    adapted = F.normalize(recommender.adaptor(content), dim=-1)
    most = min(NEIGHBOURS, int(taken.sum()))
    means = [np.empty((0, known.shape[1] - adapted.shape[1]), dtype=np.float32)]
    for some in adapted.split(QUERIES):
        _, nearest = search_exact(some, known, most, taken)
        means.append(known[nearest.numpy()][:, :, adapted.shape[1] :].mean(axis=1))
    ids = torch.from_numpy(np.concatenate(means)).to(content.device)
    if recommender.bag_of_words is not None:
        ids = ids.masked_fill((recommender.bag_of_words(rows) != 0).any(dim=1, keepdim=True), 0.0)
    return ids
