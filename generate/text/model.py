"""The text generator: a causal language model conditioned on user and item by prefix tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from catalog.errors import VitrineError
from generate.conditioning import VectorTokens
from generate.text.config import WriteConfig
from generate.text.decoding import Decoder, DecodingRequest
from generate.text.language_model import BaseModel, use_adapter
from generate.text.prompts import Conditions
from generate.text.streaming import settled_prefix
from generate.text.tasks import Task
from generate.text.tokenizer import (
    Tokenizer,
    decode_text,
    encode_texts,
    plain_ids,
    reserved_ids,
    special_id,
)
from generate.text.vocabulary_filter import VocabularyFilter
from pretrain.config import Precision
from pretrain.devices import Compute

MAX_BATCH_SIZE = 64
"""Texts that are decoded at the same time, at most."""
STYLE_WIDTH, MAX_STYLE_TOKENS = 64, 256
"""Width of the style embedding, and newest tokens of earlier reviews that are read, at most."""
MAX_CACHED_STYLES = 16_384
"""Users' reviews whose token ids are cached, at most."""


@dataclass(frozen=True)
class TextGeneratorSettings:
    """Sizes and tasks of a text generator, as they are stored with its weights."""

    width: int
    """Width of user states and item vectors."""
    tasks: tuple[Task, ...]
    num_user_tokens: int = 4
    num_item_tokens: int = 4
    num_style_tokens: int = 0
    """User style tokens; 0: earlier reviews are not read."""
    max_tokens: int = 64
    """Longest text, in tokens."""
    num_history_items: int = 0
    """Titles of the history that go into the prompt as text."""
    max_history_tokens: int = 128
    """Longest history text, in tokens."""


