"""Pretrained diffusion pipelines as frozen bases: what their configs say, loading, and the text prompt.

The configs are read, and refused, before any weights are; `vitrine launch plan` reads no more than them.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.pipelines import pipeline_utils
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from catalog.errors import VitrineError
from generate.image.base_families import BaseFamily, find_family
from generate.image.base_paths import prediction_type
from generate.image.vae import downsampling_factor
from pretrain.artifact import without_bars
from pretrain.hub import one_line_errors

REMEDY = (
    "give a diffusion pipeline of the Hugging Face hub (Stable Diffusion 1.5, 2, XL, 3; PixArt; Flux; Sana), "
    "or its folder"
)
TEXT_PARTS = ("text_encoder", "tokenizer")
"""Beginnings of the names of components that only the text prompt needs."""


@dataclass(frozen=True)
class BaseDescription:
    """What the configs of a pretrained pipeline say."""

    model: str
    """Name on the hub, or folder."""
    components: Mapping[str, Any]
    """Name → (library, class), of `model_index.json`."""
    family: BaseFamily
    network: Mapping[str, Any]
    """Config of the denoising network."""
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]

    @property
    def side_multiple(self) -> int:
        """Pixels that each side of the base's images must be a multiple of."""
        return downsampling_factor(self.vae) * self.family.side_positions(self.network)

    @property
    def max_side(self) -> int | None:
        """Pixels of a side, at most; None without a bound."""
        positions = self.family.max_positions(self.network)
        return positions and positions * downsampling_factor(self.vae)


def describe_base(model: str) -> BaseDescription:
    """Reads the configs of a pretrained pipeline, by its name on the hub or its folder, without weights.

    VitrineError where the pipeline, its VAE or what it predicts is not one that can be adapted.
    """
    with one_line_errors(f"model {model!r} cannot be loaded", REMEDY), without_bars(logging):
        components: dict[str, Any] = DiffusionPipeline.load_config(model)  # pyright: ignore[reportAssignmentType]
        name = components.get("_class_name")
        if not isinstance(name, str):
            raise VitrineError(
                f"model {model!r} comes with code of its own, which Vitrine does not run; {REMEDY}."
            )
        family = find_family(name)
        for needed in (family.component, "vae", "scheduler"):
            if not (components.get(needed) or (None, None))[1]:
                raise VitrineError(
                    f"model {model!r} has no {needed}, without which it draws nothing; give the whole "
                    "pipeline."
                )
        configs = {
            part: _full_config(_component(components, part), model, part)
            for part in (family.component, "vae", "scheduler")
        }
    network, vae = configs[family.component], configs["vae"]
    prediction_type(configs["scheduler"])
    taken, given = family.latent_channels(network), int(vae["latent_channels"])
    if taken != given:
        raise VitrineError(
            f"model {model!r} takes latents of {taken} channels, and its VAE gives {given}: it is made for "
            "inpainting or control; give its text-to-image variant."
        )
    return BaseDescription(model, components, family, network, vae, configs["scheduler"])


def load_base(
    model: str, dtype: torch.dtype = torch.float32, with_text: bool = True
) -> DiffusionPipeline:
    """A pretrained diffusion pipeline, by its name on the hub or its folder.

    `dtype`: of all weights but the VAE's, which are float32. `with_text` False leaves out text encoders
    and tokenizers: the prompt's embeddings are known.
    """
    description = describe_base(model)
    left_out: dict[str, Any] = {}
    # Images are checked by `safety_model` (generate/image/safety.py).
    if "safety_checker" in description.components:
        left_out |= {"safety_checker": None, "requires_safety_checker": False}
    if not with_text:
        left_out |= {part: None for part in description.components if part.startswith(TEXT_PARTS)}
    # Every release reads float32 where nothing is said; the name of the option has changed.
    option = "dtype" if hasattr(pipeline_utils, "_resolve_dtype") else "torch_dtype"
    half = dtype != torch.float32
    dtypes = {option: {"default": dtype, "vae": torch.float32}} if half else {}
    with (
        one_line_errors(f"model {model!r} cannot be loaded", REMEDY),
        without_bars(logging),
        without_bars(transformers_logging),
    ):
        return DiffusionPipeline.from_pretrained(model, **dtypes, **left_out)


def family_of(pipeline: DiffusionPipeline) -> BaseFamily:
    """The family of a loaded pipeline."""
    return find_family(type(pipeline).__name__)


def denoising_network(pipeline: DiffusionPipeline) -> Any:
    """The UNet or transformer of a loaded pipeline."""
    return getattr(pipeline, family_of(pipeline).component)


def prompt_embeddings(pipeline: DiffusionPipeline, text: str) -> dict[str, Tensor]:
    """The text prompt as keyword arguments of the base's network, of batch 1."""
    with (
        torch.no_grad(),
        one_line_errors(f"the text encoders of {type(pipeline).__name__} fail", REMEDY),
        without_bars(logging),
    ):
        embeddings = family_of(pipeline).encode_prompt(pipeline, text)
    return {name: value.clone() for name, value in embeddings.items()}


def build_network(description: BaseDescription) -> nn.Module:
    """The denoising network with random weights, by its config."""
    part = description.family.component
    with one_line_errors(
        f"no {part} can be built from the config of {description.model!r}", REMEDY
    ):
        return _component(description.components, part).from_config(dict(description.network))


def check_sides(description: BaseDescription, sides: int) -> None:
    """VitrineError where a base was not built for images with sides of this many pixels."""
    most = description.max_side
    if most is not None and sides > most:
        raise VitrineError(
            f"image_size {sides} is more than the {most} pixels of a side that model "
            f"{description.model!r} has positions for; use {most} or fewer."
        )


def _full_config(component: Any, model: str, part: str) -> dict[str, Any]:
    """The config of a component, with the class's defaults for what it leaves out."""
    signature = inspect.signature(component.__init__).parameters
    defaults = {
        name: each.default for name, each in signature.items() if each.default is not each.empty
    }
    return defaults | component.load_config(model, subfolder=part)


def _component(components: Mapping[str, Any], part: str) -> Any:
    """The class of diffusers of a component."""
    return getattr(diffusers, components[part][1])
