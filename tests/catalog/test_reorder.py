"""Random and given splits, which put the training interactions of each history first."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.doctor.run import check_catalog
from catalog.errors import VitrineError
from catalog.interaction_sketch import InteractionSketch, interaction_hashes
from catalog.interactions import Interactions
from catalog.reorder import TRAIN, ReorderedInteractions, reorder_histories
from catalog.splits import (
    load_split,
    make_split,
    target_rows,
    train_user_items,
    training_mask,
)
from tests.catalog.test_splits import ITEMS, LAST, TIMED, places

RANDOM = SplitConfig(kind="random", validation_fraction=0.2, test_fraction=0.2)
GIVEN = SplitConfig(kind="given")
SUBSETS = {"train": [0, 1, 5], "validation": [3], "test": [2, 4]}
"""Part → places in the one history of `labelled`; what is held out lies among what is learned from."""


@pytest.fixture
def labelled(world):
    """One person's six interactions, the part of each in a column; `names` may call it otherwise."""

    def build(names: dict[str, str | None] | None = None, **config: Any) -> Catalog:
        part_of = {place: part for part, places in SUBSETS.items() for place in places}
        rows = [
            {
                "user_id": "a",
                "item_id": str(place),
                "timestamp": place,
                "review": f"review of {place}",
                "split": (names or {}).get(part_of[place], part_of[place]),
            }
            for place in range(6)
        ]
        return world(ITEMS, rows, **config)

    return build


def test_a_given_split_has_the_training_part_by_time_and_then_its_targets(labelled):
    catalog = reorder_histories(labelled(), GIVEN)
    split = make_split(catalog, GIVEN)
    interactions = catalog.interactions
    assert interactions.history(0).tolist() == [0, 1, 5, 3, 2, 4]
    assert interactions.times.tolist() == [0, 1, 5, 3, 2, 4]
    assert interactions.reviews is not None
    assert list(interactions.reviews) == [f"review of {place}" for place in (0, 1, 5, 3, 2, 4)]
    both = [(0, 4), (0, 5)]
    assert places(split) == {"train_end": [3], "validation": [(0, 3)], "test": both}
    assert split.test.first_per_user().positions.tolist() == [4]
    for targets in (split.validation, split.test):
        for place in range(len(targets)):
            assert targets.history(interactions, place).tolist() == SUBSETS["train"]
    assert split.describe()["kind"] == "given"


def test_a_repeated_item_in_one_subset_is_one_target(world):
    parts = [(0, "train"), (1, "train"), (2, "test"), (3, "test"), (2, "test"), (0, "test")]
    rows = [
        {"user_id": "a", "item_id": str(item), "timestamp": moment, "split": part}
        for moment, (item, part) in enumerate(parts)
    ]
    config = replace(GIVEN, repeats="rank")
    catalog = reorder_histories(world(ITEMS, rows), config)
    split = make_split(catalog, config)
    wanted = catalog.interactions.items[target_rows(catalog.interactions, split.test)]
    assert wanted.tolist() == [2, 3, 0]
    assert split.num_repeated == {"validation": 0, "test": 1}


@pytest.mark.parametrize(
    "names",
    [
        {"train": "TRAIN", "validation": " valid ", "test": "Test"},
        {"train": "training", "validation": "dev", "test": "testing"},
    ],
)
def test_subsets_have_their_usual_names(labelled, names):
    split = make_split(reorder_histories(labelled(names), GIVEN), GIVEN)
    assert places(split) == {
        "train_end": [3],
        "validation": [(0, 3)],
        "test": [(0, 4), (0, 5)],
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"test": "tset"},
            r"split column of shop holds 'tset' in the first of 2 rows; write train",
        ),
        ({"validation": None}, r"split column of shop holds nothing in the first of 1 rows"),
        ({"test": "train"}, r"split column of shop never holds test"),
        ({"train": "test"}, r"split column of shop never holds train"),
    ],
)
def test_unknown_split_labels_are_refused_by_a_given_split(labelled, names, message):
    catalog = labelled(names)  # other splits do not mind
    make_split(catalog, LAST)
    with pytest.raises(VitrineError, match=message):
        reorder_histories(catalog, GIVEN)


def test_a_given_split_needs_its_column(catalog_of):
    with pytest.raises(VitrineError, match=r"no split column; add a column split"):
        reorder_histories(catalog_of(TIMED), GIVEN)


