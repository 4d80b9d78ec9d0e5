"""What can be said of pictures by their features alone: how near sets and single ones are."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from generate.evaluation.identification import draw_candidates, identification_hits


def centred(features: Tensor, known: Tensor) -> Tensor:
    """(n, width) less the mean of `known`, over its deviation, unit length: cosines of these are not all
    near 1. Features in which `known` do not vary, but for how float32 rounds, count 0."""
    mean, spread = known.mean(0), known.std(0, correction=0)
    varies = spread > 1e-6 + 1e-5 * known.abs().mean(0)
    return F.normalize(torch.where(varies, (features - mean) / spread, 0.0), dim=-1)


def kernel_inception_distance(ours: Tensor, theirs: Tensor) -> float:
    """KID (Bińkowski et al. 2018, section 4): the unbiased squared MMD between two sets of features
    (n, width), (m, width), by the kernel (x·y / width + 1)³."""
    ours, theirs = ours.double(), theirs.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        same = kernel(a, a)
        return (same.sum() - same.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(ours) + within(theirs) - 2 * kernel(ours, theirs).mean())


def frechet_inception_distance(ours: Tensor, theirs: Tensor) -> float:
    """FID (Heusel et al. 2017, equation 6) of two sets of features (n, width): for few pictures it is too
    large, by an amount that depends on how many."""
    first, second = (part.double() for part in (ours, theirs))
    gap = (first.mean(0) - second.mean(0)).square().sum()
    one, two = (torch.cov(part.T) for part in (first, second))
    # tr √(AB) is the sum of the roots of the eigenvalues of √A B √A.
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ two @ root).clamp_min(0).sqrt().sum()
    return float(gap + one.trace() + two.trace() - 2 * mixed)


def diversity(features: Tensor) -> float:
    """1 − the mean cosine of two different pictures, of unit features (n, width); 0 of fewer than two."""
    if len(features) < 2:
        return 0.0
    total = features.sum(0).square().sum() - len(features)
    return float(1 - total / (len(features) * (len(features) - 1)))


def mean_features(features: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """The mean of the rows of each group, unit length: (groups, width)."""
    return F.normalize(torch.stack([features[list(group)].mean(0) for group in groups]), dim=-1)


def identified(
    pictures: Tensor, people: Tensor, users: NDArray[np.integer], among: int, seed: int = 0
) -> NDArray[np.float64]:
    """Whether each picture (n, width) is nearer to its own user (n, width) than to each of `among` − 1
    other users: (n,), 1 or 0; ties share a hit."""
    candidates = torch.from_numpy(draw_candidates(users, among, seed))
    near = torch.einsum("nd,nad->na", pictures.double(), people.double()[candidates])
    return identification_hits(near >= near.max(1, keepdim=True).values - 1e-9)
