"""A claim on the report's page is met exactly when its figures say so, and own stands beside own."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from finetune.statistics import Interval
from launch.pipeline import report
from launch.pipeline.claims import (
    RankedTargets,
    RatioGoals,
    content_claims,
    ranking_claims,
    ratio_claim,
)
from launch.pipeline.measurements import control_rows
from launch.report.contents import ControlRow
from launch.report.protocol import FEW_COLD
from launch.report.tables import controls_table


def shares(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of 40 users on both sides, theirs with mean `low`, ours with mean `high`."""
    return np.full(40, high), np.full(40, low)


@pytest.mark.parametrize(
    ("ours", "theirs", "goal", "met"),
    [
        (0.31, 0.1, 3.0, True),
        (0.29, 0.1, 3.0, False),
        (0.3, 0.0, 3.0, True),
        (0.3, 0.1, None, True),
        (0.1, 0.1, None, False),
        (0.1, 0.3, None, False),
        (0.0, 0.0, None, False),
    ],
)
def test_a_ratio_is_met_from_its_goal_on_and_without_goal_above_one(
    ours: float, theirs: float, goal: float | None, met: bool
) -> None:
    assert ratio_claim("x", *shares(theirs, ours), goal).met is met


def test_without_a_goal_the_whole_interval_must_lie_above_one() -> None:
    noise = np.random.default_rng(0).random(40)
    claim = ratio_claim("x", noise + 0.01, np.random.default_rng(1).random(40), None)
    assert "1.0" in claim.figure.split("[")[0] or "0.9" in claim.figure.split("[")[0]
    assert not claim.met


def control(low: float, high: float, better: bool, name: str = "own − swapped") -> ControlRow:
    some = Interval(0.5, 0.4, 0.6)
    return ControlRow("m", some, some, None, Interval((low + high) / 2, low, high), name, better, 9)


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (control(0.1, 0.2, True), True),
        (control(-0.1, 0.2, True), False),
        (control(-0.2, -0.1, True), False),
        (control(-0.2, -0.1, False), True),
        (control(-0.2, 0.1, False), False),
        (control(0.1, 0.2, False), False),
        (control(1.1, 1.2, True, "own / swapped"), True),
        (control(0.9, 1.2, True, "own / swapped"), False),
        (control(0.8, 0.9, False, "own / swapped"), True),
        (control(math.nan, math.nan, True), False),
    ],
)
def test_content_is_claimed_only_where_the_whole_interval_is_on_the_right_side(
    row: ControlRow, met: bool
) -> None:
    assert [claim.met for claim in content_claims([row])] == [met]


@pytest.mark.parametrize(
    ("lora_ranks", "trained_share", "met"),
    [([1] * 40, 0.04, True), ([1] * 36 + [20] * 4, 0.04, False), ([1] * 40, 0.06, False)],
)
def test_lora_is_close_to_full_only_with_few_weights_and_nearly_its_ndcg(
    lora_ranks: list[int], trained_share: float, met: bool
) -> None:
    ranks = {
        "popularity": np.full(40, 5),
        "lora": np.array(lora_ranks),
        "full": np.ones(40, dtype=np.int64),
    }
    targets = ranked_targets(ranks)
    claims = ranking_claims(targets, "lora", RatioGoals(), trained_share)
    assert [claim.met for claim in claims] == [True, met]


def test_claims_are_made_of_the_arms_that_are_there_and_of_enough_cold_targets() -> None:
    """Each claim compares the headline arm with its own baseline, by its own goal."""
    ranks = {
        "content": np.ones(40, dtype=np.int64),
        "popularity": np.full(40, 99),
        "shuffled": np.full(40, 2),
        "id": np.where(np.arange(40) < FEW_COLD, 99, 1),
    }
    goals = RatioGoals(popularity=3.0, shuffled=2.0, cold=5.0)
    targets = ranked_targets(ranks, num_cold=FEW_COLD)
    claims = ranking_claims(targets, "content", goals, 1.0)
    assert [claim.met for claim in claims] == [True, False, True]
    assert [claim.goal for claim in claims] == ["at least 3×", "at least 2×", "at least 5×"]
    few = ranked_targets(ranks, num_cold=FEW_COLD - 1)
    assert len(ranking_claims(few, "content", goals, 1.0)) == 2
    assert (
        len(ranking_claims(ranked_targets({**ranks, "full": ranks["id"]}), "id", goals, 1.0)) == 2
    )


def ranked_targets(ranks: dict[str, np.ndarray], num_cold: int = 0) -> RankedTargets:
    users = np.arange(40, dtype=np.int32)
    return RankedTargets(ranks, users, is_cold=users < num_cold)


def span(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


SCORES = {
    "image": {
        "metrics": {
            "palette": {
                "own": span(0.7),
                "swapped": span(0.2),
                "none": span(0.1),
                "contrast": span(3.5),
                "contrast_name": "own / swapped",
                "higher_is_better": True,
                "num_users": 5,
            }
        }
    },
    "text": {
        "likelihood": {
            "review, item hidden": {
                "own": {"token_nll": span(1.1)},
                "swapped": {"token_nll": span(1.4)},
                "none": {"token_nll": span(1.3)},
                "swapped_minus_own": {"value": 0.3, "low": 0.25, "high": 0.35},
                "texts": 5,
            }
        },
        "readings": {
            "names it": {
                "own": span(0.9),
                "swapped": span(0.3),
                "own_minus_swapped": span(0.6),
                "texts": 5,
            }
        },
    },
}


def test_own_swapped_and_unconditional_are_gathered_each_under_its_name() -> None:
    images, likelihood, reading = control_rows(json.loads(json.dumps(SCORES)))
    for row, own, swapped in ((images, 0.7, 0.2), (likelihood, 1.1, 1.4), (reading, 0.9, 0.3)):
        assert (row.own.value, row.swapped.value) == (own, swapped), row.measure
    assert images.unconditional is not None
    assert images.unconditional.value == 0.1
    assert likelihood.unconditional is not None
    assert likelihood.unconditional.value == 1.3
    assert likelihood.contrast == Interval(-0.3, -0.35, -0.25), "own less swapped: lower is better"
    assert not likelihood.higher_is_better
    assert all(claim.met for claim in content_claims([images, likelihood, reading]))


def test_the_page_shows_own_before_swapped_before_unconditional() -> None:
    table = controls_table(control_rows(SCORES)[:1])
    places = [table.index(text) for text in ("own user", "another user", "unconditional")]
    assert places == sorted(places)
    places = [table.index(f"{value:.3f}") for value in (0.7, 0.2, 0.1)]
    assert places == sorted(places)


def test_a_story_shows_generated_content_under_its_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "item_card", lambda catalog, item: item)
    for condition in ("own", "swapped", "none"):
        (tmp_path / f"x-{condition}.png").write_bytes(condition.encode())
    words = {condition: f"words for {condition}" for condition in ("own", "swapped", "none")}
    story = {
        "user": "u",
        "swapped_user": "v",
        "history": [1],
        "recommended": [2],
        "next_item": 3,
        "ground_truth": "",
        "generated": [{"item": 3, "files": "x", "texts": words}],
    }
    (generated,) = report._story(None, tmp_path, story).generated_items  # type: ignore[arg-type]
    for name, condition in (("own", "own"), ("swapped", "swapped"), ("unconditional", "none")):
        assert getattr(generated, name).image == condition.encode()
        assert getattr(generated, name).text == f"words for {condition}"
