"""Reads a history of identifiers and tells the next one, code by code.

An RQ-Transformer (Lee et al., 2022, section 3.2): one transformer reads the history, where an item is
the sum of its codes' vectors, and another, far smaller, tells the codes of the item that follows,
where it is given the first one's state. So a history costs its length in items, not in codes. Codes
that lead to no item have no chance at all: what is told is a distribution over the items.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.recommender import Recommender
from finetune.semantic.trie import Trie
from pretrain.blocks import AttentionBlock, rotary
from pretrain.shards import like_weights


class SemanticRecommender(nn.Module):
    """The reader starts as it was pretrained; codes' vectors should start where `begin` puts them."""

    codes: Tensor
    offsets: Tensor

    def __init__(self, recommender: Recommender, trie: Trie, codes: Tensor, layers: int) -> None:
        """`recommender` gives the reader of histories, and the adaptor and temperature of the dense
        score; it has no towers. `codes` int64 (num_items, length): those that `trie` holds."""
        super().__init__()
        self.recommender = recommender
        self.trie = trie
        shape = recommender.history.config
        self.width = int(shape.width)
        self.register_buffer("codes", codes, persistent=False)
        offsets = torch.tensor([0, *trie.sizes]).cumsum(0)
        self.register_buffer("offsets", offsets[:-1], persistent=False)
        self.vectors = nn.Embedding(int(offsets[-1]), self.width)
        self.places = nn.Embedding(trie.length, self.width)
        self.blocks = nn.ModuleList(
            AttentionBlock(self.width, shape.num_heads, shape.dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(self.width)
        self.correction = nn.Parameter(torch.full((self.width,), 0.1))
        self.log_scales = nn.Parameter(torch.full((trie.length,), math.log(10.0)))
        for table in (self.vectors, self.places):
            nn.init.normal_(table.weight, std=0.02)

    @torch.no_grad()
    def begin(self, vectors: Tensor) -> None:
        """Sets each code's vector to the mean of what the codes before it leave of its items' `vectors`
        (num_items, width): then an item's codes add up to what they tell of it."""
        left = vectors.clone()
        for level, size in enumerate(self.trie.sizes):
            chosen = self.codes[:, level]
            counts = torch.bincount(chosen, minlength=size).clamp(min=1)
            sums = torch.zeros(size, self.width, device=left.device).index_add_(0, chosen, left)
            means = sums / counts.unsqueeze(1)
            self._table(level).copy_(means)
            left -= means[chosen]

    def _table(self, level: int) -> Tensor:
        """Vectors of a level's codes: (sizes[level], width)."""
        start = int(self.offsets[level])
        return self.vectors.weight[start : start + self.trie.sizes[level]]

    def item_vectors(self, items: Tensor) -> Tensor:
        """What the reader reads of items (…): (…, width), unit length."""
        return F.normalize(self.vectors(self.codes[items] + self.offsets).sum(dim=-2), dim=-1)

    def states(self, items: Tensor, segments: Tensor) -> Tensor:
        """After each item of packed rows, (rows, length) both: (rows, length, width), unit length."""
        return self.recommender.history(self.item_vectors(items), segments)

    def queries(self, states: Tensor, begun: Tensor) -> Tensor:
        """What is asked of the code after each beginning of an identifier: (n, t + 1, width).

        `states` (n, width); `begun` int64 (n, t): an identifier's first t codes. As the reader of
        histories does from the mean, each starts from the state itself and learns what it misses.
        """
        states = like_weights(states, self.correction)
        said = self.vectors(begun + self.offsets[: begun.shape[1]]).cumsum(dim=1)
        read = torch.cat([states.unsqueeze(1), said], dim=1)
        length = read.shape[1]
        x = read * self.width**0.5 + self.places.weight[:length]
        head_width = self.width // self.recommender.history.config.num_heads
        cosines, sines = rotary(length, head_width, x.device)
        mask = torch.ones(1, length, length, dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, mask, cosines, sines)
        return states.unsqueeze(1) + self.correction * F.normalize(self.norm(x), dim=-1)

    def log_chances(self, queries: Tensor, level: int, branches: Tensor) -> Tensor:
        """Of each code of a level, -inf where it leads to no item: (n, sizes[level]).

        `queries` (n, width); `branches` (n, sizes[level]): what each code leads to, -1 for nothing.
        """
        logits = self.log_scales[level].exp().clamp(max=100.0) * queries @ self._table(level).T
        dtype = torch.promote_types(logits.dtype, torch.float32)  # sums of bfloat16 tell few apart
        return logits.masked_fill(branches < 0, float("-inf")).log_softmax(dim=-1, dtype=dtype)

    def log_likelihood(self, states: Tensor, items: Tensor, among: Tensor | None = None) -> Tensor:
        """log p(item | state), (n,), of `states` (n, width) and `items` int64 (n,).

        `among`: candidates, of which all `items` are, as `Trie.counted` gives them; None for all.
        """
        codes = self.codes[items]
        queries = self.queries(states, codes[:, :-1])
        total = torch.zeros(len(items), device=states.device)
        for level in range(self.trie.length):
            nodes = self.trie.nodes_of(items, level)
            branches = self.trie.branches(level, nodes, among)
            chances = self.log_chances(queries[:, level], level, branches)
            total = total + chances.gather(1, codes[:, level : level + 1]).squeeze(1)
        return total
