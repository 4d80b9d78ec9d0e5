"""Continues prefixes token by token; knows nothing about people, items or words."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.inference_mode()
def continue_prefixes(
    language_model: nn.Module,
    prefix: Tensor,
    *,
    end: int,
    forbidden: Sequence[int],
    max_tokens: int,
    temperature: float,
    top_p: float,
    seeds: Sequence[int],
) -> list[list[int]]:
    """Token ids that follow each prefix (batch, length, width), without the end token.

    All prefixes have one length, so there is no padding to mask, and each row draws from its own
    generator: its tokens do not depend on the rest of the batch. Keys and values are cached.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    written: list[list[int]] = [[] for _ in seeds]
    running = [True] * len(seeds)
    output = language_model(inputs_embeds=prefix, use_cache=True, logits_to_keep=1)
    for _ in range(max_tokens):
        logits = output.logits[:, -1].float().cpu()  # (batch, vocabulary)
        logits[:, list(forbidden)] = -torch.inf
        tokens = choose_tokens(logits, temperature, top_p, generators)
        for row, token in enumerate(tokens.tolist()):
            running[row] = running[row] and token != end
            if running[row]:
                written[row].append(token)
        if not any(running):
            break
        output = language_model(
            input_ids=tokens[:, None].to(prefix.device),
            past_key_values=output.past_key_values,
            use_cache=True,
        )
    return written


def choose_tokens(
    logits: Tensor, temperature: float, top_p: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """One token for each row of `logits` (batch, vocabulary) -> (batch,), by nucleus sampling.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration": draw among the fewest
    likeliest tokens whose probabilities sum to `top_p` or more. Temperature 0 takes the likeliest.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    # float64 and a stable order: rounding in a larger batch must not change what is drawn.
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    ordered[:, 0] = ordered[:, 0].clamp_min(1e-12)  # top_p 0 still leaves the likeliest
    draws = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    cumulative = ordered.cumsum(dim=-1)
    places = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
    places = places.clamp_max((ordered > 0).sum(dim=-1, keepdim=True) - 1)
    return order.gather(-1, places)[:, 0]
