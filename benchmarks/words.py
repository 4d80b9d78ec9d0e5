"""Evaluates generated texts: on the demo world with ground truth, and on two real shops.

python -m benchmarks.words demo    # about half an hour on two cores; resumes
python -m benchmarks.words real    # films, then garments
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from benchmarks.sources import TEXT_SCORES, TEXTS
from finetune.statistics import Interval
from generate.text.config import TextConfig, TextScoreConfig, WriteConfig
from generate.text.report import SAMPLES_FILE, SCORES_FILE, run_text_scores
from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import run_stages
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig

SEEDS = (0, 1, 2)
STAGES = ("world", "pretrain", "finetune", "text")
NUM_USERS = 500
SAMPLES = "samples.md"
"""Page of sample texts for three users of each shop; not committed, since it quotes the shops' texts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shop", choices=("demo", "real"))
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-words"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    seeds = tuple(arguments.seeds)
    if arguments.shop == "demo":
        record_demo(arguments.output, seeds)
    else:
        record_real(arguments.output)


def settings_of(shop: str, seed: int, **generator: Any) -> PipelineConfig:
    """Settings of the shop's pipeline with only its headline arm, and `seed` for every training.

    `generator`: settings of the stage `text` or `image`.
    """
    config = load_settings(PipelineConfig, f"pipeline/{shop}", [])

    def reseed(stage: Any) -> Any:
        return replace(stage, trainer=replace(stage.trainer, seed=seed))

    return replace(
        config,
        arms={config.headline: config.arms[config.headline]},
        pretrain=reseed(config.pretrain),
        finetune=reseed(config.finetune),
        **{name: reseed(stage) for name, stage in generator.items()},
    )


def scores_of(
    config: PipelineConfig, output: Path, score_config: TextScoreConfig
) -> tuple[Path, Any]:
    run_stages(config, output, build_trainer, STAGES)
    placed = replace(
        score_config, ground_truth=score_config.ground_truth.replace("{output}", str(output))
    )
    folder = run_text_scores(output / "text", placed, output / "text-scores")
    return folder, json.loads((folder / SCORES_FILE).read_text())


class DemoFigures:
    """Collects the demo's figures of each seed, and the worst over seeds."""

    def __init__(self) -> None:
        self.by_seed: dict[str, Any] = {}
        self.worst: dict[str, float] = {}

    def keep_worst(
        self, name: str, value: float, worse: Callable[[float, float], float] = min
    ) -> None:
        self.worst[name] = worse(self.worst.get(name, value), value)

    def add_likelihood(self, seed: int, scores: dict[str, Any]) -> None:
        """Perplexity under each condition, and identification among users, with the item hidden."""
        self.keep_worst("users", scores["num_users"])
        for task in ("description", "review", "reason"):
            found = scores["likelihood"][f"{task}, item hidden"]
            self.keep_worst(f"{task}_users", found["texts"])
            for condition in ("own", "swapped", "none"):
                perplexity = found[condition]["perplexity"]
                self.by_seed[f"{task}_perplexity_{condition}_seed{seed}"] = perplexity
            gap = interval(found["swapped_minus_own"])
            self.by_seed[f"{task}_swapped_minus_own_seed{seed}"] = gap
            self.keep_worst(f"{task}_swapped_minus_own_worst_low", gap.low)
            identified = scores["identification"][f"{task}, item hidden"]
            share = identified["accuracy"]
            self.by_seed[f"{task}_identified_seed{seed}"] = interval(share)
            over_chance = share["value"] / identified["chance"]
            self.keep_worst(f"{task}_identified_over_chance", over_chance)

    def add_readings(self, seed: int, scores: dict[str, Any]) -> None:
        """How often generated texts name the user's own aspect, under each condition."""
        for task in ("review", "reason"):
            gap = scores["likelihood"][f"{task}, item shown"]["swapped_minus_own"]["low"]
            self.keep_worst(f"{task}_item_shown_swapped_minus_own_worst_low", gap)
            reading = scores["readings"][f"{task.capitalize()} names the user's aspect"]
            self.by_seed[f"{task}_names_aspect_own_seed{seed}"] = interval(reading["own"])
            self.by_seed[f"{task}_names_aspect_swapped_seed{seed}"] = interval(reading["swapped"])
            ratio = interval(reading["own_over_swapped"])
            self.by_seed[f"{task}_aspect_own_over_swapped_seed{seed}"] = ratio
            self.keep_worst(f"{task}_aspect_own_over_swapped_worst_low", ratio.low)

    def add_written(self, seed: int, scores: dict[str, Any]) -> None:
        """Unsupported claims of generated texts, and the fallback rate of verified ones."""
        for task, found in scores["generated"].items():
            own = found["verified"]["fallback_share"]
            self.by_seed[f"{task}_unsupported_seed{seed}"] = found["unsupported_claims"]
            self.by_seed[f"{task}_catalogs_own_strict_seed{seed}"] = own
            self.keep_worst("catalogs_own_strict_worst", own, max)


