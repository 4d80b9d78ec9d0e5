"""Convergence: after how many steps pretrained weights reach what training from scratch ends at."""

import json
from collections.abc import Mapping
from pathlib import Path

from finetune.config import ArmConfig

CURVE = "validation NDCG@10"
LEVEL = "what scratch has at its end on validation (NDCG@10)"


def validation_curve(folder: Path) -> list[tuple[int, float]]:
    """(step, NDCG@10 of validation targets) of a recommender; empty where there was no validation."""
    path = folder / "curves.json"
    if not path.exists():
        return []
    return [
        (int(step), float(value)) for step, value in json.loads(path.read_text()).get(CURVE, [])
    ]


def steps_to(curve: list[tuple[int, float]], level: float) -> int | None:
    """The first step at which the curve reaches `level`; None where it never does."""
    return next((step for step, value in curve if value >= level), None)


def steps_to_scratch(folders: list[Path], scratch: list[Path]) -> tuple[list[int | None], int]:
    """For each seed, the steps until `folders` reach the final value of `scratch`; then all its steps."""
    theirs = [validation_curve(folder) for folder in scratch]
    ours = [validation_curve(folder) for folder in folders]
    if not all(theirs) or not all(ours):
        return [], 0
    reached = [steps_to(one, other[-1][1]) for one, other in zip(ours, theirs, strict=True)]
    return reached, theirs[0][-1][0]


def convergence_sentences(
    arms: Mapping[str, ArmConfig], folders: Mapping[str, list[Path]]
) -> list[str]:
    """A sentence for each transfer mode that trains on, where there is an arm trained from scratch."""
    if "scratch" not in arms:
        return []
    sentences = []
    for name in ("frozen", "lora", "full"):
        steps, budget = (
            steps_to_scratch(folders[name], folders["scratch"]) if name in arms else ([], 0)
        )
        reached = [step for step in steps if step is not None]
        if not steps:
            continue
        what = f"Pretraining ({name})"
        if len(reached) == len(steps):
            mean = sum(reached) / len(reached)
            sentences.append(f"{what} is at {LEVEL} after {mean:.0f} of {budget} steps.")
        else:
            missed = len(steps) - len(reached)
            runs = "" if missed == len(steps) else f" in {missed} of {len(steps)} runs"
            sentences.append(f"{what} does not come to {LEVEL} within {budget} steps{runs}.")
    return sentences
