"""Every split on histories small enough to split by hand, and what none may ever do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.catalog import Catalog
from catalog.check import check_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.interaction_sketch import InteractionSketch, interaction_hashes
from catalog.interactions import Interactions
from catalog.reorder import TRAIN, ReorderedInteractions, reorder_histories
from catalog.splits import (
    Split,
    Targets,
    load_split,
    make_split,
    target_rows,
    train_user_items,
    training_mask,
)

ITEMS = [{"item_id": str(n)} for n in range(10)]


@pytest.fixture
def people(world):
    """{person: {time: item}} → a catalog."""

    def build(histories: dict[str, dict[int, int]], time: str = "timestamp"):
        rows = [
            {"user_id": person, "item_id": str(item), time: moment}
            for person, history in histories.items()
            for moment, item in history.items()
        ]
        return world(ITEMS, rows)

    return build


def places(split: Split) -> dict[str, Any]:
    return {
        "train_end": split.train_end.tolist(),
        "validation": list(zip(split.validation.users, split.validation.positions, strict=True)),
        "test": list(zip(split.test.users, split.test.positions, strict=True)),
    }


LAST = SplitConfig(kind="leave-one-out")


def test_leave_one_out_holds_out_the_last_two(people):
    catalog = people({"a": {1: 0, 2: 1, 3: 2, 4: 3}, "b": {1: 4, 2: 5}, "c": {1: 6, 2: 7, 3: 8}})
    split = make_split(catalog, LAST)
    assert places(split) == {
        "train_end": [2, 2, 1],
        "validation": [(0, 2), (2, 1)],
        "test": [(0, 3), (2, 2)],
    }
    assert split.warm_items.tolist() == [n in (0, 1, 4, 5, 6) for n in range(10)]
    assert split.train_counts.sum() == 5
    assert split.cold_fractions == {"validation": 1.0, "test": 1.0}


def test_a_target_bought_once_in_training_is_not_cold(people):
    catalog = people({"a": {1: 0, 2: 1, 3: 2}, "b": {1: 1, 2: 3, 3: 0}})
    assert make_split(catalog, LAST).cold_fractions == {"validation": 0.5, "test": 0.5}


def test_leave_one_out_asks_for_enough_history(people):
    catalog = people({"a": {1: 0, 2: 1, 3: 2}, "b": {1: 0, 2: 1, 3: 2, 4: 3}})
    split = make_split(catalog, SplitConfig(kind="leave-one-out", min_history=2))
    assert places(split) == {"train_end": [1, 2], "validation": [(1, 2)], "test": [(0, 2), (1, 3)]}
    split = make_split(catalog, SplitConfig(kind="leave-one-out", min_history=3))
    assert places(split) == {"train_end": [3, 2], "validation": [], "test": [(1, 3)]}


# Ten interactions at 0 … 9; with shares of 20 % the cuts fall at 6 and 8.
TIMED = {
    "a": {0: 0, 1: 1, 6: 2, 7: 3, 8: 0},
    "b": {2: 0, 3: 1, 4: 5},
    "c": {5: 0},
    "d": {9: 4},
}
FIFTHS = SplitConfig(validation_fraction=0.2, test_fraction=0.2, repeats="mask")


def test_global_time_cuts_everybody_at_the_same_moments(people):
    split = make_split(people(TIMED), FIFTHS)
    assert split.cut_times == (6, 8)
    assert places(split) == {"train_end": [2, 3, 1, 0], "validation": [(0, 2)], "test": [(0, 4)]}
    assert split.cold_fractions == {"validation": 1.0, "test": 0.0}


def test_global_time_without_a_needed_history_counts_newcomers(people):
    config = replace(FIFTHS, min_history=0)
    assert places(make_split(people(TIMED), config))["test"] == [(0, 4), (3, 0)]


def test_global_time_asks_for_enough_history(people):
    config = replace(FIFTHS, min_history=3)
    got = places(make_split(people(TIMED), config))
    assert got == {"train_end": [2, 3, 1, 0], "validation": [], "test": [(0, 4)]}


REPEATING = {
    "a": {1: 0, 2: 1, 3: 0, 4: 1},
    "b": {1: 2, 2: 3, 3: 4, 4: 2},
    "c": {1: 5, 2: 6, 3: 5, 4: 7},
}


def test_targets_in_their_own_history_are_dropped_or_kept_as_the_split_says(people):
    catalog = people(REPEATING)
    for repeats, validation, test in (
        ("drop", [1], [2]),
        ("mask", [0, 1, 2], [0, 1, 2]),
        ("rank", [0, 1, 2], [0, 1, 2]),
    ):
        split = make_split(catalog, replace(LAST, repeats=repeats))
        assert split.validation.users.tolist() == validation, repeats
        assert split.test.users.tolist() == test, repeats
        assert split.test.repeats == split.test.take(np.array([0])).repeats == repeats
        about = split.describe()
        assert about["repeats"] == repeats
        assert (about["repeated_validation_targets"], about["repeated_test_targets"]) == (2, 2)


def test_a_split_of_nothing_but_repeats_names_the_other_protocols(people):
    catalog = people({"a": {1: 0, 2: 1, 3: 0}, "b": {1: 2, 2: 3, 3: 2}})
    with pytest.raises(
        VitrineError, match=r"all 2 test targets .* set split\.repeats: rank, or mask"
    ):
        make_split(catalog, LAST)
    with pytest.raises(VitrineError, match=r"split\.repeats 'rnk' is unknown.*'rank'"):
        make_split(catalog, replace(LAST, repeats="rnk"))


def test_no_training_interaction_is_later_than_any_target(people):
    rng = np.random.default_rng(0)
    catalog = people(
        {
            f"u{n}": {int(t): int(rng.integers(10)) for t in rng.integers(0, 999, 8)}
            for n in range(40)
        }
    )
    split = make_split(catalog, SplitConfig())
    offsets, times = catalog.interactions.offsets, catalog.interactions.times
    latest = max(
        times[offsets[u] : offsets[u] + end].max() for u, end in enumerate(split.train_end) if end
    )
    validation = times[offsets[split.validation.users] + split.validation.positions]
    test = times[offsets[split.test.users] + split.test.positions]
    assert latest < split.cut_times[0] <= validation.min() <= validation.max() < split.cut_times[1]
    assert split.cut_times[1] <= test.min()
    assert 0.07 < np.mean(times >= split.cut_times[1]) < 0.13
    assert 0.17 < np.mean(times >= split.cut_times[0]) < 0.23


def test_one_moment_is_never_divided(people):
    # Half of all interactions happen at 2; 10 % cannot be had without dividing them.
    catalog = people({f"u{n}": {1: 0, 2: 1} for n in range(4)} | {"v": {0: 2, 3: 3}})
    split = make_split(catalog, SplitConfig(validation_fraction=0.3, test_fraction=0.1))
    assert split.cut_times == (2, 3)
    assert places(split)["validation"] == [(n, 1) for n in range(4)]
    assert places(split)["test"] == [(4, 1)]


def test_train_pairs_are_every_training_position_with_a_history(people):
    users, positions = make_split(people(TIMED), FIFTHS).train_positions()
    assert list(zip(users, positions, strict=True)) == [(0, 1), (1, 1), (1, 2)]
    assert users.dtype == positions.dtype == np.int32


def test_train_pairs_may_be_empty(people):
    split = make_split(people({"a": {1: 0, 2: 1, 3: 2}}), LAST)
    assert [len(part) for part in split.train_positions()] == [0, 0]


def test_targets_have_the_promised_types(people):
    split = make_split(people(TIMED), FIFTHS)
    for array in (split.train_end, split.test.users, split.test.positions):
        assert array.dtype == np.int32
    assert split.warm_items.dtype == np.bool_
    assert split.warm_items.shape == (10,)


def test_the_description_tells_the_rule_the_cuts_and_the_counts(people):
    about = make_split(people(TIMED), FIFTHS).describe()
    assert about["kind"] == "global-time"
    assert about["cut_times"] == [6, 8]
    assert (about["train_interactions"], about["validation_targets"], about["test_targets"]) == (
        6,
        1,
        1,
    )
    assert (about["warm_items"], about["cold_items"]) == (3, 7)
    assert about["cold_fraction_validation"] == 1.0


def test_the_hash_is_of_what_is_held_out(people):
    catalog = people(TIMED)
    first = make_split(catalog, FIFTHS).hash
    near = replace(FIFTHS, validation_fraction=0.21, test_fraction=0.19)  # the same cuts
    assert make_split(catalog, near).hash == first
    others = {make_split(catalog, config).hash for config in (LAST, SplitConfig(repeats="mask"))}
    split = make_split(catalog, FIFTHS)
    moved = Targets(split.test.users, split.test.positions - 1)
    others.add(replace(split, test=moved).hash)
    # Without a needed history only one test target more is held out.
    others.add(make_split(catalog, replace(FIFTHS, min_history=0)).hash)
    assert len(others | {first}) == 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(kind="leave-one-in"), r"'leave-one-in' is unknown.*'leave-one-out'"),  # pyright: ignore
        (SplitConfig(validation_fraction=0.6, test_fraction=0.4), r"0\.6 and test_fraction 0\.4"),
        (SplitConfig(test_fraction=0), r"must be above 0"),
        (SplitConfig(validation_fraction=-0.1), r"must be above 0"),
        (SplitConfig(min_history=-1), r"min_history is -1"),
    ],
)
def test_impossible_settings_are_refused(people, config, message):
    with pytest.raises(VitrineError, match=message):
        make_split(people(TIMED), config)


def test_global_time_needs_moments(people):
    with pytest.raises(VitrineError, match=r"no dates.*leave-one-out"):
        make_split(people(TIMED, time="position"), SplitConfig())
    with pytest.raises(VitrineError, match=r"2 distinct times.*three.*leave-one-out"):
        make_split(people({"a": {1: 0, 2: 1}, "b": {1: 1}}), SplitConfig())


RANDOM = SplitConfig(kind="random", validation_fraction=0.2, test_fraction=0.2)
GIVEN = SplitConfig(kind="given")
TOLD = {"train": [0, 1, 5], "validation": [3], "test": [2, 4]}
"""Part → places in the one history of `told`; what is held out lies among what is learned from."""


@pytest.fixture
def told(world):
    """One person's six interactions, the part of each in a column; `names` may call it otherwise."""

    def build(names: dict[str, str | None] | None = None, **config: Any) -> Catalog:
        part_of = {place: part for part, places in TOLD.items() for place in places}
        rows = [
            {
                "user_id": "a",
                "item_id": str(place),
                "timestamp": place,
                "review": f"said of {place}",
                "split": (names or {}).get(part_of[place], part_of[place]),
            }
            for place in range(6)
        ]
        return world(ITEMS, rows, **config)

    return build


