"""The base classes of modalities: how content is read from a catalog, and how its tower encodes it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from pretrain.config import ModalityConfig
from pretrain.hub import make_config
from pretrain.towers.build import build_tower, is_dual, tower_class, tower_config
from pretrain.towers.pooling import encode
from pretrain.towers.probe import output_width, probe_width

Content = dict[str, dict[str, Tensor]]
"""The content of n items: modality → {"present": bool (n,), and the tower's inputs with k rows}.

The k rows belong to the k items that have the modality, in order. If none has it, there is one dummy row,
because ZeRO-3 requires that every rank runs every tower in every step.
"""

CACHED_FEATURES = "cached_features"
"""Key of a modality's inputs for the cached features of a frozen tower, (k, tower width)."""

Processor = Any
"""An object that prepares a tower's inputs, such as a tokenizer, with a method `save_pretrained`."""


class Source(ABC):
    """Reads one modality of a catalog's items from memory-mapped files."""

    def __init__(self) -> None:
        self.broken: dict[int, str] = {}
        """Item → why its file cannot be read; the modality counts as missing for such an item."""

    @abstractmethod
    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        """The inputs of `items` and the mask `present`, as in `Content`."""

    def prefetch(self, items: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Loads `items` ahead of `read`, which may be called for them in any order.

        Returns int (n,), each item's length in tokens; None if all items have the same.
        """
        return None

    def release(self) -> None:  # noqa: B027 – most have nothing to release
        """Releases memory that only mirrors files."""


class Modality(ABC):
    """One modality of an encoder. `spec` describes it completely, in plain values of the encoder's config.

    A new kind: one file here, one line in `MODALITIES`, one name in `pretrain.config.Kind`.
    """

    kind: ClassVar[str]

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec

    @classmethod
    @abstractmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Modality", Processor | None]:
        """Builds a modality, and its processor if it needs one, from settings; a tokenizer is trained on the
        catalog. Raises VitrineError for invalid settings."""

    @classmethod
    def sharing(cls, settings: ModalityConfig, owner: "Modality") -> "Modality":
        """A modality that shares the tower of `owner`, with that tower's preprocessing."""
        spec = {"kind": settings.kind, "source": settings.source, "shares": settings.tower}
        return cls(owner.spec | spec)

    @abstractmethod
    def build_tower(self, pretrained: str = "") -> nn.Module:
        """The tower, with the weights of the checkpoint `pretrained`, or untrained."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width of the vectors that `encode` returns."""

    @abstractmethod
    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Encodes k rows of inputs: (k, width)."""

    @property
    def tokens(self) -> int:
        """Approximate number of tokens of an item, where it is the same for all items."""
        return 1

    @abstractmethod
    def open(self, catalog: Catalog, processor: Processor | None) -> Source: ...

    @staticmethod
    def load_processor(folder: Path) -> Processor | None:
        """Loads the processor that `new` returned from the folder it was saved to."""
        return None


class TowerModality(Modality):
    """A modality that is encoded by a Hugging Face tower."""

    reads: ClassVar[str] = ""
    """The required `main_input_name` of the tower; `spec["input"]` overrides it."""

    def build_tower(self, pretrained: str = "") -> nn.Module:
        return build_tower(self.config, pretrained, self.spec["pooling"] == "embedding")

    @property
    def config(self) -> PretrainedConfig:
        return make_config(self.spec["tower"])

    @property
    def width(self) -> int:
        if "width" in self.spec:
            return self.spec["width"]
        return output_width(self.config, self.spec["pooling"] == "embedding")

    def with_width(self, **inputs: Any) -> Self:
        """This modality, with the width of its tower's vectors for such `inputs` in its spec.

        Raises VitrineError if the tower reads another kind of content, or refuses them."""
        given = tower_class(self.config, self.spec["pooling"] == "embedding").main_input_name
        expected = self.spec.get("input", self.reads)
        if given != expected:
            raise VitrineError(
                f"{self.config.model_type} reads {given}, but a tower for {self.kind} must read {expected}; "
                "name another model"
            )
        what = f"a tower for {self.kind} cannot be {self.config.model_type}"
        spec = self.spec
        width = probe_width(self.config, spec["pooling"], what, spec["layer"], **inputs)
        return type(self)(spec | {"width": width})

    def pooled(self, tower: nn.Module, mask: Tensor | None = None, **inputs: Any) -> Tensor:
        return encode(tower, self.spec["pooling"], self.spec["layer"], mask, **inputs)


def tower_spec(settings: ModalityConfig, **overrides: Any) -> dict[str, Any]:
    """The `spec` of a modality with a tower of its own."""
    config = tower_config(settings, **overrides)
    pooling: str = settings.pooling
    if pooling == "auto":
        pooling = "embedding" if settings.model and is_dual(config) else "mean"
    if pooling == "embedding" and settings.layer != -1:
        raise VitrineError(
            f"layer is {settings.layer}, but pooling embedding reads the model's own embedding; set "
            "pooling to mean, cls or last"
        )
    return {
        "kind": settings.kind,
        "source": settings.source,
        "tower": config.to_dict(),
        "layer": settings.layer,
        "pooling": pooling,
        "keeps_statistics": bool(settings.model),
    }


def present_rows(present: NDArray[np.bool_], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of `items` that have the modality; the first item as a dummy if none has."""
    chosen = items[present]
    return chosen if len(chosen) else items[:1]


def mask_of(present: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(present))
