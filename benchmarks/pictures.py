"""Evaluates generated images: on the demo world with ground truth, and on a fashion shop.

python -m benchmarks.pictures demo       # about an hour on two cores; resumes
python -m benchmarks.pictures fashion    # about three quarters of an hour
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.record import write_record
from benchmarks.sources import IMAGE_SCORES, IMAGES
from benchmarks.words import interval, settings_of
from catalog.artifacts import MANIFEST, open_artifact
from catalog.config import SplitConfig
from catalog.demo.ground_truth import DemoGroundTruth
from catalog.reorder import reorder_histories
from catalog.splits import make_split
from generate.attributes import attribute_columns
from generate.evaluation.users import sample_users
from generate.image.attribute_classifier import ImageAttributeClassifier
from generate.image.config import CodecConfig, ImageConfig, ImageScoreConfig, SamplingConfig
from generate.image.encoder_metrics import encode_catalog_images
from generate.image.feature_metrics import kernel_inception_distance
from generate.image.loading import load_image_sampler
from generate.image.module import ImageModule
from generate.image.report import CLASSIFIER, SCORES_FILE, run_image_scores
from generate.image.sampler import ImageSampler
from generate.image.score import sample_siblings
from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import run_stages
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from pretrain.optim import innermost
from pretrain.run import TrainerFactory

SEEDS = (0, 1, 2)
STAGES = ("world", "pretrain", "finetune", "image")
NUM_USERS = 600
STEPS = 5000
CREATED = 60
"""Items for which creative images are generated."""
FINE = CodecConfig(patch_size=8, channels=64, whitening=0.6)
"""Codec for photographs with fine detail: four times as many latent positions as by default."""
FASHION_STEPS = 4000
GARMENTS = SamplingConfig(user_guidance_scale=2.0)
"""User scale chosen on validation users: more images of the requested kind, and still personal."""
JUDGE_STEPS = 3000
"""Training steps of the attribute classifier; garments have many more types than the demo."""
GROUP, TYPE = "product_group_name", "product_type_name"
READ = {
    "Palette of the user is in the image": "palette",
    "Motif of the user is in the image": "motif",
    "Colours shared with earlier purchases": "colours_before",
    "Colours shared with the next purchase": "colours_next",
    "Similarity to earlier purchases": "likeness_before",
    "Similarity to the next purchase": "likeness_next",
    "Similarity to the condition item": "likeness_item",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shop", choices=("demo", "fashion"))
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-words"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    if arguments.shop == "demo":
        record_demo(arguments.output, tuple(arguments.seeds))
    else:
        record_fashion(arguments.output / "fashion")


def scores_of(
    config: PipelineConfig,
    output: Path,
    score_config: ImageScoreConfig,
    trainer: TrainerFactory = build_trainer,
) -> dict[str, Any]:
    run_stages(config, output, trainer, STAGES)
    truth = score_config.ground_truth.replace("{output}", str(output))
    placed = replace(score_config, ground_truth=truth)
    folder = output / "image-scores"
    if not scored(folder, output / "image", placed):
        run_image_scores(output / "image", placed, folder)
    return json.loads((folder / SCORES_FILE).read_text())


def scored(folder: Path, generator: Path, score_config: ImageScoreConfig) -> bool:
    """Whether scores of this generator with these settings exist; changes of code are not detected."""
    if not (folder / SCORES_FILE).exists():
        return False
    manifest = json.loads((folder / MANIFEST).read_text())  # may be of another generator
    same = manifest["config"] == json.loads(json.dumps(asdict(score_config)))
    return same and manifest["parents"]["generator"]["hash"] == open_artifact(generator).hash


def measured(scores: dict[str, Any]) -> dict[str, Any]:
    """Flattens the scores into figures of a record."""
    figures: dict[str, Any] = {"users": scores["num_users"]}
    for name, found in scores["metrics"].items():
        for condition in ("own", "swapped", "none"):
            figures[f"{READ[name]}_{condition}"] = interval(found[condition])
        contrast = "over" if "/" in found["contrast_name"] else "minus"
        figures[f"{READ[name]}_own_{contrast}_swapped"] = interval(found["contrast"])
    judged = scores["encoder_metrics"]
    figures["identified"] = interval(judged["identified"]["accuracy"])
    figures["identified_over_chance"] = (
        judged["identified"]["accuracy"]["value"] / judged["identified"]["chance"]
    )
    for name in (
        "kid",
        "kid_real",
        "fid",
        "fid_real",
        "diversity",
        "diversity_real",
        "near_copies",
    ):
        figures[name] = judged[name]
    for name, share in scores["classifier_accuracy"].items():
        figures[f"judge_names_{name}"] = share
    return figures


def created(output: Path) -> dict[str, float]:
    """Measures how well creative images keep the item's pixels, by the computed and by the true outline."""
    sampler = load_image_sampler(output / "image")
    truth = DemoGroundTruth.load(output / "world").silhouettes("wardrobe")
    creative = replace(sampler.defaults, mode="creative")
    pictured = (row for row in range(sampler.catalog.num_items) if sampler.catalog.media_path(row))
    kept_masks = (row for row in pictured if not sampler.refused_masks([row], creative))
    rows = [row for row, _ in zip(kept_masks, range(CREATED), strict=False)]
    users = sampler.catalog.user_ids.tolist()
    items = sampler.catalog.items["item_id"]
    requests = [(str(users[place]), items[row]) for place, row in enumerate(rows)]
    drawn = sampler.sample(requests, creative)
    apart, kept, ground = [], [], []
    for row, picture in zip(rows, drawn, strict=True):
        own, mask = sampler.item_pixels(row)
        difference = np.abs(np.asarray(picture).astype(int) - own).max(2)
        apart.append(int(difference[mask].max()))
        kept.append(float((difference[truth[row]] == 0).mean()))
        ground.append(float((difference[~mask] > 8).mean()))
    return {
        "creative_pictures": len(rows),
        "creative_largest_change_in_the_item": max(apart),
        "creative_true_outline_kept": float(np.mean(kept)),
        "creative_ground_changed": float(np.mean(ground)),
    }