def test_a_given_split_reads_the_training_part_in_the_order_of_time_and_then_its_targets(told):
    catalog = reorder_histories(told(), GIVEN)
    split = make_split(catalog, GIVEN)
    interactions = catalog.interactions
    assert interactions.history(0).tolist() == [0, 1, 5, 3, 2, 4]
    assert interactions.times.tolist() == [0, 1, 5, 3, 2, 4]
    assert interactions.reviews is not None
    assert list(interactions.reviews) == [f"said of {place}" for place in (0, 1, 5, 3, 2, 4)]
    both = [(0, 4), (0, 5)]
    assert places(split) == {"train_end": [3], "validation": [(0, 3)], "test": both}
    assert split.test.first_per_user().positions.tolist() == [4]
    for targets in (split.validation, split.test):
        for place in range(len(targets)):
            assert targets.history(interactions, place).tolist() == TOLD["train"]
    assert split.describe()["kind"] == "given"


def test_an_item_taken_twice_in_a_part_is_one_target(world):
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
def test_parts_are_known_by_their_usual_names(told, names):
    split = make_split(reorder_histories(told(names), GIVEN), GIVEN)
    assert places(split) == {
        "train_end": [3],
        "validation": [(0, 3)],
        "test": [(0, 4), (0, 5)],
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"test": "tset"}, r"split column of shop says 'tset' in the first of 2 rows; write train"),
        ({"validation": None}, r"split column of shop says nothing in the first of 1 rows"),
        ({"test": "train"}, r"split column of shop says test nowhere"),
        ({"train": "test"}, r"split column of shop says train nowhere"),
    ],
)
def test_a_column_that_says_something_else_is_refused_when_it_is_asked(told, names, message):
    catalog = told(names)  # other splits do not mind
    make_split(catalog, LAST)
    with pytest.raises(VitrineError, match=message):
        reorder_histories(catalog, GIVEN)


