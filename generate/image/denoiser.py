"""Networks of the image generator: condition tokens, and a PixArt transformer that predicts clean latents.

The training objective is flow matching with x-prediction.
"""

from functools import wraps
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormSingle
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from generate.conditioning import VectorTokens
from generate.image.config import ImageConfig
from generate.image.structure import CHANNELS
from generate.purchase_states import PurchaseStates
from pretrain.shards import cast_like


class Conditioner(ModelMixin, ConfigMixin):
    """User states and item embeddings as one sequence of condition tokens for cross-attention."""

    @register_to_config
    def __init__(
        self, width: int, token_width: int, user_tokens: int = 4, item_tokens: int = 4
    ) -> None:
        super().__init__()
        self.user = VectorTokens(width, user_tokens, token_width)
        self.item = VectorTokens(width, item_tokens, token_width)
        # Type embeddings of user and item tokens.
        self.roles = nn.Parameter(0.1 * torch.randn(2, token_width))

    def fit_whitening(self, purchases: PurchaseStates, item_vectors: Tensor) -> None:
        """Fits the input whitening of both conditions to samples of them.

        User states are reduced to the directions that predict how a purchase differs from others of its
        category (`predictive_subspace`): the category itself is given by the item.
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
    """adaLN-single (Chen et al. 2023, section 2.3) of the time and the pooled condition tokens, as of time
    and class in DiT (Peebles & Xie 2023, section 3.2).

    Colour and pattern are global properties of an image, learned much sooner this way than by
    cross-attention and the mean token as input channels.
    """

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__(width)
        self.condition = nn.Linear(token_width, width)
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        timestep: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        batch_size: int | None = None,
        hidden_dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`added_cond_kwargs`: {"pooled": (batch, token_width)}."""
        assert added_cond_kwargs is not None
        embedded = self.emb(
            timestep,
            resolution=None,
            aspect_ratio=None,
            batch_size=batch_size,
            hidden_dtype=hidden_dtype,
        )
        embedded = embedded + self.condition(added_cond_kwargs["pooled"])
        return self.linear(self.silu(embedded)), embedded


class PointwiseConv(nn.Conv2d):
    """A 1 × 1 convolution as a matrix product, because the summation order of a convolution depends on the
    batch size."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.movedim(1, -1), self.weight[:, :, 0, 0], self.bias).movedim(-1, 1)


@runtime_checkable  # diffusers checks the types of a pipeline's parts
class LatentDenoiser(Protocol):
    """Predicts clean latents: `Denoiser`, or an `AdaptedDenoiser` on a pretrained base."""

    @property
    def latest_time(self) -> float:
        """Sampling starts at this time, 1 for noise alone."""
        ...

    def predict_clean(
        self, noisy: Tensor, times: Tensor, tokens: Tensor, structure: Tensor | None = None
    ) -> Tensor:
        """The prediction of the clean latents x, in the shape of `noisy` (batch, channels, rows, columns)."""
        ...

    def loss_weight(self, times: Tensor) -> Tensor:
        """(batch,): weights of the squared errors of predictions at `times`."""
        ...


class Denoiser(PixArtTransformer2DModel):
    """A PixArt transformer (Chen et al. 2023) over latents, with norms conditioned on item and user."""

    latest_time = 1.0

    @wraps(PixArtTransformer2DModel.__init__)  # diffusers reads the names of its settings there
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pos_embed.proj = PointwiseConv(self.config["in_channels"], self.inner_dim, 1)
        self.adaln_single = ConditionedNorm(self.inner_dim, self.config["caption_channels"])

    def predict_clean(
        self, noisy: Tensor, times: Tensor, tokens: Tensor, structure: Tensor | None = None
    ) -> Tensor:
        """x̂ in the shape of `noisy` (batch, channels, rows, columns), at `times` (batch,).

        `structure` (batch, channels, rows, columns) is the structure condition. The network predicts x
        rather than the noise or the velocity: clean images lie on a low-dimensional manifold that a small
        network can predict; the others fill the whole space (Li & He 2025, "Back to Basics").
        """
        parts = [noisy] if structure is None else [noisy, structure]
        weight = next(self.parameters())
        return self(
            torch.cat([cast_like(part, weight) for part in parts], dim=1),
            encoder_hidden_states=tokens,
            timestep=1000 * times,
            added_cond_kwargs={"pooled": tokens.mean(1)},
            return_dict=False,
        )[0]

    def loss_weight(self, times: Tensor) -> Tensor:
        return torch.ones_like(times)


def build_denoiser(config: ImageConfig) -> Denoiser:
    """Builds an untrained denoiser.

    The output layers of cross-attention and the last layer start at zero, as in the paper; diffusers does
    not initialize them so.
    """
    size, channels = config.denoiser, config.codec.channels
    build: Any = Denoiser  # `wraps` hides its signature from the type checker
    denoiser = build(
        num_attention_heads=size.heads,
        attention_head_dim=size.width // size.heads,
        in_channels=channels + CHANNELS,
        out_channels=channels,
        num_layers=size.layers,
        cross_attention_dim=size.width,
        caption_channels=size.width,
        sample_size=config.image_size // config.codec.patch_size,
        patch_size=1,
        use_additional_conditions=False,
    )
    assert isinstance(denoiser, Denoiser)
    attentions = [block.get_submodule("attn2.to_out.0") for block in denoiser.transformer_blocks]
    for layer in (*attentions, denoiser.proj_out):
        assert isinstance(layer, nn.Linear)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return denoiser


def add_noise(latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t = (1 − t) x + t ε, times (batch,) from 0 (clean) to 1 (noise): the path of flow matching."""
    times = times[:, None, None, None]
    return (1 - times) * latents + times * noise


def sample_times(
    batch: int,
    generator: torch.Generator | None = None,
    mean: float = 1.0,
    spread: float = 1.2,
) -> Tensor:
    """Logit-normal times (batch,) (Esser et al. 2024, section 3.1).

    High noise, where category and colours are settled, is sampled more often.
    """
    return torch.sigmoid(mean + spread * torch.randn(batch, generator=generator))
