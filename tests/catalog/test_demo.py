"""The demo world is the same on every machine, is described correctly, and its ground truth stays apart."""

import hashlib
import json
import os
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest
from PIL import Image

from catalog.demo import DemoGroundTruth, build, build_demo_world
from catalog.demo.render import render_item
from catalog.demo.style import ASPECTS, CATEGORIES, DOMAINS, MATERIALS, MOODS, PALETTES
from catalog.demo.texts import write_title_and_description
from catalog.demo.world import (
    DAY,
    DAYS,
    LATE_DAY,
    START,
    make_items,
    make_purchases,
    make_users,
)
from catalog.errors import VitrineError

NUM_ITEMS, NUM_USERS = 60, 40
CONTENT = "8566dddc69d0302ca63de10190255cd1cdf3e06fca22fca9a53b7f1747e1a97e"
"""sha256 over the pixels and the tables' rows of the small world; a change of it is a new VERSION."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "world"
    return build_demo_world(folder, num_items=NUM_ITEMS, num_users=NUM_USERS)


def tables(world: Path, domain: str) -> tuple[list[dict], list[dict]]:
    if domain == "home":
        read = pa.parquet.read_table
        names = ("items.parquet", "interactions.parquet")
        items, interactions = (read(world / domain / name).to_pylist() for name in names)
    else:
        items = pa.json.read_json(world / domain / "items.jsonl").to_pylist()
        tabs = pa.csv.ParseOptions(delimiter="\t")
        interactions = pa.csv.read_csv(
            world / domain / "interactions.tsv", parse_options=tabs
        ).to_pylist()
    return items, interactions


def tree_hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def content_hash(world: Path) -> str:
    digest = hashlib.sha256()
    for domain in DOMAINS:
        for item in make_items(0, domain, NUM_ITEMS):
            if item.has_picture:
                digest.update(render_item(item, 0)[0].tobytes())
        for rows in tables(world, domain):
            for row in rows:
                values = {key: value or None for key, value in row.items()}
                digest.update(json.dumps(values, sort_keys=True).encode())
    return digest.hexdigest()


def test_two_builds_are_equal_to_the_byte(small: Path, tmp_path: Path) -> None:
    again = build_demo_world(tmp_path / "w", num_items=NUM_ITEMS, num_users=NUM_USERS)
    assert tree_hashes(again) == tree_hashes(small)
    other = build_demo_world(tmp_path / "v", 1, num_items=NUM_ITEMS, num_users=NUM_USERS)
    assert not set(tree_hashes(other).values()) & {
        hash for name, hash in tree_hashes(small).items() if name.endswith(("parquet", "jsonl"))
    }


def test_the_world_is_the_one_every_machine_builds(small: Path) -> None:
    assert content_hash(small) == CONTENT


def test_a_finished_world_is_left_as_it_is(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a finished world was made again")

    monkeypatch.setattr(build, "make_users", forbidden)
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert build_demo_world(small, num_items=NUM_ITEMS, num_users=NUM_USERS) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_of_two_builders_the_slower_keeps_the_first_ones_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*arguments: object) -> None:
        write_truth(*arguments)
        monkeypatch.setattr(build, "_write_ground_truth", write_truth)
        first = build_demo_world(tmp_path / "first", num_items=NUM_ITEMS, num_users=5)
        first.rename(tmp_path / "world")
        (tmp_path / "world" / "in use").touch()

    write_truth = build._write_ground_truth
    monkeypatch.setattr(build, "_write_ground_truth", overtaken)
    world = build_demo_world(tmp_path / "world", num_items=NUM_ITEMS, num_users=5)
    assert (world / "in use").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_killed_build_is_built_again(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    leftover = tmp_path / f".world.partial-{dead.pid}"
    (leftover / "home" / "images").mkdir(parents=True)
    running = tmp_path / f".world.partial-{os.getppid()}"
    running.mkdir()
    world = build_demo_world(tmp_path / "world", num_items=NUM_ITEMS, num_users=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "world"]
    assert sorted(path.name for path in world.iterdir()) == ["ground_truth", "home", "wardrobe"]


def test_a_build_that_fails_leaves_no_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_write_ground_truth", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_demo_world(tmp_path / "world", num_items=NUM_ITEMS, num_users=5)
    assert not (tmp_path / "world").exists()


def test_another_request_replaces_a_world_but_nothing_else(tmp_path: Path) -> None:
    world = build_demo_world(tmp_path / "world", num_items=NUM_ITEMS, num_users=5)
    build_demo_world(world, num_items=NUM_ITEMS, num_users=6)
    assert len(DemoGroundTruth.load(world).users) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(VitrineError, match="no demo world"):
        build_demo_world(tmp_path / "thesis", num_items=NUM_ITEMS, num_users=5)
    with pytest.raises(VitrineError, match="at least 60"):
        build_demo_world(tmp_path / "tiny", num_items=3, num_users=5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_shops_lack_is_lacking(small: Path, domain: str) -> None:
    items, interactions = tables(small, domain)
    assert len(items) == NUM_ITEMS
    no_picture = {item["item_id"] for item in items if item["image"] is None}
    no_text = {item["item_id"] for item in items if item["title"] is None}
    assert all(item["description"] is None for item in items if item["title"] is None)
    assert len(no_picture) >= NUM_ITEMS / 10
    assert len(no_text) >= NUM_ITEMS / 10
    assert 1 <= len(no_picture & no_text) < len(no_picture)
    assert sum(item["title"] is not None and not item["title"].strip() for item in items) == 3
    states = Counter(
        state(small / domain / item["image"]) for item in items if item["image"] is not None
    )
    assert (states["cut"], states["lost"], states["empty"]) == (3, 2, 1)
    rows = Counter(tuple(row.values()) for row in interactions)
    assert sorted(rows.values())[-6:] == [1, 2, 2, 2, 2, 2]
    bought = Counter((row["user_id"], row["item_id"]) for row in interactions)
    assert sum(bought.values()) - len(bought) == 5


def state(path: Path) -> str:
    if not path.exists():
        return "lost"
    if not path.stat().st_size:
        return "empty"
    try:
        with Image.open(path) as picture:
            picture.load()
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
    except OSError:
        return "cut"
    return "whole"


@pytest.mark.parametrize("domain", DOMAINS)
def test_ground_truth_is_no_column_of_a_shop(small: Path, domain: str) -> None:
    items, interactions = tables(small, domain)
    assert list(items[0]) == ["item_id", "title", "description", "category", "price", "image"]
    assert list(interactions[0]) == ["user_id", "item_id", "timestamp", "review"]


@pytest.fixture(scope="module")
def busy() -> dict[str, tuple]:
    """Enough users that shares mean something, without images: domain → (items, purchases)."""
    users = make_users(0, 400)
    world = {}
    for domain in DOMAINS:
        items = make_items(0, domain, 1000)
        world[domain] = (items, make_purchases(0, domain, users, items))
    return {"users": users, **world}  # type: ignore[dict-item]


@pytest.mark.parametrize("domain", DOMAINS)
def test_histories_have_the_promised_lengths_and_no_repeats(busy: dict, domain: str) -> None:
    items, purchases = busy[domain]
    lengths = Counter(purchase.user for purchase in purchases)
    assert min(lengths.values()) >= 6
    assert max(lengths.values()) <= 20
    assert 10 < len(purchases) / 400 < 12
    assert len({(purchase.user, purchase.item) for purchase in purchases}) == len(purchases)
    assert all(earlier.time <= later.time for earlier, later in pairwise(purchases))
    assert all(
        items[purchase.item].release <= (purchase.time - START) // DAY < DAYS
        for purchase in purchases
    )


@pytest.mark.parametrize("domain", DOMAINS)
def test_users_buy_their_palette(busy: dict, domain: str) -> None:
    items, purchases = busy[domain]
    users = busy["users"]
    matches: list[list[bool]] = [[] for _ in users]
    for purchase in purchases:
        wanted = users[purchase.user].palette_on((purchase.time - START) // DAY)
        matches[purchase.user].append(items[purchase.item].palette == wanted)
    shares = np.array([np.mean(match) for match in matches])
    colour = np.array([ASPECTS[user.aspect] == "colour" for user in users])
    assert np.mean(shares >= 0.5) > 0.8
    assert np.mean(shares[colour] >= 0.75) > 0.85
    drifted = np.mean([user.palette != user.late_palette for user in users])
    assert 0.18 < drifted < 0.32


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_tenth_of_the_items_is_new_at_test_time_and_bought_then(busy: dict, domain: str) -> None:
    items, purchases = busy[domain]
    new = np.array([item.release >= LATE_DAY for item in items])
    assert new.mean() >= 0.1
    late = [purchase.item for purchase in purchases if purchase.time >= START + LATE_DAY * DAY]
    assert 0.2 < new[late].mean() < 0.4


@pytest.mark.parametrize("domain", DOMAINS)
def test_some_items_are_far_more_popular(busy: dict, domain: str) -> None:
    items, purchases = busy[domain]
    counts = np.sort(np.bincount([purchase.item for purchase in purchases], minlength=len(items)))
    assert 0.25 < counts[-100:].sum() / counts.sum() < 0.7


@pytest.mark.parametrize("domain", DOMAINS)
def test_reviews_name_the_aspect_their_writer_cares_about(small: Path, domain: str) -> None:
    ground_truth = DemoGroundTruth.load(small)
    _, interactions = tables(small, domain)
    reviewed = [row for row in interactions if row["review"]]
    assert 0.35 < len(reviewed) / len(interactions) < 0.65
    kinds = [kind for name in DOMAINS for kind in CATEGORIES[name]]
    for row in reviewed:
        review, aspect = row["review"], ground_truth.aspect_of_user(row["user_id"])
        assert 6 <= len(review.split()) <= 16
        assert any(
            word in review for word in ground_truth.words_of_item(domain, row["item_id"], aspect)
        )
        assert ground_truth.classify_aspect(review) == aspect
        item = ground_truth.item(domain, row["item_id"])
        values = (item.palette, item.motif, item.material, item.mood)
        shape = kinds.index(ground_truth.category_of_item(domain, row["item_id"]))
        assert ground_truth.classify_value(review, aspect) == (*values, shape, item.band)[aspect]


@pytest.mark.parametrize("domain", DOMAINS)
def test_descriptions_say_what_is_true(domain: str) -> None:
    for item in make_items(0, domain, 300):
        title, description = write_title_and_description(item, 0)
        assert len(description.split()) <= 45
        traits = (item.palette, item.motif, item.material, item.mood)
        for aspect, value in enumerate(traits):
            assert DemoGroundTruth.classify_value(description, aspect) == value, description
            assert DemoGroundTruth.classify_value(title, aspect) in (value, None), title


@pytest.fixture(scope="module")
def gallery() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of both domains, their palettes and their motifs."""
    items = [item for domain in DOMAINS for item in make_items(3, domain, 150)]
    pictures = np.stack([render_item(item, 3)[0] for item in items])
    return (
        pictures,
        np.array([item.palette for item in items]),
        np.array([item.motif for item in items]),
    )


