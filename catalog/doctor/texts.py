"""Checks of items' texts: empty, broken, placeholders, repeated sentences, scripts and languages."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from catalog.doctor.arrow_compute import pc
from catalog.doctor.context import BATCH, SAMPLE, Context
from catalog.doctor.finding import Finding
from catalog.hashing import hash_ids
from catalog.languages import CODES, LANGUAGES, likelihoods

FEW_LETTERS, MANY_CHARACTERS = 4, 10_000
TAGS = (
    r"</?(?:a|b|br|center|div|em|font|h[1-6]|hr|i|img|li|ol|p|script|span|strong|style|sub|sup|table"
    r"|tbody|td|th|tr|u|ul)(?:\s[^<>]*)?/?>|&(?:#\d{2,6}|#x[0-9a-f]{2,6}|[a-z]{2,8}[1-4]?);"
    r"|[.#@]?[\w-]+\s*\{\s*[a-z-]+\s*:[^{}]*;[^{}]*\}|<(?:script|style|div|img|br|span)\b"
)
"""Tags, entities, rules of CSS."""
TRAILING = (
    "\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u201a\u201e\u2020-\u2022\u2030\u2039\u20ac\u2122"
)
"""What cp1252 or Latin-1 make of the second and later bytes of a UTF-8 character, but quotation marks,
dashes and the ellipsis, which may follow a letter."""
QUOTES = "\u2013\u2014\u2018-\u201d\u2026\u203a"
MOJIBAKE = (
    f"[ÃÂ][{TRAILING}{QUOTES}]|[\u00e0-\u00ef][{TRAILING}][{TRAILING}{QUOTES}]"
    f"|\u00f0[{TRAILING}{QUOTES}]{{3}}|\ufffd"
)
LETTER, NO_LETTER = r"[\p{L}\p{N}]", r"[^\p{L}\p{N}]"
PLACEHOLDER = (
    rf"(?i)^{NO_LETTER}*(?:n{NO_LETTER}?a|null|none|nan|nil|undefined|to{NO_LETTER}?do|tbd|tba|fixme"
    r"|x{3,}|untitled|placeholder|no (?:title|name|description|text|data)(?: available)?"
    r"|(?:product )?(?:title|description)|asdf\w*|sample text|test (?:product|item|title|description))?"
    rf"{NO_LETTER}*$"
)
LOREM = r"(?i)\blorem ipsum\b"
SENTENCE_END = r"[.!?]+\s+|[.!?]+$|\n+"
BOILERPLATE_SHARE, BOILERPLATE_ITEMS, SENTENCE_WORDS = 0.05, 10, 5
SCRIPTS = tuple(name for name in LANGUAGES if name != "Kana")
MINOR_SCRIPT = 0.2
MINOR_LANGUAGE_ITEMS = 3


def lengths(context: Context) -> Iterable[Finding]:
    """Texts that are empty, too short to say anything, or longer than any encoder reads."""
    size = context.text_lengths
    empty = np.flatnonzero(size == 0)
    if len(empty) <= context.catalog.num_items / 2:
        yield from context.found("empty-texts", empty, "{n} items have neither title nor text")
    more = rf"(?:{NO_LETTER}*{LETTER}){{{FEW_LETTERS}}}"  # stops early, where a count would read on
    enough = context.over_texts(lambda texts: pc.match_substring_regex(texts, more), np.bool_)
    rows = np.flatnonzero((size > 0) & ~enough)
    yield from context.found(
        "short-texts", rows, f"{{n}} texts have fewer than {FEW_LETTERS} letters"
    )
    rows = np.flatnonzero(size > MANY_CHARACTERS)
    sentence = f"{{n}} texts have more than {MANY_CHARACTERS:,} characters"
    yield from context.found("long-texts", rows, sentence)


def leftovers(context: Context) -> Iterable[Finding]:
    """HTML, and text that was decoded wrongly."""
    rows = context.rows_matching(TAGS)
    yield from context.found("html-in-texts", rows, "{n} texts hold HTML or entities")
    found = context.over_texts(lambda texts: pc.match_substring_regex(texts, MOJIBAKE), np.bool_)
    sentence = "{n} texts were decoded with the wrong encoding"
    yield from context.found("mojibake", np.flatnonzero(found), sentence)


def placeholders(context: Context) -> Iterable[Finding]:
    """Titles and texts that say that there is none."""
    rows = [context.rows_matching(LOREM)]
    for name in ("title", "text"):
        for start, (values,) in context.batches(name):
            found = pc.match_substring_regex(values, PLACEHOLDER)
            rows.append(start + np.flatnonzero(pc.fill_null(found, False).to_numpy(False)))
    sentence = "{n} items have a placeholder as title or text"
    return context.found("placeholder-texts", np.concatenate(rows), sentence)


def boilerplate(context: Context) -> Iterable[Finding]:
    """Sentences that stand in many texts, in a sample of `SAMPLE` texts at most."""
    rows, texts = context.sampled_texts()
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for start in range(0, len(texts), BATCH):
        split = pc.split_pattern_regex(texts.slice(start, BATCH), SENTENCE_END)
        sentences = pc.utf8_lower(pc.utf8_trim_whitespace(pc.list_flatten(split)))
        words = pc.add(pc.count_substring_regex(sentences, r"\s+"), 1).to_numpy()
        long = np.flatnonzero(words >= SENTENCE_WORDS)
        hashes.append(hash_ids(sentences.take(pa.array(long)).to_pylist()))
        owners.append(start + pc.list_parent_indices(split).to_numpy()[long])
    pairs = np.stack([np.concatenate(hashes), np.concatenate(owners).astype(np.uint64)], axis=1)
    pairs = np.unique(pairs, axis=0)  # a sentence counts once in an item
    _, groups, counts = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    least = max(BOILERPLATE_ITEMS, BOILERPLATE_SHARE * len(rows))
    many = np.unique(pairs[counts[groups] >= least, 1]).astype(np.int64)
    sampled = f" of {SAMPLE:,} sampled" if len(rows) == SAMPLE else ""
    sentence = f"{{n}} texts{sampled} share a whole sentence with many others"
    return context.found("boilerplate-texts", rows[many], sentence)


def scripts(context: Context) -> Iterable[Finding]:
    """Texts in a script of few texts, in a sample of `SAMPLE` texts at most."""
    rows, texts = context.sampled_texts()
    if not len(rows):
        return []
    patterns = [rf"\p{{{name}}}" for name in SCRIPTS]
    patterns[SCRIPTS.index("Han")] = r"[\p{Han}\p{Hiragana}\p{Katakana}]"  # Japanese mixes three
    counts = np.stack([pc.count_substring_regex(texts, one).to_numpy() for one in patterns], axis=1)
    main, given = counts.argmax(axis=1), counts.sum(axis=1) > 0
    shares = np.bincount(main[given], minlength=len(SCRIPTS)) / max(1, given.sum())
    minor = given & (shares[main] < MINOR_SCRIPT)
    names = ", ".join(f"{SCRIPTS[s]} {shares[s]:.1%}" for s in np.argsort(-shares) if shares[s])
    sentence = f"{{n}} texts are in a script of few ({names})"
    return context.found("mixed-scripts", rows[minor], sentence)


def languages(context: Context) -> Iterable[Finding]:
    """Texts in another language than most, in a sample of `SAMPLE` at most."""
    rows, texts = context.sampled_texts()
    batches = (texts.slice(start, BATCH) for start in range(0, len(texts), BATCH))
    language = np.concatenate([np.empty(0, int), *(likelihoods(one).decided() for one in batches)])
    clear = language >= 0
    sizes = np.bincount(language[clear], minlength=len(CODES))
    if not sizes.any():
        return []
    minor = clear & (language != sizes.argmax()) & (sizes[language] >= MINOR_LANGUAGE_ITEMS)
    listed = ", ".join(f"{CODES[s]} {sizes[s]:,}" for s in np.argsort(-sizes) if sizes[s])
    sentence = f"{{n}} texts are in another language than most (by frequent words: {listed})"
    return context.found("mixed-languages", rows[minor], sentence)


CHECKS = (lengths, leftovers, placeholders, boilerplate, scripts, languages)
