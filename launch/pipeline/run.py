"""Runs a pipeline: a list of stages, each skipped if its artifact already exists.

A pipeline keeps no other state, so it can be interrupted anywhere and loses at most the stage in
progress.
"""

import time
from pathlib import Path
from typing import Any

from catalog.errors import VitrineError
from catalog.progress import duration
from launch.console import print_status
from launch.pipeline.config import PipelineConfig
from launch.pipeline.report import write_report
from launch.pipeline.stage import StageLog
from launch.pipeline.stages import pipeline_stages


def run_pipeline(config: PipelineConfig, output: Path, build_trainer: Any) -> Path:
    """Runs what is not done yet and writes `report.html`; returns its path."""
    seconds = run_stages(config, output, build_trainer)
    report = write_report(config, output, seconds)
    print_status(f"Report: {report}")
    return report


def run_stages(
    config: PipelineConfig,
    output: Path,
    build_trainer: Any,
    only: tuple[str, ...] | None = None,
) -> dict[str, float]:
    """Runs the stages that are not done; `only` selects stages by the first word of their name.

    Returns the seconds each took, when it ran.
    """
    if config.headline not in config.arms:
        raise VitrineError(
            f"headline '{config.headline}' is not one of the arms ({', '.join(config.arms)})"
        )
    if config.arms[config.headline].kind != "recommender":
        raise VitrineError(
            f"headline '{config.headline}' is a {config.arms[config.headline].kind} arm "
            f"(model {config.arms[config.headline].model}), for which no generators can be "
            "trained; name an arm whose model is vitrine"
        )
    print_status(f"{config.title} → {output}")
    output.mkdir(parents=True, exist_ok=True)
    log = StageLog(output / "stages.json")
    stages = pipeline_stages(config, output, build_trainer)
    if only is not None:
        stages = [stage for stage in stages if stage.name.split()[0] in only]
    left = sum(config.expected_seconds.get(s.name, 0) for s in stages if not s.is_done())
    print_status(
        f"{len(stages)} stages, about {duration(left)} on two cores; Ctrl-C keeps finished stages"
    )
    for number, stage in enumerate(stages, 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if stage.is_done():
            print_status(f"{place}: done earlier")
            continue
        wait = config.expected_seconds.get(stage.name)
        print_status(f"{place}: about {duration(wait)}" if wait else place)
        started = time.perf_counter()
        stage.run()
        log.record(stage.name, time.perf_counter() - started)
    return log.seconds
