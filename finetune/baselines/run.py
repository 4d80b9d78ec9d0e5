"""One baseline on one page: settings in, an artifact with its ranking out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from catalog.artifacts import write_artifact
from catalog.catalog import Catalog
from catalog.memory import PeakMemory
from catalog.progress import ProgressDisplay
from catalog.splits import Split, Targets, load_split
from finetune.baselines.factorisation import Factorisation, PairData, Pairs
from finetune.baselines.neighbours import ItemNeighbours
from finetune.baselines.popularity import figures_of_test, rank_by_popularity
from finetune.config import FinetuneConfig, Model
from finetune.evaluate import check_test_targets, rank_targets
from finetune.metrics import ListMeasures, Ranking, mean_ndcg
from finetune.selection import BestWeights
from pretrain.artifact import count_parameters, open_encoder
from pretrain.config import ReaderConfig
from pretrain.curves import CurveRecorder
from pretrain.embed import check_vectors, embed_items, vectors_made_with
from pretrain.run import TrainerFactory
from pretrain.work import clear_work, learned_request, work_folder


@dataclass
class FittedBaseline:
    """A baseline that has learned what it learns."""

    rank: Callable[..., Ranking]
    """(targets, measures=…) → their places."""
    validation_ndcg: float | None = None
    """NDCG@10 of the validation targets, where they were looked at."""
    facts: dict[str, Any] = field(default_factory=dict)


def run_baseline(
    model: Model, config: FinetuneConfig, output: Path, build_trainer: TrainerFactory
) -> Path:
    """Fits a baseline by the settings a recommender would have, and ranks the test targets.

    Those that are trained take as many steps, on as many interactions each, with the same width.
    Returns the artifact's folder: `test_ranks.npy` and the metrics in the manifest.
    """
    started, memory = perf_counter(), PeakMemory()
    catalog, split = load_split(config.catalog, config.split)
    check_test_targets(catalog, split)
    fitted = fit_baseline(model, config, catalog, split, output, build_trainer)
    ranking = fitted.rank(split.test, measures=ListMeasures.of(catalog, split))
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
                **figures_of_test(ranking, catalog, split),
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
    display = ProgressDisplay("Item neighbours", catalog.num_items)

    def show(done: int) -> None:
        if config.trainer.progress and display.is_due(done):
            display.show(done)

    fitted = ItemNeighbours.fit(catalog, split, config.neighbours, progress=show)
    display.close()

    def rank(targets: Targets, **more: Any) -> Ranking:
        # Each call reads whole histories and their neighbours, so there had better be few.
        score = fitted.scorer(catalog, targets)
        return rank_targets(score, catalog, targets, items_chunk=16_384, **more)

    looked = mean_ndcg(rank(split.validation)) if len(split.validation) else None
    return FittedBaseline(rank, looked)


def _factorised(
    model: Model,
    config: FinetuneConfig,
    catalog: Catalog,
    split: Split,
    output: Path,
    build_trainer: TrainerFactory,
) -> FittedBaseline:
    features, width, length = None, config.width, (config.user or ReaderConfig()).max_history
    parents = {}
    if model == "vbpr":
        base, parts = open_encoder(config.encoder)
        parents = {"encoder": base.path}
        width = parts.history.config.width
        vectors = np.empty((catalog.num_items, width), dtype=np.float32)
        if config.vectors:
            vectors[:] = vectors_made_with(config.vectors, base, catalog)
            check_vectors(vectors, catalog, config.vectors)
        else:
            shown = config.trainer.progress
            embed_items(parts.encoder, parts.reader(catalog), vectors, progress=shown)
        centred = torch.from_numpy(vectors - vectors.mean(axis=0))
        features = centred / centred.std().clamp(min=1e-6)
    known = split.train_end > 0
    module = Factorisation(catalog.num_users, catalog.num_items, width, config.optimizer, features)

    def rank(module: Factorisation, targets: Targets, **more: Any) -> Ranking:
        with torch.no_grad():
            return rank_targets(module.cpu().scorer(targets, known), catalog, targets, **more)

    curves = CurveRecorder(config.trainer.log_every)
    best = BestWeights(rank, split.validation, config.validate_every, config.validation_people)
    work = work_folder(
        output, model, config, "data.rows", catalog=catalog.fingerprint, parents=parents
    )
    title = f"{model} on {catalog.name}"
    trainer = build_trainer(config.trainer, work, title, callbacks=[curves, best])
    pairs = Pairs(catalog, split, config.data.rows * length, config.trainer.seed)
    trainer.fit(module, PairData(pairs))
    clear_work(work)
    parameters = count_parameters(module)
    return FittedBaseline(
        partial(rank, module),
        best.best,
        {
            "parameters": parameters,
            "trained_parameters": parameters,
            "best_step": best.best_step,
        },
    )
