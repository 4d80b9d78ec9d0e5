"""`--device` and `--precision`: what they choose, what they say, and that every command follows them."""

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import catalog.artifacts
import pretrain.devices
from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.evaluate_artifact import evaluate_recommender
from finetune.recommendations import recommend
from finetune.run import run_finetuning
from launch.arguments import Signature
from launch.cli import load_command, main
from launch.commands.devices import ComputeOptions, TrainingOptions
from launch.pipeline.config import PipelineConfig
from launch.strategies import on_cpu as trains_on_cpu
from launch.submit.config import LaunchOptions
from launch.submit.stage import read_job
from launch.trainer import build_trainer
from pretrain.artifact import EncoderBundle
from pretrain.config import EmbedConfig, TrainerConfig
from pretrain.devices import (
    Compute,
    arrange_convolutions,
    bfloat16_speed,
    choose_compute,
    move,
    on_cpu,
    resolve_device,
    resolve_precision,
    training_device,
)
from pretrain.embed import run_embedding
from pretrain.embed_items import on_device
from pretrain.vector_file import open_vectors
from tests.stages import finetuning_of, pretrain_small, small_recommender

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def nothing_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain.devices, "_printed", set())


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as far as names go."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


@pytest.fixture(scope="module")
def made(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` and `recommender` of the demo's shops."""
    folder = tmp_path_factory.mktemp("devices")
    small_recommender(demo_world, folder)
    return folder


def test_auto_takes_the_gpu_where_there_is_one(gpus: None) -> None:
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == CPU


def test_auto_is_the_cpu_without_a_gpu(no_gpu: None) -> None:
    assert resolve_device("auto") == CPU


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(
    gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 1)
    with pytest.raises(VitrineError, match="2 processes run here"):
        resolve_device("cuda:0")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name: str, no_gpu: None) -> None:
    with pytest.raises(VitrineError, match=f"device {name} is not there; this machine has cpu"):
        resolve_device(name)


def test_a_gpu_beyond_the_last_is_not_there(gpus: None) -> None:
    with pytest.raises(VitrineError, match="this machine has cpu, cuda:0, cuda:1: use one"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:", "cuda:x", ""])
def test_an_unknown_device_is_one_line(name: str) -> None:
    with pytest.raises(VitrineError, match="use auto, cpu, cuda, cuda:N or mps"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("flags", "precision", "reason"),
    [
        ({"amx_bf16"}, "bf16-mixed", "this CPU multiplies bf16 fast (AMX-BF16)"),
        ({"avx512_bf16", "avx2"}, "bf16-mixed", "this CPU multiplies bf16 fast (AVX512-BF16)"),
        ({"avx2"}, "32-true", "this CPU has neither AMX-BF16 nor AVX512-BF16"),
    ],
)
def test_precision_auto_follows_the_cpu_and_says_so_once(
    flags: set[str],
    precision: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pretrain.devices, "cpu_flags", lambda: flags)
    assert resolve_precision("auto", CPU) == resolve_precision("auto", CPU) == precision
    assert capsys.readouterr().err == f"precision {precision}: {reason}\n"


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_precision_auto_follows_the_gpu(
    capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "T4")
    assert bfloat16_speed(GPU)[0] is fast
    assert resolve_precision("auto", GPU) == ("bf16-mixed" if fast else "32-true")


def test_the_flags_of_this_cpu_are_read() -> None:
    assert pretrain.devices.cpu_flags()


def test_a_precision_that_is_asked_for_is_kept_and_not_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert resolve_precision("bf16-true", CPU) == "bf16-true"
    assert capsys.readouterr().err == ""


def test_float16_is_refused_on_a_cpu() -> None:
    with pytest.raises(VitrineError, match="precision 16-mixed is made for GPUs"):
        choose_compute("cpu", "16-mixed")


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_computed_with_in_float32(stored: torch.dtype) -> None:
    """A buffer in float64 stays what it is."""
    module = nn.Linear(2, 2).to(stored)
    module.register_buffer("table", torch.zeros(1, dtype=torch.float64))
    assert on_cpu().place(module).weight.dtype == torch.float32
    assert module.get_buffer("table").dtype == torch.float64
    assert Compute(CPU, "bf16-true").place(module).weight.dtype == torch.bfloat16


def test_an_encoder_stored_in_bfloat16_loads_in_float32(made: Path, tmp_path: Path) -> None:
    bundle = EncoderBundle.load(made / "encoder")
    nn.Module.to(bundle.encoder, torch.bfloat16)
    bundle.encoder.save_pretrained(tmp_path / "half")
    bundle.sequence_encoder.save_pretrained(tmp_path / "half" / "sequence_encoder")
    loaded = EncoderBundle.load(tmp_path / "half")
    assert {p.dtype for p in loaded.encoder.parameters()} == {torch.float32}
    placed = Compute(CPU, "bf16-true").place(loaded.encoder)
    assert {p.dtype for p in placed.parameters()} == {torch.bfloat16}


def test_a_training_takes_the_device_and_the_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrain.devices, "cpu_flags", lambda: {"amx_bf16"})
    trainer = build_trainer(TrainerConfig(device="cpu", precision="auto"), tmp_path, "training")
    assert (trainer.strategy.root_device, trainer.precision) == (CPU, "bf16-mixed")
    assert capsys.readouterr().err.startswith("precision bf16-mixed: this CPU")
    assert trains_on_cpu(TrainerConfig(device="cpu"))
    assert not trains_on_cpu(TrainerConfig(device="cuda:1"))


def test_the_events_of_a_training_say_where_and_in_what_it_ran(
    demo_world: Path, tmp_path: Path
) -> None:
    encoder = pretrain_small(demo_world, tmp_path / "encoder", 1)
    metrics = open_artifact(encoder).manifest["metrics"]
    assert (metrics["device"], metrics["precision"]) == ("cpu", "32-true")
    (events,) = tmp_path.glob("encoder.work/*/events.jsonl")
    start = next(
        e for e in map(json.loads, events.read_text().splitlines()) if e["event"] == "start"
    )
    assert (start["device"], start["precision"]) == ("cpu", "32-true")


def test_a_device_and_another_accelerator_are_one_line(gpus: None) -> None:
    assert training_device(TrainerConfig(device="cuda:1", accelerator="gpu")) == torch.device(
        "cuda", 1
    )
    with pytest.raises(VitrineError, match=r"device cpu and trainer\.accelerator cuda differ"):
        training_device(TrainerConfig(device="cpu", accelerator="cuda"))
    with pytest.raises(VitrineError, match=r"device cuda:1 is one GPU, and trainer\.devices"):
        training_device(TrainerConfig(device="cuda:1", devices=2))


def test_the_options_of_a_training_reach_each_of_its_trainers() -> None:
    settings = TrainingOptions(device="cpu", precision="bf16-mixed").apply(PipelineConfig())
    stages = (settings.pretrain, settings.finetune, settings.text, settings.image)
    assert {(s.trainer.device, s.trainer.precision) for s in stages} == {("cpu", "bf16-mixed")}
    assert TrainingOptions().apply(settings) is settings
    with pytest.raises(VitrineError, match=r"--device cuda and trainer\.device cpu differ"):
        TrainingOptions(device="cuda").apply(settings)
    with pytest.raises(
        VitrineError, match=r"--precision 32-true and trainer\.precision bf16-mixed"
    ):
        TrainingOptions(precision="32-true").apply(settings)


def test_a_job_on_the_cpu_asks_for_no_gpu() -> None:
    for stage in ("pretrain", "embed", "train text"):
        job = read_job(LaunchOptions(stage=stage), ["--device", "cpu"])
        assert not job.gpus, stage
    assert read_job(LaunchOptions(stage="embed"), []).gpus
    assert read_job(LaunchOptions(stage="embed", cpu=True), []).runs[0][-2:] == ("--device", "cpu")


def test_recommend_reads_each_file_and_loads_each_model_once(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: Counter[str] = Counter()
    loads: Counter[str] = Counter()
    sha256, load = catalog.artifacts.file_sha256, EncoderBundle.load

    def counted_sha256(path: Path) -> str:
        hashed[str(path)] += 1
        return sha256(path)

    def counted_load(folder: Path) -> EncoderBundle:
        loads[str(folder)] += 1
        return load(folder)

    shop = open_artifact(made / "recommender").manifest["config"]["catalog"]
    user = str(load_catalog(CatalogConfig(**shop)).user_ids[0])
    monkeypatch.setattr(catalog.artifacts, "file_sha256", counted_sha256)
    monkeypatch.setattr(EncoderBundle, "load", counted_load)
    recommend(made / "recommender", user=user, k=3)
    evaluate_recommender(made / "recommender")
    assert set(hashed.values()) == {2}  # once by each of the two
    assert set(loads.values()) == {2}


def test_cpu_and_auto_are_equal_without_a_gpu(
    made: Path, no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recommender, printed = str(made / "recommender"), {}
    shop = open_artifact(made / "recommender").manifest["config"]["catalog"]
    user = str(load_catalog(CatalogConfig(**shop)).user_ids[0])
    for device in ("auto", "cpu"):
        given = ["--device", device]
        assert main(["recommend", recommender, "--user", user, *given]) == 0
        assert main(["evaluate", recommender, *given]) == 0
        printed[device] = capsys.readouterr().out
        arguments = ["--encoder", str(made / "encoder"), "--catalog.path", shop["path"]]
        arguments += ["--output", str(tmp_path / f"vectors-{device}"), *given]
        assert main(["embed", *arguments]) == 0
        capsys.readouterr()
    assert printed["auto"] == printed["cpu"]
    assert "by history" in printed["cpu"]
    one, other = (
        np.array(open_vectors(tmp_path / f"vectors-{device}" / "item_vectors.safetensors"))
        for device in ("auto", "cpu")
    )
    assert np.array_equal(one, other)


def test_cpu_and_auto_train_alike_without_a_gpu(
    demo_world: Path, no_gpu: None, tmp_path: Path
) -> None:
    encoder = pretrain_small(demo_world, tmp_path / "encoder", 2)
    config = finetuning_of(encoder, demo_world)
    hashes = set()
    for device in ("auto", "cpu"):
        settings = TrainingOptions(device=device).apply(replace(config, validate_every=4))
        folder = run_finetuning(settings, tmp_path / device, build_trainer)
        hashes.add(open_artifact(folder).hash)
    assert len(hashes) == 1


def test_vectors_in_another_precision_are_another_request(made: Path, tmp_path: Path) -> None:
    """Blocks of two precisions never mix, and the manifest names the precision."""
    shop = open_artifact(made / "recommender").manifest["config"]["catalog"]
    config = EmbedConfig(encoder=str(made / "encoder"), catalog=CatalogConfig(**shop))
    vectors: dict[str, Any] = {}
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        output = run_embedding(config, tmp_path / precision, choose_compute("cpu", precision))
        manifest = open_artifact(output).manifest
        assert manifest["metrics"]["precision"] == precision
        vectors[manifest["request_hash"]] = np.array(
            open_vectors(output / "item_vectors.safetensors")
        )
    exact, *others = vectors.values()
    assert len(others) == 2
    for other in others:
        assert 0 < np.abs(other - exact).max() < 0.05


def test_every_command_that_loads_a_model_takes_both_options() -> None:
    named = ("embed", "recommend", "index", "extend", "evaluate", "generate text", "generate image")
    named += ("evaluate text", "evaluate image")
    for name in named:
        assert issubclass(Signature.of(load_command(name)).options, ComputeOptions), name
    for name in ("pretrain", "finetune", "train text", "train image", "compare", "demo", "run"):
        assert issubclass(Signature.of(load_command(name)).options, TrainingOptions), name


def test_convolutions_are_channels_last_on_a_gpu_alone() -> None:
    for device, is_last in ((GPU, True), (CPU, False)):
        tower = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Conv3d(3, 4, 2), nn.Linear(2, 2))
        arrange_convolutions(tower, device)
        flat, deep = tower.get_parameter("0.weight"), tower.get_parameter("1.weight")
        assert flat.is_contiguous(memory_format=torch.channels_last) is is_last
        assert deep.is_contiguous()


def test_the_next_batch_is_copied_to_a_gpu_before_the_current_one_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []

    class Value:
        def record_stream(self, stream: Any) -> None:
            happened.append("record")

    class Stream:
        def __init__(self, *_: Any) -> None:
            self.copied = ""

        def record_event(self) -> str:
            return self.copied

        def wait_event(self, event: str) -> None:
            happened.append(f"wait {event}")

    stream = Stream()

    def copy(content: Any, *_: Any) -> Any:
        stream.copied = next(iter(content))
        happened.append(f"copy {stream.copied}")
        return {stream.copied: {"values": Value()}}

    monkeypatch.setattr("torch.cuda.Stream", lambda *_: stream)
    monkeypatch.setattr("torch.cuda.stream", lambda _: nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", lambda: stream)
    monkeypatch.setattr("pretrain.embed_items.to_device", copy)
    batches: Any = [(number, {str(number): {}}) for number in range(3)]
    for label, content in on_device(batches, GPU, None):
        assert list(content) == [str(label)]
        happened.append(f"compute {label}")
    steps = "copy 0, copy 1, wait 0, record, compute 0, copy 2, wait 1, record, compute 1, wait 2, record"
    assert ", ".join(happened) == f"{steps}, compute 2"


def test_tf32_is_for_mixed_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr("torch.set_float32_matmul_precision", chosen.append)
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", True)
    for compute in (Compute(GPU), Compute(GPU, "bf16-mixed"), Compute(CPU, "bf16-mixed")):
        compute.set_tf32()
    assert chosen == ["highest", "high"]


def test_a_copy_to_a_gpu_is_pinned_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pin") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: calls.append((a, k)) or self)
    move(torch.ones(1), GPU, torch.bfloat16)
    move(torch.ones(1), CPU)
    assert calls == ["pin", ((GPU, torch.bfloat16), {"non_blocking": True}), ((CPU, None), {})]
