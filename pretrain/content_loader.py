"""The item content loader: item rows → the inputs of the towers. Knows nothing about histories."""

import copy
import hashlib
import json
import os
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.atomic_write import replace_file
from catalog.cache import cache_folder
from catalog.cache_entries import mark_used
from catalog.catalog import Catalog
from pretrain.devices import move
from pretrain.duplicates import duplicate_groups, mix_hash, normalize_text
from pretrain.modalities import Content, ImageSource, Modality, Processor, Source
from pretrain.modalities.base import CACHED_FEATURES, present_rows
from pretrain.modalities.text import TextSource

TOKENS = ("input_ids", "attention_mask")
BLOCK = 256
"""Items read at once where duplicates are looked for."""


class ItemContentLoader:
    """Item rows → the encoder's inputs.

    `permutation` of the items gives the shuffled-features control: item i is read as if it were item
    permutation[i].
    """

    def __init__(
        self,
        catalog: Catalog,
        kinds: Mapping[str, Modality],
        processors: Mapping[str, Processor],
        permutation: NDArray[np.int64] | None = None,
    ) -> None:
        self.catalog = catalog
        self.kinds = kinds
        self.sources: dict[str, Source] = {
            name: kind.open(catalog, processors.get(name)) for name, kind in kinds.items()
        }
        self.permutation = permutation
        self.dropped: dict[str, NDArray[np.bool_]] = {}
        self.cached: dict[str, NDArray[np.floating]] = {}

    def keep_modalities(self, names: set[str]) -> None:
        """Restricts the items to these modalities from now on."""
        for name in self.kinds.keys() - names:
            self.drop_modality(name, np.ones(self.catalog.num_items, dtype=np.bool_))

    def drop_modality(self, name: str, items: NDArray[np.bool_]) -> None:
        """Makes the modality `name` missing for `items`, bool (num_items,), from now on."""
        self.dropped[name] = items

    def use_cached_features(self, name: str, vectors: NDArray[np.floating]) -> None:
        """Returns the tower's cached features of a modality, (num_items, tower width), instead of its inputs
        from now on; a text's tokens are still returned, since some losses predict them."""
        self.cached[name] = vectors

    def for_modality(self, name: str) -> "ItemContentLoader":
        """A loader of this modality alone, without permutation, from the same files."""
        alone = copy.copy(self)
        alone.kinds, alone.sources = {name: self.kinds[name]}, {name: self.sources[name]}
        alone.permutation, alone.dropped, alone.cached = None, {}, {}
        return alone

    def read(self, items: NDArray[np.int64]) -> Content:
        """The content of n items."""
        rows = items if self.permutation is None else self.permutation[items]
        content = {name: source.read(rows) for name, source in self.sources.items()}
        for name, vectors in self.cached.items():
            content[name] = with_cached_features(content[name], vectors, rows)
        for name, dropped in self.dropped.items():
            content[name] = without(content[name], torch.from_numpy(dropped[items]))
        return content

    def prefetch(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Loads `items` ahead of `read`; returns int (n,), the number of tokens of each item."""
        if self.permutation is not None:
            items = self.permutation[items]
        costs = np.zeros(len(items), dtype=np.int64)
        for name, source in self.sources.items():
            lengths = source.prefetch(items)
            if name in self.cached:
                costs += 1
            else:
                costs += self.kinds[name].tokens if lengths is None else lengths
        return costs

    def release(self) -> None:
        """Releases memory that only mirrors files."""
        for source in self.sources.values():
            source.release()

    def duplicate_groups(self) -> NDArray[np.int64]:
        """int64 (num_items,): a group number that duplicate items share (see `pretrain.duplicates`): their
        category and all content that the encoder reads are equal.

        Computed once for the catalog's items and what is read of them, and cached.
        """
        images = self.sources.get("image")
        if not isinstance(images, ImageSource):
            images = None
        read = {name: kind.spec for name, kind in self.kinds.items()}
        spec = json.dumps([self.catalog.content_fingerprint, read], sort_keys=True)
        key = hashlib.sha256(spec.encode()).hexdigest()[:24]
        cached = cache_folder() / "duplicates" / f"{key}.npy"
        if not cached.exists():

            def picture_of(item: int) -> NDArray[np.uint8] | None:
                return None if images is None else images.picture_of(item)

            groups = duplicate_groups(
                self.catalog.num_items, self.catalog.item_text, picture_of, self._other_content()
            )
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = cached.with_suffix(f".{os.getpid()}.partial.npy")  # ranks may race, and agree
            np.save(partial, groups, allow_pickle=False)
            replace_file(partial, cached)
        mark_used(cached)
        return np.load(cached, allow_pickle=False)

    def _other_content(self) -> NDArray[np.uint64]:
        """A hash of each item's category and of all content that the encoder reads except text and image:
        uint64 (num_items,)."""
        num_items = self.catalog.num_items
        categories = self.catalog.column("category")
        keys = np.array(
            [mix_hash(0, (categories[item].as_py() or "").encode()) for item in range(num_items)],
            dtype=np.uint64,
        )
        for name, source in self.sources.items():
            if isinstance(source, TextSource):
                for item in range(num_items):
                    keys[item] = mix_hash(
                        int(keys[item]), normalize_text(source.texts(item) or "").encode()
                    )
            elif name != "image":
                for start in range(0, num_items, BLOCK):
                    items = np.arange(start, min(start + BLOCK, num_items), dtype=np.int64)
                    inputs = source.read(items)
                    rows = items[inputs.pop("present").numpy()]
                    for place, item in enumerate(rows.tolist()):
                        content = b"".join(
                            value[place].numpy().tobytes() for value in inputs.values()
                        )
                        keys[item] = mix_hash(int(keys[item]), content)
                    source.release()
        return keys


def with_cached_features(
    inputs: dict[str, Tensor], vectors: NDArray[np.floating], rows: NDArray[np.int64]
) -> dict[str, Tensor]:
    """A modality's inputs, with the cached `vectors` of the items `rows` instead of the tower's inputs."""
    rows = present_rows(inputs["present"].numpy(), rows)
    text_inputs = {key: inputs[key] for key in (*TOKENS, "present") if key in inputs}
    return {
        **text_inputs,
        CACHED_FEATURES: torch.from_numpy(np.asarray(vectors[rows], dtype=np.float32)),
    }


def without(inputs: dict[str, Tensor], dropped: Tensor) -> dict[str, Tensor]:
    """A modality's inputs with the modality missing for the items `dropped`, bool (n,)."""
    present = inputs["present"]
    kept = ~dropped[present]
    if not kept.any():  # a stand-in row where no item has the modality
        kept = torch.arange(max(1, len(kept))) == 0
    others = {key: value[kept] for key, value in inputs.items() if key != "present"}
    return {**others, "present": present & ~dropped}


def to_device(content: Content, device: torch.device, dtype: torch.dtype | None = None) -> Content:
    """`content` on `device`, floating-point tensors cast to `dtype` if one is given."""
    return {
        name: {
            key: move(value, device, dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }
        for name, inputs in content.items()
    }
