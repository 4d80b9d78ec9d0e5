"""Makes a text or image tower from any Hugging Face name or config; knows nothing about fusing them."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from catalog.errors import VitrineError
from pretrain.config import TowerConfig


def tower_config(settings: TowerConfig, **overrides: Any) -> PretrainedConfig:
    """The Hugging Face config of a tower: read from `settings.model`, or built from `settings.config`."""
    if settings.model:
        return AutoConfig.from_pretrained(settings.model)
    values = {**settings.config, **overrides}
    model_type = values.pop("model_type", None)
    if not model_type:
        raise VitrineError(
            "a tower needs `model` (a Hugging Face name or folder) or `config` with a `model_type`"
        )
    try:
        return AutoConfig.for_model(model_type, **values)
    except ValueError as error:
        raise VitrineError(
            f"tower model_type '{model_type}' is not known to transformers"
        ) from error


def build_tower(config: PretrainedConfig, pretrained: str = "") -> PreTrainedModel:
    """A tower with `pretrained` weights, or freshly initialised.

    Two-tower checkpoints (CLIP, SigLIP) are asked for by their half, e.g. `clip_vision_model`.
    """
    without_pooler = {"add_pooling_layer": False} if config.model_type in ("bert", "vit") else {}
    if pretrained:
        return AutoModel.from_pretrained(pretrained, **without_pooler)
    return AutoModel.from_config(config, **without_pooler)


def mean_pool(hidden: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the tokens that are there.

    `hidden` (batch, tokens, width), or (batch, width, height, width) from convolutional towers;
    `mask` (batch, tokens), 1 where a token counts. Returns (batch, width).
    """
    if hidden.dim() == 4:
        return hidden.mean(dim=(2, 3))
    if mask is None:
        return hidden.mean(dim=1)
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def output_width(config: PretrainedConfig) -> int:
    """Width of a tower's last hidden state."""
    if hasattr(config, "hidden_size"):
        return int(config.hidden_size)
    if hasattr(config, "hidden_sizes"):
        return int(config.hidden_sizes[-1])
    raise VitrineError(f"tower '{config.model_type}' does not say its hidden_size; choose another")


class Projection(nn.Module):
    """Tower width → shared width, normalised so that no tower is louder than another."""

    def __init__(self, tower_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(tower_width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.norm(self.linear(pooled))


def scatter_present(values: Tensor, present: Tensor) -> Tensor:
    """Puts the rows computed for items that have a modality back among those that do not.

    `values` (k, width) with k ≥ number present, `present` bool (n,). Returns (n, width), zero where
    absent. k may exceed the count by one stand-in row: every rank runs every tower in every step,
    as ZeRO-3 requires, and the stand-in's gradient is zero.
    """
    full = values.new_zeros(present.shape[0], values.shape[1])
    count = int(present.sum())
    full = full.index_copy(0, torch.nonzero(present).squeeze(1), values[:count])
    return full + 0.0 * values[count:].sum()
