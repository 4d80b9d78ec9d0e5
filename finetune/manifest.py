"""What a recommender artifact records beside its weights: catalog and split, item ids, counts, curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalog.artifacts import Artifact, local_folder, open_artifact, read_manifest
from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from pretrain.vectors_artifact import IDS_FILE

SEMANTIC_IDS = "semantic-ids"
"""The artifact kind of recommenders that decode semantic ids."""
COUNTS_FILE = "train_counts.npy"
"""Training interactions of each item: int64 (num_items,)."""


def open_recommender(recommender: str | Path | Artifact) -> Artifact:
    """The verified artifact of a recommender of either kind; one that is open already is returned."""
    if isinstance(recommender, Artifact):
        return recommender
    if not str(recommender):
        raise VitrineError(
            "no recommender given; pass the folder that `vitrine finetune` made: --recommender FOLDER"
        )
    folder = local_folder(recommender)
    kind = SEMANTIC_IDS if read_manifest(folder)["kind"] == SEMANTIC_IDS else "recommender"
    return open_artifact(folder, kind)


def catalog_settings(recommender: str | Path | Artifact) -> tuple[CatalogConfig, SplitConfig]:
    """The catalog and split that a recommender was trained on, from its manifest."""
    config = open_recommender(recommender).manifest["config"]
    return CatalogConfig(**config["catalog"]), SplitConfig(**config["split"])


def serves_repeats(config: Mapping[str, Any]) -> bool:
    """Whether a recommender of this `config` recommends items that are in the history already."""
    return config["split"].get("repeats") == "rank"


def check_ids(artifact: Artifact, catalog: Catalog) -> None:
    """Raises VitrineError unless the artifact's items are those of `catalog`, in its order."""
    ids = pq.read_table(artifact.path / IDS_FILE)["item_id"].to_pylist()
    theirs = list(catalog.items["item_id"])
    if ids == theirs:
        return
    different = sorted(set(ids) ^ set(theirs)) or ["(same ids, another order)"]
    raise VitrineError(
        f"{artifact.path} was made for another catalog than {catalog.folder}: "
        f"{len(different)} item ids differ, e.g. {', '.join(different[:3])}; "
        "pass the catalog it was trained on, let it rank this one's items (vitrine extend), or "
        "fine-tune again"
    )


def check_base(artifact: Artifact, base: Artifact) -> None:
    """Raises VitrineError unless `base` is the encoder the recommender was trained on, by its hash."""
    expected = artifact.manifest["parents"]["encoder"]["hash"]
    if base.hash != expected:
        raise VitrineError(
            f"{artifact.path} was trained on the encoder {expected[:12]}, but {base.path} is "
            f"{base.hash[:12]}; pass the encoder it was trained on"
        )


def train_counts(folder: str | Path) -> NDArray[np.int64]:
    """Training interactions of each item, (num_items,); VitrineError if the artifact lacks them."""
    path = Path(folder) / COUNTS_FILE
    if not path.exists():
        raise VitrineError(
            f"{folder} does not say how popular its items were (no {COUNTS_FILE}: an earlier "
            "version made it); fine-tune again"
        )
    return np.load(path, allow_pickle=False)


def read_curves(folder: Path) -> dict[str, list[list[float]]]:
    """The learning curves of an artifact: name → [[step, value], …]."""
    return json.loads((folder / "curves.json").read_text())
