"""`vitrine launch plan` and `vitrine launch simulate`."""

import json
from pathlib import Path

from catalog.errors import VitrineError
from launch.memory_plan.config import SIMULATED, PlanOptions, SimulateOptions, stage_settings


def plan(options: PlanOptions, rest: list[str]) -> None:
    config = stage_settings(options.stage, options.config, rest)
    from launch.memory_plan.devices import find_device, with_precision
    from launch.memory_plan.plan import make_memory_plan
    from launch.memory_plan.table import format_bytes, plan_table

    config = with_precision(config, find_device(options.device))
    memory_plan = make_memory_plan(config, options.device, Path(options.output))
    content = memory_plan.to_dict()
    lines = [plan_table(memory_plan)]
    if options.probe and memory_plan.footprint is not None:
        from launch.memory_plan.probe import probe

        probed = probe(config, on_gpu=memory_plan.device.on_gpu)
        content["probe"] = probed.to_dict()
        lines.append(
            f"two steps here: {format_bytes(probed.measured)} measured, "
            f"{format_bytes(probed.predicted)} predicted ({probed.error:+.1%})"
        )
    print(json.dumps(content, indent=1) if options.json else "\n".join(lines))
    errors = [problem for problem in memory_plan.problems if problem.is_error]
    if errors:
        raise VitrineError(
            f"{len(errors)} of {len(memory_plan.problems)} problems must be fixed; they are marked error "
            "above"
        )


def simulate(options: SimulateOptions, rest: list[str]) -> None:
    config = stage_settings(options.stage, options.config, rest, SIMULATED)
    from launch.memory_plan.devices import find_device, with_precision
    from launch.simulate import run
    from launch.simulate.report import report

    result = run.simulate(
        with_precision(config, find_device("here")),
        nodes=options.nodes or config.trainer.nodes,
        devices=options.devices or config.trainer.devices,
        rank=options.rank,
        steps=options.steps,
    )
    print(json.dumps(result, indent=1) if options.json else report(result))
