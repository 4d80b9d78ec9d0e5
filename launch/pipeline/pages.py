"""The report while a pipeline runs: written as soon as there is something to rank, and after each stage."""

import time
from collections.abc import Sequence
from pathlib import Path

from catalog.progress import duration
from launch.console import print_status
from launch.pipeline.config import PipelineConfig
from launch.pipeline.stage import StageLog

SECONDS_BETWEEN_PAGES = 20.0
"""Shortest time between two pages of the same ranking; each costs a second or two."""


class Pages:
    """Writes OUTPUT/report.html, always whole, and marked as preliminary until the last stage has ended."""

    def __init__(self, config: PipelineConfig, output: Path) -> None:
        self.config, self.output = config, output
        self.written_at = -float("inf")
        self.ranked_by: str | None = None
        """The arm of the lists on the latest page, "" for a baseline; None before the first page."""

    def update(self, log: StageLog, left: Sequence[str]) -> None:
        """Writes the page anew if there is a catalog, and a new ranking or some time since the last page."""
        from launch.pipeline.preview import best_arm  # loads torch, while the world is built

        if "world" in left:
            return
        ranked_by = best_arm(self.config, left)
        is_first = self.ranked_by is None
        due = time.monotonic() - self.written_at >= SECONDS_BETWEEN_PAGES
        if is_first or due or ranked_by != self.ranked_by:
            path = self.write(log, left)
            self.ranked_by = ranked_by
            if is_first:
                print_status(
                    f"First page, after {duration(log.elapsed)}: {path} (preliminary; reload it as "
                    "stages finish)"
                )

    def write(self, log: StageLog, left: Sequence[str]) -> Path:
        """Writes the page with what there is without the stages that are `left`; returns its path."""
        from launch.pipeline.report import write_report

        path = write_report(self.config, self.output, log.seconds, log.elapsed, left)
        self.written_at = time.monotonic()
        return path
