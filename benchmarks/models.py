"""Real pretrained towers against towers from scratch and ids, on two real shops: text, images, and both.

python -m benchmarks.models run       # two hours on one core, resumes
python -m benchmarks.models record    # of the arms that are complete
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.arms import settings
from benchmarks.figures import figure_name
from benchmarks.pretrained import pretrained_folder
from benchmarks.record import write_record
from benchmarks.sources import COMPARISON
from catalog.artifacts import open_artifact
from catalog.splits import load_split
from finetune.config import ArmConfig, FinetuneConfig
from finetune.metrics import metric_values
from finetune.statistics import difference_over_seeds, mean_over_seeds
from launch.pipeline.config import PipelineConfig
from launch.pipeline.stage import Stage, recommender_stage
from launch.trainer import build_trainer
from pretrain.config import EncoderConfig, PretrainConfig, TowerConfig
from pretrain.run import run_pretraining

SEEDS = (0, 1, 2)
RATES = (0.001, 0.003)
"""Learning rates of fine-tuning; each arm takes the one with the better validation NDCG@10 of seed 0."""
CONTENT = {"text": ("text",), "image": ("image",), "both": ("text", "image")}
TOWERS = ("scratch", "frozen", "lora")
"""Small towers, trained on the shop alone; real ones, frozen; real ones, with LoRA in fine-tuning."""
ENCODE_ITEMS = {"scratch": 96, "lora": 8}
"""Items encoded with gradient in a step of fine-tuning."""
ORDER = (
    ("fashion", "image", ("frozen", "scratch")),
    ("fashion", "id", ("id",)),
    ("fashion", "text", ("frozen", "scratch")),
    ("fashion", "both", ("frozen", "scratch")),
    ("movies", "image", ("frozen", "scratch")),
    ("movies", "id", ("id",)),
    ("movies", "text", ("frozen", "scratch")),
    ("movies", "both", ("frozen", "scratch")),
    ("fashion", "text", ("lora",)),
    ("movies", "text", ("lora",)),
    ("movies", "image", ("lora",)),
    ("fashion", "image", ("lora",)),
    ("movies", "both", ("lora",)),
    ("fashion", "both", ("lora",)),
)
"""Shop, content and towers, what the goal needs first."""


@dataclass(frozen=True)
class Arm:
    """One arm on one shop: what it reads, and by which towers."""

    shop: str
    content: str
    """text, image, both, or id."""
    towers: str
    """scratch, frozen, lora, or id."""
    output: Path

    @property
    def name(self) -> str:
        return "id" if self.towers == "id" else f"{self.content} {self.towers}"

    @cached_property
    def pipeline(self) -> PipelineConfig:
        return settings(self.shop, "temporal")

    @property
    def encoder_settings(self) -> EncoderConfig:
        """The encoder: the shop's small towers, or the real ones, frozen in pretraining."""
        encoder, reads = self.pipeline.pretrain.encoder, CONTENT[self.content]
        text, image = encoder.text, encoder.image
        assert text is not None
        if self.towers != "scratch":
            tokens = text.max_tokens  # as many as the small tower reads
            model = str(pretrained_folder("text")) if "text" in reads else ""
            text = TowerConfig(model=model, frozen=True, max_tokens=tokens)
            model = str(pretrained_folder("image")) if "image" in reads else ""
            image = TowerConfig(model=model, frozen=True)
        return replace(
            encoder,
            text=text if "text" in reads else None,
            image=image if "image" in reads else None,
        )

    def pretraining(self, seed: int) -> Stage:
        """Pretraining on the shop's own training part; frozen and LoRA share it."""
        pretrain = self.pipeline.pretrain
        config: PretrainConfig = replace(
            pretrain,
            encoder=self.encoder_settings,
            trainer=replace(pretrain.trainer, seed=seed, progress=False, checkpoint_every=0),
        )
        kind = "scratch" if self.towers == "scratch" else "real"
        folder = self.output / self.shop / "encoders" / f"{self.content}-{kind}" / f"seed-{seed}"

        def run() -> Path:
            return run_pretraining(config, folder, build_trainer)

        return Stage(f"pretrain {folder}", folder, "encoder", asdict(config), {}, run)

    def finetuning(self, seed: int, rate: float) -> Stage:
        common = self.pipeline.finetune
        config: FinetuneConfig = replace(
            common,
            transfer="scratch" if self.towers == "id" else "lora",
            features="id" if self.towers == "id" else "content",
            width=self.pipeline.pretrain.encoder.width,
            optimizer=replace(common.optimizer, learning_rate=rate),
            trainer=replace(common.trainer, seed=seed, progress=False, checkpoint_every=0),
        )
        if self.towers == "id":
            config = replace(config, sequence=self.pipeline.pretrain.encoder.sequence)
        else:
            config = replace(config, encoder=str(self.pretraining(seed).folder))
        if self.towers == "frozen":
            config = replace(config, transfer="frozen")
        elif self.towers != "id":
            items = ENCODE_ITEMS[self.towers]
            config = replace(config, data=replace(config.data, encode_items=items))
        if self.towers == "lora":  # a validation encodes every item again
            config = replace(config, validate_every=config.trainer.max_steps)
        folder = self.output / self.shop / "arms" / figure_name(self.name) / f"{rate}-{seed}"
        return recommender_stage(str(folder), ArmConfig(), config, folder, build_trainer)

    def rate(self) -> float:
        """The learning rate with the better validation NDCG@10 of the first seed."""
        return max(RATES, key=lambda rate: validation(self.finetuning(SEEDS[0], rate).folder))

    def stages(self) -> Iterator[Stage]:
        """All trainings: those that choose the learning rate first."""
        for seed in SEEDS:
            if self.towers != "id":
                yield self.pretraining(seed)
            for rate in RATES if seed == SEEDS[0] else (self.rate(),):
                yield self.finetuning(seed, rate)

    def is_complete(self) -> bool:
        trials = [self.finetuning(SEEDS[0], rate).folder for rate in RATES]
        if not all((folder / "manifest.json").exists() for folder in trials):
            return False
        return all((self.tested(seed) / "manifest.json").exists() for seed in SEEDS)

    def tested(self, seed: int) -> Path:
        """The recommender of a seed that is tested."""
        return self.finetuning(seed, self.rate()).folder

    def ndcg(self) -> NDArray[np.float64]:
        """Test NDCG@10: (seeds, users)."""
        finetune = self.pipeline.finetune
        _, split = load_split(finetune.catalog, finetune.split)
        users = split.test.users
        ranks = [np.load(self.tested(seed) / "test_ranks.npy") for seed in SEEDS]
        return np.stack([metric_values(one, users=users)["ndcg@10"] for one in ranks])


