"""Metrics of image features: KID, FID, diversity, and the user an image is nearest to."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from generate.evaluation.identification import draw_candidates, identification_hits


def standardize(features: Tensor, reference: Tensor) -> Tensor:
    """(n, width) minus the mean of `reference`, over its standard deviation, unit length, so that cosines
    are not all near 1. Features that do not vary in `reference`, but for rounding of float32, become 0."""
    mean, spread = reference.mean(0), reference.std(0, correction=0)
    varies = spread > 1e-6 + 1e-5 * reference.abs().mean(0)
    return F.normalize(torch.where(varies, (features - mean) / spread, 0.0), dim=-1)


def kernel_inception_distance(ours: Tensor, theirs: Tensor) -> float:
    """KID (Bińkowski et al. 2018, section 4): the unbiased squared MMD between two sets of features
    (n, width), (m, width), with the kernel (x·y / width + 1)³."""
    ours, theirs = ours.double(), theirs.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        same = kernel(a, a)
        return (same.sum() - same.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(ours) + within(theirs) - 2 * kernel(ours, theirs).mean())


def frechet_inception_distance(ours: Tensor, theirs: Tensor) -> float:
    """FID (Heusel et al. 2017, equation 6) of two sets of features (n, width). For few images it is biased
    upwards, by an amount that depends on their number."""
    first, second = (part.double() for part in (ours, theirs))
    gap = (first.mean(0) - second.mean(0)).square().sum()
    one, two = (torch.cov(part.T) for part in (first, second))
    # tr √(AB) is the sum of the roots of the eigenvalues of √A B √A.
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ two @ root).clamp_min(0).sqrt().sum()
    return float(gap + one.trace() + two.trace() - 2 * mixed)


def diversity(features: Tensor) -> float:
    """1 − the mean cosine of two different images, of unit features (n, width); 0 for fewer than two."""
    if len(features) < 2:
        return 0.0
    total = features.sum(0).square().sum() - len(features)
    return float(1 - total / (len(features) * (len(features) - 1)))


def mean_features(features: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """The mean of the rows of each group, unit length: (groups, width)."""
    return F.normalize(torch.stack([features[list(group)].mean(0) for group in groups]), dim=-1)


def identified(
    images: Tensor,
    user_features: Tensor,
    users: NDArray[np.integer],
    num_candidates: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Whether each image (n, width) is nearer to its own user (n, width) than to each of
    `num_candidates` − 1 other users: (n,), 1 or 0; ties share a hit."""
    candidates = torch.from_numpy(draw_candidates(users, num_candidates, seed))
    near = torch.einsum("nd,nad->na", images.double(), user_features.double()[candidates])
    return identification_hits(near >= near.max(1, keepdim=True).values - 1e-9)
