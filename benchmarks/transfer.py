"""Full fine-tuning against frozen towers and LoRA, with one ablation for each suspected cause of collapse.

python -m benchmarks.transfer    # two hours on one core, resumes; shares its runs with `benchmarks.arms lora`
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.arms import SEEDS, SPLITS, Compared, compare_on_fashion, compare_on_movies
from benchmarks.figures import figure_name
from benchmarks.record import write_record
from benchmarks.sources import COMPARISON
from catalog.artifacts import open_artifact
from catalog.splits import load_split
from finetune.config import FULL_TOWER_RATE, ArmConfig, FinetuneConfig
from finetune.metrics import metric_values
from finetune.module import FinetuneModule
from finetune.recommender import Adaptor
from finetune.statistics import Interval, mean_interval, ratio_interval
from launch.pipeline.stage import recommender_stage
from launch.trainer import build_trainer

MAIN = ("frozen", "lora", "full")
ABLATION_STEPS, VALIDATE_EVERY = 60, 30
FORMER: dict[str, Any] = {"tower_rate": 0.2, "encoder_warmup": 0.0}
"""The former default settings of full fine-tuning."""


@dataclass(frozen=True)
class Ablation:
    """Full fine-tuning with one or more changes."""

    changes: dict[str, Any] = field(default_factory=dict)
    """Changed settings by dotted name."""
    whitening_fixed: bool = False
    """The whitening is fitted once, to the first vectors."""
    shift_kept: bool = False
    """The common shift of re-encoded items is not removed."""
    dropout: bool = False
    """Towers are in training mode."""


BEFORE = Ablation(FORMER, whitening_fixed=True, shift_kept=True)
ABLATIONS = {
    "before": BEFORE,
    # Each suspected cause alone.
    "before, slower towers": replace(BEFORE, changes=FORMER | {"tower_rate": FULL_TOWER_RATE}),
    "before, warm-up": replace(BEFORE, changes=FORMER | {"encoder_warmup": 0.2}),
    "before, whitening follows": replace(BEFORE, whitening_fixed=False),
    "before, shift subtracted": replace(BEFORE, shift_kept=False),
    "before, whitening follows, shift subtracted": Ablation(FORMER),
    "before, cache read every 10 steps": replace(
        BEFORE, changes=FORMER | {"data.refresh_every": 10}
    ),
    "before, towers with dropout": replace(BEFORE, dropout=True),
    "before, no weight decay": replace(BEFORE, changes=FORMER | {"optimizer.weight_decay": 0.0}),
    "before, twice the steps": replace(
        BEFORE, changes=FORMER | {"trainer.max_steps": 2 * ABLATION_STEPS}
    ),
    # The current default, and each of its changes reverted alone.
    "now": Ablation(),
    "now, towers four times as fast": Ablation({"tower_rate": 4 * FULL_TOWER_RATE}),
    "now, towers forty times as fast": Ablation({"tower_rate": 40 * FULL_TOWER_RATE}),
    "now, no warm-up": Ablation({"encoder_warmup": 0.0}),
    "now, whitening fixed": Ablation(whitening_fixed=True),
    "now, shift kept": Ablation(shift_kept=True),
    "frozen": Ablation({"transfer": "frozen"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-arms"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record(arguments.output)


def record(output: Path) -> None:
    shops = {
        "fashion": compare_on_fashion(output, MAIN),
        "movies": compare_on_movies(output, SPLITS[0], MAIN),
    }
    figures: dict[str, Any] = {}
    for shop, compared in shops.items():
        ndcg = {name: np.mean(compared.ndcg(name), axis=0) for name in MAIN}
        figures |= {f"{shop}_{name}_ndcg10": mean_interval(v) for name, v in ndcg.items()}
        best = max(("frozen", "lora"), key=lambda name: float(ndcg[name].mean()))
        figures[f"{shop}_best"] = best
        figures[f"{shop}_full_over_best"] = ratio_interval(ndcg["full"], ndcg[best])
    for name in ABLATIONS:
        ranked, validation = ablated(shops["fashion"], name, output)
        figures[f"ablation_{figure_name(name)}_ndcg10"] = ranked
        figures[f"ablation_{figure_name(name)}_validation_ndcg10"] = validation
    write_record(
        "transfer-full",
        claim="Full fine-tuning ranks at least 95 % as well as the better of frozen towers and LoRA.",
        command="python -m benchmarks.transfer",
        seeds=SEEDS,
        figures=figures,
        sources=[
            *COMPARISON,
            "benchmarks/arms.py",
            "configs/pipeline/fashion.yaml",
            "configs/pipeline/movies.yaml",
        ],
        goal=[f"{shop}_full_over_best >= 0.95" for shop in shops],
        note="NDCG@10. A text tower of all-MiniLM-L6-v2 and a small picture tower, with projections "
        "pretrained on films; 250 steps on fashion (targets after a moment in time), 300 on films (the "
        "last one of each user held out), the same for every arm; each user's mean over three "
        "seeds, 95 % bootstrap intervals over users, paired for ratios. best: the better of frozen "
        "and LoRA on test. "
        f"ablation: one seed, {ABLATION_STEPS} steps on fashion, validation every {VALIDATE_EVERY}. "
        "before: the towers at a fifth of the learning rate, no warm-up, the whitening that of the "
        "first vectors. now: the defaults.",
    )


def ablated(compared: Compared, name: str, output: Path) -> tuple[Interval, float]:
    """Trains one ablation; returns test NDCG@10 over users, and the best validation NDCG@10."""
    ablation = ABLATIONS[name]
    config: FinetuneConfig = replace(
        compared.config.finetune,
        transfer="full",
        vectors=str(compared.output / "vectors"),
        validate_every=VALIDATE_EVERY,
        trainer=replace(compared.config.finetune.trainer, max_steps=ABLATION_STEPS),
    )
    for key, value in ablation.changes.items():
        config = changed(config, key.split("."), value)
    folder = output / "fashion-ablations" / figure_name(name)
    stage = recommender_stage(name, ArmConfig(), config, folder, build_trainer)
    if not stage.is_done():
        print(f"ablation: {name}", flush=True)
        with taken_back(ablation):
            stage.run()
    _, split = load_split(config.catalog, config.split)
    ranks = np.load(folder / "test_ranks.npy")
    ndcg = metric_values(ranks, users=split.test.users)["ndcg@10"]
    return mean_interval(ndcg), open_artifact(folder).manifest["metrics"]["validation_ndcg@10"]


def changed(settings: Any, names: list[str], value: Any) -> Any:
    """Returns a copy of nested `settings` with one value changed."""
    name, *deeper = names
    inner = changed(getattr(settings, name), deeper, value) if deeper else value
    return replace(settings, **{name: inner})


@contextmanager
def taken_back(ablation: Ablation) -> Iterator[None]:
    """Patches training in this process as the ablation requires, within the context."""
    whiten, train = Adaptor.whiten, FinetuneModule.train
    fitted: set[int] = set()

    def once(self: Adaptor, vectors: Tensor, *rest: Any) -> None:
        if id(self) not in fitted:
            whiten(self, vectors, *rest)
        fitted.add(id(self))

    def with_dropout(self: FinetuneModule, mode: bool = True) -> FinetuneModule:
        train(self, mode)
        assert self.recommender.encoder is not None
        self.recommender.encoder.towers.train(mode)
        return self

    with ExitStack() as patches:
        if ablation.whitening_fixed:
            patches.enter_context(patch.object(Adaptor, "whiten", once))
        if ablation.shift_kept:
            target = "finetune.module.remove_common_shift"
            patches.enter_context(patch(target, lambda fresh, _: fresh))
        if ablation.dropout:
            patches.enter_context(patch.object(FinetuneModule, "train", with_dropout))
        yield


if __name__ == "__main__":
    main()