class TextGenerator(nn.Module):
    """p(text | user, item, task), after CoLLM (Zhang et al. 2023) and PEPLER (Li et al. 2023).

    The language model reads `[begin] user tokens, item tokens, user style tokens, task token`, then the
    history as text where `num_history_items` is set, then the text. User and item are vectors of `width`;
    a zero vector, like an empty history's user state, is a missing condition, and learned null tokens
    take its place. User style tokens are a projection of the mean of learned embeddings of the tokens of
    the user's earlier reviews.
    """

    def __init__(
        self,
        language_model: PreTrainedModel | PeftModel,
        tokenizer: Tokenizer,
        settings: TextGeneratorSettings,
        *,
        base: BaseModel | None = None,
        adapter: str = "default",
        allowed_vocabulary: Iterable[str] | None = None,
    ) -> None:
        """`adapter`: name of this generator's LoRA adapter on a base that several generators share.
        `allowed_vocabulary`: words that may be written about any item; None: all words."""
        super().__init__()
        end = special_id(tokenizer, "eos")
        assert end is not None, "language_model.py checks it"
        embedding = language_model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.settings = settings
        self._style_ids: dict[str, list[int]] = {}
        self.base, self.adapter = base, adapter
        self.vocabulary_filter = (
            None
            if allowed_vocabulary is None
            else VocabularyFilter(allowed_vocabulary, tokenizer if base else None)
        )
        self.tasks = tuple(task.name for task in settings.tasks)
        width, inner = settings.width, embedding.embedding_dim
        self.user_tokens = VectorTokens(width, settings.num_user_tokens, token_width=inner)
        self.item_tokens = VectorTokens(width, settings.num_item_tokens, token_width=inner)
        if settings.num_style_tokens:
            self.style_embedding = nn.Embedding(len(tokenizer), STYLE_WIDTH)
            self.style_tokens = VectorTokens(
                STYLE_WIDTH, settings.num_style_tokens, token_width=inner
            )
        self.task_tokens = nn.Embedding(len(self.tasks), inner)
        # Prefix tokens start with the norm of word embeddings, which a pretrained model expects.
        scale = embedding.weight.detach().float().square().mean().sqrt()
        self.prefix_scale = nn.Parameter(scale.reshape(1))
        self.engine: Callable[[Sequence[DecodingRequest]], list[list[int]]] | None = None
        """An inference engine in place of `decoder` (see `generate.text.engine`)."""
        self.precision: Precision = "32-true"
        """Of texts that are generated or scored; in training the trainer's context decides."""
        self.begin, self.end = special_id(tokenizer, "bos"), end
        self._check_length()

    def forward(
        self,
        user_states: Tensor,
        item_vectors: Tensor,
        style_ids: Tensor,
        task_ids: Tensor,
        token_ids: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood (nats) and number of tokens of each text: (batch,) both.

        See `prefix` for the conditions. `token_ids` (batch, length): the history as text, then the text;
        `labels`: the same, with −100 for the history. Both are padded with −100 on the right.
        """
        prefix = self.prefix(user_states, item_vectors, style_ids, task_ids)
        # The last token predicts nothing. Padding follows the text, so no real token attends to it.
        embedded = self._embed(token_ids[:, :-1].clamp_min(0))
        logits = self.language_model(
            inputs_embeds=torch.cat([prefix, embedded], dim=1),
            logits_to_keep=token_ids.shape[1],
            use_cache=False,
        ).logits  # (batch, length, vocabulary)
        token_nll = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
        )
        return token_nll.view_as(labels).sum(dim=1), (labels >= 0).sum(dim=1)

    def prefix(
        self, user_states: Tensor, item_vectors: Tensor, style_ids: Tensor, task_ids: Tensor
    ) -> Tensor:
        """Prefix embeddings: (batch, width), (batch, width), (batch, length), (batch,) → (batch, prefix,
        inner width).

        `style_ids` are tokens of the user's earlier reviews, padded with −100; all −100: no reviews.
        """
        tokens = [
            self.user_tokens(user_states),
            self.item_tokens(item_vectors),
            *self._style_tokens(style_ids),
            self.task_tokens(task_ids)[:, None],
        ]
        prefix = torch.cat(tokens, dim=1) * self.prefix_scale
        if self.begin is None:
            return prefix
        begin = self._embed(torch.full_like(task_ids, self.begin)[:, None])
        return torch.cat([begin, prefix], dim=1)

    def _style_tokens(self, style_ids: Tensor) -> list[Tensor]:
        if not self.settings.num_style_tokens:
            return []
        mask = (style_ids >= 0)[..., None]
        summed = (self.style_embedding(style_ids.clamp_min(0)) * mask).sum(dim=1)
        mean = summed / mask.sum(dim=1).clamp_min(1)
        return [self.style_tokens(mean, mask.any(dim=1)[:, 0])]

    @torch.inference_mode()
    def text_nll(
        self, conditions: Conditions, task: str, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood (nats) and number of tokens of each text: (batch,) both."""
        use_adapter(self.language_model, self.adapter)
        inputs = self.condition_inputs(conditions, task, len(texts))
        token_ids, labels = self.tokens(conditions.histories, texts)
        device = inputs[0].device
        with self.compute.autocast():
            return self(*inputs, token_ids.to(device), labels.to(device))

    def tokens(
        self, histories: Sequence[str] | None, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """`token_ids` and `labels` of `forward`, for texts and the histories before them."""
        before = self.history_ids(histories, len(texts))
        after = encode_texts(self.tokenizer, texts, self.settings.max_tokens)
        pairs = list(zip(before, after, strict=True))
        return (
            pad_tokens([[*history, *text] for history, text in pairs]),
            pad_tokens([[*[-100] * len(history), *text] for history, text in pairs]),
        )

    def history_ids(self, histories: Sequence[str] | None, num_texts: int) -> list[list[int]]:
        """Token ids of histories as text, each a line of its own; the newest, where it is too long."""
        if histories is None or not self.settings.num_history_items:
            return [[] for _ in range(num_texts)]
        # The only newline in a prompt: cleaned texts contain none.
        line_end = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        room = self.settings.max_history_tokens - len(line_end)
        encoded = plain_ids(self.tokenizer, histories)
        return [[*ids[-room:], *line_end] if ids else [] for ids in encoded]

    def style_ids(self, style_texts: Sequence[str] | None, num_texts: int) -> Tensor:
        """`style_ids` of `prefix` for users' earlier reviews: (texts, longest), the newest tokens."""
        if style_texts is None or not self.settings.num_style_tokens:
            return torch.full((num_texts, 1), -100)
        known = self._style_ids
        if len(known) > MAX_CACHED_STYLES:
            known.clear()
        # The same users' reviews are read under each condition and for each task.
        new = [text for text in dict.fromkeys(style_texts) if text not in known]
        encoded = plain_ids(self.tokenizer, new)
        for text, ids in zip(new, encoded, strict=True):
            known[text] = ids[-MAX_STYLE_TOKENS:] or [-100]
        return pad_tokens([known[text] for text in style_texts])

    def write(
        self,
        conditions: Conditions,
        task: str,
        *,
        seeds: Sequence[int],
        config: WriteConfig | None = None,
    ) -> list[str]:
        """Generates one text for each of `seeds`, which replace `config.seed`.

        The same conditions with the same seed give the same text, whatever else is in the batch.
        """
        requests = self.requests(conditions, task, seeds=seeds, config=config)
        if self.engine is None:
            decoder = self.decoder(max_batch_size=min(MAX_BATCH_SIZE, len(requests)))
            generated = decoder.generate(requests)
        else:
            generated = self.engine(requests)
        item_texts = conditions.item_texts or [""] * len(generated)
        return [
            self._filter_vocabulary(decode_text(self.tokenizer, token_ids), item_text)
            for token_ids, item_text in zip(generated, item_texts, strict=True)
        ]

    def _filter_vocabulary(self, text: str, item_text: str) -> str:
        if self.vocabulary_filter is None:
            return text
        return self.vocabulary_filter.filter(text, item_text)

    def stream(self, request: DecodingRequest, item_text: str = "") -> Iterator[str]:
        """Streams the text of one request in pieces as it is decoded; joined, they are the text of `write`.

        `item_text`: the item's columns as text, whose words pass the vocabulary filter.
        """
        token_ids: list[int] = []
        shown = ""
        for _, token in self.decoder(max_batch_size=1).stream([request]):
            token_ids += [] if token is None else [token]
            text = decode_text(self.tokenizer, token_ids)
            if token is not None:
                text = settled_prefix(text, filtered=self.vocabulary_filter is not None)
            text = self._filter_vocabulary(text, item_text)
            if len(text) > len(shown):
                yield text[len(shown) :]
                shown = text

    @torch.inference_mode()
    def requests(
        self,
        conditions: Conditions,
        task: str,
        *,
        seeds: Sequence[int],
        config: WriteConfig | None = None,
    ) -> list[DecodingRequest]:
        """Builds requests for `decoder`, one for each seed."""
        config = config or WriteConfig()
        check_sampling(config, seeds)
        with self.compute.autocast():
            prefixes = list(self.prefix(*self.condition_inputs(conditions, task, len(seeds))))
        for index, ids in enumerate(self.history_ids(conditions.histories, len(seeds))):
            if ids:
                history = self._embed(torch.tensor(ids, device=prefixes[index].device))
                prefixes[index] = torch.cat([prefixes[index], history])
        max_tokens = min(config.max_tokens, self.settings.max_tokens)
        return [
            DecodingRequest(prefix, seed, config.temperature, config.top_p, max_tokens)
            for prefix, seed in zip(prefixes, seeds, strict=True)
        ]

    def decoder(self, max_batch_size: int = 32) -> Decoder:
        """A decoder with continuous batching, also for several tasks; it generates no special tokens."""
        use_adapter(self.language_model, self.adapter)
        return Decoder(
            self.language_model,
            end=self.end,
            forbidden=self.forbidden_tokens(),
            max_batch_size=max_batch_size,
            autocast=self.compute.autocast,
        )

    @property
    def compute(self) -> Compute:
        return Compute(self.prefix_scale.device, self.precision)

    def forbidden_tokens(self) -> list[int]:
        """Tokens that are never generated: special tokens but the end, and unused vocabulary rows."""
        unused = range(len(self.tokenizer), self.language_model.config.vocab_size)
        return sorted({*(reserved_ids(self.tokenizer) - {self.end}), *unused})

    @property
    def lora_rank(self) -> int:
        """Rank of LoRA on a pretrained base; 0 without one."""
        if not isinstance(self.language_model, PeftModel):
            return 0
        return int(getattr(self.language_model.peft_config[self.adapter], "r", 0))

    def condition_inputs(
        self, conditions: Conditions, task: str, num_texts: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `prefix`; zeros for missing conditions."""
        if task not in self.tasks:
            raise VitrineError(
                f"this generator was not trained on the task {task!r}; it writes "
                f"{', '.join(self.tasks)}."
            )
        device = self.prefix_scale.device
        missing = torch.zeros(num_texts, self.settings.width, device=device)
        users, items = (
            missing if vectors is None else vectors.to(device).float()
            for vectors in (conditions.user_states, conditions.item_vectors)
        )
        style_ids = self.style_ids(conditions.style_texts, num_texts).to(device)
        task_ids = torch.full((num_texts,), self.tasks.index(task), device=device)
        return users, items, style_ids, task_ids

    def _embed(self, token_ids: Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(token_ids)

    def _check_length(self) -> None:
        settings = self.settings
        limit = getattr(self.language_model.config, "max_position_embeddings", None)
        prefix = settings.num_user_tokens + settings.num_item_tokens + settings.num_style_tokens + 2
        prefix += settings.max_history_tokens if settings.num_history_items else 0
        if limit and prefix + settings.max_tokens > limit:
            raise VitrineError(
                f"max_tokens {settings.max_tokens} and {prefix} prefix tokens do not fit into the "
                f"{limit} positions of the language model; set max_tokens to {limit - prefix}."
            )


def check_sampling(config: WriteConfig, seeds: Sequence[int]) -> None:
    """Raises VitrineError for sampling settings and seeds that cannot be used."""
    if not 0 <= config.temperature < inf or not 0 < config.top_p <= 1:
        raise VitrineError(
            f"temperature {config.temperature} and top_p {config.top_p}: give a temperature of 0 "
            "or more and a top_p above 0, at most 1."
        )
    if config.max_tokens < 1:
        raise VitrineError(f"max_tokens is {config.max_tokens}; give 1 or more.")
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise VitrineError(f"a seed is {min(seeds)} … {max(seeds)}; give 0 to 2⁶³ - 1.")


def pad_tokens(token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Ragged token ids → (batch, longest), padded with −100, which the loss ignores."""
    longest = max(map(len, token_ids))
    return torch.tensor([[*ids, *[-100] * (longest - len(ids))] for ids in token_ids])
