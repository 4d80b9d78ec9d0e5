"""Tiny pipelines of every family: trained, resumed, drawn from, and compared with diffusers' own calls.

python -m benchmarks.diffusion                 # all, about fifteen minutes on two cores
python -m benchmarks.diffusion --only sd15,flux # prints these rows, records nothing
"""

import argparse
import logging
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.diffusion_configs import PUBLISHED, write_configs
from benchmarks.diffusion_paths import (
    VARIANCE_PRESERVING,
    difference_to_flow,
    difference_to_original_sample,
    landing_difference,
)
from benchmarks.record import write_record
from benchmarks.sources import IMAGES
from benchmarks.untrained_pipelines import save_pipeline
from catalog.demo import build_demo_world
from finetune.config import FinetuneConfig, LoraConfig
from generate.image.config import DenoiserConfig, ImageConfig, SamplingConfig
from generate.image.ip_adapter import ADAPTER_FILE, AdaptedDenoiser, adapt_to_text, load_adapter
from generate.image.loading import load_image_sampler
from generate.image.pretrained_base import denoising_network, load_base
from generate.image.run import run_image_generator
from launch.memory_plan.image_stage import build_image_denoiser
from launch.memory_plan.plan import make_memory_plan
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from tests.stages import small_recommender

STEPS = 2
PIXELS, WIDTH = 32, 16
PROMPT = "a product photo"
DRAW = SamplingConfig(steps=2, reject_near_copies=False)
DEVICE = "h100"


class Stopped(Exception):
    """Ends a training in its second step."""


class StopInSecondStep(pl.Callback):
    """Counts the steps that are taken; with `stops`, ends the run as an error in the second does."""

    def __init__(self, stops: bool) -> None:
        self.stops, self.taken = stops, 0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if self.stops and trainer.global_step == 1:
            raise Stopped
        self.taken += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of pipelines, comma-separated")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for noisy in ("transformers", "diffusers", "pytorch_lightning", "lightning"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    names = [name for name in arguments.only.split(",") if name] or list(PUBLISHED)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRINE_CACHE"] = str(Path(folder) / "cache")
        world = build_demo_world(Path(folder) / "world", num_items=60, num_users=40)
        finetuning = small_recommender(world, Path(folder))
        rows = {name: row(name, finetuning, Path(folder)) for name in names}
    if not arguments.only:
        record(rows)


def row(name: str, finetuning: FinetuneConfig, folder: Path) -> dict[str, Any]:
    """Figures of the pipeline `name`, or what failed."""
    try:
        found = measure(name, finetuning, folder)
    except Exception as error:
        found = {"failed": " ".join(str(error).replace(str(folder), name).split())[:300]}
    print(name, found, flush=True)
    return found


def measure(name: str, finetuning: FinetuneConfig, folder: Path) -> dict[str, Any]:
    base = save_pipeline(name, folder / name)
    config = settings(base, finetuning, folder)
    whole = run_image_generator(config, folder / f"{name}-whole", build_trainer)
    resumed, taken = train_twice(config, folder / f"{name}-resumed")
    found: dict[str, Any] = {
        "resumed_equal": _same_file(whole, resumed, ADAPTER_FILE)
        and _same_file(whole, resumed, "curves.json"),
        "steps_after_the_stop": taken,
        **drawn(whole),
    }
    found["base_equal"] = base_calls_equal(base, whole)
    return found | full_size(name, config, folder)


def settings(base: Path, finetuning: FinetuneConfig, folder: Path) -> ImageConfig:
    """Two steps on the tiny pipeline."""
    return ImageConfig(
        recommender=str(folder / "recommender"),
        catalog=finetuning.catalog,
        split=finetuning.split,
        model=str(base),
        prompt=PROMPT,
        lora=LoraConfig(rank=2, alpha=4),
        image_size=PIXELS,
        denoiser=DenoiserConfig(width=WIDTH, user_tokens=2, item_tokens=2),
        batch_size=4,
        sample_every=0,
        trainer=TrainerConfig(
            max_steps=STEPS, log_every=1, checkpoint_every=1, accelerator="cpu", progress=False
        ),
    )


def train_twice(config: ImageConfig, output: Path) -> tuple[Path, int]:
    """Trains, is stopped in the second step, and trains again: the artifact, and the second run's steps."""
    for stops in (True, False):
        callback = StopInSecondStep(stops)

        def trainer(
            config: Any, work: Path, title: str, callbacks: Any = (), **options: Any
        ) -> Any:
            own = [*callbacks, callback]  # noqa: B023
            return build_trainer(config, work, title, callbacks=own, **options)

        try:
            run_image_generator(config, output, trainer)
        except Stopped:
            assert stops
    return output, callback.taken


