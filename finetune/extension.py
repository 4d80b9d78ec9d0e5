"""Extends a recommender to a newer catalog without training: new items are embedded by its encoder.

Items of both catalogs keep their vectors bit for bit. Added items (cold start) are embedded by the
recommender's own towers; removed items are no candidates any more.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from pretrain.devices import Compute, on_cpu
from pretrain.embed_items import embed_items
from pretrain.modalities.features import align
from pretrain.vector_file import VectorWriter, open_vectors
from pretrain.vectors_artifact import IDS_FILE, VECTORS_FILE, write_ids

EXTENDS = "extends"
"""Key in an extended recommender's config: the hashes of the recommenders it was extended from."""
BLOCK = 16_384
"""Vectors copied per block."""


@dataclass(frozen=True)
class Extension:
    """The result of an extension: numbers of items and of dropped interactions."""

    path: Path
    kept: int
    added: int
    removed: int
    dropped: int
    """Interactions left out because their item was removed."""


@dataclass(frozen=True)
class _Extended:
    """A recommender artifact and the newer catalog it is extended to."""

    artifact: Artifact
    encoder: str | Path | None
    """Overrides the path of the base encoder."""
    catalog: Catalog
    rows: NDArray[np.int64]
    """(num_items,): the row of each item in the old catalog, -1 for added items."""
    old_vectors: NDArray[np.floating]
    compute: Compute

    @property
    def kept(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.rows >= 0)

    @property
    def added(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.rows < 0)


def extend(
    recommender: str | Path,
    output: str | Path,
    catalog: str = "",
    encoder: str | Path | None = None,
    compute: Compute | None = None,
) -> Extension:
    """Writes a recommender for the items of the folder `catalog`, by default the one it was trained on.

    The folder is read with the settings of the old one. `encoder` overrides the path of the base encoder.
    `compute`: device and precision; None: float32 on the CPU. Raises VitrineError if items are not
    represented by their content.
    """
    started = perf_counter()
    artifact = open_artifact(Path(recommender), kind="recommender")
    config = artifact.manifest["config"]
    _check_extensible(artifact, recommender, output)
    old = CatalogConfig(**config["catalog"])
    # Items that are no longer sold may still occur in histories.
    settings = replace(old, path=catalog or old.path, unknown_items="drop")
    newer = load_catalog(settings)
    rows = align(artifact.path, pq.read_table(artifact.path / IDS_FILE)["item_id"], newer)
    vectors = open_vectors(artifact.path / VECTORS_FILE)
    extended = _Extended(artifact, encoder, newer, rows, vectors, compute or on_cpu())
    parents = {"recommender": artifact.path}
    if not has_own_encoder(config["transfer"]):
        parents["encoder"] = Path(encoder) if encoder else artifact.parent("encoder")
    kept, added = len(extended.kept), len(extended.added)
    result = Extension(Path(output), kept, added, len(vectors) - kept, newer.num_dropped)
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
        _write_vectors(extended, staging.path)
        staging.metrics.update(
            {name: getattr(result, name) for name in ("kept", "added", "removed", "dropped")}
        )
        staging.metrics.update(extended.compute.metrics)
        staging.metrics["seconds"] = round(perf_counter() - started, 1)
    return result


def _check_extensible(artifact: Artifact, recommender: str | Path, output: str | Path) -> None:
    config = artifact.manifest["config"]
    if config["features"] not in ("content", "content+id"):
        raise VitrineError(
            f"{recommender} knows its items by features '{config['features']}', which say nothing of "
            "a new item; fine-tune with --features content or content+id"
        )
    if Path(output).resolve() == artifact.path:
        raise VitrineError(f"{output} is the recommender itself; give another --output")


def _write_vectors(extended: _Extended, folder: Path) -> None:
    """Writes item vectors, copied or embedded, and training counts, 0 for added items."""
    rows, old = extended.rows, extended.old_vectors
    kept, added = extended.kept, extended.added
    store = VectorWriter(folder / VECTORS_FILE, extended.catalog.num_items, old.shape[1])
    for start in range(0, len(kept), BLOCK):
        items = kept[start : start + BLOCK]
        store.write(items, np.asarray(old[rows[items]]))
        release_pages(old)
    if len(added):
        store.write(added, _added_vectors(extended))
    store.close()
    if (extended.artifact.path / COUNTS_FILE).exists():
        counts = np.where(rows >= 0, train_counts(extended.artifact.path)[rows], 0)
        np.save(folder / COUNTS_FILE, counts, allow_pickle=False)


@torch.no_grad()
def _added_vectors(extended: _Extended) -> NDArray[np.float32]:
    """Item vectors (added, width) of the added items."""
    artifact, added, catalog = extended.artifact, extended.added, extended.catalog
    assembled = load_assembled(artifact, extended.encoder)
    recommender = extended.compute.place(assembled.recommender.eval())
    device = extended.compute.device
    modalities = artifact.manifest["config"]["modalities"]
    with extended.compute.autocast():
        content = _content_of(added, catalog, assembled, modalities).to(device)
    if recommender.bag_of_words is not None:
        assert assembled.vocabulary is not None
        bags = assembled.vocabulary.read(catalog.select_items(added))
        recommender.bag_of_words.set_items(bags)
    ids = None
    if recommender.has_separate_ids:
        warm = train_counts(artifact.path) > 0
        ids = impute_cold_embeddings(recommender, content, None, extended.old_vectors, warm)
    elif recommender.id_embeddings is not None:
        # Added to the content: zeros, as for every item without training interactions.
        ids = torch.zeros(len(added), recommender.content_width, device=device)
    with extended.compute.autocast():
        return recommender.adapt(content, ids=ids).float().cpu().numpy()


def _content_of(
    added: NDArray[np.int64], catalog: Catalog, assembled: AssembledRecommender, modalities: str
) -> Tensor:
    """Content embeddings of the added items, (added, content width)."""
    assert assembled.parts is not None
    assert assembled.recommender.encoder is not None
    loader = assembled.parts.content_loader(catalog.select_items(added))
    if modalities:
        loader.keep_modalities(selected_modalities(modalities, loader.kinds))
    content = np.empty((len(added), assembled.recommender.content_width), dtype=np.float32)
    embed_items(assembled.recommender.encoder, loader, content, title="Embedding added items")
    return torch.from_numpy(content)
