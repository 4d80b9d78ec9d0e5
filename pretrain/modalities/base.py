"""The base classes of modalities: how content is read from a catalog, and how its tower encodes it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from pretrain.config import ModalityConfig
from pretrain.hub import make_config
from pretrain.towers import build_tower, hidden_state, output_width, pool, tower_config

Content = dict[str, dict[str, Tensor]]
"""What n items hold: modality → {"present": bool (n,), and its tower's inputs: k rows}.

k rows for the k items that have it, in order; one stand-in row where none has: every rank runs every
tower in every step, as ZeRO-3 requires.
"""

CACHED_FEATURES = "cached_features"
"""A key of the inputs: cached features of a frozen tower, (k, tower width)."""

Processor = Any
"""What a kind needs beside its tower to read content, with `save_pretrained`: a tokenizer, say."""


class Source(ABC):
    """One modality of one catalog's items; memory-mapped, never the catalog in memory."""

    def __init__(self) -> None:
        self.broken: dict[int, str] = {}
        """Item → why what it names could not be read; such an item counts as not having it."""

    @abstractmethod
    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        """`present` and the inputs, as in `Content`."""

    def prefetch(self, items: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Reads ahead what `read` will soon be asked for, in any order.

        Returns int (n,), each item's length in tokens where that differs; None where it does not.
        """
        return None

    def release(self) -> None:  # noqa: B027 – most have nothing to let go of
        """Lets go of memory that only mirrors files."""


class Modality(ABC):
    """One modality of an encoder. `about` is all there is to know of it: plain values, kept in the
    encoder's config.

    A new kind: one file here, one line in `MODALITIES`, one name in `pretrain.config.Kind`.
    """

    kind: ClassVar[str]

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec

    @classmethod
    @abstractmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Modality", Processor | None]:
        """From settings, with what must be learned from the catalog; VitrineError for bad ones."""

    @classmethod
    def sharing(cls, settings: ModalityConfig, owner: "Modality") -> "Modality":
        """One that reads through the tower of `owner`, as that tower is used to."""
        spec = {"kind": settings.kind, "source": settings.source, "shares": settings.tower}
        return cls(owner.spec | spec)

    @abstractmethod
    def build_tower(self, pretrained: str = "") -> nn.Module:
        """A tower with the weights `pretrained` names, or a fresh one."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Of what `encode` returns."""

    @abstractmethod
    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """k rows of inputs to (k, width)."""

    @property
    def tokens(self) -> int:
        """About how many tokens an item costs its tower, where all cost the same."""
        return 1

    @abstractmethod
    def open(self, catalog: Catalog, processor: Processor | None) -> Source: ...

    @staticmethod
    def load_processor(folder: Path) -> Processor | None:
        """What `new` gave, from where it was saved."""
        return None


class TowerModality(Modality):
    """One read by a Hugging Face tower."""

    reads: ClassVar[str] = ""
    """What the tower must call its input; `about` may say it, too."""

    def build_tower(self, pretrained: str = "") -> nn.Module:
        tower = build_tower(self.config, pretrained)
        wanted = self.spec.get("input", self.reads)
        if tower.main_input_name != wanted:
            raise VitrineError(
                f"{pretrained or self.config.model_type} reads {tower.main_input_name}, but a tower for "
                f"{self.kind} must read {wanted}; name another model"
            )
        return tower

    @property
    def config(self) -> PretrainedConfig:
        return make_config(self.spec["tower"])

    @property
    def width(self) -> int:
        return output_width(self.config)

    def pooled(self, tower: nn.Module, **inputs: Tensor) -> Tensor:
        return pool(self.hidden(tower, **inputs), self.spec["pooling"])

    def hidden(self, tower: nn.Module, **inputs: Tensor) -> Tensor:
        return hidden_state(tower, self.spec["layer"], **inputs)


def tower_spec(settings: ModalityConfig, **overrides: Any) -> dict[str, Any]:
    """What `about` says of a tower of one's own."""
    return {
        "kind": settings.kind,
        "source": settings.source,
        "tower": tower_config(settings, **overrides).to_dict(),
        "layer": settings.layer,
        "pooling": settings.pooling,
    }


def present_rows(present: NDArray[np.bool_], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of `items` have it; the first of all as a stand-in where none has."""
    chosen = items[present]
    return chosen if len(chosen) else items[:1]


def mask_of(present: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(present))
