"""Conditions a generator on a user state and an item vector: prefix tokens, whitening, condition dropout."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pretrain.shards import cast_like

Condition = Literal["own", "swapped", "none"]
CONDITIONS: tuple[Condition, ...] = ("own", "swapped", "none")
"""Conditioned on the user, conditioned on another user (the control), and unconditional."""
NOISE = 1e-10
"""Variance below this share of the mean square is float32 rounding error."""


class Ranker(Protocol):
    """The interface of a trained recommender that the generators use."""

    width: int
    item_vectors: NDArray[np.float32]
    """float32 (num_items, width), unit length; may be memory-mapped."""

    def user_states(self, histories: list[NDArray[Any]]) -> Tensor:
        """Histories of item rows, oldest first → float32 (batch, width); empty gives zeros."""
        ...

    def rank(self, history: NDArray[Any], k: int) -> list[tuple[int, float]]:
        """The k best items not in the history, with their scores, best first."""
        ...

    def image_vectors(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Embeddings of items that have nothing but these images: float32 (images, width)."""
        ...


class VectorTokens(nn.Module):
    """Projects one vector to a few tokens that a transformer attends to (IP-Adapter, Ye et al. 2023).

    A missing condition becomes learned null tokens: the unconditional branch of classifier-free guidance
    (Ho & Salimans 2022). A vector of zeros, the state of an empty history, counts as missing.
    """

    mean: Tensor
    whitener: Tensor

    def __init__(self, width: int, num_tokens: int, token_width: int) -> None:
        super().__init__()
        self.width = width
        self.num_tokens = num_tokens
        self.register_buffer("mean", torch.zeros(width))
        # Entries of unit vectors are near 1/√width; the linear layer expects inputs near 1.
        self.register_buffer("whitener", width**0.5 * torch.eye(width))
        self.project = nn.Linear(width, num_tokens * token_width)
        self.norm = nn.LayerNorm(token_width)
        self.null = nn.Parameter(torch.randn(num_tokens, token_width))

    @torch.no_grad()
    def fit_whitening(
        self, sample: Tensor, targets: Tensor | None = None, shrinkage: float = 1e-3
    ) -> None:
        """Fits the centring and whitening of inputs to `sample` (num_vectors, width).

        Learned vectors share a large mean and vary along few directions; without whitening, gradient
        descent takes long to pick up the small differences between them. `shrinkage`, a share of the
        mean variance, is added to each variance so that directions of noise are not amplified.

        `targets` (num_vectors, width): what each vector of `sample` should predict. Only the directions
        that predict it are kept (see `predictive_subspace`).
        """
        present = sample.ne(0).any(-1)
        if present.sum() < 2:
            return
        sample = sample[present].double()
        whitener = _whitening_matrix(sample, shrinkage)
        if targets is not None:
            targets = targets[present].double()
            targets = (targets - targets.mean(0)) @ _whitening_matrix(targets, shrinkage)
            whitened = (sample - sample.mean(0)) @ whitener
            whitener = whitener @ predictive_subspace(whitened, targets)
        self.mean.copy_(sample.mean(0))
        self.whitener.copy_(whitener)

    def forward(self, vectors: Tensor, present: Tensor | None = None) -> Tensor:
        """(batch, width), mask (batch,) of conditions present → (batch, num_tokens, token_width)."""
        known = vectors.ne(0).any(-1)
        if present is not None:
            known = known & present
        centred = cast_like(vectors, self.mean) - self.mean
        projected = self.project(centred @ self.whitener)
        tokens = self.norm(projected.unflatten(-1, (self.num_tokens, -1)))
        return torch.where(known[:, None, None], tokens, self.null.to(tokens.dtype))


def vector_tokens(width: int, num_tokens: int, token_width: int) -> VectorTokens | None:
    """`VectorTokens`; None where there are to be none."""
    return VectorTokens(width, num_tokens, token_width) if num_tokens else None


def _whitening_matrix(sample: Tensor, shrinkage: float) -> Tensor:
    """(width, width) that gives `sample` (num_vectors, width) the identity as covariance.

    Directions in which the sample does not vary beyond float32 rounding are not amplified.
    """
    variances, directions = torch.linalg.eigh(torch.cov(sample.T, correction=0))
    floor = 1e-12 + NOISE * sample.square().mean()
    spread = (variances.clamp_min(0) + shrinkage * variances.mean().clamp_min(0) + floor).sqrt()
    return directions / spread @ directions.T


def predictive_subspace(whitened: Tensor, targets: Tensor) -> Tensor:
    """Symmetric (width, width) projection on the directions of `whitened` that predict `targets`.

    Both inputs are whitened, (num_vectors, width). Directions stay whose canonical correlation
    (Hotelling 1936) is above what chance gives a sample of this size: 2 √(width / num_vectors), the edge
    of the singular values of a square matrix of noise (Marchenko & Pastur 1967). All that stay weigh the
    same and are scaled so that the mean variance is 1. If no direction predicts anything beyond chance,
    all stay.
    """
    number, width = whitened.shape
    directions, correlations, _ = torch.linalg.svd(whitened.T @ targets / number)
    predictive = directions[:, correlations > 2 * (width / number) ** 0.5]
    if predictive.shape[1] == 0:
        return torch.eye(width, dtype=whitened.dtype)
    return (width / predictive.shape[1]) ** 0.5 * predictive @ predictive.T


def condition_keep_mask(drop_probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mask of the conditions that are kept, each dropped independently with its `drop_probs`.

    Independent condition dropout trains every combination, so that classifier-free guidance can have a
    scale for each condition (Brooks et al. 2023, InstructPix2Pix, section 3.2.1).
    """
    return torch.rand(drop_probs.shape, generator=generator) >= drop_probs


def derived_seed(seed: int, *key: int) -> int:
    """A random seed below 2⁶³ that depends on `seed` and `key` alone."""
    drawn = np.random.SeedSequence([seed % 2**63, *key]).generate_state(1, np.uint64)[0]
    return int(drawn >> 1)


@torch.no_grad()
def encode_histories(
    ranker: Ranker, histories: Sequence[NDArray[Any]], batch_size: int = 256
) -> Tensor:
    """User states of histories, in batches: float32 (histories, width), on the CPU."""
    starts = range(0, len(histories), batch_size)
    states = [ranker.user_states(list(histories[start : start + batch_size])) for start in starts]
    return torch.cat([torch.empty(0, ranker.width), *(batch.float().cpu() for batch in states)])
