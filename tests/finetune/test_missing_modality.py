"""Items that lose a modality: who, and what each way to do without puts in its place."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.catalog import load_catalog
from catalog.errors import VitrineError
from catalog.splits import make_split
from finetune.config import FinetuneConfig, MissingModalityConfig
from finetune.missing_modality import (
    drop_modality_at_random,
    imputed_embeddings,
    item_graph,
    propagate,
)
from finetune.run import run_finetuning
from launch.trainer import build_trainer
from pretrain.artifact import EncoderBundle
from pretrain.content_loader import without
from pretrain.embed_items import embed_items
from pretrain.vector_file import open_vectors

WALK = torch.tensor(
    [  # 0 – 1 – 2 – 3 in a row, 4 alone
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [0.5, 0.0, 0.5, 0.0, 0.0],
        [0.0, 0.25, 0.0, 0.75, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
VALUES = torch.tensor([[8.0], [4.0], [0.0], [0.0], [0.0]])
KNOWN = torch.tensor([True, True, False, False, False])


def test_neighbours_are_one_step_away() -> None:
    study = MissingModalityConfig(imputation="neighbours")
    found = propagate(study, VALUES, KNOWN, WALK.to_sparse())
    assert found[2:].flatten().tolist() == [4.0, 6.0, 6.0]  # 3 and 4 reach nobody: the mean


def test_hops_go_on_from_what_was_filled_in() -> None:
    study = MissingModalityConfig(imputation="multi-hop", hops=2)
    found = propagate(study, VALUES, KNOWN, WALK.to_sparse())
    assert found[2:].flatten().tolist() == [4.0, 4.0, 6.0]


def test_pagerank_is_that_of_a_walk_that_starts_again() -> None:
    study = MissingModalityConfig(imputation="pagerank", restart=0.3)
    found = propagate(study, VALUES, KNOWN, WALK.to_sparse())
    # Where a walk from each item ends that stops at every step with chance 0.3: a Neumann series.
    ends = 0.3 * torch.linalg.inv(torch.eye(5) - 0.7 * WALK)[:, KNOWN]
    expected = (ends @ VALUES[KNOWN]) / ends.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found[:4], expected[:4], atol=0.02, rtol=0)
    assert found[4].item() == 6.0


def test_a_dropped_modality_is_gone_from_a_batch() -> None:
    inputs = {
        "present": torch.tensor([True, False, True, True]),
        "values": torch.tensor([[0.0], [2.0], [3.0]]),
    }
    left = without(inputs, torch.tensor([False, True, True, False]))
    assert left["present"].tolist() == [True, False, False, True]
    assert left["values"].flatten().tolist() == [0.0, 3.0]
    without_any = without(inputs, torch.ones(4, dtype=torch.bool))
    assert not without_any["present"].any()
    assert len(without_any["values"]) == 1, "a stand-in"


def test_only_those_that_lost_it_are_filled_in(settings: FinetuneConfig) -> None:
    catalog = load_catalog(settings.catalog)
    split = make_split(catalog, settings.split)
    parts = EncoderBundle.load(Path(settings.encoder))
    whole = np.empty((catalog.num_items, 32), dtype=np.float32)
    embed_items(parts.encoder, parts.content_loader(catalog), whole, progress=False)
    masked = np.empty_like(whole)
    found = {}
    for imputation in ("mean", "zeros", "neighbours"):
        study = MissingModalityConfig(percent=40, imputation=imputation)
        loader = parts.content_loader(catalog)
        lost = drop_modality_at_random(study, loader, seed=3)
        less = drop_modality_at_random(
            replace(study, percent=20), parts.content_loader(catalog), seed=3
        )
        assert round(0.4 * len(lost)) == lost.sum()
        assert lost[less].all()
        found[imputation] = imputed_embeddings(study, parts.encoder, loader, split).numpy()
        embed_items(parts.encoder, loader, masked, progress=False)
        whole_image = parts.content_loader(catalog).read(np.arange(catalog.num_items))["image"][
            "present"
        ]
        kept = ~lost & whole_image.numpy()
        np.testing.assert_allclose(found[imputation][kept], whole[kept], atol=1e-5)
        np.testing.assert_allclose(masked[kept], whole[kept], atol=1e-5)
        moved = np.abs(found[imputation] - masked)[~kept].max(axis=1) > 1e-4
        assert moved.mean() > 0.9, "what is filled in is read"
    assert np.abs(found["mean"] - found["neighbours"]).max() > 1e-3


def test_steps_of_the_graph_are_shares(settings: FinetuneConfig) -> None:
    catalog = load_catalog(settings.catalog)
    walk = item_graph(catalog, make_split(catalog, settings.split)).to_dense()
    sums = walk.sum(dim=1)
    assert ((sums - 1).abs().lt(1e-5) | (sums == 0)).all()
    assert ((walk > 0) == (walk.T > 0)).all()
    assert walk.diagonal().sum() == 0


def test_each_way_fits_another_recommender(settings: FinetuneConfig, tmp_path: Path) -> None:
    found = {}
    for imputation in ("mask", "drop", "pagerank"):
        study = MissingModalityConfig(percent=60, imputation=imputation)
        config = replace(settings, transfer="frozen", missing_modality=study)
        output = run_finetuning(config, tmp_path / imputation, build_trainer)
        found[imputation] = np.array(open_vectors(output / "item_vectors.safetensors"))
    whole = run_finetuning(replace(settings, transfer="frozen"), tmp_path / "whole", build_trainer)
    found["whole"] = np.array(open_vectors(whole / "item_vectors.safetensors"))
    for one, other in combinations(found, 2):
        assert np.abs(found[one] - found[other]).max() > 1e-4, (one, other)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"missing_modality": MissingModalityConfig(percent=100)},
            "missing_modality.percent is 100; give 0 or more",
        ),
        (
            {"missing_modality": MissingModalityConfig(percent=5), "transfer": "lora"},
            "use --transfer frozen",
        ),
        (
            {"missing_modality": MissingModalityConfig(percent=5), "vectors": "v"},
            "contain every image; leave out",
        ),
        (
            {"missing_modality": MissingModalityConfig(percent=5, modality="imag")},
            "Did you mean 'image'?",
        ),
    ],
)
def test_contradicting_settings_are_refused(
    changes: dict, line: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, **{"transfer": "frozen", **changes})
    with pytest.raises(VitrineError, match=line):
        run_finetuning(config, tmp_path / "run", build_trainer)
