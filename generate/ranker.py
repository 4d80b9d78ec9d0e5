"""Loads the catalog and the recommender of a generator: its own, or an extended one."""

from pathlib import Path

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.extension import EXTENDS
from finetune.ranker import Ranker, load_ranker
from pretrain.devices import Compute


def load_catalog_and_ranker(
    generator: Artifact,
    catalog: CatalogConfig | None = None,
    recommender: str | Path = "",
    compute: Compute | None = None,
) -> tuple[Catalog, Ranker]:
    """Loads the catalog and the ranker that a generator artifact was trained with.

    `catalog` overrides where items are read from; `recommender` is the folder of a recommender extended from
    the generator's own; `compute`: device and precision of the ranker. Raises VitrineError for any other
    recommender: its embeddings are not comparable.
    """
    trained_with = generator.manifest["parents"]["recommender"]["hash"]
    if not recommender:
        settings = CatalogConfig(**generator.manifest["config"]["catalog"])
        loaded = load_catalog(catalog or settings)
        return loaded, load_ranker(generator.parent("recommender"), loaded, compute=compute)
    extended = open_artifact(Path(recommender), kind="recommender")
    config = extended.manifest["config"]
    if trained_with not in (extended.hash, *config.get(EXTENDS, [])):
        raise VitrineError(
            f"{generator.path} was trained with the recommender {trained_with[:12]}, and {recommender} "
            "was not extended from that; pass one that was (vitrine extend)"
        )
    loaded = load_catalog(catalog or CatalogConfig(**config["catalog"]))
    return loaded, load_ranker(extended, loaded, compute=compute)
