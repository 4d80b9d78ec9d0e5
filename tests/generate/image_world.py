"""A catalog of two colours and two shapes, its recommender, and small image generators for tests."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from catalog.images import read_image
from catalog.splits import Targets
from generate.image.codec import PatchCodec, fit_codec
from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig
from generate.image.denoiser import Conditioner, Denoiser, build_denoiser
from generate.image.run import build_conditioner
from generate.purchase_states import PurchaseStates, sample_purchase_states
from pretrain.config import OptimizerConfig, TrainerConfig

WIDTH = 6
RED, BLUE = (220, 40, 40), (40, 60, 220)
TINY = ImageConfig(
    image_size=16,
    codec=CodecConfig(patch_size=8, channels=8, overlap=0, whitening=0.5),
    denoiser=DenoiserConfig(width=32, layers=2, heads=2, user_tokens=2, item_tokens=2),
    batch_size=16,
    optimizer=OptimizerConfig(learning_rate=4e-3),
    trainer=TrainerConfig(max_steps=150),
)


class Interactions:
    """Two tastes: even users bought red items, odd ones blue."""

    def __init__(self, num_users: int, num_items: int, length: int = 6) -> None:
        rng = np.random.default_rng(0)
        rows = [
            rng.permutation(np.arange(user % 2, num_items, 2))[:length] for user in range(num_users)
        ]
        self.items = np.concatenate(rows).astype(np.int32)
        self.offsets = np.arange(num_users + 1) * length

    def history(self, user: int) -> np.ndarray:
        return self.items[self.offsets[user] : self.offsets[user + 1]]


class ImageWorld:
    """Even items are red, odd ones blue; half of each are wide, half tall; the last lacks a image."""

    name, fingerprint, content_fingerprint = "tiny", "tiny", "tiny"
    num_items, num_users = 24, 12

    def __init__(self, folder: Path, shape: tuple[int, int] = (32, 32)) -> None:
        self.items = {"category": ["wide" if i % 4 < 2 else "tall" for i in range(self.num_items)]}
        self.interactions = Interactions(self.num_users, self.num_items)
        self.folder = folder
        self.broken_images: dict[int, str] = {}
        for item in range(self.num_items - 1):
            image = np.full((*shape, 3), 240, dtype=np.uint8)
            height, width = shape
            rows, columns = (slice(s // 4, s - s // 4) for s in (height, width))
            where = (rows, slice(None)) if item % 4 < 2 else (slice(None), columns)
            image[where] = RED if item % 2 == 0 else BLUE
            Image.fromarray(image).save(folder / f"{item}.png")

    def media_path(self, item: int) -> str | None:
        return None if item == self.num_items - 1 else str(self.folder / f"{item}.png")

    def item_image(self, item: int, size: int | tuple[int, int]) -> np.ndarray | None:
        path = self.media_path(item)
        return None if path is None else read_image(path, size)

    def split(self) -> Any:
        users = np.repeat(np.arange(self.num_users), 4)
        positions = np.tile(np.arange(1, 5), self.num_users)
        evaluated = np.arange(self.num_users, dtype=np.int32)
        test = Targets(evaluated, np.full(self.num_users, 5, dtype=np.int32))
        ends = np.full(self.num_users, 5, dtype=np.int32)
        return SimpleNamespace(
            train_positions=lambda: (users, positions), train_end=ends, test=test
        )


class FakeRanker:
    """Item vectors say colour and shape; a state is the mean of the history."""

    width = WIDTH

    def __init__(self, world: ImageWorld) -> None:
        place = np.arange(world.num_items)
        vectors = np.random.default_rng(1).normal(0, 0.1, (world.num_items, WIDTH))
        vectors[place, place % 2] += 1
        vectors[place, 2 + (place % 4) // 2] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.item_vectors = vectors.astype(np.float32)

    def user_states(self, histories: list[np.ndarray]) -> torch.Tensor:
        states = np.zeros((len(histories), WIDTH), dtype=np.float32)
        for row, history in enumerate(histories):
            if len(history):
                mean = self.item_vectors[history].mean(0)
                states[row] = mean / np.linalg.norm(mean)
        return torch.from_numpy(states)


def purchases_of(world: ImageWorld, ranker: FakeRanker) -> PurchaseStates:
    return sample_purchase_states(world, world.split(), ranker, seed=0)  # type: ignore[arg-type]


def codec_of(world: ImageWorld) -> PatchCodec:
    return fit_codec(world, TINY)  # type: ignore[arg-type]


def networks_of(config: ImageConfig) -> tuple[Conditioner, Denoiser]:
    return build_conditioner(config, WIDTH), build_denoiser(config)
