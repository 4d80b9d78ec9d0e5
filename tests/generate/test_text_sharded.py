"""A generator trained by two ranks under ZeRO-2, and again after a kill, writes the same texts; so do
two processes that share the people out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.text_resume import text_settings, texts_of
from catalog.artifacts import open_artifact
from generate.text.batch_job import read_texts, write_texts
from generate.text.config import TextBatchConfig
from tests.pretrain.runs import differing_bytes, largest_difference
from tests.stages import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_settings(demo_world, tmp_path_factory.mktemp("shop"), steps=8, every=3)


@pytest.fixture(scope="module")
def whole(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("text") / "whole"
    train(settings, output, "zero2", 2, stage="text")
    return output


def test_a_run_killed_on_two_ranks_resumes_to_the_same_texts(
    settings: Path, whole: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    train(settings, broken, "zero2", 2, kill_at=5, stage="text")
    assert train(settings, broken, "zero2", 2, stage="text")["first_step"] == 3
    assert differing_bytes(whole, broken) == 0
    assert largest_difference(whole, broken) == 0
    texts = texts_of(whole, requests=8)
    assert texts == texts_of(broken, requests=8)
    assert len(set(texts)) > 4
    # Its texts are longer than that of the other rank, or shorter: each token counts alike.
    train(settings, tmp_path / "one", stage="text")
    assert 0 < largest_difference(whole, tmp_path / "one") < 1e-5


def test_a_batch_job_on_two_processes_writes_what_one_process_does(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generate.batch_job.USERS_PER_PART", 8)
    asked = [
        "--all_users",
        "--task",
        "review",
        "--items",
        "top:2",
        "--output",
        str(tmp_path / "two"),
    ]
    script = (
        "import sys, generate.batch_job as b; b.USERS_PER_PART = 8; "
        "from launch.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", "--no-python", sys.executable, "-c", script),
            *("generate", "text", str(whole), *asked),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [str(tmp_path / "two")], "said once"
    write_texts(
        TextBatchConfig(generator=str(whole), task="review", items="top:2"), tmp_path / "one"
    )
    ours, theirs = (read_texts(tmp_path / name) for name in ("two", "one"))
    assert ours.equals(theirs)
    assert len(ours) == 2 * open_artifact(tmp_path / "two").manifest["metrics"]["users"] > 16
    assert not list(tmp_path.glob("*.work"))