def record_demo(output: Path, seeds: tuple[int, ...]) -> None:
    image = ImageConfig(trainer=TrainerConfig(max_steps=STEPS))
    score_config = ImageScoreConfig(num_users=NUM_USERS, ground_truth="{output}/world/ground_truth")
    figures: dict[str, Any] = {}
    worst: dict[str, float] = {}
    for seed in seeds:
        folder = output / f"demo-{seed}"
        found = measured(scores_of(settings_of("demo", seed, image=image), folder, score_config))
        found |= created(folder) | {"category_right": category_right(folder, score_config)}
        figures |= {f"{name}_seed{seed}": value for name, value in found.items()}
        for name, value in (
            ("users", found["users"]),
            ("palette_own_over_swapped", found["palette_own_over_swapped"].value),
            ("motif_own_over_swapped", found["motif_own_over_swapped"].value),
            ("identified_over_chance", found["identified_over_chance"]),
            ("likeness_before_low", found["likeness_before_own_minus_swapped"].low),
        ):
            worst[f"{name}_worst"] = min(worst.get(f"{name}_worst", value), value)
        change = found["creative_largest_change_in_the_item"]
        name = "creative_largest_change_in_the_item"
        worst[name] = max(worst.get(name, 0), change)
    write_record(
        "image-demo",
        claim="Pictures drawn for the demo world's users carry their palette and their motif, tell them "
        "from among twenty, and creative ones leave the item's own pixels as they are.",
        command="python -m benchmarks.pictures demo",
        seeds=list(seeds),
        figures={**worst, **figures},
        sources=[*IMAGES, *IMAGE_SCORES, "configs/pipeline/demo.yaml"],
        goal=[
            "users_worst >= 300",
            "palette_own_over_swapped_worst >= 3",
            "motif_own_over_swapped_worst >= 2",
            "identified_over_chance_worst >= 5",
            "creative_largest_change_in_the_item == 0",
        ],
        note="Test targets after a moment in time, of users of the second shop; each is drawn another "
        "item of their next item's kind, conditioned on them, on another user and unconditional, from the "
        f"same noise, at default scales. A generator with default settings, {STEPS:,} steps. Palette "
        "and motif are read from pixels by the world's own rule "
        "(catalog/demo/image_attributes.py). Identified and likeness: by a convolutional network that "
        "learns the shop's "
        "labels from its pictures, and to recall them, and is checked on held-out ones (judge_names), by "
        f"which nothing was conditioned. creative: pictures of {CREATED} items; true_outline_kept is the "
        "share of the true silhouette's pixels that are unchanged, as the outline is found without the "
        "truth. KID and FID are in that network's features. worst: of the seeds.",
    )


