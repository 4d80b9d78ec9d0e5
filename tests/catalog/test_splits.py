"""Every split on histories small enough to split by hand, and what none may ever do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog import cut_times
from catalog import interactions as interactions_module
from catalog.config import SplitConfig
from catalog.errors import VitrineError
from catalog.reorder import reorder_histories
from catalog.splits import (
    Split,
    Targets,
    make_split,
)

ITEMS = [{"item_id": str(n)} for n in range(10)]


def places(split: Split) -> dict[str, Any]:
    return {
        "train_end": split.train_end.tolist(),
        "validation": list(zip(split.validation.users, split.validation.positions, strict=True)),
        "test": list(zip(split.test.users, split.test.positions, strict=True)),
    }


LAST = SplitConfig(kind="leave-one-out")


def test_leave_one_out_holds_out_the_last_two(catalog_of):
    catalog = catalog_of(
        {"a": {1: 0, 2: 1, 3: 2, 4: 3}, "b": {1: 4, 2: 5}, "c": {1: 6, 2: 7, 3: 8}}
    )
    split = make_split(catalog, LAST)
    assert places(split) == {
        "train_end": [2, 2, 1],
        "validation": [(0, 2), (2, 1)],
        "test": [(0, 3), (2, 2)],
    }
    assert split.warm_items.tolist() == [n in (0, 1, 4, 5, 6) for n in range(10)]
    assert split.train_counts.sum() == 5
    assert split.cold_fractions == {"validation": 1.0, "test": 1.0}


def test_a_target_bought_once_in_training_is_not_cold(catalog_of):
    catalog = catalog_of({"a": {1: 0, 2: 1, 3: 2}, "b": {1: 1, 2: 3, 3: 0}})
    assert make_split(catalog, LAST).cold_fractions == {"validation": 0.5, "test": 0.5}


def test_leave_one_out_requires_min_history(catalog_of):
    catalog = catalog_of({"a": {1: 0, 2: 1, 3: 2}, "b": {1: 0, 2: 1, 3: 2, 4: 3}})
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


def test_a_temporal_split_cuts_all_histories_at_the_same_times(catalog_of):
    split = make_split(catalog_of(TIMED), FIFTHS)
    assert split.cut_times == (6, 8)
    assert places(split) == {"train_end": [2, 3, 1, 0], "validation": [(0, 2)], "test": [(0, 4)]}
    assert split.cold_fractions == {"validation": 1.0, "test": 0.0}


def test_a_temporal_split_without_min_history_keeps_users_without_one(catalog_of):
    config = replace(FIFTHS, min_history=0)
    assert places(make_split(catalog_of(TIMED), config))["test"] == [(0, 4), (3, 0)]


def test_a_temporal_split_requires_min_history(catalog_of):
    config = replace(FIFTHS, min_history=3)
    got = places(make_split(catalog_of(TIMED), config))
    assert got == {"train_end": [2, 3, 1, 0], "validation": [], "test": [(0, 4)]}


REPEATING = {
    "a": {1: 0, 2: 1, 3: 0, 4: 1},
    "b": {1: 2, 2: 3, 3: 4, 4: 2},
    "c": {1: 5, 2: 6, 3: 5, 4: 7},
}


def test_repeated_targets_follow_the_repeats_setting(catalog_of):
    catalog = catalog_of(REPEATING)
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


def test_a_split_of_nothing_but_repeats_names_the_other_protocols(catalog_of):
    catalog = catalog_of({"a": {1: 0, 2: 1, 3: 0}, "b": {1: 2, 2: 3, 3: 2}})
    with pytest.raises(
        VitrineError, match=r"all 2 test targets .* set split\.repeats: rank, or mask"
    ):
        make_split(catalog, LAST)
    with pytest.raises(VitrineError, match=r"split\.repeats 'rnk' is unknown.*'rank'"):
        make_split(catalog, replace(LAST, repeats="rnk"))


def test_no_training_interaction_is_later_than_any_target(catalog_of):
    rng = np.random.default_rng(0)
    catalog = catalog_of(
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


def test_one_moment_is_never_divided(catalog_of):
    # Half of all interactions happen at 2; 10 % cannot be had without dividing them.
    catalog = catalog_of({f"u{n}": {1: 0, 2: 1} for n in range(4)} | {"v": {0: 2, 3: 3}})
    split = make_split(catalog, SplitConfig(validation_fraction=0.3, test_fraction=0.1))
    assert split.cut_times == (2, 3)
    assert places(split)["validation"] == [(n, 1) for n in range(4)]
    assert places(split)["test"] == [(4, 1)]


def test_cut_times_have_the_nearest_shares_of_interactions_after_them(
    catalog_of, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cut_times, "CHUNK", 7)
    rng = np.random.default_rng(0)
    for _ in range(30):
        times = np.sort(rng.integers(-5, rng.integers(0, 60), 40))
        catalog = catalog_of({f"u{n}": {int(time): n % 10} for n, time in enumerate(times)})
        validation, test = rng.uniform(0.02, 0.45, 2)
        distinct = np.unique(times)
        after = np.array([np.mean(times >= time) for time in distinct])
        second = 2 + int(np.argmin(np.abs(after[2:] - test)))
        first = 1 + int(np.argmin(np.abs(after[1:second] - test - validation)))
        config = SplitConfig(validation_fraction=validation, test_fraction=test)
        assert make_split(catalog, config).cut_times == (distinct[first], distinct[second])


@pytest.mark.parametrize("kind", ["temporal", "leave-one-out", "random"])
@pytest.mark.parametrize("repeats", ["drop", "rank"])
def test_a_split_is_the_same_whatever_the_number_of_interactions_looked_at_together(
    catalog_of, monkeypatch: pytest.MonkeyPatch, kind: str, repeats: str
):
    rng = np.random.default_rng(1)
    catalog = catalog_of(
        {
            f"u{n}": {int(t): int(rng.integers(10)) for t in rng.integers(0, 99, n)}
            for n in range(20)
        }
    )
    config = SplitConfig(kind=kind, repeats=repeats)
    whole = make_split(reorder_histories(catalog, config), config)
    assert whole.num_repeated["validation"] + whole.num_repeated["test"] > 0
    for chunk in (1, 5, 30):
        monkeypatch.setattr(interactions_module, "CHUNK", chunk)
        monkeypatch.setattr(cut_times, "CHUNK", chunk)
        split = make_split(reorder_histories(catalog, config), config)
        assert split.describe() == whole.describe()
        assert split.train_counts.tolist() == whole.train_counts.tolist()


def test_train_pairs_are_every_training_position_with_a_history(catalog_of):
    users, positions = make_split(catalog_of(TIMED), FIFTHS).train_positions()
    assert list(zip(users, positions, strict=True)) == [(0, 1), (1, 1), (1, 2)]
    assert users.dtype == positions.dtype == np.int32


def test_train_pairs_may_be_empty(catalog_of):
    split = make_split(catalog_of({"a": {1: 0, 2: 1, 3: 2}}), LAST)
    assert [len(part) for part in split.train_positions()] == [0, 0]


def test_targets_have_the_promised_types(catalog_of):
    split = make_split(catalog_of(TIMED), FIFTHS)
    for array in (split.train_end, split.test.users, split.test.positions):
        assert array.dtype == np.int32
    assert split.warm_items.dtype == np.bool_
    assert split.warm_items.shape == (10,)


def test_the_description_has_the_rule_the_cut_times_and_the_counts(catalog_of):
    about = make_split(catalog_of(TIMED), FIFTHS).describe()
    assert about["kind"] == "temporal"
    assert about["cut_times"] == [6, 8]
    assert (about["train_interactions"], about["validation_targets"], about["test_targets"]) == (
        6,
        1,
        1,
    )
    assert (about["warm_items"], about["cold_items"]) == (3, 7)
    assert about["cold_fraction_validation"] == 1.0


def test_the_hash_is_of_what_is_held_out(catalog_of):
    catalog = catalog_of(TIMED)
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
def test_impossible_settings_are_refused(catalog_of, config, message):
    with pytest.raises(VitrineError, match=message):
        make_split(catalog_of(TIMED), config)


def test_a_temporal_split_needs_timestamps(catalog_of):
    with pytest.raises(VitrineError, match=r"no timestamps.*leave-one-out"):
        make_split(catalog_of(TIMED, time="position"), SplitConfig())
    with pytest.raises(VitrineError, match=r"2 distinct times.*three.*leave-one-out"):
        make_split(catalog_of({"a": {1: 0, 2: 1}, "b": {1: 1}}), SplitConfig())
