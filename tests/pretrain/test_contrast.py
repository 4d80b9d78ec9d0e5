"""Gradient truth: chunked, cached, on 1, 2 and 4 ranks, against float64 autograd on the whole matrix."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.objectives.base import first_occurrences

SCRIPT = Path(__file__).with_name("contrast_ranks.py")
CASES = runpy.run_path(str(SCRIPT))
SLOTS = CASES["SLOTS"]


def on_ranks(ranks: int, output: Path, *options: str) -> dict[str, Tensor]:
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, str(SCRIPT), str(output), *options],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(output, weights_only=True)


@pytest.fixture(scope="module")
def truth() -> dict[str, dict[str, Tensor]]:
    """Loss → loss and gradients by plain autograd, float64, one process, whole matrices."""
    found = {}
    for loss in CASES["LOSSES"]:
        inputs = CASES["world_of_inputs"](torch.float32)
        double = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
        weights = double["weights"].clone().requires_grad_()
        steepness = 60.0 if loss == "infonce-steep" else 9.0
        scale = torch.tensor([steepness], dtype=torch.float64, requires_grad=True)
        bias = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
        left, right = (
            F.normalize(double[side] @ weight, dim=-1)
            for side, weight in zip(("left", "right"), weights, strict=True)
        )
        value = plain(loss, double, left, right, scale, bias)
        value.backward()
        found[loss] = {"loss": value.detach().view(1), "weights": weights.grad, "scale": scale.grad}
        if loss == "sigmoid":
            found[loss]["bias"] = bias.grad
    return found


def plain(
    loss: str, inputs: dict[str, Tensor], left: Tensor, right: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """The definitions, written down once more without any of the code under test."""
    ids = inputs["ids"]
    if loss == "behaviour":
        losses = []
        for query in range(SLOTS):
            wanted = (query + 1) % SLOTS
            if not inputs["follows"][query]:
                continue
            scores = scale * (right @ left[query]) - inputs["log_popularity"]
            kept = (ids != ids[wanted]) | (torch.arange(SLOTS) == wanted)
            losses.append(scores[kept].logsumexp(0) - scores[wanted])
        return torch.stack(losses).mean()
    chosen = first_occurrences(ids, inputs["both"])
    cosines = left[chosen] @ right[chosen].T
    if loss == "sigmoid":
        signs = 2 * torch.eye(len(cosines), dtype=torch.float64) - 1
        return -F.logsigmoid(signs * (scale * cosines + bias)).sum() / len(cosines)
    labels = torch.arange(len(cosines))
    scores = scale * cosines
    return (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2


def worst_error(
    results: dict[str, Tensor], truth: dict[str, dict[str, Tensor]]
) -> dict[str, float]:
    """Case → largest error relative to the largest entry of what is true."""
    assert len(results) == len(CASES["CHUNKS"]) * len(CASES["PARTS"]) * sum(
        len(t) for t in truth.values()
    )
    return {
        case: float(
            (figure.double() - truth[case.split("/")[0]][case.split("/")[-1]]).abs().max()
            / truth[case.split("/")[0]][case.split("/")[-1]].abs().max()
        )
        for case, figure in results.items()
    }


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_loss_and_gradient_is_that_of_one_process(
    ranks: int, truth: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    errors = worst_error(on_ranks(ranks, tmp_path / "gradients.pt"), truth)
    assert max(errors.values()) <= 1e-5, max(errors.items(), key=lambda case: case[1])


def test_a_gather_without_gradient_is_noticed(
    truth: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    errors = worst_error(on_ranks(2, tmp_path / "gradients.pt", "--mutant"), truth)
    wrong = {case.split("/")[0] for case, error in errors.items() if error > 1e-2}
    assert wrong == {"infonce", "infonce-steep", "behaviour"}  # the ring gathers nothing
