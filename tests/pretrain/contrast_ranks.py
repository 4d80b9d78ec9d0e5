"""Run by torchrun or alone: gradients of the contrastive losses, as far as this many ranks give them.

contrast_ranks.py OUTPUT [--mutant]    writes every case's loss and gradients, averaged over ranks
"""

import itertools
import os
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import pretrain.gather
from pretrain.gather import gather_rows, world
from pretrain.objectives import contrast as losses
from pretrain.objectives.base import first_occurrences

SLOTS, INPUTS, WIDTH = 52, 12, 8  # 13 slots on each of 4 ranks: no chunk below divides that
LOSSES = ("infonce", "infonce-steep", "sigmoid", "behaviour")
CHUNKS = (256, 5)
PARTS = (1, 3)


def world_of_inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    """The whole batch: the same on every rank, and for the reference."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "left": draw(SLOTS, INPUTS),
        "right": draw(SLOTS, INPUTS),
        "weights": draw(2, INPUTS, WIDTH) / INPUTS**0.5,
        "ids": torch.randint(0, 40, (SLOTS,), generator=generator),  # some items fill two slots
        "both": torch.rand(SLOTS, generator=generator) < 0.6,  # the others lack text or picture
        "follows": torch.rand(SLOTS, generator=generator) < 0.7,
        "log_popularity": draw(SLOTS),
    }


def main(output: str, mutant: bool) -> None:
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    rank, ranks = world()
    if mutant:  # rows of other ranks come without gradient, as in some released trainers
        losses.gather_rows = lambda rows: pretrain.gather.gather_rows(rows.detach())
    inputs = world_of_inputs(torch.float32)
    results = {}
    for loss, chunk, parts in itertools.product(LOSSES, CHUNKS, PARTS):
        weights = inputs["weights"].clone().requires_grad_()
        scale = torch.tensor([60.0 if loss == "infonce-steep" else 9.0], requires_grad=True)
        bias = torch.tensor([-3.0], requires_grad=True)
        mine = slice(rank * SLOTS // ranks, (rank + 1) * SLOTS // ranks)
        value = loss_of(loss, inputs, mine, weights, scale, bias, chunk, parts)
        value.backward()
        figures = {"loss": value.detach().view(1), "weights": weights.grad, "scale": scale.grad}
        if loss == "sigmoid":
            figures["bias"] = bias.grad
        for name, figure in figures.items():
            assert figure is not None
            if ranks > 1:
                dist.all_reduce(figure)
            results[f"{loss}/{chunk}/{parts}/{name}"] = figure / ranks
    if rank == 0:
        torch.save(results, output)
    if ranks > 1:
        dist.destroy_process_group()


def loss_of(
    loss: str,
    inputs: dict[str, Tensor],
    mine: slice,
    weights: Tensor,
    scale: Tensor,
    bias: Tensor,
    chunk: int,
    parts: int,
) -> Tensor:
    """One rank's value; its vectors come from `weights`, encoded in `parts` cached parts."""
    left, right = (
        torch.cat(
            [
                checkpoint(
                    lambda x, w=weight: F.normalize(x @ w, dim=-1), part, use_reentrant=False
                )
                for part in inputs[side][mine].chunk(parts)
            ]
        )
        for side, weight in zip(("left", "right"), weights, strict=True)
    )
    ids = inputs["ids"]
    if loss != "behaviour":
        chosen = first_occurrences(ids, inputs["both"])[mine]
        if loss == "sigmoid":
            return losses.sigmoid_contrast(left, right, scale, bias, chosen, chunk)
        return losses.symmetric_contrast(left, right, scale, chosen, chunk)
    following = (torch.arange(SLOTS)[mine] + 1) % SLOTS
    return losses.contrast(
        left,
        losses.gather_rows(right),
        following,
        inputs["follows"][mine],
        query_ids=ids[following],
        key_ids=gather_rows(ids[mine]),
        key_bias=-gather_rows(inputs["log_popularity"][mine]),
        scale=scale,
        chunk=chunk,
    )


if __name__ == "__main__":
    main(sys.argv[1], "--mutant" in sys.argv)
