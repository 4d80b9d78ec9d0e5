"""Draws tokens: temperature, top-k and nucleus sampling, without sorting the vocabulary.

Only a row's most likely tokens are sorted, as many as its nucleus needs. The noise of a token is a hash of
the request's seed, the position in its text and the token's id: it depends neither on what else is in the
batch nor on how many candidates were looked at, and no generator keeps a state.
"""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from catalog.errors import VitrineError
from generate.text.config import WriteConfig

FIRST_CANDIDATES = 64
"""Most likely tokens among which a nucleus is sought first."""
NEGLIGIBLE, BINS = 30.0, 4096
"""Nats below the most likely token within which the least likely of a nucleus is sought, and bins of them."""
ROUNDING = 1e-6
"""Probability that float32 may round away: a nucleus that lacks no more is complete."""
_STEP = -0x61C8864680B583EB  # 2⁶⁴ / golden ratio, as a signed integer
_MIX = ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15))


def sample_tokens(
    logits: Tensor,
    temperature: float,
    top_p: float,
    seeds: Sequence[int],
    positions: Sequence[int],
    top_k: int = 0,
) -> Tensor:
    """One token for each row of `logits`, float (batch, vocabulary) → int64 (batch,) on the same device.

    Draws among the `top_k` most likely tokens (0: all; Fan et al. 2018), of these among the fewest whose
    probabilities sum to `top_p` or more (Holtzman et al. 2020). Temperature 0 takes the most likely token.

    Row i belongs to a request with `seeds[i]`, of which `positions[i]` tokens are written. The draw is the
    argmax of log-probability plus Gumbel noise: rounding in another batch then changes a token only where
    the two largest all but tie, while a position in cumulated probabilities moves with the rounding of
    each.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    vocabulary, top_p = logits.shape[-1], top_p if top_p >= 1 else top_p - ROUNDING
    keys = _stream_keys(seeds, positions).to(logits.device)
    if top_p >= 1 and not top_k:
        return _draw_of_all(logits.float() / temperature, keys)
    size = min(top_k or FIRST_CANDIDATES, vocabulary)
    scores, tokens = logits.topk(size, dim=-1)
    scores = scores.double() / temperature
    # The k alone share the probability; without top_k all tokens do.
    whole = scores if top_k else logits.float() / temperature
    total = whole.logsumexp(dim=-1).double()
    log_probs = scores - total[:, None]
    probs = log_probs.exp()
    before = probs.cumsum(dim=-1) - probs
    outside = before >= top_p
    outside[:, 0] = False
    noisy = (log_probs + _gumbel(keys, tokens)).masked_fill(outside, -torch.inf)
    chosen = tokens.gather(1, noisy.argmax(dim=-1, keepdim=True))[:, 0]
    if not top_k and size < vocabulary:
        larger = before[:, -1] + probs[:, -1] < top_p
        for row in larger.nonzero()[:, 0].tolist():
            chosen[row] = _draw_of_many(whole[row] - total[row].float(), top_p, keys[row])
    return chosen


def _draw_of_many(log_probs: Tensor, top_p: float, key: Tensor) -> Tensor:
    """As `sample_tokens` for one row (vocabulary,) with a larger nucleus: its least likely
    token is sought in a histogram, and only the tokens of its bin are sorted."""
    depth = (log_probs.max() - log_probs) * (BINS / NEGLIGIBLE)
    bins = depth.clamp_max(BINS - 1).long()
    mass = torch.bincount(bins, log_probs.exp().double(), minlength=BINS)
    summed = mass.cumsum(dim=0)
    found = int((summed < top_p).sum().clamp_max(BINS - 1))
    before = summed[found] - mass[found]
    within = log_probs[bins == found].sort(descending=True).values
    reached = (before + within.double().exp().cumsum(dim=0) >= top_p).nonzero()
    least = within[reached[0, 0] if len(reached) else -1]
    tokens = (log_probs >= least).nonzero()[:, 0]
    noisy = log_probs[tokens].double() + _gumbel(key[None], tokens[None])[0]
    return tokens[noisy.argmax()]


def _draw_of_all(scores: Tensor, keys: Tensor) -> Tensor:
    """As `sample_tokens` where no token is left out, row by row: the noise is as large as the vocabulary."""
    tokens = torch.arange(scores.shape[-1], device=scores.device)[None]
    drawn = [
        (row + _gumbel(key[None], tokens)[0]).argmax()
        for row, key in zip(scores, keys, strict=True)
    ]
    return torch.stack(drawn)


def _stream_keys(seeds: Sequence[int], positions: Sequence[int]) -> Tensor:
    """int64 (batch,): where each row's noise begins."""
    return _mix(_mix(torch.tensor(seeds)) + torch.tensor(positions) * _STEP)


def _gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise float64 (batch, k) of tokens (batch, k) under keys (batch,)."""
    bits = _mix(keys[:, None] + (tokens + 1) * _STEP)
    uniform = (_shift(bits, 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def _mix(values: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele et al. 2014), on int64 as if unsigned."""
    for bits, factor in _MIX:
        values = (values ^ _shift(values, bits)) * factor
    return values ^ _shift(values, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def check_sampling(config: WriteConfig, seeds: Sequence[int]) -> None:
    """Raises VitrineError for sampling settings and seeds that cannot be used."""
    if not 0 <= config.temperature < inf or not 0 < config.top_p <= 1:
        raise VitrineError(
            f"temperature {config.temperature} and top_p {config.top_p}: give a temperature of 0 "
            "or more and a top_p above 0, at most 1."
        )
    if config.top_k < 0:
        raise VitrineError(f"top_k is {config.top_k}; give 0, for all tokens, or more.")
    if config.max_tokens < 1:
        raise VitrineError(f"max_tokens is {config.max_tokens}; give 1 or more.")
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise VitrineError(f"a seed is {min(seeds)} … {max(seeds)}; give 0 to 2⁶³ - 1.")
