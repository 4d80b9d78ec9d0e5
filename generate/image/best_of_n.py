"""The best of several candidates for one request, among those that may be shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from generate.conditioning import Ranker, derived_seed
from generate.image.near_copies import TrainingImageIndex
from generate.image.safety import Check

COPY = "a copy of a picture it learned from"


@dataclass(frozen=True)
class SampledImage:
    picture: Image.Image | None
    """None where no candidate may be shown."""
    seed: int
    """Of the candidate."""
    refused: str = ""
    """Why there is none; "" where there is."""


Draw = Callable[[Sequence[int], Sequence[int]], list[Image.Image]]
"""(places of requests, a seed for each) → pictures."""


def choose(
    draw: Draw,
    states: Tensor,
    vectors: Tensor,
    seeds: Sequence[int],
    *,
    num_candidates: int,
    max_retries: int,
    ranker: Ranker,
    training_images: TrainingImageIndex | None = None,
    check: Check | None = None,
) -> list[SampledImage]:
    """Of `candidates` for each request the one that its item and its person like best; up to `tries` more
    rounds for those of which none may be shown.

    Liked is cos(item vector, picture) + cos(user state, picture) in the recommender's space: `states`,
    `vectors` (requests, width), zeros where there is none. The first candidate has the request's own
    seed, so one candidate is what would be drawn without choosing.
    """
    best: dict[int, tuple[float, SampledImage]] = {}
    why = dict.fromkeys(range(len(seeds)), "")
    for turn in range(num_candidates + max_retries):
        left = list(why) if turn < num_candidates else [place for place in why if place not in best]
        if not left:
            break
        drawn_with = [
            seeds[place] if turn == 0 else derived_seed(seeds[place], turn) for place in left
        ]
        pictures = draw(left, drawn_with)
        reasons = _reasons(pictures, training_images, check)
        likes = np.zeros(len(left))
        if num_candidates > 1:
            likes = _liked(ranker, pictures, states[left] + vectors[left])
        for place, seed, picture, reason, like in zip(
            left, drawn_with, pictures, reasons, likes.tolist(), strict=True
        ):
            why[place] = reason
            if not reason and (place not in best or like > best[place][0]):
                best[place] = (like, SampledImage(picture, seed))
    return [
        best[place][1] if place in best else SampledImage(None, seed, why[place])
        for place, seed in enumerate(seeds)
    ]


def _reasons(
    pictures: Sequence[Image.Image], training_images: TrainingImageIndex | None, check: Check | None
) -> list[str]:
    reasons = [""] * len(pictures)
    if training_images is not None:
        copies = training_images.near_copies([np.asarray(picture) for picture in pictures]).tolist()
        reasons = [COPY if copy else "" for copy in copies]
    if check is not None:
        reasons = [ours or theirs for ours, theirs in zip(reasons, check(pictures), strict=True)]
    return reasons


def _liked(ranker: Ranker, pictures: Sequence[Image.Image], wanted: Tensor) -> np.ndarray:
    """(pictures,): likeness of each to what is wanted (pictures, width)."""
    seen = ranker.image_vectors([np.asarray(picture) for picture in pictures])
    return torch.einsum("nd,nd->n", seen, wanted).numpy()