def drawn(generator: Path) -> dict[str, Any]:
    """Whether images are drawn, do not depend on their batch, and without conditions on none."""
    sampler = load_image_sampler(generator)
    user, item = str(sampler.catalog.user_ids[0]), sampler.catalog.items["item_id"][1]
    other = str(sampler.catalog.user_ids[1])
    requests = [(user, item), (other, item), (None, item)]
    together = [np.asarray(image) for image in sampler.sample(requests, DRAW)]
    apart = [
        np.asarray(sampler.sample([request], replace(DRAW, seed=seed))[0])
        for seed, request in enumerate(requests)
    ]
    ignored = replace(DRAW, user_guidance_scale=0.0, item_guidance_scale=0.0)
    plain = sampler.sample([(user, item)], ignored)[0]
    unconditional = sampler.sample([(None, None)], DRAW)[0]
    shapes = {image.shape for image in together} == {(PIXELS, PIXELS, 3)}
    return {
        "drawn": shapes and not np.array_equal(together[0], together[1]),
        "same_alone": all(map(np.array_equal, together, apart)),
        "scale_0_unconditional": np.array_equal(np.asarray(plain), np.asarray(unconditional)),
    }


@torch.no_grad()
def base_calls_equal(base: Path, generator: Path) -> bool:
    """Whether the trained denoiser at scale 0 predicts, to the bit, what the network predicts within
    diffusers' own pipeline, at each of its steps."""
    pipeline = load_base(str(base))
    calls = calls_of(pipeline)
    _, denoiser, _ = load_adapter(generator)
    moved = adapt_to_text(load_base(str(base)), PROMPT, WIDTH, LoraConfig(rank=2, alpha=4))
    same = True
    for latents, timesteps, predicted in calls:
        tokens = torch.randn(len(latents), 4, WIDTH)
        with denoiser.without_adapters():
            alone = denoiser._run_base(latents, timesteps, tokens)
        same &= torch.equal(alone, predicted) and torch.equal(
            moved._run_base(latents, timesteps, tokens), predicted
        )
        same &= not torch.equal(denoiser._run_base(latents, timesteps, tokens), predicted)
    return same and len(calls) == 3


