"""Steps with gradient caching (GradCache): ours and sentence-transformers', with equal weights."""

import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.contrast import Step
from benchmarks.tiny_encoders import (
    SCALE,
    TRUNK,
    VOCABULARY,
    WIDTH,
    new_encoder,
    random_texts,
    text_modality,
)
from pretrain.encoder import ItemEncoder
from pretrain.grad_cache import encode_in_micro_batches
from pretrain.objectives.contrast import symmetric_info_nce

PART_TOKENS = 8192
"""Tokens of one micro-batch: as many as in a batch of `vitrine embed`."""
TOKENS, REAL_TOKENS = 32, 64
"""Tokens of a text: where all have equal length, and at most where lengths are those of real texts."""


def cached_steps(
    batch: int, lengths: Tensor | None = None, part_tokens: int = PART_TOKENS
) -> dict[str, Step]:
    """Functions that return loss and gradients of one text tower on `batch` pairs of texts.

    Text lengths are drawn from `lengths`; None: all are equal.
    """
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
        return symmetric_info_nce(left, right, torch.tensor([SCALE]), everything)

    def theirs() -> Tensor:
        return peer([dict(column) for column in columns], None)

    return {"ours": lambda: step(ours), "sentence_transformers": lambda: step(theirs)}


def cached_peer(encoder: ItemEncoder, rows: int) -> nn.Module:
    """sentence-transformers' cached loss, on the same weights as `encoder`."""
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
    transformer.model = tower  # pyright: ignore[reportAttributeAccessIssue]
    dense, norm = Dense(WIDTH, WIDTH, activation_function=None), LayerNorm(WIDTH)
    dense.linear, norm.norm = projection.linear, projection.norm  # pyright: ignore[reportAttributeAccessIssue]
    modules = [transformer, Pooling(WIDTH, "mean"), dense, norm]  # its cosine normalises
    return CachedMultipleNegativesRankingLoss(
        SentenceTransformer(modules=modules, device="cpu").train(),
        scale=SCALE,
        mini_batch_size=rows,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
