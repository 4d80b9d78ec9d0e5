"""On standard error the command's user reads Vitrine's lines alone; the others' are in a log."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.checkpoints import image_checkpoint, text_checkpoint

OURS = re.compile(
    r"^([A-Z][^:]*: step [\d,]+/[\d,]+ · .*|(text|image|history) → (text|image|next item) +R@1 .*)$"
)


def test_only_our_lines_are_shown_of_a_pretraining_and_a_fine_tuning(
    demo_world: Path, tmp_path: Path
) -> None:
    log = tmp_path / "library.log"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "VITRINE_LOG": str(log),
        "OMP_NUM_THREADS": "1",
    }
    # Whoever starts the tests may have switched some of it off.
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY"):
        environment.pop(name, None)
    text, image = text_checkpoint(tmp_path / "text"), image_checkpoint(tmp_path / "image")
    steps = ["--trainer.max_steps=2", "--data.rows=2"]
    encoder, reader = tmp_path / "encoder", "--encoder.sequence.max_history=8"
    pretrain = ["pretrain", "--catalog.path", demo_world / "home", "--output", encoder, *steps]
    pretrain += ["--encoder.text.model", text, "--encoder.image.model", image, reader]
    pretrain += ["--data.max_broken=0.5"]
    finetune = ["finetune", "--encoder", encoder, "--catalog.path", demo_world / "wardrobe"]
    finetune += ["--output", tmp_path / "recommender", "--data.encode_items=8", *steps]
    for command in (pretrain, finetune):
        done = subprocess.run(
            [sys.executable, "-m", "launch.cli", *map(str, command)],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        strange = [line for line in done.stderr.splitlines() if not OURS.match(line)]
        assert strange == []
        assert done.stdout.count("\n") == 1  # where it is
    assert "LOAD REPORT" in log.read_text()


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    code = (
        "from launch.library_logging import redirect_library_logs; redirect_library_logs();"
        "import logging, warnings; logging.getLogger('x').error('lost'); warnings.warn('lost')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for place in ("/proc/nowhere/library.log", str(tmp_path / "a" / "library.log")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**environment, "VITRINE_LOG": place},
        )
        assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "a" / "library.log").read_text().count("lost") >= 2
