"""Ranks resume from one checkpoint, or not at all."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.checkpoints import newest_valid_checkpoint
from pretrain.checkpoint_files import CHECKPOINT_MANIFEST
from tests.launch.test_checkpoints import train
from tests.launch.test_faults import losses, run, steps_in

CHOOSE = Path(__file__).with_name("choose.py")
SHARED = "give all ranks one shared folder"
CASES = ("none", "same", "missing", "rank-1-only", "rank-1-newer", "damaged", "another-run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 4 and 8."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(folder, 8, 4)
    return folder


@pytest.fixture(scope="module")
def chosen(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str | None]]:
    """The outcome of each case on each of two ranks."""
    folder = tmp_path_factory.mktemp("cases")
    for case in CASES[1:]:
        for rank in ("0", "1"):
            shutil.copytree(trained, folder / case / rank)
    shutil.rmtree(folder / "missing" / "1")
    shutil.rmtree(folder / "rank-1-only" / "0")
    shutil.rmtree(folder / "rank-1-newer" / "0" / "checkpoints" / "step=8")
    (folder / "damaged" / "1" / "checkpoints" / "step=8" / "state").write_bytes(b"")
    shutil.rmtree(folder / "another-run" / "1")
    train(folder / "another-run" / "1", 8, 4, gradient_clip=0.01)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, CHOOSE, folder, *CASES],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    refusals = [
        outcome for outcome in ranks[0].values() if outcome and outcome.startswith("refused")
    ]
    lines = [line for line in done.stderr.splitlines() if line.startswith("vitrine: ")]
    assert len(lines) == len(refusals), "rank zero says each once"
    return ranks


@pytest.mark.parametrize("case", CASES)
def test_both_ranks_come_to_the_same_end(case: str, chosen: list[dict[str, str | None]]) -> None:
    assert chosen[0][case] == chosen[1][case]


@pytest.mark.parametrize(
    ("case", "name"), [("none", None), ("same", "step=8"), ("rank-1-newer", "step=4")]
)
def test_rank_zero_chooses_where_all_hold_its_choice(
    case: str, name: str | None, chosen: list[dict[str, str | None]]
) -> None:
    assert chosen[1][case] == name


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "holds no checkpoint in {1}, but rank 0 resumes at step 8 from {0}"),
        (
            "rank-1-only",
            "holds step=8 in {1}, but rank 0 begins at step 0, without a checkpoint in",
        ),
        ("damaged", "cannot use {1}/checkpoints/step=8: state has 0 bytes instead of"),
        ("another-run", "holds another step=8 in {1} (seal "),
    ],
)
def test_a_rank_that_holds_another_checkpoint_is_named_with_its_folder(
    case: str, message: str, chosen: list[dict[str, str | None]]
) -> None:
    outcome = chosen[0][case] or ""
    assert outcome.startswith("refused: rank 1 (")
    folder = re.findall(rf"(\S+/{case})/1", outcome)[0]
    assert message.format(f"{folder}/0", f"{folder}/1") in outcome
    assert SHARED in outcome


def test_a_read_error_on_one_rank_ends_the_training_of_all(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    fault = {"unreadable": "step=8", "rank": 1, "devices": 2}
    status, stderr, _ = run(folder, **fault, steps=12, every=4, timeout=60.0)
    assert status != 0
    (line,) = [line for line in stderr.splitlines() if line.startswith("vitrine: ")]
    assert line.startswith("vitrine: rank 1 (")
    assert f"cannot use {folder}/checkpoints/step=8: {CHECKPOINT_MANIFEST} cannot be read" in line
    assert f"rank 0 resumes at step 8 from {folder}; {SHARED}" in line
    assert steps_in(folder) == ["step=4", "step=8"], "nothing is thrown away"


@pytest.mark.slow
def test_node_local_folders_end_the_training_of_all(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    status, stderr, _ = run(folder, apart=True, devices=2, steps=12, every=4, timeout=60.0)
    assert status != 0
    assert f"holds no checkpoint in {folder}-rank1, but rank 0 resumes at step 8" in stderr
    assert not (tmp_path / "run-rank1" / "checkpoints").exists()


@pytest.mark.slow
def test_ranks_with_equal_copies_of_the_folder_go_on(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    shutil.copytree(trained, tmp_path / "run-rank1")
    status, stderr, _ = run(folder, apart=True, devices=2, steps=12, every=4, timeout=60.0)
    assert status == 0, stderr
    assert len(losses(folder)) == 4


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog.errors import VitrineError

    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(VitrineError, match=r"cannot be listed \(.*Permission denied"):
        newest_valid_checkpoint(trained)
