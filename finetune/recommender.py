"""The recommender model: item encoder, sequence encoder and scoring; knows nothing about data."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.errors import NonFiniteError
from finetune.bag_of_words import BagOfWordsEmbedding
from pretrain.encoder import ItemEncoder
from pretrain.sequence_encoder import SequenceEncoder
from pretrain.shards import cast_like

MIN_RELATIVE_VARIANCE = 1e-10
"""Share of the mean squared norm below which the largest variance is rounding error."""


class Temperature(nn.Module):
    """A learned temperature of the cosine scores; a module, so that a LoRA adapter can store it whole."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / temperature)]))

    def forward(self) -> Tensor:
        return self.logit_scale.exp().clamp(max=100.0)


class Adaptor(nn.Module):
    """Domain adaptation of pretrained item embeddings: whitening, then a learned linear map.

    Contrastive embeddings lie in a narrow cone, where a property of large variance (a palette) dominates
    the others; whitening gives all directions equal variance (Su et al., 2021; UniSRec learns it, Hou et
    al., 2022). It is computed from the catalog, not learned; the linear map starts as the identity.
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
        """Fits the whitening to `vectors` (num_items, width): mean 0, equal variance in all directions.

        Directions with less than `floor` of the largest variance stay small: they are noise. Raises
        NonFiniteError if no direction has variance beyond rounding error.
        """
        if len(vectors) < 2 or not vectors.isfinite().all():
            raise NonFiniteError(
                f"whitening needs two or more finite content vectors; there are "
                f"{int(vectors.isfinite().all(dim=1).sum())} among {len(vectors)} items"
            )
        variances, directions = torch.linalg.eigh(torch.cov(vectors.T.double()))
        largest, squares = variances[-1], vectors.double().square().sum(dim=1).mean()
        if not largest > MIN_RELATIVE_VARIANCE * squares:
            raise NonFiniteError(
                f"the content vectors of all {len(vectors):,} items are the same, so whitening has no "
                "direction to scale; use --features id --transfer scratch"
            )
        # An eigenvalue of 0 may round below it.
        scales = (variances.clamp(min=0) + floor * largest).rsqrt()
        self.center.copy_(vectors.mean(dim=0))
        self.whitener.copy_((directions * scales) @ directions.T)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear((cast_like(vectors, self.center) - self.center) @ self.whitener)


class IdEmbedding(nn.Embedding):
    """A learned embedding for each item id."""

    def forward(self, input: Tensor | None = None) -> Tensor:
        """Embeddings of the items in rows `input` int (n,), or of all."""
        # A clone, because ZeRO-3 frees the gathered weight after this module's forward pass.
        return self.weight.clone() if input is None else super().forward(input)


class Recommender(nn.Module):
    """Sequential recommender: a score is scale · cos(user state after a history, item vector).

    `encoder` None: items are represented by id embeddings alone, or by fixed vectors from outside.
    """

    def __init__(
        self,
        encoder: ItemEncoder | None,
        history: SequenceEncoder,
        num_id_embeddings: int = 0,
        id_width: int = 0,
        num_words: int = 0,
    ) -> None:
        """`id_width`: dimensions of the history's width that id and word embeddings have of their own; 0:
        they are added to the content, or there is none. `bag_of_words.set_items` sets the items' words."""
        super().__init__()
        width = history.config.width
        self.content_width = width - id_width
        self.has_separate_ids = id_width > 0
        self.encoder = encoder
        self.history = history
        self.adaptor = Adaptor(self.content_width)
        self.temperature = Temperature()
        self.id_embeddings: IdEmbedding | None = None
        if num_id_embeddings:
            # Small: added to content, an id embedding starts with little influence.
            self.id_embeddings = IdEmbedding(num_id_embeddings, id_width or width)
            nn.init.normal_(self.id_embeddings.weight, std=0.02)
        self.bag_of_words = BagOfWordsEmbedding(num_words, id_width or width) if num_words else None

    def adapt(
        self, content: Tensor | None, rows: Tensor | None = None, ids: Tensor | None = None
    ) -> Tensor:
        """Item vectors (n, width), unit length, from content embeddings (n, width), or None for ids alone.

        `rows` int (n,): the items; None: the whole catalog. `ids` (n, id width) replaces their id
        embeddings, for items without.
        """
        adapted = None if content is None else self.adaptor(content)
        learned = self._id_and_word_embeddings(rows, ids)
        if learned is not None:
            if (
                adapted is not None and self.has_separate_ids
            ):  # the cosine is the mean of both parts' cosines
                both = [F.normalize(adapted, dim=-1), F.normalize(learned, dim=-1)]
                adapted = torch.cat(both, dim=-1)
            else:
                adapted = learned if adapted is None else adapted + learned
        assert adapted is not None
        return F.normalize(adapted, dim=-1)

    def adapt_content(self, content: Tensor) -> Tensor:
        """As `adapt`, for content without id or words: (n, width), unit length."""
        adapted = F.normalize(self.adaptor(content), dim=-1)
        return F.pad(adapted, (0, self.history.config.width - self.content_width))

    def _id_and_word_embeddings(self, rows: Tensor | None, ids: Tensor | None) -> Tensor | None:
        """The sum of id and word embeddings: (n, id_width or width); None without either."""
        parts = []
        if ids is not None:
            parts.append(ids)
        elif self.id_embeddings is not None:
            parts.append(self.id_embeddings(rows))
        if self.bag_of_words is not None:
            parts.append(self.bag_of_words(rows))
        return torch.stack(parts).sum(dim=0) if parts else None

    def last_states(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """The user state after each whole history.

        `vectors` (batch, length, width), padded at the end; `lengths` int (batch,). Returns
        (batch, width), unit length; zero for an empty history.
        """
        steps = torch.arange(vectors.shape[1], device=vectors.device)
        segments = torch.where(steps < lengths.unsqueeze(1), 0, -1)
        states = self.history(vectors, segments)
        last = (lengths - 1).clamp(min=0)
        chosen = states[torch.arange(len(lengths), device=states.device), last]
        return chosen * (lengths > 0).unsqueeze(1)
