"""Best-of-n sampling with rejection: keeps the best accepted candidate of each request.

Near-copies of training images and images that a safety check rejects are never returned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from generate.conditioning import Ranker, derived_seed
from generate.image.near_copies import TrainingImageIndex
from generate.image.safety import SafetyCheck

NEAR_COPY = "a near-copy of a training image"


@dataclass(frozen=True)
class SampledImage:
    """Result for one request: the selected image, or why there is none."""

    image: Image.Image | None
    """None where every candidate was rejected."""
    seed: int
    """Seed of the selected candidate, or of the request where every candidate was rejected."""
    rejected: str = ""
    """Reason of the last rejection where `image` is None, else ""."""


SampleImages = Callable[[Sequence[int], Sequence[int]], list[Image.Image]]
"""(indices of requests, a seed for each) → images."""


@dataclass(frozen=True)
class CandidateSelection:
    """Best-of-n settings: number of candidates, rejection checks, and the ranker that scores candidates."""

    ranker: Ranker
    num_candidates: int = 1
    """Candidates sampled for each request."""
    max_retries: int = 0
    """Further rounds, at most, for requests whose candidates were all rejected."""
    training_images: TrainingImageIndex | None = None
    """Near-copies of these are rejected."""
    check: SafetyCheck | None = None

    def best_of_n(
        self, sample: SampleImages, states: Tensor, vectors: Tensor, seeds: Sequence[int]
    ) -> list[SampledImage]:
        """The best accepted candidate for each request (`states`, `vectors`: (requests, width)).

        Best is the largest cos(item embedding, image) + cos(user state, image) in the recommender's
        space; rows of zeros where a condition is absent. The first candidate has the request's own seed,
        so one candidate is what would be sampled without selection.
        """
        best: dict[int, tuple[float, SampledImage]] = {}
        reasons = dict.fromkeys(range(len(seeds)), "")
        for attempt in range(self.num_candidates + self.max_retries):
            indices = list(reasons)
            if attempt >= self.num_candidates:
                indices = [index for index in reasons if index not in best]
            if not indices:
                break
            own = [seeds[index] for index in indices]
            drawn = [derived_seed(seed, attempt) for seed in own] if attempt else own
            images = sample(indices, drawn)
            similarities = np.zeros(len(indices))
            if self.num_candidates > 1:
                similarities = self._similarities(images, states[indices] + vectors[indices])
            for index, seed, image, reason, similarity in zip(
                indices, drawn, images, self._reject(images), similarities.tolist(), strict=True
            ):
                reasons[index] = reason
                if not reason and (index not in best or similarity > best[index][0]):
                    best[index] = (similarity, SampledImage(image, seed))
        return [
            best[index][1] if index in best else SampledImage(None, seed, reasons[index])
            for index, seed in enumerate(seeds)
        ]

    def _reject(self, images: Sequence[Image.Image]) -> list[str]:
        """For each image the reason for its rejection, "" if it is accepted."""
        reasons = [""] * len(images)
        if self.training_images is not None:
            copies = self.training_images.near_copies([np.asarray(image) for image in images])
            reasons = [NEAR_COPY if copy else "" for copy in copies.tolist()]
        if self.check is not None:
            pairs = zip(reasons, self.check(images), strict=True)
            reasons = [copied or unsafe for copied, unsafe in pairs]
        return reasons

    def _similarities(self, images: Sequence[Image.Image], targets: Tensor) -> NDArray[np.float32]:
        """(images,): similarity of each to its target (images, width)."""
        vectors = self.ranker.image_vectors([np.asarray(image) for image in images])
        return torch.einsum("nd,nd->n", vectors, targets).numpy()
