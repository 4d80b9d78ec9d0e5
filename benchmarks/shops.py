"""Runs the whole pipeline on two real shops: minutes, and content against popularity.

python -m benchmarks.shops fashion    # a week of garments, 3,186 items; resumes
python -m benchmarks.shops movies     # MovieLens 100K with posters and plots
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import content_figures, figure_name
from benchmarks.record import write_record
from benchmarks.sources import FINETUNING, IMAGES, PRETRAINING, TEXTS
from catalog.artifacts import open_artifact
from catalog.splits import load_split
from finetune.baselines.popularity import rank_by_popularity
from finetune.metrics import metric_values
from finetune.statistics import difference_interval, mean_interval, ratio_interval
from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import run_pipeline
from launch.pipeline.stage import StageLog
from launch.report.protocol import cold_targets
from launch.settings import load_settings
from launch.trainer import build_trainer

SHOPS = {
    "fashion": "a week of a fashion shop (3,186 garments, 8,925 users)",
    "movies": "MovieLens 100K with posters and plots (1,682 films, 943 users)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shop", choices=SHOPS)
    parser.add_argument("--output", type=Path, help="default: runs/benchmark-SHOP")
    arguments = parser.parse_args()
    shop = arguments.shop
    output = arguments.output or Path(f"runs/benchmark-{shop}")
    config = load_settings(PipelineConfig, f"pipeline/{shop}", [])
    run_pipeline(config, output, build_trainer)
    figures = {**ranking_figures(config, output), **content_figures(output / "showcase")}
    write_record(
        f"spine-{shop}",
        claim=f"The whole way on {SHOPS[shop]} takes at most 40 minutes on two cores, and content "
        "ranks better than popularity there.",
        command=f"python -m benchmarks.shops {shop}",
        seeds=[config.finetune.trainer.seed],
        figures=figures,
        sources=[*FINETUNING, *PRETRAINING, *IMAGES, *TEXTS, f"configs/pipeline/{shop}.yaml"],
        goal=["minutes <= 40", f"{config.headline}_minus_popularity_ndcg10_low > 0"],
        note="Leave-one-out, full ranking over all items not in the history; one seed; 95 % bootstrap "
        "intervals over users. Pictures and words: own state, a swapped user's, none.",
    )


def ranking_figures(config: PipelineConfig, output: Path) -> dict[str, Any]:
    catalog, split = load_split(config.finetune.catalog, config.finetune.split)
    cold = cold_targets(catalog, split)
    popular = metric_values(rank_by_popularity(catalog, split, split.test).ranks)
    arms = {}
    for name in config.arms:
        folder = open_artifact(output / "recommenders" / name, kind="recommender").path
        arms[name] = metric_values(np.load(folder / "test_ranks.npy", allow_pickle=False))
    ours = arms[config.headline]
    return {
        "minutes": sum(StageLog(output / "stages.json").seconds.values()) / 60,
        "users": len(split.test),
        "cold_targets": int(cold.sum()),
        "popularity_ndcg10": mean_interval(popular["ndcg@10"]),
        **{f"{figure_name(n)}_ndcg10": mean_interval(v["ndcg@10"]) for n, v in arms.items()},
        "popularity_recall10": mean_interval(popular["recall@10"]),
        **{f"{figure_name(n)}_recall10": mean_interval(v["recall@10"]) for n, v in arms.items()},
        f"{config.headline}_minus_popularity_ndcg10": difference_interval(
            ours["ndcg@10"], popular["ndcg@10"]
        ),
        f"{config.headline}_over_popularity": ratio_interval(ours["ndcg@10"], popular["ndcg@10"]),
        f"{config.headline}_over_shuffled": ratio_interval(
            ours["ndcg@10"], arms["shuffled"]["ndcg@10"]
        ),
    }


if __name__ == "__main__":
    main()
