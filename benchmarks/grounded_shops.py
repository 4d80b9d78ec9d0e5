"""Two real shops with their recommenders, and the text generators on them that are compared."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.arms import settings
from benchmarks.models import RATES, SEEDS, Arm
from benchmarks.pretrained import pretrained_folder
from benchmarks.record import ROOT
from catalog.catalog import Catalog
from catalog.splits import Split, load_split
from generate.text.config import TextConfig, WriteConfig
from generate.text.run import run_text_generator
from generate.text.writer import BatchWriter, load_writer
from launch.pipeline.config import PipelineConfig
from launch.trainer import build_trainer
from pretrain.config import OptimizerConfig, TrainerConfig
from pretrain.devices import choose_compute

WORK = ROOT / "runs" / "benchmark-grounded"
SHOPS = {"garments": "fashion", "films": "movies"}
"""Shop → the name of its pipeline."""
SPLITS = {"fashion": "temporal", "movies": "leave-one-out"}
"""Pipeline → its split."""
TASKS = {"garments": "garment", "films": "film"}
TYPES = {"garments": "product_type_name", "films": "genre"}
"""Shop → the column that says what an item is."""
ARMS = ("soft", "zero_shot", "lora")
"""LoRA with soft tokens of user and item; the prompt alone; LoRA alone."""
HEADLINE = ARMS[0]
STEPS, BATCH, RATE, PROMPT = 48, 16, 1e-3, 256
WRITE = WriteConfig(temperature=0.7, top_p=0.9, max_tokens=64, constrain_numbers=True)


class ShopArm(Arm):
    """A recommender under the shop's own split."""

    @cached_property
    def pipeline(self) -> PipelineConfig:
        return settings(self.shop, SPLITS[self.shop])


@dataclass(frozen=True)
class ShopArms:
    """One shop with its recommender, generators and judge."""

    name: str

    @property
    def folder(self) -> Path:
        return WORK / self.name

    @property
    def task(self) -> str:
        return TASKS[self.name]

    @cached_property
    def recommender(self) -> Path:
        """Frozen MiniLM, and a sequence encoder trained on the shop at the rate that ranks validation
        better."""
        arm = ShopArm(SHOPS[self.name], "text", "frozen", WORK / "recommenders")
        for stage in (arm.pretraining(SEEDS[0]), *(arm.finetuning(SEEDS[0], r) for r in RATES)):
            if not stage.is_done():
                stage.run()
        return arm.tested(SEEDS[0])

    def config(self, arm: str) -> TextConfig:
        common = ShopArm(SHOPS[self.name], "text", "frozen", WORK).pipeline.finetune
        soft = 4 * (arm == "soft")
        return TextConfig(
            recommender=str(self.recommender),
            catalog=common.catalog,
            split=common.split,
            model=str(pretrained_folder("words")),
            train=arm != "zero_shot",
            tasks=(str(ROOT / "benchmarks" / "tasks" / f"{self.task}.yaml"),),
            num_user_tokens=soft,
            num_item_tokens=soft,
            num_style_tokens=0,
            max_prompt_tokens=PROMPT,
            max_tokens=WRITE.max_tokens,
            drop_item=0.3,
            batch_size=BATCH,
            optimizer=OptimizerConfig(learning_rate=RATE),
            trainer=TrainerConfig(max_steps=STEPS, precision="auto", log_every=5, progress=False),
        )

    @cached_property
    def data(self) -> tuple[Catalog, Split]:
        config = self.config(ARMS[0])
        return load_split(config.catalog, config.split)

    def writer(self, arm: str) -> BatchWriter:
        folder = self.folder / arm
        if not folder.exists():
            run_text_generator(self.config(arm), folder, build_trainer)
        catalog, split = self.data
        writer = load_writer(folder, compute=choose_compute("cpu", "auto"))
        return replace(writer, catalog=catalog, split=split)

    def names_type(self, texts: Sequence[str], items: Sequence[int]) -> NDArray[np.float64]:
        """Whether each text names the type of its item: (texts,)."""
        catalog, _ = self.data
        column = catalog.column(TYPES[self.name])
        return np.array(
            [names(text, column[i].as_py()) for text, i in zip(texts, items, strict=True)]
        )


def names(text: str, kind: str) -> float:
    """1 where a text contains the last word of an item's type, or of one of its alternatives
    (Leggings/Tights), in singular or plural."""
    words = set(map(stem, re.findall(r"[\w-]+", text.lower())))
    heads = [part.split()[-1] for part in kind.lower().split("/") if part.split()]
    return float(any(stem(head) in words for head in heads))


def stem(word: str) -> str:
    return re.sub(r"(?<=[sxh])es$|(?<!s)s$", "", word)
