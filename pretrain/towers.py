"""Towers: any Hugging Face model by name or config, and pooling of its hidden states to one vector.

Knows nothing about fusing them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from catalog.errors import VitrineError
from pretrain.config import TowerConfig
from pretrain.hub import build_model, make_config, read_config, read_model


def tower_config(settings: TowerConfig, **overrides: Any) -> PretrainedConfig:
    """The Hugging Face config of a tower: read from `settings.model`, or built from `settings.config`."""
    if settings.model:
        return read_config(settings.model)
    values = {**settings.config, **overrides}
    if not values.get("model_type"):
        raise VitrineError(
            "a tower needs `model` (a Hugging Face name or folder) or `config` with a `model_type`"
        )
    return make_config(values)


def build_tower(config: PretrainedConfig, pretrained: str = "") -> PreTrainedModel:
    """A tower with `pretrained` weights, or freshly initialised.

    Of a two-tower checkpoint (CLIP, SigLIP) the config selects one, such as `clip_vision_model`; of a
    speech-to-text model (Whisper) the encoder is used.
    """
    without_pooler: dict[str, Any] = (
        {"add_pooling_layer": False} if config.model_type in ("bert", "vit") else {}
    )
    if pretrained:
        tower = read_model(pretrained, dtype=torch.float32, **without_pooler)
    else:
        tower = build_model(config, **without_pooler)
    return tower.get_encoder() if config.is_encoder_decoder else tower


def compile_layers(model: nn.Module) -> None:
    """Compiles the layers of the towers in `model` in place (torch.compile); weights keep their names.

    Equal layers share the code compiled for the first, so it takes seconds, not minutes.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile()


def hidden_state(tower: nn.Module, layer: int, **inputs: Tensor) -> Tensor:
    """The hidden state after `layer` layers (-1: the last, normalised as the tower does)."""
    if layer == -1:
        return tower(**inputs).last_hidden_state
    states = tower(**inputs, output_hidden_states=True).hidden_states
    if not -len(states) <= layer < len(states):
        raise VitrineError(
            f"layer is {layer}, but this tower has the hidden states 0 … {len(states) - 1}"
        )
    return states[layer]


def pool(hidden: Tensor, how: str = "mean", mask: Tensor | None = None) -> Tensor:
    """Pools hidden states to one vector per row.

    `hidden` (batch, tokens, width), or (batch, width, height, width) from convolutional towers;
    `mask` (batch, tokens), 1 where a token counts; `how` is mean, cls (the first token) or last.
    Returns (batch, width).
    """
    if hidden.dim() == 4:
        return hidden.mean(dim=(2, 3))
    if how == "cls":
        return hidden[:, 0]
    if how == "last":
        last = -1 if mask is None else (mask.sum(dim=1).long() - 1).clamp(min=0)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if mask is None:
        return hidden.mean(dim=1)
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def output_width(config: PretrainedConfig) -> int:
    """Width of a tower's last hidden state."""
    for name in ("hidden_size", "d_model", "n_embd"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    if hasattr(config, "hidden_sizes"):
        return int(config.hidden_sizes[-1])
    raise VitrineError(f"tower '{config.model_type}' does not say its hidden_size; choose another")


class Projection(nn.Module):
    """Linear map from tower width to shared width, normalised so that all towers have equal scale."""

    def __init__(self, tower_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(tower_width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.norm(self.linear(pooled))


def scatter_present(values: Tensor, present: Tensor) -> Tensor:
    """Scatters the rows of items that have a modality to their positions among all items.

    `values` (k, width) with k ≥ number present, `present` bool (n,). Returns (n, width), zero where the
    modality is missing. k may exceed the number present by one dummy row with gradient zero: every rank
    runs every tower in every step, as ZeRO-3 requires.
    """
    # Does not read the number present from the device: on a GPU each step would wait for it.
    rows = (present.cumsum(0) - 1).clamp(min=0)
    return values.index_select(0, rows).masked_fill(~present.unsqueeze(1), 0.0)
