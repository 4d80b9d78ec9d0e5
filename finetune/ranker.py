"""Loads a trained recommender as a `Ranker`: user states, ranked item lists, full ranking of targets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog
from catalog.errors import NonFiniteError, VitrineError
from catalog.splits import Targets
from finetune.artifact import load_recommender
from finetune.evaluate import ScoreFunction, rank_targets
from finetune.finite import check_finite_scores, nonfinite_cause
from finetune.list_metrics import ListMetrics
from finetune.manifest import check_ids, serves_repeats
from finetune.metrics import Ranking
from finetune.recommender import Recommender
from finetune.tie_break import tie_keys, topk_with_tie_break
from pretrain.config import Precision
from pretrain.devices import Compute, on_cpu
from pretrain.inner_products import inner_products
from pretrain.modalities.image import ImageModality
from pretrain.vector_file import open_vectors
from pretrain.vectors_artifact import VECTORS_FILE

History = NDArray[np.integer]


class Ranker:
    """The item vectors of one domain, and the encoder that turns a history of them into a user state."""

    def __init__(
        self,
        recommender: Recommender,
        item_vectors: NDArray[np.float32],
        repeats: bool = False,
        precision: Precision = "32-true",
    ) -> None:
        """`item_vectors` float32 (num_items, width), unit length; may be memory-mapped. `repeats`: lists
        may contain items of the history, as for groceries (`repeats: rank` of the split). `precision` of
        the encoders; scores are float32 in any case."""
        self.precision: Precision = precision
        self.recommender = recommender.eval()
        self.item_vectors = item_vectors
        self.repeats = repeats
        self.width = int(item_vectors.shape[1])
        self.max_history = int(recommender.history.config.max_history)

    @property
    def device(self) -> torch.device:
        return next(self.recommender.history.parameters()).device

    @property
    def compute(self) -> Compute:
        return Compute(self.device, self.precision)

    @torch.no_grad()
    def user_states(self, histories: Sequence[History]) -> Tensor:
        """User states after histories of item rows, oldest first: float32 (batch, width), unit length.

        The latest `max_history` items are read; an empty history gives zeros. Raises NonFiniteError for a
        state that is not finite, with its cause.
        """
        recent = [history[-self.max_history :] for history in histories]
        lengths = torch.tensor([len(history) for history in recent])
        longest = max(1, int(lengths.max()) if len(recent) else 1)
        padded = np.zeros((len(recent), longest, self.width), dtype=np.float32)
        for row, history in enumerate(recent):
            padded[row, : len(history)] = self.item_vectors[history]
        vectors = torch.from_numpy(padded).to(self.device)
        with self.compute.autocast():
            states = self.recommender.last_states(vectors, lengths.to(self.device)).float().cpu()
        if not states.isfinite().all():
            raise NonFiniteError(
                f"the state after a history of item rows is not finite: {self._first_cause(recent)}"
            )
        return states

    def _first_cause(self, histories: Sequence[History]) -> str:
        """The item vector or weight that is not finite, as the end of an error message."""
        for row in np.unique(np.concatenate(list(histories))).astype(np.int64).tolist():
            if not np.isfinite(self.item_vectors[row]).all():
                return f"the vector of item row {row} holds nan or infinity; make the vectors again"
        return nonfinite_cause(self.recommender)

    @torch.no_grad()
    def image_vectors(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Item vectors of images (height, width, 3) without any other content: float32 (images, width), unit
        length. VitrineError if the recommender's encoder has no image modality."""
        encoder = self.recommender.encoder
        kinds = {} if encoder is None else encoder.kinds
        image_modalities = [
            (name, kind) for name, kind in kinds.items() if isinstance(kind, ImageModality)
        ]
        if encoder is None or not image_modalities:
            raise VitrineError(
                "this recommender's encoder reads no images, so candidates cannot be compared by it; "
                "sample with num_candidates 1."
            )
        name, kind = image_modalities[0]
        pixels = kind.pixels(images).to(self.device, encoder.dtype)
        content = {name: {"pixel_values": pixels}}
        with self.compute.autocast():
            part = encoder.projections[name](encoder.read(name, content))
            stacked = part.new_zeros(len(part), len(encoder.kinds), part.shape[1])
            present = torch.zeros(stacked.shape[:2], dtype=torch.bool, device=part.device)
            place = encoder.modalities.index(name)
            stacked[:, place], present[:, place] = part, True
            fused = F.normalize(encoder.gate(stacked, present), dim=-1)
            return self.recommender.adapt_content(fused).float().cpu()

    def excluded(self, history: History) -> NDArray[np.int64]:
        """The items of a history that a list must not contain: all of them, or none if it `repeats`."""
        return np.asarray(history[:0] if self.repeats else history, dtype=np.int64)

    def rank(self, history: History, k: int, chunk: int = 65_536) -> list[tuple[int, float]]:
        """The top-k items with their cosines, best first, ties broken as in evaluation; without items of the
        history, unless `repeats`."""
        state = self.user_states([history])
        num_items = len(self.item_vectors)
        keys, excluded = torch.from_numpy(tie_keys(num_items)), self.excluded(history)
        best, items = torch.empty(1, 0), torch.empty(1, 0, dtype=torch.int64)
        for start in range(0, num_items, chunk):
            part = torch.from_numpy(np.array(self.item_vectors[start : start + chunk]))
            scores = inner_products(state, part)
            check_finite_scores(scores[0], start)
            inside = excluded[(excluded >= start) & (excluded < start + chunk)] - start
            scores[0, torch.from_numpy(inside)] = -torch.inf
            values, columns = topk_with_tie_break(scores, keys[start : start + chunk], k)
            best, items = torch.cat([best, values], 1), torch.cat([items, columns + start], 1)
            best, columns = topk_with_tie_break(best, keys[items], k)
            items = items.gather(1, columns)
        pairs = zip(items[0].tolist(), best[0].tolist(), strict=True)
        return [(item, score) for item, score in pairs if np.isfinite(score)]

    def rank_targets(
        self,
        catalog: Catalog,
        targets: Targets,
        list_metrics: ListMetrics | None = None,
        user_batch_size: int = 256,
    ) -> Ranking:
        """Full ranking of split targets (see `finetune.evaluate`)."""
        return rank_targets(
            self._scorer(catalog, targets, user_batch_size),
            catalog,
            targets,
            list_metrics=list_metrics,
            user_batch_size=user_batch_size,
        )

    def _scorer(self, catalog: Catalog, targets: Targets, user_batch_size: int) -> ScoreFunction:
        """A score function that caches the user states of the current batch of targets."""
        interactions = catalog.interactions
        cached: tuple[int, Tensor] = (-1, torch.empty(0))

        def score(indices: Tensor, part: slice) -> Tensor:
            nonlocal cached
            first = int(indices[0])
            if cached[0] != first:
                histories = [targets.history(interactions, row) for row in indices.tolist()]
                cached = (first, self.user_states(histories))
            return inner_products(cached[1], torch.from_numpy(np.array(self.item_vectors[part])))

        return score


def load_ranker(
    recommender: str | Path | Artifact,
    catalog: Catalog,
    encoder: str | Path | None = None,
    compute: Compute | None = None,
) -> Ranker:
    """The ranker of a verified recommender artifact, whose item ids must be those of `catalog`.

    `encoder` overrides the path of the encoder that the recommender was trained on. `compute`: device and
    precision; None: float32 on the CPU.
    """
    artifact, compute = open_artifact(recommender, kind="recommender"), compute or on_cpu()
    check_ids(artifact, catalog)
    vectors = open_vectors(artifact.path / VECTORS_FILE)
    repeats = serves_repeats(artifact.manifest["config"])
    model = compute.place(load_recommender(artifact, encoder))
    return Ranker(model, vectors, repeats, compute.precision)
