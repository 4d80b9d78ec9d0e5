"""Outlines, and what is drawn around an item."""

from pathlib import Path

import numpy as np

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.demo.ground_truth import DemoGroundTruth
from generate.image.structure import CELLS, CHANNELS, around, foreground_mask, seen, structure_map


def test_items_of_the_demo_shop_are_cut_out(demo_world: Path) -> None:
    catalog = load_catalog(CatalogConfig(path=str(demo_world / "wardrobe")))
    silhouettes = DemoGroundTruth.load(demo_world).silhouettes("wardrobe")
    overlaps = []
    for item in range(60):
        picture = catalog.item_image(item, 64)
        if picture is not None and silhouettes[item].any():
            mask = foreground_mask(picture)
            assert np.array_equal(mask, foreground_mask(picture)), "the same every time"
            overlaps.append((mask & silhouettes[item]).sum() / (mask | silhouettes[item]).sum())
    assert np.mean(overlaps) > 0.8


def test_a_picture_without_a_ground_is_all_item() -> None:
    assert foreground_mask(np.full((20, 30, 3), 77, np.uint8)).all()


def test_structure_tells_the_outline_and_the_edges_inside() -> None:
    picture = np.full((32, 16, 3), 250, np.uint8)
    picture[8:24, 4:12] = (30, 60, 200)
    picture[14:18, 4:12] = (200, 60, 30)
    mask = np.zeros((32, 16), bool)
    mask[8:24, 4:12] = True
    found = structure_map(picture, mask, (2, 1))
    assert found.shape == (CHANNELS, 2, 1)
    outline = found[: CELLS**2, 0, 0].reshape(CELLS, CELLS)
    assert outline.tolist() == [[0] * 4, [0] * 4, [0, 255, 255, 0], [0, 255, 255, 0]]
    edges = found[CELLS**2 :, 0, 0].reshape(CELLS, CELLS)
    assert edges[:2].max() == 0
    assert edges[3, 1] > 0, "where its stripe begins"
    grey = np.repeat(picture.mean(2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert np.abs(structure_map(grey, mask, (2, 1)).astype(int) - found).max() < 40
    assert seen(found).min() == -1
    assert seen(found).max() <= 1


def test_around_an_item_not_one_of_its_pixels_changes() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    mask = np.zeros((40, 30), bool)
    mask[10:30, 8:20] = True
    drawn = np.full((40, 30, 3), 200, np.uint8)
    drawn[9:31, 7:21] = (255, 0, 0)  # another item, a little larger
    dressed = around(picture, mask, drawn)
    assert np.array_equal(dressed[mask], picture[mask])
    assert np.abs(dressed[~mask].astype(int) - 200).max() <= 60, "no red rim"
    assert (dressed[0] == 200).all()
