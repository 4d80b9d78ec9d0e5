"""The most frequent words of languages, and how frequent each is in each of them."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LISTS = {"hr": "sh", "tl": "fil"}
"""Languages whose words wordfreq lists under another code."""
UNSPACED = ("ja", "zh")
"""Languages whose words are not separated in texts."""
WORDS = 5_000
"""Words of each language that are known."""
RARE = -7.0
"""log10 of the frequency of a word that is not among a language's most frequent ones."""


@cache
def frequent_words(codes: Sequence[str]) -> tuple[pa.Array, NDArray[np.float32]]:
    """The words (n,), in small letters, and log10 of each one's frequency in each language,
    (n, len(codes)), divided by that in the language where it is most frequent.

    Of wordfreq (Speer, 2022). Languages without a list, and those whose words are not separated, know none.
    """
    from wordfreq import available_languages, get_frequency_list

    places: dict[str, int] = {}
    found: list[tuple[int, int, float]] = []
    available = available_languages("small")
    for column, code in enumerate(codes):
        name = LISTS.get(code, code)
        if name not in available or code in UNSPACED:
            continue
        left = WORDS
        for step, words in enumerate(get_frequency_list(name, "small")):
            chosen = [word for word in words if word.isalpha()][:left]
            # Step n holds words whose frequency is 10 to the power of -n / 100.
            found += [(places.setdefault(one, len(places)), column, -step / 100) for one in chosen]
            left -= len(chosen)
            if not left:
                break
    table = np.full((len(places), len(codes)), RARE, np.float32)
    rows, columns, values = zip(*found, strict=True)
    table[rows, columns] = values
    return pa.array(list(places), pa.large_string()), table - table.max(axis=1, keepdims=True)
