"""Streaming: finds the part of a partly decoded text that no later token changes."""

import re

from generate.text.scripts import UNSPACED

_WORD, _JOINED = re.compile(r"[^\W_]+$"), re.compile(rf"[^\s{UNSPACED}]+$")
_OPEN_MARKUP = re.compile(r"[<\[#＜][^>\]＞]{0,100}$")
"""The start of possible template markup, which `clean_text` removes once it is complete."""


def settled_prefix(text: str, filtered: bool) -> str:
    """The beginning of a text that no later token changes.

    A letter may take several tokens, an accent that follows is composed with it, and with `filtered` the
    vocabulary filter decides on joined words as a whole.
    """
    open_word = _JOINED if filtered else _WORD
    return open_word.sub("", _OPEN_MARKUP.sub("", text[:-1])).rstrip()
