"""The networks: who and what as tokens, and a transformer that cleans noisy latents given them."""

from functools import wraps
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormSingle
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from generate.conditioning import VectorTokens
from generate.purchase_states import PurchaseStates
from pretrain.shards import cast_like


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

    def standardise(self, purchases: PurchaseStates, item_vectors: Tensor) -> None:
        """Prepares for both kinds of vector by samples of them.

        Of a person those directions are heard that foretell how what they take looks, among others of
        its kind: of which kind it is, is the item's to say.
        """
        self.user.fit_whitening(purchases.history_states, purchases.category_residuals())
        self.item.fit_whitening(item_vectors)

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


class ConditionedNorm(AdaLayerNormSingle):
    """adaLN-single (Chen et al. 2023, section 2.3), which time and the pooled conditions both steer, as
    time and class do in DiT (Peebles & Xie 2023, section 3.2).

    Colour and pattern are a matter of the whole picture: learned much sooner this way than by
    cross-attention and the mean token as channels of the input.
    """

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__(width)
        self.condition = nn.Linear(token_width, width)
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)

    def forward(
        self,
        timestep: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        batch_size: int | None = None,
        hidden_dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`added_cond_kwargs`: {"pooled": (batch, token_width)}."""
        assert added_cond_kwargs is not None
        steered = self.emb(
            timestep,
            resolution=None,
            aspect_ratio=None,
            batch_size=batch_size,
            hidden_dtype=hidden_dtype,
        )
        steered = steered + self.condition(added_cond_kwargs["pooled"])
        return self.linear(self.silu(steered)), steered


class Pointwise(nn.Conv2d):
    """A 1 × 1 convolution as a product of matrices: how a convolution is summed depends on how many
    pictures it is of."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.movedim(1, -1), self.weight[:, :, 0, 0], self.bias).movedim(-1, 1)


class Denoiser(PixArtTransformer2DModel):
    """A PixArt transformer of single latents, whose norms are steered by item and person too."""

    @wraps(PixArtTransformer2DModel.__init__)  # diffusers reads the names of its settings there
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pos_embed.proj = Pointwise(self.config["in_channels"], self.inner_dim, 1)
        self.adaln_single = ConditionedNorm(self.inner_dim, self.config["caption_channels"])


def build_denoiser(
    *,
    channels: int,
    grid: int,
    token_width: int,
    width: int,
    layers: int,
    heads: int,
    structure: int = 0,
) -> Denoiser:
    """An untrained PixArt transformer (Chen et al. 2023) over a map of latents, grid × grid or of
    another shape; each position may be told `structure` numbers more.

    Cross-attention and the last layer start at zero, as in the paper; diffusers leaves that out.
    """
    build: Any = Denoiser  # its settings are those of the class it wraps
    denoiser = build(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=channels + structure,
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


def sample_times(
    batch: int,
    generator: torch.Generator | None = None,
    mean: float = 1.0,
    spread: float = 1.2,
) -> Tensor:
    """Logit-normal times (batch,) (Esser et al. 2024, section 3.1).

    They lean towards noise, where kind and colours are settled.
    """
    return torch.sigmoid(mean + spread * torch.randn(batch, generator=generator))


def predict_clean(
    denoiser: Any,
    noisy_latents: Tensor,
    times: Tensor,
    tokens: Tensor,
    structure: Tensor | None = None,
) -> Tensor:
    """The denoiser's guess of the clean latents x, in the shape of `noisy_latents`.

    `structure` (batch, numbers, rows, columns) is what each position is told besides. A guess of x
    rather than of noise or velocity: clean pictures lie on a thin sheet, which a small network can aim
    at; the others fill the whole space (Li & He 2025, "Back to Basics").
    """
    weight = next(denoiser.parameters())
    noisy_latents = cast_like(noisy_latents, weight)
    structure = None if structure is None else cast_like(structure, weight)
    if hasattr(denoiser, "estimate"):  # a pretrained one
        return denoiser.estimate(noisy_latents, times, tokens, structure)
    return denoiser(
        noisy_latents if structure is None else torch.cat([noisy_latents, structure], dim=1),
        encoder_hidden_states=tokens,
        timestep=1000 * times,
        added_cond_kwargs={"pooled": tokens.mean(1)},
        return_dict=False,
    )[0]


def loss_weight(denoiser: Any, times: Tensor) -> Tensor:
    """Of the square error of guesses at `times` (batch,)."""
    weigh = getattr(denoiser, "loss_weight", torch.ones_like)
    return weigh(times)
