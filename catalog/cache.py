"""The folder of cached derived data; imports nothing heavy, because every module uses it."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Path of the cache: $VITRINE_CACHE, or vitrine in $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("VITRINE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitrine"
