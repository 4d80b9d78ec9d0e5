"""The networks: who and what as tokens, and a transformer that cleans noisy latents given them."""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn

from generate.conditioning import VectorTokens


class Conditioner(ModelMixin, ConfigMixin):
    """User states and item vectors as one sequence of tokens for cross-attention."""

    @register_to_config
    def __init__(
        self, width: int, token_width: int, user_tokens: int = 4, item_tokens: int = 4
    ) -> None:
        super().__init__()
        self.user = VectorTokens(width, user_tokens, token_width)
        self.item = VectorTokens(width, item_tokens, token_width)
        # Tells the two kinds of token apart where the projections do not.
        self.roles = nn.Parameter(0.1 * torch.randn(2, token_width))

    def standardise(self, user_states: Tensor, item_vectors: Tensor) -> None:
        """Centres and whitens both kinds of vector by samples of them (any number, width)."""
        self.user.standardise(user_states)
        self.item.standardise(item_vectors)

    def forward(
        self,
        user_states: Tensor,
        item_vectors: Tensor,
        user_present: Tensor | None = None,
        item_present: Tensor | None = None,
    ) -> Tensor:
        """(batch, width) each, masks (batch,) → (batch, user_tokens + item_tokens, token_width)."""
        user = self.user(user_states, user_present) + self.roles[0]
        item = self.item(item_vectors, item_present) + self.roles[1]
        return torch.cat([user, item], dim=1)


def build_denoiser(
    *,
    channels: int,
    grid: int,
    token_width: int,
    width: int,
    layers: int,
    heads: int,
    structure: int = 0,
) -> PixArtTransformer2DModel:
    """An untrained PixArt transformer (Chen et al. 2023) over a map of latents, grid × grid or of
    another shape; each position may be told `structure` numbers more.

    Cross-attention and the last layer start at zero, as in the paper; diffusers leaves that out.
    """
    denoiser = PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=channels + token_width + structure,
        out_channels=channels,
        num_layers=layers,
        cross_attention_dim=width,
        caption_channels=token_width,
        sample_size=grid,
        patch_size=1,
        use_additional_conditions=False,
    )
    blocks: Any = denoiser.transformer_blocks
    for layer in (*(block.attn2.to_out[0] for block in blocks), denoiser.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return denoiser


def noisy(latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t = (1 − t) x + t ε, times (batch,) from 0 (clean) to 1 (noise): rectified flow."""
    times = times[:, None, None, None]
    return (1 - times) * latents + times * noise


def draw_times(
    batch: int,
    generator: torch.Generator | None = None,
    mean: float = 1.0,
    spread: float = 1.2,
) -> Tensor:
    """Logit-normal times (batch,) (Esser et al. 2024, section 3.1).

    They lean towards noise, where kind and colours are settled.
    """
    return torch.sigmoid(mean + spread * torch.randn(batch, generator=generator))


def clean_estimate(
    denoiser: Any,
    noisy_latents: Tensor,
    times: Tensor,
    tokens: Tensor,
    structure: Tensor | None = None,
) -> Tensor:
    """The denoiser's guess of the clean latents x, in the shape of `noisy_latents`.

    Every position also sees the mean token as further channels: colour is a matter of the whole
    picture, and is learned much sooner this way than by cross-attention alone. `structure` (batch,
    numbers, rows, columns) is what each position is told besides. A guess of x rather than of noise or
    velocity: clean pictures lie on a thin sheet, which a small network can aim at; the others fill the
    whole space (Li & He 2025, "Back to Basics").
    """
    if hasattr(denoiser, "estimate"):  # a pretrained one
        return denoiser.estimate(noisy_latents, times, tokens, structure)
    pooled = tokens.mean(1)[:, :, None, None].expand(-1, -1, *noisy_latents.shape[2:])
    seen = [noisy_latents, pooled] if structure is None else [noisy_latents, pooled, structure]
    return denoiser(
        torch.cat(seen, dim=1),
        encoder_hidden_states=tokens,
        timestep=1000 * times,
        return_dict=False,
    )[0]


def loss_weight(denoiser: Any, times: Tensor) -> Tensor:
    """Of the square error of guesses at `times` (batch,)."""
    weigh = getattr(denoiser, "loss_weight", torch.ones_like)
    return weigh(times)
