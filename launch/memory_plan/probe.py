"""Measures two real training steps in a subprocess, to compare with the predicted memory.

    python -m launch.memory_plan.probe STAGE SETTINGS.yaml cpu|gpu

On a CPU the measure is the peak of resident memory beyond what the process held after all imports;
freed memory goes back to the system at once, so that only tensors count.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from catalog.errors import VitrineError

STEPS = 2
AT_ONCE = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
}
"""Environment of glibc: freed memory goes back to the system."""


@dataclass(frozen=True)
class Probe:
    predicted: int
    measured: int
    reserved: int | None = None
    """What torch's allocator held of a GPU."""

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "error": self.error}


def probe(config: Any, on_gpu: bool = False) -> Probe:
    from catalog.splits import load_split
    from launch.memory_plan.footprint import footprint

    catalog, split = load_split(config.catalog, config.split)
    predicted = footprint(config, catalog, split, on_gpu=on_gpu, steps=STEPS, counted=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yaml"
        file.write_text(json.dumps(asdict(config)))  # which is YAML, too
        stage = type(config).__name__.removesuffix("Config").lower()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "launch.memory_plan.probe",
                stage,
                str(file),
                "gpu" if on_gpu else "cpu",
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **AT_ONCE},
        )
    if done.returncode:
        raise VitrineError(f"the two steps failed: {done.stderr.strip().splitlines()[-1:]}")
    measured_values = json.loads(done.stdout.strip().splitlines()[-1])
    return Probe(predicted.peak, measured_values["measured"], measured_values["reserved"])


def measure(config: Any, on_gpu: bool) -> dict[str, Any]:
    """Measures the memory of two steps of the config in this process."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from catalog.memory import PeakMemory
    from catalog.splits import load_split
    from launch.memory_plan.build import build_stage
    from launch.memory_plan.footprint import default_dtype, footprint, silent_warnings
    from launch.trainer import build_trainer

    catalog, split = load_split(config.catalog, config.split)
    brief = replace(config, data=replace(config.data, rows=1))
    footprint(brief, catalog, split, steps=1)  # imports all that a step needs

    class Steps(Dataset[Any]):
        def __init__(self, batch: Any) -> None:
            self.batch = batch

        def __len__(self) -> int:
            return STEPS

        def __getitem__(self, step: int) -> Any:
            return self.batch(step)

    with silent_warnings(), tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config.trainer, Path(folder) / "first", "")
        _one_small_fit(trainer)
        gc.collect()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        memory = PeakMemory()
        with default_dtype(config.trainer.precision):
            built = build_stage(config, catalog, split)
        trainer = build_trainer(config.trainer, Path(folder) / "second", "")
        trainer.fit(built.module, DataLoader(Steps(built.batch), batch_size=None))
        if on_gpu:
            peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
            return {"measured": peak, "reserved": reserved}
        if memory.mib is None:
            raise VitrineError(
                "this system does not report the memory of a process; probe on Linux"
            )
        return {"measured": round(memory.mib * 2**20), "reserved": None}


def _one_small_fit(trainer: Any) -> None:
    """Fits a tiny module, so that a first fit's imports and allocations are not measured."""
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader

    from pretrain.config import OptimizerConfig
    from pretrain.optim import make_optimizer

    class Small(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.linear(batch).sum()

        def configure_optimizers(self) -> Any:
            return make_optimizer(self.parameters(), OptimizerConfig(), STEPS)

    trainer.fit(Small(), DataLoader(torch.zeros(STEPS, 4)))  # type: ignore[arg-type]


def main(stage: str, file: str, where: str) -> None:
    from launch.memory_plan.config import STAGES
    from launch.settings import load_settings

    config = load_settings(STAGES[stage], file, [])
    trainer = replace(
        config.trainer,
        max_steps=STEPS,
        devices=1,
        nodes=1,
        strategy="auto",
        accelerator=where,
        checkpoint_every=0,
        progress=False,
    )
    print(json.dumps(measure(replace(config, trainer=trainer), where == "gpu")))


if __name__ == "__main__":
    main(*sys.argv[1:])
