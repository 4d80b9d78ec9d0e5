"""Pretraining on one page: a catalog and settings in, an encoder artifact out."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl

from catalog.artifacts import write_artifact
from catalog.interaction_sketch import InteractionSketch
from catalog.splits import load_split
from pretrain.artifact import count_parameters, new_encoder
from pretrain.card import encoder_card
from pretrain.config import PretrainConfig
from pretrain.curves import CurveRecorder
from pretrain.data import PretrainData
from pretrain.frozen import cache_frozen_features
from pretrain.grad_cache import check_compiled
from pretrain.lora import merge_lora
from pretrain.module import PretrainModule
from pretrain.projection_init import initialize_projections
from pretrain.quarantine import Quarantine
from pretrain.retrieval import RetrievalReport, hold_out
from pretrain.shards import gathered_weights
from pretrain.towers import compile_layers
from pretrain.work import clear_work, learned_request, work_folder

TrainerFactory = Callable[..., pl.Trainer]
"""`launch.trainer.build_trainer`: (TrainerConfig, folder, title, callbacks=…) → Trainer."""


def run_pretraining(config: PretrainConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Trains an item encoder on the training part of a catalog's histories and its content.

    Returns the artifact's folder: the encoder in Hugging Face layout, `history/` beside it,
    `curves.json`, and the manifest.
    """
    catalog, split = load_split(config.catalog, config.split)
    pl.seed_everything(config.trainer.seed, verbose=False)
    check_compiled(config.data.compile, config.trainer.strategy)
    parts = new_encoder(config.encoder, catalog)
    reader = parts.content_loader(catalog)
    quarantine = Quarantine(catalog, reader)
    quarantine.check(config.data.max_broken)
    edges = catalog.edges if config.objectives.edges else None
    held_out = hold_out(catalog, config.data.held_out)
    curves = CurveRecorder(config.trainer.log_every)
    report = RetrievalReport(reader, split, held_out)
    work = work_folder(output, "encoder", config, "data.rows", catalog=catalog.fingerprint)
    title = f"Pretraining on {catalog.name}"
    trainer = build_trainer(config.trainer, work, title, callbacks=[curves, report])
    data = PretrainData(catalog, split, reader, config.data, config.trainer.seed, edges, held_out)
    device = trainer.strategy.root_device
    cache_frozen_features(
        parts.encoder,
        reader,
        device,
        without_text=bool(config.objectives.language_modeling),
        progress=config.trainer.progress,
    )
    initialize_projections(parts.encoder, reader, data.readable, config.trainer.seed, device)
    if config.data.compile:
        compile_layers(parts.encoder)
    module = PretrainModule(
        parts.encoder,
        parts.sequence_encoder,
        config.objectives,
        config.optimizer,
        data.log_popularity,
        data.twins,
        config.data.num_micro_batches,
        config.data.activation_checkpointing,
        linked=edges is not None,
    )
    if config.trainer.max_steps:  # else the towers stay as they came
        module.freeze_unused(data.brief_batch())
        trainer.fit(module, data)
    with gathered_weights(parts.encoder, parts.sequence_encoder):
        if trainer.is_global_zero:
            metrics = {
                "parameters": count_parameters(module),
                "steps": trainer.global_step,
                "quarantined": len(quarantine),
                **{name: points[-1][1] for name, points in curves.curves.items()},
            }
            with write_artifact(
                output,
                kind="encoder",
                config=asdict(config),
                catalog=catalog.fingerprint,
                split=split.describe(),
                metrics=metrics,
                request=learned_request("encoder", asdict(config), catalog=catalog.fingerprint),
                card=encoder_card,
            ) as staging:
                merge_lora(parts.encoder)
                for line in report.found:
                    print(line, file=sys.stderr, flush=True)
                    staging.metrics[f"retrieval/{line.asks}"] = line.figures()
                parts.save(staging.path)
                quarantine.save(staging.path)
                sketch = InteractionSketch.empty()
                if trainer.global_step:  # else nothing was learned from any history
                    sketch = InteractionSketch.training(catalog, split)
                sketch.save(staging.path)
                curves.save(staging.path / "curves.json")
            clear_work(work)
    trainer.strategy.barrier()
    return output
