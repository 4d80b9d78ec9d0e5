"""A recommender as training left it, and what is stored of every kind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from catalog.artifacts import Staging
from catalog.catalog import Catalog
from catalog.splits import Split
from finetune.baselines.popularity import test_metrics
from finetune.manifest import COUNTS_FILE
from finetune.metrics import Ranking
from finetune.selection import BestWeights
from pretrain.artifact import count_parameters
from pretrain.curves import CurveRecorder
from pretrain.vector_file import save_vectors
from pretrain.vectors_artifact import VECTORS_FILE, write_ids

Module = TypeVar("Module", bound=pl.LightningModule)


@dataclass
class Fitted(Generic[Module]):
    """A model as training left it, and how it came about."""

    trainer: pl.Trainer
    module: Module
    best: BestWeights
    curves: CurveRecorder
    trained_parameters: int
    seen_targets: int
    made_from: dict[str, Any]
    """Parents and catalog, for `write_artifact`."""
    work: Path
    """Where its checkpoints lie."""

    def store(
        self,
        staging: Staging,
        catalog: Catalog,
        split: Split,
        vectors: NDArray[np.float32],
        ranking: Ranking,
    ) -> None:
        """Writes all but the weights: `vectors` (num_items, width) with their ids, how often items were
        taken, curves, the test targets' places, and the figures."""
        save_vectors(staging.path / VECTORS_FILE, vectors)
        write_ids(staging.path, catalog)
        np.save(staging.path / COUNTS_FILE, split.train_counts, allow_pickle=False)
        np.save(staging.path / "test_ranks.npy", ranking.ranks, allow_pickle=False)
        self.curves.curves["validation NDCG@10"] = self.best.curve
        self.curves.save(staging.path / "curves.json")
        figures = {
            "parameters": count_parameters(self.module),
            "trained_parameters": self.trained_parameters,
            "best_step": self.best.best_step,
            "seen_targets": self.seen_targets,
            "validation_ndcg@10": self.best.best,
            **test_metrics(ranking, catalog, split),
        }
        staging.metrics.update(figures)