def test_rendered_images_are_classified_correctly(gallery: tuple) -> None:
    pictures, palettes, motifs = gallery
    assert np.mean(DemoGroundTruth.classify_palette(pictures) == palettes) >= 0.99
    assert np.mean(DemoGroundTruth.classify_motif(pictures) == motifs) >= 0.98


@pytest.mark.parametrize("side", [32, 50, 96])
def test_blurred_noisy_images_of_any_size_are_classified_correctly(
    gallery: tuple, side: int
) -> None:
    pictures, palettes, motifs = (values[::3] for values in gallery)
    resized = np.stack(
        [
            np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BOX))
            for p in pictures
        ]
    )
    noise = np.random.default_rng(0).integers(-25, 26, resized.shape)
    noisy = np.clip(resized.astype(int) + noise, 0, 255).astype(np.uint8)
    assert np.mean(DemoGroundTruth.classify_palette(noisy) == palettes) >= 0.99
    assert np.mean(DemoGroundTruth.classify_motif(noisy) == motifs) >= 0.9
    coarse = np.stack(
        [np.asarray(Image.fromarray(p).resize((8, 8)).resize((side, side))) for p in pictures]
    )
    assert np.mean(DemoGroundTruth.classify_palette(coarse) == palettes) >= 0.99


def test_scores_show_ties() -> None:
    halves = np.empty((2, 64, 64, 3), np.uint8)
    halves[:, :, :32], halves[:, :, 32:] = PALETTES[1].main, PALETTES[4].main
    scores = DemoGroundTruth.score_palettes(halves)
    assert scores.shape == (2, len(PALETTES))
    np.testing.assert_allclose(scores.sum(-1), 1)
    np.testing.assert_allclose(scores[:, 1], scores[:, 4], atol=0.02)
    assert scores[0, 1] > 0.45
    assert DemoGroundTruth.classify_palette(halves[0]).shape == ()
    with pytest.raises(ValueError, match="smaller than 32"):
        DemoGroundTruth.classify_motif(halves[:, :16])


