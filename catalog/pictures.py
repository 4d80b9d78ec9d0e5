"""Decodes one picture file into a square of RGB, or says why it cannot."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from catalog.errors import BrokenFile, VitrineError

MAX_PIXELS = 50_000_000
"""Larger pictures are refused from their header: a 10 kB file can unpack into gigabytes."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif"}
"""How pictures' files are called."""

Crop = Literal["pad", "centre"]


def read_picture(path: str | Path, size: int, crop: Crop = "pad") -> NDArray[np.uint8]:
    """The picture as (size, size, 3) uint8 RGB, turned as its EXIF says; alpha lies on white.

    `pad` keeps the whole picture on the mean colour of its border, `centre` fills the square and
    cuts what stands over. Raises BrokenFile.
    """
    with file_faults(path), warnings.catch_warnings():
        # Pillow warns about odd EXIF and large pictures; the limit below speaks for itself.
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            check_size(*picture.size)
            if crop == "pad":
                picture.draft("RGB", (size, size))  # JPEG decodes at a fraction of its size
            return square_picture(picture, size, crop)


@contextmanager
def file_faults(path: str | Path) -> Iterator[None]:
    """Whatever goes wrong inside with the file becomes BrokenFile, with the reason in a few words."""
    try:
        yield
    except (BrokenFile, VitrineError):
        raise
    except FileNotFoundError as error:
        raise BrokenFile("the file is missing") from error
    except Image.DecompressionBombError as error:
        raise BrokenFile("too many pixels") from error
    except Exception as error:  # decoders answer damaged bytes with nearly every kind of error
        if Path(path).stat().st_size == 0:
            raise BrokenFile("the file is empty") from error
        if isinstance(error, Image.UnidentifiedImageError):
            raise BrokenFile("not a picture") from error
        raise BrokenFile(f"damaged: {' '.join(str(error).split())}") from error


def check_size(width: int, height: int) -> None:
    """Raises BrokenFile where a picture, or a film's frame, is too large to unpack."""
    if width * height > MAX_PIXELS:
        raise BrokenFile(f"{width}×{height} pixels are too many")


def square_picture(picture: Image.Image, size: int, crop: Crop = "pad") -> NDArray[np.uint8]:
    """An open picture as `read_picture` gives it."""
    return np.asarray(_squared(_to_rgb(ImageOps.exif_transpose(picture)), size, crop))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_8_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits; Pillow's own conversion would clip at 255."""
    grey = np.asarray(picture).astype(np.float32)
    full = next((full for full in (1, 255, 65535) if grey.max(initial=0) <= full), grey.max())
    if picture.mode.startswith("I"):
        full = 65535 if picture.mode.startswith("I;16") else max(full, 255)
    return Image.fromarray(np.clip(grey / full * 255 + 0.5, 0, 255).astype(np.uint8))


def _squared(picture: Image.Image, size: int, crop: Crop) -> Image.Image:
    if crop == "centre":
        return ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if width == height == size:
        return small
    square = Image.new("RGB", (size, size), _border_colour(np.asarray(small)))
    square.paste(small, ((size - width) // 2, (size - height) // 2))
    return square


def _border_colour(pixels: NDArray[np.uint8]) -> tuple[int, int, int]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = border.mean(axis=0).round().astype(int).tolist()
    return red, green, blue
