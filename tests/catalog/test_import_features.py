"""Precomputed features of public datasets are imported, aligned with the items."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.importing.config import ImportConfig
from catalog.importing.run import Imported, run_import
from catalog.sources import feature_files
from pretrain.config import ModalityConfig
from pretrain.modalities import MODALITIES

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def mmrec(folder: Path, vectors: np.ndarray) -> Path:
    """Items 0 to 3, of which item 3 was taken by no user."""
    folder.mkdir()
    rows = [f"{user}\t{item}\t5.0\t{item}\t0\n" for user in range(2) for item in (2, 0, 1)]
    (folder / "baby.inter").write_text(
        "userID\titemID\trating\ttimestamp\tx_label\n" + "".join(rows)
    )
    np.save(folder / "image_feat.npy", vectors)
    return folder


def imported(folder: Path, source: str, **settings: object) -> Imported:
    config = ImportConfig(str(folder), source, **settings)  # pyright: ignore[reportArgumentType]
    return run_import(config, folder.with_name("imported"))


def written(done: Imported, name: str) -> dict[str, list[float]]:
    table = parquet.read_table(done.folder / "features" / f"{name}.parquet")
    return dict(zip(table["item_id"].to_pylist(), table["vector"].to_pylist(), strict=True))


@pytest.mark.parametrize("batch_bytes", [1, 24, 1 << 20])
def test_features_of_mmrec_are_those_of_their_items(
    tmp_path: Path, cache: Path, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "BATCH_BYTES", batch_bytes)
    done = imported(mmrec(tmp_path / "baby", VECTORS), "mmrec")
    assert written(done, "image_feat") == {str(n): VECTORS[n].tolist() for n in range(3)}
    said = " ".join(map(str, done.notes.listed))
    assert "3 vectors of width 3 are written to features/image_feat.parquet; 1 are of items" in said
    assert "by an import alone" not in said
    catalog = load_catalog(CatalogConfig(str(done.folder)))
    settings = ModalityConfig(kind="features", source="features/image_feat.parquet")
    kind, _ = MODALITIES["features"].new(settings, catalog)
    content = kind.open(catalog, None).read(np.arange(3))
    ids = [int(one) for one in catalog.items["item_id"][:]]
    np.testing.assert_array_equal(content["values"].numpy(), VECTORS[ids])


def test_items_that_a_filter_drops_have_no_features(tmp_path: Path, cache: Path) -> None:
    folder = mmrec(tmp_path / "baby", VECTORS)
    with (folder / "baby.inter").open("a") as file:
        file.write("2\t2\t5.0\t9\t0\n")
    done = imported(folder, "mmrec", min_item_interactions=3)
    assert written(done, "image_feat") == {"2": VECTORS[2].tolist()}


def test_image_features_of_amazon_are_read_from_their_records(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "toys"
    folder.mkdir()
    asins = [f"B{n:09}" for n in range(3)]
    (folder / "meta_Toys.json").write_text(
        "".join(f"{{'asin': '{asin}', 'title': 'T'}}\n" for asin in asins)
    )
    review = '{{"reviewerID": "u", "asin": "{}", "overall": 5.0, "unixReviewTime": 1370044800}}\n'
    (folder / "reviews_Toys_5.json").write_text("".join(map(review.format, asins)))
    vectors = np.random.default_rng(0).normal(size=(3, 4096)).astype("<f4")
    records = [
        asin.encode() + vector.tobytes() for asin, vector in zip(asins, vectors, strict=True)
    ]
    path = folder / "image_features_Toys.b"
    path.write_bytes(records[2] + records[0])
    found = written(imported(folder, "amazon-2014"), "image_features_Toys")
    assert found == {asins[0]: vectors[0].tolist(), asins[2]: vectors[2].tolist()}
    path.write_bytes(records[0][:-1])
    with pytest.raises(VitrineError, match=r"16,393 bytes, which is no multiple of 16,394"):
        run_import(ImportConfig(str(folder), "amazon-2014"), tmp_path / "again")


def test_embeddings_of_yambda_are_lists_in_parquet(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "yambda"
    (folder / "flat" / "50m").mkdir(parents=True)
    likes = {"uid": [1, 1], "timestamp": [5, 10], "item_id": [7, 8]}
    parquet.write_table(pa.table(likes), folder / "flat" / "50m" / "likes.parquet")
    embeddings = {"item_id": [8, 7, 9], "embed": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}
    parquet.write_table(pa.table(embeddings), folder / "embeddings.parquet")
    done = imported(folder, "yambda", subset="50m/likes")
    assert written(done, "embeddings") == {"8": [1.0, 2.0], "7": [3.0, 4.0]}


@pytest.mark.parametrize(
    ("vectors", "line"),
    [
        (np.zeros(3), r"holds float64 of shape \(3,\); features are one row"),
        (np.zeros((2, 2), dtype=np.int64), "holds int64 of shape"),
        (np.array([{"a": 1}]), "is no .npy file that can be read"),
    ],
)
def test_features_of_another_form_are_one_clear_line(
    tmp_path: Path, cache: Path, vectors: np.ndarray, line: str
) -> None:
    with pytest.raises(VitrineError, match=line) as error:
        imported(mmrec(tmp_path / "baby", vectors), "mmrec")
    assert "\n" not in str(error.value)


def test_a_vector_that_is_given_twice_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "yambda"
    (folder / "flat" / "50m").mkdir(parents=True)
    likes = {"uid": [1], "timestamp": [5], "item_id": [7]}
    parquet.write_table(pa.table(likes), folder / "flat" / "50m" / "likes.parquet")
    embeddings = {"item_id": [7, 7], "embed": [[1.0], [2.0]]}
    parquet.write_table(pa.table(embeddings), folder / "embeddings.parquet")
    with pytest.raises(VitrineError, match="more than one vector for an item"):
        imported(folder, "yambda", subset="50m/likes")
    assert not (tmp_path / "imported").exists()


def test_features_that_changed_are_another_import(tmp_path: Path, cache: Path) -> None:
    folder = mmrec(tmp_path / "baby", VECTORS)
    imported(folder, "mmrec")
    assert not imported(folder, "mmrec").is_new
    np.save(folder / "image_feat.npy", VECTORS[:3])
    with pytest.raises(VitrineError, match="another source or state"):
        imported(folder, "mmrec")