def test_ground_truth_returns_indices_and_suggests_ids(small: Path) -> None:
    ground_truth = DemoGroundTruth.load(small / "ground_truth")
    user = ground_truth.user("p0007")
    assert ground_truth.palette_of_user("home", "p0007") == user.late_palette
    assert ground_truth.motif_of_user("wardrobe", "p0007") == user.motif
    dearest = ground_truth.taste_of_user("home", "p0007", ASPECTS.index("shape"))
    assert dearest == user.categories["home"][0]
    assert ground_truth.motif_of_item("home", "h00003") == ground_truth.item("home", "h00003").motif
    assert (len(ground_truth.materials), len(ground_truth.moods)) == (len(MATERIALS), len(MOODS))
    with pytest.raises(VitrineError, match="Did you mean 'h000"):
        ground_truth.palette_of_item("home", "h00099")
    with pytest.raises(VitrineError, match="no ground truth"):
        DemoGroundTruth.load(small / "home")


def test_silhouettes_cover_the_product(small: Path) -> None:
    ground_truth = DemoGroundTruth.load(small)
    for domain in DOMAINS:
        silhouettes = ground_truth.silhouettes(domain)
        assert silhouettes.shape == (NUM_ITEMS, 64, 64)
        shares = silhouettes.mean((1, 2))
        pictured = np.array([item.has_picture for item in ground_truth.items[domain].values()])
        assert (shares[~pictured] == 0).all()
        assert (shares[pictured] > 0.04).all()
        assert (shares[pictured] < 0.5).all()
