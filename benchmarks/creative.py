"""Creative images of a fashion shop: how many masks are refused, and whether the item's own pixels are kept.

python -m benchmarks.creative    # two minutes on two cores
"""

import argparse
import os
import tempfile
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from benchmarks.record import write_record
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from generate.image.codec import fit_codec
from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig
from generate.image.denoiser import build_denoiser
from generate.image.foreground import REFUSED
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline
from generate.image.run import build_conditioner
from generate.image.sampler import ImageSampler
from generate.image.watermark import THRESHOLD, detect_watermark
from generate.provenance import verify

NUM_ITEMS, MARKED = 300, 32
"""Items, and how many of their images are searched for the watermark, which takes longest."""
SEED = 0
WIDTH = 8
SHOWN, COLUMNS, CELL = 24, 12, (120, 180)
"""Items on the contact sheet, its columns, and width and height of a picture on it."""
SETTINGS = ImageConfig(
    image_size=64,
    num_resolution_buckets=2,
    codec=CodecConfig(patch_size=16, channels=48),
    denoiser=DenoiserConfig(width=32, layers=1, heads=2, user_tokens=1, item_tokens=1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shop", default="../shared/data/fashion", help="folder of the catalog")
    parser.add_argument("--output", type=Path, default=Path("runs/creative"))
    arguments = parser.parse_args()
    catalog = load_catalog(CatalogConfig(path=arguments.shop, ties="shuffle"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRINE_KEY"] = str(Path(folder) / "key.pem")
        os.environ["VITRINE_USER_KEY"] = str(Path(folder) / "users.key")
        figures = measure(untrained_sampler(catalog), arguments.output, Path(folder))
    record(figures)


def untrained_sampler(catalog: Catalog) -> ImageSampler:
    """A generator whose codec knows the shop's pictures, and whose denoiser is as it is initialized."""
    torch.manual_seed(SEED)
    codec = fit_codec(catalog, SETTINGS)
    pipeline = PersonalImagePipeline(
        build_conditioner(SETTINGS, WIDTH), build_denoiser(SETTINGS), codec
    )
    vectors = np.random.default_rng(SEED).normal(size=(catalog.num_items, WIDTH))
    ranker: Any = SimpleNamespace(width=WIDTH, item_vectors=vectors.astype(np.float32))
    nothing = TrainingImageIndex(np.zeros((1, 192), np.uint8), 0.0)
    return ImageSampler(pipeline, catalog, ranker, SETTINGS.sampling, "untrained", nothing)


def measure(sampler: ImageSampler, output: Path, folder: Path) -> dict[str, Any]:
    catalog = sampler.catalog
    config = replace(sampler.defaults, mode="creative", steps=2, batch_size=32)
    pictured = [item for item in range(catalog.num_items) if catalog.media_path(item)]
    items = sorted(np.random.default_rng(SEED).permutation(pictured)[:NUM_ITEMS].tolist())
    states = torch.randn(len(items), WIDTH, generator=torch.Generator().manual_seed(SEED))
    equal, changed, marked, shown = [], [], [], []
    reasons: Counter[str] = Counter()
    shapes = set()
    for start in range(0, len(items), 32):
        rows = items[start : start + 32]
        sampled = sampler.sample_rows(states[start : start + 32], rows, rows, config)
        for item, one in zip(rows, sampled, strict=True):
            own = decoded(catalog, item)
            shown.append((own, one.image, one.rejected))
            if one.image is None:
                reasons[kind_of(one.rejected)] += 1
                continue
            _, mask = sampler.item_pixels(item, config)
            content = sampler.to_signed_png(one.image, (None, None), config)
            (folder / "one.png").write_bytes(content)
            assert verify(folder / "one.png").is_intact
            drawn = np.asarray(Image.open(BytesIO(content)).convert("RGB"))
            shapes.add(drawn.shape == own.shape)
            equal.append(bool((drawn[mask] == own[mask]).all()))
            changed.append(float((drawn[~mask] != own[~mask]).any(1).mean()))
            if len(marked) < MARKED:
                marked.append(detect_watermark(drawn) >= THRESHOLD)
    save_sheet(sampler, shown, output / "contact-sheet.png")
    return {
        "items": len(items),
        "creative_images": len(equal),
        "byte_equal_share": float(np.mean(equal)),
        "own_resolution_share": float(shapes == {True}),
        "refused_share": reasons.total() / len(items),
        "refused_area": reasons["area"],
        "refused_border": reasons["border"],
        "refused_other": reasons["other"],
        "background_changed_share": float(np.mean(changed)),
        "watermark_found_share": float(np.mean(marked)),
        "searched_for_watermark": len(marked),
    }


def decoded(catalog: Catalog, item: int) -> NDArray[np.uint8]:
    """The item's picture as Pillow decodes it, without the catalog's own reading."""
    path = catalog.media_path(item)
    assert path is not None
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def kind_of(reason: str) -> str:
    if not reason.startswith(REFUSED):
        return "other"
    return "area" if "covers" in reason else "border"


def save_sheet(
    sampler: ImageSampler,
    shown: list[tuple[NDArray[np.uint8], Image.Image | None, str]],
    path: Path,
) -> None:
    """Pictures above their creative images; first of items with one, then of those without."""
    made = [each for each in shown if each[1] is not None][: 2 * SHOWN // 3]
    refused = [each for each in shown if each[1] is None][: SHOWN - len(made)]
    width, height = CELL
    rows = -(-(len(made) + len(refused)) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * 2 * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (own, image, reason) in enumerate([*made, *refused]):
        left, top = index % COLUMNS * width, index // COLUMNS * 2 * height
        sheet.paste(ImageOps.contain(Image.fromarray(own), CELL), (left, top))
        if image is not None:
            sheet.paste(ImageOps.contain(image, CELL), (left, top + height))
        else:
            draw.text((left + 4, top + height + 4), kind_of(reason), fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sampler.signed_contact_sheet(sheet, []))


def record(figures: dict[str, Any]) -> None:
    write_record(
        "image-creative",
        claim="Creative images of a fashion shop have every byte of the item's own pixels, at the picture's "
        "own resolution; items without a mask that is good enough have none, and are counted.",
        command="python -m benchmarks.creative",
        seeds=[SEED],
        figures=figures,
        goal=[
            "items >= 200",
            "creative_images >= 200",
            "byte_equal_share == 1",
            "own_resolution_share == 1",
            "background_changed_share >= 0.9",
        ],
        sources=[
            "catalog/images.py",
            "generate/image/foreground.py",
            "generate/image/sampler.py",
            "generate/image/structure.py",
            "generate/image/watermark.py",
        ],
        note=f"{NUM_ITEMS} garments with a photograph, drawn at random. byte_equal: the signed PNG inside "
        "the mask against the picture as Pillow decodes it. The shop has neither alpha channels nor a column "
        "of masks, so masks are GrabCut's. refused_area, refused_border: items whose mask covers too little "
        "or too much, or touches too much of the border; they get no image. background_changed: pixels "
        "outside the mask that differ from the picture's. The denoiser is untrained, so backgrounds are the "
        "codec's mean: the record is about masks and pixels. The contact sheet is "
        "runs/creative/contact-sheet.png.",
    )


if __name__ == "__main__":
    main()
