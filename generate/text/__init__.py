"""Text generation for a user and an item: training, batch generation and scores."""

import importlib
from typing import Any

_HOMES = {
    "BatchWriter": "generate.text.writer",
    "TextConfig": "generate.text.config",
    "TextGenerator": "generate.text.model",
    "WriteConfig": "generate.text.config",
    "load_writer": "generate.text.writer",
    "run_text_generator": "generate.text.run",
    "score_texts": "generate.text.score",
    "write": "generate.text.writer",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Lazy: reading a stage's settings must not import torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'generate.text' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