def test_the_parts_may_lie_in_files_of_their_own(labelled, world):
    one = labelled()
    _, expected = load_split(CatalogConfig(str(one.folder)), GIVEN)
    lines = (one.folder / "interactions.jsonl").read_text().splitlines()
    (one.folder / "interactions.jsonl").unlink()
    for part in SUBSETS:
        own = [line.replace(f', "split": "{part}"', "") for line in lines if f'"{part}"' in line]
        (one.folder / f"interactions.{part}.jsonl").write_text("\n".join(own))
    config = CatalogConfig(str(one.folder))
    catalog, split = load_split(config, GIVEN)
    assert places(split) == places(expected)
    assert catalog.interactions.history(0).tolist() == [0, 1, 5, 3, 2, 4]
    report = check_catalog(config)
    assert report.facts["given split"] == "3 train, 1 validation, 2 test"
    assert report.facts["given targets"] == "1 for validation, 2 for test"

    (one.folder / "interactions.jsonl").write_text("\n".join(lines))
    with pytest.raises(VitrineError, match=r"both whole and split .*keep one"):
        load_split(config, GIVEN)
    (one.folder / "interactions.jsonl").unlink()
    (one.folder / "interactions.test.jsonl").unlink()
    with pytest.raises(VitrineError, match=r"no interactions\.test file"):
        load_split(config, GIVEN)


def test_the_check_reports_unknown_split_labels(labelled):
    report = check_catalog(CatalogConfig(str(labelled({"test": "tset"}).folder)))
    assert "given split" not in report.facts
    assert any("'tset'" in finding.what for finding in report.findings)


def test_a_random_split_follows_the_fractions_and_the_seed(catalog_of):
    catalog = catalog_of(
        {f"u{n}": {moment: moment % 10 for moment in range(10)} for n in range(30)}
        | {"one": {0: 0}, "two": {0: 0, 1: 1}, "three": {0: 0, 1: 1, 2: 2}}
    )
    arranged = reorder_histories(catalog, RANDOM).interactions
    assert isinstance(arranged, ReorderedInteractions)
    sizes = [
        np.bincount(arranged.parts[begin:end], minlength=3).tolist()
        for begin, end in zip(arranged.offsets, arranged.offsets[1:], strict=False)
    ]
    assert sizes == [[6, 2, 2]] * 30 + [[1, 0, 0], [1, 0, 1], [1, 1, 1]]
    # Over thirty people the held-out places lie everywhere, and all of them are targets.
    split = make_split(reorder_histories(catalog, RANDOM), RANDOM)
    assert [len(t) for t in (split.validation, split.test)] == [30 * 2 + 1, 30 * 2 + 2]
    when = arranged.times[target_rows(arranged, split.test)][:60]
    assert when.min() < 3
    assert when.max() > 6
    assert 3 < when.mean() < 6
    same = make_split(reorder_histories(catalog, RANDOM), RANDOM)
    other = replace(RANDOM, seed=1)
    assert split.hash == same.hash != make_split(reorder_histories(catalog, other), other).hash


def test_the_hash_of_a_random_split_is_of_what_is_held_out(catalog_of):
    catalog = catalog_of({"a": dict(enumerate(range(3))), "b": dict(enumerate(range(3)))})
    hashes, positions = set(), set()
    for seed in range(6):
        config = replace(RANDOM, seed=seed)
        split = make_split(reorder_histories(catalog, config), config)
        hashes.add(split.hash)
        positions.add(str(places(split)))
    assert len(positions) == 1
    assert len(hashes) > 3


@pytest.mark.parametrize("shares", [(0.6, 0.4), (0, 0.1), (0.1, 0)])
def test_impossible_fractions_of_a_random_split_are_refused(catalog_of, shares):
    with pytest.raises(VitrineError, match="must be above 0 and sum to less"):
        reorder_histories(catalog_of(TIMED), SplitConfig("random", *shares))


def test_histories_reordered_for_another_split_are_refused(catalog_of):
    catalog = catalog_of(TIMED)
    with pytest.raises(ValueError, match="not reordered for this split"):
        make_split(catalog, RANDOM)
    with pytest.raises(ValueError, match="not reordered for this split"):
        make_split(reorder_histories(catalog, RANDOM), replace(RANDOM, seed=1))
    with pytest.raises(ValueError, match="not reordered for this split"):
        make_split(reorder_histories(catalog, RANDOM), LAST)


