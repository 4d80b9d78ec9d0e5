"""Whose words are these? The person for whom a text is likeliest, among some drawn at random."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.statistics import mean_interval
from generate.text.model import TextGenerator
from generate.text.prompts import Past, Prompts

AMONG = 20


def identified(
    generator: TextGenerator,
    texts: list[str],
    users: NDArray[np.integer],
    prompts: Prompts,
    states: Tensor,
    pasts: Sequence[Past],
    items: NDArray[np.integer] | None,
    task: str,
    *,
    among: int = AMONG,
    seed: int = 0,
    chunk: int = 64,
) -> NDArray[np.float64]:
    """How far each text is told from its own person: (texts,), 1 or 0; ties share what there is.

    `users` (texts,) says whose each is, `states` (texts, width) and `pasts` are what the generator is
    told of them, `items` (texts,) the rows of what the texts are about, None to hide it; the others
    are drawn from these people. Chance is 1 / `among`.
    """
    strangers = draw_strangers(users, among - 1, seed)
    candidates = np.concatenate([np.arange(len(texts))[:, None], strangers], axis=1)
    at_once = max(1, chunk // among)
    hits = np.empty(len(texts))
    for start in range(0, len(texts), at_once):
        part = slice(start, start + at_once)
        asked = candidates[part].reshape(-1).tolist()  # (texts × among,)
        about = None if items is None else np.repeat(items[part], among).tolist()
        conditions = prompts.make(states[asked], [pasts[one] for one in asked], about)
        words = [text for text in texts[part] for _ in range(among)]
        nats, _ = generator.loss_per_text(conditions, task, words)
        nats = nats.double().cpu().reshape(-1, among)
        best = torch.isclose(nats, nats.min(dim=1, keepdim=True).values, rtol=1e-6, atol=0)
        hits[part] = (best[:, 0] / best.sum(dim=1)).numpy()
    return hits


def draw_strangers(users: NDArray[np.integer], count: int, seed: int) -> NDArray[np.int64]:
    """For each place `count` others of different people, none twice: (len(users), count)."""
    rng = np.random.default_rng(seed)
    people, first = np.unique(users, return_index=True)
    if len(people) <= count:
        raise ValueError(f"{len(people)} people are too few to tell one among {count + 1}")
    drawn = np.empty((len(users), count), dtype=np.int64)
    for place, user in enumerate(users):
        others = rng.choice(len(people) - 1, count, replace=False)
        own = np.searchsorted(people, user)
        drawn[place] = first[others + (others >= own)]
    return drawn


def identification(hits: NDArray[np.float64], among: int = AMONG) -> dict[str, Any]:
    """`hits` of `identified`, as figures."""
    share = mean_interval(hits)
    return {"texts": len(hits), "among": among, "share": asdict(share), "chance": 1 / among}
