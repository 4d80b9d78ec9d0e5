"""Next-item losses: full softmax over the catalog, and sampled softmax with log-q correction.

Neither ever holds the [positions × items] score matrix (see `pretrain.objectives.contrast`). The mean of
either over ranks is the mean over all ranks' positions.
"""

import torch
from torch import Tensor

from pretrain.objectives.contrast import info_nce

SCORES_BYTES = 48 * 2**20
"""Maximum memory of a chunk of scores."""


def full_softmax_loss(
    states: Tensor,
    items: Tensor,
    targets: Tensor,
    scale: Tensor,
    candidates: Tensor | None = None,
    chunk: int = 0,
) -> Tensor:
    """Mean of −log softmax(scale · states @ items.T)[target], exact.

    `states` (positions, d), `items` (num_items, d), `targets` int (positions,), `scale` (1,);
    `candidates` bool (num_items,): items in the softmax, among them every target; `chunk`: positions
    per chunk, 0 for as many as fit in `SCORES_BYTES`.
    """
    return info_nce(
        states,
        items,
        targets,
        torch.ones_like(targets, dtype=torch.bool),
        query_ids=targets,
        key_ids=torch.arange(len(items), device=items.device),
        scale=scale,
        key_valid=candidates,
        chunk=chunk or _chunk_size(items),
    )


def sampled_softmax_loss(
    states: Tensor,
    vectors: Tensor,
    targets: Tensor,
    drawn: Tensor,
    log_q: Tensor,
    scale: Tensor,
) -> Tensor:
    """Sampled softmax over the batch's targets (in-batch negatives) and sampled negatives, log-q corrected.

    `vectors` (positions + n, d): of the targets, then of the n negatives `drawn` (n,); `log_q`
    (positions + n,): log of Q, the expected count of each of these items among the keys. With s the
    scores, the loss of a position is

        −s(target) + log(exp s(target) + Σ over keys k that are not the target: exp(s(k)) / Q(k))

    The sum is an unbiased estimate of that over all other items (importance sampling: Bengio and Senécal,
    2008; in-batch and sampled negatives together: Yang et al., 2020). The target itself is not sampled:
    it is in every softmax once, so its logit has no log-q correction (Khrylchenko et al., 2025, eq. 14:
    correcting it as well, as in Yi et al., 2019, weighs the target by 1 / Q(target), so that rare targets
    seem learned long before they are). The only bias is that of the log of a mean, which vanishes as n
    grows; negatives count as independent of the position's history.
    """
    return info_nce(
        states,
        vectors,
        torch.arange(len(targets), device=targets.device),
        torch.ones_like(targets, dtype=torch.bool),
        query_ids=targets,
        key_ids=torch.cat([targets, drawn]),
        scale=scale,
        key_bias=-log_q,
        chunk=_chunk_size(vectors),
    )


def sample_negatives(
    targets: Tensor, item_counts: Tensor, candidates: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """Negative sampling, uniform over `candidates` (c,), for the batch's `targets` (positions,).

    Returns the negatives, int64 (number,), and `log_q` of targets and negatives in turn (see
    `sampled_softmax_loss`). `item_counts` float (num_items,): training interactions of each item, which
    are proportional to its expected count as another position's target.
    """
    chosen = torch.randint(len(candidates), (number,), device=candidates.device)
    drawn = candidates[chosen]
    keys = torch.cat([targets, drawn])
    others = max(0, len(targets) - 1)  # a position's target is not its own negative
    expected = others * item_counts[keys] / item_counts.sum() + number / len(candidates)
    return drawn, expected.clamp(min=torch.finfo(expected.dtype).tiny).log()


def _chunk_size(keys: Tensor) -> int:
    most = 4096 if keys.is_cuda else 128  # a larger chunk exceeds a CPU's caches
    return max(8, min(most, SCORES_BYTES // (keys.element_size() * max(1, len(keys)))))
