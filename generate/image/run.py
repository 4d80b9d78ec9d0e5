"""Trains an image generator: a recommender and a catalog in, an image-generator artifact out."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.ranker import Ranker, load_ranker
from generate.image.codec import Codec, fit_codec
from generate.image.config import ImageConfig
from generate.image.data import ImageData
from generate.image.denoiser import Conditioner, Denoiser, build_denoiser
from generate.image.ip_adapter import AdaptedDenoiser, adapt_to_text, save_adapter
from generate.image.loading import SAMPLING_DEFAULTS
from generate.image.module import ImageModule
from generate.image.near_copies import save_training_image_index
from generate.image.pipeline import PersonalImagePipeline
from generate.image.pretrained_base import check_sides, describe_base, load_base
from generate.image.resolution_buckets import check_image_size, choose_resolution_buckets
from generate.image.sample_grid import GRID_SIDE, SampleGrid
from generate.image.vae import VaeCodec
from generate.next_items import sample_conditions
from generate.purchase_states import sample_purchase_states
from pretrain.artifact import count_parameters
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.curves import CurveRecorder
from pretrain.devices import Compute, compute_of, training_compute
from pretrain.request import result_request
from pretrain.run import TrainerFactory
from pretrain.work import work_folder

KIND = "image-generator"


class Networks(NamedTuple):
    """The networks of an image generator."""

    conditioner: Conditioner
    denoiser: Denoiser | AdaptedDenoiser
    codec: Codec


def run_image_generator(config: ImageConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Trains an image generator on the purchases of the split's training part.

    Returns the artifact's folder: the pipeline in diffusers' layout, `sampling.json` with its default
    sampling settings, `curves.json`, and the manifest.
    """
    check_strategy(config.trainer.strategy)
    catalog, split = load_split(config.catalog, config.split)
    recommender = open_artifact(Path(config.recommender), kind="recommender")
    ranker = load_ranker(recommender, catalog, compute=training_compute(config.trainer))
    seed = config.trainer.seed
    pl.seed_everything(seed, verbose=False)

    curves = CurveRecorder(config.trainer.log_every)
    provenance: dict[str, Any] = {
        "parents": {"recommender": recommender.path},
        "catalog": catalog.fingerprint,
    }
    work = work_folder(output, KIND, config, "batch_size", **provenance)
    networks = build_networks(config, catalog, ranker.width)
    _, item_vectors = sample_conditions(catalog, split, ranker, seed)
    grid = SampleGrid(
        *grid_conditions(ranker), networks.codec, config.sampling, config.sample_every
    )
    title = f"Images of {catalog.name}"
    trainer = build_trainer(config.trainer, work, title, callbacks=[curves, grid])
    purchases = sample_purchase_states(catalog, split, ranker, seed)
    folder = work.parent / "latents"
    data = ImageData(catalog, split, ranker, networks.codec, config, folder, purchases)
    networks.conditioner.fit_whitening(purchases, item_vectors)
    module = ImageModule(networks.conditioner, networks.denoiser, config)
    trainer.fit(module, data)

    if trainer.is_global_zero:
        module.cpu().networks()
        with write_artifact(
            output,
            kind=KIND,
            config=asdict(config),
            **provenance,
            split=split.describe(),
            metrics={
                "parameters": sum(map(count_parameters, networks[:2])),
                "steps": trainer.global_step,
                **compute_of(trainer).metrics,
                "pairs": len(data.pairs),
            },
            request=result_request(KIND, asdict(config), **provenance),
        ) as staging:
            save_generator(staging.path, networks, config)
            save_training_image_index(
                data.images, networks.codec, staging.path, config.trainer.progress
            )
            curves.save(staging / "curves.json")
        remove_checkpoints(work)
    trainer.strategy.barrier()
    return output


def check_strategy(strategy: str) -> None:
    """VitrineError for a strategy that shards the weights: their EMA generates the images."""
    if strategy.startswith("zero3"):
        raise VitrineError(
            f"strategy {strategy!r} shards the weights that generate the images; use zero2 or ddp."
        )


def save_generator(folder: Path, networks: Networks, config: ImageConfig) -> None:
    """Writes the trained networks and the default sampling settings, as `loading` reads them."""
    conditioner, denoiser, codec = networks
    if isinstance(denoiser, AdaptedDenoiser):
        base: Mapping[str, object] = {
            "model": config.model,
            "prompt": config.prompt,
            "resolution_buckets": codec.buckets,
            "lora": asdict(config.lora),
            "guidance": config.distilled_guidance,
        }
        save_adapter(folder, conditioner, denoiser, base)
    else:
        PersonalImagePipeline(conditioner, denoiser, codec).save_pretrained(folder)
    (folder / SAMPLING_DEFAULTS).write_text(json.dumps(asdict(config.sampling), indent=2))


def grid_conditions(ranker: Ranker) -> tuple[Tensor, Tensor]:
    """User states of single items, and embeddings of the items after them: (GRID_SIDE, width) both."""
    items = np.arange(2 * GRID_SIDE) % len(ranker.item_vectors)
    states = ranker.user_states([items[index : index + 1] for index in range(GRID_SIDE)])
    return states, torch.from_numpy(np.array(ranker.item_vectors[items[GRID_SIDE:]]))


def build_networks(config: ImageConfig, catalog: Catalog, width: int) -> Networks:
    """Builds untrained networks for conditions of `width`: from scratch, or on a pretrained base."""
    if not config.model:
        codec = fit_codec(catalog, config)
        return Networks(build_conditioner(config, width), build_denoiser(config), codec)
    base = describe_base(config.model)
    multiple, size = base.side_multiple, config.denoiser
    check_image_size(config, multiple, "the sides of the model's images,")
    buckets = choose_resolution_buckets(catalog, config, multiple)
    check_sides(base, max(max(bucket) for bucket in buckets))
    conditioner = build_conditioner(config, width)
    pipeline = load_base(config.model, weight_dtype(config.trainer.precision))
    denoiser = adapt_to_text(
        pipeline, config.prompt, size.width, config.lora, config.distilled_guidance
    )
    codec = VaeCodec(pipeline.vae, buckets)
    codec.save_memory(config.sampling.vae_slicing, config.sampling.vae_tiling)
    return Networks(conditioner, denoiser, codec)


def weight_dtype(precision: str) -> torch.dtype:
    """In which a frozen base's weights are read: half precision where all weights are trained in it."""
    return Compute(torch.device("cpu"), precision).weight_dtype  # pyright: ignore[reportArgumentType]


def build_conditioner(config: ImageConfig, width: int) -> Conditioner:
    size = config.denoiser
    return Conditioner(width, size.width, size.user_tokens, size.item_tokens)
