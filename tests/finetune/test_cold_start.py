"""Cold start: items without training interactions get imputed id embeddings, unless they have words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from finetune.bag_of_words import WordBags
from finetune.cold_start import impute_cold_embeddings
from finetune.config import FinetuneConfig
from finetune.manifest import train_counts
from finetune.recommender import Recommender
from finetune.run import run_finetuning
from launch.trainer import build_trainer
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.vector_file import open_vectors


def recommender_with(num_words: int) -> Recommender:
    torch.manual_seed(0)
    shape = SequenceEncoderConfig(width=8, layers=1, heads=1)
    return Recommender(None, SequenceEncoder(shape), 60, id_width=4, num_words=num_words)


def test_imputed_ids_come_from_the_nearest_warm_items_by_content() -> None:
    content, ids = F.normalize(torch.randn(60, 4), dim=-1), torch.randn(60, 4)
    known = torch.cat([content, ids], dim=1).numpy()
    taken = np.arange(60) % 2 == 0
    content_of_cold = torch.randn(300, 4)
    found = impute_cold_embeddings(recommender_with(0), content_of_cold, None, known, taken)
    for row in (0, 1, 299):
        similarities = F.normalize(content_of_cold[row], dim=-1) @ content.T
        nearest = sorted(range(0, 60, 2), key=lambda item: -float(similarities[item]))[:10]
        torch.testing.assert_close(found[row], ids[nearest].mean(dim=0))


def test_items_with_words_get_no_imputed_id() -> None:
    recommender = recommender_with(3)
    assert recommender.bag_of_words is not None
    offsets = torch.tensor([0, *[2] * 60])  # the first item alone says anything
    recommender.bag_of_words.set_items(
        WordBags(offsets, torch.tensor([0, 2]), torch.tensor([0.6, 0.8]))
    )
    rows = torch.tensor([0, 7])
    found = impute_cold_embeddings(
        recommender, torch.randn(2, 4), rows, np.random.randn(60, 8), np.ones(60, dtype=bool)
    )
    assert found.abs().sum(dim=1).gt(0).tolist() == [False, True]


def test_a_domain_stores_them(settings: FinetuneConfig, tmp_path: Path) -> None:
    split = replace(settings.split, kind="temporal", test_fraction=0.3, validation_fraction=0.2)
    config = replace(settings, features="content+id", id_width=8, split=split)
    run = run_finetuning(config, tmp_path / "run", build_trainer)
    vectors, taken = open_vectors(run / "item_vectors.safetensors"), train_counts(run) > 0
    cold_items = np.flatnonzero(~taken)
    assert len(cold_items)
    content, ids = vectors[:, :-8], vectors[:, -8:]
    for item in cold_items:
        similarities = np.where(taken, content @ content[item], -np.inf)
        mean = ids[np.argsort(-similarities)[:10]].mean(axis=0)
        assert ids[item] == pytest.approx(mean / np.linalg.norm(mean) * 0.5**0.5, abs=1e-4)
