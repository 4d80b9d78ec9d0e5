"""Two towers of CLIP's sizes: ours, open_clip's and Hugging Face's, their batches, and their cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, PreTrainedModel

from pretrain.config import ObjectivesConfig, OptimizerConfig
from pretrain.data import PretrainBatch
from pretrain.encoder import ItemEncoder, ItemEncoderConfig
from pretrain.grad_cache import enable_activation_checkpointing
from pretrain.module import PretrainModule
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.towers.build import compile_layers

PAIRS_IN_ROW = 8


@dataclass(frozen=True)
class Tower:
    width: int
    layers: int
    heads: int

    @property
    def config(self) -> dict[str, Any]:
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "hidden_act": "gelu",  # as open_clip trains; "quick_gelu" is for OpenAI's weights
        }

    def flops(self, tokens: int) -> float:
        """Of one sequence, forward and backward: 6 × weights × tokens, and attention's 12 × layers ×
        width × tokens² (PaLM, Chowdhery et al., 2022, appendix B), causal or not."""
        weights = self.layers * 12 * self.width**2
        return 6.0 * weights * tokens + 12.0 * self.layers * self.width * tokens**2


@dataclass(frozen=True)
class Size:
    image: Tower
    text: Tower
    width: int
    """Of the space the two are compared in."""
    patch: int
    image_size: int = 224
    vocabulary: int = 49408
    length: int = 77

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch) ** 2

    def flops(self, length: float | None = None) -> float:
        """Of one training step for one pair; nothing that is computed twice, no loss, no optimiser.

        `length` of the text, where it is not padded to the longest.
        """
        # No gradient goes back into pixels: 4 operations for each of these weights, not 6.
        patches = 4 * self.patches * 3 * self.patch**2 * self.image.width
        projections = 6 * self.width * (self.image.width + self.text.width)
        towers = self.image.flops(self.patches + 1) + self.text.flops(round(length or self.length))
        return towers + patches + projections

    @property
    def clip(self) -> dict[str, dict[str, Any]]:
        """As Hugging Face describes the two."""
        marks = {"bos_token_id": 0, "eos_token_id": self.vocabulary - 1, "pad_token_id": 1}
        return {
            "text": {
                **self.text.config,
                **marks,
                "vocab_size": self.vocabulary,
                "max_position_embeddings": self.length,
            },
            "image": {
                **self.image.config,
                "image_size": self.image_size,
                "patch_size": self.patch,
            },
        }


SIZES = {
    "b32": Size(Tower(768, 12, 12), Tower(512, 12, 8), width=512, patch=32),
    "l14": Size(Tower(1024, 24, 16), Tower(768, 12, 12), width=768, patch=14),
    "tiny": Size(
        Tower(64, 2, 2),
        Tower(32, 2, 2),
        width=32,
        patch=8,
        image_size=32,
        vocabulary=512,
        length=16,
    ),
}
PEAKS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""FLOP/s of dense bf16 products, by what the card calls itself (NVIDIA's datasheets)."""


def peak_of(card: str) -> float | None:
    return next((peak for name, peak in PEAKS.items() if name in card), None)


def batch_of(
    size: Size, pairs: int, device: str, titles: bool = False, seed: int = 0
) -> PretrainBatch:
    """Noise of the true shapes; `titles` are texts of 8 to 48 tokens, else all have full length."""
    generator = torch.Generator(device).manual_seed(seed)
    made: dict[str, Any] = {"generator": generator, "device": device}
    shortest, longest = size.length // 10 + 1, size.length * 5 // 8
    lengths = torch.randint(shortest, longest + 1, (pairs, 1), **made)
    if not titles:
        lengths = torch.full_like(lengths, size.length)
    everyone = torch.ones(pairs, dtype=torch.bool, device=device)
    ids = torch.randint(2, size.vocabulary - 1, (pairs, size.length), **made)
    mask = torch.arange(size.length, device=device) < lengths
    pixels = torch.randn(pairs, 3, size.image_size, size.image_size, **made)
    items = torch.arange(pairs, device=device).view(-1, math.gcd(pairs, PAIRS_IN_ROW))
    return PretrainBatch(
        items=items,
        segments=torch.zeros_like(items),
        slots=items,
        links=torch.full_like(items, -1),
        content={
            "text": {"present": everyone, "input_ids": ids, "attention_mask": mask.long()},
            "image": {"present": everyone, "pixel_values": pixels},
        },
    )


