"""The memory plan equals the measured memory, and reports the mistakes of a config."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import launch.memory_plan.footprint
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.config import FinetuneConfig, FinetuneDataConfig
from launch.cli import main
from launch.memory_plan.build import build_stage
from launch.memory_plan.checks import check_data, check_disk, check_precision, check_settings
from launch.memory_plan.config import stage_settings
from launch.memory_plan.devices import DEVICES, Device, find_device
from launch.memory_plan.fake_tensors import ACTIVATIONS, FakeTensorMeter
from launch.memory_plan.footprint import (
    Footprint,
    autocast,
    detach_from_trainer,
    footprint,
    is_half_precision,
)
from launch.memory_plan.plan import make_memory_plan
from launch.memory_plan.probe import probe
from launch.memory_plan.sharding import shard_footprint
from pretrain.config import (
    EncoderConfig,
    OptimizerConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.optim import make_optimizer
from tests.stages import write_settings


def pretraining(world: Path, **changes: Any) -> PretrainConfig:
    bert = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2}
    vit = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "patch_size": 8}
    sizes = {"num_attention_heads": 2, "intermediate_size": 64}
    settings: dict[str, Any] = {
        "catalog": CatalogConfig(path=str(world / "home")),
        "encoder": EncoderConfig(
            width=32,
            text=TowerConfig(config=bert | sizes, vocab_size=300),
            image=TowerConfig(config=vit | sizes, image_size=32),
            sequence=SequenceConfig(layers=1, heads=2),
        ),
        "data": PretrainDataConfig(rows=4, row_length=8),
        "trainer": TrainerConfig(accelerator="cpu", progress=False),
    }
    return PretrainConfig(**(settings | changes))


def by_ids(world: Path, **changes: Any) -> FinetuneConfig:
    settings: dict[str, Any] = {
        "catalog": CatalogConfig(path=str(world / "wardrobe")),
        "transfer": "scratch",
        "features": "id",
        "width": 16,
        "data": FinetuneDataConfig(rows=4),
    }
    return FinetuneConfig(**(settings | changes))


def counted(config: Any, **settings: Any) -> Footprint:
    return footprint(config, *load_split(config.catalog, config.split), **settings)


@pytest.mark.parametrize("kind", ["both", "frozen", "parts", "bf16", "ids"])
def test_a_hollow_step_takes_what_a_real_one_takes(demo_world: Path, kind: str) -> None:
    config: Any = pretraining(demo_world)
    if kind == "frozen":
        still = replace(config.encoder.image, frozen=True)
        config = replace(config, encoder=replace(config.encoder, image=still))
    if kind == "parts":
        config = replace(config, data=replace(config.data, num_micro_batches=3))
    if kind == "bf16":
        config = replace(config, trainer=replace(config.trainer, precision="bf16-mixed"))
    if kind == "ids":
        config = by_ids(demo_world, optimizer=OptimizerConfig(ema_decay=0.99))
    found = counted(config, steps=1)

    catalog, split = load_split(config.catalog, config.split)
    with FakeTensorMeter(hollow=False) as mode:
        built = build_stage(config, catalog, split)
        module = built.module.train()
        mode.name(module.parameters(), "weights")
        mode.name(module.buffers(), "buffers")
        mode.follow(module.parameters())
        detach_from_trainer(module)  # pyright: ignore[reportArgumentType]
        batch = built.batch(0)
        mode.begin()
        with autocast(config.trainer.precision):
            loss = built.module.training_step(batch, 0)
            forward = mode.peak_activations
            mode.begin()
            loss.backward()
        activations = max(forward, mode.peak_activations)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, config.optimizer, 10)["optimizer"]
    optimizer.step()
    states = [x for state in optimizer.state.values() for x in state.values()]

    assert found.parameters == sum(p.numel() for p in module.parameters())
    assert found.trained == sum(p.numel() for p in trained)
    gradients = sum(max(64, p.grad.nbytes) for p in trained if p.grad is not None)
    assert found.gradients == gradients
    assert found.optimizer == pytest.approx(sum(x.nbytes for x in states), rel=0.05)
    assert found.activations == pytest.approx(activations, rel=0.02)


def test_what_autograd_saves_is_what_the_footprint_of_the_forward_pass_counts(
    demo_world: Path,
) -> None:
    config = pretraining(demo_world)
    found = counted(config, steps=1)
    built = build_stage(config, *load_split(config.catalog, config.split))
    detach_from_trainer(built.module.train())  # pyright: ignore[reportArgumentType]
    own = {p.untyped_storage().data_ptr() for p in built.module.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = built.batch(0)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = built.module.training_step(batch, 0)
    assert 0.6 * found.forward <= sum(saved.values()) <= found.forward
    assert loss.requires_grad


def test_further_micro_batches_hold_no_more_memory(
    demo_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pretraining(demo_world)
    text = replace(config.encoder.text, length_groups=1)
    encoder = replace(config.encoder, text=text, image=None)
    config = replace(config, encoder=encoder, data=replace(config.data, num_micro_batches=6))
    brief = counted(config, steps=1)
    monkeypatch.setattr(launch.memory_plan.footprint, "REAL_MICRO_BATCHES", 99)
    assert brief.activations == pytest.approx(counted(config, steps=1).activations, rel=0.1)


def test_masks_without_content_count_everywhere() -> None:
    with FakeTensorMeter():
        hollow = torch.randn(3, 4)
        known = torch.tensor([True, False, True])
        assert hollow[known].shape == (2, 4)
        assert hollow[hollow > 0].shape == (12,)
        assert int(known.sum()) == 2


def test_hollow_tensors_are_counted_until_they_go() -> None:
    with FakeTensorMeter() as mode:
        held = torch.zeros(1000)
        activations = held + 1
        assert mode.live[ACTIVATIONS] == 8000
        del activations
        assert mode.live[ACTIVATIONS] == 4000
        for _ in range(3):  # one after the other takes no more than one
            activations = held + 1
            del activations
        mode.name([held], "weights")
        assert mode.live == {"weights": 4000, ACTIVATIONS: 0}
        assert mode.peak == 8000


FOOTPRINT = Footprint(
    parameters=1000,
    trained=1000,
    weights=4000,
    trained_weights=4000,
    buffers=0,
    gradients=4000,
    optimizer=8000,
    forward=500,
    backward=4700,
    activations=700,
    update=0,
    best=0,
    items=1,
    slots=1,
    bytes_each=4,
)
BARE = Device("bare", 10**9, on_gpu=True, bfloat16=True, process_overhead=0)


def test_zero_divides_what_it_shards() -> None:
    def at(strategy: str, ranks: int = 4, halves: bool = False) -> Any:
        return shard_footprint(FOOTPRINT, strategy, ranks, BARE, halves)

    alone, ddp = at("auto", ranks=1), at("ddp")
    assert alone.peak == 4000 + 8000 + 4700
    assert ddp.peak == alone.peak + 4000  # DDP's buckets
    assert at("zero1").gradients == 4000 + 1000
    assert at("zero2").gradients == 1000 + 1000
    assert at("zero1").optimizer == at("zero2").optimizer == 2000 + 1000  # and a master copy
    assert at("zero2", ranks=8).optimizer == 1500
    assert at("zero2", halves=True).weights == 2000
    offloaded = at("zero2-offload")
    assert offloaded.optimizer == offloaded.gradients == 0
    assert offloaded.host == at("zero2").optimizer + at("zero2").gradients
    assert at("zero3-offload").host == offloaded.host + 1000


@pytest.mark.slow
def test_shares_are_what_weights_and_optimiser_take(demo_world: Path, tmp_path: Path) -> None:
    """Of two ranks, under every strategy, in every precision."""
    training = TrainerConfig(max_steps=4, devices=2, accelerator="cpu", checkpoint_every=0)
    optimizer = OptimizerConfig(ema_decay=0.9)
    training = replace(training, progress=False)
    # Wide enough that what an allocator adds to the smallest tensors, which plans count, is little.
    config = by_ids(demo_world, width=64, trainer=training, optimizer=optimizer)
    path = write_settings(config, tmp_path / "settings.yaml")
    script = Path(__file__).with_name("bytes_on_ranks.py")
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *start, str(script), str(path), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads((tmp_path / "bytes.json").read_text())
    assert len(found) == 12
    for name, measured in found.items():
        strategy, precision = name.split()
        planned = counted(
            replace(config, trainer=replace(config.trainer, precision=precision)), steps=1
        )
        predicted = shard_footprint(planned, strategy, 2, BARE, is_half_precision(precision))
        assert predicted.optimizer == pytest.approx(measured["optimizer"], rel=0.05), name
        gathered = 2 * measured["weights"] if strategy == "zero3" else 0  # for as long as used
        assert predicted.weights == pytest.approx(measured["weights"] + gathered, rel=0.05), name


def test_zero_keeps_its_master_copy_and_moments_whole_where_weights_are_halves() -> None:
    """In bf16-true and bf16-mixed alike; a process by itself keeps moments as halves."""
    halves = {"weights": 2000, "trained_weights": 2000, "gradients": 2000, "optimizer": 4000}
    true = replace(FOOTPRINT, **halves, best=2000, bytes_each=2)
    mixed = replace(FOOTPRINT, best=4000)
    for strategy in ("zero1", "zero2", "zero3", "zero2-offload", "zero3-offload"):
        assert shard_footprint(true, strategy, 4, BARE, True) == shard_footprint(
            mixed, strategy, 4, BARE, True
        )
    assert shard_footprint(true, "zero2", 4, BARE, True).optimizer == 1000 + 2000
    assert shard_footprint(true, "zero3", 4, BARE, True).buffers == 0, "no rank has weights to keep"
    assert shard_footprint(true, "ddp", 4, BARE, True).optimizer == 4000


def wrong(config: Any) -> list[str]:
    return [problem.message for problem in check_settings(config)]


def test_all_problems_of_the_settings_are_reported(demo_world: Path) -> None:
    config = pretraining(demo_world)
    text = replace(config.encoder.text, config={**config.encoder.text.config, "hidden_size": 33})
    image = replace(config.encoder.image, image_size=30)
    config = replace(
        config,
        encoder=replace(config.encoder, width=30, text=text, image=image),
        data=replace(config.data, rows=0, num_micro_batches=0),
        optimizer=OptimizerConfig(warmup_share=1.0),
        trainer=TrainerConfig(strategy="zero2", max_steps=100, checkpoint_every=500),
    )
    lines = "\n".join(wrong(config))
    for expected in (
        "hidden_size 33 is not divisible by 2 heads; try 32 or 34",
        "image_size 30 is not divisible by patches of 8",
        "width 30 cannot be shared by 2 attention heads of even width; try 28 or 32",
        "warmup_share is 1",
        "checkpoint_every 500 is more than the 100 steps",
        "zero2 shards over 1 device",
        "num_micro_batches is 0",
        "rows is 0",
    ):
        assert expected in lines
    assert wrong(pretraining(demo_world)) == []


def test_problems_of_the_settings_with_the_data_are_reported(demo_world: Path) -> None:
    def findings_of(config: Any) -> str:
        found = check_data(config, *load_split(config.catalog, config.split))
        return "\n".join(problem.message for problem in found)

    usual = pretraining(demo_world, trainer=TrainerConfig(max_steps=10))
    assert findings_of(usual) == ""
    assert "contrast needs 8" in findings_of(
        replace(usual, data=PretrainDataConfig(rows=1, row_length=2))
    )
    long = PretrainDataConfig(rows=4, row_length=64)
    assert "row_length 64 is more than the 32" in findings_of(replace(usual, data=long))
    forever = replace(usual, trainer=TrainerConfig(max_steps=10**6))
    assert "training interactions" in findings_of(forever)
    sampled = by_ids(demo_world, loss="sampled", trainer=TrainerConfig(max_steps=10))
    assert "negatives 8,192 are more than the 80 items" in findings_of(sampled)
    assert "encode_items 96 are more than the 80" in findings_of(sampled)


def test_devices_and_disks_are_checked(tmp_path: Path) -> None:
    old = Device("old", 10**9, on_gpu=True, bfloat16=False, process_overhead=0)
    assert "no bfloat16" in check_precision("bf16-mixed", old)[0].message
    assert check_precision("bf16-mixed", DEVICES["h100"]) == []
    assert "made for GPUs" in check_precision("16-mixed", replace(old, on_gpu=False))[0].message
    assert "free" in check_disk({"weights": 10**18}, tmp_path / "not" / "there")[0].message
    assert check_disk({"weights": 1}, tmp_path) == []
    with pytest.raises(VitrineError, match="no device 'h10' is known"):
        find_device("h10")


def test_a_plan_recommends_the_simplest_that_fits(
    demo_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pretraining(demo_world, trainer=TrainerConfig(devices=4, accelerator="cpu"))
    plan = make_memory_plan(config, "h100", tmp_path)
    assert plan.recommended == plan.chosen == "ddp"
    assert plan.rows is not None
    assert plan.rows > config.data.rows
    assert plan.share is not None
    small = replace(
        DEVICES["h100"], memory=plan.share.peak, process_overhead=DEVICES["h100"].process_overhead
    )
    monkeypatch.setitem(DEVICES, "h100", small)
    tight = make_memory_plan(config, "h100", tmp_path)  # no margin is left
    assert tight.recommended is None or tight.settings
    assert json.loads(json.dumps(tight.to_dict()))["strategies"][0]["fits"] is False


def test_the_command_shows_all_problems(
    demo_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["launch", "plan", "pretrain", "--catalog.path", str(demo_world / "home")]
    broken = ["--encoder.text.config.hidden_size", "126", "--encoder.width", "100"]
    assert main([*command, *broken]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("error: ") == 2
    assert captured.err.startswith("vitrine: 2 of ")
    assert main([*command, "--trainer.max_stps", "3"]) == 2
    assert "Did you mean 'trainer.max_steps'?" in capsys.readouterr().err
    assert main(["launch", "plan", "pretran"]) == 2
    assert "no stage 'pretran'" in capsys.readouterr().err


def test_settings_are_the_stage_s_own(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "encoder:\n  image:\n  text: {config: {model_type: gpt2, n_embd: 8}}\ntrainer:\n"
    )
    from launch.arguments import Signature, parse_arguments
    from launch.commands.memory_plan import plan

    given = ["pretrain", "--config", str(file), "--encoder.text.config.n_layer=3", "--data.rows=5"]
    given += ["--catalog.path", "0123"]
    read = parse_arguments(Signature.of(plan), given)
    config = stage_settings("pretrain", read["options"].config, read["rest"])
    assert config.encoder.text.config == {"model_type": "gpt2", "n_embd": 8, "n_layer": 3}
    assert (config.data.rows, config.trainer) == (5, TrainerConfig())
    assert config.catalog.path == "0123"


def test_the_commands_bring_no_torch() -> None:
    code = "import launch.commands.memory_plan, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_real_steps_are_compared_with_the_prediction(demo_world: Path) -> None:
    seen = probe(pretraining(demo_world))
    assert seen.measured > 0
    assert 0.1 < seen.predicted / seen.measured < 2  # so small a model drowns in what is around it
