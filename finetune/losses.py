"""Losses of fine-tuning: what comes next, told from the whole catalog or from a sample of it.

Neither ever holds the [positions × items] matrix (see `pretrain.objectives.contrast`). Of both, the
mean over ranks is the mean over all ranks' positions.
"""

import torch
from torch import Tensor

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
    (positions + n,): log of Q, how often each of these items is to be expected among the keys. With s
    the scores, a position's loss is

        −s(target) + log(exp s(target) + Σ over keys k that are not the target: exp(s(k)) / Q(k))

    The sum estimates that over all other items without bias (importance sampling: Bengio and Senécal,
    2008; targets and drawn items together: Yang et al., 2020). The target itself was not drawn: it is
    in every softmax once, so its logit is left as it is (Khrylchenko et al., 2025, eq. 14: taking log Q
    off it as well, as in Yi et al., 2019, weighs the target by 1 / Q(target), so that rare targets seem
    learned long before they are). Biased by the log of a mean alone, which vanishes as n grows; popular
    items and drawn ones count as independent of the position's history.
    """
    return contrast(
        states,
        vectors,
        torch.arange(len(targets), device=targets.device),
        torch.ones_like(targets, dtype=torch.bool),
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

    `taken` float (num_items,): how often each item was taken in training, which is how often it is to be
    expected as another position's target.
    """
    chosen = torch.randint(len(candidates), (number,), device=candidates.device)
    drawn = candidates[chosen]
    keys = torch.cat([targets, drawn])
    others = max(0, len(targets) - 1)  # a position's own target is no negative of its own
    expected = others * taken[keys] / taken.sum() + number / len(candidates)
    return drawn, expected.clamp(min=torch.finfo(expected.dtype).tiny).log()


def _positions_at_once(keys: Tensor) -> int:
    most = 4096 if keys.is_cuda else 128  # beyond that a CPU's caches are too small
    return max(8, min(most, SCORES_BYTES // (keys.element_size() * max(1, len(keys)))))
