"""Bag-of-words features: learned word embeddings of items' texts, beside or instead of an id embedding.

A pretrained tower encodes what a text is about, not that users of one shop return for one brand. Word
embeddings learned from histories do, and items that share a brand, a series or a scent share them
(LightFM: Kula, 2015). A cold item has the trained embeddings of its words.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import normalizers, pre_tokenizers
from torch import Tensor, nn

from catalog.catalog import Catalog
from catalog.errors import VitrineError

VOCABULARY_FILE = "vocabulary.parquet"
MAX_VOCABULARY = 50_000
"""Vocabulary size at most: the most frequent words of a catalog."""
MIN_ITEMS = 2
"""Items that a word must occur in; a word of a single item is no more than its id."""

_NORMAL = normalizers.BertNormalizer(lowercase=True)
_SPLIT = pre_tokenizers.BertPreTokenizer()


@dataclass(frozen=True)
class WordBags:
    """The tf-idf weights of each item's words, as a sparse matrix in CSR format."""

    offsets: Tensor
    """int64 (num_items + 1,): item i has the entries offsets[i]:offsets[i + 1]."""
    words: Tensor
    """int64 (entries,)."""
    weights: Tensor
    """float32 (entries,); the squares of an item's sum to 1, or it has no word."""


@dataclass(frozen=True)
class Vocabulary:
    words: list[str]
    rarity: NDArray[np.float32]
    """log(items / items that have the word), as in tf-idf (Spärck Jones, 1972)."""

    @classmethod
    def learn(cls, catalog: Catalog, items: NDArray[np.bool_] | None = None) -> "Vocabulary":
        """The vocabulary of the texts of `items`, bool (num_items,), by default all; reads no interactions.
        VitrineError if there is no word."""
        texts, counts = catalog.texts(), Counter[str]()
        read = np.arange(catalog.num_items) if items is None else np.flatnonzero(items)
        for item in read.tolist():
            counts.update(words_of(texts(item)))
        frequent = [(word, n) for word, n in counts.most_common(MAX_VOCABULARY) if n >= MIN_ITEMS]
        frequent.sort()
        if not frequent:
            raise VitrineError(
                f"bag_of_words is set, but no word is in {MIN_ITEMS} items of "
                f"{catalog.name}; leave out --bag_of_words, or map the column that holds texts (roles.text)"
            )
        numbers = np.array([n for _, n in frequent])
        rarity = np.log(len(read) / numbers).astype(np.float32)
        return cls([word for word, _ in frequent], np.maximum(rarity, 1e-3))

    def read(self, catalog: Catalog, order: NDArray[np.int64] | None = None) -> WordBags:
        """The word bag of each item; with `order`, that of item `order[i]` for item i."""
        texts = catalog.texts()
        index = {word: row for row, word in enumerate(self.words)}
        offsets = np.zeros(catalog.num_items + 1, dtype=np.int64)
        rows: list[NDArray[np.int64]] = []
        for item in range(catalog.num_items):
            words_of_item = words_of(texts(item if order is None else int(order[item])))
            rows.append(
                np.array(sorted(index[w] for w in words_of_item if w in index), dtype=np.int64)
            )
            offsets[item + 1] = offsets[item] + len(rows[-1])
        words = np.concatenate(rows)
        weights = self.rarity[words]
        item_of = np.repeat(np.arange(catalog.num_items), np.diff(offsets))
        lengths = np.sqrt(np.bincount(item_of, weights**2, minlength=catalog.num_items))
        return WordBags(
            torch.from_numpy(offsets),
            torch.from_numpy(words),
            torch.from_numpy((weights / lengths[item_of]).astype(np.float32)),
        )

    def save(self, folder: Path) -> None:
        pq.write_table(
            pa.table({"word": self.words, "rarity": self.rarity}), folder / VOCABULARY_FILE
        )

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        table = pq.read_table(folder / VOCABULARY_FILE)
        return cls(table["word"].to_pylist(), table["rarity"].to_numpy())


def words_of(text: str | None) -> set[str]:
    """Lower-case words without accents; a Chinese or Japanese character is a word."""
    if not text:
        return set()
    pieces = _SPLIT.pre_tokenize_str(_NORMAL.normalize_str(text))
    return {piece for piece, _ in pieces if any(map(str.isalnum, piece))}


class BagOfWordsEmbedding(nn.Module):
    """Word embeddings; an item's vector is the weighted sum of the embeddings of its words."""

    offsets: Tensor
    words: Tensor
    shares: Tensor

    def __init__(self, num_words: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_words, width))
        nn.init.normal_(self.weight, std=0.02)
        # Word bags come from the catalog, and are not stored with the weights.
        self.register_buffer("offsets", torch.zeros(1, dtype=torch.int64), persistent=False)
        self.register_buffer("words", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("shares", torch.empty(0), persistent=False)

    def set_items(self, bags: WordBags) -> None:
        """Sets the word bags of the catalog's items."""
        device = self.weight.device
        self.offsets = bags.offsets.to(device)
        self.words = bags.words.to(device)
        self.shares = bags.weights.to(device)

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Vectors of items `rows` int (n,), or of all: (n, width), zero for an item without words."""
        if rows is None:
            return self._sums(self.words, self.offsets[:-1], self.shares)
        begins, ends = self.offsets[rows], self.offsets[rows + 1]
        lengths = ends - begins
        starts = lengths.cumsum(0) - lengths  # start of each item's entries in the selection
        entries = torch.arange(int(lengths.sum()), device=rows.device)
        entries = entries + (begins - starts).repeat_interleave(lengths)
        return self._sums(self.words[entries], starts, self.shares[entries])

    def _sums(self, words: Tensor, starts: Tensor, shares: Tensor) -> Tensor:
        shares = shares.to(self.weight.dtype)
        return F.embedding_bag(words, self.weight, starts, mode="sum", per_sample_weights=shares)
