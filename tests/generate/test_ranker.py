"""A generator works with its own recommender, or one extended from it, and with no other."""

from dataclasses import asdict
from pathlib import Path

import pytest

from catalog.artifacts import Artifact, artifact_hash, open_artifact, write_artifact
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from generate.ranker import load_catalog_and_ranker


def recommender(folder: Path, catalog: Path, extends: list[str]) -> Path:
    config = {"catalog": asdict(CatalogConfig(path=str(catalog))), "extends": extends}
    with write_artifact(folder, kind="recommender", config=config) as staging:
        (staging / "weights").write_text(folder.name)
    return folder


@pytest.fixture
def generator(
    demo_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Artifact, Path]:
    monkeypatch.setattr(
        "generate.ranker.load_ranker", lambda one, catalog, **_: getattr(one, "path", one)
    )
    own = recommender(tmp_path / "own", demo_world / "wardrobe", [])
    config = {"catalog": asdict(CatalogConfig(path=str(demo_world / "wardrobe")))}
    made = tmp_path / "words"
    with write_artifact(
        made, kind="text-generator", config=config, parents={"recommender": own}
    ) as staging:
        (staging / "weights").write_text("none")
    return open_artifact(made), own


def test_an_extended_recommender_is_loaded_with_its_own_catalog(
    generator: tuple[Artifact, Path], demo_world: Path, tmp_path: Path
) -> None:
    made, own = generator
    catalog, ranker = load_catalog_and_ranker(made)
    assert (catalog.name, ranker) == ("wardrobe", own)
    hashes = ["an earlier one's", artifact_hash(own), "a later one's"]
    extended = recommender(tmp_path / "extended", demo_world / "home", hashes)
    catalog, ranker = load_catalog_and_ranker(made, recommender=extended)
    assert (catalog.name, ranker) == ("home", extended)
    settings = CatalogConfig(path=str(demo_world / "wardrobe"))
    assert load_catalog_and_ranker(made, settings, extended)[0].name == "wardrobe"


def test_any_other_recommender_is_refused(
    generator: tuple[Artifact, Path], demo_world: Path, tmp_path: Path
) -> None:
    made, own = generator
    assert load_catalog_and_ranker(made, recommender=own)[1] == own
    other = recommender(tmp_path / "other", demo_world / "wardrobe", ["somebody else's"])
    with pytest.raises(VitrineError, match="was not extended from that"):
        load_catalog_and_ranker(made, recommender=other)
