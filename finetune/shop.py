"""A trained recommender at work: user states, ranked lists. What `generate` and the command see."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Targets
from finetune.evaluate import ScoreChunk, rank_targets
from finetune.metrics import ListMeasures, Ranking
from finetune.recommender import Recommender
from pretrain.modalities.image import Picture

History = NDArray[np.integer]


class Shop:
    """One domain's item vectors, and the reader that turns a history of them into a state."""

    def __init__(self, recommender: Recommender, item_vectors: NDArray[np.float32]) -> None:
        """`item_vectors` float32 (num_items, width), unit length; may be memory-mapped."""
        self.recommender = recommender.eval()
        self.item_vectors = item_vectors
        self.width = int(item_vectors.shape[1])
        self.max_history = int(recommender.history.config.max_history)

    @property
    def device(self) -> torch.device:
        return next(self.recommender.history.parameters()).device

    @torch.no_grad()
    def user_states(self, histories: Sequence[History]) -> Tensor:
        """States after histories of item rows, oldest first: float32 (batch, width), unit length.

        The latest `max_history` items are read; an empty history gives zeros.
        """
        recent = [history[-self.max_history :] for history in histories]
        lengths = torch.tensor([len(history) for history in recent])
        longest = max(1, int(lengths.max()) if len(recent) else 1)
        padded = np.zeros((len(recent), longest, self.width), dtype=np.float32)
        for row, history in enumerate(recent):
            padded[row, : len(history)] = self.item_vectors[history]
        vectors = torch.from_numpy(padded).to(self.device)
        return self.recommender.last_states(vectors, lengths.to(self.device)).float().cpu()

    @torch.no_grad()
    def picture_vectors(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """What an item would be of which these pictures (height, width, 3) are all there is: float32
        (pictures, width), unit length. VitrineError where the recommender looks at no pictures."""
        encoder = self.recommender.encoder
        kinds = {} if encoder is None else encoder.kinds
        looks = [(name, kind) for name, kind in kinds.items() if isinstance(kind, Picture)]
        if encoder is None or not looks:
            raise VitrineError(
                "this recommender looks at no pictures, so it cannot say which candidate is liked best; "
                "draw with candidates 1."
            )
        name, kind = looks[0]
        pixels = kind.pixels(pictures).to(self.device, encoder.dtype)
        content = {name: {"present": torch.ones(len(pixels)).bool(), "pixel_values": pixels}}
        part = encoder.projections[name](encoder.read(name, content))
        stacked = torch.zeros(len(part), len(encoder.kinds), part.shape[1], device=part.device)
        present = torch.zeros(stacked.shape[:2], dtype=torch.bool, device=part.device)
        place = encoder.modalities.index(name)
        stacked[:, place], present[:, place] = part, True
        fused = F.normalize(encoder.gate(stacked, present), dim=-1)
        return self.recommender.adapt_content(fused).float().cpu()

    def rank(self, history: History, k: int, chunk: int = 65_536) -> list[tuple[int, float]]:
        """The k best items not in the history, with their cosines, best first."""
        state = self.user_states([history])[0].numpy()
        num_items = len(self.item_vectors)
        best: list[tuple[float, int]] = []
        for start in range(0, num_items, chunk):
            scores = self.item_vectors[start : start + chunk] @ state
            inside = history[(history >= start) & (history < start + chunk)] - start
            scores[inside] = -np.inf
            top = np.argpartition(-scores, min(k, len(scores) - 1))[: k + 1]
            best += [(float(scores[i]), int(i) + start) for i in top if np.isfinite(scores[i])]
        best.sort(key=lambda pair: (-pair[0], pair[1]))
        return [(item, score) for score, item in best[:k]]

    def rank_targets(
        self,
        catalog: Catalog,
        targets: Targets,
        measures: ListMeasures | None = None,
        people_chunk: int = 256,
    ) -> Ranking:
        """Full ranking of split targets (see `finetune.evaluate`)."""
        return rank_targets(
            self._scorer(catalog, targets, people_chunk),
            catalog,
            targets,
            measures=measures,
            people_chunk=people_chunk,
        )

    def _scorer(self, catalog: Catalog, targets: Targets, people_chunk: int) -> ScoreChunk:
        """Scores a chunk of people, whose states are kept until the next chunk is asked for."""
        interactions = catalog.interactions
        kept: tuple[int, Tensor] = (-1, torch.empty(0))

        def score(people: Tensor, part: slice) -> Tensor:
            nonlocal kept
            first = int(people[0])
            if kept[0] != first:
                histories = [targets.history(interactions, row) for row in people.tolist()]
                kept = (first, self.user_states(histories))
            return kept[1] @ torch.from_numpy(np.array(self.item_vectors[part])).T

        return score


def load_shop(folder: str | Path, catalog: Catalog, encoder: str | Path | None = None) -> Shop:
    """The shop of a recommender artifact; `encoder` overrules where its base is looked for."""
    from finetune.artifact import open_recommender

    return open_recommender(folder, catalog, encoder)
