"""Measures the demo: ranking over three seeds, and content conditioned on own and swapped users.

python -m benchmarks.demo                    # about 20 minutes on two cores; resumes
python -m benchmarks.demo --output runs/x    # resumes the stages in this folder
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import content_figures, figure_name
from benchmarks.record import write_record
from benchmarks.sources import FINETUNING, IMAGES, PRETRAINING, TEXTS
from catalog.artifacts import open_artifact
from catalog.splits import load_split
from finetune.baselines.popularity import rank_by_popularity
from finetune.metrics import metric_values
from finetune.statistics import mean_interval, ratio_interval
from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import run_stages
from launch.report.protocol import cold_targets
from launch.settings import load_settings
from launch.trainer import build_trainer

SEEDS = (0, 1, 2)
COMMAND = "python -m benchmarks.demo"
RANKING_STAGES = ("world", "pretrain", "finetune")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    folder, seeds = arguments.output, tuple(arguments.seeds)
    config = load_settings(PipelineConfig, "pipeline/demo", [])
    ranks = [run_seed(config, seed, seed == seeds[0], folder / f"seed-{seed}") for seed in seeds]
    command = COMMAND if seeds == SEEDS else f"{COMMAND} --seeds {' '.join(map(str, seeds))}"
    record_ranking(config, ranks, seeds, folder / f"seed-{seeds[0]}", command)
    record_content(seeds[0], folder / f"seed-{seeds[0]}", command)


def seeded(config: PipelineConfig, seed: int) -> PipelineConfig:
    """The demo's settings with another training seed; the demo world stays the same."""

    def reseed(stage: Any) -> Any:
        return replace(stage, trainer=replace(stage.trainer, seed=seed))

    return replace(
        config,
        pretrain=reseed(config.pretrain),
        finetune=reseed(config.finetune),
        text=reseed(config.text),
        image=reseed(config.image),
    )


def run_seed(
    config: PipelineConfig, seed: int, whole: bool, output: Path
) -> dict[str, NDArray[np.int64]]:
    """Runs the pipeline; returns the test ranks of every arm. Text and image stages run only if `whole`."""
    only = None if whole else RANKING_STAGES
    run_stages(seeded(config, seed), output, build_trainer, only)
    return {
        name: np.load(output / "recommenders" / name / "test_ranks.npy", allow_pickle=False)
        for name in config.arms
    }


def record_ranking(
    config: PipelineConfig,
    ranks: list[dict[str, NDArray[np.int64]]],
    seeds: tuple[int, ...],
    output: Path,
    command: str,
) -> None:
    settings = config.finetune.catalog
    placed = replace(settings, path=settings.path.replace("{output}", str(output)))
    catalog, split = load_split(placed, config.finetune.split)
    cold = cold_targets(catalog, split)
    popular = metric_values(rank_by_popularity(catalog, split, split.test).ranks)

    def mean(arm: str, metric: str) -> NDArray[np.float64]:
        """Each target's value, averaged over seeds."""
        return np.mean([metric_values(places[arm])[metric] for places in ranks], axis=0)

    ndcg = {arm: mean(arm, "ndcg@10") for arm in config.arms}
    recall = {arm: mean(arm, "recall@10") for arm in config.arms}
    lora = open_artifact(output / "recommenders" / "lora").manifest["metrics"]
    figures: dict[str, Any] = {
        "users": len(split.test),
        "cold_targets": int(cold.sum()),
        "popularity_ndcg10": mean_interval(popular["ndcg@10"]),
        **{f"{figure_name(arm)}_ndcg10": mean_interval(values) for arm, values in ndcg.items()},
        "lora_cold_recall10": mean_interval(recall["lora"][cold]),
        "id_cold_recall10": mean_interval(recall["id"][cold]),
        "lora_over_popularity": ratio_interval(ndcg["lora"], popular["ndcg@10"]),
        "lora_over_shuffled": ratio_interval(ndcg["lora"], ndcg["shuffled"]),
        "lora_over_zero_shot": ratio_interval(ndcg["lora"], ndcg["zero-shot"]),
        "lora_over_full": ratio_interval(ndcg["lora"], ndcg["full"]),
        "lora_trained_share": lora["trained_parameters"] / lora["parameters"],
    }
    # Recall of 0 for ids makes any ratio hold; one hit more than they had keeps it finite.
    floor = max(float(recall["id"][cold].mean()), 1 / (len(seeds) * int(cold.sum())))
    figures["lora_over_id_on_cold"] = float(recall["lora"][cold].mean()) / floor
    for arm in config.arms:
        for seed, places in zip(seeds, ranks, strict=True):
            value = metric_values(places[arm])["ndcg@10"].mean()
            figures[f"{figure_name(arm)}_ndcg10_seed{seed}"] = float(value)
    write_record(
        "spine-demo-ranking",
        claim="On the demo's second shop a recommender from content, pretrained on the first and "
        "adapted by LoRA, ranks better than popularity, than shuffled content, than ids on cold "
        "items, and about as well as full fine-tuning.",
        command=command,
        seeds=list(seeds),
        figures=figures,
        sources=[*FINETUNING, *PRETRAINING, "configs/pipeline/demo.yaml"],
        goal=[
            "lora_over_popularity >= 3.0",
            "lora_over_shuffled >= 1.3",
            "lora_over_id_on_cold >= 5.0",
            "lora_over_full >= 0.95",
            "lora_trained_share <= 0.05",
        ],
        note="Global time split, full ranking, one target a user; per-target values averaged over "
        "seeds, 95 % bootstrap intervals over users. Where ids find no cold item at all, their "
        "recall is taken as one hit over all seeds.",
    )


def record_content(seed: int, output: Path, command: str) -> None:
    write_record(
        "spine-demo-content",
        claim="Pictures made with a user's own state carry that user's palette, and words fit "
        "them, more than with another user's state.",
        command=command,
        seeds=[seed],
        figures=content_figures(output / "showcase"),
        sources=[
            *IMAGES,
            *TEXTS,
            "configs/pipeline/demo.yaml",
            "generate/showcase.py",
            "generate/evaluation/ground_truth.py",
        ],
        goal=[
            "palette_users >= 200",
            "palette_contrast >= 2.0",
            "palette_contrast_low > 1.0",
            "words_description_item_hidden_swapped_minus_own_low > 0",
        ],
        note="Same item and noise for own, swapped and none. The palette is read from pixels by a "
        "rule fixed with the world, no learned model; the item asked for is another one of the "
        "kind the user bought next. Words: nats a token of the true next item's own text, "
        "the item hidden.",
    )


if __name__ == "__main__":
    main()
