"""Pretraining against its peers: losses, gradient caching and whole steps; CPU seconds and memory.

python -m benchmarks.steps    # about 12 minutes of CPU time
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import contrast
from benchmarks.contrast import Step, assert_equal, rise_of_peak, speed_figures
from benchmarks.peers import make_peers_importable
from benchmarks.record import ROOT, write_record
from catalog.catalog import load_catalog
from launch.pipeline.config import PipelineConfig
from launch.settings import load_settings
from pretrain.artifact import count_parameters
from pretrain.config import ModalityConfig, TowerConfig
from pretrain.encoder import ItemEncoder, ItemEncoderConfig
from pretrain.grad_cache import encode_in_micro_batches
from pretrain.modalities import Text
from pretrain.objectives.contrast import symmetric_contrast

COMMAND = "python -m benchmarks.steps"
LOSSES = ("infonce", "sigmoid")
LOSS_BATCHES = (4096, 8192)
LOSS_MEMORY_BATCHES = (8192, 16384)
CACHED_BATCHES = {512: 9, 2048: 5}
"""Batch → rounds."""
CACHED_MEMORY_BATCHES = (512, 8192)
PART_TOKENS = 8192
"""Of one part in gradient caching: as many as `vitrine embed` reads at once."""
TOKENS, REAL_TOKENS = 32, 64
"""Of a text there: all of like length, and at most where the lengths are real."""
WIDTH, VOCABULARY = 128, 4096
TRUNK = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
BATCH, LONGEST, PIXELS = 128, 77, 64
"""Of a whole step."""
BATCHES = 4
SCALE = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=3, metavar=("WHAT", "WHO", "BATCH"), help="one memory cell")
    cell = parser.parse_args().cell
    torch.set_num_threads(1)
    make_peers_importable()
    if cell:
        print(json.dumps(memory_of(cell[0], cell[1], int(cell[2]))))
        return
    write_speed()
    write_memory()


def write_speed() -> None:
    figures: dict[str, Any] = {}
    for loss in LOSSES:
        for batch in LOSS_BATCHES:
            both = contrast.steps(loss, batch)
            assert_equal(both)
            figures |= speed_figures(f"{loss}_{batch}", both)
    lengths = item_texts()["attention_mask"].sum(dim=1).clamp(max=REAL_TOKENS)
    for batch, rounds in CACHED_BATCHES.items():
        both = cached_steps(batch, lengths)
        assert_equal(both)
        figures |= speed_figures(f"cached_{batch}", both, rounds)
    both = cached_steps(512)
    assert_equal(both)
    figures |= speed_figures("cached_full_length_512", both)
    figures |= whole_steps()
    write_record(
        "pretrain-speed",
        claim="Contrastive pretraining costs less CPU time than its peers: the losses than "
        "open_clip's, gradient caching of texts of real lengths than sentence-transformers', a "
        "whole step than transformers' CLIPModel.",
        command=COMMAND,
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/contrast.py",
            "pretrain/grad_cache.py",
            "pretrain/encoder.py",
            "pretrain/objectives/contrast.py",
            "pretrain/towers.py",
        ],
        goal=[
            *(f"{loss}_{batch}_speedup_low >= 1.5" for loss in LOSSES for batch in LOSS_BATCHES),
            *(f"cached_{batch}_speedup_low >= 1.0" for batch in CACHED_BATCHES),
            "step_full_length_speedup_low >= 1.0",
            "step_real_length_speedup_over_longest_low >= 1.2",
        ],
        note="One thread, one run: rounds alternate in rotating order, with a matrix product as "
        "calibration; medians of process time, 95 % bootstrap intervals of their ratio. Losses: "
        f"width {contrast.WIDTH}. Cached: loss and backward pass of a 2-layer BERT of width {WIDTH}, "
        f"{PART_TOKENS} tokens a part, against CachedMultipleNegativesRankingLoss in both directions; "
        f"texts as long as those of fashion items, at most {REAL_TOKENS} tokens, and full_length, "
        f"which has no goal, {TOKENS} everywhere. Step: forward, loss, backward and AdamW of "
        f"{BATCH} items, 3-layer CLIP towers of width {WIDTH}, pictures of {PIXELS} pixels in patches "
        "of 16; full_length "
        f"has {LONGEST} tokens everywhere, real_length the texts of fashion items, which the peer "
        "pads to the longest of the batch or to the most there can be. Ours also has its "
        "projections' norms, heads and fusion. Asserted first: equal losses and gradients of losses "
        "and cached; in a step equal outputs of equal towers, and the same loss of the same vectors.",
    )


def write_memory() -> None:
    figures: dict[str, Any] = {}
    for what in LOSSES:
        figures |= memory_figures(what, "open_clip", LOSS_MEMORY_BATCHES)
    figures |= memory_figures("cached", "sentence_transformers", CACHED_MEMORY_BATCHES)
    write_record(
        "pretrain-memory",
        claim="Twice the batch takes at most 2.3 times the memory in the contrastive losses; with "
        "gradient caching, a batch 16 times as large takes the same within 15 %.",
        command=COMMAND,
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/contrast.py",
            "pretrain/grad_cache.py",
            "pretrain/objectives/contrast.py",
        ],
        goal=[
            *(f"{loss}_ours_growth <= 2.3" for loss in LOSSES),
            # That it is measured at all: whole matrices must be seen to grow with the square.
            *(f"{loss}_open_clip_growth >= 3.0" for loss in LOSSES),
            "cached_ours_growth <= 1.15",
        ],
        note="MiB by which one step, gradients included, raises the peak resident memory of a fresh "
        "process over what it held with model and inputs; what is freed goes back to the system at "
        f"once. Losses: width {contrast.WIDTH}. Cached: loss and backward pass of a 2-layer BERT of "
        f"width {WIDTH}, {PART_TOKENS // TOKENS} texts of {TOKENS} tokens a part.",
    )


def memory_figures(what: str, peer: str, batches: tuple[int, int]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for who in ("ours", peer):
        for batch in batches:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.steps", "--cell", what, who, str(batch)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **GIVE_BACK},
                capture_output=True,
                text=True,
                check=True,
            )
            figures[f"{what}_{who}_{batch}_mib"] = json.loads(done.stdout.splitlines()[-1])
        small, large = (figures[f"{what}_{who}_{batch}_mib"] for batch in batches)
        figures[f"{what}_{who}_growth"] = large / small
    return figures


GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Holes that malloc keeps would count as memory, more or fewer of them by chance."""


