"""What every baseline becomes when it is fitted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from finetune.metrics import Ranking
from pretrain.curves import CurveRecorder


@dataclass
class FittedBaseline:
    """A fitted baseline."""

    rank: Callable[..., Ranking]
    """(targets, list_metrics=…) → their ranking."""
    validation_ndcg: float | None = None
    """NDCG@10 of the validation targets, if there are any."""
    metrics: dict[str, Any] = field(default_factory=dict)
    curves: CurveRecorder | None = None
    """Of a baseline that is trained by gradient steps."""
