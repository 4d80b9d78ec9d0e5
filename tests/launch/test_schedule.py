"""Stages start when what they wait for is there, the most urgent first, and no more at a time than asked."""

import json
import time
from pathlib import Path
from typing import Any

from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import Pool, _run, time_table
from launch.pipeline.schedule import expected_seconds, next_stage, prerequisites, runs_alone
from launch.pipeline.stage import Stage, StageLog
from launch.pipeline.stages import pipeline_stages
from launch.pipeline.workers import _exit_code
from launch.settings import load_settings

SECONDS = {"pretrain": 9.0, "lora": 3.0, "full": 4.0, "text": 2.0, "image": 8.0, "showcase": 1.0}


def stage(name: str, *parents: str, alone: bool = False, quick: bool = False) -> Stage:
    folders = {parent: Path(parent) for parent in parents}
    return Stage(name, Path(name), "", {}, folders, lambda: None, alone=alone, quick=quick)


def demo() -> list[Stage]:
    return [
        stage("world", alone=True),
        stage("pretrain", alone=True),
        stage("lora", "pretrain"),
        stage("full", "pretrain"),
        stage("zero-shot", "pretrain", quick=True),
        stage("id"),
        stage("text", "lora"),
        stage("image", "lora"),
        stage("showcase", "lora", "text", "image"),
    ]


class Recorder:
    """A pool whose stages take their expected seconds on a clock of its own."""

    def __init__(self, size: int) -> None:
        self.size, self.now = size, 0.0
        self.ends: dict[str, float] = {}
        self.started: list[tuple[str, int]] = []
        self.at_once: list[int] = []

    @property
    def has_idle(self) -> bool:
        return len(self.ends) < self.size

    def start(self, stage: str, sharing: int) -> None:
        self.started.append((stage, sharing))
        self.ends[stage] = self.now + SECONDS.get(stage, 0.5)
        self.at_once.append(len(self.ends))

    def wait(self) -> list[tuple[str, float]]:
        first = min(self.ends, key=lambda name: self.ends[name])
        self.now = self.ends.pop(first)
        return [(first, SECONDS.get(first, 0.5))]


def run(stages: list[Stage], size: int, tmp_path: Path) -> tuple[Recorder, list[list[str]]]:
    pool, left = Recorder(size), []
    checked: Pool = pool
    log = StageLog(tmp_path / "stages.json")
    priority = SECONDS if size > 1 else {}
    _run(stages, checked, priority, SECONDS, log, lambda _, names: left.append(list(names)))
    return pool, left


def test_a_stage_waits_for_its_parents_and_for_stages_that_run_alone() -> None:
    waits = prerequisites(demo())
    assert waits["pretrain"] == {"world"}
    assert waits["id"] == {"world", "pretrain"}
    assert waits["image"] == {"world", "pretrain", "lora"}
    assert waits["showcase"] == {"world", "pretrain", "lora", "text", "image"}


def test_a_quick_ranking_comes_first_and_then_the_longest_chain(tmp_path: Path) -> None:
    pool, _ = run(demo(), 2, tmp_path)
    names = [name for name, _ in pool.started]
    assert names[:4] == ["world", "pretrain", "zero-shot", "lora"]
    assert names.index("image") < names.index("text")
    assert max(pool.at_once) == 2
    assert pool.now == expected_seconds(
        demo(), {s.name: SECONDS.get(s.name, 0.5) for s in demo()}, 2
    )


def test_one_at_a_time_they_keep_their_order() -> None:
    done: list[str] = []
    while (found := next_stage(demo(), done, (), {})) is not None:
        done.append(found.name)
    assert done == ["world", "pretrain", "zero-shot", *[s.name for s in demo()[2:4]], *done[5:]]
    assert done[5:] == ["id", "text", "image", "showcase"]


def test_a_stage_that_nothing_can_run_beside_has_all_cores(tmp_path: Path) -> None:
    pool, _ = run(demo(), 2, tmp_path)
    sharing = dict(pool.started)
    assert sharing["world"] == sharing["pretrain"] == sharing["showcase"] == 1
    assert sharing["lora"] == sharing["image"] == 2
    assert not runs_alone(demo(), "image", ["world", "pretrain", "lora"])


def test_the_update_names_what_is_left_before_and_after_each_stage(tmp_path: Path) -> None:
    _, left = run(demo(), 1, tmp_path)
    assert left[0] == [s.name for s in demo()]
    assert left[-1] == ["showcase"]
    assert json.loads((tmp_path / "stages.json").read_text())["stages"]["image"] == 8.0


def test_a_failure_counts_before_a_stop_and_a_stop_before_a_killed_process() -> None:
    assert _exit_code([75, 2]) == 2
    assert _exit_code([-15, 75]) == 75
    assert _exit_code([77, 75]) == 75
    assert _exit_code([-9]) == 137


def test_the_time_table_has_a_line_for_each_stage_and_for_the_whole_run(tmp_path: Path) -> None:
    log = StageLog(tmp_path / "stages.json")
    log.record("world", 10.0)
    log.record("pretrain", 30.0)
    lines = time_table(log)
    assert [line.split()[0] for line in lines] == ["stage", "world", "pretrain", "all", "whole"]
    assert lines[2].split() == ["pretrain", "30.0", "75.0%"]


def test_the_time_of_an_interrupted_run_goes_on_from_its_last_stage(tmp_path: Path) -> None:
    log = StageLog(tmp_path / "stages.json")
    log.earlier = 100.0
    log.record("world", 10.0)
    again = StageLog(tmp_path / "stages.json")
    assert again.seconds == {"world": 10.0}
    assert 100.0 <= again.elapsed < 105.0


def test_times_written_by_an_earlier_version_are_read(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text('{"world": 3.0}')
    assert StageLog(tmp_path / "stages.json").seconds == {"world": 3.0}


def test_listing_the_stages_takes_no_time(tmp_path: Path) -> None:
    """It imports no model, so that the first stage starts at once."""
    config: Any = load_settings(PipelineConfig, "pipeline/demo", [])
    started = time.process_time()
    names = [each.name for each in pipeline_stages(config, tmp_path, None)]
    assert time.process_time() - started < 2
    assert names[0] == "world"
