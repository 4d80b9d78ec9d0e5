"""Retrieval for catalogs too large to score whole: an index of item vectors (faiss) as an artifact.

The index proposes more items than are asked for; what the person has is left out, and the rest is
scored again by the recommender's own vectors. So scores are exact, and what an index can lose is items
it never proposed: that share is measured when it is made.
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

from catalog.artifacts import artifact_hash, open_artifact, write_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.errors import VitrineError
from catalog.memory import release_pages
from catalog.progress import track
from finetune.config import IndexConfig
from finetune.exact_search import search_exact
from finetune.finite import check_finite_scores
from finetune.manifest import catalog_settings
from finetune.ranker import History, Ranker, load_ranker
from finetune.tie_break import tie_keys

INDEX_FILE = "index.faiss"
CHUNK = 65_536
"""Vectors added at a time."""
PEOPLE = 256
"""States searched for at a time."""
WIDEN = 10
"""An index proposes so many times the items that are wanted."""
CODES = 256
"""Of a product quantiser's codebook: one byte for each part of a vector."""
LEAST = 39
"""Vectors that k-means wants for each of its means, by faiss's own advice."""
SAMPLE = 64
"""Vectors that each mean is learned from, where there are so many."""

SMALLEST = {"effort": 0, "links": 2, "build_effort": 1, "lists": 0, "people": 1}
"""Values of settings."""


class ItemIndex:
    """An index at work: what `Ranker.rank` does, without a look at every item."""

    def __init__(self, index: Any, ranker: Ranker) -> None:
        """`index`: faiss's, of the shop's item vectors, in their order."""
        self.index = index
        self.ranker = ranker
        self.keys = tie_keys(len(ranker.item_vectors))

    def rank(self, history: History, k: int) -> list[tuple[int, float]]:
        """The k best items not in the history that it proposes, with their cosines, best first."""
        state = self.ranker.user_states([history])
        return self.search(state, [history], k)[0]

    def search(
        self, states: Tensor, histories: Sequence[History], k: int
    ) -> list[list[tuple[int, float]]]:
        """For each of `states` (n, width), the k best items that its history does not hold, or of all
        where the shop repeats; equals by the keys of the evaluation."""
        owned = [np.unique(self.ranker.excluded(history)) for history in histories]
        num_items = len(self.ranker.item_vectors)
        wanted = min(num_items, WIDEN * k + max(map(len, owned)))
        _, proposed = self.index.search(states.numpy(), wanted)  # −1 where there are no more
        found = []
        for state, rows, seen in zip(states.numpy(), proposed, owned, strict=True):
            rows = rows[(rows >= 0) & ~np.isin(rows, seen)]
            scores = self.ranker.item_vectors[rows] @ state
            check_finite_scores(torch.from_numpy(scores))
            best = np.lexsort((self.keys[rows], -scores))[:k]
            found.append([(int(rows[place]), float(scores[place])) for place in best])
        return found


def run_indexing(
    config: IndexConfig, recommender: str | Path, output: Path, encoder: str | None = None
) -> Path:
    """Writes an `index` artifact of a recommender's item vectors; recall@10 is in its manifest.

    Returns the artifact's folder. Raises VitrineError where the catalog is too small for the kind.
    """
    started = perf_counter()
    for name, least in SMALLEST.items():
        if getattr(config, name) < least:
            raise VitrineError(f"--{name} is {getattr(config, name)}; use {least} or more")
    catalog = load_catalog(catalog_settings(recommender)[0])
    ranker = load_ranker(recommender, catalog, encoder)
    index, parameters = build_index(config, ranker.item_vectors)
    made = perf_counter() - started
    measured = measure_recall(ItemIndex(index, ranker), catalog, config.people)
    with write_artifact(
        output,
        kind="index",
        config=asdict(config),
        parents={"recommender": recommender},
        catalog=catalog.fingerprint,
        metrics={**parameters, **measured, "seconds": round(made, 1)},
    ) as staging:
        _faiss().write_index(index, str(staging / INDEX_FILE))
        staging.metrics["bytes"] = (staging / INDEX_FILE).stat().st_size
    return output


def open_index(folder: str | Path, recommender: str | Path, ranker: Ranker) -> ItemIndex:
    """A verified index artifact; VitrineError where it is that of another recommender."""
    artifact = open_artifact(Path(folder), kind="index")
    indexed = artifact.manifest["parents"]["recommender"]["hash"]
    asked = artifact_hash(recommender)
    if indexed != asked:
        raise VitrineError(
            f"{folder} is an index of the recommender {indexed[:12]}, but {recommender} is "
            f"{asked[:12]}; make one of it: vitrine index {recommender}"
        )
    return ItemIndex(_faiss().read_index(str(artifact.path / INDEX_FILE)), ranker)


