"""The image processor of a checkpoint: size, crop, resampling, channel order and normalisation.

The checkpoint's own processor runs, through Pillow on every machine, so that the pixels are its own. What it
does behind the resizing is one affine map per channel, which is measured here; decoded images are therefore
cached as uint8, and normalised when they are read.
"""

import math
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, BaseImageProcessor, CLIPImageProcessorPil

from catalog.errors import VitrineError, one_line_message
from catalog.images import Resize, fit_image
from pretrain.hub import one_line_errors

RAW = {"do_rescale": False, "do_normalize": False, "offset": False, "include_top": False}
"""Options under which a processor only resizes, crops and orders channels."""
PAD = "pad_to_square"
"""Setting of ours among a processor's: images are first padded to squares, on the colour of their border."""
TRIED = ((64, 64), (90, 60), (50, 120))
"""Widths and heights of the images on which a processor is tried."""
LEVELS = 0.51
"""Grey levels (of 255) by which cached pixels may differ: processors that resize in float do not round."""


class ImageProcessor:
    """Resizes images of any size to one shape, as the checkpoint's processor does."""

    def __init__(self, values: dict[str, Any]) -> None:
        """`values`: the processor's settings (`BaseImageProcessor.to_dict`), with `image_processor_type`.

        VitrineError if the images it gives have no fixed shape, or it does more than resize, crop and
        normalise."""
        self.values = values
        self.processor = _build(values)
        self.shape = self._fixed_shape()
        """(height, width) of its images."""
        black, white = (self._normalized(_plain(level)) for level in (0, 255))
        middle = (slice(None), self.shape[0] // 2, self.shape[1] // 2)
        self.offset: NDArray[np.float32] = black[middle]
        self.scale: NDArray[np.float32] = (white[middle] - black[middle]) / 255  # pyright: ignore[reportAttributeAccessIssue]
        """(3,) each: a normalised value is `scale` · pixel + `offset`."""
        if not (np.isfinite(self.scale).all() and self.scale.all()):
            raise VitrineError(f"{self._name()} gives images without content; mend its image_std")
        self._resize = self._choose()

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image of any size, resized and cropped: (height, width, 3)."""
        if self.values.get(PAD) and image.width != image.height:
            image = Image.fromarray(fit_image(image, max(image.size)))
        return self._resize(image)

    @property
    def mean(self) -> list[float]:
        """Mean (3,) of the normalisation, of pixels from 0 to 1."""
        return self._stated("image_mean", -self.offset / self.scale / 255)  # pyright: ignore[reportArgumentType]

    @property
    def std(self) -> list[float]:
        """Standard deviation (3,) of the normalisation, of pixels from 0 to 1."""
        return self._stated("image_std", 1 / self.scale / 255)  # pyright: ignore[reportArgumentType]

    def _stated(self, key: str, measured: NDArray[np.float32]) -> list[float]:
        """The numbers in the settings where they are those measured, which float32 rounds."""
        stated = self.values.get(key)
        if np.shape(stated) == (3,) and np.allclose(stated, measured, rtol=0, atol=1e-6):  # pyright: ignore[reportArgumentType, reportCallIssue]
            return [float(number) for number in stated]  # pyright: ignore[reportOptionalIterable]
        return [float(number) for number in measured]

    def resized(self, size: int) -> "ImageProcessor":
        """The same processor for images of `size` × `size` pixels."""
        values = dict(self.values)
        crops = bool(values.get("do_center_crop"))
        if crops:
            values["crop_size"] = {"height": size, "width": size}
        asked = values.get("size")
        if crops and isinstance(asked, dict) and "shortest_edge" in asked:
            values["size"] = {"shortest_edge": round(asked["shortest_edge"] * size / self.shape[0])}
        else:
            values["size"] = {"height": size, "width": size}
        processor = ImageProcessor(values)
        if processor.shape != (size, size):
            raise VitrineError(
                f"image_size is {size}, but {self._name()} gives images of {processor.shape[1]}×"
                f"{processor.shape[0]}; leave image_size out"
            )
        return processor

    def _name(self) -> str:
        return f"the image processor ({self.values.get('image_processor_type', 'unnamed')})"

    def _run(self, image: Image.Image, **options: Any) -> NDArray[Any]:
        """(3, height, width), whatever further dimensions the processor adds."""
        with one_line_errors(f"{self._name()} reads no images", "mend preprocessor_config.json"):
            output = self.processor(image, return_tensors="np", **options)["pixel_values"]
            pixels = np.asarray(output)
            return pixels.reshape(pixels.shape[-3:])

    def _normalized(self, image: Image.Image) -> NDArray[np.float32]:
        return self._run(image).astype(np.float32)

    def _fixed_shape(self) -> tuple[int, int]:
        shapes = {self._run(_noise(*size)).shape for size in TRIED}
        shape = shapes.pop()
        if shapes or shape[0] != 3:
            raise VitrineError(
                f"{self._name()} gives images of no fixed size in three channels; name another model"
            )
        return shape[1], shape[2]

    def _choose(self) -> Resize:
        """The processor without its normalisation where it can leave that out, else with it undone."""
        for resize in (self._raw, self._undone):
            if all(self._agrees(resize, _noise(*size)) for size in TRIED):
                return resize
        raise VitrineError(
            f"{self._name()} does more than resize, crop and normalise; name another model"
        )

    def _raw(self, image: Image.Image) -> NDArray[np.uint8]:
        options = {
            key: value for key, value in RAW.items() if key[:3] == "do_" or key in self.values
        }
        return np.ascontiguousarray(
            np.rint(self._run(image, **options)).astype(np.uint8).transpose(1, 2, 0)
        )

    def _undone(self, image: Image.Image) -> NDArray[np.uint8]:
        pixels = self._normalized(image).transpose(1, 2, 0)
        levels = np.rint((pixels - self.offset) / self.scale).clip(0, 255)
        return np.ascontiguousarray(levels.astype(np.uint8))

    def _agrees(self, resize: Resize, image: Image.Image) -> bool:
        try:
            again = resize(image).astype(np.float32) * self.scale + self.offset
        except VitrineError:
            return False
        exact = self._normalized(image).transpose(1, 2, 0)
        return again.shape == exact.shape and bool(
            (np.abs(again - exact) <= LEVELS * abs(self.scale)).all()
        )


def read_image_processor(name: str, pad_to_square: bool = False) -> ImageProcessor:
    """The image processor of a checkpoint, by Hugging Face name or folder.

    Raises VitrineError if the checkpoint has none: guessed sizes and means would shift all images.
    """
    with one_line_errors(
        f"the preprocessor_config.json of {name!r} cannot be loaded",
        "name a folder that holds it, or a model of the Hugging Face hub that is in reach",
    ):
        settings, _ = BaseImageProcessor.get_image_processor_dict(name)
        try:
            processor = AutoImageProcessor.from_pretrained(
                name, backend="pil", trust_remote_code=False
            )
            settings = {**settings, **processor.to_dict()}
        except (ImportError, ValueError):  # written for torchvision, or without its class's name
            if "auto_map" in settings:
                raise
    _check_statistics(settings, name)
    settings = _plain_values(settings)
    return ImageProcessor(_without_native_size(settings) | ({PAD: True} if pad_to_square else {}))


def _without_native_size(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of SigLIP 2's processor, which cuts an image of any shape into patches (NaFlex), for square
    images of as many patches."""
    if "max_num_patches" not in settings:
        return settings
    side = math.isqrt(settings["max_num_patches"]) * settings.get("patch_size", 16)
    kept = {"resample", "image_mean", "image_std", "do_rescale", "rescale_factor", "do_normalize"}
    return {
        **{key: value for key, value in settings.items() if key in kept},
        "image_processor_type": "CLIPImageProcessor",
        "size": {"height": side, "width": side},
        "do_center_crop": False,
        PAD: True,
    }


def _check_statistics(settings: dict[str, Any], name: str) -> None:
    if settings.get("do_normalize") is False:
        return
    for key in ("image_mean", "image_std"):
        values = settings.get(key)
        values = list(values) if isinstance(values, tuple) else values
        numbers = values if isinstance(values, list) else [values] * 3
        valid = all(isinstance(one, int | float) and np.isfinite(one) for one in numbers)
        if len(numbers) != 3 or not valid or (key == "image_std" and not all(numbers)):
            raise VitrineError(
                f"the preprocessor_config.json of {name!r} has {key} {values!r}; it takes three numbers, for "
                "red, green and blue"
            )


def _plain_values(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as plain values that JSON keeps."""
    kept = {}
    for key, value in settings.items():
        if isinstance(value, tuple):
            value = list(value)
        if isinstance(value, int) and not isinstance(value, bool):
            value = int(value)  # an enumeration of filters
        if value is None or isinstance(value, bool | int | float | str | list | dict):
            kept[key] = value
    return kept


def _build(values: dict[str, Any]) -> Any:
    """The processor's Pillow class by name; CLIP's, with the same settings, where there is none."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    stem = (
        kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    )
    settings = {k: v for k, v in values.items() if k not in ("image_processor_type", PAD)}
    for name in (f"{stem}Pil", stem):
        try:
            return getattr(transformers, name)(**settings)
        except (AttributeError, ImportError):
            continue
        except Exception as error:
            raise VitrineError(
                f"the image processor {kind} cannot be made: {one_line_message(error)}; mend "
                "preprocessor_config.json"
            ) from error
    return CLIPImageProcessorPil(**{"do_center_crop": False, "do_convert_rgb": False, **settings})  # pyright: ignore[reportArgumentType]


def _plain(level: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (level,) * 3)


def _noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
