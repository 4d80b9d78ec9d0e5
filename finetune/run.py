"""Fine-tuning on one page: an encoder, a domain and settings in, a recommender artifact out."""

from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter

import torch

from catalog.artifacts import write_artifact
from catalog.memory import PeakMemory
from catalog.splits import load_split
from finetune.artifact import save_weights
from finetune.card import recommender_card
from finetune.config import FinetuneConfig
from finetune.evaluate import check_test_targets
from finetune.fit import fit_each
from finetune.fitting import FitRequest
from finetune.list_metrics import ListMetrics
from finetune.ranker import Ranker
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.devices import training_device
from pretrain.request import result_request
from pretrain.run import TrainerFactory
from pretrain.shards import gathered_weights, is_sharded


def run_finetuning(config: FinetuneConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Trains a sequential recommender on one domain and ranks its test targets.

    Returns the artifact's folder: the trained weights, item vectors with their ids, `curves.json`,
    `test_ranks.npy` (the rank of each test target) and the metrics in the manifest. With `features`
    auto the artifact is that of the better candidate, named in its config, and the metrics hold the
    validation NDCG@10 of both.
    """
    started, memory = perf_counter(), PeakMemory()
    catalog, split = load_split(config.catalog, config.split)
    check_test_targets(catalog, split)
    request = FitRequest(config, catalog, split, output, build_trainer)
    candidates = fit_each(request)
    chosen = max(candidates, key=lambda name: candidates[name].training.best.best or 0.0)
    training, assembled = candidates[chosen].training, candidates[chosen].assembled
    module, lineage = training.module, training.lineage
    sharded = is_sharded(module)  # then every rank takes part in each forward pass
    vectors, ranking = None, None
    if training.trainer.is_global_zero or sharded:
        with torch.no_grad():
            if not sharded:
                module.to(training_device(config.trainer))
            vectors = module.item_vectors().float().cpu().numpy()
        list_metrics = ListMetrics.from_split(catalog, split)
        ranker = Ranker(assembled.recommender, vectors, config.split.repeats == "rank")
        ranking = ranker.rank_targets(catalog, split.test, list_metrics=list_metrics)
    with gathered_weights(assembled.recommender):
        if training.trainer.is_global_zero:
            with write_artifact(
                output,
                kind="recommender",
                config=asdict(replace(config, features=chosen)),
                **lineage,
                split=split.describe(),
                request=result_request("recommender", asdict(config), **lineage),
                card=recommender_card,
            ) as staging:
                assert vectors is not None
                assert ranking is not None
                training.store(staging, request, vectors, ranking)
                save_weights(assembled, config.transfer, staging.path)
                if len(candidates) > 1:
                    for name, each in candidates.items():
                        staging.metrics[f"validation_ndcg@10/{name}"] = each.training.best.best
                staging.metrics["seconds"] = round(perf_counter() - started, 1)
                staging.metrics["peak_mib"] = memory.mib
            for each in candidates.values():
                remove_checkpoints(each.training.work)
    training.trainer.strategy.barrier()
    return output
