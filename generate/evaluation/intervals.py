"""Means under each condition, and their paired differences, with bootstrap intervals over users."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.statistics import difference_interval, mean_interval

Figures = dict[str, Any]
"""Metrics by name, nested, as they are written to a JSON file."""


def compare_conditions(values: Mapping[str, NDArray[np.float64]]) -> Figures:
    """Mean of each condition's `values` (num_users,), and own minus each other condition, as intervals."""
    own = values["own"]
    means = {condition: asdict(mean_interval(column)) for condition, column in values.items()}
    differences = {
        f"own_minus_{condition}": asdict(difference_interval(own, column))
        for condition, column in values.items()
        if condition != "own"
    }
    return means | differences
