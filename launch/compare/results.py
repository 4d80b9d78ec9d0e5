"""What a comparison measured and found, as plain data; knows nothing about HTML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.significance import Difference
from launch.report.contents import ArmRow
from launch.search.result import SearchResult


@dataclass
class Measurements:
    """What was measured of each arm, by its name; lists hold an entry for each seed."""

    metrics: Mapping[str, list[dict[str, Any]]]
    ranks: Mapping[str, list[NDArray[np.int64]]]
    """Rank of each test target."""
    convergence: list[str]
    """How soon pretrained arms reach what training from scratch ends at."""
    searches: Mapping[str, SearchResult]
    failures: Mapping[str, str]
    """Arms without figures, and why."""


@dataclass
class Comparison:
    """What the report of a comparison shows."""

    title: str
    protocol: str
    rows: list[ArmRow]
    contrasts: list[tuple[str, Difference]]
    """(what is compared, the difference)."""
    sentences: list[str]
    failures: list[str]
    """A sentence for each arm without figures."""
    convergence: list[str]
    searches: Mapping[str, SearchResult]

    @property
    def notes(self) -> list[str]:
        return [*self.failures, *self.sentences, *self.convergence]


def caveats(difference: Difference, searches: Mapping[str, SearchResult]) -> str:
    """What a difference cannot show: of arms trained once, and where one side alone was searched."""
    searched = [name for name in (difference.ours, difference.theirs) if name in searches]
    one_sided = f"only the settings of {searched[0]} were searched" if len(searched) == 1 else ""
    return "; ".join(part for part in (difference.caveat, one_sided) if part)
