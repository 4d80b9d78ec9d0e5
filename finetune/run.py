"""Fine-tuning on one page: an encoder, a domain and settings in, a recommender artifact out."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from catalog.artifacts import Artifact, write_artifact
from catalog.catalog import Catalog
from catalog.errors import NonFiniteError, VitrineError
from catalog.interaction_sketch import SKETCH_FILE, InteractionSketch
from catalog.memory import PeakMemory
from catalog.splits import Split, Targets, load_split, target_rows
from finetune.artifact import save_weights
from finetune.assembly import AssembledRecommender, assemble
from finetune.cache import CacheRefresh
from finetune.card import recommender_card
from finetune.components import Components, build_components
from finetune.config import Features, FinetuneConfig
from finetune.data import FinetuneData
from finetune.evaluate import check_test_targets
from finetune.fitted import Fitted
from finetune.list_metrics import ListMetrics
from finetune.metrics import Ranking
from finetune.missing_modality import check_missing_modality, filled_content, take_away
from finetune.module import FinetuneModule
from finetune.ranker import Ranker
from finetune.recommender import Adaptor
from finetune.selection import BestWeights
from finetune.transfer import selected_modalities, without_towers
from pretrain.artifact import EncoderBundle, count_parameters
from pretrain.content_loader import ItemContentLoader
from pretrain.curves import CurveRecorder
from pretrain.embed_items import embed_items
from pretrain.frozen import cache_frozen_features
from pretrain.projection_init import initialize_projections
from pretrain.run import TrainerFactory
from pretrain.shards import gathered_weights, is_sharded
from pretrain.vectors_artifact import check_vectors, load_item_vectors
from pretrain.work import clear_work, learned_request, work_folder

TO_CHOOSE_FROM: tuple[Features, ...] = ("content", "content+id")
"""What `features: auto` tries; the first where both rank validation alike."""
LOOKED_AT = 2_000
"""Items looked at to say which modality is missing."""
MOST_IN_SOFTMAX = 200_000
"""Items up to which the loss is told from all of them, unless a setting says otherwise."""


@dataclass
class FittedDomain(Fitted[FinetuneModule]):
    built: AssembledRecommender


def run_finetuning(config: FinetuneConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Trains a sequential recommender on one domain and ranks its test targets.

    Returns the artifact's folder: the trained weights, item vectors with their ids, `curves.json`,
    `test_ranks.npy` (each test target's place) and the metrics in the manifest. Where `features` is
    auto, the artifact is what either setting would have left, its config says which, and the metrics
    what both came to.
    """
    started, memory = perf_counter(), PeakMemory()
    catalog, split = load_split(config.catalog, config.split)
    check_test_targets(catalog, split)
    tried = fit_each(config, catalog, split, output, build_trainer)
    chosen = max(tried, key=lambda features: tried[features].best.best or 0.0)
    fitted = tried[chosen]
    module, built = fitted.module, fitted.built
    sharded = is_sharded(module)  # then every rank takes each pass through it, with the others
    if fitted.trainer.is_global_zero or sharded:
        with torch.no_grad():
            vectors = (module if sharded else module.cpu()).item_vectors().float().cpu().numpy()
        list_metrics = ListMetrics.from_split(catalog, split)
        ranker = Ranker(built.recommender, vectors, config.split.repeats == "rank")
        ranking = ranker.rank_targets(catalog, split.test, list_metrics=list_metrics)
    with gathered_weights(built.recommender):
        if fitted.trainer.is_global_zero:
            with write_artifact(
                output,
                kind="recommender",
                config=asdict(replace(config, features=chosen)),
                **fitted.made_from,
                split=split.describe(),
                request=learned_request("recommender", asdict(config), **fitted.made_from),
                card=recommender_card,
            ) as staging:
                fitted.store(staging, catalog, split, vectors, ranking)
                save_weights(built, config.transfer, staging.path)
                if len(tried) > 1:
                    for name, each in tried.items():
                        staging.metrics[f"validation_ndcg@10/{name}"] = each.best.best
                staging.metrics["seconds"] = round(perf_counter() - started, 1)
                staging.metrics["peak_mib"] = memory.mib
            for each in tried.values():
                clear_work(each.work)
    fitted.trainer.strategy.barrier()
    return output


