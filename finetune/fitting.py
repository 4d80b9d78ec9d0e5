"""Trains a module on a domain: the one place that assembles curves, validation, work folder and Trainer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from catalog.artifacts import Staging
from catalog.catalog import Catalog
from catalog.splits import Split, Targets
from finetune.baselines.popularity import test_metrics
from finetune.config import FinetuneConfig
from finetune.manifest import COUNTS_FILE
from finetune.metrics import Ranking
from finetune.selection import BestWeights, Validation, trained_weights
from pretrain.artifact import count_parameters
from pretrain.config import TrainerConfig
from pretrain.curves import CurveRecorder
from pretrain.devices import compute_of
from pretrain.run import TrainerFactory
from pretrain.vector_file import save_vectors
from pretrain.vectors_artifact import VECTORS_FILE, write_ids
from pretrain.work import work_folder

Module = TypeVar("Module", bound=pl.LightningModule)


@dataclass(frozen=True)
class FitRequest:
    """What a model is fitted to and how: settings, data, and what builds the Trainer."""

    config: FinetuneConfig
    catalog: Catalog
    split: Split
    output: Path
    """The artifact's folder; checkpoints lie beside it."""
    build_trainer: TrainerFactory


@dataclass(frozen=True)
class TrainingPlan:
    """How a module is trained and validated."""

    kind: str
    """The artifact kind, which names the work folder."""
    title: str
    rank: Callable[[Any, Targets], Ranking]
    """(module, targets) → their ranking."""
    parents: Mapping[str, Path]
    """The artifacts it starts from."""
    seen_targets: int = 0
    """Targets that the encoder was pretrained on."""
    batch_setting: str = "data.rows"
    """The setting that holds each device's batch size."""
    trainer: TrainerConfig | None = None
    """None: that of the config."""
    validation: Validation | None = None
    """None: that of the config, without early stopping."""
    weights: Callable[[Any], Mapping[str, torch.nn.Parameter]] = trained_weights
    """The weights that `rank` ranks with."""
    callbacks: Sequence[pl.Callback] = ()
    """Run before validation."""
    late_callbacks: Sequence[pl.Callback] = ()
    """Run after validation."""


@dataclass
class Fitted(Generic[Module]):
    """A trained module with its best weights, and the record of its training."""

    trainer: pl.Trainer
    module: Module
    best: BestWeights
    curves: CurveRecorder
    trained_parameters: int
    seen_targets: int
    lineage: dict[str, Any]
    """Parents and catalog, as `write_artifact` takes them."""
    work: Path
    """The folder of its checkpoints."""

    def store(
        self, staging: Staging, request: FitRequest, vectors: NDArray[np.float32], ranking: Ranking
    ) -> None:
        """Writes everything but the weights: `vectors` (num_items, width) with their ids, training counts,
        curves, the ranks of the test targets, and the metrics."""
        catalog, split = request.catalog, request.split
        save_vectors(staging.path / VECTORS_FILE, vectors)
        write_ids(staging.path, catalog)
        np.save(staging.path / COUNTS_FILE, split.train_counts, allow_pickle=False)
        np.save(staging.path / "test_ranks.npy", ranking.ranks, allow_pickle=False)
        self.curves.save(staging.path / "curves.json")
        metrics = {
            "parameters": count_parameters(self.module),
            "trained_parameters": self.trained_parameters,
            "best_step": self.best.best_step,
            "seen_targets": self.seen_targets,
            "validation_ndcg@10": self.best.best,
            **compute_of(self.trainer).metrics,
            **test_metrics(ranking, catalog, split),
        }
        staging.metrics.update(metrics)


def train(
    request: FitRequest, plan: TrainingPlan, module: Module, data: pl.LightningDataModule
) -> Fitted[Module]:
    """Trains `module` on `data` by `plan`, and leaves it with the weights of the best validation NDCG@10.

    Nothing is stored but checkpoints in the work folder, from which an interrupted run resumes.
    """
    config, catalog = request.config, request.catalog
    trainer_config = plan.trainer or config.trainer
    curves = CurveRecorder(trainer_config.log_every)
    validation = plan.validation or Validation(config.validate_every, config.validation_users)
    best = BestWeights(plan.rank, request.split.validation, validation, plan.weights)
    lineage = {"parents": dict(plan.parents), "catalog": catalog.fingerprint}
    work = work_folder(request.output, plan.kind, config, plan.batch_setting, **lineage)
    callbacks = [curves, *plan.callbacks, best, *plan.late_callbacks]
    trainer = request.build_trainer(trainer_config, work, plan.title, callbacks=callbacks)
    trained = count_parameters(module, trained_only=True)
    if trained:  # zero-shot trains nothing
        trainer.fit(module, data)
    curves.curves["validation NDCG@10"] = best.curve
    return Fitted(trainer, module, best, curves, trained, plan.seen_targets, lineage, work)
