"""Runs the README's two commands, each in a fresh clone of HEAD: exit codes, seconds, gigabytes.

python -m benchmarks.fresh_clone    # about 25 minutes on two cores
"""

import argparse
import os
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.record import ROOT, write_record

NAMES = {"demo": "./install &&", "tests": "./install --test &&"}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    figures: dict[str, float | int] = {}
    for name, line in readme_lines().items():
        with tempfile.TemporaryDirectory() as parent:
            figures |= {f"{name}_{k}": v for k, v in run_in_fresh_clone(line, Path(parent)).items()}
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    figures["peak_memory_gigabytes"] = largest / 1e9
    write_record(
        "spine-fresh-clone",
        claim="From a fresh clone, the README's two lines install everything and run the demo, and "
        "install everything and pass the tests, without CUDA packages where there is no GPU.",
        command="python -m benchmarks.fresh_clone",
        seeds=[0],
        figures=figures,
        sources=["configs/pipeline/demo.yaml", "constraints.txt", "install", "pyproject.toml"],
        goal=[f"{name}_{what} == 0" for name in NAMES for what in ("exit", "cuda_packages")],
        note="Each line in a clone and an environment of its own. Seconds include the installation; "
        "how long that takes is the package index's affair. Gigabytes are what lies in the clone "
        "afterwards; memory is that of the largest process.",
    )


def readme_lines() -> dict[str, str]:
    """Extracts the two commands from the README's fenced blocks."""
    fenced = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = [line for block in fenced for line in block.splitlines()]
    return {
        name: next(line for line in lines if line.startswith(begin))
        for name, begin in NAMES.items()
    }


def run_in_fresh_clone(line: str, parent: Path) -> dict[str, float | int]:
    """Runs one command in a fresh clone, without an active environment and with an empty cache."""
    clone = parent / "vitrine"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    if (shared := ROOT.parent / "shared").exists():  # real data that some tests read
        (parent / "shared").symlink_to(shared)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "PYTHON"))}
    environment |= {"VITRINE_CACHE": str(parent / "cache")}
    started = time.perf_counter()
    done = subprocess.run(["bash", "-c", line], cwd=clone, env=environment, check=False)
    seconds = time.perf_counter() - started
    packages = [p.name for p in clone.glob(".venv/lib/python3*/site-packages/*.dist-info")]
    return {
        "exit": done.returncode,
        "seconds": seconds,
        "gigabytes": size_of(clone) / 1e9,
        "cuda_packages": sum(name.startswith(("nvidia_", "cuda_")) for name in packages),
    }


def size_of(folder: Path) -> int:
    """Bytes on disk below `folder`, links not followed."""
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if not p.is_symlink())


if __name__ == "__main__":
    main()