def fit_each(
    config: FinetuneConfig,
    catalog: Catalog,
    split: Split,
    output: Path,
    build_trainer: TrainerFactory,
) -> dict[Features, FittedDomain]:
    """By their `features`: what `config` asks for, or both that auto chooses between."""
    if config.features != "auto":
        return {config.features: fit(config, catalog, split, output, build_trainer)}
    if not len(split.validation):
        raise VitrineError(
            f"the split of {catalog.name} has no validation targets, and auto chooses by nothing "
            "else; use --features content or content+id"
        )
    if config.trainer.strategy.startswith("zero3") or config.transfer == "zero-shot":
        why = "trains nothing" if config.transfer == "zero-shot" else "keeps no best weights"
        told = config.transfer if config.transfer == "zero-shot" else config.trainer.strategy
        raise VitrineError(
            f"features are to be chosen on validation, but {told} {why}; use --features content or "
            "content+id"
        )
    each = output.with_name(
        output.name + ".work"
    )  # a folder for either, so that none finds the other's
    return {
        features: fit(
            replace(config, features=features), catalog, split, each / features, build_trainer
        )
        for features in TO_CHOOSE_FROM
    }


def fit(
    config: FinetuneConfig,
    catalog: Catalog,
    split: Split,
    output: Path,
    build_trainer: TrainerFactory,
) -> FittedDomain:
    """Trains on the training part and keeps the weights that ranked the validation part best.

    Nothing is stored but checkpoints, beside `output`, which a run that was stopped goes on from.
    """
    _check(config)
    pl.seed_everything(config.trainer.seed, verbose=False)
    counted = counted_items(config, split)
    components = build_components(config, catalog, counted)
    seen_targets = 0
    if config.transfer != "scratch" and components.base is not None:
        seen_targets = check_targets(config, components.base, catalog, split)
    built = assemble(components, config, catalog.num_items)

    parts = components.parts
    width = built.recommender.content_width
    reader = content_reader(config, catalog, parts)
    towers_learn = reader is not None and config.transfer not in ("zero-shot", "frozen")
    if parts is not None and reader is not None and towers_learn:
        cache_frozen_features(parts.encoder, reader, progress=config.trainer.progress)
    if parts is not None and reader is not None and config.transfer == "scratch":
        items = np.arange(catalog.num_items) if counted is None else np.flatnonzero(counted)
        initialize_projections(parts.encoder, reader, items, config.trainer.seed)
    dropped = None
    if reader is not None and config.missing_modality.percent:
        lost = take_away(config.missing_modality, reader, config.trainer.seed)
        dropped = lost if config.missing_modality.imputation == "drop" else None
    content = first_content(config, catalog, split, width, components, reader)
    if content is not None:
        whiten(built.recommender.adaptor, content, catalog, reader, counted)
    if components.vocabulary is not None:
        assert built.recommender.bag_of_words is not None
        said = components.vocabulary.read(catalog, None if reader is None else reader.permutation)
        built.recommender.bag_of_words.set_items(said)
    curves = CurveRecorder(config.trainer.log_every)

    refresh = None
    if towers_learn:
        assert parts is not None
        assert reader is not None
        refresh = CacheRefresh(parts.encoder, reader, config.data.refresh_every)

    def rank(module: FinetuneModule, targets: Targets) -> Ranking:
        if (
            refresh is not None
        ):  # what is judged, and trained on afterwards, is what would be stored
            refresh(module, trainer.global_step)
        with torch.no_grad():
            vectors = module.item_vectors().float().cpu().numpy()
        return Ranker(module.recommender, vectors).rank_targets(catalog, targets)

    best = BestWeights(rank, split.validation, config.validate_every, config.validation_users)
    title = f"Fine-tuning on {catalog.name} ({config.features}, {config.transfer})"
    made_from: dict[str, Any] = {
        "parents": {} if components.base is None else {"encoder": components.base.path},
        "catalog": catalog.fingerprint,
    }
    work = work_folder(output, "recommender", config, "data.rows", **made_from)
    callbacks = [curves, best, *([refresh] if refresh else [])]
    trainer = build_trainer(config.trainer, work, title, callbacks=callbacks)
    data = FinetuneData(
        catalog,
        split,
        reader if towers_learn else None,
        config.data,
        row_length=components.history.config.max_history,
        seed=config.trainer.seed,
        held_out=dropped,
    )
    module = FinetuneModule(
        built.recommender,
        content,
        torch.from_numpy(split.train_counts if dropped is None else split.train_counts * ~dropped),
        config.optimizer,
        config.alignment,
        config.encoder_learning,
        negatives_of(config, catalog.num_items),
    )
    module.freeze_unused(data.brief_batch())
    trained = count_parameters(module, trained_only=True)
    if trained:  # not so in zero-shot
        trainer.fit(module, data)

    if refresh is not None:  # every rank: under ZeRO-3 all take each pass through a tower together
        refresh(module)
    return FittedDomain(
        trainer, module, best, curves, trained, seen_targets, made_from, work, built=built
    )


