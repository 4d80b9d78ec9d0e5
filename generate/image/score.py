"""Does a picture fit its person? Draws each item for the own person, a swapped one, and nobody.

Knows nothing about a made-up world: truth comes in, if at all, as functions that read a picture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import NonFiniteError
from finetune.statistics import Interval, difference_interval, mean_interval, ratio_interval
from generate.conditioning import CONDITIONS, Ranker
from generate.evaluation.identification import NUM_CANDIDATES, identification_figures
from generate.evaluation.readings import Reading, reading_hits
from generate.evaluation.users import EvaluationUsers
from generate.image.attribute_classifier import ImageEncoder
from generate.image.config import SamplingConfig
from generate.image.feature_metrics import (
    centred,
    diversity,
    frechet_inception_distance,
    identified,
    kernel_inception_distance,
    mean_features,
)
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline, pipeline_arguments
from generate.image.siblings import Siblings

RECENT = 8
"""Latest pictures of a history that stand for the person."""
LEAST_REAL = 4
"""Pictures of the catalog, without which there is no distance to them, nor between their halves."""
LEVELS = 4
"""Levels of each colour channel in a histogram."""
Pictures = Mapping[str, list[Image.Image]]
"""For each of CONDITIONS, one picture a person."""


ImageReadings = Mapping[str, Reading[NDArray[np.uint8]]]
"""Name → what an image should show of its user."""


def score_images(
    pipeline: PersonalImagePipeline,
    ranker: Ranker,
    catalog: Catalog,
    people: EvaluationUsers,
    config: SamplingConfig | None = None,
    *,
    readings: ImageReadings | None = None,
    eyes: ImageEncoder | None = None,
    training_images: TrainingImageIndex | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Figures over `people` (see `EvaluationUsers`), three pictures each; `readings` maps names to `Reading`.

    Everybody is drawn another item of their next item's kind, so that the item's vector gives away
    neither colours nor pattern. Returns {"people": count, "measures": {name: {"own", "swapped",
    "none", "contrast": intervals over people, "contrast_name", "higher_is_better", "people"}}}; with
    `eyes`, an independent image encoder, also `encoder_metrics` (see `score_with_encoder`); with
    `training_images` also the share of near-copies.
    """
    items = sample_siblings(ranker, catalog, people.items, seed)
    drawn = draw_for(
        pipeline, ranker, people.states, items, config or SamplingConfig(), seed, progress
    )
    scores = score_drawn(drawn, catalog, people, readings or {})
    if eyes is not None:
        judged, measures = score_with_encoder(drawn, items, catalog, people, eyes, seed)
        scores["measures"] |= measures
        scores["encoder_metrics"] = judged
        if training_images is not None:
            copies = training_images.near_copies([np.asarray(picture) for picture in drawn["own"]])
            judged["near_copies"] = float(copies.mean())
    return scores


def score_drawn(
    drawn: Pictures, catalog: Catalog, people: EvaluationUsers, readings: ImageReadings
) -> dict[str, Any]:
    """What rules on pixels say of pictures of `people`, for each of CONDITIONS."""
    users = [int(user) for user in people.users]
    histories = [history[-RECENT:] for history in people.histories]
    measures: dict[str, Any] = {}
    for name, reading in readings.items():
        figures = measure_reading(drawn, reading, people)
        measures[f"{name} of the person is in the picture"] = figures
    for name, looks in (
        ("Colours shared with what they bought before", histories),
        ("Colours shared with what they bought next", [[item] for item in people.items]),
    ):
        measures[name] = measure_colours(drawn, catalog, looks)
    return {
        "people": len(users),
        "measures": {name: figures for name, figures in measures.items() if figures},
    }


