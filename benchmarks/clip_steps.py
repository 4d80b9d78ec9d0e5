"""Whole training steps: our encoder and transformers' CLIPModel, with equal towers."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contrast import speed_figures
from benchmarks.tiny_encoders import (
    LONGEST,
    SCALE,
    TRUNK,
    VOCABULARY,
    WIDTH,
    item_texts,
    new_encoder,
    random_texts,
    text_modality,
)
from pretrain.artifact import count_parameters
from pretrain.encoder import ItemEncoder
from pretrain.objectives.contrast import symmetric_info_nce

BATCH, PIXELS, NUM_BATCHES = 128, 64, 4
VISION = {"num_hidden_layers": 3, **TRUNK, "image_size": PIXELS, "patch_size": 16}


def whole_steps() -> dict[str, Any]:
    """Measures training steps of our encoder and of CLIPModel, with texts of full and of real length."""
    torch.manual_seed(0)
    peer = new_clip()
    encoder = encoder_like(peer)
    log_scale = nn.Parameter(peer.logit_scale.detach().clone().view(1))
    generator = torch.Generator().manual_seed(0)
    texts = item_texts()
    full = [with_pictures(random_texts(BATCH, None, LONGEST, generator), generator)]
    orders = torch.randperm(len(texts["input_ids"]), generator=generator).split(BATCH)
    real = [with_pictures(trimmed(texts, rows), generator) for rows in orders[:NUM_BATCHES]]
    padded = [{key: to_longest(key, value) for key, value in batch.items()} for batch in real]
    for batch in (*full, *real):
        assert_equal_outputs(encoder, peer, batch)
    ours = (
        partial(encoder_loss, encoder, log_scale),
        torch.optim.AdamW([*encoder.parameters(), log_scale], lr=1e-4),
    )
    clip = (partial(clip_loss, peer), torch.optim.AdamW(peer.parameters(), lr=1e-4))
    return {
        "step_ours_parameters": count_parameters(encoder) + 1,
        "step_clip_parameters": count_parameters(peer),
        "step_real_length_tokens": float(texts["attention_mask"].sum(dim=1).float().mean()),
        "step_real_length_longest": float(np.mean([b["input_ids"].shape[1] for b in real])),
        **speed_figures(
            "step_full_length", {"ours": training(*ours, full), "clip": training(*clip, full)}
        ),
        **speed_figures(
            "step_real_length",
            {
                "ours": training(*ours, real),
                "longest": training(*clip, real),
                "most": training(*clip, padded),
            },
        ),
    }


def new_clip() -> Any:
    """An untrained CLIPModel."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config=text_config(),
        vision_config=VISION,
        projection_dim=WIDTH,
        logit_scale_init_value=float(np.log(SCALE)),
    )
    return CLIPModel(config).train()


def text_config() -> dict[str, Any]:
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    shape = {"vocab_size": VOCABULARY, "max_position_embeddings": LONGEST, **special}
    return {"num_hidden_layers": 3, **TRUNK, **shape}


def encoder_like(peer: Any) -> ItemEncoder:
    """An item encoder whose towers have the weights of `peer`."""
    image = {"name": "image", "kind": "image", "source": "image", "layer": -1, "pooling": "cls"}
    image |= {"tower": {"model_type": "clip_vision_model", **VISION}, "image_size": PIXELS}
    text = text_modality({"model_type": "clip_text_model", **text_config()}, "last", LONGEST)
    encoder = new_encoder(text, {**image, "mean": [0.5] * 3, "std": [0.5] * 3}).train()
    encoder.towers["text"].load_state_dict(peer.text_model.state_dict())
    encoder.towers["image"].load_state_dict(peer.vision_model.state_dict())
    return encoder


def encoder_loss(encoder: ItemEncoder, log_scale: Tensor, batch: dict[str, Tensor]) -> Tensor:
    present = torch.ones(BATCH, dtype=torch.bool)
    text = {**batch, "present": present}
    image = {"present": present, "pixel_values": text.pop("pixel_values")}
    vectors = encoder({"text": text, "image": image}).projected_embeddings
    return symmetric_info_nce(vectors[:, 0], vectors[:, 1], log_scale.exp(), present)


def clip_loss(peer: Any, batch: dict[str, Tensor]) -> Tensor:
    return peer(**batch, return_loss=True).loss


def training(
    loss: Callable[[dict[str, Tensor]], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: list[dict[str, Tensor]],
) -> Callable[[], None]:
    """Returns a function that runs one training step on the next batch."""
    following: Iterator[dict[str, Tensor]] = cycle(batches)

    def step() -> None:
        optimizer.zero_grad()
        loss(next(following)).backward()
        optimizer.step()

    return step


@torch.no_grad()
def assert_equal_outputs(encoder: ItemEncoder, peer: Any, batch: dict[str, Tensor]) -> None:
    found = peer(**batch, return_loss=True)
    texts, pictures = encoder.kinds["text"], encoder.kinds["image"]
    assert_close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    read = texts.encode(encoder.towers["text"], batch)
    ends = peer.text_model(batch["input_ids"], batch["attention_mask"]).pooler_output
    assert_close(read, ends)
    seen = pictures.encode(encoder.towers["image"], batch)
    assert_close(seen, found.vision_model_output.last_hidden_state[:, 0])
    everything = torch.ones(BATCH, dtype=torch.bool)
    scale = peer.logit_scale.exp().view(1)
    loss = symmetric_info_nce(found.text_embeds, found.image_embeds, scale, everything)
    assert_close(loss, found.loss)


def trimmed(texts: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    longest = int(texts["attention_mask"][chosen].sum(dim=1).max())
    return {key: value[chosen, :longest] for key, value in texts.items()}


def to_longest(key: str, value: Tensor) -> Tensor:
    return value if key == "pixel_values" else F.pad(value, (0, LONGEST - value.shape[1]))


def with_pictures(texts: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(len(texts["input_ids"]), 3, PIXELS, PIXELS, generator=generator)
    return {**texts, "pixel_values": pixels}
