"""Constant, zero and rank-deficient input: what may round past zero has a floor, on every processor."""

import math
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from benchmarks.guidance import spearman
from finetune.semantic_ids.config import SemanticIdConfig
from finetune.semantic_ids.kmeans import assign, kmeans
from finetune.semantic_ids.tokenize import assign_semantic_ids
from finetune.statistics import mean_interval, ratio_interval
from generate.conditioning import VectorTokens
from generate.image.base_paths import MIN_TIME, base_path
from generate.image.codec import PatchCodec
from generate.image.feature_metrics import diversity, frechet_inception_distance, standardize
from generate.image.watermark import THRESHOLD, detect_watermark
from generate.purchase_states import PurchaseStates
from launch.pipeline.claims import ratio_claim
from pretrain.data import log_sampling_chance
from pretrain.modalities.attributes import spread_of
from pretrain.projection_init import whiten
from pretrain.towers.projection import Projection

pytestmark = pytest.mark.numeric

SEEDS = range(8)
SIZES = (1e-3, 1.0, 1e3)
"""How long the vectors are: a floor that is absolute alone fails at one end."""


def test_the_capability_that_was_asked_for_is_the_one_in_use() -> None:
    asked = os.environ.get("ATEN_CPU_CAPABILITY")
    if asked:
        assert torch.backends.cpu.get_cpu_capability().lower() == asked


def jitter(vectors: torch.Tensor) -> torch.Tensor:
    """The same but for how float32 rounds, as equal items have that stood in other batches."""
    ulp = torch.finfo(torch.float32).eps * vectors.abs()
    return vectors + ulp * torch.randint(-1, 2, vectors.shape)


def flat(rows: int, width: int, rank: int, size: float) -> torch.Tensor:
    """Vectors (rows, width) that vary in `rank` directions around a mean; 0: equal but for rounding."""
    mean = torch.randn(width)
    spread = (
        torch.randn(rows, rank) @ torch.randn(rank, width) if rank else torch.zeros(rows, width)
    )
    return jitter(size * (mean + 0.1 * spread))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_directions_that_do_not_vary_are_never_made_loud(rank: int, size: float) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        vectors = flat(200, 16, rank, size)
        tokens = VectorTokens(16, 2, 8)
        tokens.fit_whitening(vectors)
        found = (vectors - tokens.mean) @ tokens.whitener
        assert found.isfinite().all()
        variances = torch.linalg.eigvalsh(torch.cov(found.double().T))
        assert (variances > 0.1).sum() == rank, "noise of rounding was blown up"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_projection_does_not_begin_with_what_floats_round_away(rank: int, size: float) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        vectors = flat(200, 16, rank, size)
        projection = Projection(16, 8)
        whiten(projection, vectors)
        assert all(part.isfinite().all() for part in projection.state_dict().values())
        found = projection.linear(vectors)
        assert (found - found.mean(0)).abs().max() < 10 * max(size, 1.0)
        if rank == 0:
            assert (found - found.mean(0)).abs().max() < 1e-3 * max(size, 1.0), "rounding made loud"


def test_equal_purchase_states_are_moved_and_not_scaled_up() -> None:
    for size in SIZES:
        history_states = size * torch.randn(50, 8)
        equal_states = jitter(size * torch.randn(8).repeat(50, 1))
        purchases = PurchaseStates(history_states, equal_states, np.array(["coat"] * 50))
        moved = purchases.match_moments(equal_states)
        assert (moved - history_states.mean(0)).abs().max() < 1e-3 * size


def test_features_that_do_not_vary_count_nothing() -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        equal = jitter(100 * torch.randn(6).repeat(20, 1))
        assert standardize(equal, equal).abs().max() == 0
        mixed = torch.cat([equal, torch.randn(20, 2)], dim=1)
        found = standardize(mixed, mixed)
        assert found[:, :6].abs().max() == 0
        assert found.norm(dim=1) == pytest.approx(torch.ones(20), abs=1e-5)
    one = torch.randn(1, 4)
    assert standardize(one, one).isfinite().all(), "of a single picture"
    assert diversity(one) == 0


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_frechet_distance_of_equal_sets_is_zero_where_they_hardly_vary(rank: int) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        features = flat(40, 12, rank, 1.0)
        found = frechet_inception_distance(features, features)
        assert found == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("level", [0, 127, 255])
