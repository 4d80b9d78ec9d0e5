"""Gradient caching: items go through the towers a part at a time, and the loss sees all of them.

Contrast wants large batches, towers' activations do not fit. GradCache (Gao et al., 2021) embeds
without gradient, takes the loss on the vectors, and runs the towers again for each part. Here the
second run is activation checkpointing of each part: one backward pass, one part's activations alive
at a time, the dropout of the first run (its random state is kept), and one gradient for each weight.
So DDP and ZeRO reduce it once, as ever, and nothing needs `no_sync`, which ZeRO-2 and 3 lack.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pretrain.encoder import ItemEncoder, ItemVectors

PRESENCE = {"text_present": ("input_ids", "attention_mask"), "image_present": ("pixel_values",)}
"""Which mask says what items the rows of which inputs belong to."""


def encode_in_parts(encoder: ItemEncoder, content: dict[str, Tensor], parts: int) -> ItemVectors:
    """As `encoder(**content)`, for `parts` parts one after the other.

    Every rank must name the same number: under ZeRO-3 each pass through a tower is one all ranks
    take together.
    """
    if parts == 1:
        return encoder(**content)

    def encode(part: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
        vectors = encoder(**part)
        return vectors.item, vectors.text, vectors.image

    encoded = [
        checkpoint(encode, part, use_reentrant=False) for part in split_content(content, parts)
    ]
    item, text, image = (
        None if columns[0] is None else torch.cat(columns) for columns in zip(*encoded, strict=True)
    )
    assert item is not None
    return ItemVectors(item, text, image)


def split_content(content: dict[str, Tensor], parts: int) -> Iterator[dict[str, Tensor]]:
    """Contiguous, nearly equal shares of the items, each with the rows that belong to them.

    A share without a text (or a picture) gets a row of somebody else's as a stand-in, as a whole
    batch does: every tower runs for every share.
    """
    masks = {name: rows for name, rows in PRESENCE.items() if name in content}
    before = {name: F.pad(content[name].cumsum(0), (1, 0)) for name in masks}
    num_items = len(next(iter(content[name] for name in masks)))
    edges = [num_items * part // parts for part in range(parts + 1)]
    for first, last in pairwise(edges):
        share: dict[str, Tensor] = {}
        for name, inputs in masks.items():
            share[name] = content[name][first:last]
            start, stop = int(before[name][first]), int(before[name][last])
            rows = slice(start, stop) if stop > start else slice(0, 1)
            share.update({key: content[key][rows] for key in inputs})
        yield share
