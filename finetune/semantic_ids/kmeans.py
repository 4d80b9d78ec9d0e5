"""k-means on a sample, in chunks, for both tokenizers."""

import torch
from torch import Tensor

SAMPLE = 256
"""Sampled points per centre at most, as in faiss; more hardly move a centre."""
DISTANCES = 2**22
"""Distances held at once."""


def kmeans(points: Tensor, num_centers: int, seed: int, iterations: int = 25) -> Tensor:
    """Centres of `points` (n, d): float32 (num_centers, d).

    Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii, 2007); a centre that loses all
    its points takes the place of one of the points that lie furthest from theirs.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(points), generator=generator)[: SAMPLE * num_centers]
    sample = points[chosen.to(points.device)]
    centers = _spread(sample, num_centers, generator)
    before = torch.full((len(sample),), -1, device=points.device)
    for _ in range(iterations):
        nearest, distances = assign(sample, centers)
        if torch.equal(nearest, before):
            break
        before = nearest
        counts = torch.bincount(nearest, minlength=num_centers)
        sums = torch.zeros_like(centers).index_add_(0, nearest, sample)
        centers = sums / counts.clamp(min=1).unsqueeze(1)
        empty = (counts == 0).nonzero().squeeze(1)[: len(sample)]
        centers[empty] = sample[distances.topk(len(empty)).indices]
    return centers


def assign(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each point, int64 (n,), and its squared distance (n,)."""
    nearest = torch.empty(len(points), dtype=torch.int64, device=points.device)
    distances = torch.empty(len(points), device=points.device)
    squares = centers.square().sum(dim=1)
    chunk = max(1, DISTANCES // len(centers))
    for start in range(0, len(points), chunk):
        part = points[start : start + chunk]
        found = (squares - 2 * part @ centers.T).min(dim=1)
        nearest[start : start + chunk] = found.indices
        distances[start : start + chunk] = (found.values + part.square().sum(dim=1)).clamp(min=0)
    return nearest, distances


def _spread(sample: Tensor, num_centers: int, generator: torch.Generator) -> Tensor:
    """k-means++: points of the sample, each drawn in proportion to its squared distance to those before."""
    first = int(torch.randint(len(sample), (1,), generator=generator))
    drawn, distances = [first], torch.full((len(sample),), float("inf"), device=sample.device)
    while len(drawn) < num_centers:
        distances = torch.minimum(distances, (sample - sample[drawn[-1]]).square().sum(dim=1))
        # By the running sum: torch.multinomial takes no more than 2^24 points. Where all lie on
        # points already drawn, any will do.
        chances = (distances.double() + 1e-12).cumsum(0)
        dice = torch.rand(1, generator=generator, dtype=torch.float64).to(sample.device)
        place = torch.searchsorted(chances, dice * chances[-1])
        drawn.append(min(int(place), len(sample) - 1))
    return sample[drawn].clone()
