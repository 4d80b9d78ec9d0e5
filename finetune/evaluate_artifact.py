"""Full ranking of the targets of a stored recommender: all metrics, by slices of the targets."""

from pathlib import Path

from catalog.artifacts import Artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.list_metrics import ListMetrics
from finetune.manifest import SEMANTIC_IDS, catalog_settings, open_recommender
from finetune.metrics import summarize, target_slices
from finetune.ranker import Ranker, load_ranker
from finetune.semantic_ids.artifact import load_semantic_ranker
from finetune.semantic_ids.ranker import SemanticRanker
from pretrain.devices import Compute


def load_any_ranker(
    recommender: str | Path | Artifact,
    catalog: Catalog,
    encoder: str | Path | None = None,
    compute: Compute | None = None,
) -> Ranker | SemanticRanker:
    """The ranker of either kind of recommender artifact; semantic ids need no `encoder`."""
    artifact = open_recommender(recommender)
    if artifact.kind == SEMANTIC_IDS:
        return load_semantic_ranker(artifact, catalog, compute)
    return load_ranker(artifact, catalog, encoder, compute)


def evaluate_recommender(
    recommender: str | Path, part: str = "test", compute: Compute | None = None
) -> dict[str, float]:
    """All metrics of a recommender on its `test` or `validation` targets, as a flat table.

    `compute`: device and precision; None: float32 on the CPU.
    """
    if part not in ("test", "validation"):
        raise VitrineError(f"part is {part!r}; use test or validation")
    artifact = open_recommender(recommender)
    catalog_config, split_config = catalog_settings(artifact)
    catalog, split = load_split(catalog_config, split_config)
    targets = split.test if part == "test" else split.validation
    if not len(targets):
        raise VitrineError(f"the split of {catalog.name} has no {part} targets; nothing to measure")
    ranker = load_any_ranker(artifact, catalog, compute=compute)
    list_metrics = ListMetrics.from_split(catalog, split)
    ranking = ranker.rank_targets(catalog, targets, list_metrics=list_metrics)
    return summarize(ranking, target_slices(catalog, split, targets))
