"""Gradient caching (GradCache): items are encoded in micro-batches, and the loss is that of the whole batch.

Contrastive losses need large batches, whose tower activations do not fit. GradCache (Gao et al., 2021) embeds
without gradient, takes the loss on the vectors, and runs the towers again for each micro-batch. Here this is
one autograd function whose backward pass returns one gradient per weight: only one micro-batch's activations
are alive at a time, and the stored random state repeats the dropout of the first run. So DDP and ZeRO reduce
each gradient once, as usual, without `no_sync`, which ZeRO-2 and 3 lack.
"""

from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from catalog.errors import VitrineError
from pretrain.encoder import ItemEncoder, ItemVectors
from pretrain.modalities import Content
from pretrain.shards import is_sharded


def check_micro_batches(encoder: ItemEncoder, num_micro_batches: int) -> None:
    """Raises VitrineError where encoding in micro-batches would change the result."""
    if num_micro_batches < 1:
        raise VitrineError(f"data.num_micro_batches is {num_micro_batches}; give 1 or more")
    if num_micro_batches == 1:
        return
    for name, tower in encoder.towers.items():
        if encoder.kinds[name].spec.get("keeps_statistics"):
            continue
        for path, module in tower.named_modules(prefix=f"towers.{name}"):
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight.requires_grad:
                raise VitrineError(
                    f"data.num_micro_batches is {num_micro_batches}, but {path} normalises over its batch, "
                    "so micro-batches would not give the whole batch's vectors; use "
                    "--data.num_micro_batches 1 or another tower"
                )


def enable_activation_checkpointing(encoder: ItemEncoder) -> None:
    """Turns on activation (gradient) checkpointing in each layer of each tower.

    Under ZeRO-3 gradient caching needs it, too: without it the recomputation of a micro-batch would hold
    nearly all gathered weights until it ends.
    """
    for tower in encoder.towers.values():
        if isinstance(tower, PreTrainedModel) and tower.supports_gradient_checkpointing:
            tower.gradient_checkpointing_enable({"use_reentrant": False})


def check_compiled(compiled: bool, strategy: str) -> None:
    """Raises VitrineError if towers cannot be compiled."""
    if compiled and strategy.startswith("zero3"):
        raise VitrineError(
            "data.compile is true, but under ZeRO-3 weights come and go between layers, which a "
            "compiled tower does not see; use --data.compile false or another --trainer.strategy"
        )


def encode_in_micro_batches(
    encoder: ItemEncoder, content: Content, num_micro_batches: int
) -> ItemVectors:
    """As `encoder(content)`, in `num_micro_batches` micro-batches one after the other.

    `num_micro_batches` must be equal on all ranks: under ZeRO-3 all ranks run each forward pass of a
    tower together.
    """
    if num_micro_batches == 1:
        return encoder(content)

    def encode(part: Content) -> tuple[Tensor | None, ...]:
        vectors = encoder(part)
        return tuple(getattr(vectors, field.name) for field in fields(ItemVectors))

    shares = list(split_content(content, num_micro_batches))
    if is_sharded(encoder):
        # A weight is gathered only while its layer runs, so an autograd function cannot return its
        # gradient: each micro-batch is an activation checkpoint instead.
        encoded = [checkpoint(encode, share, use_reentrant=False) for share in shares]
        return ItemVectors(*_joined(encoded))  # type: ignore[arg-type]
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    return ItemVectors(*_GradCache.apply(encode, shares, *weights))


class _GradCache(torch.autograd.Function):
    """The micro-batches' vectors, concatenated. Weights that they do not depend on get a gradient of zero,
    since ZeRO waits for the gradient of every trainable weight."""

    @staticmethod
    def forward(ctx: Any, encode: Any, shares: list[Content], *weights: Tensor) -> Any:
        device = next(iter(shares[0].values()))["present"].device
        ctx.encode, ctx.shares, ctx.weights = encode, shares, weights
        ctx.cuda = [device] if device.type == "cuda" else []
        # No cache of cast weights: cast here without gradient, they would be reused where one is needed.
        ctx.casting = {
            "device_type": device.type,
            "dtype": torch.get_autocast_dtype(device.type),
            "enabled": torch.is_autocast_enabled(device.type),
            "cache_enabled": False,
        }
        encoded, ctx.states = [], []
        with torch.autocast(**ctx.casting):
            for share in shares:
                ctx.states.append(_random_state(ctx.cuda))
                encoded.append(encode(share))
        ctx.sizes = [len(vectors[0]) for vectors in encoded]
        joined = _joined(encoded)
        ctx.mark_non_differentiable(*(x for x in joined if x is not None and x.dtype == torch.bool))
        ctx.set_materialize_grads(False)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        outer = {
            column: gradient.split(ctx.sizes)
            for column, gradient in enumerate(upstream)
            if gradient is not None
        }
        sums: list[Tensor | None] = [None] * len(ctx.weights)
        with torch.random.fork_rng(ctx.cuda):
            for part, (share, state) in enumerate(zip(ctx.shares, ctx.states, strict=True)):
                _set_random_state(state, ctx.cuda)
                with torch.enable_grad(), torch.autocast(**ctx.casting):
                    encoded = ctx.encode(share)
                # Outputs of frozen weights alone need no gradient.
                needed = [column for column in outer if encoded[column].requires_grad]
                gradients = torch.autograd.grad(
                    [encoded[column] for column in needed],
                    ctx.weights,
                    [outer[column][part] for column in needed],
                    allow_unused=True,
                )
                for place, gradient in enumerate(gradients):
                    before = sums[place]
                    sums[place] = gradient if before is None else _sum(before, gradient)
        filled = (
            torch.zeros_like(weight) if gradient is None else gradient
            for weight, gradient in zip(ctx.weights, sums, strict=True)
        )
        return None, None, *filled


def _sum(before: Tensor, gradient: Tensor | None) -> Tensor:
    return before if gradient is None else before + gradient


def _random_state(cuda: list[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]


def _set_random_state(state: list[Tensor], cuda: list[torch.device]) -> None:
    torch.set_rng_state(state[0])
    for device, of_device in zip(cuda, state[1:], strict=True):
        torch.cuda.set_rng_state(of_device, device)


def _joined(encoded: list[tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
    return tuple(
        None if columns[0] is None else torch.cat(columns)  # type: ignore[arg-type]
        for columns in zip(*encoded, strict=True)
    )


def split_content(content: Content, num_micro_batches: int) -> Iterator[Content]:
    """Contiguous, nearly equal shares of the items, each with the rows that belong to them.

    A share in which no item has a modality gets a row of another share as a dummy, as a whole batch does:
    every tower runs for every share.
    """
    masks = {name: inputs["present"] for name, inputs in content.items()}
    num_items = len(next(iter(masks.values())))
    edges = [num_items * part // num_micro_batches for part in range(num_micro_batches + 1)]
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
