"""`vitrine launch`: options, mistakes, dry runs, sweeps, and starting a stage on this machine."""

import shlex
import sys
from pathlib import Path

import pytest

from catalog.errors import VitrineError
from launch.arguments import Signature
from launch.cli import load_command, main
from launch.settings import describe, field_types
from launch.submit import local
from launch.submit.config import Job, LaunchOptions
from launch.submit.stage import STAGES, read_job
from tests.launch.submit_jobs import calls


@pytest.mark.parametrize(
    ("line", "program"),
    [("--on slurm --array 2", "sbatch"), ("--on kubernetes --image shop", "kubectl")],
)
def test_a_dry_run_shows_what_would_be_submitted(
    line: str, program: str, shims: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["launch", "pretrain", *line.split(), "--catalog.path", "my shop"]
    assert main([*command, "--dry_run"]) == 0
    shown = capsys.readouterr()
    assert not calls(program)
    assert not Path("runs").exists()
    assert main(command) == 0
    assert shown.out == Path("submitted").read_text()
    assert not shown.err
    (file,) = Path("runs/launch").iterdir()
    assert file.read_text() == shown.out
    assert len(calls(program)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain --trainer.max_stepz 5", "Did you mean 'trainer.max_steps'?"),
        ("pretrain --trainer.max_steps many", "expected a whole number"),
        ("pretrain --device 2", "no device is called '2'; use auto, cpu, cuda, cuda:N or mps"),
        ("pretrain --sbatch_ 2", "neither launch nor pretrain has an option '--sbatch_'"),
        ("pretrain --config nowhere.yaml", "no config 'nowhere.yaml'"),
        ("pretrian", "'pretrian' is no stage that can be launched"),
        ("train --array 2", "'train' is no stage that can be launched"),
        ("recommend runs/shop", "'recommend' is no stage"),
        ("run", "CONFIG is missing"),
        ("compare --devices 2", "devices were requested; use 1"),
        ("pretrain --devices -1", "'devices' is -1 on the command line; expected a whole"),
        ("embed --array 3", "needs a stage that trains"),
        ("pretrain --array 0", "--array is 0"),
        ("pretrain --array none.txt", "neither a number of seeds nor a file"),
        ("pretrain --array bad.txt", "Did you mean 'trainer.seed'?"),
        ("pretrain --array empty.txt", "empty.txt is empty"),
        ("pretrain --name Shop", "--name 'Shop' becomes part of host names"),
        ("pretrain --name 1-shop", "becomes part of host names"),
        ("pretrain --name shop-", "becomes part of host names"),
        (f"pretrain --name {'s' * 41}", "at most 40"),
    ],
)
@pytest.mark.parametrize("place", ["slurm", "kubernetes"])
def test_user_errors_are_reported_before_anything_is_submitted(
    line: str, message: str, place: str, shims: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.txt").write_text("--trainer.seed 1\n--trainer.seeed 2\n")
    Path("empty.txt").write_text("# nothing\n\n")
    assert main(["launch", *line.split(), "--on", place, "--image", "shop"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not Path("calls").exists()
    assert not Path("runs").exists()


def test_options_that_one_scheduler_needs_are_required_there_alone(
    shims: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, message in (
        ("--on kubernetes", "needs --image"),
        ("--on kubernetes --image shop --mount work", "absolute path"),
        ("--array 2", "takes a scheduler"),
    ):
        assert main(["launch", "pretrain", *line.split()]) == 2
        assert message in capsys.readouterr().err


def test_a_scheduler_that_is_not_there_or_refuses_is_one_line(
    shims: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shims / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: no partition' >&2; exit 1\n")
    assert main(["launch", "pretrain", "--on", "slurm"]) == 2
    assert capsys.readouterr().err.endswith("sbatch: error: no partition\n")
    monkeypatch.setenv("PATH", str(shims.parent))
    assert main(["launch", "pretrain", "--on", "slurm"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("vitrine: sbatch is not on this machine;")
    assert shown.count("\n") == 1


def read(line: str) -> Job:
    stage, *rest = line.split()
    options = {}
    known = {option.key: option.default for option in describe(LaunchOptions)}
    while rest and rest[0].removeprefix("--") in known:
        name = rest.pop(0).removeprefix("--")
        value = rest.pop(0)
        options[name] = int(value) if type(known[name]) is int else value
    return read_job(LaunchOptions(stage, **options), rest)


def test_devices_come_from_the_options_or_the_settings_and_the_options_win() -> None:
    both = "--trainer.nodes 2 --trainer.devices 4"
    job = read(f"pretrain {both}")
    assert (job.nodes, job.devices) == (2, 4)
    assert job.runs == (("pretrain", *both.split()),)
    job = read(f"pretrain --devices 8 {both}")
    assert (job.nodes, job.devices) == (2, 8)
    assert job.runs[0][-2:] == ("--trainer.devices", "8")
    assert read("embed --devices 3").runs == (("embed",),)
    with pytest.raises(VitrineError, match="ask for different numbers of devices"):
        read("run pipeline/demo --pretrain.trainer.devices 2")


def test_gpus_are_requested_except_for_cpu_jobs(shims: Path) -> None:
    assert read("pretrain").gpus
    assert not read("pretrain --trainer.accelerator cpu").gpus
    job = read_job(LaunchOptions("pretrain", cpu=True), [])
    assert not job.gpus
    assert job.runs[0][-2:] == ("--trainer.accelerator", "cpu")


def test_two_words_are_one_stage() -> None:
    assert read("train-text").runs == read("train text").runs == (("train", "text"),)
    assert read("train-text").name == "vitrine-train-text"


def test_every_stage_can_be_launched_and_shares_no_option_with_launch() -> None:
    ours = field_types(LaunchOptions)
    for stage in STAGES:
        signature = Signature.of(load_command(stage))
        assert not set(ours) & {*field_types(signature.options), "config"}


def test_runs_of_a_sweep_differ_and_write_apart(tmp_path: Path) -> None:
    seeds = read("pretrain --array 3 --output here")
    assert [run[-4:] for run in seeds.runs] == [
        ("--output", f"here-{seed}", "--trainer.seed", str(seed)) for seed in range(3)
    ]
    file = tmp_path / "sweep.txt"
    file.write_text("--trainer.seed 1 # one\n\n--output other --catalog.path 'my shop'\n")
    job = read(f"pretrain --array {file}")
    assert job.runs[0][-4:] == ("--output", "runs/encoder-0", "--trainer.seed", "1")
    assert job.runs[1][-4:] == ("--output", "other", "--catalog.path", "my shop")


def test_here_the_launcher_becomes_the_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr(local.os, "execv", lambda program, words: started.append((program, words)))
    words = [
        "launch",
        "pretrain",
        "--devices",
        "2",
        "--restarts",
        "1",
        "--catalog.path",
        "a shop's",
    ]
    assert main(words) == 0
    ((program, command),) = started
    assert program == sys.executable
    assert command[1:] == [
        *("-m", "launch.submit.agent", "--standalone", "--nproc-per-node=2", "--max-restarts=1"),
        *("--module", "launch.cli", "pretrain", "--catalog.path", "a shop's"),
        *("--trainer.devices", "2"),
    ]
    assert main([*words, "--dry_run"]) == 0
    assert shlex.split(capsys.readouterr().out) == command
    assert len(started) == 1


def test_on_several_machines_the_command_is_printed_or_the_local_share_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr(local.os, "execv", lambda _, words: started.append(words))
    words = ["launch", "finetune", "--nodes", "2", "--devices", "4", "--name", "ours"]
    assert main(words) == 0
    assert not started
    shown = shlex.split(capsys.readouterr().out)
    assert {"--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=ours"} < set(shown)
    assert main([*words, "--rdzv_endpoint", "first:29400"]) == 0
    (command,) = started
    assert "--rdzv-endpoint=first:29400" in command
    assert command[-5:] == ["finetune", "--trainer.nodes", "2", "--trainer.devices", "4"]
