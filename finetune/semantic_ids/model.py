"""Generative recommender: encodes a history of semantic ids and predicts the next one, code by code.

An RQ-Transformer (Lee et al., 2022, section 3.2): the sequence encoder reads the history, where an item
is the sum of its code embeddings, and a far smaller transformer decodes the codes of the next item from
the encoder's state. So a history costs its length in items, not in codes. Decoding is constrained: a
code that leads to no item has probability 0, so the likelihoods of all items sum to 1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.recommender import Recommender
from finetune.semantic_ids.trie import Trie
from pretrain.blocks import AttentionBlock, rotary
from pretrain.shards import cast_like


class SemanticRecommender(nn.Module):
    """A pretrained sequence encoder and a new decoder; `initialize_codes` sets the code embeddings."""

    codes: Tensor
    offsets: Tensor

    def __init__(self, recommender: Recommender, trie: Trie, codes: Tensor, layers: int) -> None:
        """`recommender`: the sequence encoder, and the adaptor and temperature of the dense score; it has
        no towers. `codes` int64 (num_items, length): the semantic ids of `trie`."""
        super().__init__()
        self.recommender = recommender
        self.trie = trie
        shape = recommender.history.config
        self.width = int(shape.width)
        self.register_buffer("codes", codes, persistent=False)
        offsets = torch.tensor([0, *trie.sizes]).cumsum(0)
        self.register_buffer("offsets", offsets[:-1], persistent=False)
        self.code_embeddings = nn.Embedding(int(offsets[-1]), self.width)
        self.level_embeddings = nn.Embedding(trie.length, self.width)
        self.blocks = nn.ModuleList(
            AttentionBlock(self.width, shape.num_heads, shape.dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(self.width)
        self.correction = nn.Parameter(torch.full((self.width,), 0.1))
        self.log_scales = nn.Parameter(torch.full((trie.length,), math.log(10.0)))
        for table in (self.code_embeddings, self.level_embeddings):
            nn.init.normal_(table.weight, std=0.02)

    @torch.no_grad()
    def initialize_codes(self, vectors: Tensor) -> None:
        """Sets each code embedding to the mean residual of its items' `vectors` (num_items, width) after
        the levels before it: the code embeddings of an item then sum to its quantised embedding."""
        residuals = vectors.clone()
        for level, size in enumerate(self.trie.sizes):
            chosen = self.codes[:, level]
            counts = torch.bincount(chosen, minlength=size).clamp(min=1)
            sums = torch.zeros(size, self.width, device=residuals.device).index_add_(
                0, chosen, residuals
            )
            means = sums / counts.unsqueeze(1)
            self._codebook_embeddings(level).copy_(means)
            residuals -= means[chosen]

    def _codebook_embeddings(self, level: int) -> Tensor:
        """Embeddings of the codes of one level: (sizes[level], width)."""
        start = int(self.offsets[level])
        return self.code_embeddings.weight[start : start + self.trie.sizes[level]]

    def item_vectors(self, items: Tensor) -> Tensor:
        """The sequence encoder's input for items (…), sums of code embeddings: (…, width), unit length."""
        return F.normalize(
            self.code_embeddings(self.codes[items] + self.offsets).sum(dim=-2), dim=-1
        )

    def states(self, items: Tensor, segments: Tensor) -> Tensor:
        """User states after each item of packed rows (rows, length): (rows, length, width), unit length."""
        return self.recommender.history(self.item_vectors(items), segments)

    def queries(self, states: Tensor, prefixes: Tensor) -> Tensor:
        """The decoder's output after each prefix of a semantic id, scored against codes: (n, t + 1, width).

        `states` (n, width); `prefixes` int64 (n, t): the first t codes. The output is the state plus a
        learned correction that starts small, as the sequence encoder's is the mean of its inputs plus one.
        """
        states = cast_like(states, self.correction)
        embedded = self.code_embeddings(prefixes + self.offsets[: prefixes.shape[1]]).cumsum(dim=1)
        inputs = torch.cat([states.unsqueeze(1), embedded], dim=1)
        length = inputs.shape[1]
        x = inputs * self.width**0.5 + self.level_embeddings.weight[:length]
        head_width = self.width // self.recommender.history.config.num_heads
        cosines, sines = rotary(length, head_width, x.device)
        mask = torch.ones(1, length, length, dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, mask, cosines, sines)
        return states.unsqueeze(1) + self.correction * F.normalize(self.norm(x), dim=-1)

    def log_probs(self, queries: Tensor, level: int, children: Tensor) -> Tensor:
        """Log-probabilities of the codes of a level, -inf for a code without child: (n, sizes[level]).

        `queries` (n, width); `children` (n, sizes[level]): the child node of each code, -1 for none.
        """
        logits = (
            self.log_scales[level].exp().clamp(max=100.0)
            * queries
            @ self._codebook_embeddings(level).T
        )
        dtype = torch.promote_types(
            logits.dtype, torch.float32
        )  # bfloat16 has too few bits for the sum
        return logits.masked_fill(children < 0, float("-inf")).log_softmax(dim=-1, dtype=dtype)

    def log_likelihood(
        self, states: Tensor, items: Tensor, candidate_counts: Tensor | None = None
    ) -> Tensor:
        """log p(item | state), (n,), of `states` (n, width) and `items` int64 (n,).

        `candidate_counts`: `Trie.prefix_counts` of the candidates, which include `items`; None for all.
        """
        codes = self.codes[items]
        queries = self.queries(states, codes[:, :-1])
        total = torch.zeros(len(items), device=states.device)
        for level in range(self.trie.length):
            nodes = self.trie.nodes_of(items, level)
            children = self.trie.child_nodes(level, nodes, candidate_counts)
            log_probs = self.log_probs(queries[:, level], level, children)
            total = total + log_probs.gather(1, codes[:, level : level + 1]).squeeze(1)
        return total
