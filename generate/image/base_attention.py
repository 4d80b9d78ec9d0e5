"""Attention over the condition tokens of item and user, beside a pretrained base's own (IP-Adapter).

Decoupled cross-attention (Ye et al. 2023, IP-Adapter): diffusers' own IP-Adapter processors where it has
them (UNets, Stable Diffusion 3, Flux), else `DecoupledCrossAttention`. All give zeros before the first
training step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import (
    Attention,
    IPAdapterAttnProcessor2_0,
    SD3IPAdapterJointAttnProcessor2_0,
)
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F

CROSS_ATTENTION = "attn2"
"""Name of each block's cross-attention in UNets, PixArt and Sana."""
ADAPTER = "ip_adapter"
"""Name of the second cross-attention within the first, where diffusers has no processor."""


class DecoupledCrossAttention(nn.Module):
    """Cross-attention over condition tokens, with the queries of one cross-attention of the base, whose
    output projection it shares."""

    def __init__(self, attention: Attention, token_width: int) -> None:
        super().__init__()
        self.heads = attention.heads
        self.to_k = nn.Linear(token_width, attention.inner_dim, bias=False)
        self.to_v = nn.Linear(token_width, attention.inner_dim, bias=False)
        nn.init.zeros_(self.to_v.weight)
        self.tokens: Tensor | None = None
        """(batch, tokens, token_width) of the current call of the base (`condition_on`); None: no output."""

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(batch, positions, inner), (batch, tokens, token_width) → (batch, positions, inner)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (queries, self.to_k(tokens), self.to_v(tokens))
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Gate(nn.Module):
    """A learned factor of each channel, zero at first, as the `scale` of a diffusers processor."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.weight

    def __ne__(self, other: object) -> bool:
        return True  # processors leave out a scale of 0, and a gate of zeros has to be learned

    def __rmul__(self, values: Tensor) -> Tensor:
        return self(values)


def adapt_unet_attention(network: Any, token_width: int) -> None:
    """Gives each cross-attention of a UNet diffusers' IP-Adapter processor."""
    for attention in _cross_attentions(network):
        processor: Any = IPAdapterAttnProcessor2_0(attention.inner_dim, token_width)
        nn.init.zeros_(processor.to_v_ip[0].weight)
        attention.set_processor(processor)


def adapt_joint_attention(network: Any, token_width: int) -> None:
    """Gives each attention of a Stable Diffusion 3 transformer diffusers' IP-Adapter processor.

    That attends to image and condition tokens together, so its output is gated, not its values.
    """
    for block in network.transformer_blocks:
        for attention in (block.attn, block.attn2):
            if attention is None:
                continue
            inner = attention.inner_dim
            processor = SD3IPAdapterJointAttnProcessor2_0(
                inner, token_width, inner // attention.heads, network.inner_dim
            )
            processor.scale = Gate(inner)  # pyright: ignore[reportAttributeAccessIssue]
            attention.set_processor(processor)


def adapt_flux_attention(network: Any, token_width: int) -> None:
    """Gives the attention of each double block of Flux diffusers' IP-Adapter processor."""
    for block in network.transformer_blocks:
        processor = FluxIPAdapterAttnProcessor(network.inner_dim, token_width)
        values: Any = processor.to_v_ip[0]
        nn.init.zeros_(values.weight)
        nn.init.zeros_(values.bias)
        block.attn.set_processor(processor)


def add_decoupled_attention(network: Any, token_width: int) -> None:
    """Adds a `DecoupledCrossAttention` to the output of each cross-attention of the network."""
    for attention in _cross_attentions(network):
        attention.add_module(ADAPTER, DecoupledCrossAttention(attention, token_width))
        attention.register_forward_hook(_add_adapter_output, with_kwargs=True)


@contextmanager
def condition_on(network: nn.Module, tokens: Tensor | None) -> Iterator[None]:
    """Within this context the network's `DecoupledCrossAttention`s attend to `tokens`."""
    adapters = [part for part in network.modules() if isinstance(part, DecoupledCrossAttention)]
    for adapter in adapters:
        adapter.tokens = tokens
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.tokens = None


def _add_adapter_output(
    attention: Attention, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
) -> Tensor:
    """A forward hook of a cross-attention that adds its adapter's output."""
    adapter = attention.get_submodule(ADAPTER)
    assert isinstance(adapter, DecoupledCrossAttention)
    if adapter.tokens is None:
        return output
    queries = attention.to_q(inputs[0] if inputs else named["hidden_states"])
    if attention.norm_q is not None:
        queries = attention.norm_q(queries)
    project: Any = attention.get_submodule("to_out.0")
    values = adapter(queries, adapter.tokens)
    # Not by its bias, which is elsewhere while the base is offloaded.
    return output + (project(values) - project(torch.zeros_like(values[:1, :1])))


def _cross_attentions(network: nn.Module) -> list[Attention]:
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, Attention) and name.endswith(CROSS_ATTENTION)
    ]
