"""Run by torchrun or alone: gradients of the contrastive losses, as far as this many ranks give them.

contrast_ranks.py OUTPUT [--mutant]    writes every case's loss and gradients, averaged over ranks
"""

import itertools
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import pretrain.distributed
from launch.cli import exit_process
from pretrain.distributed import gather_rows, world
from pretrain.encoder import ItemVectors
from pretrain.grad_cache import encode_in_micro_batches
from pretrain.modalities import Content
from pretrain.objectives import contrast as losses
from pretrain.objectives.base import first_occurrences
from pretrain.towers.projection import scatter_present

SLOTS, INPUTS, WIDTH = 52, 12, 8  # 13 slots on each of 4 ranks: no chunk below divides that
SCALES = {
    "infonce": 9.0,
    "infonce-edge": 39.9,
    "infonce-steep": 60.0,
    "sigmoid": 9.0,
    "next_item": 9.0,
}
LOSSES = tuple(SCALES)
CHUNKS = (256, 5)
PARTS = (1, 3)
"""In which vectors are made; in more than one, each is made again in the backward pass."""


def world_of_inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    """The whole batch: the same on every rank, and for the reference."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    has = torch.rand(2, SLOTS, generator=generator) < 0.75  # the others lack text or picture
    has[1, 13:26] = False  # the second of four ranks has no picture at all
    return {
        "left": draw(SLOTS, INPUTS),
        "right": draw(SLOTS, INPUTS),
        "weights": draw(2, INPUTS, WIDTH) / INPUTS**0.5,
        "ids": torch.randint(0, 40, (SLOTS,), generator=generator),  # some items fill two slots
        "has_left": has[0],
        "has_right": has[1],
        "both": has.all(dim=0),
        "follows": torch.rand(SLOTS, generator=generator) < 0.7,
        "log_popularity": draw(SLOTS),
    }


def main(output: str, mutant: bool) -> None:
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    rank, ranks = world()
    if mutant:  # rows of other ranks come without gradient, as in some released trainers
        losses.gather_rows = lambda rows: pretrain.distributed.gather_rows(rows.detach())
    inputs = world_of_inputs(torch.float32)
    results = {}
    for loss, chunk, parts in itertools.product(LOSSES, CHUNKS, PARTS):
        weights = nn.Parameter(inputs["weights"].clone())
        scale = torch.tensor([SCALES[loss]], requires_grad=True)
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


def rows_of(inputs: dict[str, Tensor], side: str, mine: slice) -> dict[str, Tensor]:
    """As a batch holds a modality: rows for those that have it, one stand-in where none has."""
    present = inputs[f"has_{side}"][mine]
    rows = inputs[side][mine][present]
    return {"present": present, "values": rows if len(rows) else inputs[side][:1]}


class Linears(nn.Module):
    """The simplest encoder: a matrix for each modality."""

    def __init__(self, weights: nn.Parameter) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, content: Content) -> ItemVectors:
        projected_embeddings = torch.stack(
            [
                scatter_present(F.normalize(side["values"] @ weight, dim=-1), side["present"])
                for side, weight in zip(content.values(), self.weights, strict=True)
            ],
            dim=1,
        )
        present = torch.stack([side["present"] for side in content.values()], dim=1)
        return ItemVectors(
            projected_embeddings[:, 0], projected_embeddings, projected_embeddings, present, present
        )


def loss_of(
    loss: str,
    inputs: dict[str, Tensor],
    mine: slice,
    weights: nn.Parameter,
    scale: Tensor,
    bias: Tensor,
    chunk: int,
    parts: int,
) -> Tensor:
    """One rank's value; its vectors come from `weights`, which all ranks share."""
    content = {side: rows_of(inputs, side, mine) for side in ("left", "right")}
    encoder: Any = Linears(weights)
    left, right = encode_in_micro_batches(encoder, content, parts).projected_embeddings.unbind(1)
    ids = inputs["ids"]
    if loss != "next_item":
        chosen = first_occurrences(ids, inputs["both"])[mine]
        if loss == "sigmoid":
            return losses.sigmoid_loss(left, right, scale, bias, chosen, chunk)
        return losses.symmetric_info_nce(left, right, scale, chosen, chunk)
    following = (torch.arange(SLOTS)[mine] + 1) % SLOTS
    return losses.info_nce(
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
    exit_process()
