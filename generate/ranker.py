"""The catalog and the recommender a generator works with: its own, or one extended from it."""

from pathlib import Path

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.extension import EXTENDS
from finetune.ranker import Ranker, load_ranker


def load_catalog_and_ranker(
    generator: Artifact, catalog: CatalogConfig | None = None, recommender: str | Path = ""
) -> tuple[Catalog, Ranker]:
    """`catalog` overrules where items are read; `recommender` names one extended from the generator's.

    Raises VitrineError for any other recommender: its vectors would mean something else.
    """
    made_with = generator.manifest["parents"]["recommender"]["hash"]
    if not recommender:
        settings = CatalogConfig(**generator.manifest["config"]["catalog"])
        read = load_catalog(catalog or settings)
        return read, load_ranker(generator.parent("recommender"), read)
    given = open_artifact(Path(recommender), kind="recommender")
    config = given.manifest["config"]
    if made_with not in (given.hash, *config.get(EXTENDS, [])):
        raise VitrineError(
            f"{generator.path} was trained with the recommender {made_with[:12]}, and {recommender} "
            "was not extended from that; pass one that was (vitrine extend)"
        )
    read = load_catalog(catalog or CatalogConfig(**config["catalog"]))
    return read, load_ranker(given.path, read)