def test_a_given_split_needs_its_column(people):
    with pytest.raises(VitrineError, match=r"no column that says their part; add a column split"):
        reorder_histories(people(TIMED), GIVEN)


def test_the_parts_may_lie_in_files_of_their_own(told, world):
    one = told()
    _, expected = load_split(CatalogConfig(str(one.folder)), GIVEN)
    lines = (one.folder / "interactions.jsonl").read_text().splitlines()
    (one.folder / "interactions.jsonl").unlink()
    for part in TOLD:
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


def test_the_check_tells_a_split_column_that_says_something_else(told):
    report = check_catalog(CatalogConfig(str(told({"test": "tset"}).folder)))
    assert "given split" not in report.facts
    assert any("'tset'" in finding.what for finding in report.findings)


def test_a_random_split_deals_by_the_shares_and_the_seed(people):
    catalog = people(
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


def test_a_random_split_is_known_by_what_is_held_out_though_positions_are_the_same(people):
    catalog = people({"a": dict(enumerate(range(3))), "b": dict(enumerate(range(3)))})
    hashes, positions = set(), set()
    for seed in range(6):
        config = replace(RANDOM, seed=seed)
        split = make_split(reorder_histories(catalog, config), config)
        hashes.add(split.hash)
        positions.add(str(places(split)))
    assert len(positions) == 1
    assert len(hashes) > 3


@pytest.mark.parametrize("shares", [(0.6, 0.4), (0, 0.1), (0.1, 0)])
def test_impossible_shares_of_a_random_split_are_refused(people, shares):
    with pytest.raises(VitrineError, match="must be above 0 and sum to less"):
        reorder_histories(people(TIMED), SplitConfig("random", *shares))


def test_positions_are_never_read_in_another_order_than_theirs(people):
    catalog = people(TIMED)
    with pytest.raises(ValueError, match="not arranged for it"):
        make_split(catalog, RANDOM)
    with pytest.raises(ValueError, match="not arranged for it"):
        make_split(reorder_histories(catalog, RANDOM), replace(RANDOM, seed=1))
    with pytest.raises(ValueError, match="not arranged for it"):
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
    kind=st.sampled_from(["random", "given", "leave-one-out", "global-time"]),
    seed=st.integers(0, 99),
    min_history=st.integers(0, 3),
)
def test_what_is_held_out_is_in_no_training_row_and_no_history(
    lengths, dealt, kind, seed, min_history
):
    """Every interaction is of an item of its own, so an item seen twice is an interaction leaked."""
    if sum(lengths) < 2 or (kind == "global-time" and max(lengths) < 3):
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
            said = np.array(shop.interactions.split_labels.to_pylist())  # pyright: ignore
            assert sorted(learned.tolist()) == np.flatnonzero(said == "train").tolist()
            for name, items in wanted.items():
                assert (said[items] == name).all()


def test_what_was_seen_is_known_however_histories_are_arranged(people):
    # Without moments the count of earlier copies tells one from another, in the order of time.
    histories = {f"u{n}": {moment: moment % 3 for moment in range(8)} for n in range(5)}
    catalog = people(histories, time="position")
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
