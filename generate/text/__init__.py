"""Words for a person and an item: training a generator, writing with it, scoring what it writes."""

import importlib
from typing import Any

_HOMES = {
    "Reading": "generate.text.score",
    "TextConfig": "generate.text.config",
    "TextGenerator": "generate.text.model",
    "WriteConfig": "generate.text.config",
    "Writer": "generate.text.writer",
    "open_writer": "generate.text.writer",
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
