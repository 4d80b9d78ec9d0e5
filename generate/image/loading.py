"""Loads an image generator's artifact: its pipeline, its default settings, and a sampler on its catalog."""

import json
from pathlib import Path

import torch
from PIL import Image

from catalog.artifacts import Artifact, open_artifact
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from generate.image.config import SamplingConfig
from generate.image.ip_adapter import BASE_FILE, load_adapter
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline
from generate.image.sampler import ImageSampler
from generate.ranker import load_catalog_and_ranker
from pretrain.devices import Compute, on_cpu

SAMPLING_DEFAULTS = "sampling.json"


def load_image_sampler(
    folder: str | Path | Artifact,
    catalog: CatalogConfig | None = None,
    recommender: str | Path = "",
    compute: Compute | None = None,
) -> ImageSampler:
    """Loads the sampler of an image-generator artifact; `catalog` and `recommender` as in
    `load_catalog_and_ranker`. `compute`: device and precision; None: float32 on the CPU."""
    compute = compute or on_cpu()
    artifact = open_artifact(folder, kind="image-generator")
    opened, ranker = load_catalog_and_ranker(artifact, catalog, recommender, compute)
    pipeline = load_pipeline(artifact.path, compute.weight_dtype).place(compute)
    if pipeline.width != ranker.width:
        raise VitrineError(
            f"the image generator takes embeddings of width {pipeline.width}, the recommender's have "
            f"{ranker.width}; give the recommender that the generator was trained with."
        )
    defaults, index = load_defaults(artifact.path), TrainingImageIndex.load(artifact.path)
    return ImageSampler(pipeline, opened, ranker, defaults, artifact.hash, index)


def load_defaults(folder: Path) -> SamplingConfig:
    """Loads the default sampling settings that are saved with an artifact."""
    settings = json.loads((folder / SAMPLING_DEFAULTS).read_text())
    lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    return SamplingConfig(**settings | lists)


def load_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> PersonalImagePipeline:
    """Loads the pipeline from the folder of an image-generator artifact; a pretrained base's weights are
    read as `dtype`."""
    if (folder / BASE_FILE).exists():
        return PersonalImagePipeline(*load_adapter(folder, dtype))
    return PersonalImagePipeline.from_pretrained(folder)


def sample_image(
    folder: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    config: SamplingConfig | None = None,
    output: str | Path | None = None,
    recommender: str | Path = "",
    compute: Compute | None = None,
) -> Image.Image:
    """Samples one image from an artifact's folder; for several, call `load_image_sampler` once.

    `output` is a PNG file to write it to, watermarked and signed.
    """
    sampler = load_image_sampler(folder, recommender=recommender, compute=compute)
    image = sampler.sample([(user, item)], config)[0]
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_bytes(sampler.to_signed_png(image, (user, item), config))
    return image
