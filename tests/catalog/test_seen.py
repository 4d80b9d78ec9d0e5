"""What was trained on is known again, whatever the export; what was not is not."""

from pathlib import Path

import numpy as np
import pytest

import catalog.seen
from catalog.config import SplitConfig
from catalog.seen import Seen, interaction_marks
from catalog.splits import make_split, target_rows

LEAVE_ONE_OUT = SplitConfig(kind="leave-one-out")


def histories(seed: int, num_users: int, num_items: int = 40) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"user_id": f"u{user}", "item_id": f"i{rng.integers(num_items)}", "timestamp": 100 * time}
        for user in range(num_users)
        for time in range(6)
    ]


ITEMS = [{"item_id": f"i{n}", "title": f"Thing {n}"} for n in range(40)]


def told_of_test(seen: Seen, shop, split) -> tuple[int, int]:
    told, found = seen.checked(interaction_marks(shop, target_rows(shop.interactions, split.test)))
    return int(told.sum()), int(found.sum())


@pytest.mark.parametrize("time", ["timestamp", "position"])
def test_the_same_split_shows_no_target_and_a_later_one_does(world, time: str) -> None:
    rows = [
        {"user_id": row["user_id"], "item_id": row["item_id"], time: row["timestamp"]}
        for row in histories(0, 30)
    ]
    shop = world(ITEMS, rows)
    split = make_split(shop, LEAVE_ONE_OUT)
    seen = Seen.training(shop, split)
    assert told_of_test(seen, shop, split) == (30, 0)
    split.train_end[:10] += 2  # these people's targets were trained on
    assert told_of_test(Seen.training(shop, split), shop, split) == (30, 10)


def test_another_export_of_the_shop_is_recognised(world, tmp_path: Path) -> None:
    rows = histories(1, 30)
    shop = world(ITEMS, rows)
    Seen.training(shop, make_split(shop, LEAVE_ONE_OUT)).save(tmp_path)
    cut = [row for row in reversed(rows) if row["timestamp"] < 500 and row["user_id"] != "u3"]
    again = world(ITEMS[::-1], cut)
    split = make_split(again, LEAVE_ONE_OUT)
    # Time 500 was the test target and 400 the validation target; neither was trained on.
    assert told_of_test(Seen.load(tmp_path), again, split) == (29, 0)
    earlier = [row for row in cut if row["timestamp"] < 400]
    # Now 300 is held out, which was.
    shorter = world(ITEMS, earlier)
    assert told_of_test(Seen.load(tmp_path), shorter, make_split(shorter, LEAVE_ONE_OUT)) == (
        29,
        29,
    )


def test_a_sketch_tells_of_a_share_and_is_never_wrong(world, monkeypatch) -> None:
    monkeypatch.setattr(catalog.seen, "KEPT", 200)
    monkeypatch.setattr(catalog.seen, "CHUNK", 37)
    shop = world(ITEMS, histories(2, 300))
    split = make_split(shop, LEAVE_ONE_OUT)
    everything = interaction_marks(shop, np.arange(len(shop.interactions)))
    assert len(np.unique(everything)) == len(everything)
    seen = Seen.training(shop, split)
    assert len(seen.marks) == 200
    told, found = seen.checked(everything)
    positions = np.arange(len(everything)) % 6
    np.testing.assert_array_equal(found[told], (positions < 4)[told])
    assert told.sum() == pytest.approx(200 * 6 / 4, rel=0.25)
