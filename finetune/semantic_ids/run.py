"""Semantic ids on one page: an encoder, a domain and settings in, an artifact that tells items out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch

from catalog.artifacts import write_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.memory import PeakMemory
from catalog.splits import Split, Targets, load_split
from finetune.components import build_components
from finetune.config import FinetuneConfig
from finetune.data import FinetuneData
from finetune.evaluate import check_test_targets
from finetune.fitted import Fitted
from finetune.list_metrics import ListMetrics
from finetune.metrics import Ranking, summarize, target_slices
from finetune.recommender import Recommender
from finetune.run import (
    check_targets,
    content_reader,
    counted_items,
    first_content,
    negatives_of,
    whiten,
)
from finetune.selection import BestWeights
from finetune.semantic_ids.artifact import save_model
from finetune.semantic_ids.model import SemanticRecommender
from finetune.semantic_ids.module import SemanticModule
from finetune.semantic_ids.ranker import SemanticRanker
from finetune.semantic_ids.tokenize import SemanticIds, assign_semantic_ids
from finetune.semantic_ids.trie import Trie
from pretrain.artifact import count_parameters
from pretrain.curves import CurveRecorder
from pretrain.run import TrainerFactory
from pretrain.shards import gathered_weights, is_sharded
from pretrain.unused import freeze_unused
from pretrain.work import clear_work, learned_request, work_folder


def run_semantic_ids(config: FinetuneConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Makes identifiers of the items' vectors, learns to tell the next one, ranks the test targets.

    The towers stand still, whatever `transfer` says. Returns the artifact's folder: identifiers,
    weights, dense vectors with their ids, `curves.json`, `test_ranks.npy`, and in the manifest's
    metrics also how the codes are used (`ids/…`) and what the beam does alone (`beam/…`).
    """
    started, memory = perf_counter(), PeakMemory()
    catalog, split = load_split(config.catalog, config.split)
    check_test_targets(catalog, split)
    fitted = fit_semantic_ids(config, catalog, split, output, build_trainer)
    module, progress = fitted.module, config.trainer.progress
    sharded = is_sharded(module)  # then every rank takes each pass through it, with the others
    if fitted.trainer.is_global_zero or sharded:
        made = fitted.ranker(module if sharded else module.cpu())
        list_metrics = ListMetrics.from_split(catalog, split)
        ranking = made.rank_targets(catalog, split.test, list_metrics, progress)
        alone = made.without_cold_candidates().rank_targets(
            catalog, split.test, list_metrics, progress
        )
    with gathered_weights(module.model):
        if fitted.trainer.is_global_zero:
            with write_artifact(
                output,
                kind="semantic-ids",
                config=asdict(config),
                **fitted.made_from,
                split=split.describe(),
                request=learned_request("semantic-ids", asdict(config), **fitted.made_from),
            ) as staging:
                fitted.store(staging, catalog, split, made.item_vectors, ranking)
                save_model(module.model, split.warm_items, staging.path)
                of_beam = summarize(alone, target_slices(catalog, split, split.test))
                staging.metrics["seconds"] = round(perf_counter() - started, 1)
                staging.metrics["peak_mib"] = memory.mib
                for part, figures in (("ids", fitted.ids.metrics), ("beam", of_beam)):
                    for name, value in figures.items():
                        staging.metrics[f"{part}/{name}"] = value
            clear_work(fitted.work)
    fitted.trainer.strategy.barrier()
    return output


@dataclass
class FittedIds(Fitted[SemanticModule]):
    ranker: Callable[[SemanticModule], SemanticRanker]
    ids: SemanticIds


def fit_semantic_ids(
    config: FinetuneConfig,
    catalog: Catalog,
    split: Split,
    output: Path,
    build_trainer: TrainerFactory,
) -> FittedIds:
    """Trains on the training part and keeps the weights that ranked the validation part best."""
    _check(config)
    seed, progress = config.trainer.seed, config.trainer.progress
    pl.seed_everything(seed, verbose=False)
    components = build_components(config, catalog)
    base, parts = components.base, components.parts
    seen_targets = 0 if base is None else check_targets(config, base, catalog, split)
    recommender = Recommender(None, components.history)
    reader = content_reader(config, catalog, parts)
    content = first_content(config, catalog, split, recommender.content_width, components, reader)
    assert content is not None
    learned_items = counted_items(config, split)
    whiten(recommender.adaptor, content, catalog, reader, learned_items)
    with torch.no_grad():
        vectors = recommender.adapt(content)
    ids = assign_semantic_ids(vectors, config.semantic_ids, seed, progress, learned_items)
    trie, codes = Trie(ids.codes, ids.sizes), torch.from_numpy(ids.codes)
    model = SemanticRecommender(recommender, trie, codes, config.semantic_ids.num_layers)
    model.initialize_codes(vectors)

    def ranker(module: SemanticModule) -> SemanticRanker:
        with torch.no_grad():
            dense = recommender.adapt(module.content).float().cpu().numpy()
        repeats = config.split.repeats == "rank"
        return SemanticRanker(module.model, dense, split.warm_items, config.semantic_ids, repeats)

    def rank(module: SemanticModule, targets: Targets) -> Ranking:
        return ranker(module).rank_targets(catalog, targets)

    curves = CurveRecorder(config.trainer.log_every)
    best = BestWeights(rank, split.validation, config.validate_every, config.validation_users)
    made_from: dict[str, Any] = {
        "parents": {} if base is None else {"encoder": base.path},
        "catalog": catalog.fingerprint,
    }
    work = work_folder(output, "semantic-ids", config, "data.rows", **made_from)
    title = f"Semantic ids on {catalog.name}"
    trainer = build_trainer(config.trainer, work, title, callbacks=[curves, best])
    data = FinetuneData(
        catalog,
        split,
        None,
        config.data,
        row_length=components.history.config.max_history,
        seed=seed,
    )
    module = SemanticModule(
        model,
        content,
        torch.from_numpy(split.train_counts),
        config.optimizer,
        config.semantic_ids.dense_loss_weight if config.semantic_ids.num_cold_candidates else 0.0,
        negatives_of(config, catalog.num_items),
    )
    freeze_unused(module, data.brief_batch())
    trained = count_parameters(module, trained_only=True)
    trainer.fit(module, data)
    return FittedIds(
        trainer,
        module,
        best,
        curves,
        trained,
        seen_targets,
        made_from,
        work,
        ranker=ranker,
        ids=ids,
    )


def _check(config: FinetuneConfig) -> None:
    settings = config.semantic_ids
    if config.features in ("id", "content+id", "auto"):
        raise VitrineError(
            f"features '{config.features}' are vectors of ids, of which no semantic ids can be made; "
            "use content, or shuffled or random as controls"
        )
    if config.transfer == "scratch" and config.features != "random":
        raise VitrineError(
            "semantic ids are made of pretrained vectors, of which transfer 'scratch' has none; "
            "use --transfer frozen"
        )
    for name, asked in (
        ("bag_of_words", config.bag_of_words),
        ("missing_modality.percent", config.missing_modality.percent),
    ):
        if asked:
            raise VitrineError(
                f"semantic ids are made of what the whole encoder says of each item; leave out --{name}"
            )
    least = {
        "num_levels": 1,
        "codebook_size": 2,
        "tokenizer_steps": 1,
        "num_layers": 0,
        "beam_size": 20,
        "num_cold_candidates": 0,
    }
    for name, number in least.items():
        given = getattr(settings, name)
        if given < number:
            why = ", because metrics cut lists off at 20" if name == "beam_size" else ""
            raise VitrineError(f"semantic_ids.{name} is {given}; use {number} or more{why}")
