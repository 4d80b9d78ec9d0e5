"""Pictures for one person and one item, from artifacts on disk: what the command and a page call."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from generate.conditioning import Ranker
from generate.image.best_of_n import SampledImage, choose
from generate.image.codec import ImageSize
from generate.image.config import SamplingConfig
from generate.image.ip_adapter import BASE_FILE, load_adapted
from generate.image.latent_cache import nearest_bucket, shape_of
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline, pipeline_arguments
from generate.image.safety import Check, SafetyChecker
from generate.image.structure import CHANNELS, around, foreground_mask, seen, structure_map
from generate.image.watermark import embed_watermark
from generate.provenance import IPTC_SOURCE, signed_png
from generate.pseudonyms import pseudonymize, user_key
from generate.ranker import load_catalog_and_ranker

SAMPLING_DEFAULTS = "sampling.json"
LARGEST = 1024
"""Pixels of the longer side of a creative picture, at most."""
KEPT = 64
"""Items that stay cut out for the next picture of them."""
Request = tuple[str | None, str | None]
"""(user id, item id); None where the picture is for nobody, or of nothing, in particular."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ImageSampler:
    """An image generator with its catalog and its shop."""

    pipeline: PersonalImagePipeline
    catalog: Catalog
    ranker: Ranker
    defaults: SamplingConfig
    hash: str
    """Content hash of the generator's artifact: what is generated says what made it."""
    training_images: TrainingImageIndex
    """The pictures it learned from."""
    check: Check | None = None
    """Says of pictures why they may not be shown; beside or in place of `safety_model`."""

    def sample(
        self,
        requests: Sequence[Request],
        config: SamplingConfig | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture a request, seeds counting up, with the watermark where it was made by the model;
        VitrineError for ids the catalog lacks.

        `progress` is told how many pictures each batch finished.
        """
        config = config or self.defaults
        histories = [self._history(user) for user, _ in requests]
        rows = [None if item is None else self.catalog.item_index(item) for _, item in requests]
        seeds = range(config.seed, config.seed + len(requests))
        states = self.ranker.user_states(histories)
        pictures = []
        for request, drawn in zip(
            requests, self.sample_rows(states, rows, seeds, config, progress), strict=True
        ):
            if drawn.picture is None:
                raise VitrineError(
                    f"nothing that was drawn of {request[1]!r} may be shown: {drawn.refused}; try another "
                    "seed, or a larger max_retries."
                )
            pictures.append(drawn.picture)
        return pictures

    def sample_rows(
        self,
        states: Tensor,
        items: Sequence[int | None],
        seeds: Sequence[int],
        config: SamplingConfig,
        progress: Callable[[int], None] | None = None,
    ) -> list[SampledImage]:
        """What is drawn for each of `states` (pictures, width) and `items` (rows)."""
        if config.num_candidates < 1:
            raise VitrineError(f"num_candidates is {config.num_candidates}; give 1 or more.")
        bare: set[int] = set()
        if config.mode == "creative":
            config = replace(
                config, structure_guidance_scale=max(1.0, config.structure_guidance_scale)
            )
            known = [item for item in items if item is not None]
            if len(known) < len(items):
                raise VitrineError("creative draws around an item; name one with --item.")
            bare = {place for place, item in enumerate(known) if self._cut_items(item) is None}
        kept = [place for place in range(len(items)) if place not in bare]
        refused = "it has no readable picture, and creative keeps the item's own pixels"
        drawn = {place: SampledImage(None, seeds[place], refused) for place in bare}
        if kept:
            asked = [items[place] for place in kept]
            found = self._choose(
                states[kept], asked, [seeds[place] for place in kept], config, progress
            )
            drawn |= zip(kept, found, strict=True)
        return [drawn[place] for place in range(len(items))]

    def _choose(
        self,
        states: Tensor,
        items: Sequence[int | None],
        seeds: Sequence[int],
        config: SamplingConfig,
        progress: Callable[[int], None] | None,
    ) -> list[SampledImage]:
        vectors = torch.stack([self._vector(item) for item in items])

        def sample(places: Sequence[int], seeds: Sequence[int]) -> list[Image.Image]:
            chosen = [items[place] for place in places]
            return self._draw(states[places], vectors[places], chosen, seeds, config, progress)

        concept = config.mode == "concept"
        return choose(
            sample,
            states,
            vectors,
            seeds,
            num_candidates=config.num_candidates,
            max_retries=config.max_retries,
            ranker=self.ranker,
            training_images=self.training_images if config.reject_near_copies and concept else None,
            check=self._check(config),
        )

    def _draw(
        self,
        states: Tensor,
        vectors: Tensor,
        items: Sequence[int | None],
        seeds: Sequence[int],
        config: SamplingConfig,
        progress: Callable[[int], None] | None,
    ) -> list[Image.Image]:
        frames = [self._frame(item) for item in items]
        pictures: dict[int, Image.Image] = {}
        for frame in dict.fromkeys(frames):
            places = [place for place, one in enumerate(frames) if one == frame]
            asked = [items[place] for place in places]
            drawn = self.pipeline(
                states[places],
                vectors[places],
                [seeds[place] for place in places],
                self._structures(asked, frame, config),
                frame=frame,
                progress=progress,
                **pipeline_arguments(config),
            )
            pictures |= zip(places, drawn, strict=True)
        if config.mode == "creative":
            return [self._around_item(item, pictures[place]) for place, item in enumerate(items)]
        return [
            Image.fromarray(embed_watermark(np.asarray(pictures[place])))
            for place in range(len(items))
        ]

    def item_pixels(self, item: int) -> tuple[NDArray[np.uint8], Mask]:
        """The item's picture (height, width, 3) at the size creative mode keeps it, and where in it the
        item is; VitrineError without a picture."""
        found = self._cut_items(item)
        if found is None:
            raise VitrineError(
                f"item {self.catalog.items[item]['item_id']!r} has no readable picture."
            )
        return found

    @cached_property
    def _cut_items(self) -> Callable[[int], tuple[NDArray[np.uint8], Mask] | None]:
        return lru_cache(maxsize=KEPT)(self._cut_item)

    def _cut_item(self, item: int) -> tuple[NDArray[np.uint8], Mask] | None:
        shape = shape_of(self.catalog, item)
        size = None if shape is None else _at_most(shape, LARGEST)
        picture = None if size is None else self.catalog.item_image(item, size)
        return None if picture is None else (picture, foreground_mask(picture))

    def _around_item(self, item: int | None, drawn: Image.Image) -> Image.Image:
        assert item is not None
        picture, mask = self.item_pixels(item)
        ground = embed_watermark(_out_of_frame(drawn, (picture.shape[0], picture.shape[1])))
        return Image.fromarray(around(picture, mask, ground))

    def _check(self, config: SamplingConfig) -> Check | None:
        model = safety_checker(config.safety_model, config.safety_labels)
        checks = [check for check in (self.check, model) if check is not None]
        if not checks:
            return None

        def all_of(pictures: Sequence[Image.Image]) -> list[str]:
            found = zip(*(check(pictures) for check in checks), strict=True)
            return [next(filter(None, reasons), "") for reasons in found]

        return all_of

    def _structures(
        self, items: Sequence[int | None], frame: ImageSize, config: SamplingConfig
    ) -> Tensor | None:
        """(pictures, CHANNELS, rows, columns); zeros for nothing in particular and no picture."""
        if config.structure_guidance_scale == 0:
            return None
        grid = self.pipeline.codec.grid_of(frame)
        found: dict[int, Tensor] = {}
        for item in {one for one in items if one is not None}:
            picture = self.catalog.item_image(item, frame)
            if picture is not None:
                found[item] = seen(structure_map(picture, foreground_mask(picture), grid))
        nothing = torch.zeros(CHANNELS, *grid)
        return torch.stack([nothing if one is None else found.get(one, nothing) for one in items])

    def _frame(self, item: int | None) -> ImageSize:
        frames = self.pipeline.codec.frames
        shape = None if item is None or len(frames) == 1 else shape_of(self.catalog, item)
        return frames[nearest_bucket(shape, frames)] if shape else frames[0]

    def metadata(self, request: Request, config: SamplingConfig | None = None) -> dict[str, Any]:
        """What a saved picture says of itself: that and how it was made, for whom, of what."""
        config = config or self.defaults
        user, item = request
        # IPTC's words for pictures that a model made, and for those it made a part of.
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
        self, picture: Image.Image, request: Request, config: SamplingConfig | None = None
    ) -> bytes:
        """A PNG to hand out: it says what it is and is signed."""
        return signed_png(picture, self.metadata(request, config))

    def signed_contact_sheet(
        self, sheet: Image.Image, users: Sequence[str], config: SamplingConfig | None = None
    ) -> bytes:
        """A PNG of pictures for several users, and of items, side by side."""
        about = self.metadata((None, None), config) | {
            "DigitalSourceType": f"{IPTC_SOURCE}compositeSynthetic",
            "Mode": "contact sheet",
            "Users": [pseudonymize(user) for user in users],
            "UserKey": user_key().fingerprint,
        }
        return signed_png(sheet, about)

    def _history(self, user: str | None) -> np.ndarray:
        if user is None:
            return np.empty(0, dtype=np.int32)
        return self.catalog.interactions.history(self.catalog.user_index(user))

    def _vector(self, item: int | None) -> Tensor:
        if item is None:
            return torch.zeros(self.ranker.width)
        return torch.from_numpy(np.array(self.ranker.item_vectors[item]))


def _at_most(shape: ImageSize, longest: int) -> ImageSize:
    scale = min(1.0, longest / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _out_of_frame(drawn: Image.Image, shape: ImageSize) -> NDArray[np.uint8]:
    """What was drawn, without the rims that the frame adds to a picture of this shape, at its size."""
    height, width = shape
    scale = min(drawn.width / width, drawn.height / height)
    across, down = (drawn.width - width * scale) / 2, (drawn.height - height * scale) / 2
    box = (across, down, drawn.width - across, drawn.height - down)
    return np.asarray(drawn.resize((width, height), Image.Resampling.BICUBIC, box=box))


def load_image_sampler(
    folder: str | Path, catalog: CatalogConfig | None = None, recommender: str | Path = ""
) -> ImageSampler:
    """The painter of an image-generator artifact; `catalog` and `recommender` as in `open_shop`."""
    artifact = open_artifact(Path(folder), kind="image-generator")
    read, ranker = load_catalog_and_ranker(artifact, catalog, recommender)
    pipeline = load_pipeline(artifact.path)
    if pipeline.width != ranker.width:
        raise VitrineError(
            f"the image generator reads vectors of width {pipeline.width}, the recommender's have "
            f"{ranker.width}; give the recommender that the generator was trained with."
        )
    defaults = load_defaults(artifact.path)
    return ImageSampler(
        pipeline, read, ranker, defaults, artifact.hash, TrainingImageIndex.load(artifact.path)
    )


def load_defaults(folder: Path) -> SamplingConfig:
    """The settings that an artifact's pictures are drawn with where nothing else is said."""
    known = json.loads((folder / SAMPLING_DEFAULTS).read_text())
    return SamplingConfig(**known | {"safety_labels": tuple(known["safety_labels"])})


def load_pipeline(folder: Path) -> PersonalImagePipeline:
    """What draws in the folder of an image-generator artifact."""
    if (folder / BASE_FILE).exists():
        conditioner, denoiser, codec = load_adapted(folder)
        return PersonalImagePipeline(conditioner, denoiser, codec)
    return PersonalImagePipeline.from_pretrained(folder)


@cache
def safety_checker(model: str, labels: tuple[str, ...]) -> SafetyChecker | None:
    return SafetyChecker(model, labels) if model else None


def sample_image(
    folder: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    config: SamplingConfig | None = None,
    output: str | Path | None = None,
    recommender: str | Path = "",
) -> Image.Image:
    """One picture, straight from the artifact's folder; for several, keep `open_painter`'s Painter.

    `output` is a PNG file to write it to, marked and signed as generated.
    """
    sampler = load_image_sampler(folder, recommender=recommender)
    picture = sampler.sample([(user, item)], config)[0]
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_bytes(sampler.to_signed_png(picture, (user, item), config))
    return picture
