"""Defence against prompt injection: cleans catalog texts before a language model reads them.

Titles and reviews are data: after cleaning, none contains the markup or role names by which a language
model tells a system prompt, a user turn or a tool call from data.
"""

import re
import unicodedata
from functools import lru_cache

from catalog.columns import cut_title

# Embeddings, overrides and isolates of writing direction (bidi controls): they can make a page show
# other words than the text contains.
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_JOINERS = frozenset("\u200c\u200d")
_TEMPLATE = re.compile(
    r"""
    < \s* [|｜] [^<>]{0,80} [|｜] \s* >                   # <|im_start|>, <|eot_id|>, <｜User｜>
    | \[ \s* /? \s* (?: INST | SYSTEM_PROMPT | AVAILABLE_TOOLS | TOOL_CALLS | TOOL_RESULTS
        | TOOL_CONTENT | IMG | PREFIX | MIDDLE | SUFFIX | CLS | SEP | MASK | PAD | UNK | gMASK ) \s* \]
    | << \s* /? \s* SYS \s* >>
    | < \s* /? \s* (?: s | bos | eos | pad | unk | mask | sop | eop | start_of_turn | end_of_turn
        | start_of_image | end_of_text | think | thinking | tool_call | tool_calls | tool_response
        | tool_use | function_calls? | function_results? | invoke | system | user | assistant | human
        | instructions? | unused\d+ | reserved_\w{1,40} | extra_id_\d+ ) \s* /? \s* >
    | \#{2,} \s* (?= (?: instruction | response | input | system | user | assistant | human ) s? \b )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Markup of known chat templates: roles, turns, tools."""
_ROLE = re.compile(
    r"(?<![^\W_])(system|user|assistant|human|developer|instructions?|response)\s*[:：]",
    re.IGNORECASE,
)


def short_title(text: str) -> str:
    """Cleans a title and truncates it to a title's length: longer ones are rarely an item's name and leave
    room for prompt injection."""
    return cut_title(clean_text(text))[0]


@lru_cache(maxsize=16_384)
def clean_text(text: str) -> str:
    """Cleans a text of prompt injection markup and returns it on one line, composed (NFC).

    Removes control characters, direction marks, invisible characters, U+FFFD (a replacement for invalid
    bytes) and chat-template markup, and the colon after a role's name.
    """
    cleaned = _one_line(text)
    folded = unicodedata.normalize("NFKC", cleaned)
    if folded != cleaned and (_TEMPLATE.search(folded) or _ROLE.search(folded)):
        cleaned = _one_line(folded)  # some tokenizers normalize ｓｙｓｔｅｍ to system
    while True:
        # What remains around removed markup may be markup again.
        shorter = _one_line(_TEMPLATE.sub(" ", cleaned))
        if shorter == cleaned:
            break
        cleaned = shorter
    return _ROLE.sub(r"\1 -", cleaned)


def _one_line(text: str) -> str:
    if text.isascii() and text.isprintable():  # most texts: nothing to compose, all signs visible
        return " ".join(text.split())
    composed = unicodedata.normalize("NFC", text)
    kept = (
        " " if sign.isspace() else sign
        for index, sign in enumerate(composed)
        if sign.isspace() or _is_visible(composed, index)
    )
    # Two characters may compose once what was between them is removed.
    return unicodedata.normalize("NFC", " ".join("".join(kept).split()))


def _is_visible(text: str, index: int) -> bool:
    """Whether a character, or its effect on its neighbours, is visible."""
    sign = text[index]
    if sign in _JOINERS:
        # Joiners shape scripts and emoji; beside an ASCII letter they only obfuscate a word.
        around = text[index - 1 : index] + text[index + 1 : index + 2]
        return len(around) == 2 and not any(map(str.isascii, around))
    if "\U000e0100" <= sign <= "\U000e01ef":  # variation selectors: room for hidden bytes
        return False
    if sign == "\ufffd":
        return False
    return unicodedata.category(sign) not in ("Cc", "Cs", "Cf") and sign not in _DIRECTION_MARKS
