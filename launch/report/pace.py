"""How soon pretrained weights are where training from nothing ends."""

import json
from collections.abc import Mapping
from pathlib import Path

from finetune.config import ArmConfig

CURVE = "validation NDCG@10"
LEVEL = "what scratch has at its end on validation (NDCG@10)"


def curve_of(folder: Path) -> list[tuple[int, float]]:
    """(step, NDCG@10 of validation targets) of a recommender; empty where there was no validation."""
    path = folder / "curves.json"
    if not path.exists():
        return []
    return [
        (int(step), float(value)) for step, value in json.loads(path.read_text()).get(CURVE, [])
    ]


def steps_to(curve: list[tuple[int, float]], level: float) -> int | None:
    """The first step at which it is there; None where it never is."""
    return next((step for step, value in curve if value >= level), None)


def pace(folders: list[Path], scratch: list[Path]) -> tuple[list[int | None], int]:
    """Of each seed the steps to what `scratch` has at its end, and the steps there were."""
    theirs = [curve_of(folder) for folder in scratch]
    ours = [curve_of(folder) for folder in folders]
    if not all(theirs) or not all(ours):
        return [], 0
    found = [steps_to(one, other[-1][1]) for one, other in zip(ours, theirs, strict=True)]
    return found, theirs[0][-1][0]


def paces(arms: Mapping[str, ArmConfig], folders: Mapping[str, list[Path]]) -> list[str]:
    """A sentence for each arm whose pretrained weights learn on, where one learned from nothing."""
    if "scratch" not in arms:
        return []
    told = []
    for name in ("frozen", "lora", "full"):
        steps, budget = pace(folders[name], folders["scratch"]) if name in arms else ([], 0)
        reached = [step for step in steps if step is not None]
        if not steps:
            continue
        what = f"Pretraining ({name})"
        if len(reached) == len(steps):
            mean = sum(reached) / len(reached)
            told.append(f"{what} is at {LEVEL} after {mean:.0f} of {budget} steps.")
        else:
            missed = len(steps) - len(reached)
            runs = "" if missed == len(steps) else f" in {missed} of {len(steps)} runs"
            told.append(f"{what} does not come to {LEVEL} within {budget} steps{runs}.")
    return told
