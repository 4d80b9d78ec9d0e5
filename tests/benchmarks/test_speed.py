"""What the benchmark times side by side computes the same thing, at a size that takes no time."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from benchmarks import sasrec
from benchmarks.contrast import Step, assert_equal
from benchmarks.record import flat_figures, goal_is_met
from benchmarks.sasrec import Curve
from benchmarks.speed import error_of, exact_gradients, ranking_ways, softmax_ways


@pytest.fixture(scope="module")
def softmaxes() -> dict[str, Step]:
    return softmax_ways(70, 300)


@pytest.mark.parametrize("who", ["ours", "naive", "chunked", "chunked_by_hand"])
def test_every_softmax_has_the_gradients_of_float64(softmaxes: dict[str, Step], who: str) -> None:
    exact: list[Tensor] = exact_gradients(70, 300)
    assert len(exact) == 3
    assert_equal({"first": softmaxes["ours"], "second": softmaxes[who]})
    assert error_of(softmaxes[who], exact) < 1e-4


def test_every_ranking_finds_the_same_targets() -> None:
    found = {who: way() for who, way in ranking_ways(20, 2000).items()}
    assert 0 < found["ours"].mean() < 1, "nothing found, or everything, would tell nothing"
    for values in found.values():
        np.testing.assert_allclose(values, found["ours"])


def test_a_curve_says_when_a_level_is_reached() -> None:
    people = np.array([[0.0, 0.2], [0.2, 0.4], [0.1, 0.3]])
    curve = Curve(np.array([1.0, 3.0, 5.0]), people, people / 2)
    assert curve.best == 1
    assert curve.seconds_to(0.3) == 3.0
    assert curve.seconds_to(0.05) == 1.0
    assert curve.seconds_to(0.31) == float("inf")
    assert curve.at(4.9, "test") == pytest.approx(0.15)
    assert np.isnan(curve.at(0.9, "test"))
    assert np.isnan(curve.at(5.1, "validation"))


def made_up(who: str, settings: dict[str, Any], seed: int) -> Curve:
    """The peer's best, 0.3, comes after 40 seconds, ours passes it after 4.

    All other shapes than the third of each learn nothing, and the best rate is three times the largest
    that is tried at first.
    """
    shape = {k: v for k, v in settings.items() if k not in (sasrec.RATE[who], sasrec.LENGTH[who])}
    if shape != sasrec.SHAPES[who][2]:
        return Curve(np.ones(1), np.full((1, 3), 0.01), np.ones((1, 3)))
    far = abs(np.log(settings[sasrec.RATE[who]] / (3 * max(sasrec.RATES))))
    seconds, course = {
        "ours": ([2.0, 4.0, 6.0], [0.2, 0.35, 0.33]),
        "rectools": ([20.0, 40.0, 60.0], [0.28, 0.3, 0.29]),
    }[who]
    values = np.outer(course, [0.9, 1.0, 1.1]) * np.exp(-far)
    return Curve(np.array(seconds), values, values / 2)


def test_figures_of_training_hold_every_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec, "train", made_up)
    found = flat_figures(sasrec.figures())
    for length in ("history_50", "history_100"):
        assert found[f"{length}_speedup"] == found[f"{length}_speedup_low"] == 10
        assert found[f"{length}_to_90_percent_speedup"] == 5
        assert found[f"{length}_ndcg_ratio"] == pytest.approx(0.35 / 0.3, rel=1e-5)
        assert found[f"{length}_ours_test_ndcg10"] == pytest.approx(0.175)
        assert found[f"{length}_rectools_validation_ndcg10_at_32s"] == pytest.approx(0.28)
        assert found[f"{length}_ours_validation_ndcg10_at_8s"] is None
    assert goal_is_met(sasrec.GOAL, found)


@pytest.mark.parametrize("who", ["ours", "rectools"])
def test_both_sides_read_the_same_length_and_the_chosen_rate_is_inside_of_those_tried(
    monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    asked: list[dict[str, Any]] = []

    def train(who: str, settings: dict[str, Any], seed: int) -> Curve:
        asked.append(settings)
        return made_up(who, settings, seed)

    monkeypatch.setattr(sasrec, "train", train)
    rate = sasrec.chosen(who, 100)[sasrec.RATE[who]]
    rates = {settings[sasrec.RATE[who]] for settings in asked}
    assert rate == 3 * max(sasrec.RATES)
    assert min(rates) < rate < max(rates)
    assert {settings[sasrec.LENGTH[who]] for settings in asked} == {100}


def test_the_peer_trains_on_until_its_best_look_is_not_among_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epochs: list[int] = []

    def train_once(who: str, settings: dict[str, Any]) -> Curve:
        epochs.append(settings["epochs"])
        looks = np.arange(settings["epochs"] // settings["every"], dtype=float)
        values = -abs(looks - 30)[:, None]
        return Curve(looks, values, values)

    monkeypatch.setattr(sasrec, "train_once", train_once)
    assert sasrec.train("rectools", {}, 0).best == 30
    assert epochs == [24, 48, 96]
