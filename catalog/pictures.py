"""Decodes one picture file into RGB of the size that is asked for, or says why it cannot."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from catalog.errors import BrokenFile, VitrineError

MAX_PIXELS = 50_000_000
"""Larger pictures are refused from their header: a 10 kB file can unpack into gigabytes."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif"}
"""How pictures' files are called."""

Crop = Literal["pad", "centre"]


def read_picture(
    path: str | Path, size: int | tuple[int, int], crop: Crop = "pad"
) -> NDArray[np.uint8]:
    """The picture as (height, width, 3) uint8 RGB, turned as its EXIF says; alpha lies on white.

    `size` is (height, width), or one number for a square. `pad` keeps the whole picture on the mean
    colour of its border, `centre` fills the frame and cuts what stands over. Raises BrokenFile.
    """
    with file_faults(path), warnings.catch_warnings():
        # Pillow warns about odd EXIF and large pictures; the limit below speaks for itself.
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            check_size(*picture.size)
            if crop == "pad":
                height, width = _sides(size)
                picture.draft("RGB", (width, height))  # JPEG decodes at a fraction of its size
            return framed_picture(picture, size, crop)


def read_shape(path: str | Path) -> tuple[int, int]:
    """(height, width) of the picture as `read_picture` would turn it; raises BrokenFile."""
    with file_faults(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            check_size(*picture.size)
            width, height = picture.size
            lies = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (width, height) if lies else (height, width)


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


def framed_picture(
    picture: Image.Image, size: int | tuple[int, int], crop: Crop = "pad"
) -> NDArray[np.uint8]:
    """An open picture as `read_picture` gives it."""
    return np.asarray(_framed(_to_rgb(ImageOps.exif_transpose(picture)), _sides(size), crop))


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


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


def _framed(picture: Image.Image, size: tuple[int, int], crop: Crop) -> Image.Image:
    height, width = size
    if crop == "centre":
        return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    scale = min(width / picture.width, height / picture.height)
    inside = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = picture.resize(inside, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if inside == (width, height):
        return small
    frame = Image.new("RGB", (width, height), _border_colour(np.asarray(small)))
    frame.paste(small, ((width - inside[0]) // 2, (height - inside[1]) // 2))
    return frame


def _border_colour(pixels: NDArray[np.uint8]) -> tuple[int, int, int]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = border.mean(axis=0).round().astype(int).tolist()
    return red, green, blue
