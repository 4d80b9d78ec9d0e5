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
from pretrain.objectives.contrast import info_nce, symmetric_info_nce

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
    return true_gradients()


def true_gradients() -> dict[str, dict[str, Tensor]]:
    """Loss → loss and gradients by plain autograd, float64, one process, whole matrices."""
    found = {}
    for loss in CASES["LOSSES"]:
        inputs = CASES["world_of_inputs"](torch.float32)
        double = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
        weights = double["weights"].clone().requires_grad_()
        scale = torch.tensor([CASES["SCALES"][loss]], dtype=torch.float64, requires_grad=True)
        bias = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
        left, right = (
            F.normalize(double[side] @ weight, dim=-1) * double[f"has_{side}"].unsqueeze(1)
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
    if loss == "next_item":
        losses = []
        for query in range(SLOTS):
            wanted = (query + 1) % SLOTS
            if not inputs["follows"][query]:
                continue
            positive = torch.arange(SLOTS) == wanted
            bias = (-inputs["log_popularity"]).masked_fill(positive, 0)
            scores = scale * (right @ left[query]) + bias
            kept = (ids != ids[wanted]) | positive
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
    ways = len(CASES["CHUNKS"]) * len(CASES["PARTS"])
    assert len(results) == ways * sum(len(t) for t in truth.values())
    return {
        case: float(
            (figure.double() - truth[case.split("/")[0]][case.split("/")[-1]]).abs().max()
            / truth[case.split("/")[0]][case.split("/")[-1]].abs().max()
        )
        for case, figure in results.items()
    }


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
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
    assert wrong == {
        "infonce",
        "infonce-edge",
        "infonce-steep",
        "next_item",
    }  # the ring gathers nothing


def test_half_precision_counts_and_sums_in_full() -> None:
    """3,001 queries are more than bfloat16 can count."""
    settings = {"query_ids": torch.arange(3001), "key_ids": torch.arange(40), "chunk": 512}
    torch.manual_seed(0)
    queries, keys = F.normalize(torch.randn(3001, 8)), F.normalize(torch.randn(40, 8))
    positives, counts = torch.randint(0, 40, (3001,)), torch.ones(3001, dtype=torch.bool)
    scale, bias = torch.tensor([9.0]), torch.linspace(-11, -9, 40)
    half, whole = (
        info_nce(
            queries.bfloat16().to(kind),
            keys.bfloat16().to(kind),
            positives,
            counts,
            scale=scale,
            key_bias=bias,
            **settings,
        )
        for kind in (torch.bfloat16, torch.float32)
    )
    torch.testing.assert_close(half, whole, rtol=1e-6, atol=0)


def test_nearly_learned_pairs_keep_their_gradient() -> None:
    """Where positives stand close, what is left of the gradient is a difference of near equals."""
    torch.manual_seed(0)
    left = F.normalize(torch.randn(200, 64, dtype=torch.float64), dim=-1)
    right = F.normalize(left + 0.03 * torch.randn(200, 64, dtype=torch.float64), dim=-1)
    chosen = torch.ones(200, dtype=torch.bool)
    found = []
    for kind in (torch.float32, torch.float64):
        sides = [side.to(kind).requires_grad_() for side in (left, right)]
        scale = torch.tensor([14.0], dtype=kind)
        symmetric_info_nce(sides[0], sides[1], scale, chosen).backward()
        # Along the sphere only: the vectors have unit length.
        grad = sides[0].grad
        found.append(grad - (grad * sides[0]).sum(1, keepdim=True) * sides[0])
    error = (found[0].detach().double() - found[1].detach()).norm() / found[1].detach().norm()
    assert error < 2e-4
