"""One step of pretraining: encodes items, encodes histories, and sums the weighted objectives."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from catalog.errors import VitrineError
from pretrain.config import ObjectivesConfig, OptimizerConfig
from pretrain.data import PretrainBatch
from pretrain.encoder import ItemEncoder
from pretrain.grad_cache import (
    check_micro_batches,
    enable_activation_checkpointing,
    encode_in_micro_batches,
)
from pretrain.modalities import Content
from pretrain.objectives import OBJECTIVES, StepOutputs
from pretrain.optim import layer_rates, make_optimizer
from pretrain.sequence_encoder import SequenceEncoder
from pretrain.shards import is_sharded
from pretrain.unused_parameters import freeze_unused


class PretrainModule(pl.LightningModule):
    """The training step as on one device; the objectives gather what ranks must share."""

    frozen_is_unchanged = True
    """Frozen weights equal those the module was built with, so checkpoints leave them out."""

    log_popularity: Tensor
    duplicate_ids: Tensor

    def __init__(
        self,
        encoder: ItemEncoder,
        sequence_encoder: SequenceEncoder,
        objectives: ObjectivesConfig,
        optimizer: OptimizerConfig,
        log_popularity: Tensor,
        duplicate_ids: Tensor,
        num_micro_batches: int = 1,
        activation_checkpointing: bool = False,
        linked: bool = False,
    ) -> None:
        """`log_popularity` (num_items,); `duplicate_ids` int (num_items,): one id for duplicate items;
        `linked`: batches say which items the catalog's edges link."""
        super().__init__()
        check_micro_batches(encoder, num_micro_batches)
        self.num_micro_batches = num_micro_batches
        self.activation_checkpointing = activation_checkpointing
        self.encoder = encoder
        self.sequence_encoder = sequence_encoder
        self.weights = active_weights(objectives, available_outputs(encoder, objectives, linked))
        self.objectives = nn.ModuleDict(
            {name: OBJECTIVES[name].build(encoder, objectives) for name in self.weights}
        )
        self.optimizer_config = optimizer
        self.register_buffer("log_popularity", log_popularity, persistent=False)
        self.register_buffer("duplicate_ids", duplicate_ids, persistent=False)

    def forward(self, batch: PretrainBatch) -> StepOutputs:
        distinct = encode_in_micro_batches(self.encoder, batch.content, self.num_micro_batches)
        slots = batch.slots.flatten()
        vectors = distinct.item[slots].view(*batch.slots.shape, -1)  # (rows, row_length, width)
        states = self.sequence_encoder(vectors, batch.segments)
        ids = batch.items.flatten()
        return StepOutputs(
            item_ids=self.duplicate_ids[ids],
            items=vectors.flatten(0, 1),
            states=states.flatten(0, 1),
            segments=batch.segments.flatten(),
            log_popularity=self.log_popularity[ids],
            projected_embeddings=distinct.projected_embeddings[slots],
            modality_embeddings=distinct.modality_embeddings[slots],
            present=distinct.present[slots],
            visible_mask=distinct.visible_mask[slots],
            tokens=self._tokens(batch.content, slots),
            token_nll=None if distinct.token_nll is None else distinct.token_nll[slots],
            links=batch.links.flatten(),
        )

    def _tokens(self, content: Content, slots: Tensor) -> Tensor | None:
        if "bag_of_words" not in self.weights or self.encoder.text is None:
            return None
        name, text = self.encoder.text
        return tokens_of(content[name], text.spec["special_tokens"])[slots]

    def freeze_unused(self, batch: PretrainBatch) -> list[str]:
        """Freezes weights that no step reads (`pretrain.unused_parameters`)."""
        num_micro_batches = self.num_micro_batches
        self.num_micro_batches = 1  # gradient caching hides the autograd graph
        try:
            return freeze_unused(self, batch)
        finally:
            self.num_micro_batches = num_micro_batches

    def on_train_start(self) -> None:
        if self.activation_checkpointing or (
            self.num_micro_batches > 1 and is_sharded(self.encoder)
        ):
            enable_activation_checkpointing(self.encoder)

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
        """The likely cause of a non-finite gradient: items with non-finite content, else all items of the
        batch."""
        items = torch.zeros(int(batch.slots.max()) + 1, dtype=torch.int64)
        items[batch.slots.flatten().cpu()] = batch.items.flatten().cpu()
        for name, inputs in batch.content.items():
            present = inputs["present"].cpu()
            for values in inputs.values():
                if not values.is_floating_point() or not len(present):
                    continue
                broken = ~values[: int(present.sum())].flatten(1).isfinite().all(dim=1).cpu()
                suspects = items[present.nonzero().squeeze(1)[broken]]
                if len(suspects):
                    return f"; the {name} of items (rows) {suspects.tolist()} is not finite"
        return f"; it read items (rows) {items.tolist()}"

    def configure_optimizers(self) -> Any:
        config = self.optimizer_config
        rates = layer_rates(self.encoder, config.layer_decay)
        return make_optimizer(self.parameters(), config, self.trainer.max_steps, rates)


def available_outputs(encoder: ItemEncoder, objectives: ObjectivesConfig, linked: bool) -> set[str]:
    """The optional fields of StepOutputs that a step with these settings computes."""
    available = set()
    if len(encoder.modalities) > 1:
        available |= {"projected_embeddings", "modality_embeddings", "present", "visible_mask"}
    if encoder.text is not None:
        available.add("tokens")
        if objectives.language_modeling:
            available.add("token_nll")
    return available | ({"links"} if linked else set())


def active_weights(objectives: ObjectivesConfig, available: set[str]) -> dict[str, float]:
    """The weights of the objectives that can be computed from the `available` fields of StepOutputs.

    An objective that cannot is skipped if its weight is the default; otherwise VitrineError is raised.
    """
    weights = {}
    for name, objective in OBJECTIVES.items():
        weight = float(getattr(objectives, name))
        if weight <= 0:
            continue
        missing = [need for need in objective.needs if need not in available]
        if not missing:
            weights[name] = weight
        elif weight != getattr(ObjectivesConfig(), name):
            raise VitrineError(
                f"objectives.{name} is {weight:g}, but {MISSING_INPUT_ERRORS[missing[0]]}"
            )
    if not weights:
        raise VitrineError("no objective has a weight above 0; set one of objectives.*")
    return weights


MISSING_INPUT_ERRORS = {
    "projected_embeddings": "the encoder has one modality only; give it another, or set the weight to 0",
    "modality_embeddings": "the encoder has one modality only; give it another, or set the weight to 0",
    "tokens": "the encoder has no text tower; give it one, or set the weight to 0",
    "token_nll": "the encoder has no text tower; give it one, or set the weight to 0",
    "links": "the catalog has no edges table; add one, or set the weight to 0",
}
"""Field of StepOutputs → the end of the error message if it is missing."""


def tokens_of(text: dict[str, Tensor], special_tokens: list[int]) -> Tensor:
    """Each item's token ids, int (n, length), -1 for padding and for items without text.

    `special_tokens`: ids that the tokenizer puts around every text ([CLS], [SEP]; none for many
    decoders). They carry no information about the item, and are -1, too.
    """
    present, ids = text["present"], text["input_ids"]
    special = torch.isin(ids, ids.new_tensor(special_tokens))
    ids = ids.masked_fill((text["attention_mask"] == 0) | special, -1)
    full = ids.new_full((len(present), ids.shape[1]), -1)
    full[present] = ids[: int(present.sum())]
    return full
