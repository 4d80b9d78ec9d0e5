"""Ranked items for one person: known by id, or unknown with a history, or with none at all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.artifacts import open_artifact, read_manifest
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.artifact import train_counts
from finetune.evaluate import tie_keys
from finetune.metrics import ListMeasures, slices_of, summarise
from finetune.ranker import Ranker, load_ranker
from finetune.semantic.artifact import load_semantic_ranker
from finetune.semantic.ranker import SemanticRanker

SEMANTIC = "semantic-ids"


@dataclass
class Recommendations:
    """A list for one person, best first."""

    item_ids: list[str]
    titles: list[str]
    scores: list[float]
    by: str
    """`history`, or `popularity` where there was none to read."""


def catalog_settings(recommender: str | Path) -> tuple[CatalogConfig, SplitConfig]:
    """The catalog and split a recommender was trained on, as its manifest records them."""
    if not str(recommender):
        raise VitrineError(
            "no recommender given; pass the folder that `vitrine finetune` made: --recommender FOLDER"
        )
    folder = Path(recommender)
    kind = SEMANTIC if read_manifest(folder)["kind"] == SEMANTIC else "recommender"
    config = open_artifact(folder, kind).manifest["config"]
    return CatalogConfig(**config["catalog"]), SplitConfig(**config["split"])


def load_any_ranker(
    recommender: str | Path, catalog: Catalog, encoder: str | Path | None = None
) -> Ranker | SemanticRanker:
    """What ranks items, by dense vectors or by semantic ids; the latter need no `encoder`."""
    if read_manifest(Path(recommender))["kind"] == SEMANTIC:
        return load_semantic_ranker(recommender, catalog)
    return load_ranker(recommender, catalog, encoder)


def measure(recommender: str | Path, part: str = "test") -> dict[str, float]:
    """Everything that is measured of a recommender on its `test` or `validation` targets, flat."""
    if part not in ("test", "validation"):
        raise VitrineError(f"part is {part!r}; use test or validation")
    catalog_config, split_config = catalog_settings(recommender)
    catalog, split = load_split(catalog_config, split_config)
    targets = split.test if part == "test" else split.validation
    if not len(targets):
        raise VitrineError(f"the split of {catalog.name} has no {part} targets; nothing to measure")
    ranker = load_any_ranker(recommender, catalog)
    ranking = ranker.rank_targets(catalog, targets, measures=ListMeasures.of(catalog, split))
    return summarise(ranking, slices_of(catalog, split, targets))


def history_of(catalog: Catalog, user: str | None, history: str | None) -> np.ndarray:
    """Item rows, oldest first: a person's whole history, or the named items'."""
    if (user is None) == (history is None):
        raise VitrineError(
            "say for whom: either --user ID, or --history ITEM,ITEM,… (not both); somebody new, of "
            "whom nothing is known, has --history ''"
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
) -> Recommendations:
    """The k items a user is likeliest to want next: none that they already have, unless the recommender
    was fitted with `split.repeats` rank.

    `index`, an artifact of the recommender's (see `finetune.index`), spares a look at every item.
    """
    from finetune.index import open_index

    if k < 1:
        raise VitrineError(f"--k {k} asks for no items; use 1 or more")
    catalog_config, _ = catalog_settings(recommender)
    catalog = load_catalog(catalog_config)
    seen = history_of(catalog, user, history)
    ranker = load_any_ranker(recommender, catalog, encoder)
    if len(seen):
        ranks = ranker
        if index is not None:
            if not isinstance(ranker, Ranker):
                raise VitrineError(
                    f"{recommender} tells items code by code, which needs no index; leave out --index"
                )
            ranks = open_index(index, recommender, ranker)
        ranked, by = ranks.rank(seen, k), "history"
    else:
        counts = train_counts(recommender)
        order = np.lexsort((tie_keys(len(counts)), -counts))[:k]
        ranked, by = [(int(item), float(counts[item])) for item in order], "popularity"
    rows = [item for item, _ in ranked]
    return Recommendations(
        item_ids=[catalog.items[row]["item_id"] for row in rows],
        titles=[catalog.items[row]["title"] or "" for row in rows],
        scores=[score for _, score in ranked],
        by=by,
    )
