"""Pretraining on one page: a catalog and settings in, an encoder artifact out."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from catalog.artifacts import write_artifact
from catalog.catalog import Catalog
from catalog.interaction_sketch import InteractionSketch
from catalog.splits import Split, load_split
from pretrain.artifact import EncoderBundle, count_parameters, new_encoder
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.config import PretrainConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.curves import CurveRecorder
from pretrain.data import PretrainData
from pretrain.devices import arrange_convolutions, compute_of
from pretrain.frozen import cache_frozen_features
from pretrain.grad_cache import check_compiled
from pretrain.lora import merge_lora
from pretrain.model_card import encoder_card
from pretrain.module import PretrainModule
from pretrain.projection_init import initialize_projections
from pretrain.quarantine import Quarantine
from pretrain.request import result_request
from pretrain.retrieval import RetrievalReport, hold_out
from pretrain.shards import gathered_weights
from pretrain.towers.build import compile_layers
from pretrain.work import work_folder

TrainerFactory = Callable[..., pl.Trainer]
"""`launch.trainer.build_trainer`: (TrainerConfig, folder, title, callbacks=…) → Trainer."""


def run_pretraining(config: PretrainConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Trains an item encoder on a catalog's items and the training part of its histories.

    Returns the artifact's folder: the item encoder in Hugging Face layout, the sequence encoder in
    `sequence_encoder/`, `curves.json`, and the manifest.
    """
    catalog, split = load_split(config.catalog, config.split)
    pl.seed_everything(config.trainer.seed, verbose=False)
    check_compiled(config.data.compile, config.trainer.strategy)
    bundle = new_encoder(config.encoder, catalog)
    bundle.encoder.train()  # pretrained towers are loaded in evaluation mode
    loader = bundle.content_loader(catalog)
    quarantine = Quarantine(catalog, loader)
    quarantine.check(config.data.max_broken)
    held_out = hold_out(catalog, config.data.held_out)
    curves = CurveRecorder(config.trainer.log_every)
    report = RetrievalReport(loader, split, held_out)
    work = work_folder(output, "encoder", config, "data.rows", catalog=catalog.fingerprint)
    title = f"Pretraining on {catalog.name}"
    trainer = build_trainer(config.trainer, work, title, callbacks=[curves, report])
    edges = catalog.edges if config.objectives.edges else None
    data = PretrainData(catalog, split, loader, config.data, config.trainer.seed, edges, held_out)
    module = _prepare_module(config, bundle, loader, data, trainer.strategy.root_device)
    if config.trainer.max_steps:  # with 0 steps the towers stay as they are
        module.freeze_unused(data.brief_batch())
        trainer.fit(module, data)
    results = _Results(catalog, split, quarantine, curves, report)
    with gathered_weights(bundle.encoder, bundle.sequence_encoder):
        if trainer.is_global_zero:
            figures = {"parameters": count_parameters(module), **compute_of(trainer).metrics}
            _save(config, output, bundle, results, figures, trainer.global_step)
            remove_checkpoints(work)
    trainer.strategy.barrier()
    return output


def _prepare_module(
    config: PretrainConfig,
    bundle: EncoderBundle,
    loader: ItemContentLoader,
    data: PretrainData,
    device: torch.device,
) -> PretrainModule:
    """Caches frozen features, initializes projections, and builds the module that is trained."""
    cache_frozen_features(
        bundle.encoder,
        loader,
        device,
        without_text=bool(config.objectives.language_modeling),
        progress=config.trainer.progress,
    )
    initialize_projections(bundle.encoder, loader, data.readable, config.trainer.seed, device)
    if not config.trainer.strategy.startswith("zero"):  # which flattens the weights
        arrange_convolutions(bundle.encoder, device)
    if config.data.compile:
        compile_layers(bundle.encoder)
    return PretrainModule(
        bundle.encoder,
        bundle.sequence_encoder,
        config.objectives,
        config.optimizer,
        data.log_popularity,
        data.duplicate_ids,
        config.data.num_micro_batches,
        config.data.activation_checkpointing,
        linked=data.rows.edges is not None,
    )


@dataclass(frozen=True)
class _Results:
    """The results of a run beside the weights."""

    catalog: Catalog
    split: Split
    quarantine: Quarantine
    curves: CurveRecorder
    report: RetrievalReport


def _save(
    config: PretrainConfig,
    output: Path,
    bundle: EncoderBundle,
    results: _Results,
    figures: dict[str, Any],
    steps: int,
) -> None:
    """Writes the encoder artifact after `steps` optimizer steps, `figures` among its metrics."""
    catalog, split = results.catalog, results.split
    with write_artifact(
        output,
        kind="encoder",
        config=asdict(config),
        catalog=catalog.fingerprint,
        split=split.describe(),
        metrics={
            **figures,
            "steps": steps,
            "quarantined": len(results.quarantine),
            **{name: points[-1][1] for name, points in results.curves.curves.items()},
        },
        request=result_request("encoder", asdict(config), catalog=catalog.fingerprint),
        card=encoder_card,
    ) as staging:
        merge_lora(bundle.encoder)
        for retrieval in results.report.results:
            print(retrieval, file=sys.stderr, flush=True)
            staging.metrics[f"retrieval/{retrieval.task}"] = retrieval.figures()
        bundle.save(staging.path)
        results.quarantine.save(staging.path)
        sketch = InteractionSketch.empty()
        if steps:  # without steps no interaction was trained on
            sketch = InteractionSketch.training(catalog, split)
        sketch.save(staging.path)
        results.curves.save(staging.path / "curves.json")
