"""Masks of items for creative mode: where they are from, when they are refused, whose pixels they keep."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from generate.image.foreground import (
    MAX_AREA,
    REFUSED,
    Foreground,
    find_foreground,
    judge_mask,
    resize_mask,
    without_background,
)
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline
from generate.image.sampler import ImageSampler
from generate.image.segmentation import SegmentationModel
from tests.generate.image_world import TINY, ImageWorld, codec_of, networks_of
from tests.generate.image_world import WIDTH as RANKER_WIDTH

HEIGHT, WIDTH = 120, 90
ITEM = (slice(30, 90), slice(30, 60))
"""Where each picture's item is."""


def picture(rng: np.random.Generator) -> np.ndarray:
    pixels = rng.integers(225, 240, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[ITEM] = rng.integers(0, 90, (60, 30, 3), dtype=np.uint8)
    return pixels


def box(rows: slice, columns: slice, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[rows, columns] = 255
    return mask


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """plain: nothing but a picture; alpha: with a transparent background; full: all of it opaque but for one
    pixel; column: with a mask of another size; both; broken: with a mask that cannot be read; blank."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    rows = []
    for name in ("plain", "alpha", "full", "column", "both", "broken", "blank"):
        pixels = picture(rng)
        if name == "blank":
            pixels[:] = 200
        image = Image.fromarray(pixels)
        if name in ("alpha", "both"):
            image.putalpha(Image.fromarray(box(slice(32, 88), slice(32, 58))))
        if name == "full":
            image.putalpha(Image.fromarray(box(slice(0, HEIGHT), slice(1, WIDTH))))
        image.save(folder / f"{name}.png")
        mask = None
        if name in ("column", "both"):
            mask = f"{name}-mask.png"
            half = box(slice(15, 45), slice(15, 30), (HEIGHT // 2, WIDTH // 2))
            Image.fromarray(half).save(folder / mask)
        if name == "broken":
            mask = "broken-mask.png"
            (folder / mask).write_text("no image")
        rows.append({"item_id": name, "title": name, "image": f"{name}.png", "mask": mask})
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bought = [
        f"{user},{rows[(user + n) % 7]['item_id']},{n}" for user in range(4) for n in range(4)
    ]
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(bought))
    return load_catalog(CatalogConfig(path=str(folder)))


def found(shop: Catalog, name: str, segmenter: Any = None) -> Foreground:
    return find_foreground(shop, shop.item_index(name), segmenter)


def test_alpha_comes_before_the_column_before_the_model_before_grabcut(shop: Catalog) -> None:
    def model(image: np.ndarray) -> np.ndarray:
        return box(slice(20, 100), slice(20, 70)) > 0

    sources = {
        name: (found(shop, name).source, found(shop, name, model).source)
        for name in ("plain", "alpha", "full", "column", "both", "broken")
    }
    assert sources == {
        "plain": ("grabcut", "model"),
        "alpha": ("alpha", "alpha"),
        "full": ("grabcut", "model"),
        "column": ("column", "column"),
        "both": ("alpha", "alpha"),
        "broken": ("grabcut", "model"),
    }
    alpha = found(shop, "alpha").mask
    assert alpha is not None
    assert np.array_equal(alpha, box(slice(32, 88), slice(32, 58)) > 0)
    column = found(shop, "column").mask
    assert column is not None
    assert (column != (box(*ITEM) > 0)).mean() < 0.02
    plain = found(shop, "plain").mask
    assert plain is not None
    assert (plain != (box(*ITEM) > 0)).mean() < 0.05


def test_the_picture_is_the_files_own_pixels(shop: Catalog) -> None:
    for name in ("plain", "alpha"):
        image, mask = found(shop, name).image, found(shop, name).mask
        assert image is not None
        assert mask is not None
        own = np.asarray(Image.open(shop.folder / f"{name}.png"))[..., :3]
        assert np.array_equal(image[mask], own[mask])
        assert image.shape == own.shape


def test_masks_that_keep_nothing_or_the_background_are_refused() -> None:
    good = box(*ITEM) > 0
    assert judge_mask(good) == ""
    assert "covers 0.0% of the picture" in judge_mask(good & False)
    assert "covers 100.0% of the picture" in judge_mask(good | True)
    most = np.ones((100, 100), bool)
    most[: round(100 * (1 - MAX_AREA)) - 1] = False
    assert "covers" in judge_mask(most)
    ring = np.ones((HEIGHT, WIDTH), bool)
    ring[10:-10, 10:-10] = False
    assert "touches 100% of the picture's border" in judge_mask(ring)
    within = np.zeros_like(ring)
    within[5:-5, 5:-5] = ring[5:-5, 5:-5]
    assert judge_mask(within) == ""
    assert "touches 100%" in judge_mask(within, inset=5)


def test_a_refused_item_says_why(shop: Catalog) -> None:
    refused = found(shop, "blank")
    assert refused.mask is None
    assert refused.reason == f"{REFUSED}: grabcut covers 100.0% of the picture, not 2% to 95%"
    whole = found(shop, "full", lambda image: np.ones(image.shape[:2], bool)).reason
    assert whole.startswith(f"{REFUSED}: alpha covers")
    assert "; model covers" in whole
    unread = found(shop, "broken", lambda image: np.ones(image.shape[:2], bool)).reason
    assert "column cannot be read (not an image); model covers" in unread


def test_a_rim_of_an_unevenly_lit_background_is_no_part_of_the_item() -> None:
    rows, columns = np.mgrid[:120, :80]
    light = np.clip(252 - (rows - 20) ** 2 / 400 - columns / 16, 0, 255)
    image = np.repeat(light[..., None], 3, axis=2).astype(np.uint8)
    item = (abs(rows - 60) < 30) & (abs(columns - 40) < 18)
    image[item] = (90, 120, 100)
    mask = (abs(rows - 60) < 36) & (abs(columns - 40) < 24)  # as GrabCut leaves it
    peeled = without_background(image, mask)
    assert (peeled & item).sum() >= 0.95 * item.sum()
    assert (peeled & ~item).sum() <= 0.15 * (mask & ~item).sum()


def test_a_light_item_on_a_light_background_stays_whole() -> None:
    rows, columns = np.mgrid[:120, :80]
    item = (abs(rows - 60) < 30) & (abs(columns - 40) < 18)
    image = np.where(item[..., None], 252, 236).astype(np.uint8).repeat(3, axis=2)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)  # no edge is steep
    mask = (abs(rows - 60) < 36) & (abs(columns - 40) < 24)
    peeled = without_background(image, mask)
    assert (peeled & item).sum() >= 0.95 * item.sum()
    assert (peeled & ~item).sum() <= 0.15 * (mask & ~item).sum()


def test_resized_masks_keep_their_place() -> None:
    small = box(slice(0, 10), slice(5, 15), (20, 20)) > 0
    large = resize_mask(small, (200, 200))
    assert np.array_equal(large[5::10, 5::10], small)
    assert resize_mask(small, (20, 20)) is small


def semantic_model(folder: Path, labels: dict[int, str], bias: list[float]) -> str:
    """A segmentation model that gives every pixel the same scores."""
    config = SegformerConfig(
        num_encoder_blocks=1, depths=[1], sr_ratios=[1], hidden_sizes=[8], patch_sizes=[7],
        strides=[4], num_attention_heads=[1], mlp_ratios=[1], decoder_hidden_size=8,
        id2label=labels, label2id={name: n for n, name in labels.items()},
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(config)
    classifier: Any = model.decode_head.classifier
    torch.nn.init.zeros_(classifier.weight)
    classifier.bias.data = torch.tensor(bias)
    model.save_pretrained(folder)
    processor = {
        "image_processor_type": "SegformerImageProcessor", "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_resize": True, "do_normalize": True,
        "do_rescale": True, "rescale_factor": 1 / 255,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def test_a_segmentation_model_finds_its_labels(tmp_path: Path) -> None:
    labels = {0: "Background", 1: "coat", 2: "face"}
    name = semantic_model(tmp_path / "coat", labels, [0.0, 3.0, 1.0])
    image = np.zeros((50, 40, 3), np.uint8)
    assert SegmentationModel(name)(image).shape == (50, 40)
    assert SegmentationModel(name)(image).all()
    assert SegmentationModel(name, ("Coat",))(image).all()
    assert not SegmentationModel(name, ("face",))(image).any()
    single = semantic_model(tmp_path / "single", {0: "item"}, [-1.0])
    assert not SegmentationModel(single)(image).any()


def test_a_model_that_segments_no_items_is_one_line(tmp_path: Path) -> None:
    name = semantic_model(tmp_path / "rooms", {0: "wall", 1: "floor"}, [0.0, 1.0])
    with pytest.raises(
        VitrineError, match=r"does not tell the item from its background.*wall, floor"
    ):
        SegmentationModel(name)
    with pytest.raises(VitrineError, match="name those of the item with --segmentation_labels"):
        SegmentationModel(name, ("coat",))
    with pytest.raises(VitrineError, match="cannot be loaded"):
        SegmentationModel(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(VitrineError, match="is a bert, which segments no images"):
        SegmentationModel(str(tmp_path))
    code = {"model_type": "birefnet", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    with pytest.raises(VitrineError, match="code of its own, which Vitrine does not run"):
        SegmentationModel(str(tmp_path))


def test_creative_mode_takes_the_best_mask_and_says_what_it_refuses(
    shop: Catalog, creative_sampler: ImageSampler
) -> None:
    sampler = replace(creative_sampler, catalog=shop)
    config = replace(sampler.defaults, mode="creative", steps=2)
    items = list(range(shop.num_items))
    sampled = sampler.sample_rows(torch.zeros(len(items), RANKER_WIDTH), items, items, config)
    blank = shop.item_index("blank")
    for item, one in zip(items, sampled, strict=True):
        if item == blank:
            assert one.image is None
            assert one.rejected.startswith(REFUSED)
            continue
        image, mask = sampler.item_pixels(item, config)
        drawn = np.asarray(one.image)
        assert drawn.shape == (HEIGHT, WIDTH, 3), "the picture's own resolution, not the model's"
        assert np.array_equal(drawn[mask], image[mask])
        assert not np.array_equal(drawn[~mask], image[~mask])
    assert sampler.refused_masks(items, config) == [blank]
    with pytest.raises(VitrineError, match="has no creative image: no mask of it is good enough"):
        sampler.item_pixels(blank, config)


@pytest.fixture
def creative_sampler(shop: Catalog, tmp_path: Path) -> ImageSampler:
    """An untrained generator of 16 pixels a side."""
    world = ImageWorld(tmp_path)
    pipeline = PersonalImagePipeline(*networks_of(TINY), codec_of(world))
    vectors = np.random.default_rng(0).normal(size=(shop.num_items, RANKER_WIDTH))
    ranker: Any = SimpleNamespace(width=RANKER_WIDTH, item_vectors=vectors.astype(np.float32))
    training_images = TrainingImageIndex(np.zeros((1, 192), np.uint8), 1.0)
    return ImageSampler(pipeline, shop, ranker, TINY.sampling, "none", training_images)