def validation(folder: Path) -> float:
    return open_artifact(folder).manifest["metrics"]["validation_ndcg@10"]


def arms(output: Path) -> list[Arm]:
    return [Arm(shop, content, how, output) for shop, content, all_ in ORDER for how in all_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "record"), nargs="?", default="run")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-models"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "run":
        run(arguments.output)
    record(arguments.output)


def run(output: Path) -> None:
    for arm in arms(output):
        for stage in arm.stages():
            if not stage.is_done():
                before = sum(os.times()[:2])
                stage.run()
                spent = sum(os.times()[:2]) - before
                print(f"{stage.folder.relative_to(output)}: {spent:.0f} CPU s", flush=True)
        found = mean_over_seeds(arm.ndcg())
        print(f"{arm.shop} {arm.name} ({arm.rate()}): {found}", flush=True)


def record(output: Path) -> None:
    """Writes the record of all arms that are complete; the goal needs the first two on fashion."""
    ndcg = {(arm.shop, arm.name): arm.ndcg() for arm in arms(output) if arm.is_complete()}
    figures: dict[str, Any] = {}
    for (shop, name), values in ndcg.items():
        figures[f"{shop}_{figure_name(name)}_ndcg10"] = mean_over_seeds(values)
    for shop, name in ndcg:
        content, _, towers = name.partition(" ")
        for other in (f"{content} scratch", f"{content} frozen" if towers == "lora" else "", "id"):
            if (shop, other) not in ndcg or towers in ("", "scratch") or other == name:
                continue
            figures[f"{shop}_{figure_name(name)}_minus_{figure_name(other)}"] = (
                difference_over_seeds(ndcg[shop, name], ndcg[shop, other]).interval
            )
    for arm in arms(output):
        if (arm.shop, arm.name) in ndcg:
            figures[f"{arm.shop}_{figure_name(arm.name)}_learning_rate"] = arm.rate()
            figures[f"{arm.shop}_users"] = ndcg[arm.shop, arm.name].shape[1]
    write_record(
        "models-fashion",
        claim="On a shop of garments, images encoded by a tower with ImageNet's weights rank better than "
        "images encoded by a small tower that was trained on the shop alone.",
        command="python -m benchmarks.models",
        seeds=SEEDS,
        figures=figures,
        sources=[
            *COMPARISON,
            "benchmarks/arms.py",
            "benchmarks/pretrained.py",
            "configs/pipeline/fashion.yaml",
            "configs/pipeline/movies.yaml",
        ],
        goal=["fashion_image_frozen_minus_image_scratch_low > 0"],
        note="NDCG@10 of targets after a moment in time, full ranking; means over three seeds, 95 % "
        "intervals over users and seeds. Every encoder is pretrained on the shop's own training part and "
        "then fine-tuned, with the steps, batches and sequence encoder of the shop's pipeline. frozen: "
        "all-MiniLM-L6-v2 and EfficientNet-Lite0 (224 pixels), whose weights stay as they are; lora: their "
        "low-rank updates are trained in fine-tuning; scratch: the pipeline's small towers (64 pixels), "
        "trained in pretraining and with LoRA in fine-tuning; id: an embedding for each item, no content. "
        f"Each arm is fine-tuned at the learning rates {RATES[0]} and {RATES[1]} with the first seed, and "
        "has the one that ranks validation better. Figures are of the arms whose trainings are complete.",
    )


if __name__ == "__main__":
    main()
