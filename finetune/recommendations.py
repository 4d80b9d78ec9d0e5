"""Top-k recommendations for one user: by id, by an explicit history, or by popularity (cold start)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.catalog import Catalog, load_catalog
from catalog.errors import VitrineError
from finetune.ann_index import open_index
from finetune.evaluate_artifact import load_any_ranker
from finetune.manifest import catalog_settings, open_recommender, train_counts
from finetune.ranker import Ranker
from finetune.tie_break import tie_keys
from pretrain.devices import Compute


@dataclass
class Recommendations:
    """A recommended list of items for one user, best first."""

    item_ids: list[str]
    titles: list[str]
    scores: list[float]
    source: str
    """`history`, or `popularity` if the history is empty."""


def resolve_history(catalog: Catalog, user: str | None, history: str | None) -> np.ndarray:
    """Item rows, oldest first: the whole history of a user, or the items named in `history`."""
    if (user is None) == (history is None):
        raise VitrineError(
            "give either --user ID or --history ITEM,ITEM,… (not both); a new user without any "
            "interaction has --history ''"
        )
    if user is not None:
        return np.asarray(catalog.interactions.history(catalog.user_index(user)))
    names = [name.strip() for name in (history or "").split(",") if name.strip()]
    return np.array([catalog.item_index(name) for name in names], dtype=np.int64)


def recommend(
    recommender: str | Path,
    *,
    user: str | None = None,
    history: str | None = None,
    k: int = 10,
    encoder: str | Path | None = None,
    index: str | Path | None = None,
    compute: Compute | None = None,
) -> Recommendations:
    """The top-k items for a user: without items of the history, unless the recommender was fitted with
    `split.repeats` rank.

    `index`, an ANN index artifact of this recommender (see `finetune.ann_index`), avoids a score of
    every item. `compute`: device and precision; None: float32 on the CPU.
    """
    if k < 1:
        raise VitrineError(f"--k {k} asks for no items; use 1 or more")
    artifact = open_recommender(recommender)  # its files are hashed once
    catalog = load_catalog(catalog_settings(artifact)[0])
    rows = resolve_history(catalog, user, history)
    ranker = load_any_ranker(artifact, catalog, encoder, compute)
    if len(rows):
        searcher = ranker
        if index is not None:
            if not isinstance(ranker, Ranker):
                raise VitrineError(
                    f"{recommender} decodes semantic ids, which needs no index; leave out --index"
                )
            searcher = open_index(index, artifact, ranker)
        ranked, source = searcher.rank(rows, k), "history"
    else:
        counts = train_counts(artifact.path)
        order = np.lexsort((tie_keys(len(counts)), -counts))[:k]
        ranked, source = [(int(item), float(counts[item])) for item in order], "popularity"
    items = [item for item, _ in ranked]
    return Recommendations(
        item_ids=[catalog.items[item]["item_id"] for item in items],
        titles=[catalog.items[item]["title"] or "" for item in items],
        scores=[score for _, score in ranked],
        source=source,
    )
