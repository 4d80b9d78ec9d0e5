"""The text generator: a causal language model that reads a person and an item as prefix tokens."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from catalog.errors import VitrineError
from generate.conditioning import VectorTokens
from generate.text.config import WriteConfig
from generate.text.decoding import Decoder, Request
from generate.text.language_model import BaseModel, add_adapter, load_adapted, use_adapter
from generate.text.prompts import Conditions
from generate.text.scripts import UNSPACED
from generate.text.tasks import Task, load_task, read_task
from generate.text.tokenizer import (
    Tokenizer,
    decode_text,
    encode_texts,
    plain_ids,
    reserved_ids,
    special_id,
)
from generate.text.vouched import Vouched
from pretrain.artifact import without_bars
from pretrain.shards import float32_state

_SETTINGS, _PROJECTOR, _VOUCHED = "generator.json", "projector.safetensors", "vouched.txt"
SLOTS = 64
"""Texts that are written at a time, at most."""
VOICE_WIDTH, VOICE_TOKENS = 64, 256
"""Of a token's vector in a voice, and tokens of a voice, the newest."""
_WORD, _JOINED = re.compile(r"[^\W_]+$"), re.compile(rf"[^\s{UNSPACED}]+$")
_OPEN = re.compile(r"[<\[#＜][^>\]＞]{0,100}$")
"""What may yet turn out to be a mark that no text holds."""
LANGUAGE_MODEL, ADAPTER, TOKENIZER = "language_model", "adapter", "tokenizer"
"""Folders of a generator's parts."""


