"""Word segmentation for scripts without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese.

No dictionary is needed to compare two texts. Han is split into characters or pairs of them, katakana into
runs, and Thai, Lao, Khmer and Burmese into character trigrams; hiragana is left out where content words are
needed, as it writes mostly grammar.
"""

import re
from itertools import pairwise

HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f々〆"
HIRAGANA = r"\u3041-\u309f"
KATAKANA = r"\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
NO_WORD_BREAKS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese, Khmer."""
UNSPACED = HAN + HIRAGANA + KATAKANA + NO_WORD_BREAKS

TOKEN = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
"""Letters and digits together; in scripts without spaces, each character."""
_RUN = re.compile(rf"[{HAN}]+|[{KATAKANA}]+|[{NO_WORD_BREAKS}]+|[{HIRAGANA}]+")
_HAN, _HIRAGANA, _NO_WORD_BREAKS = (
    re.compile(f"[{signs}]") for signs in (HAN, HIRAGANA, NO_WORD_BREAKS)
)
UNSPACED_CHARACTER = re.compile(f"([{UNSPACED}])")
NGRAM = 3


def spaced(text: str) -> str:
    """The text with spaces around each character of an unspaced script, for metrics that split at spaces."""
    return UNSPACED_CHARACTER.sub(r" \1 ", text)


def unspaced_words(text: str) -> list[str]:
    """Character n-grams and runs that serve as words of the unspaced scripts in a text."""
    words: list[str] = []
    for run in _RUN.findall(text):
        if _HIRAGANA.match(run):
            continue
        if _HAN.match(run) and len(run) > 2:
            words += ["".join(pair) for pair in pairwise(run)]
        elif _NO_WORD_BREAKS.match(run) and len(run) > NGRAM:
            words += [run[start : start + NGRAM] for start in range(len(run) - NGRAM + 1)]
        else:
            words.append(run)
    return words


def without_unspaced(text: str) -> str:
    """The text with a space in place of each run of an unspaced script."""
    return _RUN.sub(" ", text)
