"""Golden runs: a change that is to change no result changes none, bit for bit.

`tests/golden/digests.json` holds what the runs gave on the machine that it names. A change that is to
change a result renews it: python tests/golden/runs.py FOLDER > tests/golden/digests.json
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.runs import KERNELS, machine

HERE = Path(__file__).with_name("golden")


@pytest.mark.slow
def test_curves_rankings_texts_and_images_are_those_of_before_bit_for_bit(tmp_path: Path) -> None:
    expected = json.loads((HERE / "digests.json").read_text())
    if machine() != expected["machine"]:
        pytest.skip(f"bits depend on the machine; these are of {expected['machine']}")
    run = subprocess.run(
        [sys.executable, str(HERE / "runs.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={
            **os.environ,
            **KERNELS,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "VITRINE_CACHE": str(tmp_path / "cache"),
        },
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert json.loads(run.stdout.splitlines()[-1]) == expected
