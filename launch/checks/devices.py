"""Checks of GPUs, CPU cores, compilers and DeepSpeed's operators."""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from launch.checks import CheckResult

TIMEOUT = 15
"""Seconds within which a program has to answer."""
BUILDERS = {"g++": "apt install g++", "ninja": "apt install ninja-build"}
"""Programs that compile an operator, and how to get them."""
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def gpus() -> Iterator[CheckResult]:
    import torch

    seen = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split()
    if not torch.cuda.is_available():
        if seen:
            yield CheckResult(
                "fail",
                "gpus",
                f"nvidia-smi sees {len(seen)}, but torch {torch.__version__} cannot use them",
                "./install --cuda, or a driver as new as its CUDA",
            )
        else:
            yield CheckResult("ok", "gpus", "none; everything runs on the CPU")
        return
    count = torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(number) for number in range(count)})
    driver = f", driver {seen[0]}" if seen else ""
    yield CheckResult(
        "ok", "gpus", f"{count} × {' and '.join(names)}, CUDA {torch.version.cuda}{driver}"
    )
    if len(names) > 1:
        yield CheckResult(
            "warn",
            "gpus alike",
            "different ones; the slowest sets the pace",
            "choose with CUDA_VISIBLE_DEVICES",
        )
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        yield CheckResult(
            "warn", "bf16", "not on these GPUs", "--trainer.precision 16-mixed or 32-true"
        )
    if not torch.distributed.is_nccl_available():
        yield CheckResult("fail", "nccl", "not in this build of torch", "./install --cuda")


def cores() -> Iterator[CheckResult]:
    allowed = usable_cores()
    visible = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads and (not threads.isdecimal() or int(threads) > allowed):
        yield CheckResult(
            "warn",
            "threads",
            f"OMP_NUM_THREADS is {threads!r} on {allowed} cores",
            f"a number, at most {allowed} divided by the processes on this machine",
        )
    elif not threads and allowed < visible:
        yield CheckResult(
            "warn",
            "threads",
            f"{visible} cores are seen, but {allowed} may be used",
            f"OMP_NUM_THREADS={allowed}",
        )
    else:
        yield CheckResult("ok", "threads", f"{threads or allowed} on {allowed} cores")


def usable_cores() -> int:
    """Number of CPU cores this process may use, within the quota of its container."""
    visible = len(os.sched_getaffinity(0))
    if CPU_QUOTA.is_file():
        quota, period = CPU_QUOTA.read_text().split()
        if quota != "max":
            return max(1, min(visible, int(quota) // int(period)))
    return visible


def compilers() -> Iterator[CheckResult]:
    """DeepSpeed's CPU optimiser and torch.compile compile on first use."""
    for program, remedy in BUILDERS.items():
        if shutil.which(program):
            yield CheckResult("ok", "compiler", program)
        else:
            needed = "offloading and compiled layers need it"
            yield CheckResult("warn", "compiler", f"no {program}; {needed}", remedy)
    yield from _cuda_compiler()


def _cuda_compiler() -> Iterator[CheckResult]:
    import torch

    if not torch.cuda.is_available():
        return
    release = re.search(r"release (\d+)", _output_of("nvcc", "--version"))
    cuda_version = str(torch.version.cuda).split(".")[0]
    if release is None:
        message = "no nvcc; DeepSpeed's fused operators need it"
        yield CheckResult(
            "warn", "nvcc", message, f"the toolkit of CUDA {cuda_version}, CUDA_HOME set"
        )
    elif release[1] != cuda_version:
        message = f"CUDA {release[1]}, torch has {cuda_version}: operators will not compile"
        yield CheckResult(
            "warn", "nvcc", message, f"the toolkit of CUDA {cuda_version}, CUDA_HOME set"
        )
    else:
        yield CheckResult("ok", "nvcc", f"CUDA {release[1]}, as torch has")


def deepspeed() -> Iterator[CheckResult]:
    """Whether DeepSpeed's optimiser for offloading is built, or can be; DeepSpeed is not imported."""
    package = importlib.util.find_spec("deepspeed")
    if package is None or package.origin is None:
        yield CheckResult("fail", "deepspeed", "not installed", "./install")
        return
    ops_file = Path(package.origin).with_name("git_version_info_installed.py")
    prebuilt = ops_file.is_file() and runpy.run_path(str(ops_file)).get("installed_ops", {})
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    extensions = Path(chosen) if chosen else Path.home() / ".cache" / "torch_extensions"
    if prebuilt and prebuilt.get("cpu_adam"):
        yield CheckResult("ok", "deepspeed", "CPUAdam came built")
    elif any(extensions.glob("**/cpu_adam/cpu_adam.so")):
        yield CheckResult("ok", "deepspeed", f"CPUAdam was compiled in {extensions}")
    elif all(map(shutil.which, BUILDERS)):
        yield CheckResult("ok", "deepspeed", "CPUAdam compiles on first use, in some minutes")
    else:
        message = "CPUAdam is not built and cannot be; offloading to the CPU will fail"
        yield CheckResult("warn", "deepspeed", message, " and ".join(BUILDERS.values()))


def _output_of(*command: str) -> str:
    """Output of a program; "" where it does not exist or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return done.stdout if done.returncode == 0 else ""
