"""One baseline on one page: settings in, an artifact with its ranking out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from catalog.artifacts import Artifact, write_artifact
from catalog.catalog import Catalog
from catalog.memory import PeakMemory
from catalog.progress import ProgressDisplay
from catalog.splits import Split, Targets, load_split
from finetune.baselines.item_knn import (
    MOST_KEPT,
    TRIED_K,
    TRIED_SHRINK,
    USUAL_K,
    USUAL_SHRINK,
    ItemKNN,
)
from finetune.baselines.matrix_factorization import (
    MatrixFactorization,
    PairData,
    Pairs,
    WeightAverage,
)
from finetune.baselines.popularity import rank_by_popularity, test_metrics
from finetune.config import FinetuneConfig, ItemKNNConfig, Model
from finetune.evaluate import check_test_targets, rank_targets
from finetune.list_metrics import ListMetrics
from finetune.metrics import Ranking, mean_ndcg
from finetune.run import check_targets
from finetune.selection import BestWeights
from pretrain.artifact import EncoderBundle, count_parameters, open_encoder
from pretrain.curves import CurveRecorder
from pretrain.embed_items import embed_items
from pretrain.run import TrainerFactory
from pretrain.vectors_artifact import check_vectors, load_item_vectors
from pretrain.work import clear_work, learned_request, work_folder

LEAST_STEPS = 50
"""Between two looks at validation, where a few steps make many passes over a small shop."""


@dataclass
class FittedBaseline:
    """A baseline that has learned what it learns."""

    rank: Callable[..., Ranking]
    """(targets, list_metrics=…) → their places."""
    validation_ndcg: float | None = None
    """NDCG@10 of the validation targets, where they were looked at."""
    facts: dict[str, Any] = field(default_factory=dict)
    curves: CurveRecorder | None = None
    """Of what is trained step by step."""


def run_baseline(
    model: Model, config: FinetuneConfig, output: Path, build_trainer: TrainerFactory
) -> Path:
    """Fits a baseline and ranks the test targets. What can be chosen on validation is: a baseline is a
    rival, and a weak one proves nothing.

    Returns the artifact's folder: `test_ranks.npy`, `curves.json` of those that are trained, and the
    metrics in the manifest.
    """
    started, memory = perf_counter(), PeakMemory()
    catalog, split = load_split(config.catalog, config.split)
    check_test_targets(catalog, split)
    fitted = fit_baseline(model, config, catalog, split, output, build_trainer)
    ranking = fitted.rank(split.test, list_metrics=ListMetrics.from_split(catalog, split))
    settings = {"model": model, **asdict(config)}
    parents = {"encoder": Path(config.encoder)} if model == "vbpr" else {}
    with write_artifact(
        output,
        kind="baseline",
        config=settings,
        catalog=catalog.fingerprint,
        parents=parents,
        split=split.describe(),
        request=learned_request("baseline", settings, parents, catalog.fingerprint),
    ) as staging:
        np.save(staging.path / "test_ranks.npy", ranking.ranks, allow_pickle=False)
        if fitted.curves is not None:
            fitted.curves.save(staging.path / "curves.json")
        looked = fitted.validation_ndcg
        staging.metrics.update(
            {
                "parameters": 0,
                "trained_parameters": 0,
                "seen_targets": 0,
                **fitted.facts,
                **({} if looked is None else {"validation_ndcg@10": looked}),
                "seconds": round(perf_counter() - started, 1),
                "peak_mib": memory.mib,
                **test_metrics(ranking, catalog, split),
            }
        )
    return output


def fit_baseline(
    model: Model,
    config: FinetuneConfig,
    catalog: Catalog,
    split: Split,
    output: Path,
    build_trainer: TrainerFactory,
) -> FittedBaseline:
    """Learns from the training part; checkpoints lie beside `output` meanwhile."""
    pl.seed_everything(config.trainer.seed, verbose=False)
    if model == "popularity":
        return FittedBaseline(lambda targets, **_: rank_by_popularity(catalog, split, targets))
    if model == "item-knn":
        return _neighbours(config, catalog, split)
    return _factorised(model, config, catalog, split, output, build_trainer)


def _neighbours(config: FinetuneConfig, catalog: Catalog, split: Split) -> FittedBaseline:
    """Those of the settings, and where these leave k or shrink open, the ones that rank validation best."""
    ks, shrinks = _tried(config.item_knn, catalog, split)
    display = ProgressDisplay("Item neighbours", catalog.num_items * len(shrinks))
    validation = split.validation.sample_users(config.validation_users)
    best: tuple[ItemKNN, float | None, dict[str, Any]] | None = None
    for number, shrink in enumerate(shrinks):

        def show(done: int, before: int = number * catalog.num_items) -> None:
            if config.trainer.progress and display.is_due(before + done):
                display.show(before + done)

        itself = split.config.repeats == "rank"
        most = ItemKNN.fit(catalog, split, max(ks), shrink, show, itself)
        for k in ks:
            fitted = most.truncate(k)
            ndcg = None
            if len(validation):
                ndcg = mean_ndcg(_rank_by_neighbours(fitted, catalog, validation))
            if best is None or (ndcg or 0.0) > (best[1] or 0.0):
                best = fitted, ndcg, {"k": k, "shrink": shrink}
    display.close()
    assert best is not None
    fitted, ndcg, facts = best

    def rank(targets: Targets, **more: Any) -> Ranking:
        return _rank_by_neighbours(fitted, catalog, targets, **more)

    return FittedBaseline(rank, ndcg, facts)


def _tried(
    config: ItemKNNConfig, catalog: Catalog, split: Split
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Which k and shrink are tried: one of each where settings name it or nothing can choose."""
    can_choose = len(split.validation) > 0
    ks = [k for k in TRIED_K if k * catalog.num_items <= MOST_KEPT] or [TRIED_K[0]]
    usual = min(USUAL_K, ks[-1])
    shrinks = TRIED_SHRINK if can_choose else (USUAL_SHRINK,)
    return (
        (config.k,) if config.k is not None else tuple(ks) if can_choose else (usual,),
        (config.shrink,) if config.shrink is not None else shrinks,
    )


