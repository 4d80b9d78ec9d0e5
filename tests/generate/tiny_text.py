"""A tiny catalog of two kinds of users and texts, and text generators that train on it in seconds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch import Tensor

from catalog.catalog import Catalog, Interactions
from catalog.config import SplitConfig
from catalog.splits import Split
from generate.next_items import NextItemPairs
from generate.text.config import TextConfig
from generate.text.data import TextData
from generate.text.language_model import build_language_model
from generate.text.model import TextGenerator
from generate.text.module import TextModule
from generate.text.settings import TextGeneratorSettings
from generate.text.task_texts import TaskTexts
from generate.text.tasks import load_task
from generate.text.writer import BatchWriter
from pretrain.config import OptimizerConfig, TrainerConfig

WIDTH = 8
TEXTS = ["soft and quiet, my kind of wool", "bold and loud, a colour that shouts"]
TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": True,
}


class TinyRanker:
    """Items of two kinds point two ways; a user state is the mean of the user's items."""

    def __init__(self, num_items: int) -> None:
        vectors = np.random.default_rng(0).normal(size=(num_items, WIDTH)) * 0.3
        vectors[np.arange(num_items), np.arange(num_items) % 2] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.width = WIDTH
        self.item_vectors = vectors.astype(np.float32)

    def user_states(self, histories: list[np.ndarray]) -> Tensor:
        sums = [self.item_vectors[history].sum(axis=0) for history in histories]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(sums)), dim=-1)

    def rank(self, history: np.ndarray, k: int) -> list[tuple[int, float]]:
        scores = self.item_vectors @ self.user_states([history])[0].numpy()
        scores[history] = -np.inf
        return [(int(item), float(scores[item])) for item in np.argsort(-scores)[:k]]


def tiny_catalog() -> Catalog:
    """Twelve users who each take five of twelve items, all of one kind, and review in two ways."""
    num_users, length = 12, 5
    rng = np.random.default_rng(1)
    items = [2 * rng.choice(6, length, replace=False) + user % 2 for user in range(num_users)]
    return Catalog(
        name="tiny",
        folder=Path(),
        fingerprint="0",
        content_fingerprint="0",
        columns=pa.table({}),
        items=Dataset.from_dict(
            {
                "item_id": [str(item) for item in range(12)],
                "title": ["Coat", "Hat"] * 6,
                "text": ["a soft thing", "a bold thing"] * 6,
                "category": [None] * 12,
                "image": [None] * 12,
            }
        ),
        user_ids=np.array([str(user) for user in range(num_users)]),
        interactions=Interactions(
            offsets=np.arange(num_users + 1) * length,
            items=np.concatenate(items).astype(np.int32),
            times=np.tile(np.arange(length), num_users),
            reviews=[TEXTS[user % 2] for user in range(num_users) for _ in range(length)],
        ),
    )


def tiny_settings(**options: object) -> TextGeneratorSettings:
    names = options.pop("tasks", ("description", "review"))
    assert isinstance(names, tuple)
    tasks = tuple(map(load_task, names))
    return TextGeneratorSettings(**{"width": WIDTH, "tasks": tasks, "max_tokens": 24, **options})  # type: ignore[arg-type]


def make_generator(**options: object) -> TextGenerator:
    torch.manual_seed(0)
    model, tokenizer = build_language_model(TINY, TEXTS, vocab_size=320)
    return TextGenerator(model, tokenizer, tiny_settings(**options)).eval()


def make_writer(
    generator: TextGenerator, catalog: Catalog, ranker: TinyRanker, split: Split | None = None
) -> BatchWriter:
    config = SplitConfig(kind="leave-one-out")
    return BatchWriter(generator, catalog, ranker, "0", config, split)  # type: ignore[arg-type]


def random_vectors(count: int, seed: int = 0) -> Tensor:
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def fit(
    generator: TextGenerator, catalog: Catalog, split: Split, ranker: TinyRanker, steps: int
) -> None:
    config = TextConfig(batch_size=16, max_tokens=24, trainer=TrainerConfig(max_steps=steps))
    pairs = NextItemPairs(catalog, split)
    texts = TaskTexts(catalog, generator.settings.tasks)
    data = TextData(texts, ranker, pairs, generator, config)  # type: ignore[arg-type]
    module = TextModule(generator, OptimizerConfig(learning_rate=5e-3))
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    generator.eval()
