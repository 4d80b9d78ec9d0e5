"""The claims of a pipeline's report: sentence, figure, goal, and whether the figure meets the goal.

Reads no files: what was measured comes as arrays and rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.metrics import metric_values
from finetune.statistics import ratio_interval
from launch.report.contents import Claim, ControlRow
from launch.report.protocol import FEW_COLD


@dataclass(frozen=True)
class RankedTargets:
    """Where each arm ranked the test targets."""

    ranks: Mapping[str, NDArray[np.int64]]
    """Arm → rank of each target (targets,)."""
    users: NDArray[np.int32]
    """The user of each target (targets,)."""
    is_cold: NDArray[np.bool_]
    """Which targets were never bought in training (targets,)."""

    def ndcg(self, arm: str) -> NDArray[np.float64]:
        """NDCG@10 of each user."""
        return metric_values(self.ranks[arm], users=self.users)["ndcg@10"]

    def cold_recall(self, arm: str) -> NDArray[np.float64]:
        """Recall@10 of each user with a cold target, over those targets alone."""
        cold = self.is_cold
        return metric_values(self.ranks[arm][cold], users=self.users[cold])["recall@10"]


@dataclass(frozen=True)
class RatioGoals:
    """Ratios that meet a claim; None: the interval must lie above 1."""

    popularity: float | None = None
    shuffled: float | None = None
    cold: float | None = None


DEMO_GOALS = RatioGoals(popularity=3.0, shuffled=1.3, cold=5.0)
"""Of the demo world, whose ground truth says how well content can rank."""


def ranking_claims(
    targets: RankedTargets, headline: str, goals: RatioGoals, trained_share: float
) -> list[Claim]:
    """The claims that the arms of a run allow, `headline` being the arm they are about.

    `trained_share`: trained parameters of the arm `lora` as a share of all.
    """
    claims = [
        ratio_claim(
            "Content and history rank the next item better than popularity (NDCG@10)",
            targets.ndcg(headline),
            targets.ndcg("popularity"),
            goals.popularity,
        )
    ]
    if "shuffled" in targets.ranks:
        sentence = (
            "It is the content that helps: the same model reading other items' content is worse"
        )
        ours, theirs = targets.ndcg(headline), targets.ndcg("shuffled")
        claims.append(ratio_claim(sentence, ours, theirs, goals.shuffled))
    if "id" in targets.ranks and targets.is_cold.sum() >= FEW_COLD:
        sentence = (
            "Cold-start items, never bought in training, are found by their content (Recall@10 "
            "against ids)"
        )
        ours, theirs = targets.cold_recall(headline), targets.cold_recall("id")
        claims.append(ratio_claim(sentence, ours, theirs, goals.cold))
    if {"lora", "full"} <= set(targets.ranks):
        claims.append(lora_claim(targets.ndcg("lora"), targets.ndcg("full"), trained_share))
    return claims


def ratio_claim(
    sentence: str, ours: NDArray[np.float64], theirs: NDArray[np.float64], goal: float | None
) -> Claim:
    """Our mean over theirs; met from `goal` on, or, without one, where the interval is above 1."""
    ratio = ratio_interval(ours, theirs)
    figure = f"{ratio.value:.2f}× [{ratio.low:.2f}, {ratio.high:.2f}]"
    if math.isinf(ratio.value):
        figure = f"{ours.mean():.3f} against 0"
    if goal is None:
        return Claim(sentence, figure, "interval above 1", ratio.low > 1)
    return Claim(sentence, figure, f"at least {goal:g}×", ratio.value >= goal)


def lora_claim(lora: NDArray[np.float64], full: NDArray[np.float64], trained_share: float) -> Claim:
    """Whether LoRA reaches 95 % of full fine-tuning with at most 5 % of the parameters trained."""
    ratio = ratio_interval(lora, full)
    return Claim(
        "LoRA comes close to full fine-tuning (NDCG@10)",
        f"{ratio.value:.1%} with {trained_share:.1%} of the parameters trained",
        "at least 95 % with at most 5 %",
        ratio.value >= 0.95 and trained_share <= 0.05,
    )


def content_claims(controls: list[ControlRow]) -> list[Claim]:
    """One claim for each measure: the user's own condition is better than another user's."""
    claims = []
    for row in controls:
        neutral = 1.0 if "/" in row.contrast_name else 0.0
        if row.higher_is_better:
            met = row.contrast.low > neutral
        else:
            met = row.contrast.high < neutral
        figure = f"{row.contrast.value:.3g} [{row.contrast.low:.3g}, {row.contrast.high:.3g}]"
        direction = "above" if row.higher_is_better else "below"
        claims.append(
            Claim(
                f"{row.measure}: own user against another user ({row.contrast_name})",
                figure,
                f"interval {direction} {neutral:g}",
                met,
            )
        )
    return claims
