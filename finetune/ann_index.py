"""ANN index: approximate nearest neighbour search over item vectors (faiss), for large catalogs.

The index proposes more items than requested; items of the history are removed, and the rest is scored
again by the recommender's own vectors. So scores are exact, and the only loss is an item that is never
proposed: recall against exact search is measured when the index is built.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.artifacts import Artifact, artifact_hash, open_artifact, write_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.errors import VitrineError
from catalog.memory import release_pages
from catalog.progress import track
from finetune.config import IndexConfig
from finetune.exact_search import search_exact
from finetune.finite import check_finite_scores
from finetune.manifest import catalog_settings, open_recommender
from finetune.ranker import History, Ranker, load_ranker
from finetune.tie_break import tie_keys
from pretrain.devices import Compute

INDEX_FILE = "index.faiss"
CHUNK = 65_536
"""Vectors added per call."""
QUERY_BATCH = 256
"""States per search."""
WIDEN = 10
"""Proposals per requested item."""
CODES = 256
"""Size of a product quantiser's codebook: one byte per sub-vector."""
MIN_PER_CENTROID = 39
"""Training vectors that k-means needs per centroid, as faiss advises."""
SAMPLE = 64
"""Training vectors per centroid, if there are as many."""

MINIMA = {"m": 2, "ef_construction": 1, "ef_search": 0, "nlist": 0, "nprobe": 0, "num_users": 1}
"""The smallest value of each setting."""


class AnnIndex:
    """An ANN index of a ranker's items: as `Ranker.rank`, without scoring every item."""

    def __init__(self, index: Any, ranker: Ranker) -> None:
        """`index`: a faiss index of the ranker's item vectors, in their order."""
        self.index = index
        self.ranker = ranker
        self.keys = tie_keys(len(ranker.item_vectors))

    def rank(self, history: History, k: int) -> list[tuple[int, float]]:
        """The k best proposed items that are not in the history, with their cosines, best first."""
        state = self.ranker.user_states([history])
        return self.search(state, [history], k)[0]

    def search(
        self, states: Tensor, histories: Sequence[History], k: int
    ) -> list[list[tuple[int, float]]]:
        """For each of `states` (n, width), the k best items not in its history (of all items if the ranker
        repeats); ties are broken as in evaluation."""
        excluded = [np.unique(self.ranker.excluded(history)) for history in histories]
        num_items = len(self.ranker.item_vectors)
        num_proposals = min(num_items, WIDEN * k + max(map(len, excluded)))
        _, proposed = self.index.search(states.numpy(), num_proposals)  # −1 for none
        results = []
        for state, rows, seen in zip(states.numpy(), proposed, excluded, strict=True):
            rows = rows[(rows >= 0) & ~np.isin(rows, seen)]
            scores = self.ranker.item_vectors[rows] @ state
            check_finite_scores(torch.from_numpy(scores))
            best = np.lexsort((self.keys[rows], -scores))[:k]
            results.append([(int(rows[row]), float(scores[row])) for row in best])
        return results


def run_indexing(
    config: IndexConfig,
    recommender: str | Path,
    output: Path,
    encoder: str | None = None,
    compute: Compute | None = None,
) -> Path:
    """Builds the `index` artifact of a recommender's item vectors; recall@10 is in its manifest.

    `compute`: device and precision of the user states that recall is measured with.
    Returns the artifact's folder. Raises VitrineError if the catalog is too small for the kind.
    """
    started = perf_counter()
    for name, least in MINIMA.items():
        if getattr(config, name) < least:
            raise VitrineError(f"--{name} is {getattr(config, name)}; use {least} or more")
    artifact = open_recommender(recommender)
    catalog = load_catalog(catalog_settings(artifact)[0])
    ranker = load_ranker(artifact, catalog, encoder, compute)
    index, parameters = build_index(config, ranker.item_vectors)
    seconds = perf_counter() - started
    measured = measure_recall(AnnIndex(index, ranker), catalog, config.num_users)
    with write_artifact(
        output,
        kind="index",
        config=asdict(config),
        parents={"recommender": artifact.path},
        catalog=catalog.fingerprint,
        metrics={
            **parameters,
            **measured,
            **ranker.compute.metrics,
            "seconds": round(seconds, 1),
        },
    ) as staging:
        _faiss().write_index(index, str(staging / INDEX_FILE))
        staging.metrics["bytes"] = (staging / INDEX_FILE).stat().st_size
    return output


def open_index(folder: str | Path, recommender: str | Path | Artifact, ranker: Ranker) -> AnnIndex:
    """The index of a verified artifact; VitrineError if it belongs to another recommender."""
    artifact = open_artifact(Path(folder), kind="index")
    indexed = artifact.manifest["parents"]["recommender"]["hash"]
    is_open = isinstance(recommender, Artifact)
    expected = recommender.hash if is_open else artifact_hash(recommender)
    if indexed != expected:
        name = recommender.path if is_open else recommender
        raise VitrineError(
            f"{folder} is an index of the recommender {indexed[:12]}, but {name} is "
            f"{expected[:12]}; build one: vitrine index {name}"
        )
    return AnnIndex(_faiss().read_index(str(artifact.path / INDEX_FILE)), ranker)


