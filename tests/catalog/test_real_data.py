"""Real catalogs load fast and hold what their README says; skipped where they are not at hand."""

import time
from pathlib import Path

import pytest

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.doctor.run import check_catalog
from catalog.languages import likelihoods
from catalog.splits import make_split

DATA = Path(__file__).parents[3] / "shared" / "data"


def config_of(name: str, source: str = "folder") -> CatalogConfig:
    if not (DATA / name).is_dir():
        pytest.skip(f"needs the data set {name} in {DATA}")
    return CatalogConfig(str(DATA / name), source=source)


def sizes(catalog: Catalog) -> tuple[int, int, int]:
    return catalog.num_users, catalog.num_items, len(catalog.interactions)


def test_ml_100k_loads_in_two_seconds_with_posters_and_overviews():
    config = config_of("ml-100k", "movielens")
    started = time.process_time()
    catalog = load_catalog(config)
    assert time.process_time() - started < 2
    assert sizes(catalog) == (943, 1682, 100_000)
    assert sum(path is not None for path in catalog.items["image"][:]) == 1663
    assert catalog.items[0]["category"] == "Animation"
    assert (catalog.item_text(0) or "").startswith("Toy Story (1995). Led by Woody")
    assert catalog.item_image(0, 32) is not None
    split = make_split(catalog, SplitConfig())
    assert split.train_end.sum() == pytest.approx(80_000, rel=0.01)
    assert len(split.test) > 50


def test_ml_100k_check_reports_the_suspect_rows():
    whats = [f.what for f in check_catalog(config_of("ml-100k", "movielens")).findings]
    assert "46 items are marked in the column poster_and_overview_suspect" in whats


def test_fashion_keeps_its_leading_zeros_and_dates():
    catalog = load_catalog(config_of("fashion"))
    assert sizes(catalog) == (8925, 3186, 64_804)
    assert catalog.items[0]["item_id"] == "0111565001"
    assert catalog.items[0]["category"] == "Underwear Tights"
    assert catalog.has_timestamps
    assert catalog.item_image(0, 64) is not None
    assert len(make_split(catalog, SplitConfig()).test) > 100


def test_beauty_is_ordered_but_not_dated():
    catalog = load_catalog(config_of("beauty"))
    assert sizes(catalog) == (22_363, 12_101, 198_502)
    assert not catalog.has_timestamps
    split = make_split(catalog, SplitConfig(kind="leave-one-out"))
    assert len(split.test) == len(split.validation) == 22_363
    # The split file's first person buys items 1, 2, 3, … in that order.
    ids = [catalog.items[int(item)]["item_id"] for item in catalog.interactions.history(0)[:3]]
    assert ids == ["1", "2", "3"]


def test_english_descriptions_are_english_and_short_titles_seldom_another_language():
    """A title such as "L'homme Eau de Parfum" is taken for French."""
    for name, column, share in (("fashion", "text", 0.0), ("beauty", "title", 0.006)):
        texts = load_catalog(config_of(name)).items.data.column(column)
        verdicts = likelihoods(texts).apart_from(["en"])
        assert (verdicts == 1).mean() <= share
        assert (verdicts == 0).mean() > 0.35
