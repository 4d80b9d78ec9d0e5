"""Jobs that tests submit, what is written for them, and what schedulers were called with."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalog.yaml_files import dump_yaml
from launch.submit.config import Job, LaunchOptions
from launch.submit.kubernetes import manifests
from launch.submit.slurm import batch_script

PYTHON, FOLDER = "/opt/vitrine/bin/python", Path("/home/ada/a shop's")
ASKED = LaunchOptions(
    "pretrain",
    time="12:00:00",
    partition="gpu",
    account="shop",
    after="41",
    sbatch="--mem=64G --comment='two words'",
    image="registry/vitrine:1",
    namespace="shops",
)
JOB = Job(
    name="vitrine-pretrain",
    runs=(("pretrain", "--catalog.path", "a shop's", "--trainer.devices", "8"),),
    nodes=2,
    devices=8,
    gpus=True,
    cpus=4,
    restarts=3,
)
SWEEP = replace(
    JOB,
    runs=tuple(("pretrain", "--output", f"out-{seed}") for seed in range(2)),
    nodes=1,
    gpus=False,
)
HARD_WORDS = ("a b", "it's", '"', "$(echo no)", "`no`", "$HOME", "\\", "é\nnext", "*", "")


def scripts() -> dict[str, str]:
    return {
        "pretrain.sbatch": batch_script(JOB, ASKED, PYTHON, FOLDER),
        "sweep.sbatch": batch_script(SWEEP, LaunchOptions("pretrain"), PYTHON, FOLDER),
    }


def documents() -> dict[str, list[dict[str, Any]]]:
    return {
        "pytorchjob.yaml": manifests(JOB, ASKED),
        "jobset.yaml": manifests(JOB, replace(ASKED, kind="jobset")),
        "sweep.yaml": manifests(SWEEP, replace(ASKED, namespace="")),
    }


def written() -> dict[str, str]:
    dumped = {name: dump_yaml(several) for name, several in documents().items()}
    return scripts() | dumped


def calls(name: str) -> list[str]:
    log = Path("calls")
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line.split()[0] == name]


def wait_for(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