def build_index(config: IndexConfig, vectors: NDArray[np.floating]) -> tuple[Any, dict[str, int]]:
    """A faiss index of `vectors` (num_items, width) by inner product, and what it was made with."""
    faiss = _faiss()
    num_items, width = vectors.shape
    if config.kind == "flat":
        index, parameters = faiss.IndexFlatIP(width), {}
    elif config.kind == "hnsw":
        parameters = hnsw_parameters(config, num_items)
        index = faiss.IndexHNSWFlat(width, parameters["links"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.build_effort
        index.hnsw.efSearch = parameters["effort"]
    else:
        parameters = ivf_pq_parameters(config, num_items, width)
        index = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(width),
            width,
            parameters["lists"],
            parameters["bytes"],
            8,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.nprobe = parameters["effort"]
        rng = np.random.default_rng(0)
        chosen = rng.choice(num_items, parameters["sample"], replace=False, shuffle=False)
        index.train(np.asarray(vectors[np.sort(chosen)], dtype=np.float32))
    for start in track(range(0, num_items, CHUNK), "Adding items", shown=num_items > CHUNK):
        index.add(np.array(vectors[start : start + CHUNK], dtype=np.float32))
        release_pages(vectors)
    return index, parameters


def hnsw_parameters(config: IndexConfig, num_items: int) -> dict[str, int]:
    """Links and effort (Malkov and Yashunin, 2018: M and ef); effort grows by the graph's depth."""
    effort = config.effort or max(64, 16 * int(np.log2(max(2, num_items))))
    return {"links": config.links, "effort": effort}


def ivf_pq_parameters(config: IndexConfig, num_items: int, width: int) -> dict[str, int]:
    """Lists, bytes and effort (Jégou et al., 2011: nlist, m and nprobe), and the training sample.

    4 √num_items lists, as faiss advises, as long as k-means has enough to learn them from. A byte
    stands for four dimensions or, where four do not divide the width, for a few more.
    """
    if num_items < CODES * LEAST:
        raise VitrineError(
            f"ivf-pq learns {CODES} codes from {LEAST} items each at least, and there are "
            f"{num_items:,} items, not {CODES * LEAST:,}; use --kind flat or hnsw"
        )
    lists = config.lists or min(round(4 * num_items**0.5), num_items // LEAST)
    if not 1 <= lists <= num_items // LEAST:
        raise VitrineError(
            f"--lists {lists} asks for more lists than {num_items:,} items can fill; use "
            f"{num_items // LEAST:,} at most"
        )
    parts = next(parts for parts in range(max(1, width // 4), 0, -1) if width % parts == 0)
    return {
        "lists": lists,
        "bytes": parts,
        "effort": min(lists, config.effort or max(16, lists // 16)),
        "sample": min(num_items, SAMPLE * max(lists, CODES)),
    }


def measure_recall(index: ItemIndex, catalog: Catalog, people: int) -> dict[str, float]:
    """Of the ten best items by exact search, the share that the index finds, over some people.

    Also how long either takes for one person, when many are asked for together.
    """
    ranker, k = index.ranker, 10
    lengths = np.diff(catalog.interactions.offsets)
    known = np.random.default_rng(0).permutation(np.flatnonzero(lengths))[:people]
    shares: list[float] = []
    seconds = {"search": 0.0, "exact": 0.0}
    for start in range(0, len(known), PEOPLE):
        histories = [
            catalog.interactions.history(int(user)) for user in known[start : start + PEOPLE]
        ]
        states = ranker.user_states(histories)
        begun = perf_counter()
        found = index.search(states, histories, k)
        searched = perf_counter()
        longest = max(map(len, histories))
        _, rows = search_exact(
            states, ranker.item_vectors, min(k + longest, len(ranker.item_vectors))
        )
        seconds["search"] += searched - begun
        seconds["exact"] += perf_counter() - searched
        for listed, exact, history in zip(found, rows.numpy(), histories, strict=True):
            best = exact[~np.isin(exact, ranker.excluded(history))][:k]
            hits = np.isin(best, [item for item, _ in listed]).sum()
            shares.append(hits / len(best) if len(best) else 1.0)
    each = {f"{name}_ms": round(1000 * spent / len(known), 3) for name, spent in seconds.items()}
    return {f"recall@{k}": float(np.mean(shares)), "people": len(known), **each}


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
