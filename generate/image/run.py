"""The stage on one page: a recommender and a catalog in, an image generator out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.ranker import Ranker, load_ranker
from generate.image.config import ImageConfig
from generate.image.data import ImageData
from generate.image.denoiser import Conditioner, Denoiser, build_denoiser
from generate.image.ip_adapter import (
    AdaptedDenoiser,
    VaeCodec,
    adapt,
    load_base,
    save_adapted,
    side_of,
)
from generate.image.latent_cache import check_sides, choose_resolution_buckets, fit_codec
from generate.image.module import ImageModule
from generate.image.near_copies import save_thumbnails
from generate.image.pipeline import PersonalImagePipeline
from generate.image.sample_grid import SHOWN, SampleGrid
from generate.image.sampler import SAMPLING_DEFAULTS
from generate.image.structure import CHANNELS
from generate.next_items import sample_conditions
from generate.purchase_states import sample_purchase_states
from pretrain.artifact import count_parameters
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.curves import CurveRecorder
from pretrain.request import result_request
from pretrain.run import TrainerFactory
from pretrain.work import work_folder


def run_image_generator(config: ImageConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Learns to draw the catalog's items for its people.

    Returns the artifact's folder: the pipeline in diffusers' layout, `sampling.json` with its default
    scales, `curves.json`, and the manifest.
    """
    if config.trainer.strategy.startswith("zero3"):
        raise VitrineError(
            f"strategy {config.trainer.strategy!r} cuts up the weights that draw the pictures; use zero2 "
            "or ddp."
        )
    catalog, split = load_split(config.catalog, config.split)
    recommender = open_artifact(Path(config.recommender), kind="recommender")
    ranker = load_ranker(recommender.path, catalog)
    pl.seed_everything(config.trainer.seed, verbose=False)

    curves = CurveRecorder(config.trainer.log_every)
    made_from: dict[str, Any] = {
        "parents": {"recommender": recommender.path},
        "catalog": catalog.fingerprint,
    }
    work = work_folder(output, "image-generator", config, "batch_size", **made_from)
    title = f"Pictures of {catalog.name}"
    conditioner, denoiser, codec = new_parts(config, catalog, ranker.width)
    conditions = sample_conditions(catalog, split, ranker, config.trainer.seed)
    grid = SampleGrid(*grid_conditions(ranker), codec, config.sampling, config.sample_every)
    trainer = build_trainer(config.trainer, work, title, callbacks=[curves, grid])
    purchases = sample_purchase_states(catalog, split, ranker, config.trainer.seed)
    data = ImageData(catalog, split, ranker, codec, config, work.parent / "latents", purchases)
    conditioner.standardise(purchases, conditions[1])
    module = ImageModule(
        conditioner,
        denoiser,
        config.optimizer,
        drop_user=config.drop_user,
        drop_item=config.drop_item,
        drop_structure=config.drop_structure,
    )
    trainer.fit(module, data)

    if trainer.is_global_zero:
        networks = module.cpu().networks()
        with write_artifact(
            output,
            kind="image-generator",
            config=asdict(config),
            **made_from,
            split=split.describe(),
            metrics={
                "parameters": count_parameters(denoiser) + count_parameters(conditioner),
                "steps": trainer.global_step,
                "pairs": len(data.pairs),
            },
            request=result_request("image-generator", asdict(config), **made_from),
        ) as staging:
            if isinstance(denoiser, AdaptedDenoiser):
                about = {"model": config.model, "prompt": config.prompt, "frames": codec.frames}
                save_adapted(
                    staging.path, conditioner, denoiser, about | {"lora": asdict(config.lora)}
                )
            else:
                PersonalImagePipeline(*networks, codec).save_pretrained(staging)
            save_thumbnails(data.pictures, codec, staging.path, config.trainer.progress)
            (staging / SAMPLING_DEFAULTS).write_text(json.dumps(asdict(config.sampling), indent=2))
            curves.save(staging / "curves.json")
        remove_checkpoints(work)
    trainer.strategy.barrier()
    return output


def grid_conditions(ranker: Ranker) -> tuple[Tensor, Tensor]:
    """States that single items lead to, and vectors of the items after them: (SHOWN, width) both."""
    items = np.arange(2 * SHOWN) % len(ranker.item_vectors)
    states = ranker.user_states([items[place : place + 1] for place in range(SHOWN)])
    return states, torch.from_numpy(np.array(ranker.item_vectors[items[SHOWN:]]))


def new_parts(config: ImageConfig, catalog: Catalog, width: int) -> tuple[Conditioner, Any, Any]:
    """Conditioner, denoiser and codec as training begins, for conditions of `width`."""
    if not config.model:
        codec = fit_codec(catalog, config)
        return *new_networks(config, width), codec
    base = load_base(config.model)
    side, size = side_of(base), config.denoiser
    check_sides(config, side, "the sides that the model draws,")
    frames = choose_resolution_buckets(catalog, config, side)
    conditioner = Conditioner(width, size.width, size.user_tokens, size.item_tokens)
    denoiser = adapt(base, config.prompt, frames[0], size.width, config.lora)
    return conditioner, denoiser, VaeCodec(base.vae, frames)


def new_networks(config: ImageConfig, width: int) -> tuple[Conditioner, Denoiser]:
    """Untrained networks for conditions of `width`."""
    size = config.denoiser
    conditioner = Conditioner(width, size.width, size.user_tokens, size.item_tokens)
    denoiser = build_denoiser(
        channels=config.codec.channels,
        grid=config.image_size // config.codec.patch_size,
        token_width=size.width,
        width=size.width,
        layers=size.layers,
        heads=size.heads,
        structure=CHANNELS,
    )
    return conditioner, denoiser