def record_demo(output: Path, seeds: tuple[int, ...]) -> None:
    text = TextConfig(
        tasks=("title", "description", "review", "reason"),
        trainer=TrainerConfig(max_steps=2000),
    )
    score_config = TextScoreConfig(
        num_users=NUM_USERS,
        num_generated=NUM_USERS,
        ground_truth="{output}/world/ground_truth",
        write=WriteConfig(verify_claims=True),
    )
    figures = DemoFigures()
    for seed in seeds:
        config = settings_of("demo", seed, text=text)
        _, scores = scores_of(config, output / f"demo-{seed}", score_config)
        figures.add_likelihood(seed, scores)
        figures.add_readings(seed, scores)
        figures.add_written(seed, scores)
    write_record(
        "text-demo",
        claim="Texts of the demo world's users are likelier conditioned on their user than on another one, "
        "identify them among twenty, and name what the user looks for.",
        command="python -m benchmarks.words demo",
        seeds=list(seeds),
        figures={**figures.worst, **figures.by_seed},
        sources=[*TEXTS, *TEXT_SCORES, "configs/pipeline/demo.yaml"],
        goal=[
            "users >= 300",
            "description_swapped_minus_own_worst_low > 0",
            "review_swapped_minus_own_worst_low > 0",
            "reason_swapped_minus_own_worst_low > 0",
            "review_identified_over_chance >= 5",
            "reason_aspect_own_over_swapped_worst_low >= 2",
        ],
        note="Test targets after a moment in time, of users of the second shop; pretrained on the "
        "first, adapted by LoRA, a generator of two layers trained from nothing on the training part. "
        "Differences are nats a token, 95 % bootstrap intervals over users; worst: of the seeds. "
        "Perplexity and identification are of true texts, the item hidden; where it is shown, "
        "differences are named so. A user is known by their history and, for all words, by what they "
        "said before; swapped has both of another user's. reason is what the user said of the item. "
        "The aspect is read by rule from words written about the true next item. unsupported: claims "
        "that the product's own check (generate/text/faithfulness.py) does not find borne out in what is "
        "written without verification; tests/generate/test_faithfulness.py measures its errors against the "
        "world's truth. What verification accepts is not judged here, for nothing but that check "
        "could; catalogs_own: texts for which no try passed it and the catalog's own words were taken.",
    )


def record_real(output: Path) -> None:
    shops = ("movies", "fashion")
    text = TextConfig(
        tasks=("title", "description", "keywords"),
        vocab_size=2048,
        trainer=TrainerConfig(max_steps=3000),
    )
    score_config = TextScoreConfig(num_users=NUM_USERS, num_generated=NUM_USERS)
    figures: dict[str, Any] = {}
    pages = []
    for shop in shops:
        folder, scores = scores_of(settings_of(shop, 0, text=text), output / shop, score_config)
        pages.append((folder / SAMPLES_FILE).read_text(encoding="utf8"))
        figures[f"{shop}_users"] = scores["num_users"]
        for task in scores["generated"]:
            figures |= task_figures(shop, task, scores)
    (output / SAMPLES).write_text("\n".join(pages), encoding="utf8")
    write_record(
        "text-real",
        claim="On films and on garments the next item's words are likelier conditioned on its user than on "
        "another user, and what is generated for the user is more like them than what is generated "
        "unconditionally.",
        command="python -m benchmarks.words real",
        seeds=[0],
        figures=figures,
        sources=[
            *TEXTS,
            *TEXT_SCORES,
            "configs/pipeline/fashion.yaml",
            "configs/pipeline/movies.yaml",
        ],
        goal=[
            f"{shop}_{what}_low > 0"
            for shop in shops
            for what in (
                "description_swapped_minus_own",
                "description_rouge_l_item_hidden_own_minus_none",
            )
        ],
        note="MovieLens 100K with plots, a week of a fashion shop; leave-one-out, at most "
        f"{NUM_USERS} users each, one seed; generators of two layers trained from nothing. Likelihood in "
        "nats a token of the next item's own text, the item hidden; ROUGE-L (F1) of written to true "
        "words, item shown and hidden. 95 % bootstrap intervals over users, paired. Three users side "
        f"by side: {SAMPLES} in the run's folder, as it holds the shops' own words.",
    )


def task_figures(shop: str, task: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Figures of one shop's texts of one task."""
    figures: dict[str, Any] = {}
    found = scores["generated"][task]
    likelihood = scores["likelihood"][f"{task}, item hidden"]
    for condition in ("own", "swapped", "none"):
        figures[f"{shop}_{task}_perplexity_{condition}"] = likelihood[condition]["perplexity"]
    for condition in ("swapped", "none"):
        gap = interval(likelihood[f"{condition}_minus_own"])
        figures[f"{shop}_{task}_{condition}_minus_own"] = gap
    whose = scores["identification"][f"{task}, item hidden"]["accuracy"]
    figures[f"{shop}_{task}_identified_among_20"] = interval(whose)
    for hidden in (False, True):
        likeness = (found["item_hidden"] if hidden else found)["rouge_l"]
        key = f"{shop}_{task}_rouge_l{'_item_hidden' if hidden else ''}"
        for condition in ("own", "swapped", "none", "own_minus_none"):
            figures[f"{key}_{condition}"] = interval(likeness[condition])
    figures[f"{shop}_{task}_unsupported"] = found["unsupported_claims"]
    figures[f"{shop}_{task}_near_copies"] = found["near_copies"]
    figures[f"{shop}_{task}_unique"] = found["unique"]
    return figures


def interval(found: dict[str, float]) -> Interval:
    return Interval(found["value"], found["low"], found["high"])


if __name__ == "__main__":
    main()
