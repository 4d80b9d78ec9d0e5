"""Decodes one picture file into RGB of the size that is asked for, or says why it cannot."""

import errno
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from catalog.errors import BrokenFileError, VitrineError

MAX_PIXELS = 50_000_000
"""Larger pictures are refused from their header: a 10 kB file can unpack into gigabytes."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif"}
"""How pictures' files are called."""

DISK_ERRORS = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO),
    *(errno.EACCES, errno.EPERM),
}
"""What the disk, the network or the process may answer today and not tomorrow: none says anything
of the file's content."""
RETRY_SECONDS = (0.1, 1.0)
"""Waits before a file is read again after such an answer."""

Crop = Literal["pad", "centre"]
Value = TypeVar("Value")


def read_image(
    path: str | Path, size: int | tuple[int, int], crop: Crop = "pad"
) -> NDArray[np.uint8]:
    """The picture as (height, width, 3) uint8 RGB, turned as its EXIF says; alpha lies on white.

    `size` is (height, width), or one number for a square. `pad` keeps the whole picture on the mean
    colour of its border, `centre` fills the frame and cuts what stands over. Raises BrokenFileError.
    """

    def decode() -> NDArray[np.uint8]:
        with Image.open(path) as picture:
            check_pixel_count(*picture.size)
            if crop == "pad":
                height, width = _sides(size)
                picture.draft("RGB", (width, height))  # JPEG decodes at a fraction of its size
            return fit_image(picture, size, crop)

    return read_with_retries(path, decode)


def read_image_shape(path: str | Path) -> tuple[int, int]:
    """(height, width) of the picture as `read_image` would turn it; raises BrokenFileError."""

    def decode() -> tuple[int, int]:
        with Image.open(path) as picture:
            check_pixel_count(*picture.size)
            width, height = picture.size
            lies = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (width, height) if lies else (height, width)

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
                # Pillow warns about odd EXIF and large pictures; `check_pixel_count` speaks for itself.
                warnings.simplefilter("ignore")
                return decode()
        except (BrokenFileError, VitrineError):
            raise
        except FileNotFoundError as error:
            raise BrokenFileError("the file is missing") from error
        except Image.DecompressionBombError as error:
            raise BrokenFileError("too many pixels") from error
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

    FFmpeg answers EIO to files that end early, so what it says is checked by reading the bytes.
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
        return "not a picture"
    return f"damaged: {' '.join(str(error).split())}"


def check_pixel_count(width: int, height: int) -> None:
    """Raises BrokenFileError where a picture, or a film's frame, is too large to unpack."""
    if width * height > MAX_PIXELS:
        raise BrokenFileError(f"{width}×{height} pixels are too many")


def fit_image(
    picture: Image.Image, size: int | tuple[int, int], crop: Crop = "pad"
) -> NDArray[np.uint8]:
    """An open picture as `read_image` gives it."""
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
