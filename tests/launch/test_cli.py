"""The command line: quick help, plain mistakes, no traceback but for bugs."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch.cli import COMMANDS, main
from launch.commands import pretrain
from pretrain.config import EmbedConfig

SLOWEST_HELP = 10
"""Times the CPU time of a Python that does nothing."""


@pytest.fixture
def embed(monkeypatch):
    """`vitrine embed` without the work: records its arguments, raises the given error."""

    @dataclass
    class Fake:
        called_with: tuple | None = None
        error: BaseException | None = None

    fake = Fake()

    def embed(options: pretrain.EmbedOptions, settings: EmbedConfig) -> None:
        fake.called_with = (options, settings)
        if fake.error:
            raise fake.error

    monkeypatch.setattr(pretrain, "embed", embed)
    return fake


def cpu_seconds(*arguments: str) -> float:
    """CPU time of a Python process: what other processes do meanwhile hardly changes it."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_help_of_every_command_is_quick() -> None:
    bare = min(cpu_seconds("-c", "pass") for _ in range(5))
    slow = {}
    for name in ("", *COMMANDS):
        for _ in range(4):  # once, as a rule
            slow[name] = cpu_seconds("-m", "launch.cli", *name.split(), "--help") / bare
            if slow[name] <= SLOWEST_HELP:
                del slow[name]
                break
    assert slow == {}


def test_a_closed_pipe_of_the_output_is_no_bug() -> None:
    command = f"{sys.executable} -c 'from launch.cli import main; exit(main())' --help"
    line = f"set -o pipefail; {{ sleep 0.5; {command}; }} | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 141


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = """
import sys
from launch.cli import COMMANDS, main
main(["--help"])
assert "launch.settings" not in sys.modules
for name in COMMANDS:
    main([*name.split(), "--help"])
    heavy = {"torch", "numpy", "yaml", "rich"} & set(sys.modules)
    assert not heavy, (name, heavy)
"""
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for name in COMMANDS:
        assert f"usage: vitrine {name} " in shown.stdout


def test_settings_are_listed_with_default_and_meaning(capsys) -> None:
    assert main(["pretrain", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "  --trainer.max_steps 1000\n        Optimiser steps.\n" in shown
    assert "  --output runs/encoder\n" in shown
    assert "zero2-offload" in shown


def test_options_and_settings_reach_the_command(embed) -> None:
    assert main(["embed", "--batch_tokens=7", "--output", "here", "--catalog.path", "x"]) == 0
    options, settings = embed.called_with
    assert options.output == "here"
    assert (settings.batch_tokens, settings.catalog.path) == (7, "x")


def test_a_config_file_is_read(embed, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("batch_tokens: 9\nencoder: runs/e\n")
    assert main(["embed", "--config", str(tmp_path / "mine.yaml"), "--encoder", "other"]) == 0
    assert embed.called_with[1] == EmbedConfig(encoder="other", batch_tokens=9)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrian", "vitrine: unknown command 'pretrian'. Did you mean 'pretrain'?"),
        ("generate txet", "vitrine: unknown command 'generate txet'. Did you mean 'generate text'"),
        (
            "catalog",
            "vitrine: say which: vitrine catalog check or vitrine catalog import or vitrine ",
        ),
        ("embed --outputs x", "vitrine: unknown option '--outputs'. Did you mean '--output'?"),
        ("embed --catalog.pth x", "vitrine: unknown key 'catalog.pth' on the command line. Did yo"),
        (
            "embed --batch_tokens x",
            "vitrine: 'batch_tokens' is 'x' on the command line; expected a wh",
        ),
        ("embed --output", "vitrine: --output has no value; write --output VALUE, "),
        ("embed x", "vitrine: unexpected 'x'; settings are given as --key value."),
        ("embed --config no.yaml", "vitrine: no config 'no.yaml': it is neither a file nor a shi"),
        ("run", "vitrine: CONFIG is missing; see --help."),
        ("recommend", "vitrine: RECOMMENDER is missing; see --help."),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(line, message, embed, capsys) -> None:
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(message)
    assert shown.err.count("\n") == 1
    assert not shown.out
    assert embed.called_with is None


def test_a_bug_keeps_its_traceback(embed) -> None:
    embed.error = RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["embed"])


def test_ctrl_c_is_one_line_and_exit_status_130(embed, capsys) -> None:
    embed.error = KeyboardInterrupt()
    assert main(["embed"]) == 130
    # Lightning turns Ctrl-C into an exit of its own.
    embed.error = SystemExit(1)
    embed.error.__context__ = KeyboardInterrupt()
    assert main(["embed"]) == 130
    line = "interrupted; run the same command again to resume\n"
    assert capsys.readouterr().err == 2 * line


def test_the_installed_command_runs_from_any_folder(tmp_path) -> None:
    command = Path(sys.executable).parent / "vitrine"
    shown = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (0, "vitrine 0.1.0\n")


@pytest.mark.parametrize("shared", [True, False])
def test_a_process_that_shared_a_training_does_not_end_by_what_libraries_left(
    shared: bool, tmp_path: Path
) -> None:
    script = f"""
import atexit, os, sys
import torch.distributed as dist
from launch.cli import exit_process
if {shared}:
    dist.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=0, world_size=1)
atexit.register(os.abort)  # stands for a thread that nobody joined
print("written")
exit_process(3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.stdout == b"written\n"
    assert done.returncode == (3 if shared else -6)
