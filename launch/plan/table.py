"""A plan as people read it."""

from launch.plan.footprint import Footprint
from launch.plan.plan import MARGIN, Plan, fits

COLUMNS = ("weights", "gradients", "optimizer", "buffers", "passing", "buckets", "overhead")


def told(size: int) -> str:
    """Bytes in the unit that suits them."""
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    if 0 < size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**20:.0f} MiB"


def table(plan: Plan) -> str:
    lines: list[str] = []
    if plan.found is not None:
        lines += [_counted(plan.found), "", *_strategies(plan), "", _advice(plan)]
    for finding in plan.findings:
        lines.append(f"{'wrong' if finding.wrong else 'unusual'}: {finding.line}")
    if not plan.findings:
        lines.append("nothing wrong was found")
    return "\n".join(lines)


def _counted(found: Footprint) -> str:
    return (
        f"{found.parameters:,} parameters, of which {found.trained:,} learn; a step reads "
        f"{found.slots:,} places of histories, and {found.items:,} items through the towers"
    )


def _strategies(plan: Plan) -> list[str]:
    device = plan.device
    head = f"a device of {plan.ranks} ({device.name}, {told(device.memory)})"
    lines = [
        f"{head:34}" + "".join(f"{name:>11}" for name in COLUMNS) + f"{'peak':>12}{'host':>11}"
    ]
    for share in plan.shares:
        mark = "*" if share.strategy == plan.chosen else " "
        cells = "".join(f"{told(getattr(share, name)):>11}" for name in COLUMNS)
        room = "fits" if fits(share, device, plan.per_node) else "too large"
        lines.append(
            f"{mark} {share.strategy:16}{room:16}{cells}{told(share.peak):>12}{told(share.host):>11}"
        )
    return [*lines, "* as the settings have it"]


def _advice(plan: Plan) -> str:
    if plan.recommended is None:
        return "nothing fits: take a larger device, more of them, or smaller towers"
    changes = "".join(f" --{key} {str(value).lower()}" for key, value in plan.settings.items())
    rows = f"; about {plan.rows:,} data.rows would fit" if plan.rows else ""
    return (
        f"recommended: --trainer.strategy {plan.recommended}{changes} (the simplest that leaves "
        f"{MARGIN:.0%} of the device free){rows}"
    )
