"""Attributes: numeric and categorical columns, encoded by a small tower defined here.

Categories are hashed (feature hashing, Weinberger et al., 2009), so that a value has the same embedding in
every shop, and an unseen value has one, too.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow defines the functions of its compute module at import, where type checkers do not see them.

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.catalog import Catalog
from catalog.columns import as_text
from catalog.errors import VitrineError
from catalog.hashing import hash64
from pretrain.config import ModalityConfig
from pretrain.modalities.base import Modality, Processor, Source, mask_of, present_rows

BUCKETS = 1024
WIDTH = 64
BLOCK = 65_536


class AttributeTower(nn.Module):
    """Embeds each column, and passes the sum through one hidden layer."""

    def __init__(self, num_numbers: int, num_categories: int, width: int = WIDTH) -> None:
        super().__init__()
        # A number's value, and whether it is present.
        self.numbers = nn.Linear(2 * num_numbers, width) if num_numbers else None
        self.categories = nn.Embedding(num_categories * BUCKETS, width) if num_categories else None
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """`numbers` (k, columns), nan where absent; `categories` int (k, columns), -1 where absent.

        Returns (k, width).
        """
        parts = []
        if self.numbers is not None:
            there = numbers.isfinite()
            values = torch.where(there, numbers, 0.0)
            parts.append(self.numbers(torch.cat([values, there.to(values.dtype)], dim=1)))
        if self.categories is not None:
            columns = torch.arange(categories.shape[1], device=categories.device)
            rows = categories.clamp(min=0) + columns * BUCKETS
            parts.append((self.categories(rows) * (categories >= 0).unsqueeze(-1)).sum(dim=1))
        return self.mix(sum(parts))


class AttributeSource(Source):
    def __init__(self, numbers: NDArray[np.float32], categories: NDArray[np.int16]) -> None:
        super().__init__()
        self.numbers = numbers
        self.categories = categories
        there = np.concatenate([np.isfinite(numbers), categories >= 0], axis=1)
        self.present: NDArray[np.bool_] = there.any(axis=1)

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        present = self.present[items]
        rows = present_rows(present, items)
        return {
            "present": mask_of(present),
            "numbers": torch.from_numpy(self.numbers[rows]),
            "categories": torch.from_numpy(self.categories[rows].astype(np.int64)),
        }


class Attributes(Modality):
    kind = "attributes"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["Attributes", None]:
        names = [name.strip() for name in settings.source.split(",") if name.strip()]
        if not names:
            raise VitrineError(
                "attributes need `source`: the items' columns, with commas between them"
            )
        numbers: list[list[Any]] = []
        categories: list[str] = []
        for name in names:
            values = _numbers(catalog, name)
            if values is None:
                categories.append(name)
                continue
            finite = values[np.isfinite(values)]
            if not len(finite):
                raise VitrineError(
                    f"the column {name} holds no number that is finite; leave it out of `source`"
                )
            numbers.append([name, float(finite.mean()), spread_of(finite)])
        spec = {"kind": "attributes", "source": settings.source}
        return cls(spec | {"numbers": numbers, "categories": categories}), None

    def build_tower(self, pretrained: str = "") -> nn.Module:
        return AttributeTower(len(self.spec["numbers"]), len(self.spec["categories"]))

    @property
    def width(self) -> int:
        return WIDTH

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return tower(inputs["numbers"], inputs["categories"])

    def open(self, catalog: Catalog, processor: Processor | None) -> AttributeSource:
        spec: dict[str, Any] = self.spec
        numbers = np.full((catalog.num_items, len(spec["numbers"])), np.nan, dtype=np.float32)
        for place, (name, mean, std) in enumerate(spec["numbers"]):
            values = _numbers(catalog, name) if catalog.has_column(name) else None
            if values is not None:
                numbers[:, place] = (values - mean) / std
        categories = np.full((catalog.num_items, len(spec["categories"])), -1, dtype=np.int16)
        for place, name in enumerate(spec["categories"]):
            if catalog.has_column(name):
                categories[:, place] = _hashed(as_text(catalog.column(name), name))
        return AttributeSource(numbers, categories)


def spread_of(values: NDArray[np.float64]) -> float:
    """The standard deviation of `values` (n,), or 1 if they are equal up to rounding."""
    spread = float(values.std())
    return spread if spread > 1e-9 * float(np.abs(values).max()) else 1.0


def _numbers(catalog: Catalog, name: str) -> NDArray[np.float64] | None:
    """The column as float64 (num_items,), nan where empty; None where it holds anything else."""
    try:
        values = catalog.column(name).cast(pa.float64())
    except pa.ArrowException:
        return None
    return None if values.null_count == len(values) else values.to_numpy()


def _hashed(column: pa.ChunkedArray) -> NDArray[np.int16]:
    """The hash bucket of each value, int16 (n,), -1 for a missing value."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    buckets = [_bucket(str(value)) for value in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(buckets)).to_numpy(zero_copy_only=False)
    return np.array([*buckets, -1], dtype=np.int16)[codes]


def _bucket(value: str) -> int:
    return hash64(value.casefold().encode()) % BUCKETS
