"""The item encoder: modality fusion of an item's content into one vector. Knows nothing about histories."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from typing_extensions import override

from pretrain.modalities import MODALITIES, Content, Modality, Text
from pretrain.modalities.base import CACHED_FEATURES
from pretrain.towers.projection import Projection, scatter_present


@dataclass
class ItemVectors:
    """The encoder's outputs for n items with m modalities."""

    item: Tensor
    """(n, width) fused, unit length."""
    projected_embeddings: Tensor
    """(n, m, width): modality embeddings behind projection heads, unit length, zero where missing."""
    modality_embeddings: Tensor
    """(n, m, width): the inputs of the fusion, zero where the modality is missing."""
    present: Tensor
    """bool (n, m)."""
    visible_mask: Tensor
    """bool (n, m): present and not hidden by modality dropout."""
    token_nll: Tensor | None = None
    """(n, 2): summed negative log-likelihood and number of the text's tokens; None unless the text tower
    has a language modelling head."""


class ItemEncoderConfig(PretrainedConfig):
    """`modalities`: the `name` and the `Modality.spec` of each. It is a list because the fusion identifies
    modalities by position, and a saved mapping may be loaded in another order."""

    model_type = "vitrine-item-encoder"

    def __init__(
        self,
        width: int = 128,
        modalities: list[dict[str, Any]] | None = None,
        modality_dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        self.width = width
        self.modalities = modalities or []
        self.modality_dropout = modality_dropout
        super().__init__(**kwargs)


class MaskedGate(nn.Module):
    """Gated mean over the modalities an item has (UniSRec's adaptor, MISSRec's fusion).

    An item without any modality gets a learned vector.
    """

    def __init__(self, width: int, num_modalities: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        self.prior = nn.Parameter(torch.zeros(num_modalities))
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """`embeddings` (n, modalities, width), `present` bool (n, modalities). Returns (n, width)."""
        logits = self.score(embeddings).squeeze(-1) + self.prior
        anything = present.any(dim=1, keepdim=True)
        logits = logits.masked_fill(~present & anything, float("-inf"))
        weights = logits.softmax(dim=1)  # (n, modalities)
        fused = torch.einsum("nm,nmd->nd", weights, embeddings)
        return torch.where(anything, fused, self.nothing.to(fused.dtype))


class ItemEncoder(PreTrainedModel):
    """A tower for each modality, projections to a shared width, and masked gated fusion.

    `from_pretrained` and `save_pretrained` work as for any transformers model.
    """

    config_class = ItemEncoderConfig
    base_model_prefix = "item_encoder"

    def __init__(self, config: ItemEncoderConfig, pretrained: dict[str, str] | None = None) -> None:
        """`pretrained` names the checkpoints the towers start from, by modality."""
        super().__init__(config)
        pretrained = pretrained or {}
        self.kinds: dict[str, Modality] = {
            spec["name"]: MODALITIES[spec["kind"]](spec) for spec in config.modalities
        }
        self.towers = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        for name, kind in self.kinds.items():
            if self.tower_name(name) == name:
                self.towers[name] = kind.build_tower(pretrained.get(name, ""))
            self.projections[name] = Projection(kind.width, config.width)
            # A cross-modal loss keeps only what both modalities share; on a projection head of its
            # own (Chen et al., 2020) it leaves the rest in the fused embeddings.
            self.heads[name] = nn.Linear(config.width, config.width)
        self.gate = MaskedGate(config.width, len(self.kinds))
        self.post_init()

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities, in the order of `ItemVectors`."""
        return list(self.kinds)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of modalities, by their positions."""
        return list(combinations(range(len(self.kinds)), 2))

    def tower_name(self, name: str) -> str:
        """The modality whose tower encodes this one: itself, unless it shares another's tower."""
        return self.kinds[name].spec.get("shares") or name

    @property
    def text(self) -> tuple[str, Text] | None:
        """Name and `Text` of the first text modality; None without one."""
        texts = ((name, kind) for name, kind in self.kinds.items() if isinstance(kind, Text))
        return next(texts, None)

    def _init_weights(self, module: nn.Module) -> None:
        # Towers initialise themselves when they are built (or have pretrained weights); projections and
        # gate keep torch's own initialisation.
        return

    def forward(self, content: Content) -> ItemVectors:
        """The `ItemVectors` of n items, whose content is a `pretrain.modalities.Content`."""
        embeddings, masks = [], []
        token_nll = None
        for name, kind in self.kinds.items():
            if name not in content:
                raise ValueError(f"the encoder reads {name}, but the batch has none")
            present = content[name]["present"]
            pooled = self.read(name, content)
            embeddings.append(scatter_present(self.projections[name](pooled), present))
            masks.append(present)
            if isinstance(kind, Text) and kind.token_nll is not None and token_nll is None:
                token_nll = scatter_present(kind.token_nll, present)
        stacked, present = torch.stack(embeddings, dim=1), torch.stack(masks, dim=1)
        visible_mask = self._hide_some(present)
        projected_embeddings = [
            F.normalize(self.heads[name](part), dim=-1) * mask.unsqueeze(1)
            for name, part, mask in zip(self.kinds, embeddings, masks, strict=True)
        ]
        item = F.normalize(self.gate(stacked, visible_mask), dim=-1)
        return ItemVectors(
            item,
            torch.stack(projected_embeddings, dim=1),
            stacked,
            present,
            visible_mask,
            token_nll,
        )

    def read(self, name: str, content: Content) -> Tensor:
        """The tower's output for one modality: (k, tower width), a row for each item that has it."""
        if CACHED_FEATURES in content[name]:
            return content[name][CACHED_FEATURES]
        inputs = {key: value for key, value in content[name].items() if key != "present"}
        return self.kinds[name].encode(self.towers[self.tower_name(name)], inputs)

    @override
    def train(self, mode: bool = True) -> Self:
        """As for any module, but BatchNorm layers of pretrained towers keep their checkpoint's statistics: a
        batch has few images, and on each rank others."""
        super().train(mode)
        for name, tower in self.towers.items():
            if self.kinds[name].spec.get("keeps_statistics"):
                for module in tower.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        return self

    def _hide_some(self, present: Tensor) -> Tensor:
        """Modality dropout: hides one modality, at random, of items that have several."""
        rate = self.config.modality_dropout
        if not self.training or rate == 0 or present.shape[1] < 2:
            return present
        hidden = torch.rand(present.shape[0], device=present.device) < rate
        which = torch.randint(present.shape[1], (present.shape[0],), device=present.device)
        keep = ~(hidden.unsqueeze(1) & F.one_hot(which, present.shape[1]).bool())
        reduced = present & keep
        return torch.where(reduced.any(dim=1, keepdim=True), reduced, present)


AutoConfig.register(ItemEncoderConfig.model_type, ItemEncoderConfig)
