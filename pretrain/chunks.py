"""Gradient caching: items go through the towers a part at a time, and the loss sees all of them.

Contrast wants large batches, towers' activations do not fit. GradCache (Gao et al., 2021) embeds
without gradient, takes the loss on the vectors, and runs the towers again for each part. Here the
second run is activation checkpointing of each part: one backward pass, one part's activations alive
at a time, the dropout of the first run (its random state is kept), and one gradient for each weight.
So DDP and ZeRO reduce it once, as ever, and nothing needs `no_sync`, which ZeRO-2 and 3 lack.
"""

from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from catalog.errors import VitrineError
from pretrain.encoder import ItemEncoder, ItemVectors
from pretrain.modalities import Content
from pretrain.towers import compile_layers


def check_parts(encoder: ItemEncoder, parts: int) -> None:
    """Raises VitrineError where items cannot be encoded in so many parts with the same result."""
    if parts < 1:
        raise VitrineError(f"data.encode_parts is {parts}; give 1 or more")
    if parts == 1:
        return
    for name, module in encoder.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight.requires_grad:
            raise VitrineError(
                f"data.encode_parts is {parts}, but {name} normalises over its batch, so parts would "
                "not give the whole batch's vectors; use --data.encode_parts 1 or another tower"
            )


def release_layer_by_layer(encoder: ItemEncoder) -> None:
    """Checkpoints each layer of each tower (activation checkpointing).

    Under ZeRO-3, caching needs it too: what is computed again keeps the weights that were gathered
    for it until its part is done, which without this would be nearly all of them.
    """
    for tower in encoder.towers.values():
        if isinstance(tower, PreTrainedModel) and tower.supports_gradient_checkpointing:
            tower.gradient_checkpointing_enable({"use_reentrant": False})


def compile_towers(encoder: ItemEncoder, strategy: str) -> None:
    """As `compile_layers`; VitrineError where it cannot be."""
    if strategy.startswith("zero3"):
        raise VitrineError(
            "data.compile is true, but under ZeRO-3 weights come and go between layers, which a "
            "compiled tower does not see; use --data.compile false or another --trainer.strategy"
        )
    compile_layers(encoder)


def encode_in_parts(encoder: ItemEncoder, content: Content, parts: int) -> ItemVectors:
    """As `encoder(content)`, in `parts` parts one after the other.

    `parts` must be the same on every rank: under ZeRO-3 each pass through a tower is one all ranks
    take together.
    """
    if parts == 1:
        return encoder(content)

    def encode(part: Content) -> tuple[Any, ...]:
        vectors = encoder(part)
        return tuple(getattr(vectors, field.name) for field in fields(ItemVectors))

    encoded = [
        checkpoint(encode, part, use_reentrant=False) for part in split_content(content, parts)
    ]
    return ItemVectors(
        *(
            None if columns[0] is None else torch.cat(columns)  # type: ignore[arg-type]
            for columns in zip(*encoded, strict=True)
        )
    )


def split_content(content: Content, parts: int) -> Iterator[Content]:
    """Contiguous, nearly equal shares of the items, each with the rows that belong to them.

    A share without a text (or a picture) gets a row of somebody else's as a stand-in, as a whole
    batch does: every tower runs for every share.
    """
    masks = {name: inputs["present"] for name, inputs in content.items()}
    num_items = len(next(iter(masks.values())))
    edges = [num_items * part // parts for part in range(parts + 1)]
    # How many rows lie before each edge.
    rows = {name: F.pad(mask.cumsum(0), (1, 0))[edges].tolist() for name, mask in masks.items()}
    for part, (first, last) in enumerate(pairwise(edges)):
        share: Content = {}
        for name, inputs in content.items():
            start, stop = rows[name][part], rows[name][part + 1]
            chosen = slice(start, stop) if stop > start else slice(0, 1)
            share[name] = {
                key: value[first:last] if key == "present" else value[chosen]
                for key, value in inputs.items()
            }
        yield share
