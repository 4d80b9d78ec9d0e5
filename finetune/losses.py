"""Losses of fine-tuning: what comes next, told from the whole catalog or from a sample of it.

Neither ever holds the [positions × items] matrix (see `pretrain.objectives.contrast`). Of both, the
mean over ranks is the mean over all ranks' positions.
"""

import torch
from torch import Tensor

from pretrain.gather import sum_over_ranks, world
from pretrain.objectives.contrast import contrast

SCORES_BYTES = 48 * 2**20
"""Memory for scores at once, at most."""


def catalog_cross_entropy(
    states: Tensor,
    items: Tensor,
    targets: Tensor,
    scale: Tensor,
    candidates: Tensor | None = None,
    chunk: int = 0,
) -> Tensor:
    """Mean of −log softmax(scale · states @ items.T)[target], exact.

    `states` (positions, d), `items` (num_items, d), `targets` int (positions,), `scale` (1,);
    `candidates` bool (num_items,): items in the softmax, which every target is; `chunk`: positions
    scored at once, 0 for as many as `SCORES_BYTES` hold.
    """
    return contrast(
        states,
        items,
        targets,
        torch.ones_like(targets, dtype=torch.bool),
        query_ids=targets,
        key_ids=torch.arange(len(items), device=items.device),
        scale=scale,
        key_valid=candidates,
        chunk=chunk or _positions_at_once(items),
    )


def sampled_cross_entropy(
    states: Tensor,
    vectors: Tensor,
    targets: Tensor,
    drawn: Tensor,
    log_expected: Tensor,
    scale: Tensor,
) -> Tensor:
    """The same, estimated from the batch's targets and items drawn beside them.

    `vectors` (positions + n, d): of the targets, then of the n items `drawn` (n,); `log_expected`
    (positions + n,): log of how often each of these items was to be expected among them, which is
    taken off its logit (log-q correction: Bengio and Senécal, 2008; Yi et al., 2019; both sources
    together: Yang et al., 2020). A position's target is never its own negative.
    """
    counts = torch.ones_like(targets, dtype=torch.bool)
    # A target's own correction cancels in no softmax; taken off here, losses compare with the exact.
    own = (
        log_expected[: len(targets)].sum() * world()[1] / sum_over_ranks(counts.sum()).clamp(min=1)
    )
    return -own + contrast(
        states,
        vectors,
        torch.arange(len(targets), device=targets.device),
        counts,
        query_ids=targets,
        key_ids=torch.cat([targets, drawn]),
        scale=scale,
        key_bias=-log_expected,
        chunk=_positions_at_once(vectors),
    )


def draw_negatives(
    targets: Tensor, taken: Tensor, candidates: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """Items drawn evenly from `candidates` (c,) to stand beside the batch's `targets` (positions,):
    int64 (number,), and the `log_expected` of both in turn (see `sampled_cross_entropy`).

    `taken` float (num_items,): how often each item was taken in training.
    """
    chosen = torch.randint(len(candidates), (number,), device=candidates.device)
    drawn = candidates[chosen]
    keys = torch.cat([targets, drawn])
    expected = len(targets) * taken[keys] / taken.sum() + number / len(candidates)
    return drawn, expected.log()


def _positions_at_once(keys: Tensor) -> int:
    most = 4096 if keys.is_cuda else 128  # beyond that a CPU's caches are too small
    return max(8, min(most, SCORES_BYTES // (keys.element_size() * max(1, len(keys)))))
