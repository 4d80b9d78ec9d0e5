"""Token sequences of a text generator: the prompt in words, slots for soft tokens, and the text.

Two kinds of prompt. `none`, for small models trained from scratch: soft tokens alone, and at most the
titles of a history. `facts`, for pretrained language models: an instruction and the facts about item and
user in words, through the model's own chat template where it has one, then the soft tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from generate.text.clean import clean_text
from generate.text.tokenizer import Tokenizer, encode_texts, plain_ids, reserved_ids, special_id
from pretrain.hub import one_line_errors

PromptKind = Literal["none", "facts"]
SOFT, PADDING = -1, -100
"""In place of token ids: a slot for a soft token, and padding, which the loss ignores."""
MAX_STYLE_TOKENS = 256
"""Newest tokens of a user's earlier reviews that are read for style tokens, at most."""
MAX_CACHED_STYLES = 16_384
"""Users' reviews whose token ids are cached, at most."""
DATA, ANSWER = "DATAOFTHEPROMPT", "ANSWEROFTHEMODEL"
"""Stand for data and answer while a chat template is taken apart."""


@dataclass(frozen=True)
class Template:
    """Token ids around the data of a prompt."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    end: int
    """Id of the token that ends an answer."""


def chat_template(tokenizer: Tokenizer, request: str) -> Template:
    """The tokenizer's chat template with `request` as the system's message (before the user's, where the
    template takes none); without a template, `request`, the data and a blank line.

    Raises VitrineError for a template that cannot be rendered.
    """
    end = special_id(tokenizer, "eos")
    assert end is not None, "language_model.py checks it"
    if not getattr(tokenizer, "chat_template", None):
        begin = special_id(tokenizer, "bos")
        before = [*([] if begin is None else [begin]), *_ids(tokenizer, f"{request}\n\n")]
        return Template(tuple(before), tuple(_ids(tokenizer, "\n\n")), end)
    prompt = _render(tokenizer, request, add_generation_prompt=True)
    head, _, tail = prompt.partition(DATA)
    whole = _render(tokenizer, request, answer=ANSWER)
    reserved = reserved_ids(tokenizer)
    closing = [one for one in _ids(tokenizer, whole.partition(ANSWER)[2]) if one in reserved]
    return Template(
        tuple(_ids(tokenizer, head)), tuple(_ids(tokenizer, tail)), closing[0] if closing else end
    )


def _render(
    tokenizer: Tokenizer, request: str, answer: str = "", add_generation_prompt: bool = False
) -> str:
    """A chat as text: instruction, data, answer; in the user's message where no system's is known."""
    answers = [{"role": "assistant", "content": answer}] if answer else []
    apart = [{"role": "system", "content": request}, {"role": "user", "content": DATA}]
    joined = [{"role": "user", "content": f"{request}\n\n{DATA}"}]
    options: dict[str, Any] = {
        "tokenize": False,
        "add_generation_prompt": add_generation_prompt,
        "enable_thinking": False,  # Qwen 3 would think aloud
    }
    try:
        text = str(tokenizer.apply_chat_template([*apart, *answers], **options))
    except Exception:  # templates raise their own errors for a system message, Gemma's among them
        text = ""
    if DATA in text and (not request or request in text):
        return text
    with one_line_errors(
        "the chat template of the language model cannot be applied", "choose another model"
    ):
        text = str(tokenizer.apply_chat_template([*joined, *answers], **options))
        if DATA not in text or answer not in text:
            raise ValueError("it leaves out a message")
    return text


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of text of our own or of a template, special tokens among them."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])  # type: ignore[arg-type]


class Sequences:
    """Builds token sequences for one tokenizer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        requests: Sequence[str],
        *,
        kind: PromptKind,
        num_soft: int,
        max_prompt_tokens: int,
        max_tokens: int,
    ) -> None:
        """`requests`: what each task asks of a chat model; `num_soft` tokens for soft embeddings;
        `max_prompt_tokens` of facts, and `max_tokens` of a text, at most."""
        self.tokenizer = tokenizer
        self.kind = kind
        self.num_soft = num_soft
        self.max_prompt_tokens = max_prompt_tokens
        self.max_tokens = max_tokens
        self.line_end = _ids(tokenizer, "\n")
        if kind == "facts":
            self.templates = [chat_template(tokenizer, request) for request in requests]
        else:
            begin, end = special_id(tokenizer, "bos"), special_id(tokenizer, "eos")
            assert end is not None, "language_model.py checks it"
            before = () if begin is None else (begin,)
            self.templates = [Template(before, (), end)] * len(requests)

    @property
    def ends(self) -> frozenset[int]:
        """Ids of tokens that end a text."""
        own = special_id(self.tokenizer, "eos")
        return frozenset({*(one.end for one in self.templates), *([] if own is None else [own])})

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt: template, data, soft tokens."""
        around = max(len(one.before) + len(one.after) for one in self.templates)
        return around + self.num_soft + self.max_prompt_tokens

    def prompts(
        self, tasks: Sequence[int], data: Sequence[str] | None, soft: bool = True
    ) -> list[list[int]]:
        """Prompt ids of each text, for its task (index) and its data (lines); SOFT where a soft token
        belongs, if `soft`."""
        slots = [SOFT] * (self.num_soft if soft else 0)
        encoded = self.data_ids(data, len(tasks))
        rows = []
        for task, ids in zip(tasks, encoded, strict=True):
            template = self.templates[task]
            order = [ids, slots] if self.kind == "facts" else [slots, ids]
            rows.append([*template.before, *order[0], *order[1], *template.after])
        return rows

    def data_ids(self, data: Sequence[str] | None, num_texts: int) -> list[list[int]]:
        """Token ids of each prompt's lines. What exceeds `max_prompt_tokens` is left out: the end of facts,
        which begin with the item; the beginning of a history alone, whose newest items count."""
        if data is None or not self.max_prompt_tokens:
            return [[] for _ in range(num_texts)]
        lines = [[line for line in text.split("\n") if line] for text in data]
        encoded = iter(plain_ids(self.tokenizer, [line for some in lines for line in some]))
        rows = []
        for some in lines:
            if self.kind == "none":
                room = self.max_prompt_tokens - len(self.line_end)
                row = [token for _ in some for token in next(encoded)][-room:]
                rows.append([*row, *self.line_end] if row else [])
            else:
                row = [token for _ in some for token in (*next(encoded), *self.line_end)]
                rows.append(row[: self.max_prompt_tokens])
        return rows

    def training_rows(
        self,
        tasks: Sequence[int],
        data: Sequence[str] | None,
        texts: Sequence[str],
        soft: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Prompts and texts: `token_ids` and `labels`, int64 (texts, longest) both, padded on the right.

        Labels are −100 for what is no token of the text.
        """
        prompts = self.prompts(tasks, data, soft)
        ends = [self.templates[task].end for task in tasks]
        answers = encode_texts(self.tokenizer, texts, self.max_tokens, ends)
        pairs = list(zip(prompts, answers, strict=True))
        return (
            pad_tokens([[*prompt, *answer] for prompt, answer in pairs]),
            pad_tokens([[*[PADDING] * len(prompt), *answer] for prompt, answer in pairs]),
        )


class StyleIds:
    """Token ids of users' earlier reviews, cached: the same are read under each condition and task."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def ids(self, texts: Sequence[str]) -> Tensor:
        """The newest tokens of each text, padded with −100: (texts, longest); all −100 for an empty one."""
        if len(self.known) > MAX_CACHED_STYLES:
            self.known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for text, ids in zip(new, plain_ids(self.tokenizer, new), strict=True):
            self.known[text] = ids[-MAX_STYLE_TOKENS:] or [PADDING]
        return pad_tokens([self.known[text] for text in texts])


def pad_tokens(token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Ragged token ids → (batch, longest), padded with −100, which the loss ignores."""
    longest = max(map(len, token_ids))
    return torch.tensor([[*ids, *[PADDING] * (longest - len(ids))] for ids in token_ids])


def cleaned_lines(lines: Sequence[str]) -> str:
    """Lines as the data of a prompt: each cleaned, so that none contains a line end."""
    return "\n".join(clean_text(line) for line in lines)
