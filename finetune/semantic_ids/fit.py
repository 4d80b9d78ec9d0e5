"""Fits a tokenizer and a generative recommender over semantic ids to a domain."""

from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor

from catalog.errors import VitrineError
from catalog.splits import Targets
from finetune.components import build_components
from finetune.config import FinetuneConfig
from finetune.data import FinetuneData
from finetune.fitting import FitRequest, Fitted, TrainingPlan, train
from finetune.item_content import (
    build_content_loader,
    initial_embeddings,
    learned_items,
    whiten,
)
from finetune.leakage import count_seen_targets
from finetune.metrics import Ranking
from finetune.recommender import Recommender
from finetune.semantic_ids.model import SemanticRecommender
from finetune.semantic_ids.module import SemanticModule
from finetune.semantic_ids.ranker import SemanticRanker
from finetune.semantic_ids.tokenize import SemanticIds, assign_semantic_ids
from finetune.semantic_ids.trie import Trie
from pretrain.unused_parameters import freeze_unused


@dataclass
class FittedSemanticIds:
    """A trained module and the semantic ids it generates."""

    training: Fitted[SemanticModule]
    ids: SemanticIds
    request: FitRequest

    def ranker(self, module: SemanticModule) -> SemanticRanker:
        """The ranker of `module`, with dense item vectors by its adaptor."""
        return _ranker(self.request, module)


def fit_semantic_ids(request: FitRequest) -> FittedSemanticIds:
    """Trains on the training part; the weights of the best validation NDCG@10 are kept."""
    config, catalog, split = request.config, request.catalog, request.split
    check_semantic_id_config(config)
    seed = config.trainer.seed
    pl.seed_everything(seed, verbose=False)
    components = build_components(config, catalog)
    base = components.base
    seen_targets = 0 if base is None else count_seen_targets(config, base, catalog, split)
    recommender = Recommender(None, components.history)
    loader = build_content_loader(config, catalog, components.parts)
    content = initial_embeddings(request, components, loader, recommender.content_width)
    assert content is not None
    learned = learned_items(config, split)
    whiten(recommender.adaptor, content, catalog, loader, learned)
    with torch.no_grad():
        vectors = recommender.adapt(content)
    ids = assign_semantic_ids(vectors, config.semantic_ids, seed, config.trainer.progress, learned)
    model = _model(recommender, ids, vectors, config.semantic_ids.num_layers)

    def rank(module: SemanticModule, targets: Targets) -> Ranking:
        return _ranker(request, module).rank_targets(catalog, targets)

    data = FinetuneData(
        catalog,
        split,
        None,
        config.data,
        row_length=components.history.config.max_history,
        seed=seed,
    )
    has_dense_loss = config.semantic_ids.num_cold_candidates > 0
    module = SemanticModule(
        model,
        content,
        torch.from_numpy(split.train_counts),
        config.optimizer,
        config.semantic_ids.dense_loss_weight if has_dense_loss else 0.0,
        config.num_negatives(catalog.num_items),
    )
    freeze_unused(module, data.brief_batch())
    plan = TrainingPlan(
        kind="semantic-ids",
        title=f"Semantic ids on {catalog.name}",
        rank=rank,
        parents={} if base is None else {"encoder": base.path},
        seen_targets=seen_targets,
    )
    return FittedSemanticIds(train(request, plan, module, data), ids, request)


def _model(
    recommender: Recommender, ids: SemanticIds, vectors: Tensor, num_layers: int
) -> SemanticRecommender:
    """The generative recommender over `ids`, whose code embeddings start from item `vectors`."""
    trie, codes = Trie(ids.codes, ids.sizes), torch.from_numpy(ids.codes)
    model = SemanticRecommender(recommender, trie, codes, num_layers)
    model.initialize_codes(vectors)
    return model


def _ranker(request: FitRequest, module: SemanticModule) -> SemanticRanker:
    config, model = request.config, module.model
    with torch.no_grad():
        dense = model.recommender.adapt(module.content).float().cpu().numpy()
    repeats = config.split.repeats == "rank"
    return SemanticRanker(model, dense, request.split.warm_items, config.semantic_ids, repeats)


def check_semantic_id_config(config: FinetuneConfig) -> None:
    """Raises VitrineError for settings that semantic ids cannot be made with."""
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
    for name, value in (
        ("bag_of_words", config.bag_of_words),
        ("missing_modality.percent", config.missing_modality.percent),
    ):
        if value:
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
