"""Semantic ids on one page: an encoder, a domain and settings in, a generative recommender out."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from catalog.artifacts import write_artifact
from catalog.memory import PeakMemory
from catalog.splits import load_split
from finetune.config import FinetuneConfig
from finetune.evaluate import check_test_targets
from finetune.fitting import FitRequest
from finetune.list_metrics import ListMetrics
from finetune.metrics import summarize, target_slices
from finetune.semantic_ids.artifact import save_model
from finetune.semantic_ids.fit import fit_semantic_ids
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.request import result_request
from pretrain.run import TrainerFactory
from pretrain.shards import gathered_weights, is_sharded


def run_semantic_ids(config: FinetuneConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Fits a tokenizer and a generative recommender over semantic ids, and ranks the test targets.

    The towers stay frozen, whatever `transfer` is. Returns the artifact's folder: semantic ids, weights,
    dense item vectors with their ids, `curves.json`, `test_ranks.npy`; the manifest's metrics also hold
    codebook usage (`ids/…`) and the ranking by beam search alone (`beam/…`).
    """
    started, memory = perf_counter(), PeakMemory()
    catalog, split = load_split(config.catalog, config.split)
    check_test_targets(catalog, split)
    request = FitRequest(config, catalog, split, output, build_trainer)
    fitted = fit_semantic_ids(request)
    training, progress = fitted.training, config.trainer.progress
    module, lineage = training.module, training.lineage
    sharded = is_sharded(module)  # then every rank takes part in each forward pass
    ranker, ranking, beam_ranking = None, None, None
    if training.trainer.is_global_zero or sharded:
        ranker = fitted.ranker(module if sharded else module.cpu())
        list_metrics = ListMetrics.from_split(catalog, split)
        ranking = ranker.rank_targets(catalog, split.test, list_metrics, progress)
        beam_ranking = ranker.without_cold_candidates().rank_targets(
            catalog, split.test, list_metrics, progress
        )
    with gathered_weights(module.model):
        if training.trainer.is_global_zero:
            with write_artifact(
                output,
                kind="semantic-ids",
                config=asdict(config),
                **lineage,
                split=split.describe(),
                request=result_request("semantic-ids", asdict(config), **lineage),
            ) as staging:
                assert ranker is not None
                assert ranking is not None
                assert beam_ranking is not None
                training.store(staging, request, ranker.item_vectors, ranking)
                save_model(module.model, split.warm_items, staging.path)
                beam_metrics = summarize(beam_ranking, target_slices(catalog, split, split.test))
                staging.metrics["seconds"] = round(perf_counter() - started, 1)
                staging.metrics["peak_mib"] = memory.mib
                for part, metrics in (("ids", fitted.ids.metrics), ("beam", beam_metrics)):
                    for name, value in metrics.items():
                        staging.metrics[f"{part}/{name}"] = value
            remove_checkpoints(training.work)
    training.trainer.strategy.barrier()
    return output
