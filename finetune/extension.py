"""Items that came after training: a recommender for a newer catalog, nothing trained.

Items known before keep their vectors, to the bit. Those added are read by the recommender's own
towers; those that are gone are no candidates any more.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.artifacts import Artifact, open_artifact, write_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.memory import release_pages
from finetune.artifact import copy_weights, load_assembled
from finetune.assembly import AssembledRecommender
from finetune.card import recommender_card
from finetune.cold_start import impute_cold_embeddings
from finetune.manifest import COUNTS_FILE, train_counts
from finetune.transfer import has_own_encoder, selected_modalities
from pretrain.embed_items import embed_items
from pretrain.modalities.features import align
from pretrain.vector_file import VectorWriter, open_vectors
from pretrain.vectors_artifact import IDS_FILE, VECTORS_FILE, write_ids

EXTENDS = "extends"
"""In an extended recommender's config: the hashes of those it has its weights and vectors from."""
BLOCK = 16_384
"""Vectors copied at a time."""


@dataclass(frozen=True)
class Extension:
    """What became of the items."""

    path: Path
    kept: int
    added: int
    removed: int
    dropped: int
    """Interactions left out because their item is gone."""


def extend(
    recommender: str | Path,
    output: str | Path,
    catalog: str = "",
    encoder: str | Path | None = None,
) -> Extension:
    """Writes a recommender for the items of the folder `catalog`, by default the one it learned from.

    The folder is read as the former one was. `encoder` overrules where the base is looked for.
    Raises VitrineError where items are not known by their content.
    """
    started = perf_counter()
    artifact = open_artifact(Path(recommender), kind="recommender")
    config = artifact.manifest["config"]
    if config["features"] not in ("content", "content+id"):
        raise VitrineError(
            f"{recommender} knows its items by features '{config['features']}', which say nothing of "
            "an item it has not met; fine-tune with --features content or content+id"
        )
    if Path(output).resolve() == artifact.path:
        raise VitrineError(f"{output} is the recommender itself; give another --output")
    former = CatalogConfig(**config["catalog"])
    # What is no longer sold may still stand in histories.
    settings = replace(former, path=catalog or former.path, unknown_items="drop")
    newer = load_catalog(settings)
    rows = align(artifact.path, pq.read_table(artifact.path / IDS_FILE)["item_id"], newer)
    old = open_vectors(artifact.path / VECTORS_FILE)
    kept, added = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    parents = {"recommender": artifact.path}
    if not has_own_encoder(config["transfer"]):
        parents["encoder"] = Path(encoder) if encoder else artifact.parent("encoder")
    found = Extension(Path(output), len(kept), len(added), len(old) - len(kept), newer.num_dropped)
    with write_artifact(
        output,
        kind="recommender",
        config={
            **config,
            "catalog": asdict(settings),
            EXTENDS: [*config.get(EXTENDS, []), artifact.hash],
        },
        parents=parents,
        catalog=newer.fingerprint,
        split=artifact.manifest["split"],
        card=recommender_card,
    ) as staging:
        copy_weights(artifact, staging.path)
        write_ids(staging.path, newer)
        store = VectorWriter(staging / VECTORS_FILE, newer.num_items, old.shape[1])
        for start in range(0, len(kept), BLOCK):
            items = kept[start : start + BLOCK]
            store.write(items, np.asarray(old[rows[items]]))
            release_pages(old)
        if len(added):
            store.write(added, _vectors_of(added, newer, artifact, old, encoder))
        store.close()
        if (artifact.path / COUNTS_FILE).exists():
            counts = np.where(rows >= 0, train_counts(artifact.path)[rows], 0)
            np.save(staging / COUNTS_FILE, counts, allow_pickle=False)
        staging.metrics.update(
            {name: getattr(found, name) for name in ("kept", "added", "removed", "dropped")}
        )
        staging.metrics["seconds"] = round(perf_counter() - started, 1)
    return found


@torch.no_grad()
def _vectors_of(
    added: NDArray[np.int64],
    catalog: Catalog,
    artifact: Artifact,
    old: NDArray[np.floating],
    encoder: str | Path | None,
) -> NDArray[np.float32]:
    """Item vectors (len(added), width) of what the recommender has not met."""
    config = artifact.manifest["config"]
    built = load_assembled(artifact, encoder)
    recommender = built.recommender.eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nn.Module.to(recommender, device)
    content = _content_of(added, catalog, built, config["modalities"]).to(device)
    if recommender.bag_of_words is not None:
        assert built.vocabulary is not None
        recommender.bag_of_words.set_items(built.vocabulary.read(catalog.select_items(added)))
    ids = None
    if recommender.has_separate_ids:
        ids = impute_cold_embeddings(
            recommender, content, None, old, train_counts(artifact.path) > 0
        )
    elif recommender.id_embeddings is not None:
        # Added to the content, ids start at nothing, and whoever never took part stays there.
        ids = torch.zeros(len(added), recommender.content_width, device=device)
    return recommender.adapt(content, ids=ids).cpu().numpy()


def _content_of(
    added: NDArray[np.int64], catalog: Catalog, built: AssembledRecommender, modalities: str
) -> Tensor:
    """What the towers make of them, (len(added), content width)."""
    assert built.parts is not None
    assert built.recommender.encoder is not None
    reader = built.parts.content_loader(catalog.select_items(added))
    if modalities:
        reader.keep_modalities(selected_modalities(modalities, reader.kinds))
    content = np.empty((len(added), built.recommender.content_width), dtype=np.float32)
    embed_items(built.recommender.encoder, reader, content, title="Embedding added items")
    return torch.from_numpy(content)
