"""Writes the demo world into a folder: two shops in different formats, and the truth beside them."""

import csv
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from catalog.demo.dice import Dice
from catalog.demo.draw import SIZE, draw_item
from catalog.demo.style import CATEGORIES, DOMAINS, PALETTES
from catalog.demo.words import write_review, write_title_and_description
from catalog.demo.world import (
    Item,
    Person,
    Purchase,
    make_items,
    make_people,
    make_purchases,
)
from catalog.errors import VitrineError

VERSION = 1
"""Raised when the same request would give another world, so that an older one is built anew."""
FEWEST_ITEMS = 60
"""Below this a buyer could run out of items that are already for sale."""
SEAL = "truth/world.json"
"""What the world was built from; written last."""

Row = dict[str, str | float | int | None]


def build_demo_world(
    folder: Path, seed: int = 0, num_items: int = 2000, num_people: int = 3000
) -> Path:
    """Writes `home/`, `wardrobe/` and `truth/` below `folder` and returns `folder`.

    `num_items` counts each shop's items. All is written beside and renamed at the end, so a kill
    leaves no half world; a world of the same request is returned as it is, one of another request
    is replaced. Raises VitrineError for sizes too small and for a folder that holds other things.
    """
    folder = Path(folder)
    if num_items < FEWEST_ITEMS or num_people < 1:
        raise VitrineError(
            f"a demo world of {num_items} items and {num_people} people is too small; "
            f"ask for at least {FEWEST_ITEMS} items and 1 person."
        )
    request = _request(seed, num_items, num_people)
    if _read_seal(folder) == request:
        return folder
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not _read_seal(folder)):
        raise VitrineError(
            f"{folder} holds something that is no demo world; choose a new or an empty folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder)
    staging = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    people = make_people(seed, num_people)
    shops = {domain: make_items(seed, domain, num_items) for domain in DOMAINS}
    for domain, items in shops.items():
        _write_shop(staging, domain, seed, people, items)
    _write_truth(staging / "truth", people, shops)
    (staging / SEAL).write_text(json.dumps(request) + "\n", encoding="utf8")
    _put_in_place(staging, folder, request)
    return folder


def is_built(folder: Path, seed: int = 0, num_items: int = 2000, num_people: int = 3000) -> bool:
    """Whether `folder` holds the very world that `build_demo_world` would write for this request."""
    return _read_seal(Path(folder)) == _request(seed, num_items, num_people)


def _request(seed: int, num_items: int, num_people: int) -> dict[str, int]:
    return {"version": VERSION, "seed": seed, "items": num_items, "people": num_people}


def _read_seal(folder: Path) -> dict[str, int] | None:
    try:
        return json.loads((folder / SEAL).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None


def _clear_leftovers(folder: Path) -> None:
    """Removes what builds left behind that were killed; one still running keeps its own."""
    for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
        process = leftover.name.rpartition("-")[2]
        if process == str(os.getpid()) or not _is_alive(process):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _put_in_place(staging: Path, folder: Path, request: dict[str, int]) -> None:
    old = folder.with_name(f".{folder.name}.partial-old-{os.getpid()}")
    try:
        if _read_seal(folder) == request:  # another process was faster; it may be in use already
            shutil.rmtree(staging)
            return
        if _read_seal(folder):
            folder.rename(old)
        staging.rename(folder)
    except OSError:
        # Another process built the same world at this very moment; either will do.
        shutil.rmtree(staging, ignore_errors=True)
        if _read_seal(folder) != request:
            raise
    shutil.rmtree(old, ignore_errors=True)


def _write_shop(
    staging: Path, domain: str, seed: int, people: list[Person], items: list[Item]
) -> None:
    folder = staging / domain
    (folder / "images").mkdir(parents=True)
    silhouettes = np.zeros((len(items), SIZE, SIZE), np.bool_)
    for place, item in enumerate(items):
        if item.has_picture:
            picture, silhouettes[place] = draw_item(item, seed)
            Image.fromarray(picture).save(_picture_path(folder, item), compress_level=6)
    purchases = make_purchases(seed, domain, people, items)
    rows = [_item_row(item, seed) for item in items]
    log = _log_rows(seed, domain, people, items, purchases)
    _break_some(folder, Dice(seed, f"breakage/{domain}"), items, rows)
    _repeat_some(Dice(seed, f"repeats/{domain}"), log)
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
    (staging / "truth").mkdir(exist_ok=True)
    np.save(staging / "truth" / f"silhouettes_{domain}.npy", np.packbits(silhouettes, axis=2))


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
    seed: int, domain: str, people: list[Person], items: list[Item], purchases: list[Purchase]
) -> list[Row]:
    dice = Dice(seed, f"reviews/{domain}")
    rows: list[Row] = []
    for purchase in purchases:
        person = people[purchase.user]
        item = items[purchase.item]
        rows.append(
            {
                "user_id": person.user_id,
                "item_id": item.item_id,
                "timestamp": purchase.time,
                "review": write_review(item, person.aspect, dice) if dice.chance(50) else None,
            }
        )
    return rows


def _break_some(folder: Path, dice: Dice, items: list[Item], rows: list[Row]) -> None:
    """Real shops have such things: cut, lost and empty picture files, blank titles."""
    pictured = dice.some_of([item for item in items if item.has_picture], 6)
    for place, item in enumerate(pictured):
        path = _picture_path(folder, item)
        if place < 3:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif place < 5:
            path.unlink()
        else:
            path.write_bytes(b"")
    for row in dice.some_of([row for row in rows if row["title"]], 3):
        row["title"] = "  "


def _repeat_some(dice: Dice, log: list[Row]) -> None:
    """Five rows appear twice, as after a retried request."""
    for place in sorted(dice.some_of(range(len(log)), 5), reverse=True):
        log.insert(place, dict(log[place]))


def _write_truth(folder: Path, people: list[Person], shops: dict[str, list[Item]]) -> None:
    rows = [asdict(person) for person in people]
    pq.write_table(pa.Table.from_pylist(rows), folder / "people.parquet")
    items = [asdict(item) for shop in shops.values() for item in shop]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    palettes = json.dumps([asdict(palette) for palette in PALETTES], indent=1)
    (folder / "palettes.json").write_text(palettes + "\n", encoding="utf8")
