"""Classifier-free guidance weights, and siblings as item conditions."""

import numpy as np
import pytest

from generate.image.guidance import Conditions, GuidanceScales, guidance_weights
from generate.image.siblings import Siblings


@pytest.mark.parametrize("values", [(3, 2, 1.5), (1, 1, 1), (0, 1.5, 0)])
def test_guidance_is_the_sum_it_claims_to_be(values: tuple[float, float, float]) -> None:
    scales = GuidanceScales(*values)
    f = {
        Conditions(): 5.0,
        Conditions(item=True): 7.0,
        Conditions(item=True, structure=True): 11.0,
        Conditions(item=True, structure=True, user=True): 17.0,
        Conditions(item=True, user=True): 13.0,
    }
    weights = guidance_weights(Conditions(True, True, True), scales)
    gain = 17 - 11 if scales.structure else 13 - 7
    assert sum(f[case] * weight for case, weight in weights.items()) == pytest.approx(
        5 + scales.item * (7 - 5) + scales.structure * (11 - 7) + scales.user * gain
    )
    assert 0 not in weights.values()


def test_guidance_leaves_out_absent_and_ignored_conditions() -> None:
    scales = GuidanceScales(3, 2, 1)
    assert guidance_weights(Conditions(), scales) == {Conditions(): 1}
    assert guidance_weights(Conditions(item=True), scales) == {
        Conditions(): -1,
        Conditions(item=True): 2,
    }
    assert guidance_weights(Conditions(user=True), scales) == {
        Conditions(): -2,
        Conditions(user=True): 3,
    }
    both = Conditions(user=True, item=True)
    assert guidance_weights(both, GuidanceScales()) == {both: 1}
    for has in (both, Conditions(True, True, True)):
        unconditional = guidance_weights(has._replace(user=False), scales)
        assert guidance_weights(has, scales._replace(user=0)) == unconditional
        without_item = guidance_weights(has._replace(item=False), scales)
        assert guidance_weights(has, scales._replace(item=0)) == without_item
    assert GuidanceScales(6, 0.5, 0).without_guidance() == GuidanceScales(1, 0.5, 0)


def test_a_sibling_is_another_item_of_the_same_category() -> None:
    rng = np.random.default_rng(0)
    categories = [f"kind {n}" for n in rng.integers(5, size=60)] + ["alone"]
    siblings = Siblings(categories, rng.normal(size=(61, 4)).astype(np.float32))
    items = np.tile(np.arange(60), 20)
    picked = siblings.sample(items, rng)
    assert all(categories[a] == categories[b] for a, b in zip(items, picked, strict=True))
    assert (picked != items).all()
    assert len(set(picked.tolist())) == 60
    assert siblings.sample(np.array([60]), rng).tolist() == [60]


def test_without_category_a_sibling_is_a_near_neighbour() -> None:
    rng = np.random.default_rng(0)
    centers = np.eye(4)[np.arange(48) % 4]
    vectors = (centers + 0.05 * rng.normal(size=centers.shape)).astype(np.float32)
    siblings = Siblings([None] * 48, vectors)
    items = np.tile(np.arange(48), 5)
    picked = siblings.sample(items, rng)
    assert (picked % 4 == items % 4).all()
    assert (picked != items).all()
