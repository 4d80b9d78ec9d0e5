"""Generates images for a user and an item: a diffusion model conditioned on the recommender's embeddings."""

import importlib
from typing import Any

_HOMES = {
    "SamplingConfig": "generate.image.config",
    "ImageConfig": "generate.image.config",
    "PersonalImagePipeline": "generate.image.pipeline",
    "sample_image": "generate.image.loading",
    "load_image_sampler": "generate.image.loading",
    "run_image_generator": "generate.image.run",
    "score_images": "generate.image.score",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Lazy: reading a stage's settings must not import torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'generate.image' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
