"""A memory plan as a table of text."""

from launch.memory_plan.footprint import Footprint
from launch.memory_plan.plan import MARGIN, MemoryPlan, fits

COLUMNS = ("weights", "gradients", "optimizer", "buffers", "activations", "buckets", "overhead")


def format_bytes(size: int) -> str:
    """Bytes in a readable unit."""
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    if 0 < size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**20:.0f} MiB"


def plan_table(plan: MemoryPlan) -> str:
    """Bytes of each strategy, the recommendation, and all problems."""
    lines: list[str] = []
    if plan.footprint is not None:
        lines += [_counted(plan.footprint), "", *_strategies(plan), "", _advice(plan)]
    for problem in plan.problems:
        lines.append(f"{'error' if problem.is_error else 'warning'}: {problem.message}")
    if not plan.problems:
        lines.append("no problems")
    return "\n".join(lines)


def _counted(single: Footprint) -> str:
    counted = f"{single.parameters:,} parameters, of which {single.trained:,} are trained"
    if not single.slots:
        return counted
    return (
        f"{counted}; a step reads {single.slots:,} slots of histories, and {single.items:,} items through "
        "the towers"
    )


def _strategies(plan: MemoryPlan) -> list[str]:
    device = plan.device
    head = f"a device of {plan.ranks} ({device.name}, {format_bytes(device.memory)})"
    lines = [
        f"{head:34}" + "".join(f"{name:>13}" for name in COLUMNS) + f"{'peak':>13}{'host':>13}"
    ]
    for share in plan.sharded:
        mark = "*" if share.strategy == plan.chosen else " "
        cells = "".join(f"{format_bytes(getattr(share, name)):>13}" for name in COLUMNS)
        room = "fits" if fits(share, device, plan.devices_per_node) else "too large"
        lines.append(
            f"{mark} {share.strategy:16}{room:16}{cells}{format_bytes(share.peak):>13}"
            f"{format_bytes(share.host):>13}"
        )
    return [*lines, "* as configured"]


def _advice(plan: MemoryPlan) -> str:
    if plan.recommended is None:
        return "nothing fits: take a larger device, more of them, or smaller towers"
    changes = "".join(f" --{key} {str(value).lower()}" for key, value in plan.settings.items())
    rows = f"; about {plan.rows:,} data.rows would fit" if plan.rows else ""
    return (
        f"recommended: --trainer.strategy {plan.recommended}{changes} (the simplest that leaves "
        f"{MARGIN:.0%} of the device free){rows}"
    )