class TextGenerator(nn.Module):
    """p(words | person, item, task), after CoLLM (Zhang et al. 2023) and PEPLER (Li et al. 2023).

    The language model reads `[begin] user tokens, item tokens, voice tokens, task token`, then, where it
    is told histories in words, those, then the words it is to write. Person and item are vectors of
    `width`; a zero vector, like an empty history's user state, means that the condition is absent, and
    learned null tokens take its place. The voice is what the person said before: the mean of learned
    vectors of its tokens.
    """

    def __init__(
        self,
        language_model: PreTrainedModel | PeftModel,
        tokenizer: Tokenizer,
        *,
        width: int,
        tasks: Sequence[Task | str],
        num_user_tokens: int = 4,
        num_item_tokens: int = 4,
        num_voice_tokens: int = 0,
        max_tokens: int = 64,
        history_items: int = 0,
        history_tokens: int = 128,
        base: BaseModel | None = None,
        adapter: str = "default",
        vouched: Iterable[str] | None = None,
    ) -> None:
        """`num_voice_tokens` 0: what people said before is not read. `history_items` of a history are
        told in words, in at most `history_tokens` tokens. `adapter`: the name of its low-rank updates
        on a base that several generators share. `vouched`: words that may be said of any item (see
        `generate.text.vouched`); None: all."""
        super().__init__()
        end = special_id(tokenizer, "eos")
        assert end is not None, "language_model.py sees to it"
        embedding = language_model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.base, self.adapter = base, adapter
        self.vouched = None if vouched is None else Vouched(vouched, tokenizer if base else None)
        self.width = width
        self.learned = tuple(t if isinstance(t, Task) else load_task(t) for t in tasks)
        self.tasks = tuple(task.name for task in self.learned)
        self.max_tokens = max_tokens
        self.history_items, self.history_tokens = history_items, history_tokens
        inner = embedding.embedding_dim
        self.user_tokens = VectorTokens(width, num_tokens=num_user_tokens, token_width=inner)
        self.item_tokens = VectorTokens(width, num_tokens=num_item_tokens, token_width=inner)
        self.num_voice_tokens = num_voice_tokens
        if num_voice_tokens:
            self.voice = nn.Embedding(len(tokenizer), VOICE_WIDTH)
            self.voice_tokens = VectorTokens(VOICE_WIDTH, num_voice_tokens, token_width=inner)
        self.task_tokens = nn.Embedding(len(self.tasks), inner)
        # Prefix tokens start as long as word embeddings are, which a pretrained model expects.
        scale = embedding.weight.detach().float().square().mean().sqrt()
        self.prefix_scale = nn.Parameter(scale.reshape(1))
        self.engine: Callable[[Sequence[Request]], list[list[int]]] | None = None
        """Writes requests in the decoder's place (see `generate.text.engine`)."""
        self.begin, self.end = special_id(tokenizer, "bos"), end
        self._check_length()

    def forward(
        self,
        user_states: Tensor,
        item_vectors: Tensor,
        voice_ids: Tensor,
        task_ids: Tensor,
        token_ids: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood (nats) and number of tokens of each text: (batch,) both.

        See `prefix`. `token_ids` (batch, length): what is told in words, then the text; `labels` the
        same, with −100 for what is told. Both are filled up with −100 on the right.
        """
        prefix = self.prefix(user_states, item_vectors, voice_ids, task_ids)
        # The last token predicts nothing. Filler follows the words, so no real token sees it.
        words = self._embed(token_ids[:, :-1].clamp_min(0))
        logits = self.language_model(
            inputs_embeds=torch.cat([prefix, words], dim=1),
            logits_to_keep=token_ids.shape[1],
            use_cache=False,
        ).logits  # (batch, length, vocabulary)
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
        )
        return losses.view_as(labels).sum(dim=1), (labels >= 0).sum(dim=1)

    def prefix(
        self, user_states: Tensor, item_vectors: Tensor, voice_ids: Tensor, task_ids: Tensor
    ) -> Tensor:
        """(batch, width), (batch, width), (batch, said), (batch,) → (batch, prefix, inner width).

        `voice_ids` are tokens of what a person said before, filled up with −100; all −100: nothing.
        """
        tokens = [
            self.user_tokens(user_states),
            self.item_tokens(item_vectors),
            *self._voice(voice_ids),
            self.task_tokens(task_ids)[:, None],
        ]
        prefix = torch.cat(tokens, dim=1) * self.prefix_scale
        if self.begin is None:
            return prefix
        begin = self._embed(torch.full_like(task_ids, self.begin)[:, None])
        return torch.cat([begin, prefix], dim=1)

    @torch.inference_mode()
    def loss_per_text(
        self, conditions: Conditions, task: str, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood (nats) and token count of each text: (batch,) both."""
        use_adapter(self.language_model, self.adapter)
        told = self._told(conditions, task, len(texts))
        token_ids, labels = self.tokens(conditions.histories, texts)
        return self(*told, token_ids.to(told[0].device), labels.to(told[0].device))

    def tokens(
        self, histories: Sequence[str] | None, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """What `forward` takes of texts and of what is told before them: `token_ids` and `labels`."""
        told = self.history_ids(histories, len(texts))
        written = encode_texts(self.tokenizer, texts, self.max_tokens)
        both = [[*before, *ids] for before, ids in zip(told, written, strict=True)]
        labels = [[*[-100] * len(before), *ids] for before, ids in zip(told, written, strict=True)]
        return pad_tokens(both), pad_tokens(labels)

    def history_ids(self, histories: Sequence[str] | None, num_texts: int) -> list[list[int]]:
        """Token ids of what is told in words, a line of its own; the newest, where it is too long."""
        if histories is None or not self.history_items:
            return [[] for _ in range(num_texts)]
        # Only here: no text that is cleaned can end its line.
        line_end = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        room = self.history_tokens - len(line_end)
        told = plain_ids(self.tokenizer, histories)
        return [[*ids[-room:], *line_end] if ids else [] for ids in told]

    def voice_ids(self, voices: Sequence[str] | None, num_texts: int) -> Tensor:
        """What `prefix` takes of what people said before: (texts, longest), the newest of it."""
        if voices is None or not self.num_voice_tokens:
            return torch.full((num_texts, 1), -100)
        said = plain_ids(self.tokenizer, voices)
        return pad_tokens([ids[-VOICE_TOKENS:] or [-100] for ids in said])

    def _voice(self, voice_ids: Tensor) -> list[Tensor]:
        if not self.num_voice_tokens:
            return []
        known = (voice_ids >= 0)[..., None]
        summed = (self.voice(voice_ids.clamp_min(0)) * known).sum(dim=1)
        return [self.voice_tokens(summed / known.sum(dim=1).clamp_min(1), known.any(dim=1)[:, 0])]

    def write(
        self,
        conditions: Conditions,
        task: str,
        *,
        seeds: Sequence[int],
        config: WriteConfig | None = None,
    ) -> list[str]:
        """One text for each seed, which overrules that of `config`.

        The same request with the same seed gives the same words, whatever else is in the batch.
        """
        requests = self.requests(conditions, task, seeds=seeds, config=config)
        if self.engine is None:
            written = self.decoder(slots=min(SLOTS, len(requests))).write(requests)
        else:
            written = self.engine(requests)
        own = [""] * len(written) if conditions.own is None else conditions.own
        return [
            self._vouch(decode_text(self.tokenizer, token_ids), said)
            for token_ids, said in zip(written, own, strict=True)
        ]

    def _vouch(self, text: str, own: str) -> str:
        return text if self.vouched is None else self.vouched.keep(text, own)

    def stream(self, request: Request, own: str = "") -> Iterator[str]:
        """The words of one request, piece by piece as they are written; joined, what `write` gives.

        `own`: what the catalog says of its item.
        """
        token_ids: list[int] = []
        shown = ""
        for _, token in self.decoder(slots=1).stream([request]):
            token_ids += [] if token is None else [token]
            text = decode_text(self.tokenizer, token_ids)
            if token is not None:
                text = settled(text, self.vouched is not None)
            sure = self._vouch(text, own)
            if len(sure) > len(shown):
                yield sure[len(shown) :]
                shown = sure

    @torch.inference_mode()
    def requests(
        self,
        conditions: Conditions,
        task: str,
        *,
        seeds: Sequence[int],
        config: WriteConfig | None = None,
    ) -> list[Request]:
        """What `decoder` is given for texts as `write` would write them."""
        config = config or WriteConfig()
        if not 0 <= config.temperature < inf or not 0 < config.top_p <= 1:
            raise VitrineError(
                f"temperature {config.temperature} and top_p {config.top_p}: give a temperature of 0 "
                "or more and a top_p above 0, at most 1."
            )
        if config.max_tokens < 1:
            raise VitrineError(f"max_tokens is {config.max_tokens}; give 1 or more.")
        if not all(0 <= seed < 2**63 for seed in seeds):
            raise VitrineError(f"a seed is {min(seeds)} … {max(seeds)}; give 0 to 2⁶³ - 1.")
        prefixes = list(self.prefix(*self._told(conditions, task, len(seeds))))
        for place, ids in enumerate(self.history_ids(conditions.histories, len(seeds))):
            if ids:
                told = self._embed(torch.tensor(ids, device=prefixes[place].device))
                prefixes[place] = torch.cat([prefixes[place], told])
        most = min(config.max_tokens, self.max_tokens)
        return [
            Request(prefix, seed, config.temperature, config.top_p, most)
            for prefix, seed in zip(prefixes, seeds, strict=True)
        ]

    def decoder(self, slots: int = 32) -> Decoder:
        """Writes many requests at once, of several tasks too; special tokens never come out of it."""
        use_adapter(self.language_model, self.adapter)
        return Decoder(self.language_model, end=self.end, forbidden=self.forbidden(), slots=slots)

    def forbidden(self) -> list[int]:
        """Tokens that are never written: special ones but the end, and rows that stand for none."""
        vocabulary = self.language_model.config.vocab_size
        unused = range(len(self.tokenizer), vocabulary)
        return sorted({*(reserved_ids(self.tokenizer) - {self.end}), *unused})

    @property
    def rank(self) -> int:
        """Of the low-rank updates on a pretrained base; 0 without one."""
        if not isinstance(self.language_model, PeftModel):
            return 0
        return int(getattr(self.language_model.peft_config[self.adapter], "r", 0))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that `from_pretrained` reads: the language model whole if it was built
        here, only its adapter and the base's name and fingerprint if it was pretrained."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "width": self.width,
            "tasks": [asdict(task) for task in self.learned],
            "num_user_tokens": self.user_tokens.num_tokens,
            "num_item_tokens": self.item_tokens.num_tokens,
            "num_voice_tokens": self.num_voice_tokens,
            "max_tokens": self.max_tokens,
            "history_items": self.history_items,
            "history_tokens": self.history_tokens,
            "base": asdict(self.base) if self.base else None,
        }
        if self.base:
            # "auto" would ask the hub whether the vocabulary had grown; it never does here.
            assert self.adapter == "default", "only a generator that has its base alone is saved"
            self.language_model.save_pretrained(
                str(folder / ADAPTER),
                state_dict=float32_state(self.language_model),
                save_embedding_layers=False,
            )
            # A model card full of placeholders; the artifact's manifest says what is true.
            (folder / ADAPTER / "README.md").unlink(missing_ok=True)
        else:
            with without_bars():
                self.language_model.save_pretrained(
                    str(folder / LANGUAGE_MODEL), state_dict=float32_state(self.language_model)
                )
        self.tokenizer.save_pretrained(folder / TOKENIZER)
        if self.vouched is not None:
            (folder / _VOUCHED).write_text("\n".join(sorted(self.vouched.words)), encoding="utf8")
        save_file(self._projector(), folder / _PROJECTOR)
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, beside: "TextGenerator | None" = None) -> Self:
        """Reads what `save_pretrained` wrote; ready to write, on the CPU, in float32.

        `beside`: one with the same pretrained base, which then is in memory once; they take turns.
        """
        folder = Path(folder)
        settings = json.loads((folder / _SETTINGS).read_text())
        if any(isinstance(told, str) for told in settings["tasks"]):
            raise VitrineError(
                f"{folder} was written by an earlier version, without its tasks' templates; train it "
                "again (vitrine train text)"
            )
        settings["tasks"] = [
            read_task(told.pop("name"), told, folder) for told in settings["tasks"]
        ]
        reference = settings.pop("base")
        base = BaseModel(**reference) if reference else None
        adapter = "default"
        if base and beside:
            language_model = beside.language_model
            adapter = add_adapter(language_model, base, beside.base, folder / ADAPTER)
        elif base:
            language_model = load_adapted(base, folder / ADAPTER)
        else:
            with without_bars():
                language_model = AutoModelForCausalLM.from_pretrained(
                    folder / LANGUAGE_MODEL, dtype=torch.float32
                )
        tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
        if (folder / _VOUCHED).exists():
            settings["vouched"] = (folder / _VOUCHED).read_text(encoding="utf8").split("\n")
        generator = cls(language_model, tokenizer, base=base, adapter=adapter, **settings)
        generator.load_state_dict(load_file(folder / _PROJECTOR), strict=False)
        return generator.eval()

    def _projector(self) -> dict[str, Tensor]:
        return {
            name: weight.cpu().contiguous()
            for name, weight in float32_state(self).items()
            if not name.startswith("language_model.")
        }

    def _embed(self, token_ids: Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(token_ids)

    def _told(
        self, conditions: Conditions, task: str, num_texts: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `prefix` takes."""
        if task not in self.tasks:
            raise VitrineError(
                f"this generator has not learned the task {task!r}; it writes "
                f"{', '.join(self.tasks)}."
            )
        device = self.prefix_scale.device
        absent = torch.zeros(num_texts, self.width, device=device)
        users, items = (
            absent if vectors is None else vectors.to(device).float()
            for vectors in (conditions.user_states, conditions.item_vectors)
        )
        voices = self.voice_ids(conditions.voices, num_texts).to(device)
        task_ids = torch.full((num_texts,), self.tasks.index(task), device=device)
        return users, items, voices, task_ids

    def _check_length(self) -> None:
        limit = getattr(self.language_model.config, "max_position_embeddings", None)
        prefix = self.user_tokens.num_tokens + self.item_tokens.num_tokens + 2
        prefix += self.num_voice_tokens
        prefix += self.history_tokens if self.history_items else 0
        if limit and prefix + self.max_tokens > limit:
            raise VitrineError(
                f"max_tokens {self.max_tokens} and {prefix} prefix tokens do not fit into the "
                f"{limit} positions of the language model; set max_tokens to {limit - prefix}."
            )


def settled(text: str, vouched: bool) -> str:
    """What no later token of a text changes any more.

    A letter may take several tokens, an accent that follows becomes one with it, and words that signs
    join are vouched for as a whole.
    """
    open_word = _JOINED if vouched else _WORD
    return open_word.sub("", _OPEN.sub("", text[:-1])).rstrip()


def pad_tokens(token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Ragged token ids -> (batch, longest), filled up with −100, which no loss counts."""
    longest = max(map(len, token_ids))
    return torch.tensor([[*ids, *[-100] * (longest - len(ids))] for ids in token_ids])