def score_with_encoder(
    drawn: Pictures,
    items: NDArray[np.integer],
    catalog: Catalog,
    people: EvaluationUsers,
    eyes: ImageEncoder,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an encoder says of pictures of `items` (people,): of all of them, and measures as in
    `score_pictures`.

    All of them: kernel and Fréchet distance of the pictures drawn for their own user to real ones that
    `eyes` did not learn from (`reference_pictures`, LEAST_REAL or more), beside that between halves of
    these; variety; how often a user is told from among 20 by their picture.
    """
    width, height = drawn["own"][0].size
    looks = [history[-RECENT:].tolist() for history in people.histories]
    wanted = reference_items(people, items)
    rows, real = encode_catalog_images(catalog, wanted, (height, width), eyes)
    features = {told: eyes.features(pictures) for told, pictures in drawn.items()}
    for told, found in features.items():
        if not found.isfinite().all():
            place = int((~found.isfinite().all(dim=1)).nonzero()[0])
            raise NonFiniteError(
                f"the judge's features of the picture for user {catalog.user_ids[people.users[place]]!s} "
                f"({told}) are not finite; look at that picture, or name another encoder with --judge"
            )
    known = {told: centred(part, real) for told, part in features.items()}
    units = centred(real, real)
    measures: dict[str, Any] = {}
    learned = set(training_items(eyes))
    unseen = [row for item, row in rows.items() if item not in learned]
    reference = real[unseen]
    judged: dict[str, Any] = {"real_pictures": len(real), "reference_pictures": len(reference)}
    for name, groups in (
        ("Likeness to what they bought before", looks),
        ("Likeness to what they bought next", [[item] for item in people.items]),
        ("Likeness to the item asked for", [[item] for item in items]),
    ):
        pictured = [[rows[item] for item in group if item in rows] for group in groups]
        places = [place for place, group in enumerate(pictured) if group]
        if len(places) > 1:
            aims = mean_features(units, [pictured[place] for place in places])
            near = {
                told: (part[places] * aims).sum(1).double().numpy() for told, part in known.items()
            }
            measures[name] = _figures(near, "own − swapped")
            if name.endswith("before") and len(places) > NUM_CANDIDATES:
                users = np.asarray(people.users)[places]
                hits = identified(known["own"][places], aims, users, NUM_CANDIDATES, seed)
                judged["identified"] = identification_figures(hits)
    judged |= {"diversity": diversity(known["own"]), "diversity_real": diversity(units)}
    if len(reference) < LEAST_REAL:
        return judged, measures
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(reference)))
    some, others = order.tensor_split(2)
    for name, distance in (("kid", kernel_inception_distance), ("fid", frechet_inception_distance)):
        judged[name] = distance(features["own"], reference)
        judged[f"{name}_real"] = distance(reference[some], reference[others])
    return judged, measures


def reference_items(people: EvaluationUsers, items: NDArray[np.integer]) -> list[int]:
    """Items whose pictures those of `people` are compared with: recent ones, asked for, and next."""
    recent = (item for history in people.histories for item in history[-RECENT:].tolist())
    return sorted({*recent, *items.tolist(), *people.items.tolist()})


def training_items(eyes: ImageEncoder) -> list[int]:
    """Items that an encoder trained on this catalog was fitted to."""
    return getattr(eyes, "learned", np.empty(0, np.int64)).tolist()


def encode_catalog_images(
    catalog: Catalog, items: Sequence[int], frame: tuple[int, int], eyes: ImageEncoder
) -> tuple[dict[int, int], Tensor]:
    """Item → its row in the features (pictures, width) of those that have a picture."""
    found = {int(item): catalog.item_image(int(item), frame) for item in items}
    pictured = {item: picture for item, picture in found.items() if picture is not None}
    return {item: row for row, item in enumerate(pictured)}, eyes.features(list(pictured.values()))


def sample_siblings(
    ranker: Ranker, catalog: Catalog, items: NDArray[np.integer], seed: int = 0
) -> NDArray[np.int64]:
    """Another item of the same kind for each of `items` (people,)."""
    siblings = Siblings(catalog.items["category"], ranker.item_vectors, seed)
    return siblings.pick(np.asarray(items), np.random.default_rng(seed))


def draw_for(
    pipeline: PersonalImagePipeline,
    ranker: Ranker,
    states: Mapping[str, Tensor],
    items: NDArray[np.integer],
    config: SamplingConfig,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, list[Image.Image]]:
    """Each item (people,) drawn under each of CONDITIONS's states, from the same noise every time."""
    vectors = torch.from_numpy(np.array(ranker.item_vectors[items]))
    return {
        told: pipeline(
            states[told],
            vectors,
            list(range(seed, seed + len(items))),
            **pipeline_arguments(config),
            progress=progress,
        )
        for told in CONDITIONS
    }


def measure_reading(
    drawn: Pictures, reading: Reading[NDArray[np.uint8]], people: EvaluationUsers
) -> dict[str, Any]:
    """Shares of the users with a label whose label is read in their picture."""
    pixels = {told: [np.asarray(one) for one in pictures] for told, pictures in drawn.items()}
    return _figures(reading_hits(reading, people, pixels), "own / swapped")


def measure_colours(
    drawn: Pictures, catalog: Catalog, looks: Sequence[Sequence[int] | NDArray[np.integer]]
) -> dict[str, Any]:
    """Histogram intersection (Swain & Ballard 1991), 0 … 1, with the pictures of `looks` (people,).

    People none of whose items have a picture are left out.
    """
    width, height = drawn["own"][0].size
    wanted: dict[int, NDArray[np.float64]] = {}
    for place, items in enumerate(looks):
        pictures = [catalog.item_image(int(item), (height, width)) for item in items]
        found = [colour_histogram(picture) for picture in pictures if picture is not None]
        if found:
            wanted[place] = np.mean(found, axis=0)
    return _figures(
        {
            told: np.array(
                [
                    np.minimum(colour_histogram(np.asarray(pictures[place])), histogram).sum()
                    for place, histogram in wanted.items()
                ]
            )
            for told, pictures in drawn.items()
        },
        "own − swapped",
    )


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares (LEVELS³,) of a picture (size, size, 3) by colour; sums to 1."""
    levels = pixels.reshape(-1, 3).astype(np.int64) * LEVELS // 256
    codes = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    return np.bincount(codes, minlength=LEVELS**3) / len(codes)


def _figures(values: Mapping[str, NDArray[np.float64]], contrast_name: str) -> dict[str, Any]:
    """`values` (people,) for each of CONDITIONS, as means and a contrast; empty for fewer than 2 people."""
    own, swapped = values["own"], values["swapped"]
    if len(own) < 2:
        return {}
    contrast: Callable[..., Interval] = (
        ratio_interval if "/" in contrast_name else difference_interval
    )
    return {
        **{told: asdict(mean_interval(column)) for told, column in values.items()},
        "contrast": asdict(contrast(own, swapped)),
        "contrast_name": contrast_name,
        "higher_is_better": True,
        "people": len(own),
    }
