"""Readings: what a generated output should show of its user, by rule, where the ground truth is known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from generate.evaluation.users import EvaluationUsers

Name = TypeVar("Name", bound=str)
Output = TypeVar("Output")
"""Text, or the pixels of an image."""


@dataclass(frozen=True)
class Reading(Generic[Output]):
    """A label that is read out of an output by rule, and the true label to compare it with."""

    read: Callable[[Output], object]
    """Output → label; None where no label can be read."""
    label: Callable[[int, int], object]
    """(user row, item row) → true label; None leaves the pair out."""
    task: str = ""
    """The writing task whose texts are read; empty for images."""


def reading_hits(
    reading: Reading[Output], users: EvaluationUsers, outputs: Mapping[Name, Sequence[Output]]
) -> dict[Name, NDArray[np.float64]]:
    """For each condition of `outputs`, whether the true label is read, over the users who have one."""
    labels = [
        reading.label(int(user), int(item))
        for user, item in zip(users.users, users.items, strict=True)
    ]
    labelled = [index for index, label in enumerate(labels) if label is not None]
    return {
        condition: np.array(
            [reading.read(of_condition[index]) == labels[index] for index in labelled],
            dtype=np.float64,
        )
        for condition, of_condition in outputs.items()
    }
