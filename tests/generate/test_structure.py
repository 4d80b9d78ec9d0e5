"""Foreground masks, structure maps, and compositing."""

from pathlib import Path

import numpy as np

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.demo.ground_truth import DemoGroundTruth
from generate.image.structure import (
    CELLS,
    CHANNELS,
    composite,
    foreground_mask,
    normalize,
    structure_map,
    without_item,
)


def test_the_foreground_mask_agrees_with_the_demo_silhouettes(demo_world: Path) -> None:
    catalog = load_catalog(CatalogConfig(path=str(demo_world / "wardrobe")))
    silhouettes = DemoGroundTruth.load(demo_world).silhouettes("wardrobe")
    overlaps = []
    for item in range(60):
        image = catalog.item_image(item, 64)
        if image is not None and silhouettes[item].any():
            mask = foreground_mask(image)
            assert np.array_equal(mask, foreground_mask(image)), "the same every time"
            overlaps.append((mask & silhouettes[item]).sum() / (mask | silhouettes[item]).sum())
    assert np.mean(overlaps) > 0.8


def test_an_image_of_one_colour_is_all_foreground() -> None:
    assert foreground_mask(np.full((20, 30, 3), 77, np.uint8)).all()


def test_the_structure_map_holds_the_mask_and_the_edges_inside_it() -> None:
    image = np.full((32, 16, 3), 250, np.uint8)
    image[8:24, 4:12] = (30, 60, 200)
    image[14:18, 4:12] = (200, 60, 30)
    mask = np.zeros((32, 16), bool)
    mask[8:24, 4:12] = True
    found = structure_map(image, mask, (2, 1))
    assert found.shape == (CHANNELS, 2, 1)
    outline = found[: CELLS**2, 0, 0].reshape(CELLS, CELLS)
    assert outline.tolist() == [[0] * 4, [0] * 4, [0, 255, 255, 0], [0, 255, 255, 0]]
    edges = found[CELLS**2 :, 0, 0].reshape(CELLS, CELLS)
    assert edges[:2].max() == 0
    assert edges[3, 1] > 0, "where its stripe begins"
    grey = np.repeat(image.mean(2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert np.abs(structure_map(grey, mask, (2, 1)).astype(int) - found).max() < 40
    assert normalize(found).min() == -1
    assert normalize(found).max() <= 1


def test_compositing_changes_no_pixel_of_the_item() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    mask = np.zeros((40, 30), bool)
    mask[10:30, 8:20] = True
    background = np.full((40, 30, 3), 200, np.uint8)
    background[9:31, 7:21] = (255, 0, 0)  # another item, a little larger
    composited = composite(image, mask, without_item(background, mask))
    assert np.array_equal(composited[mask], image[mask])
    assert np.abs(composited[~mask].astype(int) - 200).max() <= 60, "no red rim"
    assert (composited[0] == 200).all()


def test_the_generated_item_is_removed_at_any_scale_of_the_mask() -> None:
    small = np.full((20, 16, 3), 200, np.uint8)
    small[5:15, 4:12] = (255, 0, 0)
    mask = np.zeros((200, 160), bool)
    mask[50:150, 40:120] = True
    removed = without_item(small, mask)
    assert removed.shape == small.shape
    assert np.abs(removed.astype(int) - 200).max() <= 10
