"""Decodes an image file into RGB of a given size; unreadable files raise `BrokenFileError`."""

import errno
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from catalog.errors import BrokenFileError, VitrineError

Image.MAX_IMAGE_PIXELS = (
    None  # its warnings cannot be silenced in threads; `check_pixel_count` raises
)
MAX_PIXELS = 50_000_000
"""Larger images are refused from their header: a 10 kB file can unpack into gigabytes."""
SPARE = 1.5
"""A JPEG is decoded at a half, quarter or eighth of its size where that leaves so many times the height and
width that are asked for. Resized, the pixels differ from those of the whole by at least 45 dB (PSNR)."""
REDUCED = 3.0
"""Times the size asked for from which on an image is averaged before it is resampled."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif"}
"""File name extensions of images."""

ROTATED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

DISK_ERRORS = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO),
    *(errno.EACCES, errno.EPERM),
}
"""Transient errors of the disk, the network or the process: none depends on the file's content."""
RETRY_SECONDS = (0.1, 1.0)
"""Delays before a file is read again after such an error."""

Crop = Literal["pad", "centre"]
Value = TypeVar("Value")
Resize = Callable[[Image.Image], NDArray[np.uint8]]
"""An RGB image → its pixels at the size that a model reads, (height, width, 3)."""

Resample = Callable[[Image.Image, tuple[int, int]], NDArray[np.uint8]]
"""An RGB image, (width, height) → its pixels at this size, (height, width, 3)."""


def read_image(
    path: str | Path,
    size: int | tuple[int, int],
    crop: Crop = "pad",
    resample: Resample | None = None,
) -> NDArray[np.uint8]:
    """Reads an image as (height, width, 3) uint8 RGB, rotated by its EXIF tag, alpha on white.

    `size` is (height, width), or one number for a square. `pad` letterboxes the image on the mean
    colour of its border, `centre` is a center crop. `resample`: how it is letterboxed to its size, by
    default as Pillow does it. Raises BrokenFileError.
    """

    def decode() -> NDArray[np.uint8]:
        with Image.open(path) as image:
            check_pixel_count(*image.size)
            _decode_small(image, *_sides(size))
            return fit_image(image, size, crop, resample)

    return read_with_retries(path, decode)