class HalfTrained(pl.Callback):
    """Saves the EMA weights after half of the steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        if isinstance(module, ImageModule) and trainer.global_step == trainer.max_steps // 2:
            state = innermost(trainer.optimizers[0]).state
            averages = {
                name: state[parameter]["ema"].clone()
                for name, parameter in module.named_parameters()
                if parameter in state
            }
            torch.save(averages, self.path)


def record_fashion(output: Path) -> None:
    image = ImageConfig(
        codec=FINE,
        self_condition_prob=0.4,
        batch_size=64,
        trainer=TrainerConfig(max_steps=FASHION_STEPS, precision="bf16-mixed"),
        sampling=GARMENTS,
    )
    score_config = ImageScoreConfig(
        num_users=NUM_USERS, classifier_steps=JUDGE_STEPS, sampling=GARMENTS
    )
    halfway = output / "half-trained.pt"

    def trainer(config: TrainerConfig, folder: Path, title: str, **options: Any) -> pl.Trainer:
        callbacks = [*options.pop("callbacks", ()), HalfTrained(halfway)]
        return build_trainer(config, folder, title, callbacks=callbacks, **options)

    scores = scores_of(settings_of("fashion", 0, image=image), output, score_config, trainer)
    figures = measured(scores) | kinds(output, halfway, score_config)
    figures["kid_over_half_trained"] = figures["kid_asked_for"] / figures["kid_half_trained"]
    write_record(
        "image-fashion",
        claim="Concepts drawn for a fashion shop's users are of the kind asked for, and nearer to what "
        "their user bought next than those drawn for another user.",
        command="python -m benchmarks.pictures fashion",
        seeds=[0],
        figures=figures,
        sources=[*IMAGES, *IMAGE_SCORES, "configs/pipeline/fashion.yaml"],
        goal=[
            f"judge_names_{GROUP} >= 0.8",
            f"{GROUP}_right >= 0.8",
            "likeness_next_own_minus_swapped_low > 0",
            "kid_over_half_trained <= 0.75",
        ],
        note="A week of a fashion shop, leave-one-out, 64 pixels; each user is drawn another garment of "
        "their next one's product type, conditioned on them, on another user and unconditional, from the "
        "same noise. A convolutional network that learns the shop's labels from its pictures, by which "
        "nothing was conditioned, says what pictures are like and of which type they are; "
        "judge_names: its share of "
        f"held-out real pictures. Type: {GROUP} and {TYPE}, of the kinds that the network tells apart (those "
        "of five garments or more). Half trained: the averaged "
        "weights after half of the same run's steps. KID in that network's features. The contact sheet "
        "is image-scores/contact-sheet.png in the run's folder, as it shows the shop's own pictures. Two "
        "CPU cores: larger pictures were not trained.",
    )


class Requests(NamedTuple):
    """Test users of a generator's shop, each with another item of their next item's category."""

    sampler: ImageSampler
    users: Any
    items: NDArray[np.int64]


def requests_of(generator: Path, number: int) -> Requests:
    sampler = load_image_sampler(generator)
    settings = SplitConfig(**open_artifact(generator).manifest["config"]["split"])
    catalog = reorder_histories(sampler.catalog, settings)
    users = sample_users(sampler.ranker, catalog, make_split(catalog, settings), number)
    items = sample_siblings(sampler.ranker, catalog, users.items)
    return Requests(sampler, users, items)


class Samples:
    """Sampled images of test users, and the attribute classifier that was saved with the scores."""

    def __init__(self, output: Path, score_config: ImageScoreConfig) -> None:
        self.score_config = score_config
        self.sampler, self.users, self.items = requests_of(output / "image", score_config.num_users)
        self.eyes = ImageAttributeClassifier.from_pretrained(output / "image-scores" / CLASSIFIER)

    def features(self) -> torch.Tensor:
        pictures = self.sampler.generate_unmarked(
            self.users.states["own"],
            self.items.tolist(),
            range(len(self.items)),
            self.score_config.sampling,
        )
        return self.eyes.features(pictures)

    def right(self, features: torch.Tensor, name: str) -> list[bool]:
        """Whether each image is classified as its item's value of an attribute, where that is a class."""
        column = dict(attribute_columns(self.sampler.catalog))[name]
        true = [column[item].as_py() for item in self.items.tolist()]
        read = self.eyes.classify(features, name)
        return [a == b for a, b in zip(read, true, strict=True) if b in self.eyes.labels[name]]


def category_right(output: Path, score_config: ImageScoreConfig) -> float:
    drawn = Samples(output, score_config)
    return float(np.mean(drawn.right(drawn.features(), "category")))


@torch.no_grad()
def kinds(output: Path, halfway: Path, score_config: ImageScoreConfig) -> dict[str, float]:
    """Accuracy of garment types in sampled images, and KID of the full and of the half-trained generator."""
    drawn = Samples(output, score_config)
    pipeline, catalog = drawn.sampler.pipeline, drawn.sampler.catalog
    rows = sorted({*drawn.items.tolist(), *drawn.users.items.tolist()})
    _, real = encode_catalog_images(catalog, rows, pipeline.codec.buckets[0], drawn.eyes)
    whole = drawn.features()
    figures = {}
    for name in (GROUP, TYPE):
        right = drawn.right(whole, name)
        figures[f"{name}_right"] = float(np.mean(right))
        figures[f"{name}_kinds"] = len(drawn.eyes.labels[name])
        figures[f"{name}_pictures"] = len(right)
    weights = torch.load(halfway, weights_only=True)
    for name, part in (("conditioner", pipeline.conditioner), ("denoiser", pipeline.denoiser)):
        assert isinstance(part, nn.Module)
        for key, parameter in part.named_parameters():
            parameter.copy_(weights[f"{name}.{key}"])
    half = drawn.features()
    return figures | {
        "kid_asked_for": kernel_inception_distance(whole, real),
        "kid_half_trained": kernel_inception_distance(half, real),
    }


if __name__ == "__main__":
    main()
