"""The order of training: a function of the seed, the same at any number of ranks, never the future."""

from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from catalog.catalog import Catalog
from catalog.config import SplitConfig
from catalog.errors import VitrineError
from catalog.interactions import Interactions
from catalog.reorder import reorder_histories
from catalog.splits import make_split, target_rows
from pretrain.packing import PackedHistories, StepSampler, stack_rows

LENGTHS = [5, 1, 9, 0, 3]


def rows(train_end: list[int], seed: int = 0, uniform_share: float = 0.0) -> PackedHistories:
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    items = np.arange(offsets[-1], dtype=np.int32)
    interactions = SimpleNamespace(offsets=offsets, items=items)
    ends = np.array(train_end, dtype=np.int32)
    return PackedHistories(interactions, ends, 18, 6, seed, uniform_share)


def test_only_training_positions_are_read() -> None:
    data = rows([3, 1, 4, 0, 3])
    seen = {int(item) for row in range(400) for item in data[row][0]}
    assert seen == {0, 1, 2, 6, 7, 8, 9, 15, 16, 17}


def test_what_a_random_split_holds_out_is_in_no_row() -> None:
    own = Interactions(
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64),
        items=np.arange(18, dtype=np.int32),
        times=np.arange(18),
    )
    shop = Catalog("shop", Path(), "", "", [0] * 18, pa.table({}), np.array(list("abcde")), own)  # pyright: ignore
    config = SplitConfig("random", validation_fraction=0.2, test_fraction=0.2)
    arranged = reorder_histories(shop, config)
    split = make_split(arranged, config)
    data = PackedHistories(arranged.interactions, split.train_end, 18, 6, seed=0)
    seen = {int(item) for row in range(400) for item in data[row][0]}
    held_out = [target_rows(arranged.interactions, t) for t in (split.validation, split.test)]
    wanted = {int(arranged.interactions.items[row]) for row in chain(*held_out)}
    assert len(wanted) == 6
    assert not seen & wanted
    assert len(seen) == split.train_end[split.train_end > 1].sum()


def test_neighbours_in_a_segment_are_neighbours_in_a_history() -> None:
    data = rows(LENGTHS)
    for row in range(200):
        items, segments, _ = data[row]
        same = segments[:-1] == segments[1:]
        assert (np.diff(items)[same] == 1).all()


def test_rows_of_edges_hold_linked_items_side_by_side() -> None:
    edges = np.array([[0, 9], [4, 2], [7, 1]], dtype=np.int32)
    data = rows(LENGTHS)
    linked = PackedHistories(data.interactions, data.train_end, 18, 7, 0, 0.25, edges, 0.5)
    kinds = {"edges": 0, "others": 0}
    for row in range(300):
        items, segments, links = linked[row]
        kinds["edges" if (links >= 0).any() else "others"] += 1
        if (links >= 0).any():
            assert len(set(segments)) == 7, "linked items are no history"
            pairs = items[links >= 0].reshape(-1, 2)
            assert {tuple(pair) for pair in pairs.tolist()} <= {tuple(e) for e in edges.tolist()}
            assert links.tolist() == [0, 0, 1, 1, 2, 2, -1], "the odd slot has no partner"
    assert 110 < kinds["edges"] < 190
    _, _, stacked = stack_rows([linked[row] for row in range(20)])
    counts = torch.unique(stacked[stacked >= 0], return_counts=True)[1]
    assert (counts == 2).all()


def test_a_row_is_a_function_of_seed_and_number() -> None:
    first, second, other = rows(LENGTHS), rows(LENGTHS), rows(LENGTHS, seed=1)
    for row in (7, 3, 10**12):
        np.testing.assert_array_equal(first[row][0], second[row][0])
    assert any((first[row][0] != other[row][0]).any() for row in range(5))


def test_segments_stay_apart_over_a_batch() -> None:
    data = rows(LENGTHS)
    _, segments, _ = stack_rows([data[0], data[1]])
    assert not set(segments[0].tolist()) & set(segments[1].tolist())


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_rows_of_one_process(ranks: int) -> None:
    alone = list(StepSampler(5, 8))
    shared = [StepSampler(5, 8 // ranks, rank=rank, num_ranks=ranks) for rank in range(ranks)]
    together = [list(chain(*step)) for step in zip(*shared, strict=True)]
    assert together == alone


def test_resuming_repeats_and_skips_nothing() -> None:
    rest = StepSampler(5, 4, first_step=3)
    assert list(rest) == list(StepSampler(5, 4))[3:]
    assert len(rest) == 5, "Lightning counts from the run's start"


def test_no_user_with_a_next_item_is_one_clear_line() -> None:
    with pytest.raises(VitrineError, match="no next item"):
        rows([1, 1, 1, 0, 1])
