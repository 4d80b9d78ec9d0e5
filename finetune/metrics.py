"""Ranking metrics, one value per user: Recall, NDCG, MAP, MRR, AUC; and their means over user groups.

With one target per user, Recall@k equals the hit rate, and the average precision at k equals the
reciprocal rank within k.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.splits import Split, Targets, repeated_target_mask, target_rows

CUTOFFS = (5, 10, 20)
MISSED = np.iinfo(np.int32).max
"""The rank of a target that is not a candidate (`repeats: mask`): beyond every cutoff and catalog."""


@dataclass
class Ranking:
    """The result of ranking all targets with one model; its size does not grow with users × items."""

    users: NDArray[np.int32]
    """(targets,): the user of each target, ascending."""
    ranks: NDArray[np.int64]
    """(targets,): the rank of each target; 1 is the best, MISSED if it is not a candidate."""
    exposure: NDArray[np.int64]
    """(num_items,): the number of top-ten lists that contain each item."""
    num_candidates: NDArray[np.int64]
    """(targets,): the number of ranked items."""
    list_metrics: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Metrics of the top-ten list of each target (`finetune.list_metrics`): name → (targets,)."""


def metric_values(
    ranks: NDArray[np.int64],
    num_candidates: NDArray[np.int64] | None = None,
    users: NDArray[np.integer] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Accuracy metrics of each user, (users,) each; with `num_candidates` also the area under the ROC curve.

    `ranks`, `num_candidates` and `users` (targets,): the rank of each target among all candidates (other
    targets of the same user included), the number of candidates, and the user; None: one target per user.
    Values are sorted by user. Recall@k of a user is the share of their targets in the first k, NDCG@k is
    normalised by the best possible order, the average precision is over min(k, number of targets) (as in
    RecBole), MRR is the reciprocal rank of the first target. If a user has several targets, also hit@k
    (whether any is in the first k) and precision@k (the share of the first k that are targets). A target
    of rank MISSED counts 0 in all of them.
    """
    if users is None:
        users = np.arange(len(ranks))
    order = np.lexsort((ranks, users))
    ranks = ranks[order]
    _, starts, owners, counts = np.unique(
        users[order], return_index=True, return_inverse=True, return_counts=True
    )

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(owners, values.astype(np.float64), minlength=len(counts))
        return sums.astype(np.float64)

    own_ranks = np.arange(len(ranks)) - starts[owners] + 1  # among the user's own targets, from 1
    ideal = np.cumsum(1.0 / np.log2(np.arange(max(CUTOFFS)) + 2))
    values = {"mrr": np.where(ranks[starts] == MISSED, 0.0, 1.0 / ranks[starts])}
    for k in CUTOFFS:
        hit = ranks <= k
        most = np.minimum(counts, k)
        values[f"recall@{k}"] = total(hit) / counts
        gains = total(np.where(hit, 1.0 / np.log2(ranks + 1), 0.0))
        values[f"ndcg@{k}"] = gains / ideal[most - 1]
        values[f"map@{k}"] = total(np.where(hit, own_ranks / ranks, 0.0)) / most
        if len(counts) and counts.max() > 1:
            values[f"hit@{k}"] = (total(hit) > 0).astype(np.float64)
            values[f"precision@{k}"] = total(hit) / k
    if num_candidates is not None:
        missed = ranks == MISSED
        negatives = num_candidates[order] - total(~missed).astype(np.int64)[owners]
        better = ranks - own_ranks
        auc = np.where(negatives > 0, (negatives - better) / np.maximum(negatives, 1), 1.0)
        auc[missed] = 0.0
        values["auc"] = total(auc) / counts
    return values


def mean_ndcg(ranking: Ranking) -> float:
    """NDCG@10, averaged over users: the metric of model selection."""
    return float(metric_values(ranking.ranks, users=ranking.users)["ndcg@10"].mean())


def gini(exposure: NDArray[np.int64]) -> float:
    """Gini coefficient of item exposure: 0 if all items are listed equally often, towards 1 if few are."""
    if not exposure.sum():
        return float("nan")
    ordered = np.sort(exposure.astype(np.float64))
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


ACTIVITY = ((1, 5, "few"), (5, 20, "some"), (20, np.inf, "many"))
"""Slices by history length: from, to (exclusive), name."""


def target_slices(catalog: Catalog, split: Split, targets: Targets) -> dict[str, NDArray[np.bool_]]:
    """Groups of targets, bool (targets,) each, without the empty ones.

    warm, cold: the item has, or does not have, training interactions (cold start); new, repeated: the
    item is not, or is, in the history before it (only where `repeats` keeps the latter); without text,
    without image: the item lacks it; few, some, many: length of that history.
    """
    items = catalog.interactions.items[target_rows(catalog.interactions, targets)]
    warm = split.warm_items[items]
    slices = {"warm": warm, "cold": ~warm}
    if targets.repeats != "drop":
        repeated = repeated_target_mask(catalog.interactions, targets)
        slices |= {"new": ~repeated, "repeated": repeated}
    for name, columns in (("without image", ["image"]), ("without text", ["title", "text"])):
        lacks = np.ones(catalog.num_items, dtype=bool)
        for column in columns:
            values = catalog.items.data.column(column)
            lacks &= values.is_null().to_numpy()
        if not lacks.all():
            slices[name] = lacks[items]
    for least, most, name in ACTIVITY:
        slices[name] = (targets.history_lengths >= least) & (targets.history_lengths < most)
    return {name: chosen for name, chosen in slices.items() if chosen.any()}


def summarize(
    ranking: Ranking, slices: Mapping[str, NDArray[np.bool_]] | None = None
) -> dict[str, float]:
    """Means over users, as a flat table: of all targets, and of those of each slice (`slice/metric`)."""
    table: dict[str, float] = {
        "users": float(len(np.unique(ranking.users))),
        "coverage@10": float((ranking.exposure > 0).mean()),
        "gini@10": gini(ranking.exposure),
    }
    every_target = np.ones(len(ranking.ranks), dtype=bool)
    for name, chosen in {"": every_target, **(slices or {})}.items():
        prefix = f"{name}/" if name else ""
        table[f"{prefix}targets"] = float(chosen.sum())
        users = ranking.users[chosen]
        values = metric_values(ranking.ranks[chosen], ranking.num_candidates[chosen], users)
        _, first = np.unique(users, return_index=True)
        values |= {
            metric: of_targets[chosen][first] for metric, of_targets in ranking.list_metrics.items()
        }
        for metric, of_users in values.items():
            known = of_users[~np.isnan(of_users)]
            table[f"{prefix}{metric}"] = float(known.mean()) if len(known) else float("nan")
    return table
