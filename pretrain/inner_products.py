"""Inner products that are equal for equal vectors, so that ties can be broken by a rule."""

import torch.nn.functional as F
from torch import Tensor

COLUMNS = 16
"""Matrix products compute columns in groups of a kernel's width, and what is left over otherwise."""


def inner_products(queries: Tensor, vectors: Tensor) -> Tensor:
    """The inner product of each query (b, width) with each vector (n, width): (b, n).

    A plain matrix product rounds its last columns in another way where n is no multiple of the kernel's
    width: of equal vectors the last ones score more or less than the others by a bit. Here zeros fill up
    the last group, and are left out of the result.
    """
    missing = -len(vectors) % COLUMNS
    return (queries @ F.pad(vectors, (0, 0, 0, missing)).T)[:, : len(vectors)]
