"""Writes the demo world into a folder: two shops in different formats, and their ground truth."""

import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from catalog.atomic_write import replace_folder, stage_folder
from catalog.demo.random_stream import RandomStream
from catalog.demo.render import SIZE, render_item
from catalog.demo.style import CATEGORIES, DOMAINS, PALETTES
from catalog.demo.texts import write_review, write_title_and_description
from catalog.demo.world import (
    Item,
    Purchase,
    User,
    make_items,
    make_purchases,
    make_users,
)
from catalog.errors import VitrineError

VERSION = 2
"""Increased when the same request gives another world, so that existing worlds are built again."""
FEWEST_ITEMS = 60
"""Minimum number of items: with fewer, a user could run out of items that are already for sale."""
GROUND_TRUTH = "ground_truth"
REQUEST_FILE = f"{GROUND_TRUTH}/world.json"
"""Seed and sizes that the world was built from; written last."""

Row = dict[str, str | float | int | None]


def build_demo_world(
    folder: Path, seed: int = 0, num_items: int = 2000, num_users: int = 3000
) -> Path:
    """Writes `home/`, `wardrobe/` and `ground_truth/` below `folder` and returns `folder`.

    `num_items` is the number of items of each shop. The world is written beside `folder` and renamed at the
    end, so a kill leaves no partial world; an existing world of the same request is not changed, one of
    another request is replaced. Raises VitrineError for sizes that are too small and for a folder with
    other content.
    """
    folder = Path(folder)
    if num_items < FEWEST_ITEMS or num_users < 1:
        raise VitrineError(
            f"a demo world of {num_items} items and {num_users} users is too small; "
            f"give at least {FEWEST_ITEMS} items and 1 user."
        )
    request = _request(seed, num_items, num_users)
    if _read_request(folder) == request:
        return folder
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not _read_request(folder)
    ):
        raise VitrineError(
            f"{folder} holds something that is no demo world; choose a new or an empty folder."
        )
    with stage_folder(folder) as staging:
        users = make_users(seed, num_users)
        shops = {domain: make_items(seed, domain, num_items) for domain in DOMAINS}
        for domain, items in shops.items():
            _write_shop(staging, domain, seed, users, items)
        _write_ground_truth(staging / GROUND_TRUTH, users, shops)
        (staging / REQUEST_FILE).write_text(json.dumps(request) + "\n", encoding="utf8")
    if _read_request(folder) == request:  # another process was faster; it may be in use already
        shutil.rmtree(staging)
        return folder
    try:
        replace_folder(staging, folder, REQUEST_FILE)
    except OSError:
        # Another process built the same world at this very moment; either will do.
        shutil.rmtree(staging, ignore_errors=True)
        if _read_request(folder) != request:
            raise
    return folder


def is_built(folder: Path, seed: int = 0, num_items: int = 2000, num_users: int = 3000) -> bool:
    """Whether `folder` holds the world that `build_demo_world` writes for this request."""
    return _read_request(Path(folder)) == _request(seed, num_items, num_users)


def _request(seed: int, num_items: int, num_users: int) -> dict[str, int]:
    return {"version": VERSION, "seed": seed, "items": num_items, "users": num_users}


def _read_request(folder: Path) -> dict[str, int] | None:
    try:
        return json.loads((folder / REQUEST_FILE).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None


def _write_shop(
    staging: Path, domain: str, seed: int, users: list[User], items: list[Item]
) -> None:
    folder = staging / domain
    (folder / "images").mkdir(parents=True)
    silhouettes = np.zeros((len(items), SIZE, SIZE), np.bool_)
    for place, item in enumerate(items):
        if item.has_picture:
            picture, silhouettes[place] = render_item(item, seed)
            Image.fromarray(picture).save(_picture_path(folder, item), compress_level=6)
    purchases = make_purchases(seed, domain, users, items)
    rows = [_item_row(item, seed) for item in items]
    log = _log_rows(seed, domain, users, items, purchases)
    _break_some(folder, RandomStream(seed, f"breakage/{domain}"), items, rows)
    _repeat_some(RandomStream(seed, f"repeats/{domain}"), log)
    if domain == "home":
        pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
        pq.write_table(pa.Table.from_pylist(log), folder / "interactions.parquet")
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "items.jsonl").write_text(lines, encoding="utf8")
        with (folder / "interactions.tsv").open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(file, list(log[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(log)
    (staging / GROUND_TRUTH).mkdir(exist_ok=True)
    np.save(staging / GROUND_TRUTH / f"silhouettes_{domain}.npy", np.packbits(silhouettes, axis=2))


def _picture_path(folder: Path, item: Item) -> Path:
    return folder / "images" / f"{item.item_id}.png"


def _item_row(item: Item, seed: int) -> Row:
    title, description = write_title_and_description(item, seed) if item.has_text else (None, None)
    return {
        "item_id": item.item_id,
        "title": title,
        "description": description,
        "category": CATEGORIES[item.domain][item.category],
        "price": item.price,
        "image": f"images/{item.item_id}.png" if item.has_picture else None,
    }


def _log_rows(
    seed: int, domain: str, users: list[User], items: list[Item], purchases: list[Purchase]
) -> list[Row]:
    rng = RandomStream(seed, f"reviews/{domain}")
    rows: list[Row] = []
    for purchase in purchases:
        user = users[purchase.user]
        item = items[purchase.item]
        rows.append(
            {
                "user_id": user.user_id,
                "item_id": item.item_id,
                "timestamp": purchase.time,
                "review": write_review(item, user.aspect, rng) if rng.chance(50) else None,
            }
        )
    return rows


def _break_some(folder: Path, rng: RandomStream, items: list[Item], rows: list[Row]) -> None:
    """Damages some items as in real catalogs: truncated, missing and empty image files, blank titles."""
    pictured = rng.some_of([item for item in items if item.has_picture], 6)
    for place, item in enumerate(pictured):
        path = _picture_path(folder, item)
        if place < 3:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif place < 5:
            path.unlink()
        else:
            path.write_bytes(b"")
    for row in rng.some_of([row for row in rows if row["title"]], 3):
        row["title"] = "  "


def _repeat_some(rng: RandomStream, log: list[Row]) -> None:
    """Repeats five rows, as after a retried request."""
    for place in sorted(rng.some_of(range(len(log)), 5), reverse=True):
        log.insert(place, dict(log[place]))


def _write_ground_truth(folder: Path, users: list[User], shops: dict[str, list[Item]]) -> None:
    rows = [asdict(user) for user in users]
    pq.write_table(pa.Table.from_pylist(rows), folder / "users.parquet")
    items = [asdict(item) for shop in shops.values() for item in shop]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    palettes = json.dumps([asdict(palette) for palette in PALETTES], indent=1)
    (folder / "palettes.json").write_text(palettes + "\n", encoding="utf8")