def _rank_by_neighbours(
    fitted: ItemKNN, catalog: Catalog, targets: Targets, **more: Any
) -> Ranking:
    # Each call reads whole histories and their neighbours, so there had better be few.
    return rank_targets(
        fitted.scorer(catalog, targets), catalog, targets, items_chunk=16_384, **more
    )


def _factorised(
    model: Model,
    config: FinetuneConfig,
    catalog: Catalog,
    split: Split,
    output: Path,
    build_trainer: TrainerFactory,
) -> FittedBaseline:
    """Trained until validation has not improved for a while; the best average of weights is kept."""
    settings, trainer_config = config.matrix_factorization, config.trainer
    content, parents, seen_targets = None, {}, 0
    if model == "vbpr":
        base, parts = open_encoder(config.encoder)
        parents = {"encoder": base.path}
        seen_targets = check_targets(config, base, catalog, split)
        content = _content(config, base, parts, catalog)
    pairs = Pairs(catalog, split, settings.batch_size, trainer_config.seed)
    devices = trainer_config.devices * trainer_config.nodes * trainer_config.accumulate
    steps = -(-len(pairs) // devices)  # of a pass
    module = MatrixFactorization(catalog.num_users, catalog.num_items, settings, content)

    def rank(module: MatrixFactorization, targets: Targets, **more: Any) -> Ranking:
        with torch.no_grad():
            return rank_targets(module.scorer(targets, split), catalog, targets, **more)

    curves = CurveRecorder(trainer_config.log_every)
    best = BestWeights(
        rank,
        split.validation,
        max(settings.validate_every_epochs * steps, LEAST_STEPS),
        config.validation_users,
        settings.patience,
        lambda module: dict(module.averaged.named_parameters()),
    )
    work = work_folder(
        output,
        model,
        config,
        "matrix_factorization.batch_size",
        catalog=catalog.fingerprint,
        parents=parents,
    )
    trainer = build_trainer(
        replace(trainer_config, max_steps=settings.max_epochs * steps),
        work,
        f"{model} on {catalog.name}, until validation stops improving",
        callbacks=[curves, WeightAverage(), best],
    )
    trainer.fit(module, PairData(pairs))
    clear_work(work)
    parameters = count_parameters(module, trained_only=True)
    curves.curves["validation NDCG@10"] = best.curve
    return FittedBaseline(
        partial(rank, module.cpu()),
        best.best,
        {
            "parameters": parameters,
            "trained_parameters": parameters,
            "seen_targets": seen_targets,
            "best_step": best.best_step,
            "passes": round(trainer.global_step / steps, 1),
        },
        curves,
    )


def _content(
    config: FinetuneConfig, base: Artifact, parts: EncoderBundle, catalog: Catalog
) -> torch.Tensor:
    """What the pretrained encoder makes of every item, centred, in units of its spread: float32
    (num_items, width)."""
    vectors = np.empty((catalog.num_items, parts.sequence_encoder.config.width), dtype=np.float32)
    if config.vectors:
        vectors[:] = load_item_vectors(config.vectors, base, catalog)
        check_vectors(vectors, catalog, config.vectors)
    else:
        shown = config.trainer.progress
        embed_items(parts.encoder, parts.content_loader(catalog), vectors, progress=shown)
    return standardised(torch.from_numpy(vectors))


def standardised(vectors: torch.Tensor) -> torch.Tensor:
    """Less their mean, over the standard deviation of all their entries."""
    centred = vectors - vectors.mean(dim=0)
    return centred / centred.std().clamp(min=1e-6)
