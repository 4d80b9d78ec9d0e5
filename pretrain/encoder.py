"""The item encoder: whatever an item has (text, picture) → one vector. Knows nothing about histories."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from pretrain.towers import Projection, build_tower, mean_pool, output_width, scatter_present

MODALITIES = ("text", "image")


@dataclass
class ItemVectors:
    """What the encoder makes of n items; every vector has unit length, zero where absent."""

    item: Tensor
    """(n, width) fused."""
    text: Tensor | None
    """(n, width), to compare with `image`."""
    image: Tensor | None
    """(n, width), to compare with `text`."""


class ItemEncoderConfig(PretrainedConfig):
    """`text_config` and `image_config` are Hugging Face configs as mappings, or None."""

    model_type = "vitrine-item-encoder"

    def __init__(
        self,
        width: int = 128,
        text_config: dict[str, Any] | None = None,
        image_config: dict[str, Any] | None = None,
        max_tokens: int = 48,
        image_size: int = 64,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        modality_dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        self.width = width
        self.text_config = text_config
        self.image_config = image_config
        self.max_tokens = max_tokens
        self.image_size = image_size
        self.image_mean = image_mean or [0.5, 0.5, 0.5]
        self.image_std = image_std or [0.5, 0.5, 0.5]
        self.modality_dropout = modality_dropout
        super().__init__(**kwargs)


class MaskedGate(nn.Module):
    """Gated mean over the modalities an item has (UniSRec's adaptor, MISSRec's fusion).

    An item with none of them gets a learned vector of its own, never a neighbour's.
    """

    def __init__(self, width: int, num_modalities: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.prior = nn.Parameter(torch.zeros(num_modalities))
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, parts: Tensor, present: Tensor) -> Tensor:
        """`parts` (n, modalities, width), `present` bool (n, modalities). Returns (n, width)."""
        logits = self.score(parts).squeeze(-1) + self.prior
        anything = present.any(dim=1, keepdim=True)
        logits = logits.masked_fill(~present & anything, float("-inf"))
        weights = logits.softmax(dim=1)  # (n, modalities)
        fused = torch.einsum("nm,nmd->nd", weights, parts)
        return torch.where(anything, fused, self.nothing.to(fused.dtype))


class ItemEncoder(PreTrainedModel):
    """Text and image towers, projections to a shared width, masked gated fusion.

    `from_pretrained` and `save_pretrained` as for any transformers model.
    """

    config_class = ItemEncoderConfig
    base_model_prefix = "item_encoder"

    def __init__(self, config: ItemEncoderConfig, pretrained: dict[str, str] | None = None) -> None:
        """`pretrained` names the checkpoints the towers start from, by modality."""
        super().__init__(config)
        pretrained = pretrained or {}
        self.modalities = [m for m in MODALITIES if getattr(config, f"{m}_config")]
        self.towers = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        for modality in self.modalities:
            values = dict(getattr(config, f"{modality}_config"))
            tower_config = AutoConfig.for_model(values.pop("model_type"), **values)
            self.towers[modality] = build_tower(tower_config, pretrained.get(modality, ""))
            self.projections[modality] = Projection(output_width(tower_config), config.width)
            # Contrast between modalities keeps what both show and drops the rest; behind a head of
            # its own (Chen et al., 2020) it leaves the rest in what is fused.
            self.heads[modality] = nn.Linear(config.width, config.width)
        self.gate = MaskedGate(config.width, len(self.modalities))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Towers initialise themselves when they are built (or bring trained weights); only the
        # projections and the gate are ours, and torch's own initialisation suits them.
        return

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_present: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_present: Tensor | None = None,
    ) -> ItemVectors:
        """Encodes n items.

        Rows of `input_ids`/`attention_mask` (k, tokens) and `pixel_values` (k', 3, size, size) are
        given for the items that have them only, in order; `text_present` and `image_present`
        bool (n,) say which.
        """
        inputs: dict[str, tuple[Tensor | None, Tensor | None]] = {
            "text": (input_ids, text_present),
            "image": (pixel_values, image_present),
        }
        parts, masks = {}, {}
        for modality in self.modalities:
            values, present = inputs[modality]
            if values is None or present is None:
                raise ValueError(
                    f"the encoder has a {modality} tower but the batch has no {modality}"
                )
            tower, projection = self.towers[modality], self.projections[modality]
            if modality == "text":
                hidden = tower(input_ids=values, attention_mask=attention_mask).last_hidden_state
                pooled = mean_pool(hidden, attention_mask)
            else:
                pooled = mean_pool(tower(pixel_values=values).last_hidden_state)
            parts[modality] = scatter_present(projection(pooled), present)
            masks[modality] = present
        present = torch.stack([masks[m] for m in self.modalities], dim=1)
        stacked = torch.stack([parts[m] for m in self.modalities], dim=1)
        fused = self.gate(stacked, self._hide_some(present))
        units = {
            m: F.normalize(self.heads[m](parts[m]), dim=-1) * masks[m].unsqueeze(1)
            for m in self.modalities
        }
        return ItemVectors(F.normalize(fused, dim=-1), units.get("text"), units.get("image"))

    def _hide_some(self, present: Tensor) -> Tensor:
        """Modality dropout: now and then hides one modality of an item that has several."""
        rate = self.config.modality_dropout
        if not self.training or rate == 0 or present.shape[1] < 2:
            return present
        hidden = torch.rand(present.shape[0], device=present.device) < rate
        which = torch.randint(present.shape[1], (present.shape[0],), device=present.device)
        keep = ~(hidden.unsqueeze(1) & F.one_hot(which, present.shape[1]).bool())
        reduced = present & keep
        return torch.where(reduced.any(dim=1, keepdim=True), reduced, present)


AutoConfig.register(ItemEncoderConfig.model_type, ItemEncoderConfig)
