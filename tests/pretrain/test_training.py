"""Pretraining end to end: one process and two ranks under ZeRO learn the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from pretrain.artifact import EncoderBundle
from pretrain.embed_items import embed_items
from tests.pretrain.runs import train as start

SCRIPT = Path(__file__).with_name("train_once.py")


def train(world: Path, output: Path, strategy: str, devices: int) -> tuple[dict, dict]:
    """Curves and facts of a run of its own; under torchrun where there are several devices."""
    arguments = [str(SCRIPT), str(world), str(output), strategy, str(devices)]
    start = [sys.executable]
    if devices > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, *arguments], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    curves = json.loads((output / "curves.json").read_text())
    return curves, json.loads(output.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def alone(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("alone") / "encoder"
    curves, facts = train(demo_world / "home", output, "auto", 1)
    assert facts["world_size"] == 1
    return output, curves


def test_the_loss_falls(alone: tuple[Path, dict]) -> None:
    losses = [value for _, value in alone[1]["loss"]]
    assert len(losses) == 8
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_two_ranks_lose_what_one_process_loses(
    strategy: str, alone: tuple[Path, dict], demo_world: Path, tmp_path: Path
) -> None:
    curves, facts = train(demo_world / "home", tmp_path / "encoder", strategy, 2)
    assert facts["world_size"] == 2
    wanted = "DistributedDataParallel" if strategy == "ddp" else "DeepSpeedEngine"
    assert facts["engine"] == wanted
    for name in ("loss", "loss/cross_modal", "loss/sigmoid", "loss/next_item"):
        np.testing.assert_allclose(curves[name], alone[1][name], atol=1e-4)


def test_the_artifact_gives_the_same_vectors_whatever_else_is_embedded(
    alone: tuple[Path, dict], demo_world: Path
) -> None:
    artifact = open_artifact(alone[0], kind="encoder")
    bundle = EncoderBundle.load(artifact.path)
    catalog = load_catalog(CatalogConfig(path=str(demo_world / "home")))
    loader = bundle.content_loader(catalog)
    vectors = np.empty((catalog.num_items, 32), dtype=np.float32)
    again = np.empty_like(vectors)
    embed_items(bundle.encoder, loader, vectors, batch_tokens=2000, progress=False)
    embed_items(bundle.encoder, loader, again, batch_tokens=100, progress=False)
    np.testing.assert_allclose(vectors, again, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not torch.isnan(torch.from_numpy(vectors)).any()


@pytest.mark.slow
def test_every_objective_is_the_same_on_two_ranks_that_share_the_weights(
    demo_world: Path, tmp_path: Path
) -> None:
    settings = {"steps": 5, "every": 0, "every_objective": True}
    start(demo_world / "home", tmp_path / "alone", **settings)
    start(demo_world / "home", tmp_path / "shared", strategy="zero3", devices=2, **settings)
    alone, shared = (
        json.loads((tmp_path / name / "curves.json").read_text()) for name in ("alone", "shared")
    )
    wanted = {
        "cross_modal",
        "sigmoid",
        "next_item",
        "co_engagement",
        "bag_of_words",
        "language_modeling",
    }
    assert {f"loss/{name}" for name in wanted | {"reconstruction"}} == set(alone) - {"loss"}
    for name in wanted:
        np.testing.assert_allclose(shared[f"loss/{name}"], alone[f"loss/{name}"], atol=1e-4)
        values = [value for _, value in alone[f"loss/{name}"]]
        assert np.isfinite(values).all()
        assert values[0] > 0, name
