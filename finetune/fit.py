"""Fits a recommender of dense vectors to a domain, or one for each candidate of `features: auto`."""

from dataclasses import dataclass, replace

import pytorch_lightning as pl
import torch

from catalog.errors import VitrineError
from catalog.splits import Targets
from finetune.assembly import AssembledRecommender, assemble
from finetune.cache import CacheRefresh
from finetune.check_config import check_config
from finetune.components import build_components
from finetune.config import Features
from finetune.data import FinetuneData
from finetune.fitting import FitRequest, Fitted, TrainingPlan, train
from finetune.item_content import ItemContent, learned_items, prepare_content
from finetune.leakage import count_seen_targets
from finetune.metrics import Ranking
from finetune.module import FinetuneModule, StepSettings
from finetune.ranker import Ranker

AUTO_FEATURES: tuple[Features, ...] = ("content", "content+id")
"""The candidates of `features: auto`; the first one if validation ranks both alike."""


@dataclass
class FittedRecommender:
    """A trained module and the recommender in it."""

    training: Fitted[FinetuneModule]
    assembled: AssembledRecommender


def fit_each(request: FitRequest) -> dict[Features, FittedRecommender]:
    """The recommender of the configured `features`, or of each candidate of `auto`."""
    config = request.config
    if config.features != "auto":
        return {config.features: fit(request)}
    if not len(request.split.validation):
        raise VitrineError(
            f"the split of {request.catalog.name} has no validation targets, and auto chooses by nothing "
            "else; use --features content or content+id"
        )
    if config.trainer.strategy.startswith("zero3") or config.transfer == "zero-shot":
        why = "trains nothing" if config.transfer == "zero-shot" else "keeps no best weights"
        setting = config.transfer if config.transfer == "zero-shot" else config.trainer.strategy
        raise VitrineError(
            f"features are to be chosen on validation, but {setting} {why}; use --features content or "
            "content+id"
        )
    # A folder for each, so that neither finds the other's checkpoints.
    folder = request.output.with_name(request.output.name + ".work")
    return {
        features: fit(
            replace(request, config=replace(config, features=features), output=folder / features)
        )
        for features in AUTO_FEATURES
    }


def fit(request: FitRequest) -> FittedRecommender:
    """Trains on the training part; the weights of the best validation NDCG@10 are kept."""
    config, catalog, split = request.config, request.catalog, request.split
    check_config(config)
    pl.seed_everything(config.trainer.seed, verbose=False)
    components = build_components(config, catalog, learned_items(config, split))
    base, seen_targets = components.base, 0
    if config.transfer != "scratch" and base is not None:
        seen_targets = count_seen_targets(config, base, catalog, split)
    assembled = assemble(components, config, catalog.num_items)
    content = prepare_content(request, components, assembled)
    refresh = None
    if content.towers_learn:
        assert components.parts is not None
        assert content.loader is not None
        refresh = CacheRefresh(components.parts.encoder, content.loader, config.data.refresh_every)

    def rank(module: FinetuneModule, targets: Targets) -> Ranking:
        if refresh is not None:  # validation ranks, and training goes on with, the final vectors
            refresh(module, module.trainer.global_step)
        with torch.no_grad():
            vectors = module.item_vectors().float().cpu().numpy()
        return Ranker(module.recommender, vectors).rank_targets(catalog, targets)

    data = FinetuneData(
        catalog,
        split,
        content.loader if content.towers_learn else None,
        config.data,
        row_length=components.history.config.max_history,
        seed=config.trainer.seed,
        held_out=content.held_out,
    )
    module = build_module(request, assembled, content)
    module.freeze_unused(data.brief_batch())
    plan = TrainingPlan(
        kind="recommender",
        title=f"Fine-tuning on {catalog.name} ({config.features}, {config.transfer})",
        rank=rank,
        parents={} if base is None else {"encoder": base.path},
        seen_targets=seen_targets,
        late_callbacks=[refresh] if refresh else [],
    )
    training = train(request, plan, module, data)
    if refresh is not None:  # on every rank: under ZeRO-3 all take part in each pass of a tower
        refresh(module)
    return FittedRecommender(training, assembled)


def build_module(
    request: FitRequest, assembled: AssembledRecommender, content: ItemContent
) -> FinetuneModule:
    """The LightningModule; items that are held out of training count as cold."""
    config, counts = request.config, request.split.train_counts
    if content.held_out is not None:
        counts = counts * ~content.held_out
    return FinetuneModule(
        assembled.recommender,
        content.embeddings,
        torch.from_numpy(counts),
        StepSettings.of(config, request.catalog.num_items),
    )
