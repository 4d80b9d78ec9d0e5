"""`vitrine evaluate`: ranking metrics of a recommender."""

import json
from dataclasses import dataclass
from pathlib import Path

from launch.commands.devices import ComputeOptions


@dataclass(frozen=True)
class EvaluateOptions(ComputeOptions):
    recommender: str
    """Folder of a recommender artifact."""
    part: str = "test"
    """Targets to rank: test or validation."""
    output: str = ""
    """A JSON file for the metrics; empty: they are only printed."""


def evaluate(options: EvaluateOptions) -> None:
    from finetune.evaluate_artifact import evaluate_recommender

    table = evaluate_recommender(options.recommender, options.part, options.compute())
    if options.output:
        Path(options.output).write_text(json.dumps(table, indent=1) + "\n", encoding="utf8")
    groups: dict[str, list[str]] = {}
    for name in table:
        group, _, metric = name.rpartition("/")
        groups.setdefault(group, []).append(metric)
    for group, metrics in groups.items():
        print(group or "all")
        for metric in metrics:
            value = table[f"{group}/{metric}" if group else metric]
            whole = metric in ("users", "targets")
            print(f"  {metric:18} {value:10,.0f}" if whole else f"  {metric:18} {value:10.4f}")
