"""Reads what items hold into tensors the towers take: tokens and pixels. Knows nothing about histories."""

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from catalog.catalog import Catalog, cache_folder
from pretrain.twins import twin_groups


class PictureCache:
    """A catalog's pictures at one size, decoded once, memory-mapped: uint8 (num_items, size, size, 3)."""

    def __init__(self, catalog: Catalog, size: int) -> None:
        folder = cache_folder() / "pictures" / f"{catalog.fingerprint[:16]}-{size}"
        if not (folder / "present.npy").exists():
            self._decode(catalog, size, folder)
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        self.present = np.load(folder / "present.npy", allow_pickle=False)

    @staticmethod
    def _decode(catalog: Catalog, size: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shape = (catalog.num_items, size, size, 3)
        # Each process writes a file of its own and renames it: ranks may race, and both be right.
        partial = folder / f"pixels.{os.getpid()}.partial.npy"
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        present = np.zeros(catalog.num_items, dtype=bool)
        for item in track(range(catalog.num_items), "Decoding pictures", transient=True):
            picture = catalog.image_of(item, size)
            if picture is not None:
                pixels[item] = picture
                present[item] = True
        pixels.flush()
        partial.rename(folder / "pixels.npy")
        partial = folder / f"present.{os.getpid()}.partial.npy"
        np.save(partial, present, allow_pickle=False)
        partial.rename(folder / "present.npy")


class ContentReader:
    """Item rows → the encoder's inputs.

    `order`, a permutation of the items, makes the shuffled-features control: item i is read as if
    it were item order[i].
    """

    def __init__(
        self,
        catalog: Catalog,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        max_tokens: int,
        image_size: int | None,
        image_mean: list[float],
        image_std: list[float],
        order: NDArray[np.int64] | None = None,
    ) -> None:
        self.catalog = catalog
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.pictures = PictureCache(catalog, image_size) if image_size else None
        self.mean = torch.tensor(image_mean).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(image_std).view(1, 3, 1, 1) * 255
        self.order = order

    def twin_groups(self) -> NDArray[np.int64]:
        """int64 (num_items,): one number for items that are listed twice (see `pretrain.twins`)."""

        def picture_of(item: int) -> NDArray[np.uint8] | None:
            if self.pictures is None or not self.pictures.present[item]:
                return None
            return self.pictures.pixels[item]

        return twin_groups(self.catalog.num_items, self.catalog.text_of, picture_of)

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        """Tensors for n items: rows of tokens and pixels for those that have them, and who has.

        Where no item has a modality one stand-in row is given (see `towers.scatter_present`).
        """
        if self.order is not None:
            items = self.order[items]
        batch: dict[str, Tensor] = {}
        if self.tokenizer is not None:
            texts = [self.catalog.text_of(int(item)) for item in items]
            tokens = self.tokenizer(
                [text for text in texts if text] or [""],
                truncation=True,
                max_length=self.max_tokens,
                padding=True,
                return_tensors="pt",
            )
            batch["input_ids"] = tokens["input_ids"]
            batch["attention_mask"] = tokens["attention_mask"]
            batch["text_present"] = torch.tensor([bool(text) for text in texts])
        if self.pictures is not None:
            present = self.pictures.present[items]
            pixels = torch.from_numpy(self.pictures.pixels[items[present]])
            if not len(pixels):
                pixels = torch.zeros(1, *self.pictures.pixels.shape[1:], dtype=torch.uint8)
            pixels = pixels.permute(0, 3, 1, 2).float()
            batch["pixel_values"] = (pixels - self.mean) / self.std
            batch["image_present"] = torch.from_numpy(present)
        return batch
