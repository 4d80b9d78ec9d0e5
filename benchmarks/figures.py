"""Turns the metrics of a pipeline's showcase into flat figures of a record."""

import json
import re
from pathlib import Path
from typing import Any

from catalog.artifacts import open_artifact

PICTURE_MEASURES = {
    "Palette of the user is in the image": "palette",
    "Motif of the user is in the image": "motif",
    "Colours shared with earlier purchases": "colours_before",
    "Colours shared with the next purchase": "colours_next",
}


def content_figures(folder: Path) -> dict[str, Any]:
    """Image and text scores of a showcase under each condition; metrics that it lacks are left out."""
    showcase = open_artifact(folder, kind="showcase")
    scores = json.loads((showcase.path / "showcase.json").read_text())["scores"]
    figures: dict[str, Any] = {}
    for name, measure in scores["image"]["metrics"].items():
        key = PICTURE_MEASURES[name]
        figures[f"{key}_users"] = measure["num_users"]
        for condition in ("own", "swapped", "none", "contrast"):
            _interval(figures, f"{key}_{condition}", measure[condition])
    for name, words in scores["text"]["likelihood"].items():
        key = figure_name(name)
        figures[f"words_{key}_users"] = words["texts"]
        for condition in ("own", "swapped", "none"):
            figures[f"words_{key}_perplexity_{condition}"] = words[condition]["perplexity"]
        _interval(figures, f"words_{key}_swapped_minus_own", words["swapped_minus_own"])
    for name, reading in scores["text"]["readings"].items():
        for condition in ("own", "swapped"):
            _interval(figures, f"words_{figure_name(name)}_{condition}", reading[condition])
    return figures


def figure_name(name: str) -> str:
    """`zero-shot` → `zero_shot`, `description, item hidden` → `description_item_hidden`."""
    return re.sub(r"\W+", "_", name.lower().replace("'s", ""))


def _interval(figures: dict[str, Any], name: str, values: dict[str, float]) -> None:
    figures[name] = values["value"]
    figures[f"{name}_low"], figures[f"{name}_high"] = values["low"], values["high"]
