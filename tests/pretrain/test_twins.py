"""Items listed twice are found, and only those; a twin is no negative."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from pretrain.content import ContentReader
from pretrain.modalities import MODALITIES
from pretrain.twins import twin_groups

Picture = NDArray[np.uint8]


def picture(seed: int) -> Picture:
    """A few large fields of colour, as pictures have."""
    fields = np.random.default_rng(seed).integers(0, 255, size=(6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(fields).resize((64, 64), Image.Resampling.BICUBIC))


def copied(shown: Picture) -> Picture:
    """Scaled down and up again and stored as JPEG, as shops do with a picture they list twice."""
    image = Image.fromarray(shown).resize((48, 48)).resize((64, 64))
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=80)
    return np.asarray(Image.open(stored))


def groups_of(items: list[tuple[str | None, Picture | None]]) -> NDArray[np.int64]:
    return twin_groups(len(items), lambda i: items[i][0], lambda i: items[i][1])


def test_same_words_and_same_picture_are_twins_and_nothing_else_is() -> None:
    one, other = picture(0), picture(1)
    groups = groups_of(
        [
            ("Blue  shirt", one),
            ("blue shirt", copied(one)),  # a twin of the first
            ("blue shirt", other),
            ("blue shirt", None),
            ("BLUE SHIRT ", None),  # a twin of the one before
            ("red shirt", one),
            (None, one),
            (None, one),  # without words nothing is sure
            (None, None),
            (None, None),
        ]
    )
    twins = {(a, b) for a in range(10) for b in range(a) if groups[a] == groups[b]}
    assert twins == {(1, 0), (4, 3)}


def test_copies_are_found_and_other_pictures_under_the_same_words_are_not() -> None:
    pictures = [picture(seed) for seed in range(100)]
    dyed = np.array([40, 0, -40])
    recoloured = [np.clip(shown + dyed, 0, 255).astype(np.uint8) for shown in pictures]
    items = [("shirt", shown) for shown in [*pictures, *map(copied, pictures), *recoloured]]
    groups = groups_of(items)
    assert (groups[100:200] == groups[:100]).mean() >= 0.97
    assert len(set(groups[:100].tolist())) == 100
    assert not (groups[200:] == groups[:100]).any()


def test_the_demo_world_lists_nothing_twice(demo_world: Path) -> None:
    catalog = load_catalog(CatalogConfig(path=str(demo_world / "home")))
    about = {"source": "image", "image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    reader = ContentReader(catalog, {"image": MODALITIES["image"](about)}, {})
    assert len(np.unique(reader.twin_groups())) == catalog.num_items
