"""A shop of six users and twelve items, and what the text generation stage needs to train on it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from pretrain.config import TrainerConfig

WIDTH = 8
TEXTS = ["soft and quiet", "bold and loud"]
TINY_GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96}


class StageRanker:
    """Random item vectors; a user state is the mean of the user's items."""

    def __init__(self) -> None:
        vectors = np.random.default_rng(0).normal(size=(12, WIDTH))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.width = WIDTH
        self.item_vectors = vectors.astype(np.float32)

    def user_states(self, histories: list[np.ndarray]) -> Tensor:
        sums = [self.item_vectors[history].sum(axis=0) for history in histories]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(sums)), dim=-1)

    def rank(self, history: np.ndarray, k: int) -> list[tuple[int, float]]:
        scores = self.item_vectors @ self.user_states([history])[0].numpy()
        return [(int(item), float(scores[item])) for item in np.argsort(-scores)[:k]]


def build_trainer(
    config: TrainerConfig, folder: Path, title: str, callbacks: Sequence[pl.Callback] = ()
) -> pl.Trainer:
    return pl.Trainer(
        max_steps=config.max_steps,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
