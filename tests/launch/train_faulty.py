"""Run by torchrun or alone: trains the toy model to its end, while something happens to one rank.

    train_faulty.py OUTPUT '{"signal": "SIGTERM", "rank": 1, "step": 5, …}'

`Fault` has the rest. Writes OUTPUT/rank<n>.json with the losses since it went on, where it ended well.
"""

import errno
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from catalog.errors import AllRanksError, VitrineError
from launch.cli import exit_process
from launch.graceful_stop import StoppedError, end
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from tests.launch.train_toy import Numbers, Record, Toy


@dataclass(frozen=True)
class Fault:
    signal: str = ""
    """Sent by the rank to itself, in the forward pass of `step`, the first time it comes there."""
    times: int = 1
    rank: int = 0
    step: int = 7
    sleep: float = 0.0
    """Instead: the rank sleeps so long in its forward pass."""
    late: float = 0.0
    """Or before it starts."""
    slow: float = 0.0
    """Seconds that each step takes."""
    steps: int = 16
    every: int = 5
    """Steps between checkpoints; the toy's batches begin again with every fourth step."""
    devices: int = 1
    timeout: float = 5.0
    apart: bool = False
    """Each rank but the first has a folder of its own, OUTPUT-rank1 and so on."""
    unreadable: str = ""
    """A checkpoint of which the rank can read no file (EIO)."""


class Happen(pl.Callback):
    def __init__(self, fault: Fault, folder: Path) -> None:
        self.fault = fault
        self.folder = folder

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        fault, done = self.fault, self.folder / "happened"
        time.sleep(fault.slow)
        if (trainer.global_rank, trainer.global_step) != (fault.rank, fault.step) or done.exists():
            return
        done.write_text(str(time.time()))
        for _ in range(fault.times if fault.signal else 0):
            os.kill(os.getpid(), signal.Signals[fault.signal])
        time.sleep(fault.sleep)


def fail_to_read(checkpoint: str) -> None:
    """As a disk does whose sectors are gone."""
    read = Path.read_text

    def read_text(path: Path, *rest: Any, **more: Any) -> str:
        if path.parent.name == checkpoint:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path, *rest, **more)

    Path.read_text = read_text  # type: ignore[method-assign]


def main(output: str, settings: str) -> int:
    torch.set_num_threads(1)
    fault, folder, record = Fault(**json.loads(settings)), Path(output), Record()
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainerConfig(
        max_steps=fault.steps,
        accelerator="cpu",
        devices=fault.devices,
        strategy="ddp" if fault.devices > 1 else "auto",
        checkpoint_every=fault.every,
        hang_timeout=fault.timeout,
        progress=False,
        log_to="csv",
    )
    rank = int(os.environ.get("RANK", "0"))
    work = folder.with_name(f"{folder.name}-rank{rank}") if fault.apart and rank else folder
    if fault.unreadable and rank == fault.rank:
        fail_to_read(fault.unreadable)
    trainer = build_trainer(config, work, "Toy", callbacks=[Happen(fault, folder), record])
    if trainer.global_rank == fault.rank:
        time.sleep(fault.late)
    numbers = Numbers(trainer.global_rank, trainer.world_size)
    try:
        trainer.fit(Toy(), DataLoader(numbers, batch_size=None))
    except StoppedError as stop:
        return end(stop)
    except VitrineError as error:
        if not isinstance(error, AllRanksError):
            print(f"vitrine: {error}", file=sys.stderr)
        return 2
    facts = {"world_size": trainer.world_size, "losses": record.losses}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(facts))
    return 0


if __name__ == "__main__":
    exit_process(main(*sys.argv[1:]))
