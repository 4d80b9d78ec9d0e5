"""Lists of semantic ids: cold candidates, ties, ranking of targets, and the artifact as an arm."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.splits import SplitConfig, Targets, make_split
from finetune.config import FinetuneConfig
from finetune.evaluate import TargetBatch, rank_lists, rank_targets
from finetune.evaluate_artifact import evaluate_recommender
from finetune.recommendations import recommend
from finetune.semantic_ids.artifact import load_semantic_ranker
from finetune.semantic_ids.config import SemanticIdConfig
from finetune.semantic_ids.model import SemanticRecommender
from finetune.semantic_ids.ranker import SemanticRanker
from finetune.semantic_ids.run import run_semantic_ids
from launch.commands.finetune import FinetuneOptions, finetune
from launch.compare.config import CompareConfig
from launch.compare.run import run_comparison
from launch.trainer import build_trainer
from tests.finetune.test_semantic_ids import NO_EXCLUSION, random_codes, some_model, some_vectors


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return random_codes()


@pytest.fixture(scope="module")
def model(codes: np.ndarray) -> SemanticRecommender:
    return some_model(codes)


@pytest.fixture(scope="module")
def ranker(codes: np.ndarray, model: SemanticRecommender) -> SemanticRanker:
    trained = np.arange(60) % 6 != 0
    return SemanticRanker(
        model,
        some_vectors(60, seed=5).numpy(),
        trained,
        SemanticIdConfig(beam_size=20, num_cold_candidates=4),
    )


def test_the_nearest_cold_items_join_the_beams_items(
    ranker: SemanticRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.semantic_ids.ranker.ITEMS_AT_ONCE", 3)
    states = ranker.user_states([np.array([1, 2]), np.array([3])])
    beam, _ = ranker.without_cold_candidates().decode_lists(states, NO_EXCLUSION, 20)
    excluded = torch.tensor([0, 0, 1]), torch.tensor([6, 12, 18])
    items, scores = ranker.decode_lists(states, excluded, 20)
    dense = states @ torch.from_numpy(ranker.item_vectors).T
    for row in range(2):
        barred = set(excluded[1][excluded[0] == row].tolist())
        cold = [i for i in dense[row].argsort(descending=True).tolist() if i % 6 == 0]
        nearest = [i for i in cold if i not in barred][:4]
        expected = (set(beam[row].tolist()) - barred) | set(nearest)
        found = [item for item in items[row].tolist() if item >= 0]
        assert set(found) >= expected
        assert not barred & set(found)
        assert len(found) == len(set(found))
        torch.testing.assert_close(scores[row, : len(found)], dense[row, found])
        assert (scores[row].diff()[: len(found) - 1] <= 0).all()


def test_equal_scores_are_in_the_order_of_the_keys(ranker: SemanticRanker) -> None:
    same = SemanticRanker(
        ranker.model, np.tile(ranker.item_vectors[:1], (60, 1)), ranker.warm_items, ranker.config
    )
    states = same.user_states([np.array([1])])
    items, _ = same.decode_lists(states, NO_EXCLUSION, 20)
    found = items[0][items[0] >= 0]
    assert same.keys[found].diff().gt(0).all()


def test_the_latest_of_a_long_history_is_read(ranker: SemanticRanker) -> None:
    whole, latest, first = ranker.user_states([np.arange(9), np.arange(3, 9), np.arange(6)])
    torch.testing.assert_close(whole, latest)
    assert (whole - first).abs().max() > 0.01


def test_an_empty_history_has_a_state_of_zeros(ranker: SemanticRanker) -> None:
    states = ranker.user_states([np.array([], dtype=np.int64), np.array([4])])
    assert states[0].abs().max() == 0
    torch.testing.assert_close(states[1].norm(), torch.tensor(1.0))


@pytest.fixture(scope="module")
def wardrobe(demo_world: Path) -> Catalog:
    return load_catalog(CatalogConfig(path=str(demo_world / "wardrobe")))


def test_a_target_in_no_list_is_ranked_last(wardrobe: Catalog) -> None:
    targets = make_split(wardrobe, SplitConfig()).test
    order = torch.randperm(wardrobe.num_items, generator=torch.Generator().manual_seed(0))
    scores = torch.empty(wardrobe.num_items)
    scores[order] = -torch.arange(wardrobe.num_items).float()

    def whole(batch: TargetBatch) -> torch.Tensor:
        lists = torch.full((len(batch.indices), wardrobe.num_items), -1)
        rows, items = batch.excluded
        for row in range(len(lists)):
            left = order[~torch.isin(order, items[rows == row])]
            lists[row, : len(left)] = left
        return lists

    full = rank_lists(whole, wardrobe, targets, user_batch_size=7)
    scored = rank_targets(
        lambda people, part: scores[part].expand(len(people), -1), wardrobe, targets
    )
    np.testing.assert_array_equal(full.ranks, scored.ranks)
    np.testing.assert_array_equal(full.num_candidates, scored.num_candidates)
    np.testing.assert_array_equal(full.exposure, scored.exposure)

    short = rank_lists(lambda batch: whole(batch)[:, :20], wardrobe, targets)
    inside = scored.ranks <= 20
    assert 0 < inside.sum() < len(inside)
    np.testing.assert_array_equal(short.ranks[inside], scored.ranks[inside])
    np.testing.assert_array_equal(short.ranks[~inside], scored.num_candidates[~inside])


@pytest.fixture(scope="module")
def tiny(settings: FinetuneConfig) -> FinetuneConfig:
    return replace(
        settings,
        semantic_ids=SemanticIdConfig(
            num_levels=2, codebook_size=8, beam_size=20, num_cold_candidates=10
        ),
    )


@pytest.fixture(scope="module")
def compared(tiny: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = CompareConfig(finetune=tiny, seeds=1, include="popularity,semantic-ids")
    return run_comparison(config, tmp_path_factory.mktemp("compare") / "run", build_trainer).parent


def test_it_is_an_arm_like_others(
    compared: Path, tiny: FinetuneConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = open_artifact(compared / "arms" / "semantic-ids" / "seed-0", kind="semantic-ids")
    metrics = artifact.manifest["metrics"]
    ranks = np.load(artifact.path / "test_ranks.npy")
    assert metrics["test/mrr"] == pytest.approx((1 / ranks).mean())
    assert 0 < metrics["ids/usage_1"] <= 1
    assert {"ids/collisions", "ids/perplexity_2", "ids/reconstruction_error"} <= metrics.keys()
    assert "beam/ndcg@10" in metrics
    assert "| semantic-ids |" in (compared / "report.md").read_text(encoding="utf8")
    config = CompareConfig(finetune=tiny, seeds=1, include="popularity,semantic-ids")
    run_comparison(config, compared, build_trainer)
    assert "finetune semantic-ids, seed 0: done earlier" in capsys.readouterr().err


def test_what_is_stored_is_what_was_measured(compared: Path, wardrobe: Catalog) -> None:
    folder = compared / "arms" / "semantic-ids" / "seed-0"
    ranker = load_semantic_ranker(folder, wardrobe)
    targets: Targets = make_split(wardrobe, SplitConfig()).test
    ranks = ranker.rank_targets(wardrobe, targets).ranks
    np.testing.assert_array_equal(ranks, np.load(folder / "test_ranks.npy"))
    table = evaluate_recommender(folder)
    assert table["ndcg@10"] == open_artifact(folder).manifest["metrics"]["test/ndcg@10"]


def test_it_recommends_from_its_artifact(compared: Path, wardrobe: Catalog) -> None:
    folder = compared / "arms" / "semantic-ids" / "seed-0"
    user = str(wardrobe.user_ids[0])
    found = recommend(folder, user=user, k=30)
    owned = {wardrobe.items[int(row)]["item_id"] for row in wardrobe.interactions.history(0)}
    assert found.source == "history"
    assert len(found.item_ids) == len(set(found.item_ids)) == 30
    assert not owned & set(found.item_ids)
    assert found.scores == sorted(found.scores, reverse=True)


def test_the_command_makes_it_and_the_beam_alone_learns_no_dense_score(
    tiny: FinetuneConfig, tmp_path: Path
) -> None:
    alone = replace(
        tiny.semantic_ids, num_cold_candidates=0, tokenizer="rq-vae", tokenizer_steps=20
    )
    options = FinetuneOptions(output=str(tmp_path / "shop"), model="semantic-ids")
    finetune(options, replace(tiny, semantic_ids=alone, features="shuffled"))
    metrics = open_artifact(tmp_path / "shop", kind="semantic-ids").manifest["metrics"]
    assert metrics["trained_parameters"] < metrics["parameters"]
    assert metrics["test/ndcg@10"] == metrics["beam/ndcg@10"]


def test_impossible_settings_are_refused_in_one_line(tiny: FinetuneConfig, tmp_path: Path) -> None:
    def refused(rule: str, **changes: object) -> None:
        with pytest.raises(VitrineError, match=rule):
            run_semantic_ids(replace(tiny, **changes), tmp_path / "x", build_trainer)  # type: ignore[arg-type]

    refused("features 'id' are vectors of ids", features="id", transfer="scratch")
    refused("transfer 'scratch' has none", transfer="scratch")
    refused(
        "semantic_ids.beam_size is 5; use 20 or more", semantic_ids=SemanticIdConfig(beam_size=5)
    )
    refused(
        "semantic_ids.num_levels is 0; use 1 or more", semantic_ids=SemanticIdConfig(num_levels=0)
    )
