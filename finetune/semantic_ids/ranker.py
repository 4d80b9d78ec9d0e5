"""Top-k lists from semantic ids: by beam search alone, or with cold items, reordered by dense score.

The beam search finds items with training interactions. Cold items have low likelihood, so those nearest
by dense score join the beam's items, and the dense score orders all of them (LIGER, Yang et al., 2024).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import NonFiniteError
from catalog.splits import Targets
from finetune.evaluate import TargetBatch, rank_lists
from finetune.finite import check_finite_scores, nonfinite_cause
from finetune.list_metrics import ListMetrics
from finetune.metrics import Ranking
from finetune.ranker import History
from finetune.semantic_ids.beam_search import beam_search
from finetune.semantic_ids.config import SemanticIdConfig
from finetune.semantic_ids.model import SemanticRecommender
from finetune.tie_break import tie_keys
from pretrain.config import Precision
from pretrain.devices import Compute
from pretrain.inner_products import inner_products

CELLS = 2**21
"""Prefixes × codes scored together; it determines the number of users per batch."""
ITEMS_AT_ONCE = 16_384


class SemanticRanker:
    """The semantic ids and dense item vectors of one domain, and the model that decodes them."""

    def __init__(
        self,
        model: SemanticRecommender,
        item_vectors: NDArray[np.float32],
        warm_items: NDArray[np.bool_],
        config: SemanticIdConfig,
        repeats: bool = False,
        precision: Precision = "32-true",
    ) -> None:
        """`item_vectors` float32 (num_items, width), unit length, of the dense score; may be memory-mapped;
        `warm_items` bool (num_items,): those with training interactions; `repeats` and `precision`: see
        `Ranker`."""
        self.precision: Precision = precision
        self.model = model.eval()
        self.repeats = repeats
        self.warm_items, self.config = warm_items, config
        self.item_vectors = item_vectors
        self.cold = np.flatnonzero(~warm_items)
        self.max_history = int(model.recommender.history.config.max_history)
        self.keys = torch.from_numpy(tie_keys(len(item_vectors)))
        self.user_batch_size = max(1, CELLS // (config.beam_size * max(model.trie.sizes)))

    def without_cold_candidates(self) -> "SemanticRanker":
        """The same ranker without cold items, in the order of the beam search."""
        config = replace(self.config, num_cold_candidates=0)
        return SemanticRanker(
            self.model, self.item_vectors, self.warm_items, config, self.repeats, self.precision
        )

    @property
    def device(self) -> torch.device:
        return self.model.codes.device

    @property
    def compute(self) -> Compute:
        return Compute(self.device, self.precision)

    @torch.no_grad()
    def user_states(self, histories: Sequence[History]) -> Tensor:
        """After histories of item rows, oldest first: float32 (batch, width); zeros for an empty one."""
        recent = [np.asarray(history[-self.max_history :], np.int64) for history in histories]
        lengths = torch.tensor([len(history) for history in recent])
        padded = torch.zeros(len(recent), max(1, int(lengths.max())), dtype=torch.int64)
        for row, history in enumerate(recent):
            padded[row, : len(history)] = torch.from_numpy(history)
        with self.compute.autocast():
            vectors = self.model.item_vectors(padded.to(self.device))
            states = self.model.recommender.last_states(vectors, lengths.to(self.device)).float()
        if not states.isfinite().all():
            raise NonFiniteError(
                f"the state after a history is not finite: {nonfinite_cause(self.model)}"
            )
        return states

    def rank(self, history: History, k: int) -> list[tuple[int, float]]:
        """The k best items, best first, with their cosines; without cold items their log-likelihoods.
        None of them is in the history, unless `repeats`. Fewer than k if the beam finds fewer."""
        owned = history[:0] if self.repeats else history
        items = torch.from_numpy(np.asarray(owned, dtype=np.int64))
        states = self.user_states([history])
        found, scores = self.decode_lists(
            states, (torch.zeros_like(items), items), max(k, self.config.beam_size)
        )
        pairs = zip(found[0].tolist(), scores[0].tolist(), strict=True)
        return [(item, score) for item, score in pairs if item >= 0][:k]

    def rank_targets(
        self,
        catalog: Catalog,
        targets: Targets,
        list_metrics: ListMetrics | None = None,
        progress: bool = False,
    ) -> Ranking:
        """Ranks of split targets in the lists; the last rank of all candidates if a list lacks them."""

        def decode(batch: TargetBatch) -> Tensor:
            return self.decode_lists(
                self.user_states(batch.histories), batch.excluded, self.config.beam_size
            )[0]

        return rank_lists(
            decode,
            catalog,
            targets,
            list_metrics=list_metrics,
            user_batch_size=self.user_batch_size,
            progress=progress,
        )

    def decode_lists(
        self, states: Tensor, excluded: tuple[Tensor, Tensor], beam: int
    ) -> tuple[Tensor, Tensor]:
        """Items, best first, and their scores, (users, n) each; -1 and -inf where there are fewer.

        `states` (users, width); `excluded`: pairs (user, item) that a list must not contain.
        """
        there = excluded[0].to(self.device), excluded[1].to(self.device)
        with self.compute.autocast():
            items, scores = (x.cpu() for x in beam_search(self.model, states, beam, there))
        if not self.config.num_cold_candidates:
            return items, scores
        states = states.cpu()
        cold_items = self._nearest_cold(states, excluded)
        cold_items[(cold_items.unsqueeze(2) == items.unsqueeze(1)).any(dim=2)] = -1
        return self._by_dense_score(states, torch.cat([items, cold_items], dim=1))

    def _by_dense_score(self, states: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        # Sorted by tie-breaking keys first; the stable sort by score keeps that order among ties.
        items = items.gather(1, self.keys[items].argsort(dim=1))
        vectors = torch.from_numpy(np.array(self.item_vectors[items.numpy()]))
        scores = (vectors @ states.unsqueeze(2)).squeeze(2)
        check_finite_scores(scores)
        scores = scores.masked_fill(items < 0, float("-inf"))
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return items.gather(1, order), scores

    def _nearest_cold(self, states: Tensor, excluded: tuple[Tensor, Tensor]) -> Tensor:
        """The cold items nearest to each state: int64 (users, ≤ num_cold_candidates), -1 for none."""
        best_scores = torch.empty(len(states), 0)
        best = torch.empty(len(states), 0, dtype=torch.int64)
        rows, items = excluded
        for first in range(0, len(self.cold), ITEMS_AT_ONCE):
            part = self.cold[first : first + ITEMS_AT_ONCE]
            scores = inner_products(states, torch.from_numpy(np.array(self.item_vectors[part])))
            check_finite_scores(scores)
            cold = torch.from_numpy(part)
            columns = torch.searchsorted(cold, items).clamp(max=len(cold) - 1)
            inside = cold[columns] == items
            scores[rows[inside], columns[inside]] = float("-inf")
            best_scores = torch.cat([best_scores, scores], dim=1)
            best = torch.cat([best, cold.expand(len(states), -1)], dim=1)
            best_scores, order = best_scores.topk(
                min(self.config.num_cold_candidates, best.shape[1]), dim=1
            )
            best = best.gather(1, order)
        return torch.where(best_scores.isfinite(), best, -1)
