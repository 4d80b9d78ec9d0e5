"""One baseline on one page: settings in, an artifact with its ranking out."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
import pytorch_lightning as pl

from catalog.artifacts import write_artifact
from catalog.memory import PeakMemory
from catalog.splits import load_split
from finetune.baselines.fit_item_knn import fit_item_knn
from finetune.baselines.fit_matrix_factorization import fit_matrix_factorization
from finetune.baselines.fitted import FittedBaseline
from finetune.baselines.popularity import rank_by_popularity, test_metrics
from finetune.config import FinetuneConfig, Model
from finetune.evaluate import check_test_targets
from finetune.fitting import FitRequest
from finetune.list_metrics import ListMetrics
from pretrain.request import result_request
from pretrain.run import TrainerFactory


def run_baseline(
    model: Model, config: FinetuneConfig, output: Path, build_trainer: TrainerFactory
) -> Path:
    """Fits a baseline and ranks the test targets. Its hyperparameters are selected on validation as far as
    possible, because a weak baseline proves nothing.

    Returns the artifact's folder: `test_ranks.npy`, `curves.json` of trained ones, and the metrics in
    the manifest.
    """
    started, memory = perf_counter(), PeakMemory()
    catalog, split = load_split(config.catalog, config.split)
    check_test_targets(catalog, split)
    fitted = fit_baseline(model, FitRequest(config, catalog, split, output, build_trainer))
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
        request=result_request("baseline", settings, parents, catalog.fingerprint),
    ) as staging:
        np.save(staging.path / "test_ranks.npy", ranking.ranks, allow_pickle=False)
        if fitted.curves is not None:
            fitted.curves.save(staging.path / "curves.json")
        ndcg = fitted.validation_ndcg
        staging.metrics.update(
            {
                "parameters": 0,
                "trained_parameters": 0,
                "seen_targets": 0,
                **fitted.metrics,
                **({} if ndcg is None else {"validation_ndcg@10": ndcg}),
                "seconds": round(perf_counter() - started, 1),
                "peak_mib": memory.mib,
                **test_metrics(ranking, catalog, split),
            }
        )
    return output


def fit_baseline(model: Model, request: FitRequest) -> FittedBaseline:
    """Fits a baseline to the training part; its checkpoints lie beside `request.output` meanwhile."""
    config, catalog, split = request.config, request.catalog, request.split
    pl.seed_everything(config.trainer.seed, verbose=False)
    if model == "popularity":
        return FittedBaseline(lambda targets, **_: rank_by_popularity(catalog, split, targets))
    if model == "item-knn":
        return fit_item_knn(config, catalog, split)
    return fit_matrix_factorization(model, request)