def calls_of(pipeline: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(latents, timesteps, prediction) of each call of the network as diffusers draws an image in 3 steps."""
    network, calls = denoising_network(pipeline), []

    def note(_: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        latents = inputs[0] if inputs else named.get("hidden_states", named.get("sample"))
        timestep = named.get("timestep", inputs[1] if len(inputs) > 1 else None)
        assert latents is not None
        assert timestep is not None
        timestep = torch.as_tensor(timestep).float().reshape(-1).expand(len(latents))
        calls.append((latents.clone(), timestep, output[0].clone()))

    hook = network.register_forward_hook(note, with_kwargs=True)
    pipeline.set_progress_bar_config(disable=True)
    name = type(pipeline).__name__
    options: dict[str, Any] = {"guidance_scale": 3.5 if name == "FluxPipeline" else 1.0}
    if name.startswith(("PixArt", "Sana")):
        options |= {"use_resolution_binning": False, "clean_caption": False}
    if name.startswith("Sana"):
        options["complex_human_instruction"] = None
    seeded = torch.Generator().manual_seed(0)
    pipeline(
        PROMPT, height=PIXELS, width=PIXELS, num_inference_steps=3, generator=seeded,
        output_type="latent", **options,
    )  # fmt: skip
    hook.remove()
    return [_unpacked(name, *call) for call in calls]


def _unpacked(
    name: str, latents: Tensor, timesteps: Tensor, output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of Flux latents as images, and timesteps from 0 to 1000; of PixArt without the variance."""
    if name != "FluxPipeline":
        return latents, timesteps, output[:, : latents.shape[1]]
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    whole = [FluxPipeline._unpack_latents(part, PIXELS, PIXELS, 2) for part in (latents, output)]
    return whole[0], 1000 * timesteps, whole[1]


def full_size(name: str, config: ImageConfig, folder: Path) -> dict[str, Any]:
    """Of the published pipeline: trained parameters relative to the base's, and the memory plan."""
    model = write_configs(name, folder / f"{name}-published")
    trainer = TrainerConfig(precision="bf16-true", accelerator="gpu")
    published = replace(
        config,
        model=str(model),
        image_size=PUBLISHED[name].image_size,
        lora=LoraConfig(),
        denoiser=DenoiserConfig(),
        batch_size=1,
        trainer=trainer,
    )
    with torch.device("meta"):
        denoiser = build_image_denoiser(published)
    assert isinstance(denoiser, AdaptedDenoiser)
    sizes = {key: weight.numel() for key, weight in denoiser.named_parameters()}
    trained = sum(sizes[key] for key in denoiser.trained_names)
    whole = sum(sizes.values()) - trained
    plan = make_memory_plan(published, DEVICE, folder / "planned")
    problems = [problem.message for problem in plan.problems if problem.is_error]
    if problems or plan.share is None:
        raise AssertionError(f"the plan says {problems}")
    return {
        "base_parameters": whole,
        "adapter_share": trained / whole,
        "planned_gib": plan.share.peak / 2**30,
    }


def _same_file(one: Path, other: Path, name: str) -> bool:
    return (one / name).read_bytes() == (other / name).read_bytes()


FLAGS = ("drawn", "resumed_equal", "base_equal", "same_alone", "scale_0_unconditional")
"""Figures of a pipeline that hold or do not."""


def figures_of(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    worked = {name: row for name, row in rows.items() if "failed" not in row}
    paths = {
        f"x_difference_{kind}": difference_to_original_sample(kind) for kind in VARIANCE_PRESERVING
    }
    paths["x_difference_flow"] = difference_to_flow()
    landings = {
        f"landing_difference_{kind.replace('-', '_')}": landing_difference(kind)
        for kind in (*VARIANCE_PRESERVING, "flow-match", "flow-dpm")
    }
    return {
        "pipelines": len(worked),
        "failed": ", ".join(sorted(set(rows) - set(worked))) or "none",
        **{flag: sum(bool(row[flag]) for row in worked.values()) for flag in FLAGS},
        "largest_adapter_share": max(row["adapter_share"] for row in worked.values()),
        "largest_x_difference": max(paths.values()),
        "largest_landing_difference": max(
            value for key, value in landings.items() if key != "landing_difference_flow_dpm"
        ),
        **{
            f"{name}_{key}": row[key]
            for name, row in worked.items()
            for key in (
                "steps_after_the_stop",
                "base_parameters",
                "adapter_share",
                "planned_gib",
            )
        },
        **paths,
        **landings,
    }


def record(rows: dict[str, dict[str, Any]]) -> None:
    write_record(
        name="models-diffusion",
        claim="Pipelines of seven kinds, Stable Diffusion 1.5 to Flux and Sana, load by path, are trained by "
        "adapters, resume, draw, are planned, and with adapters at scale 0 are themselves, to the bit.",
        command="python -m benchmarks.diffusion",
        seeds=[0],
        figures=figures_of(rows),
        goal=[
            f"pipelines == {len(PUBLISHED)}",
            'failed == "none"',
            *(f"{flag} == {len(PUBLISHED)}" for flag in FLAGS),
            "largest_adapter_share <= 0.05",
            "largest_x_difference <= 1e-5",
            "largest_landing_difference <= 1e-4",
        ],
        sources=[
            *IMAGES,
            "benchmarks/diffusion_*.py",
            "benchmarks/untrained_pipelines.py",
            "generate/image/base_*.py",
            "generate/image/ip_adapter.py",
            "generate/image/pretrained_base.py",
            "generate/image/vae.py",
            "launch/memory_plan/image_stage.py",
        ],
        note=f"Tiny pipelines built from configs with random weights, saved and loaded by path; {STEPS} "
        "steps on CPU, of which the resumed run takes the second after it was stopped in it. base_equal: the "
        "trained denoiser with adapters, LoRA and outline at scale 0, and an untrained one, predict what the "
        "network predicts within diffusers' own pipeline, in each of its three steps, and the trained one "
        "with its adapters does not. same_alone: images are those of a batch of three. adapter_share: "
        "trained parameters (LoRA of rank 8, tokens of 192) relative to the published base, on the meta "
        f"device. planned_gib: peak of a step of one image in bf16-true on an {DEVICE}, with the VAE and "
        "text encoders left out, which are not on the device then. x_difference: of x̂ from the "
        "scheduler's own pred_original_sample, or x_t − t v; landing_difference: of five Euler steps of ours "
        "from five of the scheduler (eta 0); flow_dpm rounds its timesteps to whole numbers.",
    )


if __name__ == "__main__":
    main()
