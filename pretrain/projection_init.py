"""Where projections start: from what their towers say of some of the catalog.

A tower's vectors lie in a narrow cone (Liang et al., 2022, find it even before training), so behind
a random projection every item's picture is nearly the same picture: an item that has one is told
from an item that has none, and little else. UniSRec (Hou et al., 2022) learns to whiten; here the
projection begins with the whitening computed, in every modality, so that absent (zero) means average.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.encoder import ItemEncoder
from pretrain.towers import Projection

SAMPLE = 512
"""Items that are read for it."""
BLOCK = 32
"""Of them at once."""
NOISE = 1e-10
"""Variance below this share of the mean square is what float32 rounds away."""


@torch.no_grad()
def initialize_projections(
    encoder: ItemEncoder,
    reader: ItemContentLoader,
    items: NDArray[np.integer],
    seed: int,
    device: torch.device | None = None,
) -> None:
    """Lets each projection begin by whitening what its tower makes of some of `items` (rows).

    The same on every rank. `device` is where the towers run meanwhile.
    """
    chosen = np.random.default_rng((seed, 512)).permutation(items)[:SAMPLE]
    before, training = encoder.device, encoder.training
    encoder.to(device or before)  # pyright: ignore[reportArgumentType]
    encoder.eval()
    found: dict[str, list[Tensor]] = {name: [] for name in encoder.kinds}
    for start in range(0, len(chosen), BLOCK):
        content = reader.read(np.sort(chosen[start : start + BLOCK]))
        content = to_device(content, encoder.device, encoder.dtype)
        for name in encoder.kinds:
            present = int(content[name]["present"].sum())
            found[name].append(encoder.read(name, content)[:present])
    for name, vectors in found.items():
        projection = encoder.projections[name]
        assert isinstance(projection, Projection)
        whiten(projection, torch.cat(vectors))
    encoder.to(before)  # pyright: ignore[reportArgumentType]
    encoder.train(training)


@torch.no_grad()
def whiten(projection: Projection, vectors: Tensor, floor: float = 0.01) -> None:
    """Sets its linear map so that `vectors` (n, tower width) come out centred and equally spread.

    Where the tower is wider than the projection, the directions of largest variance are kept.
    Directions with less than `floor` of the largest variance are left quiet: they are noise.
    Of fewer than two vectors, or vectors that are equal but for how floats round, nothing can be told,
    and the map stays as it is.
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