def build_index(config: IndexConfig, vectors: NDArray[np.floating]) -> tuple[Any, dict[str, int]]:
    """A faiss index of `vectors` (num_items, width) by inner product, and its parameters."""
    faiss = _faiss()
    num_items, width = vectors.shape
    if config.kind == "flat":
        index, parameters = faiss.IndexFlatIP(width), {}
    elif config.kind == "hnsw":
        parameters = hnsw_parameters(config, num_items)
        index = faiss.IndexHNSWFlat(width, parameters["m"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.ef_construction
        index.hnsw.efSearch = parameters["ef_search"]
    else:
        parameters = ivf_pq_parameters(config, num_items, width)
        index = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(width),
            width,
            parameters["nlist"],
            parameters["bytes"],
            8,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.nprobe = parameters["nprobe"]
        rng = np.random.default_rng(0)
        chosen = rng.choice(num_items, parameters["sample"], replace=False, shuffle=False)
        index.train(np.asarray(vectors[np.sort(chosen)], dtype=np.float32))
    for start in track(range(0, num_items, CHUNK), "Adding items", shown=num_items > CHUNK):
        index.add(np.array(vectors[start : start + CHUNK], dtype=np.float32))
        release_pages(vectors)
    return index, parameters


def hnsw_parameters(config: IndexConfig, num_items: int) -> dict[str, int]:
    """HNSW's M and efSearch (Malkov and Yashunin, 2018); efSearch grows with the graph's depth."""
    ef_search = config.ef_search or max(64, 16 * int(np.log2(max(2, num_items))))
    return {"m": config.m, "ef_search": ef_search}


def ivf_pq_parameters(config: IndexConfig, num_items: int, width: int) -> dict[str, int]:
    """IVF-PQ's nlist, code bytes and nprobe (Jégou et al., 2011), and the size of the training sample.

    4 √num_items lists, as faiss advises, as long as k-means has enough to learn them from. A byte
    stands for four dimensions or, where four do not divide the width, for a few more.
    """
    if num_items < CODES * MIN_PER_CENTROID:
        raise VitrineError(
            f"ivf-pq learns {CODES} codes from {MIN_PER_CENTROID} items each at least, and there are "
            f"{num_items:,} items, not {CODES * MIN_PER_CENTROID:,}; use --kind flat or hnsw"
        )
    nlist = config.nlist or min(round(4 * num_items**0.5), num_items // MIN_PER_CENTROID)
    if not 1 <= nlist <= num_items // MIN_PER_CENTROID:
        raise VitrineError(
            f"--nlist {nlist} asks for more lists than {num_items:,} items can fill; use "
            f"{num_items // MIN_PER_CENTROID:,} at most"
        )
    parts = next(parts for parts in range(max(1, width // 4), 0, -1) if width % parts == 0)
    return {
        "nlist": nlist,
        "bytes": parts,
        "nprobe": min(nlist, config.nprobe or max(16, nlist // 16)),
        "sample": min(num_items, SAMPLE * max(nlist, CODES)),
    }


def measure_recall(index: AnnIndex, catalog: Catalog, num_users: int) -> dict[str, float]:
    """Recall@10 of the index against exact search, over up to `num_users` users.

    Also the time of either search per user, in batches.
    """
    ranker, k = index.ranker, 10
    lengths = np.diff(catalog.interactions.offsets)
    known = np.random.default_rng(0).permutation(np.flatnonzero(lengths))[:num_users]
    shares: list[float] = []
    seconds = {"search": 0.0, "exact": 0.0}
    for start in range(0, len(known), QUERY_BATCH):
        histories = [
            catalog.interactions.history(int(user)) for user in known[start : start + QUERY_BATCH]
        ]
        states = ranker.user_states(histories)
        before = perf_counter()
        found = index.search(states, histories, k)
        searched = perf_counter()
        longest = max(map(len, histories))
        _, rows = search_exact(
            states, ranker.item_vectors, min(k + longest, len(ranker.item_vectors))
        )
        seconds["search"] += searched - before
        seconds["exact"] += perf_counter() - searched
        for listed, exact, history in zip(found, rows.numpy(), histories, strict=True):
            best = exact[~np.isin(exact, ranker.excluded(history))][:k]
            hits = np.isin(best, [item for item, _ in listed]).sum()
            shares.append(hits / len(best) if len(best) else 1.0)
    each = {f"{name}_ms": round(1000 * spent / len(known), 3) for name, spent in seconds.items()}
    return {f"recall@{k}": float(np.mean(shares)), "num_users": len(known), **each}


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise VitrineError(
            "an index needs faiss, which is not installed; pip install 'vitrine[retrieval]', or "
            "pip install faiss-cpu"
        ) from error
    # Loaded before torch it brings an OpenMP of its own: as many threads, and no more, in either.
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
