"""Continues prefixes token by token; knows nothing about people, items or words.

Requests of any length share a batch. One that ends, or is given up, makes room for the next at once,
so that a batch never waits for its longest text.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache


@dataclass(frozen=True)
class Request:
    """One text to be written."""

    prefix: Tensor
    """float (length, width): what comes before it, as embeddings."""
    seed: int
    temperature: float = 0.7
    """0 always takes the likeliest token."""
    top_p: float = 0.9
    max_tokens: int = 64


@dataclass
class _Row:
    """A request that is being written."""

    number: int
    request: Request
    generator: torch.Generator
    written: list[int] = field(default_factory=list)


class Decoder:
    """Writes requests in a batch of at most `slots`.

    Each row draws from a generator of its own and sees nothing of the others, so in float32 its tokens
    do not depend on what else is in the batch. Rows are aligned at their newest token; what is before
    a shorter one is masked. Keys and values are cached; the model's attention must reach back to the
    beginning (no sliding windows).
    """

    def __init__(
        self,
        language_model: nn.Module,
        *,
        end: int,
        forbidden: Sequence[int] = (),
        slots: int = 32,
    ) -> None:
        self.model = language_model
        self.end = end
        self.forbidden = list(forbidden)
        self.slots = slots
        self.waiting: deque[_Row] = deque()
        self.rows: list[_Row] = []
        self.cache: Any = DynamicCache()
        """Of each layer: keys and values (rows, heads, length, width of a head)."""
        self.lengths = torch.empty(0, dtype=torch.long)
        """(rows,): how much of the cache is each row's own."""
        self.logits = torch.empty(0)
        """(rows, vocabulary): of each row's next token."""
        self.submitted = 0

    def submit(self, request: Request) -> int:
        """Queues it; returns its number."""
        number = self.submitted
        self.submitted += 1
        generator = torch.Generator().manual_seed(request.seed)
        self.waiting.append(_Row(number, request, generator))
        return number

    def cancel(self, number: int) -> None:
        """Gives up a request; its slot is free for the next step. One that has ended is left alone."""
        self.waiting = deque(row for row in self.waiting if row.number != number)
        self._keep([place for place, row in enumerate(self.rows) if row.number != number])

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.rows)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int | None]]:
        """One token of each request under way: (its number, the token); None where it has ended."""
        if self.waiting and len(self.rows) < self.slots:
            self._admit()
        if not self.rows:
            return []
        tokens = self._draw().tolist()
        told: list[tuple[int, int | None]] = []
        going, next_tokens = [], []
        for place, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if token == self.end:
                told.append((row.number, None))
                continue
            row.written.append(token)
            told.append((row.number, token))
            if len(row.written) >= row.request.max_tokens:
                told.append((row.number, None))
                continue
            going.append(place)
            next_tokens.append(token)
        self._keep(going)
        if self.rows:
            self._advance(torch.tensor(next_tokens))
        return told

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[int, int | None]]:
        """Submits all; yields (place among `requests`, token) as they come, None where one ends."""
        first = self.submitted
        for request in requests:
            self.submit(request)
        while self.busy:
            for number, token in self.step():
                yield number - first, token

    def write(self, requests: Sequence[Request]) -> list[list[int]]:
        """Token ids of each, without the end token."""
        written: list[list[int]] = [[] for _ in requests]
        for place, token in self.stream(requests):
            if token is not None:
                written[place].append(token)
        return written

    def _draw(self) -> Tensor:
        logits = self.logits.float().cpu()  # (rows, vocabulary)
        logits[:, self.forbidden] = -torch.inf
        tokens = torch.empty(len(self.rows), dtype=torch.long)
        settings = [(row.request.temperature, row.request.top_p) for row in self.rows]
        for temperature, top_p in set(settings):
            places = [place for place, own in enumerate(settings) if own == (temperature, top_p)]
            generators = [self.rows[place].generator for place in places]
            tokens[places] = choose_tokens(logits[places], temperature, top_p, generators)
        return tokens

    def _admit(self) -> None:
        """Reads the prefixes of requests for which there is room, and puts them beside the others."""
        new = [
            self.waiting.popleft()
            for _ in range(min(self.slots - len(self.rows), len(self.waiting)))
        ]
        prefixes = [row.request.prefix for row in new]
        lengths = torch.tensor([len(prefix) for prefix in prefixes])
        longest = int(lengths.max())
        padded = prefixes[0].new_zeros(len(new), longest, prefixes[0].shape[-1])
        for place, prefix in enumerate(prefixes):
            padded[place, longest - len(prefix) :] = prefix
        cache: Any = DynamicCache()
        output = self.model(
            inputs_embeds=padded,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **self._masks(lengths, longest, longest, padded.device),
        )
        logits = output.logits[:, -1]
        if self.rows:
            for layer, before in zip(cache.layers, self.cache.layers, strict=True):
                layer.keys = together(before.keys, layer.keys)
                layer.values = together(before.values, layer.values)
            logits = torch.cat([self.logits, logits])
            lengths = torch.cat([self.lengths, lengths])
        self.cache, self.logits, self.lengths = cache, logits, lengths
        self.rows = [*self.rows, *new]

    def _advance(self, tokens: Tensor) -> None:
        length = self.cache.get_seq_length() + 1
        device = self.cache.layers[0].keys.device
        self.lengths = self.lengths + 1
        output = self.model(
            input_ids=tokens[:, None].to(device),
            past_key_values=self.cache,
            use_cache=True,
            **self._masks(self.lengths, length, 1, device),
        )
        self.logits = output.logits[:, -1]

    def _masks(
        self, lengths: Tensor, longest: int, new: int, device: torch.device
    ) -> dict[str, Tensor]:
        """What a model needs to know of rows that are filled up on the left; nothing where none is."""
        if bool((lengths == longest).all()):
            return {}
        places = torch.arange(longest)
        missing = longest - lengths[:, None]  # (rows, 1)
        return {
            "attention_mask": (places >= missing).long().to(device),
            "position_ids": (places - missing).clamp_min(0)[:, longest - new :].to(device),
        }

    def _keep(self, places: list[int]) -> None:
        """Drops the other rows, and what only they needed of the cache."""
        if len(places) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in places]
        self.lengths, self.logits = self.lengths[places], self.logits[places]
        if not self.rows:
            self.cache = DynamicCache()
            return
        spare = self.cache.get_seq_length() - int(self.lengths.max())
        for layer in self.cache.layers:
            layer.keys = layer.keys[places, :, spare:]
            layer.values = layer.values[places, :, spare:]


