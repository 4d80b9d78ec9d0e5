"""One stage of a pipeline: its artifact, whether that exists already, and the log of run times.

A stage is done when its folder holds an artifact made with the same settings from the same catalog
and parents; anything else (nothing there, a half-written folder, another setting) runs it again. Where
the folders lie and how a run goes (devices, logging) are no such settings.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catalog.artifacts import open_artifact
from catalog.atomic_write import replace_file
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.config import ArmConfig, FinetuneConfig


@dataclass
class Stage:
    """A stage: its name, and the folder, kind, settings and parents of the artifact that `run` writes."""

    name: str
    folder: Path
    kind: str
    config: dict[str, Any]
    parents: dict[str, Path]
    run: Callable[[], Any]
    done: Callable[[], bool] | None = None
    """Whether it is done, for a stage that writes no artifact."""
    alone: bool = False
    """No stage runs at the same time: those before it end first, and those after it wait for it."""
    quick: bool = False
    """It takes seconds and gives a ranking to look at, so it runs as soon as it can."""

    def is_done(self) -> bool:
        if self.done is not None:
            return self.done()
        if not (self.folder / "manifest.json").exists():
            return False
        from catalog.catalog import load_catalog
        from pretrain.request import result_request

        try:
            artifact = open_artifact(self.folder, kind=self.kind)
            for path in self.parents.values():
                open_artifact(path)
            catalog = load_catalog(CatalogConfig(**self.config["catalog"])).fingerprint
            expected_hash = result_request(self.kind, self.config, self.parents, catalog)
        except VitrineError:
            return False
        return artifact.manifest["request_hash"] == expected_hash


def recommender_stage(
    name: str, arm: ArmConfig, settings: FinetuneConfig, folder: Path, build_trainer: Any
) -> Stage:
    """The stage that fits one arm and ranks its test targets."""

    def run() -> Path:
        from finetune.baselines.run import run_baseline
        from finetune.run import run_finetuning
        from finetune.semantic_ids.run import run_semantic_ids

        if arm.model == "vitrine":
            return run_finetuning(settings, folder, build_trainer)
        if arm.model == "semantic-ids":
            return run_semantic_ids(settings, folder, build_trainer)
        return run_baseline(arm.model, settings, folder, build_trainer)

    is_baseline = arm.kind == "baseline"
    reads_encoder = settings.encoder and (not is_baseline or arm.model == "vbpr")
    return Stage(
        f"finetune {name}",
        folder,
        arm.kind,
        {"model": arm.model, **asdict(settings)} if is_baseline else asdict(settings),
        {"encoder": Path(settings.encoder)} if reads_encoder else {},
        run,
        quick=arm.model == "vitrine" and arm.transfer == "zero-shot",
    )


class StageLog:
    """Seconds each stage took, and the whole run, kept over interruptions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()
        written = json.loads(path.read_text()) if path.exists() else {}
        self.seconds: dict[str, float] = written.get("stages", written)
        self.earlier: float = written.get("elapsed", 0.0)
        """Seconds of the commands before this one, up to the last stage that they finished."""

    @property
    def elapsed(self) -> float:
        """Seconds of the run so far, where it was interrupted without the time in between. Stages that
        run at the same time take more seconds together."""
        return self.earlier + time.monotonic() - self.started

    def record(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(seconds, 1)
        partial = self.path.with_suffix(".partial")
        written = {"stages": self.seconds, "elapsed": round(self.elapsed, 1)}
        partial.write_text(json.dumps(written, indent=1))
        replace_file(partial, self.path)