def read_resized_image(
    path: str | Path, resize: Resize, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """`resize` of the image as RGB, rotated by its EXIF tag, alpha on white. BrokenFileError.

    `size`: the (height, width) that it resizes to; JPEGs much larger are decoded at a fraction of theirs.
    """

    def decode() -> NDArray[np.uint8]:
        with Image.open(path) as image:
            check_pixel_count(*image.size)
            if size is not None:
                _decode_small(image, *size)
            return resize(to_rgb(image))

    return read_with_retries(path, decode)


def _decode_small(image: Image.Image, height: int, width: int) -> None:
    """Has a JPEG decoded at the smallest fraction of its size that leaves `SPARE` times these sides."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) in ROTATED:
        height, width = width, height
    image.draft("RGB", (math.ceil(SPARE * width), math.ceil(SPARE * height)))


def read_own_image(path: str | Path) -> NDArray[np.uint8]:
    """The image (height, width, 3) at its own size, neither resampled nor padded: RGB, rotated by its EXIF
    tag, alpha on white. BrokenFileError."""
    return read_resized_image(path, np.asarray)


def read_alpha(path: str | Path) -> NDArray[np.uint8] | None:
    """The alpha channel (height, width) of an image, rotated by its EXIF tag, 255 where it is opaque; None
    where nothing is transparent. BrokenFileError."""

    def decode() -> NDArray[np.uint8] | None:
        with Image.open(path) as image:
            check_pixel_count(*image.size)
            image = ImageOps.exif_transpose(image)
            if not image.has_transparency_data:
                return None
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
            return None if alpha.min() == 255 else alpha

    return read_with_retries(path, decode)


def read_image_shape(path: str | Path) -> tuple[int, int]:
    """(height, width) of the image after rotation by its EXIF tag; raises BrokenFileError."""

    def decode() -> tuple[int, int]:
        with Image.open(path) as image:
            check_pixel_count(*image.size)
            width, height = image.size
            transposed = image.getexif().get(ExifTags.Base.Orientation, 1) in ROTATED
            return (width, height) if transposed else (height, width)

    return read_with_retries(path, decode)


def read_with_retries(path: str | Path, decode: Callable[[], Value]) -> Value:
    """What `decode` returns of the file at `path`; BrokenFileError, with the reason in a few words, where
    the file's content is at fault.

    Where the disk is at fault the file is read again after `RETRY_SECONDS`; a VitrineError follows
    the last try, so that an item never counts as broken for what a disk did once.
    """
    for seconds in (*RETRY_SECONDS, None):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns about odd EXIF
                return decode()
        except (BrokenFileError, VitrineError):
            raise
        except FileNotFoundError as error:
            raise BrokenFileError("the file is missing") from error
        except Exception as error:  # decoders answer damaged bytes with nearly every kind of error
            fault = _disk_fault(error, path)
            if fault is None:
                raise BrokenFileError(_damage(error, path)) from error
            if seconds is None:
                raise VitrineError(
                    f"{path} cannot be read: {fault.strerror}; mend the disk or the file's "
                    "permissions, or delete the file, and run again (what is decoded is kept)."
                ) from error
            time.sleep(seconds)
    raise AssertionError("the last try returns or raises")


def _disk_fault(error: Exception, path: str | Path) -> OSError | None:
    """The error of the disk behind `error`; None where the bytes are read but make no sense.

    FFmpeg answers EIO to files that end early, so its error is verified by reading the bytes.
    """
    if not isinstance(error, OSError) or error.errno not in DISK_ERRORS:
        return None
    if not type(error).__module__.startswith("av."):
        return error
    try:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    except OSError as fault:
        return fault
    return None


def _damage(error: Exception, path: str | Path) -> str:
    if Path(path).stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return f"damaged: {' '.join(str(error).split())}"


def check_pixel_count(width: int, height: int) -> None:
    """Raises BrokenFileError where an image, or a video frame, has too many pixels to decode."""
    if width * height > MAX_PIXELS:
        raise BrokenFileError(f"{width}×{height} pixels are too many")


def fit_image(
    image: Image.Image,
    size: int | tuple[int, int],
    crop: Crop = "pad",
    resample: Resample | None = None,
) -> NDArray[np.uint8]:
    """An open image resized, padded or cropped to `size`, as `read_image` returns it."""
    return _framed(to_rgb(image), _sides(size), crop, resample or resample_bicubic)


def resample_bicubic(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pillow's bicubic resampling; what is more than three times as large is first averaged."""
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=REDUCED))


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def to_rgb(image: Image.Image) -> Image.Image:
    """An open image as RGB of 8 bits, rotated by its EXIF tag, alpha on white."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits; Pillow's own conversion would clip at 255."""
    grey = np.asarray(image).astype(np.float32)
    full = next((full for full in (1, 255, 65535) if grey.max(initial=0) <= full), grey.max())
    if image.mode.startswith("I"):
        full = 65535 if image.mode.startswith("I;16") else max(full, 255)
    return Image.fromarray(np.clip(grey / full * 255 + 0.5, 0, 255).astype(np.uint8))


def _framed(
    image: Image.Image, size: tuple[int, int], crop: Crop, resample: Resample
) -> NDArray[np.uint8]:
    height, width = size
    if crop == "centre":
        return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))
    scale = min(width / image.width, height / image.height)
    inside = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = resample(image, inside)
    if inside == (width, height):
        return small
    frame = np.empty((height, width, 3), dtype=np.uint8)
    frame[:] = _border_colour(small)
    left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
    frame[top : top + inside[1], left : left + inside[0]] = small
    return frame


def _border_colour(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return border.mean(axis=0).round()
