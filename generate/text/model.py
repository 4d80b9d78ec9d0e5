"""The text generator: a causal language model that reads a person and an item as prefix tokens."""

import json
from collections.abc import Iterator, Sequence
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
from generate.text.decoding import Decoder, Request
from generate.text.language_model import BaseModel, load_adapted
from generate.text.tasks import Task, load_task, read_task
from generate.text.tokenizer import Tokenizer, decode_text, encode_texts, special_id
from pretrain.artifact import without_bars

_SETTINGS, _PROJECTOR = "generator.json", "projector.safetensors"
SLOTS = 64
"""Texts that are written at a time, at most."""
_LANGUAGE_MODEL, _ADAPTER, _TOKENIZER = "language_model", "adapter", "tokenizer"


class TextGenerator(nn.Module):
    """p(words | person, item, task), after CoLLM (Zhang et al. 2023) and PEPLER (Li et al. 2023).

    The language model reads `[begin] user tokens, item tokens, task token`, then the words. Both
    conditions are vectors of `width`; a zero vector, like an empty history's user state, means that
    the condition is absent, and learned null tokens take its place.
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
        max_tokens: int = 64,
        base: BaseModel | None = None,
    ) -> None:
        super().__init__()
        end = special_id(tokenizer, "eos")
        assert end is not None, "language_model.py sees to it"
        embedding = language_model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.base = base
        self.width = width
        self.learned = tuple(t if isinstance(t, Task) else load_task(t) for t in tasks)
        self.tasks = tuple(task.name for task in self.learned)
        self.max_tokens = max_tokens
        inner = embedding.embedding_dim
        self.user_tokens = VectorTokens(width, num_tokens=num_user_tokens, token_width=inner)
        self.item_tokens = VectorTokens(width, num_tokens=num_item_tokens, token_width=inner)
        self.task_tokens = nn.Embedding(len(self.tasks), inner)
        # Prefix tokens start as long as word embeddings are, which a pretrained model expects.
        scale = embedding.weight.detach().float().square().mean().sqrt()
        self.prefix_scale = nn.Parameter(scale.reshape(1))
        self.begin, self.end = special_id(tokenizer, "bos"), end
        self._check_length()

    def forward(
        self, user_states: Tensor, item_vectors: Tensor, task_ids: Tensor, token_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood (nats) and number of tokens of each text: (batch,) both.

        `token_ids` (batch, length) is filled up with −100 on the right.
        """
        prefix = self.prefix(user_states, item_vectors, task_ids)
        # The last token predicts nothing. Filler follows the words, so no real token sees it.
        words = self._embed(token_ids[:, :-1].clamp_min(0))
        logits = self.language_model(
            inputs_embeds=torch.cat([prefix, words], dim=1),
            logits_to_keep=token_ids.shape[1],
            use_cache=False,
        ).logits  # (batch, length, vocabulary)
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), token_ids.flatten(), ignore_index=-100, reduction="none"
        )
        return losses.view_as(token_ids).sum(dim=1), (token_ids >= 0).sum(dim=1)

    def prefix(self, user_states: Tensor, item_vectors: Tensor, task_ids: Tensor) -> Tensor:
        """(batch, width), (batch, width), (batch,) -> (batch, num prefix tokens, inner width)."""
        tokens = [
            self.user_tokens(user_states),
            self.item_tokens(item_vectors),
            self.task_tokens(task_ids)[:, None],
        ]
        prefix = torch.cat(tokens, dim=1) * self.prefix_scale
        if self.begin is None:
            return prefix
        begin = self._embed(torch.full_like(task_ids, self.begin)[:, None])
        return torch.cat([begin, prefix], dim=1)

    @torch.inference_mode()
    def loss_per_text(
        self,
        user_states: Tensor | None,
        item_vectors: Tensor | None,
        task: str,
        texts: Sequence[str],
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood (nats) and token count of each text: (batch,) both."""
        users, items, task_ids = self._conditions(user_states, item_vectors, task, len(texts))
        token_ids = pad_tokens(encode_texts(self.tokenizer, texts, self.max_tokens))
        return self(users, items, task_ids, token_ids.to(task_ids.device))

    def write(
        self,
        user_states: Tensor | None,
        item_vectors: Tensor | None,
        task: str,
        *,
        seeds: Sequence[int],
        max_new_tokens: int | None = None,
        temperature: float = 0.7,
        top_p: float = 0.9,
    ) -> list[str]:
        """One text for each seed; row i is about `user_states[i]` and `item_vectors[i]`.

        The same request with the same seed gives the same words, whatever else is in the batch.
        Temperature 0 always takes the likeliest token.
        """
        requests = self.requests(
            user_states,
            item_vectors,
            task,
            seeds=seeds,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
        )
        written = self.decoder(slots=min(SLOTS, len(requests))).write(requests)
        return [decode_text(self.tokenizer, token_ids) for token_ids in written]

    def stream(self, request: Request) -> Iterator[str]:
        """The words of one request, piece by piece as they are written; joined, what `write` gives."""
        token_ids: list[int] = []
        shown = ""
        for _, token in self.decoder(slots=1).stream([request]):
            token_ids += [] if token is None else [token]
            text = decode_text(self.tokenizer, token_ids)
            # A letter may take several tokens (until the last it reads as U+FFFD), and an accent that
            # follows becomes one with it.
            sure = text if token is None else text[:-1].rstrip("\ufffd")
            if len(sure) > len(shown):
                yield sure[len(shown) :]
                shown = sure

    @torch.inference_mode()
    def requests(
        self,
        user_states: Tensor | None,
        item_vectors: Tensor | None,
        task: str,
        *,
        seeds: Sequence[int],
        max_new_tokens: int | None = None,
        temperature: float = 0.7,
        top_p: float = 0.9,
    ) -> list[Request]:
        """What `decoder` is given for texts as `write` would write them."""
        if not 0 <= temperature < inf or not 0 < top_p <= 1:
            raise VitrineError(
                f"temperature {temperature} and top_p {top_p}: give a temperature of 0 or more and "
                "a top_p above 0, at most 1."
            )
        if max_new_tokens is not None and max_new_tokens < 1:
            raise VitrineError(f"max_tokens is {max_new_tokens}; give 1 or more.")
        if not all(0 <= seed < 2**63 for seed in seeds):
            raise VitrineError(f"a seed is {min(seeds)} … {max(seeds)}; give 0 to 2⁶³ - 1.")
        most = min(max_new_tokens or self.max_tokens, self.max_tokens)
        prefixes = self.prefix(*self._conditions(user_states, item_vectors, task, len(seeds)))
        return [
            Request(prefix, seed, temperature, top_p, most)
            for prefix, seed in zip(prefixes, seeds, strict=True)
        ]

    def decoder(self, slots: int = 32) -> Decoder:
        """Writes many requests at once, of several tasks too; special tokens never come out of it."""
        vocabulary = self.language_model.config.vocab_size
        forbidden = {token for token in self.tokenizer.all_special_ids if token != self.end}
        forbidden |= set(range(len(self.tokenizer), vocabulary))
        return Decoder(self.language_model, end=self.end, forbidden=sorted(forbidden), slots=slots)

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
            "max_tokens": self.max_tokens,
            "base": asdict(self.base) if self.base else None,
        }
        if self.base:
            # "auto" would ask the hub whether the vocabulary had grown; it never does here.
            self.language_model.save_pretrained(str(folder / _ADAPTER), save_embedding_layers=False)
            # A model card full of placeholders; the artifact's manifest says what is true.
            (folder / _ADAPTER / "README.md").unlink(missing_ok=True)
        else:
            with without_bars():
                self.language_model.save_pretrained(str(folder / _LANGUAGE_MODEL))
        self.tokenizer.save_pretrained(folder / _TOKENIZER)
        save_file(self._projector(), folder / _PROJECTOR)
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Reads what `save_pretrained` wrote; ready to write, on the CPU, in float32."""
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
        if base:
            language_model = load_adapted(base, folder / _ADAPTER)
        else:
            with without_bars():
                language_model = AutoModelForCausalLM.from_pretrained(
                    folder / _LANGUAGE_MODEL, dtype=torch.float32
                )
        tokenizer = AutoTokenizer.from_pretrained(folder / _TOKENIZER)
        generator = cls(language_model, tokenizer, base=base, **settings)
        generator.load_state_dict(load_file(folder / _PROJECTOR), strict=False)
        return generator.eval()

    def _projector(self) -> dict[str, Tensor]:
        return {
            name: weight.detach().cpu().contiguous()
            for name, weight in self.state_dict().items()
            if not name.startswith("language_model.")
        }

    def _embed(self, token_ids: Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(token_ids)

    def _conditions(
        self, user_states: Tensor | None, item_vectors: Tensor | None, task: str, num_texts: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        if task not in self.tasks:
            raise VitrineError(
                f"this generator has not learned the task {task!r}; it writes "
                f"{', '.join(self.tasks)}."
            )
        device = self.prefix_scale.device
        absent = torch.zeros(num_texts, self.width, device=device)
        users = absent if user_states is None else user_states.to(device).float()
        items = absent if item_vectors is None else item_vectors.to(device).float()
        return users, items, torch.full((num_texts,), self.tasks.index(task), device=device)

    def _check_length(self) -> None:
        limit = getattr(self.language_model.config, "max_position_embeddings", None)
        prefix = self.user_tokens.num_tokens + self.item_tokens.num_tokens + 2
        if limit and prefix + self.max_tokens > limit:
            raise VitrineError(
                f"max_tokens {self.max_tokens} and {prefix} prefix tokens do not fit into the "
                f"{limit} positions of the language model; set max_tokens to {limit - prefix}."
            )


def pad_tokens(token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Ragged token ids -> (batch, longest), filled up with −100, which no loss counts."""
    longest = max(map(len, token_ids))
    return torch.tensor([[*ids, *[-100] * (longest - len(ids))] for ids in token_ids])
