"""Histories → what comes next: a sequential recommender for one domain."""

import importlib
from typing import Any

_HOMES = {
    "FinetuneConfig": "finetune.config",
    "Recommender": "finetune.recommender",
    "Ranker": "finetune.ranker",
    "load_ranker": "finetune.ranker",
    "recommend": "finetune.recommendations",
    "run_finetuning": "finetune.run",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Lazy: reading a stage's settings must not import torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'finetune' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
