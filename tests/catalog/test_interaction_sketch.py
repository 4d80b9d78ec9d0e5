"""What was trained on is known again, whatever the export; what was not is not, nor is another shop."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import catalog.interaction_sketch
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.interaction_sketch import InteractionSketch, canonical_id
from catalog.splits import Split, make_split, target_rows
from tests.catalog.test_real_data import config_of

LEAVE_ONE_OUT = SplitConfig(kind="leave-one-out", repeats="mask")
Rows = list[dict[str, Any]]
ITEMS: Rows = [{"item_id": f"i{n}", "title": f"Thing {n}"} for n in range(40)]


def histories(seed: int, num_users: int, num_items: int = 40, length: int = 6) -> Rows:
    """In the order of time, which is seconds of 2023."""
    rng = np.random.default_rng(seed)
    return [
        {
            "user_id": f"u{user}",
            "item_id": f"i{rng.integers(num_items)}",
            "timestamp": 1_700_000_000 + 1000 * time + user,
        }
        for time in range(length)
        for user in range(num_users)
    ]


def counts(sketch: InteractionSketch, shop: Catalog, split: Split) -> tuple[int, int]:
    """How many test targets are decidable, and how many of them were seen."""
    decidable, seen = sketch.check(shop, target_rows(shop.interactions, split.test))
    assert not (seen & ~decidable).any()
    return int(decidable.sum()), int(seen.sum())


def sketch_of(shop: Catalog, everything: bool = False) -> InteractionSketch:
    """Of a leave-one-out split's training part, or of all, as one who trained on the targets has it."""
    split = make_split(shop, LEAVE_ONE_OUT)
    if everything:
        split = replace(split, train_end=np.diff(shop.interactions.offsets).astype(np.int32))
    return InteractionSketch.training(shop, split)


