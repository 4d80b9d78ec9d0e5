"""Metrics of generated texts: ROUGE and BLEU against true texts, distinct-n, near copies."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torchmetrics.functional.text import rouge_score, sacre_bleu_score

from generate.evaluation.intervals import Figures, compare_conditions
from generate.text.scripts import TOKEN, spaced

MAX_ORDER = 4
"""Longest n-grams that BLEU counts."""


def score_overlap(
    references: Sequence[str | None], generated: Mapping[str, Sequence[str]]
) -> Figures:
    """ROUGE-1, ROUGE-L and BLEU of each condition's texts; empty for fewer than two references."""
    present = [index for index, text in enumerate(references) if text]
    if len(present) < 2:
        return {}
    true = [references[index] or "" for index in present]
    texts = {
        condition: [of_condition[index] for index in present]
        for condition, of_condition in generated.items()
    }
    rouges = {condition: rouge(of_condition, true) for condition, of_condition in texts.items()}
    return {
        **{
            name: compare_conditions({c: values[name] for c, values in rouges.items()})
            for name in ("rouge_1", "rouge_l")
        },
        "bleu": {condition: bleu(of_condition, true) for condition, of_condition in texts.items()},
    }


def distinct(texts: Iterable[str], length: int = 2) -> float:
    """distinct-n (Li et al. 2016): distinct n-grams of `length` words over all of them."""
    ngrams = [ngram for text in texts for ngram in _ngrams(text, length)]
    return len(set(ngrams)) / max(len(ngrams), 1)


def near_copies(
    texts: Sequence[str], known: Iterable[str], length: int = 4, share: float = 0.8
) -> NDArray[np.bool_]:
    """Whether each text shares at least `share` of its n-grams of `length` words with one known text.

    Returns bool (texts,). Only known n-grams that some text holds are kept, so `known` may be long.
    """
    ngrams_of_texts = [set(_ngrams(text, length)) for text in texts]
    all_ngrams = {ngram for ngrams in ngrams_of_texts for ngram in ngrams}
    sources: dict[tuple[str, ...], list[int]] = {ngram: [] for ngram in all_ngrams}
    for index, text in enumerate(dict.fromkeys(known)):
        for ngram in all_ngrams.intersection(_ngrams(text, length)):
            sources[ngram].append(index)
    copied = [
        bool(ngrams) and _largest_overlap(sources, ngrams) >= share * len(ngrams)
        for ngrams in ngrams_of_texts
    ]
    return np.array(copied, dtype=bool)


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """F1 of ROUGE-1 and ROUGE-L (Lin 2004) of each text: {"rouge_1", "rouge_l"}: (texts,) each."""
    values: dict[str, list[float]] = {"rouge_1": [], "rouge_l": []}
    for text, reference in zip(texts, references, strict=True):
        scores = rouge_score(
            text,
            reference,
            rouge_keys=("rouge1", "rougeL"),
            normalizer=str.lower,
            tokenizer=_tokens,
        )
        values["rouge_1"].append(float(scores["rouge1_fmeasure"]))
        values["rouge_l"].append(float(scores["rougeL_fmeasure"]))
    return {name: np.array(column) for name, column in values.items()}


def _tokens(text: str) -> list[str]:
    """Words of any script; characters where a script sets no spaces between words."""
    return TOKEN.findall(text)


def bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 1, as sacreBLEU computes it (Post 2018).

    Scripts without spaces are counted by character, as its `zh` tokenizer does. Where no reference has
    four words, n-grams up to the longest reference are counted (its effective order), so that equal texts
    score 1.
    """
    texts, references = list(map(spaced, texts)), list(map(spaced, references))
    longest = max((len(TOKEN.findall(reference)) for reference in references), default=1)
    order = min(MAX_ORDER, max(1, longest))
    return float(sacre_bleu_score(texts, [[reference] for reference in references], n_gram=order))


def _largest_overlap(
    sources: dict[tuple[str, ...], list[int]], ngrams: set[tuple[str, ...]]
) -> int:
    shared = [index for ngram in ngrams for index in sources[ngram]]
    return int(np.unique(shared, return_counts=True)[1].max()) if shared else 0


def _ngrams(text: str, length: int) -> list[tuple[str, ...]]:
    """n-grams of `length` words; a shorter text is one n-gram."""
    words = spaced(text.lower()).split()
    last = max(len(words) - length, 0)
    return [tuple(words[start : start + length]) for start in range(last + 1)] if words else []
