"""Initializes projections by whitening: from the towers' features of a sample of the catalog.

A tower's features lie in a narrow cone (Liang et al., 2022, find it even before training), so that behind
a random projection all images are nearly equal: the fused vector shows whether an item has an image, and
little else. UniSRec (Hou et al., 2022) learns to whiten; here the projection is initialized with the
computed whitening, in every modality, so that a missing modality (zero) means average.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.encoder import ItemEncoder
from pretrain.eval_mode import eval_mode
from pretrain.towers.projection import Projection

SAMPLE = 512
"""Items of the sample."""
BLOCK = 32
"""Items of one forward pass."""
NOISE = 1e-10
"""Variance below this share of the mean square is what float32 rounds away."""


@torch.no_grad()
def initialize_projections(
    encoder: ItemEncoder,
    loader: ItemContentLoader,
    items: NDArray[np.integer],
    seed: int,
    device: torch.device | None = None,
) -> None:
    """Initializes each projection to whiten its tower's features of a sample of `items` (rows).

    The same on every rank. `device` is where the towers run meanwhile.
    """
    chosen = np.random.default_rng((seed, 512)).permutation(items)[:SAMPLE]
    before = encoder.device
    encoder.to(device or before)  # pyright: ignore[reportArgumentType]
    features: dict[str, list[Tensor]] = {name: [] for name in encoder.kinds}
    with eval_mode(encoder):
        for start in range(0, len(chosen), BLOCK):
            content = loader.read(np.sort(chosen[start : start + BLOCK]))
            content = to_device(content, encoder.device, encoder.dtype)
            for name in encoder.kinds:
                present = int(content[name]["present"].sum())
                features[name].append(encoder.read(name, content)[:present])
    aligned = [name for name, kind in encoder.kinds.items() if kind.spec.get("dual")]
    maps = {name: _projection(encoder, name) for name in encoder.kinds}
    for name, vectors in features.items():
        if name not in aligned:
            whiten(maps[name], torch.cat(vectors))
    if aligned:
        keep_aligned([maps[n] for n in aligned], [torch.cat(features[n]) for n in aligned])
        for name in aligned:
            head = encoder.heads[name]
            assert isinstance(head, nn.Linear)
            nn.init.eye_(head.weight)
            nn.init.zeros_(head.bias)
    encoder.to(before)  # pyright: ignore[reportArgumentType]


def _projection(encoder: ItemEncoder, name: str) -> Projection:
    projection = encoder.projections[name]
    assert isinstance(projection, Projection)
    return projection


@torch.no_grad()
def keep_aligned(projections: list[Projection], vectors: list[Tensor]) -> None:
    """Sets the projections of a dual encoder's halves so that vectors keep their cosines to each other.

    `vectors`: of each half (n, tower width). Each is centred, since the halves lie in different cones
    (Liang et al., 2022), and all are turned and scaled alike; where the towers are wider than the
    projections, the directions in which the halves vary most are kept.
    """
    centred = [part.double() - part.double().mean(dim=0) for part in vectors if len(part) > 1]
    if not centred:
        return
    covariance = torch.stack([part.T @ part / len(part) for part in centred]).mean(dim=0)
    variances, directions = torch.linalg.eigh(covariance)
    if not variances[-1] > 1e-12:
        return
    width = projections[0].linear.out_features
    kept = min(width, len(variances))
    turned, _ = torch.linalg.qr(torch.randn(width, kept, dtype=torch.float64))
    scale = (len(variances) / variances.clamp(min=0).sum()).sqrt()
    weight = scale * turned.to(directions.device) @ directions[:, -kept:].T
    for projection, part in zip(projections, vectors, strict=True):
        middle = part.double().mean(dim=0) if len(part) else part.new_zeros(part.shape[1]).double()
        projection.linear.weight.copy_(weight)
        projection.linear.bias.copy_(-(weight @ middle))


@torch.no_grad()
def whiten(projection: Projection, vectors: Tensor, floor: float = 0.01) -> None:
    """Sets the projection's linear map to whiten `vectors` (n, tower width): mean 0, equal variances.

    Where the tower is wider than the projection, the directions of largest variance are kept.
    Directions with less than `floor` of the largest variance stay small: they are noise. With fewer
    than two vectors, or vectors that are equal up to rounding, the map stays as it is.
    """
    if len(vectors) < 2:
        return
    vectors = vectors.double()
    variances, directions = torch.linalg.eigh(torch.cov(vectors.T).reshape(2 * [vectors.shape[1]]))
    if not variances[-1] > 1e-12 + NOISE * vectors.square().sum(dim=1).mean():
        return
    width = projection.linear.out_features
    kept = min(width, len(variances))
    scales = (variances.clamp(min=0) + floor * variances[-1])[-kept:].rsqrt()
    turned, _ = torch.linalg.qr(torch.randn(width, kept, dtype=torch.float64))
    weight = turned.to(vectors.device) * scales @ directions[:, -kept:].T  # (width, tower width)
    projection.linear.weight.copy_(weight)
    projection.linear.bias.copy_(-(weight @ vectors.mean(dim=0)))
