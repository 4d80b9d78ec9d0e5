"""LoRA under DDP and ZeRO: the same adapter, whole, and checkpoints without the frozen base."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from catalog.catalog import load_catalog
from catalog.splits import make_split
from finetune.config import FinetuneConfig
from finetune.ranker import load_ranker
from tests.stages import train

pytestmark = pytest.mark.slow

ADAPTER = Path("adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def steps(settings: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps without dropout, as YAML."""
    config = replace(
        settings,
        transfer="lora",
        features="content+id",
        dropout=0.0,
        validate_every=4,
        trainer=replace(
            settings.trainer, accelerator="cpu", log_every=1, checkpoint_every=2, max_steps=4
        ),
    )
    path = tmp_path_factory.mktemp("settings") / "lora.yaml"
    path.write_text(yaml.safe_dump(asdict(config)))
    return path


@pytest.fixture(scope="module")
def two(steps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks that hold everything."""
    output = tmp_path_factory.mktemp("ddp") / "run"
    train(steps, output, "ddp", 2)
    return output


def check_same(output: Path, other: Path) -> None:
    ours, theirs = load_file(output / ADAPTER), load_file(other / ADAPTER)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.numel() > 0, f"{name} is empty: a shard was saved, not the weight"
        torch.testing.assert_close(value, theirs[name], atol=2e-5, rtol=1e-4, msg=name)
    assert any("lora_B" in name and value.abs().sum() > 0 for name, value in ours.items())
    curves = [json.loads((run / "curves.json").read_text())["loss"] for run in (output, other)]
    np.testing.assert_allclose(*(np.array(curve) for curve in curves), rtol=1e-5)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_shards_give_the_adapter_of_whole_weights(
    strategy: str, steps: Path, two: Path, settings: FinetuneConfig, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    train(steps, output, strategy, 2)
    check_same(output, two)
    catalog = load_catalog(settings.catalog)
    ranking = load_ranker(output, catalog).rank_targets(
        catalog, make_split(catalog, settings.split).test
    )
    stored = np.load(output / "test_ranks.npy")
    assert (ranking.ranks == stored).mean() > 0.99


@pytest.mark.parametrize(("strategy", "devices"), [("auto", 1), ("zero2", 2), ("zero3", 2)])
def test_a_checkpoint_holds_no_frozen_weight_and_is_enough(
    strategy: str, devices: int, steps: Path, settings: FinetuneConfig, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(steps, whole, strategy, devices)
    train(steps, broken, strategy, devices, kill_at=3)
    (state,) = broken.with_name("broken.work").rglob("step=2/state")
    held = names_in(state)
    assert any("lora_A" in name for name in held)
    assert not [name for name in held if "base_layer" in name or ".embeddings." in name]
    assert train(steps, broken, strategy, devices)["first_step"] == 2
    ours, theirs = load_file(whole / ADAPTER), load_file(broken / ADAPTER)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    shutil.rmtree(whole)


def names_in(state: Path) -> set[str]:
    """Of all weights in a checkpoint, a file of Lightning's or a folder of DeepSpeed's."""
    names: set[str] = set()
    for file in [state] if state.is_file() else sorted(state.rglob("*model_states.pt")):
        held = torch.load(file, map_location="cpu", weights_only=False)
        names |= set(held.get("state_dict") or held["module"])
        names |= set(held.get("frozen_param_fragments") or {})
        for shapes in held.get("param_shapes") or []:
            names |= set(shapes)
    return names


def test_ids_alone_learn_on_two_ranks(steps: Path, tmp_path: Path) -> None:
    """DDP waits for the gradient of every weight that is to be trained."""
    config = yaml.safe_load(steps.read_text()) | {"features": "id", "transfer": "scratch"}
    ids = tmp_path / "ids.yaml"
    ids.write_text(yaml.safe_dump(config))
    assert train(ids, tmp_path / "shared", "ddp", 2)["world_size"] == 2
