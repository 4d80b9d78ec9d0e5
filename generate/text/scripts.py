"""Where a script sets no spaces between words: what stands for words there.

No dictionary is needed to compare two texts. Han is read by characters or pairs of them, katakana by
runs, and Thai, Lao, Khmer and Burmese by runs of three signs, as they are cut nowhere; hiragana is left
out where words are asked for that mean something, as it writes mostly grammar.
"""

import re
from itertools import pairwise

HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f々〆"
HIRAGANA = r"\u3041-\u309f"
KATAKANA = r"\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
UNCUT = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese, Khmer."""
UNSPACED = HAN + HIRAGANA + KATAKANA + UNCUT

TOKEN = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
"""Letters and digits together; of scripts that set no words apart, each sign."""
_RUN = re.compile(rf"[{HAN}]+|[{KATAKANA}]+|[{UNCUT}]+|[{HIRAGANA}]+")
_HAN, _HIRAGANA, _UNCUT = (re.compile(f"[{signs}]") for signs in (HAN, HIRAGANA, UNCUT))
UNSPACED_SIGN = re.compile(f"([{UNSPACED}])")
GRAM = 3


def spaced(text: str) -> str:
    """The text with each sign of an unspaced script set apart, so that what splits at spaces counts it."""
    return UNSPACED_SIGN.sub(r" \1 ", text)


def unspaced_words(text: str) -> list[str]:
    """What stands for the words of the unspaced scripts in a text."""
    found: list[str] = []
    for run in _RUN.findall(text):
        if _HIRAGANA.match(run):
            continue
        if _HAN.match(run) and len(run) > 2:
            found += ["".join(pair) for pair in pairwise(run)]
        elif _UNCUT.match(run) and len(run) > GRAM:
            found += [run[start : start + GRAM] for start in range(len(run) - GRAM + 1)]
        else:
            found.append(run)
    return found


def without_unspaced(text: str) -> str:
    """The text with a space in place of each run of an unspaced script."""
    return _RUN.sub(" ", text)
