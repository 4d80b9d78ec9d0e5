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
from generate.image.foreground import REFUSED, Foreground, find_foreground
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline
from generate.image.resolution_buckets import ImageSize, image_shape, nearest_bucket
from generate.image.safety import SafetyCheck, SafetyChecker, combine_checks
from generate.image.segmentation import segmentation_model
from generate.image.structure import (
    CHANNELS,
    composite,
    foreground_mask,
    normalize,
    structure_map,
    without_item,
)
from generate.image.watermark import embed_watermark
from generate.provenance import IPTC_SOURCE, signed_png
from generate.pseudonyms import pseudonymize, user_key

FOREGROUND_CACHE = 16
"""Items whose pictures and foreground masks are cached."""
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
        skipped: dict[int, str] = {}
        if config.mode == "creative":
            scale = max(1.0, config.structure_guidance_scale)
            config = replace(config, structure_guidance_scale=scale)
            known = [item for item in items if item is not None]
            if len(known) < len(items):
                raise VitrineError(
                    "creative mode generates a background of an item; name one with --item."
                )
            reasons = [self._foreground(item, config).reason for item in known]
            skipped = {index: reason for index, reason in enumerate(reasons) if reason}
        indices = [index for index in range(len(items)) if index not in skipped]
        sampled = {
            index: SampledImage(None, seeds[index], reason) for index, reason in skipped.items()
        }
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
                pairs = zip(chosen, images, strict=True)
                return [self._composite(item, one, config) for item, one in pairs]
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

    def item_pixels(
        self, item: int, config: SamplingConfig | None = None
    ) -> tuple[NDArray[np.uint8], Mask]:
        """The item's image (height, width, 3) at its own resolution, and its foreground mask; VitrineError
        without an image, or where every mask is refused."""
        found = self._foreground(item, config or self.defaults)
        if found.image is None or found.mask is None:
            name = self.catalog.items[item]["item_id"]
            raise VitrineError(f"item {name!r} has no creative image: {found.reason}.")
        return found.image, found.mask

    def refused_masks(self, items: Sequence[int], config: SamplingConfig) -> list[int]:
        """Those of the items whose picture can be read, but of which every mask is refused."""
        return [item for item in items if self._foreground(item, config).reason.startswith(REFUSED)]

    def _foreground(self, item: int, config: SamplingConfig) -> Foreground:
        return self._find_foreground(item, config.segmentation_model, config.segmentation_labels)

    @cached_property
    def _find_foreground(self) -> Callable[[int, str, tuple[str, ...]], Foreground]:
        def find(item: int, model: str, labels: tuple[str, ...]) -> Foreground:
            segmenter = segmentation_model(model, labels, self.pipeline.device)
            return find_foreground(self.catalog, item, segmenter)

        return lru_cache(maxsize=FOREGROUND_CACHE)(find)

    def _composite(
        self, item: int | None, generated: Image.Image, config: SamplingConfig
    ) -> Image.Image:
        """The item's own pixels, which nothing touches, in front of the watermarked generated image, which
        is resized to the item's image."""
        assert item is not None
        image, mask = self.item_pixels(item, config)
        height, width = mask.shape
        scene = without_item(_without_letterbox(generated, (height, width)), mask)
        resized = Image.fromarray(scene).resize((width, height), Image.Resampling.BICUBIC)
        return Image.fromarray(composite(image, mask, embed_watermark(np.asarray(resized))))

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


def _without_letterbox(image: Image.Image, shape: ImageSize) -> NDArray[np.uint8]:
    """The image without the borders that letter-boxing `shape` adds, at its own scale."""
    height, width = shape
    scale = min(image.width / width, image.height / height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (image.width - inner[0]) // 2, (image.height - inner[1]) // 2
    return np.asarray(image.crop((left, top, left + inner[0], top + inner[1])))


@cache
def safety_checker(
    model: str, labels: tuple[str, ...], device: torch.device
) -> SafetyChecker | None:
    return SafetyChecker(model, labels, device=device) if model else None
