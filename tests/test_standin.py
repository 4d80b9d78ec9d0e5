"""On a device that is not the CPU every stage computes there, in the precision that was asked for.

No GPU is needed: `tests/standin.py` stands in for one, in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STAGES = (
    "pretraining",
    "finetuning",
    "sampled_softmax",
    "embedding",
    "ranking",
    "semantic_ids",
    "text_decoding",
    "image_sampling",
)
SCORED_ON_CPU = ("ranking", "semantic_ids")
"""Scores of all items are taken on the CPU, in float32, from the memory-mapped item vectors."""


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What `standin_stages.py` says of each stage that a selected test asks for."""
    script = Path(__file__).with_name("standin_stages.py")
    selected = {item.name.partition("[")[2].rstrip("]") for item in request.session.items}
    chosen = [stage for stage in STAGES if stage in selected]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path_factory.mktemp("standin")), *chosen],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_mixes_devices(stage: str, found: dict[str, Any]) -> None:
    assert found[stage]["errors"] == [None] * 4


@pytest.mark.parametrize("stage", STAGES)
def test_the_device_computes_what_the_cpu_does(stage: str, found: dict[str, Any]) -> None:
    assert found[stage]["difference"] < 1e-4


@pytest.mark.parametrize("stage", STAGES)
def test_every_product_is_on_the_device_in_the_precision(stage: str, found: dict[str, Any]) -> None:
    allowed = {"cpu float32"} if stage in SCORED_ON_CPU else set()
    for precision, expected in (("32-true", "float32"), ("bf16-true", "bfloat16")):
        assert set(found[stage][precision]) - allowed == {f"standin {expected}"}


@pytest.mark.parametrize("stage", STAGES)
def test_products_under_autocast_are_in_bfloat16(stage: str, found: dict[str, Any]) -> None:
    products, on_device = found[stage]["bf16-mixed"], found[stage]["32-true"]
    assert set(products) - {"cpu float32"} == {"cpu bfloat16"}
    # In float32 there are the scores alone, as many as are taken on the CPU beside a device.
    assert products.get("cpu float32", 0) == on_device.get("cpu float32", 0)