def as_positions(rows: Rows) -> Rows:
    return [
        {name: value for name, value in row.items() if name != "timestamp"}
        | {"position": row["timestamp"] // 1000}
        for row in rows
    ]


def untimed(rows: Rows) -> Rows:
    return [{name: row[name] for name in ("user_id", "item_id")} for row in rows]


@pytest.mark.parametrize("transform", [list, as_positions, untimed])
def test_the_same_split_shows_no_target_and_a_later_one_does(
    world, transform: Callable[[Rows], Rows]
) -> None:
    shop = world(ITEMS, transform(histories(0, 30)))
    split = make_split(shop, LEAVE_ONE_OUT)
    assert counts(InteractionSketch.training(shop, split), shop, split) == (30, 0)
    split.train_end[:10] += 2  # these users' targets were trained on
    assert counts(InteractionSketch.training(shop, split), shop, split) == (30, 10)


def test_duplicate_items_are_not_identified_by_content(world) -> None:
    items = [*ITEMS, {"item_id": "again", "title": "Thing 0"}]
    rows = histories(0, 30)
    moment = rows[-1]["timestamp"] + 1000
    rows += [
        {"user_id": "u3", "item_id": item, "timestamp": moment} for item in ("i0", "i1", "again")
    ]
    shop = world(items, rows)
    split = make_split(shop, LEAVE_ONE_OUT)
    assert counts(InteractionSketch.training(shop, split), shop, split) == (30, 0)
    split.train_end[3] += 2
    assert counts(InteractionSketch.training(shop, split), shop, split) == (30, 1)


EXPORTS: dict[str, Callable[[Rows, Rows], tuple[Rows, Rows]]] = {
    "as it was": lambda items, rows: (items, rows),
    "milliseconds": lambda items, rows: (
        items,
        [row | {"timestamp": row["timestamp"] * 1000} for row in rows],
    ),
    "dates": lambda items, rows: (
        items,
        [row | {"timestamp": f"{np.datetime64(row['timestamp'], 's')}Z"} for row in rows],
    ),
    "no times": lambda items, rows: (items, untimed(rows)),
    "positions": lambda items, rows: (items, as_positions(rows)),
    "another order": lambda items, rows: (
        items[::-1],
        sorted(rows, key=lambda row: (row["user_id"][::-1], row["timestamp"])),
    ),
    "rows dropped": lambda items, rows: (
        items,
        [row for number, row in enumerate(rows) if number % 20 or number > 120],
    ),
    "rows dropped, milliseconds": lambda items, rows: (
        items,
        [
            row | {"timestamp": row["timestamp"] * 1000}
            for number, row in enumerate(rows)
            if number % 7
        ],
    ),
    "one row dropped, no times": lambda items, rows: (items, untimed(rows[1:])),
    "other ids of items": lambda items, rows: (
        [item | {"item_id": f"sku-{item['item_id'][::-1]}"} for item in items],
        [row | {"item_id": f"sku-{row['item_id'][::-1]}"} for row in rows],
    ),
    "other titles": lambda items, rows: (
        [item | {"title": f"Ding {item['item_id']}"} for item in items],
        rows,
    ),
    "titles cleaned": lambda items, rows: (
        [item | {"title": f" {item['title'].upper()}! "} for item in items],
        rows,
    ),
}


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("transform", [list, untimed])
def test_every_target_that_was_trained_on_is_found_in_another_export(
    world, how: str, transform: Callable[[Rows], Rows]
) -> None:
    rows = histories(1, 30)
    known = world(ITEMS, transform(rows))
    trained, clean = sketch_of(known, everything=True), sketch_of(known)
    items, rows = EXPORTS[how](ITEMS, rows)
    shop = world(items, rows)
    split = make_split(shop, LEAVE_ONE_OUT)
    assert counts(trained, shop, split) == (30, 30)
    decidable, seen = counts(clean, shop, split)
    assert decidable == 30
    # Where times are no moments, a second purchase whose first was dropped looks like the first.
    assert seen <= (4 if "dropped" in how and (transform is untimed or "no times" in how) else 0)


@pytest.mark.parametrize("ticks", [1, 1000, 1_000_000_000])
def test_moments_tell_repeats_apart_in_any_unit(world, ticks: int) -> None:
    """Of ten items everybody takes some twice, and the first of a pair may be missing now."""
    rows = histories(1, 60, num_items=10)
    known = world(ITEMS, rows)
    trained, clean = sketch_of(known, everything=True), sketch_of(known)
    rescaled = [row | {"timestamp": row["timestamp"] * ticks} for row in rows]
    shop = world(ITEMS, [row for number, row in enumerate(rescaled) if number % 7])
    split = make_split(shop, replace(LEAVE_ONE_OUT, repeats="rank"))
    rows_of_test = target_rows(shop.interactions, split.test)
    last = shop.interactions.times[rows_of_test] // ticks >= 1_700_000_000 + 4000
    assert counts(trained, shop, split) == (60, 60)
    assert counts(clean, shop, split) == (60, int((~last).sum()))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_are_one_whatever_type_they_have(tmp_path: Path, suffix: str) -> None:
    def write(folder: Path, suffix: str, identity: Callable[[int], Any]) -> Catalog:
        folder.mkdir()
        rng = np.random.default_rng(5)
        tables = {
            "items": [{"item_id": identity(n), "title": f"Thing {n}"} for n in range(40)],
            "interactions": [
                {"user_id": identity(u), "item_id": identity(int(rng.integers(40))), "position": t}
                for u in range(30)
                for t in range(6)
            ],
        }
        for name, rows in tables.items():
            if suffix == "parquet":
                pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
                continue
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        return load_catalog(CatalogConfig(str(folder)))

    trained = sketch_of(write(tmp_path / "one", "csv", lambda n: f"{n:04}"), everything=True)
    for name, identity in (("int", int), ("text", str), ("float", float)):
        shop = write(tmp_path / name, suffix, identity)
        assert counts(trained, shop, make_split(shop, LEAVE_ONE_OUT)) == (30, 30)
    assert canonical_id("-007.0") == "-7"
    assert canonical_id("1.50") == "1.50"
    assert canonical_id("A994") == "A994"


def test_another_shop_that_counts_alike_is_another_shop(world) -> None:
    """Ids are small numbers in both, given out as users came: triples coincide, what items say does not."""

    def counted(seed: int, name: str) -> Catalog:
        rng = np.random.default_rng(seed)
        ids: dict[int, int] = {}
        rows = [
            {"user_id": user, "item_id": ids.setdefault(int(item), len(ids)), "position": place}
            for user in range(200)
            for place, item in enumerate(rng.permutation(4000)[: rng.integers(3, 9)])
        ]
        return world([{"item_id": n, "title": f"{name} {n}"} for n in range(len(ids))], rows)

    known = sketch_of(counted(1, "Lamp"), everything=True)
    by_chance = 0
    for seed in range(2, 6):
        shop = counted(seed, "Soap")
        split = make_split(shop, LEAVE_ONE_OUT)
        places = target_rows(shop.interactions, split.test)
        hashes = catalog.interaction_sketch.interaction_hashes(shop, places).reshape(2, -1)["hash"][
            0
        ]
        by_chance += int(np.isin(hashes, known.entries["hash"]).sum())
        assert counts(known, shop, split) == (len(split.test), 0)
    assert by_chance > 20


def test_two_countries_of_one_shop_share_items_and_no_user(world) -> None:
    """The same items and ids of users, but not the same users: what coincides, coincides by chance."""
    first, second = histories(3, 400), histories(4, 400)
    known = sketch_of(world(ITEMS, first), everything=True)
    shop = world(ITEMS, [row | {"timestamp": row["timestamp"] + 7} for row in second])
    split = make_split(shop, LEAVE_ONE_OUT)
    assert counts(known, shop, split) == (400, 0)


def test_items_without_content_are_identified_by_the_fraction_that_matches(world) -> None:
    dumb = [{"item_id": item["item_id"], "weight": 3} for item in ITEMS]
    known = sketch_of(world(dumb, histories(5, 60)), everything=True)
    shop = world(dumb, untimed(histories(5, 60)[7:]))
    assert counts(known, shop, make_split(shop, LEAVE_ONE_OUT)) == (60, 60)
    shop = world(dumb, histories(6, 60))
    assert counts(known, shop, make_split(shop, LEAVE_ONE_OUT)) == (60, 0)


def test_the_sketch_of_an_untrained_model_is_empty(world, tmp_path: Path) -> None:
    shop = world(ITEMS, histories(7, 30))
    InteractionSketch.empty().save(tmp_path)
    split = make_split(shop, LEAVE_ONE_OUT)
    assert counts(InteractionSketch.load(tmp_path), shop, split) == (30, 0)


def test_a_sketch_decides_a_share_and_is_never_wrong(world, monkeypatch) -> None:
    monkeypatch.setattr(catalog.interaction_sketch, "SKETCH_SIZE", 200)
    monkeypatch.setattr(catalog.interaction_sketch, "CHUNK", 37)
    shop = world(ITEMS, histories(2, 300))
    sketch = sketch_of(shop)
    assert len(np.unique(sketch.entries["hash"])) == 2 * 200
    decidable, seen = sketch.check(shop, np.arange(len(shop.interactions)))
    positions = np.arange(len(shop.interactions)) % 6
    np.testing.assert_array_equal(seen[decidable], (positions < 4)[decidable])
    by_id, by_content = 200 * 6 / 4, 200 * 6 / 4
    assert decidable.sum() == pytest.approx(by_id + by_content, rel=0.25)


@pytest.mark.slow
def test_real_shops_are_distinguished_and_recognised() -> None:
    """False alarms: targets of another shop called seen; detection: those trained on that are found."""
    shops = {name: load_catalog(config_of(name)) for name in ("office", "beauty", "toys")}
    splits = {name: make_split(shop, LEAVE_ONE_OUT) for name, shop in shops.items()}
    for name, shop in shops.items():
        trained, clean = sketch_of(shop, everything=True), sketch_of(shop)
        for other, split in splits.items():
            decidable, seen = counts(trained, shops[other], split)
            assert seen == (decidable if other == name else 0), (name, other)
            assert counts(clean, shops[other], split)[1] == 0
            assert decidable > 0.2 * len(split.test)
