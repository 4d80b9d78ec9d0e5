"""How varied written words are, how much of them was there before, and how like others they are."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torchmetrics.functional.text import rouge_score, sacre_bleu_score

from generate.text.scripts import TOKEN, spaced

ORDER = 4
"""Words of the longest runs that BLEU counts."""


def distinct(texts: Iterable[str], length: int = 2) -> float:
    """Distinct runs of `length` words over all such runs (Li et al. 2016, distinct-n)."""
    runs = [run for text in texts for run in _runs(text, length)]
    return len(set(runs)) / max(len(runs), 1)


def near_copies(
    texts: Sequence[str], known: Iterable[str], length: int = 4, share: float = 0.8
) -> np.ndarray:
    """Whether each text takes at least `share` of its runs of `length` words from one known text.

    Returns bool (texts,). Only known runs that some text holds are kept, so `known` may be long.
    """
    runs_of_texts = [set(_runs(text, length)) for text in texts]
    sought = {run for runs in runs_of_texts for run in runs}
    places: dict[tuple[str, ...], list[int]] = {run: [] for run in sought}
    for place, text in enumerate(dict.fromkeys(known)):
        for run in sought.intersection(_runs(text, length)):
            places[run].append(place)
    copied = [
        bool(runs) and _largest_overlap(places, runs) >= share * len(runs) for runs in runs_of_texts
    ]
    return np.array(copied, dtype=bool)


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """F1 of ROUGE-1 and of ROUGE-L (Lin 2004), text by text: {"rouge_1", "rouge_l"}: (texts,) each."""
    found: dict[str, list[float]] = {"rouge_1": [], "rouge_l": []}
    for text, reference in zip(texts, references, strict=True):
        scores = rouge_score(
            text,
            reference,
            rouge_keys=("rouge1", "rougeL"),
            normalizer=str.lower,
            tokenizer=_tokens,
        )
        found["rouge_1"].append(float(scores["rouge1_fmeasure"]))
        found["rouge_l"].append(float(scores["rougeL_fmeasure"]))
    return {name: np.array(values) for name, values in found.items()}


def _tokens(text: str) -> list[str]:
    """Words of any script; where none are set apart, each sign."""
    return TOKEN.findall(text)


def bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """Of all texts together, as sacreBLEU counts it (Post 2018); 0 to 1.

    Scripts that set no words apart are counted by their signs, as its `zh` tokenizer does. Where no
    reference is as long as four words, runs of as many as the longest has are counted (its effective
    order), so that equal texts have 1.
    """
    texts, references = list(map(spaced, texts)), list(map(spaced, references))
    longest = max((len(TOKEN.findall(reference)) for reference in references), default=1)
    order = min(ORDER, max(1, longest))
    return float(sacre_bleu_score(texts, [[reference] for reference in references], n_gram=order))


def _largest_overlap(places: dict[tuple[str, ...], list[int]], runs: set[tuple[str, ...]]) -> int:
    shared = [place for run in runs for place in places[run]]
    return int(np.unique(shared, return_counts=True)[1].max()) if shared else 0


def _runs(text: str, length: int) -> list[tuple[str, ...]]:
    """Runs of `length` words; a shorter text is one run of its own."""
    words = spaced(text.lower()).split()
    last = max(len(words) - length, 0)
    return [tuple(words[start : start + length]) for start in range(last + 1)] if words else []
