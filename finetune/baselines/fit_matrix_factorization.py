"""Fits BPR-MF and VBPR with early stopping on validation NDCG@10."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from catalog.artifacts import Artifact
from catalog.catalog import Catalog
from catalog.splits import Targets
from finetune.baselines.fitted import FittedBaseline
from finetune.baselines.matrix_factorization import (
    EMAUpdate,
    MatrixFactorization,
    TripletData,
    TripletSampler,
)
from finetune.config import FinetuneConfig, Model
from finetune.evaluate import rank_targets
from finetune.fitting import FitRequest, TrainingPlan, train
from finetune.leakage import count_seen_targets
from finetune.metrics import Ranking
from finetune.selection import Validation
from pretrain.artifact import EncoderBundle, open_encoder
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.embed_items import embed_items
from pretrain.vectors_artifact import check_vectors, load_item_vectors

MIN_VALIDATE_EVERY = 50
"""Steps between two validations at least; in a small shop a few steps are many epochs."""


def fit_matrix_factorization(model: Model, request: FitRequest) -> FittedBaseline:
    """Trains until validation stops improving (early stopping); the best EMA weights are kept."""
    config, catalog, split = request.config, request.catalog, request.split
    settings, trainer = config.matrix_factorization, config.trainer
    content, parents, seen_targets = None, {}, 0
    if model == "vbpr":
        base, parts = open_encoder(config.encoder)
        parents = {"encoder": base.path}
        seen_targets = count_seen_targets(config, base, catalog, split)
        content = _content_vectors(config, base, parts, catalog)
    sampler = TripletSampler(catalog, split, settings.batch_size, trainer.seed)
    steps_per_epoch = -(-len(sampler) // (trainer.devices * trainer.nodes * trainer.accumulate))
    module = MatrixFactorization(catalog.num_users, catalog.num_items, settings, content)

    def rank(module: MatrixFactorization, targets: Targets, **options: Any) -> Ranking:
        with torch.no_grad():
            return rank_targets(module.scorer(targets, split), catalog, targets, **options)

    plan = TrainingPlan(
        kind=model,
        title=f"{model} on {catalog.name}, until validation stops improving",
        rank=rank,
        parents=parents,
        seen_targets=seen_targets,
        batch_setting="matrix_factorization.batch_size",
        trainer=replace(trainer, max_steps=settings.max_epochs * steps_per_epoch),
        validation=Validation(
            max(settings.validate_every_epochs * steps_per_epoch, MIN_VALIDATE_EVERY),
            config.validation_users,
            settings.patience,
        ),
        weights=lambda module: dict(module.ema_factors.named_parameters()),
        callbacks=[EMAUpdate()],
    )
    fitted = train(request, plan, module, TripletData(sampler))
    remove_checkpoints(fitted.work)
    metrics = {
        "parameters": fitted.trained_parameters,
        "trained_parameters": fitted.trained_parameters,
        "seen_targets": seen_targets,
        "best_step": fitted.best.best_step,
        "epochs": round(fitted.trainer.global_step / steps_per_epoch, 1),
    }
    return FittedBaseline(partial(rank, module.cpu()), fitted.best.best, metrics, fitted.curves)


def _content_vectors(
    config: FinetuneConfig, base: Artifact, parts: EncoderBundle, catalog: Catalog
) -> torch.Tensor:
    """Item embeddings by the pretrained encoder, standardised: float32 (num_items, width)."""
    vectors = np.empty((catalog.num_items, parts.sequence_encoder.config.width), dtype=np.float32)
    if config.vectors:
        vectors[:] = load_item_vectors(config.vectors, base, catalog)
        check_vectors(vectors, catalog, config.vectors)
    else:
        shown = config.trainer.progress
        embed_items(parts.encoder, parts.content_loader(catalog), vectors, progress=shown)
    return standardize(torch.from_numpy(vectors))


def standardize(vectors: torch.Tensor) -> torch.Tensor:
    """`vectors` minus their mean, divided by the standard deviation of all entries."""
    centred = vectors - vectors.mean(dim=0)
    return centred / centred.std().clamp(min=1e-6)
