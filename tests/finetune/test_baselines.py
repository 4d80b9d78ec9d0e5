"""The baselines compute what their papers say, in blocks as at once, and are fitted like rivals."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.splits import Split, SplitConfig, make_split
from finetune.baselines import item_knn
from finetune.baselines.item_knn import TRIED_K, TRIED_SHRINK, ItemKNN
from finetune.baselines.matrix_factorization import MatrixFactorization, TripletSampler
from finetune.baselines.run import fit_baseline, run_baseline
from finetune.config import FinetuneConfig, ItemKNNConfig, MatrixFactorizationConfig, Model
from finetune.evaluate import rank_targets
from finetune.fitting import FitRequest
from finetune.metrics import mean_ndcg
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig

QUICK = MatrixFactorizationConfig(width=8, batch_size=64, validate_every_epochs=1, max_epochs=12)


@pytest.fixture(scope="module")
def shop(demo_world: Path) -> Catalog:
    return load_catalog(CatalogConfig(path=str(demo_world / "wardrobe")))


@pytest.fixture(scope="module")
def split(shop: Catalog) -> Split:
    return make_split(shop, SplitConfig())


@pytest.fixture(scope="module")
def config(demo_world: Path) -> FinetuneConfig:
    return FinetuneConfig(
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        matrix_factorization=QUICK,
        trainer=TrainerConfig(progress=False, checkpoint_every=0, log_to=""),
    )


def taken(shop: Catalog, split: Split) -> np.ndarray:
    """Who took what in training, bool (num_users, num_items)."""
    matrix = np.zeros((shop.num_users, shop.num_items), dtype=bool)
    for user in range(shop.num_users):
        matrix[user, shop.interactions.history(user)[: split.train_end[user]]] = True
    return matrix


@pytest.mark.parametrize("dense_bytes", [2**26, 8 * 80 * 7])
def test_neighbours_are_those_of_the_whole_matrix(
    dense_bytes: int, shop: Catalog, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_knn, "DENSE_BYTES", dense_bytes)
    monkeypatch.setattr(item_knn, "PAIRS_AT_ONCE", dense_bytes // 100)
    fitted = ItemKNN.fit(shop, split, k=6, shrink=2.0)
    matrix = taken(shop, split).astype(float)
    together = matrix.T @ matrix
    sizes = together.diagonal()
    cosines = together / (np.sqrt(sizes[:, None] * sizes) + 2.0)
    np.fill_diagonal(cosines, 0)
    best = -np.sort(-cosines, axis=1)[:, :6]
    np.testing.assert_allclose(fitted.similarities.numpy(), best, atol=1e-6)
    rows = np.arange(shop.num_items)[:, None]
    np.testing.assert_allclose(cosines[rows, fitted.items.numpy()], best, atol=1e-6)


@pytest.mark.numeric
def test_cold_items_have_no_neighbours_also_without_shrinkage(shop: Catalog, split: Split) -> None:
    fitted = ItemKNN.fit(shop, split, k=6, shrink=0.0)
    never = ~taken(shop, split).any(axis=0)
    assert never.any(), "otherwise this tests nothing"
    assert fitted.similarities[torch.from_numpy(never)].eq(0).all()
    assert fitted.similarities.isfinite().all()


def test_scores_of_a_user_are_sums_over_the_history(shop: Catalog, split: Split) -> None:
    fitted = ItemKNN.fit(shop, split, shop.num_items, 2.0)
    score = fitted.scorer(shop, split.test)
    users = torch.arange(5)
    parts = [score(users, slice(0, 30)), score(users, slice(30, shop.num_items))]
    cosines = np.zeros((shop.num_items, shop.num_items))
    rows = np.arange(shop.num_items)[:, None]
    cosines[rows, fitted.items.numpy()] = fitted.similarities.numpy()
    for row in range(5):
        user, position = split.test.users[row], split.test.positions[row]
        history = np.unique(shop.interactions.history(user)[:position])
        expected = cosines[history].sum(axis=0)
        np.testing.assert_allclose(torch.cat(parts, 1)[row].numpy(), expected, atol=1e-5)


def test_an_item_is_its_own_neighbour_only_where_repeats_are_ranked(
    shop: Catalog, split: Split, config: FinetuneConfig, tmp_path: Path
) -> None:
    neighbours = ItemKNNConfig(k=5, shrink=1.0)
    config = replace(config, item_knn=neighbours)
    lists = {}
    for repeats in ("drop", "mask", "rank"):
        by = replace(split, config=SplitConfig(repeats=repeats))  # pyright: ignore[reportArgumentType]
        fitted = fit_baseline("item-knn", FitRequest(config, shop, by, tmp_path, build_trainer))
        lists[repeats] = fitted.rank(replace(split.test, repeats="rank"))
    own = [
        len(set(split.test.history(shop.interactions, n).tolist())) for n in range(len(split.test))
    ]
    # Where a user's own items are candidates and near to themselves, new targets stand behind them.
    behind = {name: (found.ranks > own).mean() for name, found in lists.items()}
    assert behind["rank"] > behind["drop"]
    np.testing.assert_array_equal(lists["drop"].ranks, lists["mask"].ranks)
    items = torch.arange(shop.num_items)[torch.from_numpy(split.warm_items)]
    for itself in (True, False):
        fitted = ItemKNN.fit(shop, split, 5, 1.0, itself=itself)
        found = (fitted.items[items] == items.unsqueeze(1)) & (fitted.similarities[items] > 0)
        assert found.any(dim=1).all() == found.any() == itself


def test_the_selected_neighbours_rank_validation_best(
    shop: Catalog,
    split: Split,
    config: FinetuneConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def validation(k: int, shrink: float) -> float:
        fitted = ItemKNN.fit(shop, split, TRIED_K[-1], shrink).truncate(k)
        score = fitted.scorer(shop, split.validation)
        return mean_ndcg(rank_targets(score, shop, split.validation))

    every = {(k, shrink): validation(k, shrink) for k in TRIED_K for shrink in TRIED_SHRINK}
    assert len({round(value, 6) for value in every.values()}) > 2
    ways = (ItemKNNConfig(), ItemKNNConfig(k=500), ItemKNNConfig(shrink=100.0))
    for given, backwards in itertools.product(ways, (False, True)):
        order = (
            -1 if backwards else 1
        )  # the best may be the first that is tried, but not both times
        monkeypatch.setattr("finetune.baselines.fit_item_knn.TRIED_K", TRIED_K[::order])
        monkeypatch.setattr("finetune.baselines.fit_item_knn.TRIED_SHRINK", TRIED_SHRINK[::order])
        settings = replace(config, item_knn=given)
        fitted = fit_baseline(
            "item-knn", FitRequest(settings, shop, split, tmp_path, build_trainer)
        )
        allowed = {
            (k, shrink): value
            for (k, shrink), value in every.items()
            if given.k in (None, k) and given.shrink in (None, shrink)
        }
        chosen = fitted.metrics["k"], fitted.metrics["shrink"]
        assert fitted.validation_ndcg == pytest.approx(max(allowed.values()))
        assert allowed[chosen] == pytest.approx(fitted.validation_ndcg)


def test_triplets_hold_positives_and_negatives_as_a_function_of_the_batch(
    shop: Catalog, split: Split
) -> None:
    matrix = taken(shop, split)
    pairs = TripletSampler(shop, split, size=400, seed=3)
    users, items, others = pairs[7]
    assert matrix[users, items].all()
    assert not matrix[users, others].any()
    np.testing.assert_array_equal(pairs[7], TripletSampler(shop, split, 400, seed=3)[7])
    assert not np.array_equal(pairs[7], pairs[8])
    assert (len(pairs) - 1) * 400 < split.train_end.sum() <= len(pairs) * 400


def test_cold_items_are_never_negatives(shop: Catalog, split: Split) -> None:
    others = np.unique(
        np.concatenate([TripletSampler(shop, split, 4000, seed=0)[n][2] for n in range(5)])
    )
    assert set(others) == set(np.flatnonzero(split.warm_items))
    assert len(others) < shop.num_items


def test_a_user_without_negative_items_is_not_sampled(shop: Catalog, split: Split) -> None:
    one = np.zeros(shop.num_items, dtype=np.int64)
    one[shop.interactions.history(0)[: split.train_end[0]]] = 1
    alone = np.where(np.arange(shop.num_users) == 0, split.train_end, 0).astype(np.int32)
    with pytest.raises(VitrineError, match="every user of wardrobe took all"):
        TripletSampler(shop, replace(split, train_end=alone, train_counts=one), 8, seed=0)
    one[np.flatnonzero(one == 0)[:1]] = 1  # one item that others took is the only negative
    users, _, others = TripletSampler(
        shop, replace(split, train_end=alone, train_counts=one), 50, seed=0
    )[0]
    assert not users.any()
    assert len(np.unique(others)) == 1


@pytest.mark.parametrize("shows", [False, True])
def test_lists_are_scored_as_triplets_are(shop: Catalog, split: Split, shows: bool) -> None:
    content = torch.randn(shop.num_items, 5) if shows else None
    module = MatrixFactorization(shop.num_users, shop.num_items, QUICK, content)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    score = module.scorer(split.test, split)
    warm = torch.from_numpy(np.flatnonzero(split.warm_items))
    with torch.no_grad():
        listed = score(torch.arange(4), slice(0, shop.num_items))
        for row in range(4):
            user, first = (
                torch.full((len(warm),), int(split.test.users[row])),
                warm[0].expand(len(warm)),
            )
            ahead, _ = module.ema_factors(user, warm, first, content)
            if split.train_end[split.test.users[row]]:
                torch.testing.assert_close(listed[row, warm] - listed[row, warm[0]], ahead)
        cold_users = replace(split, train_end=np.zeros_like(split.train_end))
        cold_scores = module.scorer(split.test, cold_users)(torch.arange(4), slice(0, 9))
    torch.testing.assert_close(cold_scores, cold_scores[:1].expand(4, -1))


@pytest.mark.parametrize("shows", [False, True])
def test_a_cold_item_is_scored_by_its_content_alone(
    shop: Catalog, split: Split, shows: bool
) -> None:
    content = torch.randn(shop.num_items, 5) if shows else None
    module = MatrixFactorization(shop.num_users, shop.num_items, QUICK, content)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    cold = torch.from_numpy(~split.warm_items)
    with torch.no_grad():
        before = module.scorer(split.test, split)(torch.arange(4), slice(0, shop.num_items))
        for table in (module.ema_factors.items, module.ema_factors.bias):
            table.weight[cold] += 1.0
        after = module.scorer(split.test, split)(torch.arange(4), slice(0, shop.num_items))
    torch.testing.assert_close(before, after)
    assert before[:, cold].any() == shows


@pytest.mark.parametrize("shows", [False, True])
def test_the_l2_penalty_is_that_of_the_triplets_parameters(
    shop: Catalog, split: Split, shows: bool
) -> None:
    triples = torch.from_numpy(TripletSampler(shop, split, 30, seed=0)[0])
    content = torch.randn(shop.num_items, 5) if shows else None
    module = MatrixFactorization(shop.num_users, shop.num_items, QUICK, content)
    factors = module.factors.requires_grad_(False)
    read = [
        factors.users.weight[triples[0]],
        factors.items.weight[triples[1]],
        factors.items.weight[triples[2]],
        factors.bias.weight[triples[1]],
        factors.bias.weight[triples[2]],
    ]
    if shows:  # every triplet reads the whole projection
        torch.nn.init.normal_(factors.content_bias.weight)
        read += [factors.taste.weight[triples[0]]]
        read += 30 * [factors.projection.weight, factors.content_bias.weight]
    expected = sum(float(values.square().sum()) for values in read)
    assert float(factors(*triples, content)[1]) == pytest.approx(expected, rel=1e-5)
    module.log = lambda *_, **__: None  # pyright: ignore[reportAttributeAccessIssue]
    losses = []
    for weight in (0.0, 0.5):
        module.config = replace(QUICK, regularization=weight)
        losses.append(float(module.training_step(triples, 0)))
    assert losses[1] - losses[0] == pytest.approx(0.25 * expected / 30, rel=1e-3)


class EveryStep(pl.Callback):
    """Keeps what the weights were after each step, and breaks off after one."""

    def __init__(self, stop_after: int = 0) -> None:
        self.stop_after = stop_after
        self.trained: list[torch.Tensor] = []
        self.ema_factors: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any, **__: Any) -> None:
        self.module = module
        self.trained.append(module.factors.items.weight.detach().clone())
        self.ema_factors.append(module.ema_factors.items.weight.detach().clone())

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if self.stop_after and trainer.global_step == self.stop_after:
            raise InterruptedError


def run_with(callback: pl.Callback, config: FinetuneConfig, output: Path) -> Path:
    def built(*arguments: Any, callbacks: Any) -> pl.Trainer:
        return build_trainer(*arguments, callbacks=[*callbacks, callback])

    return run_baseline("bpr-mf", config, output, built)


def test_early_stopping_follows_patience(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.baselines.fit_matrix_factorization.MIN_VALIDATE_EVERY", 1)
    seen = EveryStep()
    patient = replace(QUICK, patience=3, max_epochs=400, learning_rate=0.1)
    output = run_with(seen, replace(config, matrix_factorization=patient), tmp_path / "run")
    curve = json.loads((output / "curves.json").read_text())["validation NDCG@10"]
    steps, values = zip(*curve, strict=True)
    assert int(np.argmax(values)) == len(values) - 1 - 3
    metrics = open_artifact(output).manifest["metrics"]
    assert metrics["best_step"] == steps[-4]
    assert metrics["validation_ndcg@10"] == max(values)
    assert len(seen.trained) == steps[-1]
    assert metrics["epochs"] == 3 + int(np.argmax(values)) + 1
    assert metrics["epochs"] < 400


def test_the_ema_of_the_weights_is_stored(config: FinetuneConfig, tmp_path: Path) -> None:
    seen = EveryStep()
    output = run_with(
        seen, replace(config, matrix_factorization=replace(QUICK, max_epochs=2)), tmp_path / "run"
    )
    for step in range(1, len(seen.trained)):
        decay = min(QUICK.ema_decay, (2 + step) / (11 + step))
        expected = torch.lerp(seen.ema_factors[step - 1], seen.trained[step], 1 - decay)
        torch.testing.assert_close(seen.ema_factors[step], expected)
    assert not torch.equal(seen.ema_factors[-1], seen.trained[-1])
    best = open_artifact(output).manifest["metrics"]["best_step"]
    torch.testing.assert_close(seen.module.ema_factors.items.weight, seen.ema_factors[best - 1])


def test_a_baseline_that_was_stopped_ends_as_if_it_had_not_been(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.baselines.fit_matrix_factorization.MIN_VALIDATE_EVERY", 1)
    trainer = replace(config.trainer, checkpoint_every=1)
    config = replace(config, matrix_factorization=replace(QUICK, patience=2), trainer=trainer)
    whole = run_with(EveryStep(), config, tmp_path / "whole")
    curve = json.loads((whole / "curves.json").read_text())["validation NDCG@10"]
    broken, went_on = tmp_path / "broken", EveryStep()
    with pytest.raises(InterruptedError):
        run_with(EveryStep(curve[1][0] + 1), config, broken)
    run_with(went_on, config, broken)
    assert len(went_on.trained) == curve[-1][0] - curve[1][0] - 1
    ranks = [np.load(folder / "test_ranks.npy") for folder in (whole, broken)]
    np.testing.assert_array_equal(*ranks)


def test_a_baseline_stopped_after_its_last_validation_trains_no_further(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.baselines.fit_matrix_factorization.MIN_VALIDATE_EVERY", 1)
    trainer = replace(config.trainer, checkpoint_every=1)
    config = replace(config, matrix_factorization=replace(QUICK, patience=2), trainer=trainer)
    monkeypatch.setattr(
        "finetune.baselines.fit_matrix_factorization.remove_checkpoints", lambda work: None
    )
    run_with(EveryStep(), config, tmp_path / "run")
    ranks = np.load(tmp_path / "run" / "test_ranks.npy")
    shutil.rmtree(tmp_path / "run")
    went_on = EveryStep()
    run_with(went_on, config, tmp_path / "run")
    assert not went_on.trained
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "test_ranks.npy"), ranks)


@pytest.mark.parametrize("model", ["popularity", "item-knn", "bpr-mf"])
def test_a_baseline_leaves_its_ranking_behind(
    model: Model, config: FinetuneConfig, tmp_path: Path
) -> None:
    output = run_baseline(model, config, tmp_path / model, build_trainer)
    artifact = open_artifact(output, kind="baseline")
    metrics = artifact.manifest["metrics"]
    ranks = np.load(output / "test_ranks.npy")
    assert metrics["test/mrr"] == pytest.approx((1 / ranks).mean())
    assert metrics["trained_parameters"] == (0 if model != "bpr-mf" else metrics["parameters"])
    if model != "popularity":
        assert metrics["test/mrr"] != metrics["popularity/mrr"]
    json.dumps(metrics)


def test_vbpr_refuses_targets_its_encoder_was_pretrained_on_unless_allowed(
    settings: FinetuneConfig, config: FinetuneConfig, demo_world: Path, tmp_path: Path
) -> None:
    home = CatalogConfig(path=str(demo_world / "home"))
    config = replace(config, encoder=settings.encoder, catalog=home)
    config = replace(config, matrix_factorization=replace(QUICK, max_epochs=1))
    run_baseline("vbpr", config, tmp_path / "same", build_trainer)
    other = replace(config, split=SplitConfig(kind="leave-one-out"))
    with pytest.raises(VitrineError, match=r"was pretrained on \d+ of the \d+ targets that can be"):
        run_baseline("vbpr", other, tmp_path / "other", build_trainer)
    assert not (tmp_path / "other").exists()
    run_baseline("bpr-mf", other, tmp_path / "ids", build_trainer)
    allowed = run_baseline("vbpr", replace(other, allow_seen=True), tmp_path / "yes", build_trainer)
    assert open_artifact(allowed).manifest["metrics"]["seen_targets"] > 0
