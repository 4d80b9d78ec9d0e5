"""Pictures for one person and one item, from artifacts on disk: what the command and a page call."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from generate.conditioning import Shop
from generate.image.config import DrawConfig
from generate.image.pipeline import PersonalImagePipeline
from generate.shop import open_shop

DRAW_DEFAULTS = "draw.json"
Request = tuple[str | None, str | None]
"""(user id, item id); None where the picture is for nobody, or of nothing, in particular."""


@dataclass(frozen=True)
class Painter:
    """An image generator with its catalog and its shop."""

    pipeline: PersonalImagePipeline
    catalog: Catalog
    shop: Shop
    defaults: DrawConfig
    hash: str
    """Content hash of the generator's artifact: what is generated says what made it."""

    def draw(
        self,
        requests: Sequence[Request],
        config: DrawConfig | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture a request, seeds counting up; VitrineError for ids the catalog lacks.

        `progress` is told how many pictures each batch finished.
        """
        config = config or self.defaults
        histories = [self._history(user) for user, _ in requests]
        vectors = [self._item_vector(item) for _, item in requests]
        return self.pipeline(
            self.shop.user_states(histories),
            torch.stack(vectors),
            list(range(config.seed, config.seed + len(requests))),
            user_scale=config.user_scale,
            item_scale=config.item_scale,
            guide_above=config.guide_above,
            steps=config.steps,
            batch_size=config.batch_size,
            progress=progress,
        )

    def mark(self, request: Request, config: DrawConfig | None = None) -> PngInfo:
        """What a saved PNG says of itself: generated, by what, for whom (`save(…, pnginfo=…)`)."""
        user, item = request
        about = {
            "Software": "vitrine",
            # IPTC's word for pictures that a model made.
            "DigitalSourceType": (
                "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
            ),
            "Generator": self.hash,
            "User": user or "",
            "Item": item or "",
            "Settings": json.dumps(asdict(config or self.defaults)),
        }
        info = PngInfo()
        for name, value in about.items():
            info.add_itxt(name, value)
        return info

    def _history(self, user: str | None) -> np.ndarray:
        if user is None:
            return np.empty(0, dtype=np.int32)
        return self.catalog.interactions.history(self.catalog.user_index(user))

    def _item_vector(self, item: str | None) -> Tensor:
        if item is None:
            return torch.zeros(self.shop.width)
        return torch.from_numpy(np.array(self.shop.item_vectors[self.catalog.item_index(item)]))


def open_painter(
    folder: str | Path, catalog: CatalogConfig | None = None, recommender: str | Path = ""
) -> Painter:
    """The painter of an image-generator artifact; `catalog` and `recommender` as in `open_shop`."""
    artifact = open_artifact(Path(folder), kind="image-generator")
    read, shop = open_shop(artifact, catalog, recommender)
    pipeline = PersonalImagePipeline.from_pretrained(artifact.path)
    if pipeline.width != shop.width:
        raise VitrineError(
            f"the image generator reads vectors of width {pipeline.width}, the recommender's have "
            f"{shop.width}; give the recommender that the generator was trained with."
        )
    defaults = DrawConfig(**json.loads((artifact.path / DRAW_DEFAULTS).read_text()))
    return Painter(pipeline, read, shop, defaults, artifact.hash)


def draw(
    folder: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    config: DrawConfig | None = None,
    output: str | Path | None = None,
    recommender: str | Path = "",
) -> Image.Image:
    """One picture, straight from the artifact's folder; for several, keep `open_painter`'s Painter.

    `output` is a PNG file to write it to, marked as generated.
    """
    painter = open_painter(folder, recommender=recommender)
    picture = painter.draw([(user, item)], config)[0]
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        picture.save(output, format="PNG", pnginfo=painter.mark((user, item), config))
    return picture
