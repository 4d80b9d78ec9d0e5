"""The text generator: a causal language model conditioned on user and item by prefix tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from catalog.errors import VitrineError
from generate.conditioning import vector_tokens
from generate.text.config import WriteConfig
from generate.text.constraints import number_constraints
from generate.text.decoding import Decoder, DecodingRequest
from generate.text.grouped_nll import grouped_nll, length_groups
from generate.text.hosted import HostedModel
from generate.text.language_model import BaseModel, use_adapter
from generate.text.prompts import Conditions
from generate.text.sampling import check_sampling
from generate.text.sequences import PADDING, SOFT, Sequences, StyleIds
from generate.text.settings import TextGeneratorSettings
from generate.text.streaming import settled_prefix
from generate.text.tokenizer import Tokenizer, decode_text, reserved_ids
from generate.text.vocabulary_filter import VocabularyFilter
from pretrain.config import Precision
from pretrain.devices import Compute
from pretrain.shards import is_sharded

MAX_BATCH_SIZE = 64
"""Texts that are decoded at the same time, at most."""
STYLE_WIDTH = 64
"""Width of the style embedding."""
LENGTH_STEP = 16
"""Groups are padded to a multiple of this length: each new length costs a CPU's kernels 0.1 GiB of memory."""


class TextGenerator(nn.Module):
    """p(text | user, item, task), after CoLLM (Zhang et al. 2023) and PEPLER (Li et al. 2023).

    The language model reads a prompt, in words or not (`generate.text.sequences`), with soft tokens in it:
    user tokens, item tokens, user style tokens, and a task token where no instruction says the task; then
    the text. User and item are vectors of `width`; a zero vector, like an empty history's user state, is a
    missing condition, and learned null tokens take its place. User style tokens are a projection of the
    mean of learned embeddings of the tokens of the user's earlier reviews.
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
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.settings = settings
        self._styles = StyleIds(tokenizer)
        self.base, self.adapter = base, adapter
        self.vocabulary_filter = (
            None
            if allowed_vocabulary is None
            else VocabularyFilter(allowed_vocabulary, tokenizer if base else None)
        )
        self.tasks = tuple(task.name for task in settings.tasks)
        width, inner = settings.width, self._embedding.embedding_dim
        self.user_tokens = vector_tokens(width, settings.num_user_tokens, inner)
        self.item_tokens = vector_tokens(width, settings.num_item_tokens, inner)
        if settings.num_style_tokens:
            self.style_embedding = nn.Embedding(len(tokenizer), STYLE_WIDTH)
        self.style_tokens = vector_tokens(STYLE_WIDTH, settings.num_style_tokens, inner)
        self.task_tokens = (
            nn.Embedding(len(self.tasks), inner) if settings.prompt == "none" else None
        )
        if settings.num_soft:
            # Soft tokens start with the norm of word embeddings, which a pretrained model expects.
            scale = self._embedding.weight.detach().float().square().mean().sqrt()
            self.soft_scale = nn.Parameter(scale.reshape(1))
        self.sequences = Sequences(
            tokenizer,
            [task.request for task in settings.tasks],
            kind=settings.prompt,
            num_soft=settings.num_soft,
            max_prompt_tokens=settings.max_prompt_tokens if self._in_words else 0,
            max_tokens=settings.max_tokens,
        )
        self.uses_soft_tokens = True
        """Not within `prompt_alone`."""
        self.engine: Callable[[Sequence[DecodingRequest]], list[list[int]]] | None = None
        """An inference engine in place of `decoder` (see `generate.text.engine`)."""
        self.hosted: HostedModel | None = None
        """A hosted model that writes in place of `language_model` (see `generate.text.hosted`)."""
        self.precision: Precision = "32-true"
        """Of texts that are generated or scored; in training the trainer's context decides."""
        self._check_length()

    @property
    def reads_facts(self) -> bool:
        """Whether a pretrained model reads facts in words, and so can write without any training."""
        return self.settings.prompt == "facts" and isinstance(self.language_model, PeftModel)

    @property
    def _in_words(self) -> bool:
        return self.settings.prompt == "facts" or self.settings.num_history_items > 0

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

        See `soft_tokens` for the conditions, and `Sequences.training_rows` for `token_ids` and `labels`,
        int (batch, length) both.
        """
        soft = self.soft_tokens(user_states, item_vectors, style_ids, task_ids)
        groups = self._groups(token_ids)
        parts = [self._nll(soft[rows], token_ids[rows], labels[rows]) for rows in groups]
        back = torch.cat(groups).argsort()
        nll, counts = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        return nll, counts

    def summed_nll(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of `forward`, which has the same arguments, over a training batch: scalars both.
        Activations of one group of texts exist at a time where a model reads facts.

        Not under ZeRO-3, whose weights are whole only in the pass that gathers them, nor in float16, whose
        gradients need the scale that only the whole loss has.
        """
        *inputs, token_ids, labels = batch
        half = torch.get_autocast_dtype(token_ids.device.type) == torch.float16
        if not self.reads_facts or is_sharded(self) or (torch.is_autocast_enabled() and half):
            nll, counts = self(*batch)
            return nll.sum(), counts.sum()

        def nll_of(rows: Tensor, soft: Tensor) -> Tensor:
            return self._nll(soft, token_ids[rows], labels[rows])[0].sum()

        # peft would keep a float32 copy of every input of LoRA, which autocast casts back to half.
        cast = torch.is_autocast_enabled(token_ids.device.type)
        with disable_input_dtype_casting(self.language_model, active=cast):
            total = grouped_nll(
                nll_of,
                self.soft_tokens(*inputs),
                self._groups(token_ids),
                list(self.language_model.parameters()),
            )
        return total, (labels >= 0).sum()

    def _groups(self, token_ids: Tensor) -> list[Tensor]:
        """Rows of a batch, in groups that go through the model together (see `length_groups`)."""
        lengths = (token_ids != PADDING).sum(dim=1)
        if not self.reads_facts:
            return [torch.arange(len(lengths), device=lengths.device)]
        return length_groups(lengths, fixed=is_sharded(self))

    def _nll(self, soft: Tensor, token_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with the soft tokens (batch, soft, inner width)."""
        longest = int((token_ids != PADDING).sum(dim=1).max())
        if self.reads_facts:
            longest = -(-longest // LENGTH_STEP) * LENGTH_STEP
        token_ids, labels = token_ids[:, :longest], labels[:, 1:longest]
        # Logits only where a text is; by index, since a slice makes the last layer copy its weights.
        columns = (labels >= 0).any(dim=0).nonzero()[:, 0]
        labels = labels[:, columns]
        # The last token predicts nothing. Padding follows the text, so no real token attends to it.
        logits = self.language_model(
            inputs_embeds=self.embed_sequences(token_ids[:, :-1], soft),
            logits_to_keep=columns,
            use_cache=False,
        ).logits  # (batch, length, vocabulary)
        token_nll = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=PADDING, reduction="none"
        )
        return token_nll.view_as(labels).sum(dim=1), (labels >= 0).sum(dim=1)

    def embed_sequences(self, token_ids: Tensor, soft: Tensor) -> Tensor:
        """Embeddings (batch, length, inner width) of ids (batch, length), soft tokens in their slots."""
        embedded = self._embedding(token_ids.clamp_min(0))
        slots = token_ids == SOFT
        if not soft.shape[1]:
            return embedded
        return embedded.masked_scatter(slots[..., None], soft.to(embedded.dtype))

    def soft_tokens(
        self, user_states: Tensor, item_vectors: Tensor, style_ids: Tensor, task_ids: Tensor
    ) -> Tensor:
        """Embeddings of the soft tokens: (batch, width), (batch, width), (batch, length), (batch,) →
        (batch, soft, inner width).

        `style_ids` are tokens of the user's earlier reviews, padded with −100; all −100: no reviews.
        """
        tokens: list[Tensor] = []
        if not (self.uses_soft_tokens and self.settings.num_soft):
            return user_states.new_zeros(len(task_ids), 0, self._embedding.embedding_dim)
        if self.user_tokens is not None:
            tokens.append(self.user_tokens(user_states))
        if self.item_tokens is not None:
            tokens.append(self.item_tokens(item_vectors))
        if self.style_tokens is not None:
            mask = (style_ids >= 0)[..., None]
            summed = (self.style_embedding(style_ids.clamp_min(0)) * mask).sum(dim=1)
            mean = summed / mask.sum(dim=1).clamp_min(1)
            tokens.append(self.style_tokens(mean, mask.any(dim=1)[:, 0]))
        if self.task_tokens is not None:
            tokens.append(self.task_tokens(task_ids)[:, None])
        return torch.cat(tokens, dim=1) * self.soft_scale

    @contextmanager
    def prompt_alone(self) -> Iterator[None]:
        """Within it, the language model writes as it came: by the prompt in words, without LoRA and without
        soft tokens (zero-shot). VitrineError without such a prompt."""
        if not self.reads_facts:
            raise VitrineError(
                "a generator writes by its prompt alone where it has a pretrained model and prompt facts"
            )
        self.uses_soft_tokens = False
        try:
            assert isinstance(self.language_model, PeftModel)
            with self.language_model.disable_adapter():
                yield
        finally:
            self.uses_soft_tokens = True

    @torch.inference_mode()
    def text_nll(
        self, conditions: Conditions, task: str, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood (nats) and number of tokens of each text: (batch,) both."""
        use_adapter(self.language_model, self.adapter)
        inputs = self.condition_inputs(conditions, task, len(texts))
        tasks = [self.tasks.index(task)] * len(texts)
        soft = self.uses_soft_tokens
        rows = self.sequences.training_rows(tasks, conditions.data, texts, soft)
        with self.compute.autocast():
            return self(*inputs, *(part.to(inputs[0].device) for part in rows))

    def style_ids(self, style_texts: Sequence[str] | None, num_texts: int) -> Tensor:
        """`style_ids` of `prefix` for users' earlier reviews: (texts, longest), the newest tokens."""
        if style_texts is None or not self.settings.num_style_tokens:
            return torch.full((num_texts, 1), PADDING)
        return self._styles.ids(style_texts)

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
        if self.hosted:
            config = config or WriteConfig()
            check_sampling(config, seeds)
            longest = min(config.max_tokens, self.settings.max_tokens)
            asked = self.settings.tasks[self.tasks.index(task)]
            texts = self.hosted.write(asked, conditions.data, seeds, config, longest)
        else:
            requests = self.requests(conditions, task, seeds=seeds, config=config)
            decoder = self.decoder(max_batch_size=min(MAX_BATCH_SIZE, len(requests)))
            generated = (self.engine or decoder.generate)(requests)
            texts = [decode_text(self.tokenizer, token_ids) for token_ids in generated]
        allowed = self.item_texts(conditions, task) or [""] * len(texts)
        return [
            self._filter_vocabulary(text, item_text)
            for text, item_text in zip(texts, allowed, strict=True)
        ]

    def item_texts(self, conditions: Conditions, task: str) -> Sequence[str] | None:
        """Texts of the items, whose words pass the vocabulary filter; None: of no item.

        Where a text speaks for the user, a word that only the seller has written is left out of it.
        """
        alone = self.settings.tasks[self.tasks.index(task)].speaks_for_the_user
        return None if alone else conditions.item_texts

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
        inputs = self.condition_inputs(conditions, task, len(seeds))
        tasks = [self.tasks.index(task)] * len(seeds)
        with self.compute.autocast():
            soft = self.soft_tokens(*inputs)
            prompts = self.sequences.prompts(tasks, conditions.data, soft=self.uses_soft_tokens)
            prefixes = [
                self.embed_sequences(torch.tensor([ids], device=soft.device), own[None])[0]
                for ids, own in zip(prompts, soft, strict=True)
            ]
        most = min(config.max_tokens, self.settings.max_tokens)
        item_texts = conditions.item_texts if config.constrain_numbers else None
        size = self.language_model.config.vocab_size
        hooks = number_constraints(self.tokenizer, size, item_texts or [""] * len(seeds))
        return [
            DecodingRequest(
                prefix, seed, config.temperature, config.top_p, most, config.top_k, hook
            )
            for prefix, seed, hook in zip(prefixes, seeds, hooks, strict=True)
        ]

    def decoder(self, max_batch_size: int = 32) -> Decoder:
        """A decoder with continuous batching, also for several tasks; it generates no special tokens."""
        use_adapter(self.language_model, self.adapter)
        return Decoder(
            self.language_model,
            ends=self.sequences.ends,
            forbidden=self.forbidden_tokens(),
            max_batch_size=max_batch_size,
            autocast=self.compute.autocast,
        )

    @property
    def compute(self) -> Compute:
        return Compute(self._embedding.weight.device, self.precision)

    @property
    def _embedding(self) -> nn.Embedding:
        found = self.language_model.get_input_embeddings()
        assert isinstance(found, nn.Embedding)
        return found

    def forbidden_tokens(self) -> list[int]:
        """Tokens that are never generated: special tokens but the end, and unused vocabulary rows."""
        unused = range(len(self.tokenizer), self.language_model.config.vocab_size)
        return sorted({*(reserved_ids(self.tokenizer) - self.sequences.ends), *unused})

    def condition_inputs(
        self, conditions: Conditions, task: str, num_texts: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `prefix`; zeros for missing conditions."""
        if task not in self.tasks:
            raise VitrineError(
                f"this generator was not trained on the task {task!r}; it writes "
                f"{', '.join(self.tasks)}."
            )
        device = self.compute.device
        missing = torch.zeros(num_texts, self.settings.width, device=device)
        users, items = (
            missing if vectors is None else vectors.to(device).float()
            for vectors in (conditions.user_states, conditions.item_vectors)
        )
        style_ids = self.style_ids(conditions.style_texts, num_texts).to(device)
        task_ids = torch.full((num_texts,), self.tasks.index(task), device=device)
        return users, items, style_ids, task_ids

    def _check_length(self) -> None:
        limit = getattr(self.language_model.config, "max_position_embeddings", None)
        prompt, longest = self.sequences.longest, self.settings.max_tokens
        if limit and prompt + longest > limit:
            raise VitrineError(
                f"max_tokens {longest} and {prompt} tokens of the prompt do not fit into the {limit} "
                f"positions of the language model; set max_tokens to {max(1, limit - prompt)}"
                + (" or lower max_prompt_tokens." if self._in_words else ".")
            )
