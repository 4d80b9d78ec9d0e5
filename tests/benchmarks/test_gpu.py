"""The benchmark for a GPU, run small on a CPU; its count of operations."""

import re
import subprocess
import sys

import pytest
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.gpu.towers import SIZES, batch_of, loss_of, our_module, peak_of
from benchmarks.record import RESULTS, ROOT


def test_operations_are_counted_as_they_are_done() -> None:
    pairs, size = 4, SIZES["tiny"]
    module = our_module(size, pairs)
    for tower in module.encoder.towers.values():
        assert isinstance(tower, PreTrainedModel)
        tower.set_attn_implementation("eager")  # whose products the counter sees
    with FlopCounterMode(display=False) as counter:
        loss_of(module, batch_of(size, pairs, "cpu")).backward()
    # Beside the towers: the loss, and the reader of histories.
    assert 1.0 <= counter.get_total_flops() / (pairs * size.flops()) < 1.02


def test_a_card_is_known_by_its_name_or_not_at_all() -> None:
    assert peak_of("NVIDIA H200") == peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("GeForce 256") is None


@pytest.mark.slow
def test_it_runs_small_on_a_cpu_and_records_nothing() -> None:
    record = RESULTS / "pretrain-gpu.json"
    before = record.read_bytes() if record.exists() else None
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.pretrain", "--device", "cpu", "--tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout
    found = {
        key: float(value) for key, value in re.findall(r"(\w+) = ([-+.\de]+)$", done.stdout, re.M)
    }
    assert found["loss_gradient_error"] <= 1e-5
    assert found["parts_gradient_error"] <= 1e-4
    assert found["bf16_gradient_error"] <= 0.05
    assert found["zero3_offload_loss_difference"] <= 1e-3
    assert found["l14_ours_samples_per_second"] > 0
    assert (record.read_bytes() if record.exists() else None) == before
