"""Builds a tower: a Hugging Face model by name or config, or one half of a dual encoder."""

import inspect
from copy import deepcopy
from typing import Any

import transformers
from torch import nn
from transformers import MODEL_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from catalog.errors import VitrineError
from pretrain.config import ModalityConfig, TowerConfig
from pretrain.hub import build_model, make_config, one_line_errors, read_config, read_model

PARTS = {
    "text": "text_config",
    "image": "vision_config",
    "video": "vision_config",
    "audio": "audio_config",
}
"""Kind of content → the part of a composite config (CLIP, SigLIP, CLAP) whose model encodes it."""
OVERRIDES: dict[str, dict[str, Any]] = {"vit_mae": {"mask_ratio": 0.0}}
"""Model type → settings that embedding needs: a masked autoencoder otherwise hides patches at random."""


def tower_config(settings: TowerConfig, **overrides: Any) -> PretrainedConfig:
    """The Hugging Face config of a tower: read from `settings.model`, or built from `settings.config`.

    Of a dual encoder it is the config of the half that encodes `settings.kind`.
    """
    if settings.model:
        kind = settings.kind if isinstance(settings, ModalityConfig) else "text"
        config = part_of(read_config(settings.model), kind)
    else:
        values = {**settings.config, **overrides}
        if not values.get("model_type"):
            raise VitrineError(
                "a tower needs `model` (a Hugging Face name or folder) or `config` with a `model_type`"
            )
        config = make_config(values)
    for name, value in OVERRIDES.get(config.model_type, {}).items():
        setattr(config, name, value)
    return config


def part_of(config: PretrainedConfig, kind: str) -> PretrainedConfig:
    """The half of a dual encoder's config that encodes `kind`; any other config as it is."""
    part = getattr(config, PARTS.get(kind, ""), None)
    if not isinstance(part, PretrainedConfig):
        return config
    width = getattr(config, "projection_dim", None)
    if isinstance(width, int) and hasattr(part, "projection_dim"):
        part.projection_dim = width
    return part


def is_dual(config: PretrainedConfig) -> bool:
    """Whether the config is that of a half of a dual encoder, whose own embedding is aligned with the
    other half's."""
    name = type(config).__name__
    return name.endswith(("TextConfig", "VisionConfig", "AudioConfig")) and (
        hasattr(config, "projection_dim") or config.model_type.startswith("siglip")
    )


def tower_class(config: PretrainedConfig, embedding: bool = False) -> type[PreTrainedModel]:
    """The model class of a config; with its projection to the aligned space where `embedding` is wanted
    and the class has one."""
    stem = type(config).__name__.removesuffix("Config")
    projecting = getattr(transformers, f"{stem}ModelWithProjection", None)
    if embedding and projecting is not None:
        return projecting
    if config.is_encoder_decoder and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)]  # without the decoder  # pyright: ignore[reportReturnType]
    if type(config) in MODEL_MAPPING:
        known = MODEL_MAPPING[type(config)]
        return known[0] if isinstance(known, tuple) else known  # pyright: ignore[reportReturnType]
    named = getattr(transformers, f"{stem}Model", None)  # SigLIP's text half has no entry
    if named is None:
        raise VitrineError(
            f"transformers has no model for the config of model_type '{config.model_type}'; name another"
        )
    return named


def build_tower(
    config: PretrainedConfig, pretrained: str = "", embedding: bool = False
) -> PreTrainedModel:
    """A tower in float32, with the weights of the checkpoint `pretrained` or freshly initialised.

    `embedding`: the tower's own embedding is read (`pretrain.towers.pooling`), so its pooler and its
    projection belong to it. Of a speech-to-text or text-to-text model the encoder is used.
    """
    with one_line_errors(
        f"no {config.model_type} can be built from its config", "change the config"
    ):
        config = deepcopy(config)  # constructors change theirs
        has_decoder = config.is_encoder_decoder
        cls = tower_class(config, embedding)
        has_pooler = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    without_pooler = {"add_pooling_layer": False} if has_pooler and not embedding else {}
    if pretrained:
        tower = read_model(
            pretrained,
            cls,
            config=config,
            pooler=embedding,
            **without_pooler,  # pyright: ignore[reportArgumentType]
        )
    else:
        tower = build_model(config, cls, **without_pooler)
    return tower.get_encoder() if has_decoder else tower


def compile_layers(model: nn.Module) -> None:
    """Compiles the layers of the towers in `model` in place (torch.compile); weights keep their names.

    Equal layers share the code compiled for the first, so it takes seconds, not minutes.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile()
