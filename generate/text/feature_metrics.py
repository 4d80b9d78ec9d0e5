"""Feature metrics of generated texts (FMR, FCR, DIV), and the share of their unsupported claims.

A feature is a claim as `ClaimChecker` finds it: a word by which items differ, or a value of an
attribute (PETER mines its features from reviews).
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from generate.evaluation.intervals import Figures, compare_conditions
from generate.evaluation.users import EvaluationUsers
from generate.text.faithfulness import ClaimChecker, unsupported_share


def score_features(
    checker: ClaimChecker,
    users: EvaluationUsers,
    references: Sequence[str | None],
    generated: Mapping[str, Sequence[str]],
) -> Figures:
    """Unsupported claims of the own texts; features of each condition's texts against true `references`."""
    items = users.items.tolist()
    claims = {
        condition: [checker.check(text, item) for text, item in zip(texts, items, strict=True)]
        for condition, texts in generated.items()
    }
    features = {
        condition: [{claim.words for claim in of_text} for of_text in of_texts]
        for condition, of_texts in claims.items()
    }
    true = [
        {claim.words for claim in checker.check(text or "", item)}
        for text, item in zip(references, items, strict=True)
    ]
    figures: Figures = {
        "unsupported_claims": unsupported_share(claims["own"]),
        "claims": sum(map(len, claims["own"])),
        "feature_coverage": feature_coverage(features["own"], true),
        "shared_features": shared_features(features["own"]),
    }
    hits = {condition: feature_match(found, true)[0] for condition, found in features.items()}
    if len(hits["own"]) > 1:
        figures["feature_match"] = compare_conditions(hits)
    return figures


def feature_match(
    generated: Sequence[Set[str]], true: Sequence[Set[str]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Whether each text has its true text's feature, and the indices of the texts that have one.

    The mean is FMR (Li et al. 2021, PETER, equation 19). The feature is the one that fewest other true
    texts have.
    """
    counts = Counter(feature for features in true for feature in features)
    indices = np.array([index for index, features in enumerate(true) if features], dtype=np.int64)
    rarest = [min(true[index], key=lambda feature: (counts[feature], feature)) for index in indices]
    hits = [
        feature in generated[index] for index, feature in zip(indices.tolist(), rarest, strict=True)
    ]
    return np.array(hits, dtype=np.float64), indices


def feature_coverage(generated: Sequence[Set[str]], true: Sequence[Set[str]]) -> float:
    """FCR: the share of all true texts' features that some generated text has; 0 without features."""
    known = set().union(*true)
    mentioned = set().union(*generated)
    return len(known & mentioned) / len(known) if known else 0.0


def shared_features(generated: Sequence[Set[str]]) -> float:
    """DIV: features that two texts share, a mean over all pairs; lower is more diverse."""
    if len(generated) < 2:
        return 0.0
    counts = Counter(feature for features in generated for feature in features)
    pairs = len(generated) * (len(generated) - 1) / 2
    return sum(count * (count - 1) / 2 for count in counts.values()) / pairs
