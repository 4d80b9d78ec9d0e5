"""Content → item vectors: contrastive pretraining of an item encoder."""

import importlib
from typing import Any

_HOMES = {
    "SequenceEncoder": "pretrain.sequence_encoder",
    "ItemEncoder": "pretrain.encoder",
    "PretrainConfig": "pretrain.config",
    "TrainerConfig": "pretrain.config",
    "run_embedding": "pretrain.embed",
    "run_pretraining": "pretrain.run",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Lazy: reading a stage's settings must not import torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'pretrain' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
