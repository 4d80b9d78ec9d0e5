"""The sequence encoder: a causal transformer over a history of item vectors, one state per step.

The next-item objective trains it here, beside the towers, so that a new domain starts from a
pretrained sequence encoder; fine-tuning builds its user model on it. Knows nothing about candidates.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from catalog.errors import VitrineError
from pretrain.blocks import BLOCKS, MeanResidual, rotary
from pretrain.config import SequenceConfig
from pretrain.hub import make_config, read_config
from pretrain.shards import cast_like
from pretrain.towers.build import build_tower
from pretrain.towers.probe import output_width


class SequenceEncoderConfig(PretrainedConfig):
    """`block`: a name in `pretrain.blocks.BLOCKS`; `decoder`: config of a Hugging Face decoder that replaces
    the blocks, as a mapping with `model_type`; `model`: the checkpoint it started from; `mean_residual`: add
    the output to the mean of the history; `recency`: initial decay of that mean towards older items."""

    model_type = "vitrine-sequence-encoder"

    def __init__(
        self,
        width: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        max_history: int = 32,
        dropout: float = 0.1,
        block: str = "attention",
        mean_residual: bool = True,
        recency: float = 0.0,
        decoder: dict[str, Any] | None = None,
        model: str = "",
        **kwargs: Any,
    ) -> None:
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.max_history = max_history
        self.dropout = dropout
        self.block = block
        self.mean_residual = mean_residual
        self.recency = recency
        self.decoder = decoder
        self.model = model
        super().__init__(**kwargs)


class Decoder(nn.Module):
    """A Hugging Face decoder over item vectors instead of token embeddings (HLLM, Chen et al., 2024)."""

    def __init__(self, width: int, config: dict[str, Any], pretrained: str = "") -> None:
        """`pretrained`: the checkpoint it starts from, of which `config` is the config."""
        super().__init__()
        if pretrained:
            self.model = build_tower(make_config(config), pretrained)
        else:  # it reads no tokens, so a vocabulary of one suffices
            self.model = build_tower(make_config({**config, "vocab_size": 1, "pad_token_id": None}))
        hidden = output_width(self.model.config)
        self.model.set_input_embeddings(nn.Embedding(1, hidden).requires_grad_(False))
        self.into = nn.Linear(width, hidden)
        self.out_of = nn.Linear(hidden, width)

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """`mask` bool (rows, length, length); `positions` int (rows, length): positions in the history."""
        lowest = torch.finfo(x.dtype).min
        added = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, lowest).unsqueeze(1)
        read = self.model(
            inputs_embeds=self.into(x),
            attention_mask=added,
            position_ids=positions,
            use_cache=False,
        )
        return self.out_of(read.last_hidden_state)


class SequenceEncoder(PreTrainedModel):
    """A causal transformer over item vectors.

    Segments of several users' histories may share a row (packing): `segments` separates them, and rotary
    positions, which are relative, need no reset between them.
    """

    config_class = SequenceEncoderConfig
    base_model_prefix = "history_encoder"

    def __init__(self, config: SequenceEncoderConfig, pretrained: str = "") -> None:
        """`pretrained` names the checkpoint that a decoder starts from."""
        super().__init__(config)
        self.input_scale = config.width**0.5  # unit vectors → unit variance, as layers expect
        layers = 0 if config.decoder else config.num_layers
        self.blocks = nn.ModuleList(
            BLOCKS[config.block](config.width, config.num_heads, config.dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.mean_residual = (
            MeanResidual(config.width, config.recency) if config.mean_residual else None
        )
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()
        self.decoder = (  # initialises itself
            Decoder(config.width, config.decoder, pretrained) if config.decoder else None
        )

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def forward(self, vectors: Tensor, segments: Tensor) -> Tensor:
        """The user state after each item.

        `vectors` (rows, length, width), unit length; `segments` int (rows, length): slots with the
        same number belong to one history, -1 is padding. Returns (rows, length, width), unit length.
        """
        vectors = cast_like(vectors, self.norm.weight)
        length = vectors.shape[1]
        same = segments.unsqueeze(2) == segments.unsqueeze(1)  # (rows, length, length)
        causal = torch.ones(length, length, dtype=torch.bool, device=vectors.device).tril()
        mask = same & causal  # a slot always sees itself, so no row is empty
        x = self.dropout(vectors * self.input_scale)
        if self.decoder is not None:
            x = self.decoder(x, mask, mask.sum(dim=-1) - 1)
        else:
            head_width = vectors.shape[2] // self.config.num_heads
            cosines, sines = rotary(length, head_width, vectors.device)
            for block in self.blocks:
                x = block(x, mask, cosines, sines)
        read = self.norm(x)
        return F.normalize(
            read if self.mean_residual is None else self.mean_residual(vectors, read, mask), dim=-1
        )


def new_sequence_encoder(settings: SequenceConfig, width: int) -> SequenceEncoder:
    """An untrained sequence encoder (a decoder may have pretrained weights)."""
    if settings.block not in BLOCKS:
        raise VitrineError(
            f"no sequence encoder has blocks called {settings.block!r}; use one of "
            f"{', '.join(BLOCKS)}"
        )
    if width % (2 * settings.heads):
        raise VitrineError(
            f"width {width} cannot be shared by {settings.heads} attention heads of even width; "
            "change one of them"
        )
    decoder = None
    if settings.model:
        decoder = read_config(settings.model).to_dict()
    elif settings.decoder:
        decoder = make_config(settings.decoder, "sequence encoder").to_dict()
    config = SequenceEncoderConfig(
        width=width,
        num_layers=settings.layers,
        num_heads=settings.heads,
        max_history=settings.max_history,
        dropout=settings.dropout,
        block=settings.block,
        mean_residual=settings.mean_residual,
        recency=settings.recency,
        decoder=decoder,
        model=settings.model,
    )
    return SequenceEncoder(config, settings.model)


AutoConfig.register(SequenceEncoderConfig.model_type, SequenceEncoderConfig)