def counted_items(config: FinetuneConfig, split: Split) -> NDArray[np.bool_] | None:
    """Whose content statistics are computed from, bool (num_items,); None: all items'."""
    return split.warm_items if config.content_statistics == "trained" else None


def whiten(
    adaptor: Adaptor,
    content: torch.Tensor,
    catalog: Catalog,
    reader: ItemContentLoader | None,
    counted: NDArray[np.bool_] | None = None,
) -> None:
    """Fits the adaptor's whitening to `content` (num_items, width), of the items `counted` alone; where
    that cannot be, NonFiniteError says which of the modalities that are read no item has."""
    try:
        adaptor.whiten(content if counted is None else content[torch.from_numpy(counted)])
    except NonFiniteError:
        if reader is None:
            raise
        items = np.arange(min(catalog.num_items, LOOKED_AT))
        read = [
            name for name in reader.kinds if not reader.dropped.get(name, np.zeros(1, bool)).all()
        ]
        found = reader.read(items)
        lacking = [name for name in read if not found[name]["present"].any()]
        if lacking != read:
            raise
        raise NonFiniteError(
            f"no item of {catalog.name} has a modality that is read ({', '.join(read)}), so all content "
            "vectors are the same and whitening has no direction to scale; read another modality "
            "(--modalities), or use --features id --transfer scratch"
        ) from None


def negatives_of(config: FinetuneConfig, num_items: int) -> int | None:
    """Drawn for each step; None for the softmax over the whole catalog."""
    if config.loss == "softmax" or (config.loss == "auto" and num_items <= MOST_IN_SOFTMAX):
        return None
    return 0 if config.loss == "in-batch" else config.negatives