@pytest.mark.parametrize("whitening", [0.4, 1.0])
def test_a_codec_of_one_coloured_pictures_gives_them_back(level: int, whitening: float) -> None:
    pictures = np.full((4, 32, 32, 3), level, dtype=np.uint8)
    codec = PatchCodec.fit([pictures], patch_size=16, channels=8, whitening=whitening)
    latents = codec.encode(torch.from_numpy(pictures))
    assert latents.isfinite().all()
    assert latents.abs().max() < 1
    assert np.array_equal(codec.decode(latents).numpy(), pictures)


@pytest.mark.parametrize("level", [0, 127, 255])
def test_a_one_coloured_picture_is_not_marked(level: int) -> None:
    assert detect_watermark(np.full((128, 128, 3), level, dtype=np.uint8)) < THRESHOLD


@pytest.mark.parametrize("tokenizer", ["residual-kmeans", "rq-vae"])
def test_items_that_are_all_alike_are_missed_by_nothing(tokenizer: Any) -> None:
    for size in (1.0, 1e3):
        vectors = jitter(size * torch.randn(16).repeat(60, 1))
        config = SemanticIdConfig(
            tokenizer=tokenizer, num_levels=2, codebook_size=4, tokenizer_steps=5
        )
        found = assign_semantic_ids(vectors, config, seed=0)
        assert len(np.unique(found.codes, axis=0)) == 60
        error = found.metrics["reconstruction_error"]
        assert math.isfinite(error)
        if tokenizer == "residual-kmeans":
            assert error < 0.01


def test_squared_distances_are_never_below_zero() -> None:
    points = jitter(1e3 * torch.randn(8).repeat(100, 1))
    centers = kmeans(points, 4, seed=0)
    assert centers.isfinite().all()
    assert assign(points, centers)[1].min() >= 0


def test_a_column_that_holds_one_number_stays_quiet() -> None:
    values = np.full(1000, 0.1)
    assert values.std() > 0, "numpy rounds: otherwise this tests nothing"
    assert spread_of(values) == 1.0
    assert spread_of(np.full(10, 1e9) + np.arange(10)) == pytest.approx(np.arange(10).std())
    assert spread_of(np.zeros(3)) == 1.0


def test_a_ratio_of_nothing_to_nothing_says_nothing() -> None:
    nothing = np.zeros(20)
    found = ratio_interval(nothing, nothing)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, math.inf)
    assert not ratio_claim("x", nothing, nothing, None).met
    assert not ratio_claim("x", nothing, nothing, 1.0).met
    some = np.ones(20)
    assert ratio_interval(some, nothing).low == math.inf
    assert ratio_interval(nothing, some).high == 0
    assert mean_interval(nothing).high == 0


def test_equal_values_are_in_no_order() -> None:
    assert spearman(np.zeros(6)) == 0
    assert spearman(np.arange(6.0)) == pytest.approx(1)
    assert spearman(-np.arange(6.0)) == pytest.approx(-1)
    assert 0 < spearman(np.array([0, 1, 1, 1, 1, 1.0])) < 0.8


def test_no_edges_change_no_chance() -> None:
    catalog: Any = SimpleNamespace(num_items=3)
    split: Any = SimpleNamespace(train_counts=np.array([2, 1, 0]))
    none = np.empty((0, 2), dtype=np.int32)
    found = log_sampling_chance(catalog, split, 0.0, none, 0.5)
    assert np.isfinite(found).all()


def test_a_base_whose_noise_leaves_nothing_is_not_asked_there() -> None:
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True)
    kept = scheduler.alphas_cumprod.double()
    assert kept[-1] == 0
    assert base_path(scheduler).latest_time == 1 - MIN_TIME