def our_module(
    size: Size,
    pairs: int,
    *,
    compiled: bool = False,
    checkpointed: bool = False,
    parts: int = 1,
    groups: int = 1,
) -> PretrainModule:
    """The module that pretraining trains, with the contrast between modalities alone."""
    text = {"kind": "text", "source": "text", "pooling": "last", "max_tokens": size.length}
    image = {"kind": "image", "source": "image", "pooling": "cls", "image_size": size.image_size}
    image |= {"mean": [0.5] * 3, "std": [0.5] * 3, "tower": {"model_type": "clip_vision_model"}}
    text |= {"length_groups": groups, "tower": {"model_type": "clip_text_model"}}
    described = [
        {"name": name, "layer": -1, **about, "tower": {**about["tower"], **size.clip[name]}}
        for name, about in (("text", text), ("image", image))
    ]
    encoder = ItemEncoder(
        ItemEncoderConfig(width=size.width, modalities=described, modality_dropout=0.0)
    )
    if compiled:
        compile_layers(encoder)
    if checkpointed:
        enable_activation_checkpointing(encoder)
    history = SequenceEncoderConfig(
        width=size.width, num_layers=1, num_heads=4, max_history=PAIRS_IN_ROW, dropout=0.0
    )
    return PretrainModule(
        encoder,
        SequenceEncoder(history),
        ObjectivesConfig(next_item=0.0, bag_of_words=0.0),
        OptimizerConfig(learning_rate=1e-4),
        torch.zeros(pairs),
        torch.arange(pairs),
        num_micro_batches=parts,
    ).train()


def loss_of(module: PretrainModule, batch: PretrainBatch) -> Tensor:
    """As `PretrainModule.training_step`, without what only a trainer can log."""
    outputs = module(batch)
    return torch.stack([objective(outputs) for objective in module.objectives.values()]).sum()


Loss = Callable[[PretrainBatch], Tensor]


def hugging_face(size: Size, compiled: bool = False) -> tuple[nn.Module, Loss]:
    text, image = size.clip["text"], size.clip["image"]
    config = CLIPConfig(text_config=text, vision_config=image, projection_dim=size.width)
    model = CLIPModel(config).train()
    if compiled:
        compile_layers(model)

    def loss(batch: PretrainBatch) -> Tensor:
        content = batch.content
        pixels = content["image"]["pixel_values"]
        found = model(input_ids=content["text"]["input_ids"], pixel_values=pixels, return_loss=True)
        return found.loss

    return model, loss


def open_clip(size: Size, compiled: bool = False) -> tuple[nn.Module, Loss]:
    from open_clip.loss import ClipLoss  # pyright: ignore[reportMissingImports]
    from open_clip.model import CLIP  # pyright: ignore[reportMissingImports]

    image, text = size.image, size.text
    pictures = {"image_size": size.image_size, "patch_size": size.patch, "width": image.width}
    words = {"context_length": size.length, "vocab_size": size.vocabulary, "width": text.width}
    model = CLIP(
        size.width,
        {**pictures, "layers": image.layers, "head_width": image.width // image.heads},
        {**words, "layers": text.layers, "heads": text.heads},
    ).train()
    if compiled:
        for transformer in (model.visual.transformer, model.transformer):
            for block in transformer.resblocks:
                block.compile()
    contrast = ClipLoss()

    def loss(batch: PretrainBatch) -> Tensor:
        content = batch.content
        return contrast(*model(content["image"]["pixel_values"], content["text"]["input_ids"]))

    return model, loss


def attention_of(encoder: ItemEncoder, batch: PretrainBatch) -> str:
    """What the towers attend with; that it is a fused kernel is seen by allowing no other."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    device = batch.items.device.type
    with torch.no_grad(), torch.autocast(device, torch.bfloat16), sdpa_kernel(fused):
        found = encoder(batch.content)
    assert F.normalize(found.item, dim=-1).isfinite().all()
    towers = [tower for tower in encoder.towers.values() if isinstance(tower, PreTrainedModel)]
    return ", ".join(sorted({str(tower.config._attn_implementation) for tower in towers}))
