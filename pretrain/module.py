"""One step of pretraining: encode items, read histories, weigh the objectives."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pretrain.chunks import check_parts, encode_in_parts, release_layer_by_layer
from pretrain.config import ObjectivesConfig, OptimizerConfig
from pretrain.data import PretrainBatch
from pretrain.encoder import ItemEncoder
from pretrain.history import HistoryEncoder
from pretrain.objectives import OBJECTIVES, StepOutputs
from pretrain.optim import make_optimizer
from pretrain.shards import is_sharded


class PretrainModule(pl.LightningModule):
    """Single-device code: what ranks must share, the objectives gather."""

    log_popularity: Tensor
    twins: Tensor

    def __init__(
        self,
        encoder: ItemEncoder,
        history: HistoryEncoder,
        objectives: ObjectivesConfig,
        optimizer: OptimizerConfig,
        log_popularity: Tensor,
        twins: Tensor,
        encode_parts: int = 1,
    ) -> None:
        """`log_popularity` (num_items,); `twins` int (num_items,): one number for equal items."""
        super().__init__()
        check_parts(encoder, encode_parts)
        self.encode_parts = encode_parts
        self.encoder = encoder
        self.history = history
        self.weights = {
            name: float(getattr(objectives, name))
            for name, objective in OBJECTIVES.items()
            if getattr(objectives, name) > 0 and set(objective.needs) <= set(encoder.modalities)
        }
        self.objectives = nn.ModuleDict(
            {name: OBJECTIVES[name].build(encoder, objectives) for name in self.weights}
        )
        self.optimizer_config = optimizer
        self.register_buffer("log_popularity", log_popularity, persistent=False)
        self.register_buffer("twins", twins, persistent=False)

    def forward(self, batch: PretrainBatch) -> StepOutputs:
        distinct = encode_in_parts(self.encoder, batch.content, self.encode_parts)
        slots = batch.slots.flatten()
        vectors = distinct.item[slots].view(*batch.slots.shape, -1)  # (rows, row_length, width)
        states = self.history(vectors, batch.segments)
        ids = batch.items.flatten()
        return StepOutputs(
            item_ids=self.twins[ids],
            items=vectors.flatten(0, 1),
            states=states.flatten(0, 1),
            segments=batch.segments.flatten(),
            log_popularity=self.log_popularity[ids],
            text=None if distinct.text is None else distinct.text[slots],
            image=None if distinct.image is None else distinct.image[slots],
            text_present=_at(batch.content.get("text_present"), slots),
            image_present=_at(batch.content.get("image_present"), slots),
            tokens=_tokens(batch.content, slots),
        )

    def on_train_start(self) -> None:
        if self.encode_parts > 1 and is_sharded(self.encoder):
            release_layer_by_layer(self.encoder)

    def training_step(self, batch: PretrainBatch, batch_idx: int) -> Tensor:
        outputs = self(batch)
        losses = {name: objective(outputs) for name, objective in self.objectives.items()}
        loss = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        self.log_dict(
            {"loss": loss, **{f"loss/{name}": value for name, value in losses.items()}},
            prog_bar=False,
            sync_dist=True,
            batch_size=outputs.item_ids.shape[0],
        )
        return loss

    def suspects(self, batch: PretrainBatch) -> str:
        """For a step whose gradient is not finite: which items' content is not, or which were read."""
        items = torch.zeros(int(batch.slots.max()) + 1, dtype=torch.int64)
        items[batch.slots.flatten().cpu()] = batch.items.flatten().cpu()
        pixels = batch.content.get("pixel_values")
        if pixels is not None:
            present = batch.content["image_present"].cpu()
            strange = ~pixels[: int(present.sum())].flatten(1).isfinite().all(dim=1).cpu()
            found = items[present.nonzero().squeeze(1)[strange]]
            if len(found):
                return f"; pictures of items (rows) {found.tolist()} are not finite"
        return f"; it read items (rows) {items.tolist()}"

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.parameters(), self.optimizer_config, self.trainer.max_steps)


def _at(mask: Tensor | None, slots: Tensor) -> Tensor | None:
    return None if mask is None else mask[slots]


def _tokens(content: dict[str, Tensor], slots: Tensor) -> Tensor | None:
    """Each slot's token ids, int (slots, length), -1 for padding and for items without text.

    The start and end marks that every text has tell nothing, and are left out too.
    """
    if "input_ids" not in content:
        return None
    present = content["text_present"]
    ids = content["input_ids"].masked_fill(content["attention_mask"] == 0, -1)
    ids = ids[:, 1:].masked_fill(_is_last(content["attention_mask"])[:, 1:], -1)
    full = ids.new_full((len(present), ids.shape[1]), -1)
    full[present] = ids[: int(present.sum())]
    return full[slots]


def _is_last(mask: Tensor) -> Tensor:
    """bool (texts, length): the last place that counts."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return places == (mask.sum(dim=1, keepdim=True) - 1)
