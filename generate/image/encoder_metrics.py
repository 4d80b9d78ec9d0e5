"""Scores images by an independent image encoder: similarity, identification, KID, FID, diversity.

The reference images are the catalog's own, without those that the encoder was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import NonFiniteError
from generate.conditioning import Condition
from generate.evaluation.identification import NUM_CANDIDATES, identification_figures
from generate.evaluation.intervals import Figures
from generate.evaluation.users import EvaluationUsers
from generate.image.feature_metrics import (
    diversity,
    frechet_inception_distance,
    identified,
    kernel_inception_distance,
    mean_features,
    standardize,
)
from generate.image.image_encoder import ImageEncoder
from generate.image.score import Images, compare_users, recent_items

MIN_REFERENCE_IMAGES = 4
"""Fewest reference images for which KID and FID are computed."""
EARLIER = "Similarity to earlier purchases"


@dataclass(frozen=True)
class EncoderScores:
    """Scores of generated images in the features of one encoder."""

    metrics: dict[str, Figures]
    """Name → figures under each condition, as in `score.score_pixels`."""
    overall: Figures
    """KID and FID of the images conditioned on their own user to reference images, beside those between
    halves of the reference (`…_real`); diversity; identification."""


def score_with_encoder(
    images: Images,
    items: NDArray[np.integer],
    catalog: Catalog,
    users: EvaluationUsers,
    encoder: ImageEncoder,
    seed: int = 0,
) -> EncoderScores:
    """Scores `images` of `items` (num_users,) in the features of an encoder."""
    width, height = images["own"][0].size
    rows, real = encode_catalog_images(
        catalog, reference_items(users, items), (height, width), encoder
    )
    features = encode_generated(images, catalog, users, encoder)
    known: dict[Condition, Tensor] = {
        condition: standardize(part, real) for condition, part in features.items()
    }
    units = standardize(real, real)
    excluded = set(training_items(encoder))
    reference = real[[row for item, row in rows.items() if item not in excluded]]
    overall: Figures = {"real_images": len(real), "reference_images": len(reference)}
    metrics: dict[str, Figures] = {}
    for name, groups in (
        (EARLIER, recent_items(users)),
        ("Similarity to the next purchase", [[item] for item in users.items.tolist()]),
        ("Similarity to the condition item", [[item] for item in items.tolist()]),
    ):
        with_image = [[rows[item] for item in group if item in rows] for group in groups]
        indices = [index for index, group in enumerate(with_image) if group]
        if len(indices) < 2:
            continue
        targets = mean_features(units, [with_image[index] for index in indices])
        similarities: Mapping[Condition, NDArray[np.float64]] = {
            condition: (part[indices] * targets).sum(1).double().numpy()
            for condition, part in known.items()
        }
        metrics[name] = compare_users(similarities, "own − swapped")
        if name == EARLIER and len(indices) > NUM_CANDIDATES:
            own_users = np.asarray(users.users)[indices]
            hits = identified(known["own"][indices], targets, own_users, NUM_CANDIDATES, seed)
            overall["identified"] = identification_figures(hits)
    overall |= {"diversity": diversity(known["own"]), "diversity_real": diversity(units)}
    overall |= distribution_distances(features["own"], reference, seed)
    return EncoderScores(metrics, overall)


def distribution_distances(features: Tensor, reference: Tensor, seed: int = 0) -> Figures:
    """KID and FID to the reference, and between random halves of it; empty for too few images."""
    if len(reference) < MIN_REFERENCE_IMAGES:
        return {}
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(reference)))
    one, other = order.tensor_split(2)
    figures: Figures = {}
    for name, distance in (("kid", kernel_inception_distance), ("fid", frechet_inception_distance)):
        figures[name] = distance(features, reference)
        figures[f"{name}_real"] = distance(reference[one], reference[other])
    return figures


def encode_generated(
    images: Images, catalog: Catalog, users: EvaluationUsers, encoder: ImageEncoder
) -> dict[Condition, Tensor]:
    """Features (num_users, width) under each condition; NonFiniteError names the image of the first
    that are not finite."""
    features: dict[Condition, Tensor] = {
        condition: encoder.features(list(each)) for condition, each in images.items()
    }
    for condition, of_condition in features.items():
        if not of_condition.isfinite().all():
            index = int((~of_condition.isfinite().all(dim=1)).nonzero()[0])
            raise NonFiniteError(
                f"the encoder's features of the image for user {catalog.user_ids[users.users[index]]!s} "
                f"({condition}) are not finite; look at that image, or name another encoder with "
                "--image_encoder"
            )
    return features


def reference_items(users: EvaluationUsers, items: NDArray[np.integer]) -> list[int]:
    """Items whose images those of `users` are compared with: recent, condition and next items."""
    recent = (item for group in recent_items(users) for item in group)
    return sorted({*recent, *items.tolist(), *users.items.tolist()})


def training_items(encoder: ImageEncoder) -> list[int]:
    """Items that an encoder trained on this catalog was fitted to."""
    return getattr(encoder, "training_items", np.empty(0, np.int64)).tolist()


def encode_catalog_images(
    catalog: Catalog, items: Sequence[int], size: tuple[int, int], encoder: ImageEncoder
) -> tuple[dict[int, int], Tensor]:
    """Item → its row in the features (images, width) of those that have an image."""
    images = {int(item): catalog.item_image(int(item), size) for item in items}
    known = {item: image for item, image in images.items() if image is not None}
    return {item: row for row, item in enumerate(known)}, encoder.features(list(known.values()))