def shop_of(lengths: list[int], dealt: list[int]) -> Catalog:
    """People with histories of these lengths; interaction n is of item n, its part from `dealt`."""
    total = sum(lengths)
    names = [("train", "validation", "test")[dealt[n % len(dealt)]] for n in range(total)]
    names[:2] = ["train", "test"]  # without these no split can be made
    users = np.repeat(np.arange(len(lengths)), lengths)
    interactions = Interactions(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.arange(total, dtype=np.int32),
        times=(np.arange(total) - np.concatenate([[0], np.cumsum(lengths)])[users]).astype(
            np.int64
        ),
        split_labels=pa.chunked_array([pa.array(names, pa.large_string())]),
    )
    return Catalog(
        name="shop",
        folder=None,  # pyright: ignore[reportArgumentType]
        fingerprint="",
        content_fingerprint="",
        items=Dataset.from_dict({"item_id": [str(n) for n in range(total)]}),
        columns=pa.table({}),
        user_ids=np.array([f"u{n}" for n in range(len(lengths))]),
        interactions=interactions,
    )


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=8),
    dealt=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    kind=st.sampled_from(["random", "given", "leave-one-out", "temporal"]),
    seed=st.integers(0, 99),
    min_history=st.integers(0, 3),
)
def test_what_is_held_out_is_in_no_training_row_and_no_history(
    lengths, dealt, kind, seed, min_history
):
    """Every interaction is of an item of its own, so an item seen twice is an interaction leaked."""
    if sum(lengths) < 2 or (kind == "temporal" and max(lengths) < 3):
        return
    shop = shop_of(lengths, dealt)
    config = SplitConfig(kind, 0.3, 0.3, min_history, seed)
    catalog = reorder_histories(shop, config)
    split = make_split(catalog, config)
    interactions = catalog.interactions
    owners = np.repeat(np.arange(len(lengths)), lengths)
    assert sorted(interactions.items.tolist()) == list(range(sum(lengths)))
    assert (owners[interactions.items] == owners).all()  # everybody keeps their own

    people_, learned = train_user_items(catalog, split)
    assert (owners[learned] == people_).all()
    assert (split.train_counts == np.bincount(learned, minlength=sum(lengths))).all()
    assert split.train_counts.max(initial=0) <= 1
    wanted = {}
    for name, targets in (("validation", split.validation), ("test", split.test)):
        wanted[name] = interactions.items[target_rows(interactions, targets)]
        assert not set(wanted[name].tolist()) & set(learned.tolist())
        assert (np.diff(targets.users) >= 0).all()
        if kind not in ("random", "given"):
            assert (np.diff(targets.users) > 0).all()
        assert targets.first_per_user().users.tolist() == np.unique(targets.users).tolist()
        some = targets.sample_users(2)
        assert len(np.unique(some.users)) == min(2, len(np.unique(targets.users)))
        assert len(some) == np.isin(targets.users, some.users).sum()
        assert (owners[wanted[name]] == targets.users).all()
    assert not set(wanted["validation"].tolist()) & set(wanted["test"].tolist())
    for place in range(len(split.validation)):
        known = split.validation.history(interactions, place)
        assert not set(known.tolist()) & set(wanted["test"].tolist())
        assert len(known) >= min_history
    if isinstance(interactions, ReorderedInteractions):
        mask = training_mask(interactions, split.train_end)
        assert (mask == (interactions.parts == TRAIN)).all()
        assert (np.diff(learned)[np.diff(people_) == 0] > 0).all()  # in the order of time
        for targets in (split.validation, split.test):
            for place in range(len(targets)):
                known = targets.history(interactions, place)
                assert known.tolist() == learned[people_ == targets.users[place]].tolist()
        if kind == "given":
            labels = np.array(shop.interactions.split_labels.to_pylist())  # pyright: ignore
            assert sorted(learned.tolist()) == np.flatnonzero(labels == "train").tolist()
            for name, items in wanted.items():
                assert (labels[items] == name).all()


def test_an_interaction_sketch_does_not_depend_on_the_order_of_histories(catalog_of):
    # Without moments the count of earlier copies tells one from another, in the order of time.
    histories = {f"u{n}": {moment: moment % 3 for moment in range(8)} for n in range(5)}
    catalog = catalog_of(histories, time="position")
    everything = np.arange(len(catalog.interactions))
    own = interaction_hashes(catalog, everything).reshape(2, -1)
    config = replace(RANDOM, repeats="mask")
    arranged = reorder_histories(catalog, config)
    assert isinstance(arranged.interactions, ReorderedInteractions)
    hashes = interaction_hashes(arranged, everything).reshape(2, -1)
    assert (hashes == own[:, arranged.interactions.source_rows]).all()
    split = make_split(arranged, config)
    _, seen = InteractionSketch.training(arranged, split).check(catalog, everything, one_shop=True)
    assert seen.sum() == split.train_end.sum()
