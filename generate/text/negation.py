"""Negation in English texts: which words a text negates, by rules.

After "no", "not", "without", "free of" and the like a few words are negated, up to the end of the clause;
before "-free" one word is. Negation in other languages is not detected.
"""

import re
from collections.abc import Iterable, Sequence

MAX_SCOPE = 6
"""Words after a negation that it negates, at most."""
_STOP = r"(?:but|only|just|although|though|with|has|have|is|are|was|were|which|that)\b"
_WORD = r"[^\W_][\w'’-]*"
_INVERTED = (
    r"(?:in no way|by no means|under no circumstances) (?:is|are|was|were|do|does|did|has|have)"
)
_BEFORE = (
    rf"(?:{_INVERTED}|nothing to do with|(?:far|apart|aside) from|anything but|(?:rather|other) than"
    r"|instead of|except(?: for)?|not?|none|nor|neither|never|nothing|nobody|nowhere|cannot|without"
    r"|hardly|scarcely|lack(?:s|ing)?|excluding|free (?:of|from))"
)
_NEGATED = re.compile(
    rf"\b(?:{_BEFORE}\b(?! (?:only|just|matter|doubt)\b)"
    rf"|\w+n['’]t\b)"
    rf"(?P<after>(?:(?:\s+|\s*,\s*)(?!{_STOP}){_WORD}){{1,{MAX_SCOPE}}})"
    rf"|\b(?P<before>{_WORD}?)[- ]free\b(?! (?:of|from)\b)"
)


def negated_spans(text: str) -> list[tuple[int, int]]:
    """Spans of the negated words in a lower-case text."""
    spans = []
    for match in _NEGATED.finditer(text):
        spans.append(match.span("after" if match["after"] else "before"))
    return spans


def is_negated(span: tuple[int, int], negated: Iterable[tuple[int, int]]) -> bool:
    """Whether a phrase lies within a negated span; "nickel-free" as a whole does not."""
    return any(start <= span[0] and span[1] <= stop for start, stop in negated)


def split_negated(text: str, negated: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """A text without its negated spans, and these spans alone."""
    ends = [0, *(place for span in negated for place in span), len(text)]
    kept = [text[start:stop] for start, stop in zip(ends[::2], ends[1::2], strict=True)]
    return " . ".join(kept), " . ".join(text[start:stop] for start, stop in negated)
