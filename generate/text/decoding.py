"""Autoregressive decoding with a KV cache and continuous batching; knows nothing about users or items.

Requests of any length share a batch. When one ends or is cancelled, the next one in the queue takes its
slot at the next step, so a batch never waits for its longest text.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from generate.text.sampling import sample_tokens


@dataclass(frozen=True)
class DecodingRequest:
    """One text to decode."""

    prefix: Tensor
    """float (length, width): prompt embeddings, which the text continues."""
    seed: int
    temperature: float = 0.7
    """0 is greedy decoding."""
    top_p: float = 0.9
    max_tokens: int = 64
    top_k: int = 0
    """0: all tokens."""
    constraint: Callable[[Sequence[int]], Tensor] | None = None
    """Ids of the text so far → ids that may not come next (see `generate.text.constraints`)."""


@dataclass
class _ActiveRequest:
    """A request in the queue or in the batch."""

    number: int
    request: DecodingRequest
    tokens: list[int] = field(default_factory=list)


class Decoder:
    """Decodes requests with continuous batching, at most `max_batch_size` at a time.

    Each request draws by its own seed and attends only to its own tokens, so in float32 its tokens do not
    depend on the rest of the batch. Rows are aligned at their newest token;
    padding before a shorter one is masked. The KV cache is shared; the model's attention must reach back
    to the beginning (no sliding windows).
    """

    def __init__(
        self,
        language_model: nn.Module,
        *,
        ends: Collection[int],
        forbidden: Sequence[int] = (),
        max_batch_size: int = 32,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """`ends`: ids of tokens that end a text; `forbidden`: ids of tokens that are never generated;
        `autocast`: context of the model's passes."""
        self.autocast = autocast
        self.model = language_model
        self.ends = frozenset(ends)
        self.forbidden = torch.tensor(sorted(forbidden), dtype=torch.long)
        self.max_batch_size = max_batch_size
        self.queue: deque[_ActiveRequest] = deque()
        self.active: list[_ActiveRequest] = []
        self.cache: Any = DynamicCache()
        """KV cache: for each layer keys and values (active, heads, length, head width)."""
        self.lengths = torch.empty(0, dtype=torch.long)
        """(active,): length of each request's own part of the cache."""
        self.logits = torch.empty(0)
        """(active, vocabulary): logits of each request's next token."""
        self.num_submitted = 0

    def submit(self, request: DecodingRequest) -> int:
        """Puts a request into the queue; returns its number."""
        number = self.num_submitted
        self.num_submitted += 1
        self.queue.append(_ActiveRequest(number, request))
        return number

    def cancel(self, number: int) -> None:
        """Cancels a request, which frees its slot; does nothing for one that has ended."""
        self.queue = deque(row for row in self.queue if row.number != number)
        self._keep([index for index, row in enumerate(self.active) if row.number != number])

    @property
    def busy(self) -> bool:
        return bool(self.queue or self.active)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int | None]]:
        """Decodes one token of each active request: (number, token); None where it has ended."""
        if self.queue and len(self.active) < self.max_batch_size:
            self._admit()
        if not self.active:
            return []
        tokens = self._sample().tolist()
        events: list[tuple[int, int | None]] = []
        unfinished, next_tokens = [], []
        for index, (row, token) in enumerate(zip(self.active, tokens, strict=True)):
            if token in self.ends:
                events.append((row.number, None))
                continue
            row.tokens.append(token)
            events.append((row.number, token))
            if len(row.tokens) >= row.request.max_tokens:
                events.append((row.number, None))
                continue
            unfinished.append(index)
            next_tokens.append(token)
        self._keep(unfinished)
        if self.active:
            self._advance(torch.tensor(next_tokens))
        return events

    def stream(self, requests: Iterable[DecodingRequest]) -> Iterator[tuple[int, int | None]]:
        """Submits all; yields (index among `requests`, token) as they come, None where one ends."""
        first = self.num_submitted
        for request in requests:
            self.submit(request)
        while self.busy:
            for number, token in self.step():
                yield number - first, token

    def generate(self, requests: Sequence[DecodingRequest]) -> list[list[int]]:
        """Token ids of each request, without the end token."""
        token_ids: list[list[int]] = [[] for _ in requests]
        for index, token in self.stream(requests):
            if token is not None:
                token_ids[index].append(token)
        return token_ids

    def _sample(self) -> Tensor:
        """The next token of each active request: (active,), where the logits are."""
        logits = self.logits.float()  # (active, vocabulary)
        logits = logits.index_fill(1, self.forbidden.to(logits.device), -torch.inf)
        for row, active in enumerate(self.active):
            if active.request.constraint is not None:
                barred = active.request.constraint(active.tokens)
                logits[row, barred.to(logits.device)] = -torch.inf
        tokens = torch.empty(len(self.active), dtype=torch.long, device=logits.device)
        settings = [
            (row.request.temperature, row.request.top_p, row.request.top_k) for row in self.active
        ]
        for one in set(settings):
            rows = [index for index, own in enumerate(settings) if own == one]
            temperature, top_p, top_k = one
            tokens[rows] = sample_tokens(
                logits if len(rows) == len(settings) else logits[rows],
                temperature,
                top_p,
                [self.active[row].request.seed for row in rows],
                [len(self.active[row].tokens) for row in rows],
                top_k,
            )
        return tokens

    def _admit(self) -> None:
        """Prefills queued requests for the free slots and adds them to the batch."""
        new = [
            self.queue.popleft()
            for _ in range(min(self.max_batch_size - len(self.active), len(self.queue)))
        ]
        prefixes = [row.request.prefix for row in new]
        lengths = torch.tensor([len(prefix) for prefix in prefixes])
        longest = int(lengths.max())
        padded = prefixes[0].new_zeros(len(new), longest, prefixes[0].shape[-1])
        for index, prefix in enumerate(prefixes):
            padded[index, longest - len(prefix) :] = prefix
        cache: Any = DynamicCache()
        with self.autocast():
            output = self.model(
                inputs_embeds=padded,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **self._masks(lengths, longest, longest, padded.device),
            )
        logits = output.logits[:, -1]
        if self.active:
            for layer, before in zip(cache.layers, self.cache.layers, strict=True):
                layer.keys = concatenate_left_padded(before.keys, layer.keys)
                layer.values = concatenate_left_padded(before.values, layer.values)
            logits = torch.cat([self.logits, logits])
            lengths = torch.cat([self.lengths, lengths])
        self.cache, self.logits, self.lengths = cache, logits, lengths
        self.active = [*self.active, *new]

    def _advance(self, tokens: Tensor) -> None:
        """Runs the model on one new token (active,) of each request."""
        length = self.cache.get_seq_length() + 1
        device = self.cache.layers[0].keys.device
        self.lengths = self.lengths + 1
        with self.autocast():
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
        """Attention mask and position ids of left-padded rows; empty where no row is padded."""
        if bool((lengths == longest).all()):
            return {}
        positions = torch.arange(longest)
        padding = longest - lengths[:, None]  # (rows, 1)
        return {
            "attention_mask": (positions >= padding).long().to(device),
            "position_ids": (positions - padding).clamp_min(0)[:, longest - new :].to(device),
        }

    def _keep(self, rows: list[int]) -> None:
        """Keeps `rows` of the batch; drops the other rows, and the KV cache columns that only they used."""
        if len(rows) == len(self.active):
            return
        self.active = [self.active[row] for row in rows]
        self.lengths, self.logits = self.lengths[rows], self.logits[rows]
        if not self.active:
            self.cache = DynamicCache()
            return
        unused = self.cache.get_seq_length() - int(self.lengths.max())
        for layer in self.cache.layers:
            layer.keys = layer.keys[rows, :, unused:]
            layer.values = layer.values[rows, :, unused:]


def concatenate_left_padded(one: Tensor, other: Tensor) -> Tensor:
    """Concatenates (rows, heads, length, width) by rows; the shorter is zero-padded on the left."""
    longest = max(one.shape[-2], other.shape[-2])
    padded = [nn.functional.pad(part, (0, 0, longest - part.shape[-2], 0)) for part in (one, other)]
    return torch.cat(padded)
