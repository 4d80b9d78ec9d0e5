"""Runs a tower once on torch's meta device, without weights, for its width and for its refusals."""

from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from catalog.errors import VitrineError, one_line_message
from pretrain.towers.build import build_tower
from pretrain.towers.pooling import encode

WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")


def probe_width(
    config: PretrainedConfig, pooling: str, what: str, layer: int = -1, **inputs: Any
) -> int:
    """Width of the vectors that a tower gives for `inputs` (their values do not matter).

    Raises VitrineError "`what`: reason" if the tower refuses inputs of this shape. A forward pass that
    depends on values cannot run without them; the config then says the width.
    """
    embedding = pooling == "embedding"
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            tower = build_tower(config, embedding=embedding).eval()
            moved = {
                name: value.to("meta") if isinstance(value, Tensor) else value
                for name, value in inputs.items()
            }
            return int(encode(tower, pooling, layer, **moved).shape[-1])
    except VitrineError:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) or "meta" in str(error):
            return output_width(config, embedding)
        raise VitrineError(f"{what}: {one_line_message(error)}") from error


def output_width(config: PretrainedConfig, embedding: bool = False) -> int:
    """Width of a tower's last hidden state, or of its own embedding, as its config says it."""
    names = ("projection_dim", *WIDTHS) if embedding else WIDTHS
    for name in names:
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    if getattr(config, "hidden_sizes", None):
        return int(config.hidden_sizes[-1])
    raise VitrineError(
        f"tower '{config.model_type}' does not say its hidden_size; choose another model"
    )
