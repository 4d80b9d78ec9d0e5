"""The training of an image generator for the memory plan: built from configs, without weights of a base."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from generate.image.base_paths import FlowMatchingPath, VariancePreservingPath, prediction_type
from generate.image.config import ImageConfig
from generate.image.data import ImageBatch
from generate.image.denoiser import Denoiser, build_denoiser
from generate.image.ip_adapter import AdaptedDenoiser
from generate.image.module import ImageModule
from generate.image.pretrained_base import (
    BaseDescription,
    build_network,
    check_sides,
    describe_base,
)
from generate.image.resolution_buckets import (
    ImageSize,
    check_image_size,
    choose_resolution_buckets,
)
from generate.image.run import build_conditioner, check_strategy
from generate.image.structure import CHANNELS
from generate.image.vae import downsampling_factor
from launch.memory_plan.built_stage import BuiltStage
from pretrain.vector_file import open_vectors
from pretrain.vectors_artifact import VECTORS_FILE

CELL_BYTES = 2
"""Bytes of a number of cached latents; one of a cached structure takes 1."""


def build_image_stage(config: ImageConfig, catalog: Catalog) -> BuiltStage:
    """Builds networks and batches; VitrineError where the base or the sizes are refused."""
    check_image_config(config)
    width = recommender_width(config)
    shape = latent_shape(config, catalog)
    conditioner = build_conditioner(config, width)
    denoiser = build_image_denoiser(config)
    module = ImageModule(conditioner, denoiser, config)

    def batch(step: int) -> ImageBatch:
        rows = config.batch_size
        return ImageBatch(
            latents=torch.randn(rows, *shape),
            structures=torch.rand(rows, CHANNELS, *shape[1:]),
            item_vectors=torch.randn(rows, width),
            user_states=torch.randn(rows, width),
            histories=[],
            self_conditioned=torch.zeros(rows, dtype=torch.bool),
            keys=list(range(step * rows, (step + 1) * rows)),
        )

    nothing = np.empty(0, dtype=np.int64)
    return BuiltStage(
        module, None, batch, lambda _: nothing, len, keeps_best=False, slots=lambda _: 0
    )


def build_image_denoiser(config: ImageConfig) -> Denoiser | AdaptedDenoiser:
    """The denoiser with random weights, and a prompt of zeros on a pretrained base."""
    if not config.model:
        return build_denoiser(config)
    base = describe_base(config.model)
    return AdaptedDenoiser(
        build_network(base),
        base.family,
        path_of(base),
        blank_prompt(base),
        config.denoiser.width,
        config.lora,
        pixels_per_position=downsampling_factor(base.vae),
        guidance=config.distilled_guidance,
    )


def path_of(base: BaseDescription) -> FlowMatchingPath | VariancePreservingPath:
    """The noise path of a base, on a schedule of even times: memory does not depend on it."""
    prediction = prediction_type(dict(base.scheduler))
    if prediction == "flow_prediction":
        return FlowMatchingPath()
    return VariancePreservingPath(torch.linspace(0.999, 0.005, 1000), prediction)


def blank_prompt(base: BaseDescription) -> dict[str, Tensor]:
    """Zeros in the shape of the prompt's text embeddings."""
    shapes = base.family.prompt_shapes(base.network)
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def check_image_config(config: ImageConfig) -> None:
    """VitrineError where settings or the configs of the base are refused."""
    check_strategy(config.trainer.strategy)
    if config.batch_size < 1:
        raise VitrineError(f"batch_size is {config.batch_size}; give 1 or more.")
    multiple, what = config.codec.patch_size, "codec.patch_size"
    if config.model:
        base = describe_base(config.model)
        multiple, what = base.side_multiple, "the sides of the model's images,"
    check_image_size(config, multiple, what)


def latent_shape(config: ImageConfig, catalog: Catalog) -> tuple[int, int, int]:
    """(channels, rows, columns) of the latents of the largest resolution bucket."""
    if not config.model:
        height, width = _largest_bucket(config, catalog, config.codec.patch_size)
        return (
            config.codec.channels,
            height // config.codec.patch_size,
            width // config.codec.patch_size,
        )
    base = describe_base(config.model)
    height, width = _largest_bucket(config, catalog, base.side_multiple)
    check_sides(base, max(height, width))
    factor = downsampling_factor(base.vae)
    return base.family.latent_channels(base.network), height // factor, width // factor


def _largest_bucket(config: ImageConfig, catalog: Catalog, multiple: int) -> ImageSize:
    buckets = choose_resolution_buckets(catalog, config, multiple)
    return max(buckets, key=lambda bucket: bucket[0] * bucket[1])


def recommender_width(config: ImageConfig) -> int:
    """Width of the recommender's item vectors, from the header of their file."""
    recommender = open_artifact(Path(config.recommender), kind="recommender")
    return int(open_vectors(recommender.path / VECTORS_FILE).shape[1])


def smaller_image_configs(config: ImageConfig) -> Iterator[tuple[dict[str, Any], ImageConfig]]:
    """Changes in order of decreasing memory."""
    yield {}, config
    size = config.batch_size
    while size > 1:
        size //= 2
        yield {"batch_size": size}, replace(config, batch_size=size)


def bytes_on_disk(config: ImageConfig, catalog: Catalog) -> dict[str, int]:
    """Bytes of the cached latents and structures."""
    channels, rows, columns = latent_shape(config, catalog)
    each = (CELL_BYTES * channels + CHANNELS) * rows * columns
    return {"latents of its images": each * catalog.num_items}
