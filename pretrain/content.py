"""Reads what items hold into what the towers take. Knows nothing about histories."""

import copy
import os
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog, cache_folder
from pretrain.modalities import Content, Modality, PictureSource, Processor, Source
from pretrain.modalities.base import SAID, present_rows
from pretrain.twins import twin_groups

TOKENS = ("input_ids", "attention_mask")


class ContentReader:
    """Item rows → the encoder's inputs.

    `order`, a permutation of the items, makes the shuffled-features control: item i is read as if
    it were item order[i].
    """

    def __init__(
        self,
        catalog: Catalog,
        kinds: Mapping[str, Modality],
        processors: Mapping[str, Processor],
        order: NDArray[np.int64] | None = None,
    ) -> None:
        self.catalog = catalog
        self.kinds = kinds
        self.sources: dict[str, Source] = {
            name: kind.open(catalog, processors.get(name)) for name, kind in kinds.items()
        }
        self.order = order
        self.lost: dict[str, NDArray[np.bool_]] = {}
        self.kept: dict[str, NDArray[np.floating]] = {}

    def read_only(self, names: set[str]) -> None:
        """From now on items seem to have nothing but these modalities."""
        for name in self.kinds.keys() - names:
            self.take_away(name, np.ones(self.catalog.num_items, dtype=np.bool_))

    def take_away(self, name: str, items: NDArray[np.bool_]) -> None:
        """From now on some items, bool (num_items,), seem to lack the modality `name`."""
        self.lost[name] = items

    def keep(self, name: str, vectors: NDArray[np.floating]) -> None:
        """From now on what the tower says of a modality, (num_items, tower width), comes in its
        inputs' stead; a text's tokens come, too: there are losses that tell them."""
        self.kept[name] = vectors

    def of(self, name: str) -> "ContentReader":
        """One of this modality alone, of each item's own, from the same files."""
        alone = copy.copy(self)
        alone.kinds, alone.sources = {name: self.kinds[name]}, {name: self.sources[name]}
        alone.order, alone.lost, alone.kept = None, {}, {}
        return alone

    def read(self, items: NDArray[np.int64]) -> Content:
        """The content of n items."""
        places = items if self.order is None else self.order[items]
        content = {name: source.read(places) for name, source in self.sources.items()}
        for name, vectors in self.kept.items():
            content[name] = said_before(content[name], vectors, places)
        for name, lost in self.lost.items():
            content[name] = without(content[name], torch.from_numpy(lost[items]))
        return content

    def prepare(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Reads ahead what `read` will be asked for; int (n,), the tokens each item costs."""
        if self.order is not None:
            items = self.order[items]
        costs = np.zeros(len(items), dtype=np.int64)
        for name, source in self.sources.items():
            lengths = source.prepare(items)
            if name in self.kept:
                costs += 1
            else:
                costs += self.kinds[name].tokens if lengths is None else lengths
        return costs

    def release(self) -> None:
        """Lets go of memory that only mirrors files."""
        for source in self.sources.values():
            source.release()

    def twin_groups(self) -> NDArray[np.int64]:
        """int64 (num_items,): one number for items that are listed twice (see `pretrain.twins`).

        Looked for once for a catalog and a size of its pictures, and kept.
        """
        pictures = self.sources.get("image")
        if not isinstance(pictures, PictureSource):
            pictures = None
        size = 0 if pictures is None else pictures.cache.values.shape[1]
        kept = cache_folder() / "twins" / f"{self.catalog.fingerprint[:16]}-{size}.npy"
        if not kept.exists():

            def picture_of(item: int) -> NDArray[np.uint8] | None:
                return None if pictures is None else pictures.picture_of(item)

            groups = twin_groups(self.catalog.num_items, self.catalog.text_of, picture_of)
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}.partial.npy")  # ranks may race, and agree
            np.save(partial, groups, allow_pickle=False)
            partial.replace(kept)
        return np.load(kept, allow_pickle=False)


def said_before(
    inputs: dict[str, Tensor], vectors: NDArray[np.floating], places: NDArray[np.int64]
) -> dict[str, Tensor]:
    """A modality's inputs with what its tower says of the items at `places` instead of what it reads."""
    rows = present_rows(inputs["present"].numpy(), places)
    told = {key: inputs[key] for key in (*TOKENS, "present") if key in inputs}
    return {**told, SAID: torch.from_numpy(np.asarray(vectors[rows], dtype=np.float32))}


def without(inputs: dict[str, Tensor], lost: Tensor) -> dict[str, Tensor]:
    """A modality's inputs once the items `lost`, bool (n,), no longer have it."""
    present = inputs["present"]
    kept = ~lost[present]
    if not kept.any():  # a stand-in is read where nobody has it
        kept = torch.arange(max(1, len(kept))) == 0
    others = {key: value[kept] for key, value in inputs.items() if key != "present"}
    return {**others, "present": present & ~lost}


def to_device(content: Content, device: torch.device, dtype: torch.dtype | None = None) -> Content:
    """On the device, numbers with a fractional part as `dtype` where one is given."""
    return {
        name: {
            key: value.to(device, dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }
        for name, inputs in content.items()
    }