def _check(config: FinetuneConfig) -> None:
    check_missing_modality(config)
    if config.bag_of_words and (config.features == "random" or config.transfer == "zero-shot"):
        told = "random" if config.features == "random" else "zero-shot"
        rule = "is a control without item content" if told == "random" else "trains nothing"
        raise VitrineError(f"'{told}' {rule}, but --bag_of_words learns embeddings; leave it out")
    if config.bag_of_words and config.modalities and "text" not in config.modalities.split(","):
        raise VitrineError(
            f"modalities '{config.modalities}' leaves out the text that --bag_of_words reads; leave out one"
        )
    if config.data.refresh_every < 0:
        raise VitrineError(f"data.refresh_every is {config.data.refresh_every}; give 0 or more")
    if config.vectors and (config.modalities or config.transfer == "scratch"):
        other = (
            f"modalities is '{config.modalities}'" if config.modalities else "transfer is 'scratch'"
        )
        raise VitrineError(
            f"vectors {config.vectors} were embedded by the whole pretrained encoder, but {other}; leave "
            "out --vectors"
        )
    if without_towers(config.features) and config.transfer != "scratch":
        raise VitrineError(
            f"features '{config.features}' have no towers to transfer, but transfer is "
            f"'{config.transfer}'; use --transfer scratch"
        )


def check_targets(config: FinetuneConfig, base: Artifact, catalog: Catalog, split: Split) -> int:
    """How many targets the encoder is known to have been pretrained on; VitrineError if not allowed."""
    if not (base.path / SKETCH_FILE).exists():
        if config.allow_seen:
            return 0
        raise VitrineError(
            f"the encoder {config.encoder} does not say what it was pretrained on (no {SKETCH_FILE}), "
            "so nothing shows that the targets are new to it; pretrain it again, or pass "
            "--allow_seen true"
        )
    rows = np.concatenate(
        [target_rows(catalog.interactions, t) for t in (split.validation, split.test)]
    )
    one_shop = base.manifest["catalog"] == catalog.fingerprint
    decidable, seen = InteractionSketch.load(base.path).check(catalog, rows, one_shop)
    if seen.any() and not config.allow_seen:
        rule = (base.manifest["split"] or {}).get("kind")
        raise VitrineError(
            f"the encoder {config.encoder} was pretrained on {int(seen.sum()):,} of the "
            f"{int(decidable.sum()):,} targets that can be checked; figures on them would prove nothing. "
            f"Use the split it was trained with ({rule}: see split in its manifest.json), or pass "
            "--allow_seen true"
        )
    return int(seen.sum())


def content_reader(
    config: FinetuneConfig, catalog: Catalog, parts: EncoderBundle | None
) -> ItemContentLoader | None:
    """What hands the towers of `parts` each item's content, or, as a control, another item's."""
    if parts is None:
        return None
    reader = parts.content_loader(catalog, _order(config, catalog))
    if config.modalities:
        reader.keep_modalities(selected_modalities(config.modalities, reader.kinds))
    return reader


def _order(config: FinetuneConfig, catalog: Catalog) -> NDArray[np.int64] | None:
    """For the shuffled-features control: whose content each item gets, the same for every arm."""
    if config.features != "shuffled":
        return None
    return np.random.default_rng(7).permutation(catalog.num_items)


def first_content(
    config: FinetuneConfig,
    catalog: Catalog,
    split: Split,
    width: int,
    components: Components,
    reader: ItemContentLoader | None,
) -> torch.Tensor | None:
    """What items are known by before the first step: (num_items, width), or None for ids alone."""
    if config.features == "id":
        return None
    if config.features == "random":
        generator = torch.Generator().manual_seed(7)
        return F.normalize(torch.randn(catalog.num_items, width, generator=generator), dim=-1)
    if config.vectors:
        assert components.base is not None
        made = np.array(load_item_vectors(config.vectors, components.base, catalog))
        check_vectors(made, catalog, config.vectors)
        order = None if reader is None else reader.permutation
        return torch.from_numpy(made if order is None else made[order])
    assert components.parts is not None
    assert reader is not None
    if config.missing_modality.percent and config.missing_modality.imputation not in (
        "mask",
        "drop",
    ):
        shown = config.trainer.progress
        return filled_content(
            config.missing_modality, components.parts.encoder, reader, catalog, split, shown
        )
    content = np.empty((catalog.num_items, width), dtype=np.float32)
    embed_items(components.parts.encoder, reader, content, progress=config.trainer.progress)
    return torch.from_numpy(content)
