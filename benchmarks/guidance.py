"""Classifier-free guidance by the user: scales from 0 (unconditional), with the item kept.

python -m benchmarks.guidance    # five minutes; needs the generator of `benchmarks.pictures demo`
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pictures import STEPS, requests_of
from benchmarks.record import write_record
from benchmarks.sources import IMAGE_SCORES, IMAGES
from finetune.statistics import mean_interval
from generate.image.attribute_classifier import train_attribute_classifier
from generate.image.encoder_metrics import encode_catalog_images
from generate.image.feature_metrics import mean_features, standardize
from generate.image.score import NUM_RECENT

NUM_USERS = 200
SCALES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
"""User guidance scales, from 0 to the default."""
KIND = "category"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-words/demo-0"))
    figures = measure(parser.parse_args().output / "image")
    write_record(
        "image-guidance",
        claim="At scale 0 the user's picture is the unconditional one, byte by byte; the higher the scale "
        "the more it is like what they bought before, and it is still of the item's kind.",
        command="python -m benchmarks.guidance",
        seeds=[0],
        figures=figures,
        sources=[*IMAGES, *IMAGE_SCORES, "benchmarks/pictures.py"],
        goal=[
            f"same_as_unconditional_at_0 == {NUM_USERS}",
            "spearman_of_users_low >= 0.9",
            "kind_at_largest_scale >= 0.8",
        ],
        note=f"A generator with default settings, {STEPS:,} steps. {NUM_USERS} users of the demo's second "
        "shop, each drawn another item of their next item's kind "
        f"at scales {', '.join(map(str, SCALES))} of the user, all else as usual. Likeness: cosine to the "
        "mean of their last pictures in the features of a network that nothing was conditioned on "
        "(checked on held-out pictures: judge_names). spearman_of_users: rank correlation of scale and "
        "likeness of each user by themselves, mean over users and its 95 % interval. "
        "kind: share of the pictures that the network reads as of the item's kind.",
    )


def measure(generator: Path) -> dict[str, Any]:
    sampler, users, items = requests_of(generator, NUM_USERS)
    catalog = sampler.catalog
    eyes, right = train_attribute_classifier(catalog)
    seeds = list(range(NUM_USERS))

    def draw(states: torch.Tensor, scale: float) -> list[Any]:
        config = replace(sampler.defaults, user_guidance_scale=scale)
        return sampler.generate_unmarked(states, items.tolist(), seeds, config)

    unconditional = draw(users.states["none"], 1.0)
    drawn = {scale: draw(users.states["own"], scale) for scale in SCALES}
    same = sum(a.tobytes() == b.tobytes() for a, b in zip(unconditional, drawn[0.0], strict=True))
    frame = sampler.pipeline.codec.buckets[0]
    item_rows = sorted({int(item) for history in users.histories for item in history[-NUM_RECENT:]})
    rows, real = encode_catalog_images(catalog, item_rows, frame, eyes)
    groups = [[rows[int(i)] for i in h[-NUM_RECENT:] if int(i) in rows] for h in users.histories]
    known = [place for place, group in enumerate(groups) if group]
    targets = mean_features(standardize(real, real), [groups[place] for place in known])
    kinds = [catalog.items["category"][int(item)] for item in items]
    figures: dict[str, Any] = {
        "users": NUM_USERS,
        "same_as_unconditional_at_0": same,
        **{f"judge_names_{name}": share for name, share in right.items()},
    }
    columns = []
    for scale, pictures in drawn.items():
        features = eyes.features(pictures)
        likeness = (standardize(features, real)[known] * targets).sum(1).double().numpy()
        columns.append(likeness)
        name = f"{scale:g}".replace(".", "_")
        figures[f"likeness_at_{name}"] = mean_interval(likeness)
        read = eyes.classify(features, KIND)
        figures[f"kind_at_{name}"] = float(
            np.mean([a == b for a, b in zip(read, kinds, strict=True)])
        )
    table = np.stack(columns)
    figures["spearman_of_users"] = mean_interval(np.array([spearman(own) for own in table.T]))
    figures["kind_at_largest_scale"] = figures[f"kind_at_{SCALES[-1]:g}"]
    return figures


def spearman(values: np.ndarray) -> float:
    """Spearman correlation of values with their order, with average ranks for ties; 0 if all are equal."""
    ranks = (values[:, None] > values).sum(1) + (values[:, None] >= values).sum(1)
    if ranks.min() == ranks.max():
        return 0.0
    return float(np.corrcoef(ranks, np.arange(len(values)))[0, 1])


if __name__ == "__main__":
    main()
