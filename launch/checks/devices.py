"""What there is to compute with: GPUs, cores, compilers, and DeepSpeed's own operators."""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from launch.checks import Finding

PATIENCE = 15
"""Seconds for a program that is asked something."""
BUILDERS = {"g++": "apt install g++", "ninja": "apt install ninja-build"}
"""Programs that compile an operator, and how to get them."""
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def gpus() -> Iterator[Finding]:
    import torch

    seen = _say("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split()
    if not torch.cuda.is_available():
        if seen:
            yield Finding(
                "fail",
                "gpus",
                f"nvidia-smi sees {len(seen)}, but torch {torch.__version__} cannot use them",
                "./install --cuda, or a driver as new as its CUDA",
            )
        else:
            yield Finding("ok", "gpus", "none; everything runs on the CPU")
        return
    count = torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(number) for number in range(count)})
    driver = f", driver {seen[0]}" if seen else ""
    yield Finding(
        "ok", "gpus", f"{count} × {' and '.join(names)}, CUDA {torch.version.cuda}{driver}"
    )
    if len(names) > 1:
        yield Finding(
            "warn",
            "gpus alike",
            "different ones; the slowest sets the pace",
            "choose with CUDA_VISIBLE_DEVICES",
        )
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding(
            "warn", "bf16", "not on these GPUs", "--trainer.precision 16-mixed or 32-true"
        )
    if not torch.distributed.is_nccl_available():
        yield Finding("fail", "nccl", "not in this build of torch", "./install --cuda")


def cores() -> Iterator[Finding]:
    allowed = usable_cores()
    visible = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads and (not threads.isdecimal() or int(threads) > allowed):
        yield Finding(
            "warn",
            "threads",
            f"OMP_NUM_THREADS is {threads!r} on {allowed} cores",
            f"a number, at most {allowed} divided by the processes on this machine",
        )
    elif not threads and allowed < visible:
        yield Finding(
            "warn",
            "threads",
            f"{visible} cores are seen, but {allowed} may be used",
            f"OMP_NUM_THREADS={allowed}",
        )
    else:
        yield Finding("ok", "threads", f"{threads or allowed} on {allowed} cores")


def usable_cores() -> int:
    """Those this process may run on, or as many as its container is given."""
    visible = len(os.sched_getaffinity(0))
    if CPU_QUOTA.is_file():
        quota, period = CPU_QUOTA.read_text().split()
        if quota != "max":
            return max(1, min(visible, int(quota) // int(period)))
    return visible


def compilers() -> Iterator[Finding]:
    """DeepSpeed's CPU optimiser and torch.compile compile on first use."""
    for program, remedy in BUILDERS.items():
        if shutil.which(program):
            yield Finding("ok", "compiler", program)
        else:
            needed = "offloading and compiled layers need it"
            yield Finding("warn", "compiler", f"no {program}; {needed}", remedy)
    yield from _cuda_compiler()


def _cuda_compiler() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        return
    release = re.search(r"release (\d+)", _say("nvcc", "--version"))
    wanted = str(torch.version.cuda).split(".")[0]
    if release is None:
        found = "no nvcc; DeepSpeed's fused operators need it"
        yield Finding("warn", "nvcc", found, f"the toolkit of CUDA {wanted}, CUDA_HOME set")
    elif release[1] != wanted:
        found = f"CUDA {release[1]}, torch has {wanted}: operators will not compile"
        yield Finding("warn", "nvcc", found, f"the toolkit of CUDA {wanted}, CUDA_HOME set")
    else:
        yield Finding("ok", "nvcc", f"CUDA {release[1]}, as torch has")


def deepspeed() -> Iterator[Finding]:
    """Whether its optimiser for offloading is built, or can be; importing it to ask takes seconds."""
    package = importlib.util.find_spec("deepspeed")
    if package is None or package.origin is None:
        yield Finding("fail", "deepspeed", "not installed", "./install")
        return
    told = Path(package.origin).with_name("git_version_info_installed.py")
    prebuilt = told.is_file() and runpy.run_path(str(told)).get("installed_ops", {})
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    extensions = Path(chosen) if chosen else Path.home() / ".cache" / "torch_extensions"
    if prebuilt and prebuilt.get("cpu_adam"):
        yield Finding("ok", "deepspeed", "CPUAdam came built")
    elif any(extensions.glob("**/cpu_adam/cpu_adam.so")):
        yield Finding("ok", "deepspeed", f"CPUAdam was compiled in {extensions}")
    elif all(map(shutil.which, BUILDERS)):
        yield Finding("ok", "deepspeed", "CPUAdam compiles on first use, in some minutes")
    else:
        found = "CPUAdam is not built and cannot be; offloading to the CPU will fail"
        yield Finding("warn", "deepspeed", found, " and ".join(BUILDERS.values()))


def _say(*command: str) -> str:
    """What a program prints; nothing where there is no such program, or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.stdout if done.returncode == 0 else ""
