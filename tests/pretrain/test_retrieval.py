"""The retrieval report: only what no step read, counted as by brute force."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from catalog.interactions import Interactions
from pretrain.packing import PackedHistories
from pretrain.retrieval import Retrieval, hold_out, target_ranks


def catalog_of(ids: list[str]) -> SimpleNamespace:
    return SimpleNamespace(num_items=len(ids), items={"item_id": ids})


def test_held_out_items_depend_on_their_ids_alone() -> None:
    ids = [f"item {n}" for n in range(500)]
    chosen = hold_out(catalog_of(ids), 0.1)
    assert chosen.sum() == 50
    order = np.random.default_rng(0).permutation(500)
    again = hold_out(catalog_of([ids[n] for n in order]), 0.1)
    np.testing.assert_array_equal(again, chosen[order])
    assert not hold_out(catalog_of(ids), 0.0).any()
    assert hold_out(catalog_of([str(n) for n in range(30_000)]), 0.5).sum() == 1000


@pytest.mark.parametrize("uniform_share", [0.0, 0.5])
def test_held_out_items_are_in_no_row(uniform_share: float) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, size=20)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(40, size=offsets[-1]).astype(np.int32)
    held_out = np.zeros(40, dtype=bool)
    held_out[[3, 11, 29]] = True
    edges = np.stack([np.arange(39), np.arange(1, 40)], axis=1).astype(np.int32)
    rows = PackedHistories(
        Interactions(offsets, items, np.arange(len(items))),
        lengths.astype(np.int32),
        40,
        7,
        0,
        uniform_share,
        edges,
        0.25,
        held_out,
    )
    seen = np.unique(np.concatenate([rows[row][0] for row in range(500)]))
    assert not held_out[seen].any()
    if uniform_share:
        assert len(seen) == 37


def test_places_are_those_of_a_full_sort() -> None:
    torch.manual_seed(0)
    # Whole numbers, whose products no kernel rounds.
    queries = torch.randint(-50, 50, (600, 8)).float()
    candidates = torch.randint(-50, 50, (90, 8)).float()
    candidates[40:60] = candidates[10]  # twenty-one that nobody can tell apart
    own = torch.randint(90, (600,))
    keys = np.random.default_rng(20_011).permutation(90)
    scores = queries @ candidates.T
    expected = []
    for query in range(600):
        order = sorted(range(90), key=lambda c: (-float(scores[query, c]), keys[c]))
        expected.append(order.index(int(own[query])) + 1)
    np.testing.assert_array_equal(target_ranks(queries, candidates, own), expected)


def test_vectors_that_are_all_the_same_do_no_better_than_chance() -> None:
    same = torch.ones(400, 4)
    ranks = target_ranks(same, same, torch.arange(400))
    figures = Retrieval("text → image", 400, ranks).figures()
    assert figures["R@10"] == figures["chance R@10"] == 10 / 400
    perfect = target_ranks(torch.eye(50), torch.eye(50), torch.arange(50))
    assert Retrieval("text → image", 50, perfect, ranks).figures()["R@1"] == 1
    assert "popularity" in str(Retrieval("text → image", 50, perfect, ranks))


def test_an_encoder_s_manifest_tells_what_it_finds(demo_world: Path, tmp_path: Path) -> None:
    from catalog.artifacts import open_artifact
    from tests.pretrain.runs import train

    train(demo_world / "home", tmp_path / "encoder", steps=2, every=0)
    metrics = open_artifact(tmp_path / "encoder").manifest["metrics"]
    found = metrics["retrieval/history → next item"]
    assert set(found) == {"queries", "candidates"} | {
        f"{who}R@{k}" for who in ("", "chance ", "popularity ") for k in (1, 5, 10)
    }
    assert found["chance R@10"] == 10 / 80
