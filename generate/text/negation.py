"""What a text affirms, and what it denies, as far as English words say so.

After "no", "not", "without" or "free of" a few words are denied, up to the clause's end; before "-free"
one is. Other languages are read as if they denied nothing.
"""

import re
from collections.abc import Iterable, Sequence

REACH = 4
"""Words after a negation that it denies, at most."""
_STOP = r"(?:but|only|just|although|though|with|has|have|is|are|was|were|which|that)\b"
_WORD = r"[^\W_][\w'’-]*"
_DENIED = re.compile(
    rf"\b(?:(?:not?|never|without|lacks?|free (?:of|from))\b(?! (?:only|just|matter|doubt)\b)"
    rf"|\w+n['’]t\b)"
    rf"(?P<after>(?:(?:\s+|\s*,\s*)(?!{_STOP}){_WORD}){{1,{REACH}}})"
    rf"|\b(?P<before>{_WORD}?)[- ]free\b(?! (?:of|from)\b)"
)


def denied_spans(text: str) -> list[tuple[int, int]]:
    """Where in a text in small letters the words stand that it denies."""
    found = []
    for match in _DENIED.finditer(text):
        found.append(match.span("after" if match["after"] else "before"))
    return found


def is_denied(span: tuple[int, int], denied: Iterable[tuple[int, int]]) -> bool:
    """Whether a phrase stands among denied words; "nickel-free" as a whole does not."""
    return any(start <= span[0] and span[1] <= stop for start, stop in denied)


def affirmed_and_denied(text: str, denied: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """A text without its denied spans, and these alone."""
    ends = [0, *(place for span in denied for place in span), len(text)]
    kept = [text[start:stop] for start, stop in zip(ends[::2], ends[1::2], strict=True)]
    return " . ".join(kept), " . ".join(text[start:stop] for start, stop in denied)