def together(one: Tensor, other: Tensor) -> Tensor:
    """Rows of both, (rows, heads, length, width): the shorter filled up on the left with zeros."""
    longest = max(one.shape[-2], other.shape[-2])
    filled = [nn.functional.pad(part, (0, 0, longest - part.shape[-2], 0)) for part in (one, other)]
    return torch.cat(filled)


def choose_tokens(
    logits: Tensor, temperature: float, top_p: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """One token for each row of `logits` (batch, vocabulary) -> (batch,), by nucleus sampling.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration": draw among the fewest
    likeliest tokens whose probabilities sum to `top_p` or more. Temperature 0 takes the likeliest.

    The draw is the largest of log-probability plus Gumbel noise, a noise for each token: rounding in
    another batch then changes a token only where the two largest all but tie, while a place in the
    cumulated probabilities of thousands of tokens moves with the rounding of each.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    scores = torch.log_softmax(logits.double() / temperature, dim=-1)
    ordered, order = scores.exp().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    before[:, 0] = -1.0  # top_p 0 still leaves the likeliest
    outside = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, before >= top_p)
    size = logits.shape[-1]
    uniform = torch.stack([torch.rand(size, generator=g, dtype=torch.float64) for g in generators])
    noise = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
    return (scores + noise).masked_fill(outside, -torch.inf).argmax(dim=-1)