def memory_of(what: str, who: str, batch: int) -> float:
    """What the first call ever allocates is not the step's: a small one comes before."""
    if what == "cached":
        cached_steps(8, part_tokens=4 * TOKENS)[who]()
        return rise_of_peak(cached_steps(batch)[who])
    contrast.steps(what, 64)[who]()
    return rise_of_peak(contrast.steps(what, batch)[who])


def cached_steps(
    batch: int, lengths: Tensor | None = None, part_tokens: int = PART_TOKENS
) -> dict[str, Step]:
    """Loss and gradients of one text tower, of `batch` pairs of texts as long as some of `lengths`."""
    torch.manual_seed(0)
    tokens = TOKENS if lengths is None else REAL_TOKENS
    rows = part_tokens // tokens
    tower = {"model_type": "bert", "num_hidden_layers": 2, "vocab_size": VOCABULARY, **TRUNK}
    tower |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = new_encoder(text_modality(tower, "mean", tokens)).train()
    generator = torch.Generator().manual_seed(0)
    columns = [random_texts(batch, lengths, tokens, generator) for _ in range(2)]
    everything = torch.ones(batch, dtype=torch.bool)
    peer = cached_peer(encoder, rows)
    weights = [*encoder.towers.parameters(), *encoder.projections.parameters()]

    def step(loss: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        encoder.zero_grad()
        value = loss()
        value.backward()
        return value.detach(), *(w.grad for w in weights if w.grad is not None)

    def ours() -> Tensor:
        left, right = (
            encode_in_micro_batches(
                encoder, {"text": {"present": everything, **column}}, batch // rows
            ).item
            for column in columns
        )
        return symmetric_contrast(left, right, torch.tensor([SCALE]), everything)

    def theirs() -> Tensor:
        return peer([dict(column) for column in columns], None)

    return {"ours": lambda: step(ours), "sentence_transformers": lambda: step(theirs)}


def cached_peer(encoder: ItemEncoder, rows: int) -> nn.Module:
    """sentence-transformers' loss over the very weights of `encoder`."""
    from sentence_transformers import (  # pyright: ignore[reportMissingImports]
        SentenceTransformer,
    )
    from sentence_transformers.sentence_transformer.losses import (  # pyright: ignore[reportMissingImports]
        CachedMultipleNegativesRankingLoss,
    )
    from sentence_transformers.sentence_transformer.modules import (  # pyright: ignore[reportMissingImports]
        Dense,
        LayerNorm,
        Pooling,
        Transformer,
    )

    from pretrain.tokenizer import train_tokenizer

    tower, projection = encoder.towers["text"], encoder.projections["text"]
    with tempfile.TemporaryDirectory() as folder:
        tower.save_pretrained(folder)  # type: ignore[operator]
        train_tokenizer(["a word"], 100).save_pretrained(folder)
        transformer = Transformer(folder)
    transformer.model = tower
    dense, norm = Dense(WIDTH, WIDTH, activation_function=None), LayerNorm(WIDTH)
    dense.linear, norm.norm = projection.linear, projection.norm
    modules = [transformer, Pooling(WIDTH, "mean"), dense, norm]  # its cosine normalises
    return CachedMultipleNegativesRankingLoss(
        SentenceTransformer(modules=modules, device="cpu").train(),
        scale=SCALE,
        mini_batch_size=rows,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )


def whole_steps() -> dict[str, Any]:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    shape = {"num_hidden_layers": 3, **TRUNK}
    text = {**shape, "vocab_size": VOCABULARY, "max_position_embeddings": LONGEST}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    vision = {**shape, "image_size": PIXELS, "patch_size": 16}
    peer = CLIPModel(
        CLIPConfig(
            text_config=text,
            vision_config=vision,
            projection_dim=WIDTH,
            logit_scale_init_value=float(np.log(SCALE)),
        )
    ).train()
    picture = {"name": "image", "kind": "image", "source": "image", "layer": -1, "pooling": "cls"}
    picture |= {"tower": {"model_type": "clip_vision_model", **vision}, "image_size": PIXELS}
    words = text_modality({"model_type": "clip_text_model", **text}, "last", LONGEST)
    encoder = new_encoder(words, {**picture, "mean": [0.5] * 3, "std": [0.5] * 3}).train()
    encoder.towers["text"].load_state_dict(peer.text_model.state_dict())
    encoder.towers["image"].load_state_dict(peer.vision_model.state_dict())
    log_scale = nn.Parameter(peer.logit_scale.detach().clone().view(1))
    everything = torch.ones(BATCH, dtype=torch.bool)

    def ours(batch: dict[str, Tensor]) -> Tensor:
        inputs = {**batch, "present": everything}
        pixels = inputs.pop("pixel_values")
        units = encoder(
            {"text": inputs, "image": {"present": everything, "pixel_values": pixels}}
        ).projected_embeddings
        return symmetric_contrast(units[:, 0], units[:, 1], log_scale.exp(), everything)

    def theirs(batch: dict[str, Tensor]) -> Tensor:
        return peer(**batch, return_loss=True).loss

    generator = torch.Generator().manual_seed(0)
    texts = item_texts()
    full = [with_pictures(random_texts(BATCH, None, LONGEST, generator), generator)]
    real = [
        with_pictures(trimmed(texts, chosen), generator)
        for chosen in torch.randperm(len(texts["input_ids"]), generator=generator).split(BATCH)[
            :BATCHES
        ]
    ]
    padded = [{key: to_longest(key, value) for key, value in batch.items()} for batch in real]
    for batch in (*full, *real):
        assert_equal_outputs(encoder, peer, batch)
    mine = (ours, torch.optim.AdamW([*encoder.parameters(), log_scale], lr=1e-4))
    other = (theirs, torch.optim.AdamW(peer.parameters(), lr=1e-4))
    return {
        "step_ours_parameters": count_parameters(encoder) + 1,
        "step_clip_parameters": count_parameters(peer),
        "step_real_length_tokens": float(texts["attention_mask"].sum(dim=1).float().mean()),
        "step_real_length_longest": float(np.mean([b["input_ids"].shape[1] for b in real])),
        **speed_figures(
            "step_full_length", {"ours": training(*mine, full), "clip": training(*other, full)}
        ),
        **speed_figures(
            "step_real_length",
            {
                "ours": training(*mine, real),
                "longest": training(*other, real),
                "most": training(*other, padded),
            },
        ),
    }


def training(
    loss: Callable[[dict[str, Tensor]], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: list[dict[str, Tensor]],
) -> Callable[[], None]:
    """One step of training with the next batch."""
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
    loss = symmetric_contrast(found.text_embeds, found.image_embeds, scale, everything)
    assert_close(loss, found.loss)


def item_texts() -> dict[str, Tensor]:
    """The texts of fashion items, as that shop's tokenizer gives them."""
    catalog = load_catalog(load_settings(PipelineConfig, "pipeline/fashion", []).pretrain.catalog)
    settings = ModalityConfig(
        kind="text",
        source="text",
        config={"model_type": "bert"},
        vocab_size=VOCABULARY,
        max_tokens=LONGEST,
    )
    kind, tokenizer = Text.new(settings, catalog)
    inputs = kind.open(catalog, tokenizer).read(np.arange(catalog.num_items))
    return {key: value for key, value in inputs.items() if key != "present"}


def random_texts(
    batch: int, lengths: Tensor | None, longest: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Any tokens, the mark of the end last; as many as drawn from `lengths`, or all there can be."""
    if lengths is None:
        lengths = torch.tensor([longest])
    drawn = lengths[torch.randint(len(lengths), (batch,), generator=generator)]
    width = int(drawn.max())
    mask = torch.arange(width) < drawn.unsqueeze(1)
    ids = torch.randint(4, VOCABULARY, (batch, width), generator=generator) * mask
    ids[torch.arange(batch), drawn - 1] = 3
    return {"input_ids": ids, "attention_mask": mask.long()}


def trimmed(texts: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    longest = int(texts["attention_mask"][chosen].sum(dim=1).max())
    return {key: value[chosen, :longest] for key, value in texts.items()}


def to_longest(key: str, value: Tensor) -> Tensor:
    return value if key == "pixel_values" else F.pad(value, (0, LONGEST - value.shape[1]))


def with_pictures(texts: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(len(texts["input_ids"]), 3, PIXELS, PIXELS, generator=generator)
    return {**texts, "pixel_values": pixels}


def text_modality(tower: dict[str, Any], pooling: str, max_tokens: int) -> dict[str, Any]:
    about = {"name": "text", "kind": "text", "source": "text", "tower": tower, "layer": -1}
    about |= {"pooling": pooling, "max_tokens": max_tokens}
    return {**about, "length_groups": TowerConfig().length_groups}


def new_encoder(*modalities: dict[str, Any]) -> ItemEncoder:
    return ItemEncoder(ItemEncoderConfig(width=WIDTH, modalities=list(modalities)))


if __name__ == "__main__":
    main()
