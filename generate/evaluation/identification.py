"""Identification: finds the user that a text or image was generated for among random other users.

Each output is scored against its own user and others drawn at random; it counts as identified when its own
user scores best.
"""

from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.statistics import mean_interval
from generate.evaluation.intervals import Figures

NUM_CANDIDATES = 20
"""Candidate users of each output, its own user included; chance accuracy is 1 / NUM_CANDIDATES."""


def draw_candidates(
    users: NDArray[np.integer], num_candidates: int = NUM_CANDIDATES, seed: int = 0
) -> NDArray[np.int64]:
    """Candidates of each output: index of its own user, then of other users: (len(users), num_candidates)."""
    others = draw_other_users(users, num_candidates - 1, seed)
    return np.concatenate([np.arange(len(users))[:, None], others], axis=1)


def draw_other_users(users: NDArray[np.integer], count: int, seed: int) -> NDArray[np.int64]:
    """Draws `count` indices of other users for each index, without replacement: (len(users), count)."""
    rng = np.random.default_rng(seed)
    distinct, first = np.unique(users, return_index=True)
    if len(distinct) <= count:
        raise ValueError(f"{len(distinct)} users are too few to identify one among {count + 1}.")
    drawn = np.empty((len(users), count), dtype=np.int64)
    for index, user in enumerate(users):
        others = rng.choice(len(distinct) - 1, count, replace=False)
        own = np.searchsorted(distinct, user)
        drawn[index] = first[others + (others >= own)]
    return drawn


def identification_hits(is_best: Tensor) -> NDArray[np.float64]:
    """Whether the first candidate, the own user, is best: (outputs,), 1 or 0; ties share a hit equally.

    `is_best` bool (outputs, candidates): all candidates with the best score.
    """
    return (is_best[:, 0] / is_best.sum(dim=1)).to(torch.float64).numpy()


def identification_figures(
    hits: NDArray[np.float64], num_candidates: int = NUM_CANDIDATES
) -> Figures:
    """Accuracy over outputs with its interval, and the accuracy of chance."""
    return {
        "count": len(hits),
        "num_candidates": num_candidates,
        "accuracy": asdict(mean_interval(hits)),
        "chance": 1 / num_candidates,
    }
