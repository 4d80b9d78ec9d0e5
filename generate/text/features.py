"""What written words speak of: how much of it is what true words speak of, and how varied it is.

A feature is a word by which items differ, or a value of an attribute, as `faithful.Checker` finds them
(where PETER has features mined from reviews).
"""

from collections import Counter
from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray


def feature_match(
    written: Sequence[Set[str]], true: Sequence[Set[str]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Whether a text speaks of its true text's feature, and the places of those texts that have one.

    FMR (Li et al. 2021, PETER, equation 19) is the mean. The feature is the one that fewest other true
    texts have.
    """
    counts = Counter(feature for features in true for feature in features)
    places = np.array([place for place, features in enumerate(true) if features], dtype=np.int64)
    wanted = [min(true[place], key=lambda feature: (counts[feature], feature)) for place in places]
    hits = [
        feature in written[place] for place, feature in zip(places.tolist(), wanted, strict=True)
    ]
    return np.array(hits, dtype=np.float64), places


def feature_coverage(written: Sequence[Set[str]], true: Sequence[Set[str]]) -> float:
    """FCR: of the features of all true texts, the share that some text speaks of; 0 without any."""
    known = set().union(*true)
    told = set().union(*written)
    return len(known & told) / len(known) if known else 0.0


def shared_features(written: Sequence[Set[str]]) -> float:
    """DIV: features that two texts share, on average over all pairs; lower is more varied."""
    if len(written) < 2:
        return 0.0
    counts = Counter(feature for features in written for feature in features)
    pairs = len(written) * (len(written) - 1) / 2
    return sum(count * (count - 1) / 2 for count in counts.values()) / pairs
