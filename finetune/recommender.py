"""The recommender: item vectors and a reader of histories, scored against each other.

Knows how parts fit together and which of them a transfer mode trains; knows nothing about data.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.errors import NonFiniteError
from finetune.bag_of_words import BagOfWordsEmbedding
from pretrain.encoder import ItemEncoder
from pretrain.sequence_encoder import SequenceEncoder
from pretrain.shards import like_weights

SAME = 1e-10
"""Share of the mean squared length below which the largest variance is what rounding leaves."""


class Temperature(nn.Module):
    """A learned scale on cosines; a module of its own so that an adapter can carry it whole."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / temperature)]))

    def forward(self) -> Tensor:
        return self.logit_scale.exp().clamp(max=100.0)


class Adaptor(nn.Module):
    """Moves pretrained item vectors to the new domain: whitening, then a learned linear map.

    Contrastive vectors lie in a narrow cone, where one loud property (a palette) drowns the others;
    whitening makes all of them equally loud (Su et al., 2021; UniSRec learns it, Hou et al., 2022).
    It is computed from the catalog, not learned; the linear map starts as the identity.
    """

    center: Tensor
    whitener: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("whitener", torch.eye(width))
        self.linear = nn.Linear(width, width)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def whiten(self, vectors: Tensor, floor: float = 0.001) -> None:
        """Fits the whitening to `vectors` (num_items, width): mean 0, directions of equal spread.

        Directions with less than `floor` of the largest variance are left quiet: they are noise.
        Raises NonFiniteError where no direction has any variance beyond rounding.
        """
        if len(vectors) < 2 or not vectors.isfinite().all():
            raise NonFiniteError(
                f"whitening needs two or more finite content vectors; there are "
                f"{int(vectors.isfinite().all(dim=1).sum())} among {len(vectors)} items"
            )
        variances, directions = torch.linalg.eigh(torch.cov(vectors.T.double()))
        largest, squares = variances[-1], vectors.double().square().sum(dim=1).mean()
        if not largest > SAME * squares:
            raise NonFiniteError(
                f"the content vectors of all {len(vectors):,} items are the same, so whitening has no "
                "direction to scale; use --features id --transfer scratch"
            )
        # An eigenvalue of 0 may round below it.
        scales = (variances.clamp(min=0) + floor * largest).rsqrt()
        self.center.copy_(vectors.mean(dim=0))
        self.whitener.copy_((directions * scales) @ directions.T)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear((like_weights(vectors, self.center) - self.center) @ self.whitener)


class IdVectors(nn.Embedding):
    """A learned vector for each item."""

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Of items `rows` int (n,), or of all."""
        # Its weight itself must not leave: under ZeRO-3 it is let go of when this is done.
        return self.weight.clone() if rows is None else super().forward(rows)


class Recommender(nn.Module):
    """Scores are scale · cos(state after a history, item vector).

    `encoder` None: items are known by id vectors alone, or by fixed vectors given from outside.
    """

    def __init__(
        self,
        encoder: ItemEncoder | None,
        history: SequenceEncoder,
        num_id_vectors: int = 0,
        id_width: int = 0,
        num_words: int = 0,
    ) -> None:
        """`id_width`: of the history's width, what ids and words have to themselves beside the content;
        0: they are added to it, or there is none. Words are told what items say by `words.read`."""
        super().__init__()
        width = history.config.width
        self.content_width = width - id_width
        self.beside = id_width > 0
        self.encoder = encoder
        self.history = history
        self.adaptor = Adaptor(self.content_width)
        self.temperature = Temperature()
        self.id_vectors: IdVectors | None = None
        if num_id_vectors:
            # Added to content, an id starts at nothing and earns its place; else it must start apart.
            self.id_vectors = IdVectors(num_id_vectors, id_width or width)
            nn.init.normal_(self.id_vectors.weight, std=0.02)
        self.bag_of_words = BagOfWordsEmbedding(num_words, id_width or width) if num_words else None

    def adapt(
        self, content: Tensor | None, rows: Tensor | None = None, ids: Tensor | None = None
    ) -> Tensor:
        """Content vectors (n, width), or None for id alone, to item vectors.

        `rows` int (n,) says whose they are; None: the whole catalog's. `ids` (n, id width) stands in
        where they have no id vector of their own. Returns (n, width), unit length.
        """
        adapted = None if content is None else self.adaptor(content)
        learned = self._learned(rows, ids)
        if learned is not None:
            if adapted is not None and self.beside:  # cosines are the mean of both cosines
                both = [F.normalize(adapted, dim=-1), F.normalize(learned, dim=-1)]
                adapted = torch.cat(both, dim=-1)
            else:
                adapted = learned if adapted is None else adapted + learned
        assert adapted is not None
        return F.normalize(adapted, dim=-1)

    def adapt_content(self, content: Tensor) -> Tensor:
        """As `adapt`, of what has neither id nor words: (n, width), unit length."""
        adapted = F.normalize(self.adaptor(content), dim=-1)
        return F.pad(adapted, (0, self.history.config.width - self.content_width))

    def _learned(self, rows: Tensor | None, ids: Tensor | None) -> Tensor | None:
        """What ids and words say, without content: (n, id_width or width)."""
        parts = []
        if ids is not None:
            parts.append(ids)
        elif self.id_vectors is not None:
            parts.append(self.id_vectors(rows))
        if self.bag_of_words is not None:
            parts.append(self.bag_of_words(rows))
        return torch.stack(parts).sum(dim=0) if parts else None

    def last_states(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """The state after each whole history.

        `vectors` (batch, length, width), padded at the end; `lengths` int (batch,). Returns
        (batch, width), unit length; zero for an empty history.
        """
        steps = torch.arange(vectors.shape[1], device=vectors.device)
        segments = torch.where(steps < lengths.unsqueeze(1), 0, -1)
        states = self.history(vectors, segments)
        last = (lengths - 1).clamp(min=0)
        chosen = states[torch.arange(len(lengths), device=states.device), last]
        return chosen * (lengths > 0).unsqueeze(1)
