"""The result of a simulation as lines of text."""

from typing import Any

from launch.memory_plan.table import format_bytes

SHOWN = 8
"""Ranks whose rows are listed; all are checked."""


def report(result: dict[str, Any]) -> str:
    """Rows by rank, traffic, shards, learning rate and checkpoints."""
    ranks, steps = result["ranks"], result["rows"]
    lines = [f"{ranks} ranks, of which this is {result['rank']}; no other rank exists"]
    for number, step in enumerate(steps):
        each = [f"{rank}: {batch[0]}–{batch[-1]}" for rank, batch in enumerate(step[:SHOWN])]
        more = " …" if len(step) > SHOWN else ""
        lines.append(f"batch {number}: rows by rank  {'  '.join(each)}{more}")
    lines.append(
        f"rows are {'disjoint' if result['disjoint'] else 'READ TWICE'} and "
        f"{'cover' if result['covered'] else 'DO NOT COVER'} the global batch; every rank takes "
        f"{' or '.join(map(str, result['batches_of_each_rank']))} batches"
    )
    for number, step in enumerate(result["traffic"]):
        for name, entry in sorted(step.items()):
            shapes = ", ".join("×".join(map(str, shape)) or "1" for shape in entry["shapes"][:6])
            lines.append(
                f"batch {number}: {name}: {entry['calls']} times, {format_bytes(entry['bytes'])} sent; "
                f"{shapes}"
            )
    lines.append(f"{result['parameters']:,} parameters, of which {result['trained']:,} are trained")
    if result["shards"]:
        parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in result["shards"].items())
        lines.append(
            f"under {result['strategy']} each rank holds: {parts} (computed: DeepSpeed is not simulated, "
            "the steps above were taken under DDP)"
        )
    rates = result["schedule"]
    rate_by_step = ", ".join(
        f"{step:,}: {rate:.2g}" for step, rate in rates["learning_rate"].items()
    )
    lines.append(f"learning rate by step: {rate_by_step}")
    for what in ("checkpoints", "validation"):
        if rates.get(what):
            lines.append(f"{what} after steps {_brief(rates[what])}")
    return "\n".join(lines)


def _brief(steps: list[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    return ", ".join(shown if len(shown) < 6 else [*shown[:3], "…", *shown[-2:]])
