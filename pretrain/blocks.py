"""Blocks of the sequence encoder: causal attention (SASRec) and HSTU; (rows, length, width) → the same."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotary(length: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, head_width) of rotary positions (Su et al., 2021)."""
    rates = 10000.0 ** (-torch.arange(0, head_width, 2, device=device).float() / head_width)
    angles = torch.arange(length, device=device).float()[:, None] * rates  # (length, head_width/2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return (x * cosines + turned * sines).to(x.dtype)  # weights may be half precision, angles not


class AttentionBlock(nn.Module):
    """Pre-norm causal attention and MLP (SASRec's block, with rotary instead of absolute positions)."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up_proj = nn.Linear(width, 4 * width)
        self.down_proj = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """`mask` bool (rows, length, length): the positions that each position attends to."""
        rows, length, width = x.shape
        y = self.attention_norm(x)
        shape = (rows, length, self.num_heads, width // self.num_heads)
        q, k, v = (
            p(y).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(1))
        attended = attended.transpose(1, 2).reshape(rows, length, width)
        x = x + self.dropout(self.o_proj(attended))
        return x + self.dropout(self.down_proj(F.gelu(self.up_proj(self.mlp_norm(x)))))


class HstuBlock(nn.Module):
    """A hierarchical sequential transduction unit (Zhai et al., 2024, eqs. 1–3).

    Attention weights are SiLU instead of softmax, so they keep the intensity of a preference; the output
    is gated elementwise. Rotary positions replace the paper's relative position bias; there is no time
    bias, because batches hold no times. A sum over positions is divided by their number, as rows are
    packed.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.uvqk_proj = nn.Linear(width, 4 * width)
        self.attended_norm = nn.LayerNorm(width)
        self.o_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        rows, length, width = x.shape
        gate, *others = F.silu(self.uvqk_proj(self.norm(x))).chunk(4, dim=-1)
        shape = (rows, length, self.num_heads, width // self.num_heads)
        v, q, k = (part.view(shape).transpose(1, 2) for part in others)
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        weights = F.silu(q @ k.transpose(-1, -2)) * mask.unsqueeze(1)
        seen = mask.sum(dim=-1).view(rows, 1, length, 1)
        attended = (weights / seen @ v).transpose(1, 2).reshape(rows, length, width)
        return x + self.dropout(self.o_proj(self.attended_norm(attended) * gate))


BLOCKS: dict[str, type[nn.Module]] = {"attention": AttentionBlock, "hstu": HstuBlock}


class MeanResidual(nn.Module):
    """Adds a correction to the recency-weighted mean of the history's item vectors.

    With little data the mean of a user's items is a strong baseline, as simple methods often are
    (Ludewig and Jannach, 2018: neighbours against recurrent networks). A sequence encoder that starts
    as the mean only has to learn a correction.
    """

    def __init__(self, width: int, recency: float = 0.0, correction: float = 0.1) -> None:
        """`recency` is the initial decay: an item has e^-recency times the weight of the next one."""
        super().__init__()
        self.recency = nn.Parameter(torch.full((1,), recency))
        self.correction = nn.Parameter(torch.full((width,), correction))

    def forward(self, vectors: Tensor, read: Tensor, mask: Tensor) -> Tensor:
        """`vectors` and `read` (rows, length, width); `mask` bool (rows, length, length)."""
        places = torch.arange(vectors.shape[1], device=vectors.device)
        ages = (places.unsqueeze(1) - places).to(vectors.dtype)  # (length, length)
        weights = (-self.recency * ages).masked_fill(~mask, float("-inf")).softmax(dim=-1)
        return F.normalize(weights @ vectors, dim=-1) + self.correction * F.normalize(read, dim=-1)
