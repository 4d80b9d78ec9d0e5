"""The image sampler: images for users and items by id, selected, watermarked and signed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from generate.conditioning import Ranker
from generate.image.best_of_n import CandidateSelection, SampledImage
from generate.image.config import SamplingConfig
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline
from generate.image.resolution_buckets import ImageSize, image_shape, nearest_bucket
from generate.image.safety import SafetyCheck, SafetyChecker, combine_checks
from generate.image.structure import (
    CHANNELS,
    composite,
    foreground_mask,
    normalize,
    structure_map,
)
from generate.image.watermark import embed_watermark
from generate.provenance import IPTC_SOURCE, signed_png
from generate.pseudonyms import pseudonymize, user_key

MAX_CREATIVE_SIDE = 1024
"""Pixels of the longer side of a creative image, at most."""
FOREGROUND_CACHE = 64
"""Items whose foreground masks are cached."""
Request = tuple[str | None, str | None]
"""(user id, item id); None for no condition on it."""
Mask = NDArray[np.bool_]
Progress = Callable[[int], None]
"""Called with the number of images of each finished batch."""


@dataclass(frozen=True)
class ImageSampler:
    """An image generator with its catalog and recommender."""

    pipeline: PersonalImagePipeline
    catalog: Catalog
    ranker: Ranker
    defaults: SamplingConfig
    hash: str
    """Content hash of the generator's artifact, written into the provenance of each image."""
    training_images: TrainingImageIndex
    check: SafetyCheck | None = None
    """Rejects images, in addition to `safety_model` where that is set."""

    def sample(
        self,
        requests: Sequence[Request],
        config: SamplingConfig | None = None,
        progress: Progress | None = None,
    ) -> list[Image.Image]:
        """One watermarked image for each request, with seeds counting up from `config.seed`.

        Raises VitrineError for ids that the catalog lacks, and where every candidate was rejected.
        """
        config = config or self.defaults
        states = self.ranker.user_states([self._history(user) for user, _ in requests])
        items = [None if item is None else self.catalog.item_index(item) for _, item in requests]
        seeds = range(config.seed, config.seed + len(requests))
        images = []
        for request, sampled in zip(
            requests, self.sample_rows(states, items, seeds, config, progress), strict=True
        ):
            if sampled.image is None:
                raise VitrineError(
                    f"every image sampled of {request[1]!r} was rejected: {sampled.rejected}; try another "
                    "seed, or a larger max_retries."
                )
            images.append(sampled.image)
        return images

    def sample_rows(
        self,
        states: Tensor,
        items: Sequence[int | None],
        seeds: Sequence[int],
        config: SamplingConfig,
        progress: Progress | None = None,
    ) -> list[SampledImage]:
        """The watermarked image for each of `states` (requests, width) and `items` (rows), or the reason
        why there is none."""
        if config.num_candidates < 1:
            raise VitrineError(f"num_candidates is {config.num_candidates}; give 1 or more.")
        skipped: set[int] = set()
        if config.mode == "creative":
            scale = max(1.0, config.structure_guidance_scale)
            config = replace(config, structure_guidance_scale=scale)
            known = [item for item in items if item is not None]
            if len(known) < len(items):
                raise VitrineError(
                    "creative mode generates a background of an item; name one with --item."
                )
            skipped = {index for index, item in enumerate(known) if self._foreground(item) is None}
        indices = [index for index in range(len(items)) if index not in skipped]
        reason = "it has no readable image, and creative mode keeps the item's own pixels"
        sampled = {index: SampledImage(None, seeds[index], reason) for index in skipped}
        if indices:
            kept_items = [items[index] for index in indices]
            kept_seeds = [seeds[index] for index in indices]
            found = self._best_of_n(states[indices], kept_items, kept_seeds, config, progress)
            sampled |= zip(indices, found, strict=True)
        return [sampled[index] for index in range(len(items))]

    def generate_unmarked(
        self,
        states: Tensor,
        items: Sequence[int | None],
        seeds: Sequence[int],
        config: SamplingConfig,
        progress: Progress | None = None,
    ) -> list[Image.Image]:
        """Samples images from the pipeline, each in its item's resolution bucket, without rejection checks
        and without watermark: for evaluation, and as candidates of `sample_rows`."""
        vectors = torch.stack([self._vector(item) for item in items])
        sizes = [self._bucket(item) for item in items]
        images: dict[int, Image.Image] = {}
        for size in dict.fromkeys(sizes):
            indices = [index for index, one in enumerate(sizes) if one == size]
            batch = self.pipeline(
                states[indices],
                vectors[indices],
                [seeds[index] for index in indices],
                config,
                self._structures([items[index] for index in indices], size, config),
                size,
                progress,
            )
            images |= zip(indices, batch, strict=True)
        return [images[index] for index in range(len(items))]

    def _best_of_n(
        self,
        states: Tensor,
        items: Sequence[int | None],
        seeds: Sequence[int],
        config: SamplingConfig,
        progress: Progress | None,
    ) -> list[SampledImage]:
        def sample(indices: Sequence[int], seeds: Sequence[int]) -> list[Image.Image]:
            chosen = [items[index] for index in indices]
            images = self.generate_unmarked(states[indices], chosen, seeds, config, progress)
            if config.mode == "creative":
                return [
                    self._composite(item, one) for item, one in zip(chosen, images, strict=True)
                ]
            return [Image.fromarray(embed_watermark(np.asarray(image))) for image in images]

        model = safety_checker(config.safety_model, config.safety_labels, self.pipeline.device)
        concept = config.mode == "concept"
        selection = CandidateSelection(
            self.ranker,
            config.num_candidates,
            config.max_retries,
            self.training_images if config.reject_near_copies and concept else None,
            combine_checks([check for check in (self.check, model) if check is not None]),
        )
        vectors = torch.stack([self._vector(item) for item in items])
        return selection.best_of_n(sample, states, vectors, seeds)

    def item_pixels(self, item: int) -> tuple[NDArray[np.uint8], Mask]:
        """The item's image (height, width, 3) at the size of creative mode, and its foreground mask;
        VitrineError without an image."""
        found = self._foreground(item)
        if found is None:
            raise VitrineError(
                f"item {self.catalog.items[item]['item_id']!r} has no readable image."
            )
        return found

    @cached_property
    def _foreground(self) -> Callable[[int], tuple[NDArray[np.uint8], Mask] | None]:
        return lru_cache(maxsize=FOREGROUND_CACHE)(self._segment)

    def _segment(self, item: int) -> tuple[NDArray[np.uint8], Mask] | None:
        shape = image_shape(self.catalog, item)
        size = None if shape is None else _limited(shape, MAX_CREATIVE_SIDE)
        image = None if size is None else self.catalog.item_image(item, size)
        return None if image is None else (image, foreground_mask(image))

    def _composite(self, item: int | None, generated: Image.Image) -> Image.Image:
        """The item's own pixels in front of the watermarked generated image."""
        assert item is not None
        image, mask = self.item_pixels(item)
        background = embed_watermark(
            _without_letterbox(generated, (image.shape[0], image.shape[1]))
        )
        return Image.fromarray(composite(image, mask, background))

    def _structures(
        self, items: Sequence[int | None], size: ImageSize, config: SamplingConfig
    ) -> Tensor | None:
        """(images, CHANNELS, rows, columns); zeros for no item and for items without an image."""
        if config.structure_guidance_scale == 0:
            return None
        grid = self.pipeline.codec.latent_grid(size)
        known: dict[int, Tensor] = {}
        for item in {one for one in items if one is not None}:
            image = self.catalog.item_image(item, size)
            if image is not None:
                known[item] = normalize(structure_map(image, foreground_mask(image), grid))
        absent = torch.zeros(CHANNELS, *grid)
        return torch.stack([absent if one is None else known.get(one, absent) for one in items])

    def _bucket(self, item: int | None) -> ImageSize:
        """The resolution bucket nearest to the item's image; the first without one."""
        buckets = self.pipeline.codec.buckets
        shape = None if item is None or len(buckets) == 1 else image_shape(self.catalog, item)
        return buckets[nearest_bucket(shape, buckets)] if shape else buckets[0]

    def metadata(self, request: Request, config: SamplingConfig | None = None) -> dict[str, object]:
        """Provenance metadata of an image: software, generator, pseudonym of the user, item, settings."""
        config = config or self.defaults
        user, item = request
        # IPTC's terms for media generated by a model, and for composites with a generated part.
        how = "trainedAlgorithmicMedia" if config.mode == "concept" else "compositeSynthetic"
        return {
            "Software": "vitrine",
            "DigitalSourceType": IPTC_SOURCE + how,
            "Mode": config.mode,
            "Generator": self.hash,
            "User": pseudonymize(user),
            "UserKey": "" if user is None else user_key().fingerprint,
            "Item": item or "",
            "Settings": asdict(config),
        }

    def to_signed_png(
        self, image: Image.Image, request: Request, config: SamplingConfig | None = None
    ) -> bytes:
        """The image as a signed PNG with its provenance."""
        return signed_png(image, self.metadata(request, config))

    def signed_contact_sheet(
        self, sheet: Image.Image, users: Sequence[str], config: SamplingConfig | None = None
    ) -> bytes:
        """The contact sheet of several users as a signed PNG with its provenance."""
        about = self.metadata((None, None), config) | {
            "DigitalSourceType": f"{IPTC_SOURCE}compositeSynthetic",
            "Mode": "contact sheet",
            "Users": [pseudonymize(user) for user in users],
            "UserKey": user_key().fingerprint,
        }
        return signed_png(sheet, about)

    def _history(self, user: str | None) -> NDArray[np.integer]:
        if user is None:
            return np.empty(0, dtype=np.int32)
        return self.catalog.interactions.history(self.catalog.user_index(user))

    def _vector(self, item: int | None) -> Tensor:
        if item is None:
            return torch.zeros(self.ranker.width)
        return torch.from_numpy(np.array(self.ranker.item_vectors[item]))


def _limited(shape: ImageSize, longest: int) -> ImageSize:
    """The shape scaled down to `longest` pixels of its longer side, at most."""
    scale = min(1.0, longest / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _without_letterbox(image: Image.Image, shape: ImageSize) -> NDArray[np.uint8]:
    """The image resized to `shape`, without the borders that letter-boxing that shape adds."""
    height, width = shape
    scale = min(image.width / width, image.height / height)
    across, down = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = (across, down, image.width - across, image.height - down)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))


@cache
def safety_checker(
    model: str, labels: tuple[str, ...], device: torch.device
) -> SafetyChecker | None:
    return SafetyChecker(model, labels, device=device) if model else None
