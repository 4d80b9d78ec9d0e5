"""Runs a pipeline: a list of stages, each skipped if its artifact already exists.

A pipeline keeps no other state, so it can be interrupted anywhere and loses at most the stages in
progress.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from catalog.errors import VitrineError
from catalog.progress import duration
from launch.console import print_status
from launch.pipeline.config import PipelineConfig
from launch.pipeline.schedule import expected_seconds, next_stage, runs_alone
from launch.pipeline.stage import Stage, StageLog
from launch.pipeline.stages import pipeline_stages
from launch.pipeline.workers import WorkerPool

Update = Callable[[StageLog, Sequence[str]], None]
"""Called with the log and the names of the stages that are left, before the first stage and after each."""


def run_pipeline(config: PipelineConfig, output: Path, build_trainer: Any) -> Path:
    """Runs what is not done yet and writes `report.html`; returns its path.

    The page is there, marked as preliminary, as soon as there is a catalog to rank, and is written again
    after each stage.
    """
    from launch.pipeline.pages import Pages

    pages = Pages(config, output)
    log = run_pipeline_stages(config, output, build_trainer, update=pages.update)
    report = pages.write(log, [])
    print_status("\n".join(time_table(log)))
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
    return run_pipeline_stages(config, output, build_trainer, only).seconds


def run_pipeline_stages(
    config: PipelineConfig,
    output: Path,
    build_trainer: Any,
    only: tuple[str, ...] | None = None,
    update: Update = lambda log, left: None,
) -> StageLog:
    """As `run_stages`; returns the log."""
    _check_headline(config)
    print_status(f"{config.title} → {output}")
    output.mkdir(parents=True, exist_ok=True)
    log = StageLog(output / "stages.json")
    stages = pipeline_stages(config, output, build_trainer)
    if only is not None:
        stages = [stage for stage in stages if stage.name.split()[0] in only]
    size = min(config.parallel_stages, len(os.sched_getaffinity(0)))
    _print_plan(stages, config.expected_seconds, size)
    pool: Pool
    if size == 1:
        pool = InProcess(stages)
        _run(stages, pool, {}, config.expected_seconds, log, update)
        return log
    pool = WorkerPool(size, config, output, build_trainer)
    with pool.forwarding_signals():
        _run(stages, pool, config.expected_seconds, config.expected_seconds, log, update)
    return log


class Pool(Protocol):
    """What runs the stages that are due: this process, or several."""

    size: int

    @property
    def has_idle(self) -> bool: ...

    def start(self, stage: str, sharing: int) -> None:
        """Starts a stage; `sharing` stages share the cores."""
        ...

    def wait(self) -> list[tuple[str, float]]:
        """Stages that have ended, one at least, with the seconds they took."""
        ...


class InProcess:
    """Runs one stage after the other in this process."""

    size = 1

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.next = ""

    @property
    def has_idle(self) -> bool:
        return not self.next

    def start(self, stage: str, sharing: int) -> None:
        self.next = stage

    def wait(self) -> list[tuple[str, float]]:
        started = time.perf_counter()
        self.stages[self.next].run()
        ended, self.next = self.next, ""
        return [(ended, time.perf_counter() - started)]


def _run(
    stages: Sequence[Stage],
    pool: Pool,
    priority: Mapping[str, float],
    expected: Mapping[str, float],
    log: StageLog,
    update: Update,
) -> None:
    """Runs the stages on `pool`; `priority`: the seconds by which the most urgent one is chosen."""
    started: list[str] = []
    finished: list[str] = []
    while True:
        while pool.has_idle and (stage := next_stage(stages, finished, started, priority)):
            started.append(stage.name)
            place = f"[{len(started)}/{len(stages)}] {stage.name}"
            if stage.is_done():
                print_status(f"{place}: done earlier")
                finished.append(stage.name)
                continue
            wait = expected.get(stage.name)
            print_status(f"{place}: about {duration(wait)}" if wait else place)
            sharing = 1 if runs_alone(stages, stage.name, finished) else pool.size
            pool.start(stage.name, sharing)
        left = [stage.name for stage in stages if stage.name not in finished]
        if not left:
            return
        update(log, left)
        for name, seconds in pool.wait():
            log.record(name, seconds)
            finished.append(name)


def _print_plan(stages: Sequence[Stage], expected: Mapping[str, float], size: int) -> None:
    left = {stage.name: expected.get(stage.name, 0.0) for stage in stages if not stage.is_done()}
    parts = [f"{len(stages)} stages", f"about {duration(expected_seconds(stages, left, size))}"]
    together = f", {size} at a time" if size > 1 else ""
    print_status(f"{parts[0]}{together}, {parts[1]} on two cores; Ctrl-C keeps finished stages")


def _check_headline(config: PipelineConfig) -> None:
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


def time_table(log: StageLog) -> list[str]:
    """Lines of a table of the stages: name, seconds, share of all stages' seconds; then the whole run."""
    total = sum(log.seconds.values()) or 1.0
    width = max(map(len, [*log.seconds, "all stages"]))
    rows = [*log.seconds.items(), ("all stages", total)]
    lines = [f"{'stage':{width}}  seconds  share"]
    lines += [f"{name:{width}}  {value:7.1f}  {value / total:5.1%}" for name, value in rows]
    return [*lines, f"{'whole run':{width}}  {log.elapsed:7.1f}"]
