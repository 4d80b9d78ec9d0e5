"""Items of the catalog as a report shows them: title, category and a small image."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from catalog.catalog import Catalog
from catalog.errors import BrokenFileError
from catalog.images import read_image, read_image_shape
from launch.report.contents import (
    ItemCard,
)
from launch.report.gallery import MAX_PIXELS, image_media_type


def item_card(catalog: Catalog, item: int) -> ItemCard:
    """An item as the catalog has it, its image no larger than the page shows it."""
    row = catalog.items[item]
    title = row["title"] or f"({row['item_id']}, no title)"
    return ItemCard(title=title, category=row["category"] or "", image=page_image(row["image"]))


def page_image(path: str | None) -> bytes | None:
    """An image file of any kind as PNG or JPEG, `MAX_PIXELS` a side at most; None where it is
    missing or broken."""
    if not path:
        return None
    try:
        height, width = read_image_shape(path)
        if max(height, width) <= MAX_PIXELS and image_media_type(Path(path).read_bytes()):
            read_image(path, 32)  # opens to its end
            return Path(path).read_bytes()
    except BrokenFileError:
        return None
    return small_jpeg(path, MAX_PIXELS, quality=88)


def small_jpeg(path: str, side: int, quality: int) -> bytes | None:
    """An image file as a JPEG of at most `side` pixels a side; None where it is missing or broken."""
    try:
        height, width = read_image_shape(path)
        scale = min(1.0, side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = Image.fromarray(read_image(path, size))
    except BrokenFileError:
        return None
    file = BytesIO()
    pixels.save(file, "JPEG", quality=quality)
    return file.getvalue()
