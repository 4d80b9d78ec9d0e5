"""`vitrine launch plan` and `vitrine launch rehearse`."""

import json
from pathlib import Path

from catalog.errors import VitrineError
from launch.plan.config import PlanOptions, RehearseOptions, stage_settings


def plan(options: PlanOptions, rest: list[str]) -> None:
    config = stage_settings(options.stage, options.config, rest)
    from launch.plan.plan import make_plan
    from launch.plan.table import table, told

    made = make_plan(config, options.device, Path(options.output))
    content = made.to_dict()
    lines = [table(made)]
    if options.probe and made.found is not None:
        from launch.plan.probe import probe

        seen = probe(config, on_gpu=made.device.on_gpu)
        content["probe"] = seen.to_dict()
        lines.append(
            f"two steps here: {told(seen.measured)} measured, {told(seen.predicted)} predicted "
            f"({seen.error:+.1%})"
        )
    print(json.dumps(content, indent=1) if options.json else "\n".join(lines))
    wrong = [finding for finding in made.findings if finding.wrong]
    if wrong:
        raise VitrineError(
            f"{len(wrong)} of {len(made.findings)} findings must be put right; they are marked wrong "
            "above"
        )


def rehearse(options: RehearseOptions, rest: list[str]) -> None:
    config = stage_settings(options.stage, options.config, rest)
    from launch.plan.rehearse import rehearse as take_steps
    from launch.plan.rehearse import report

    found = take_steps(
        config,
        nodes=options.nodes or config.trainer.nodes,
        devices=options.devices or config.trainer.devices,
        rank=options.rank,
        steps=options.steps,
    )
    print(json.dumps(found, indent=1) if options.json else report(found))
