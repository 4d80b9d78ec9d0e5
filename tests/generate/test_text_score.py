"""Scores of texts under the conditions own, swapped and none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.splits import Split
from generate.evaluation.identification import draw_other_users
from generate.evaluation.readings import Reading
from generate.evaluation.users import EvaluationUsers, sample_users
from generate.text.config import TextScoreConfig, WriteConfig
from generate.text.likelihood import TrueTexts, identify_texts
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions
from generate.text.score import TextScoreInputs, generate_texts, score_texts
from generate.text.text_metrics import bleu, distinct, near_copies, rouge
from tests.generate.tiny_text import TEXTS, TinyRanker, make_writer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_true_texts_become_more_likely_under_the_own_user(
    trained: TextGenerator, text_catalog: Catalog, text_split: Split, text_ranker: TinyRanker
) -> None:
    states = text_ranker.user_states([text_catalog.interactions.history(user) for user in (0, 1)])
    own, _ = trained.text_nll(Conditions(states), "review", TEXTS)
    swapped, _ = trained.text_nll(Conditions(states.flip(0)), "review", TEXTS)
    assert (own + 1 < swapped).all()
    reading = Reading(lambda text: "wool" in text, lambda user, _: user % 2 == 0, "review")
    writer = make_writer(trained, text_catalog, text_ranker, text_split)
    config = TextScoreConfig(num_generated=8)
    scores: Any = score_texts(
        writer, text_split, config, TextScoreInputs({"wool": reading}, batch_size=5)
    )
    hits = scores["readings"]["wool"]
    assert hits["own"]["value"] > hits["swapped"]["value"]
    likelihood = scores["likelihood"]["review, item hidden"]
    assert likelihood["swapped_minus_own"]["value"] > 0
    assert likelihood["texts"] == len(text_split.test)
    identification = scores["identification"]["review, item hidden"]
    assert identification == {"count": len(text_split.test)}, "too few users"
    review = scores["generated"]["review"]
    assert review["near_copies"] > 0
    rouge_l = review["rouge_l"]
    difference = rouge_l["own"]["value"] - rouge_l["swapped"]["value"]
    assert rouge_l["own_minus_swapped"]["value"] == pytest.approx(difference) != 0
    assert 0 <= review["bleu"]["none"] < review["bleu"]["own"]


def test_scored_texts_are_those_that_are_served(
    trained: TextGenerator, text_catalog: Catalog, text_split: Split, text_ranker: TinyRanker
) -> None:
    writer = make_writer(trained, text_catalog, text_ranker, text_split)
    users = sample_users(text_ranker, text_catalog, text_split, 4)  # type: ignore[arg-type]
    config = WriteConfig(seed=3)
    scored = generate_texts(writer, users, "description", "none", config, batch_size=3)
    for index, text in enumerate(scored):
        served = writer.write(
            None, str(users.items[index]), "description", WriteConfig(seed=3 + index)
        )
        assert served == [text]


def test_texts_identify_their_user_among_others(
    trained: TextGenerator, text_catalog: Catalog, text_split: Split, text_ranker: TinyRanker
) -> None:
    writer = make_writer(trained, text_catalog, text_ranker, text_split)
    users = sample_users(text_ranker, text_catalog, text_split, 12)  # type: ignore[arg-type]
    true = TrueTexts("review", [TEXTS[user % 2] for user in users.users], with_item=False)

    def identify(users: EvaluationUsers) -> NDArray[np.float64]:
        return identify_texts(writer, users, true, num_candidates=4, batch_size=9)

    hits = identify(users)
    others = draw_other_users(users.users, 3, seed=0)
    alike = (users.users[others] % 2 == users.users[:, None] % 2).sum(axis=1)  # same review
    assert ((hits == 0) | (alike > 0) | (hits == 1)).all()
    assert hits[alike == 0].all()
    assert 0 < hits.mean() < 1
    unknown = replace(
        users,
        states={"own": users.states["none"]},
        prefixes={"own": users.prefixes["none"]},
    )
    assert (identify(unknown) == 0.25).all(), "users who cannot be told apart are equally likely"


def test_candidates_are_other_users_and_none_twice() -> None:
    users = np.array([3, 3, 5, 7, 7, 9, 11])
    drawn = draw_other_users(users, 3, seed=1)
    for user, indices in zip(users, drawn, strict=True):
        assert user not in users[indices]
        assert len(set(users[indices])) == 3
    assert len({tuple(row) for row in drawn}) > 1
    with pytest.raises(ValueError, match="5 users are too few"):
        draw_other_users(users, 5, seed=1)


def test_rouge_and_bleu_are_those_computed_by_hand() -> None:
    """By hand: of "a big cat" two words are in "the big cat sat", in order."""
    found = rouge(["a big cat", "x"], ["the big cat sat", "x"])
    assert found["rouge_1"].tolist() == pytest.approx([2 * 2 / 7, 1])
    assert rouge(["cat big a"], ["the big cat sat"])["rouge_l"][0] == pytest.approx(2 / 7)
    assert bleu(["the cat sat on it"], ["the cat sat on it"]) == pytest.approx(1)
    assert bleu(["it on sat cat the"], ["the cat sat on it"]) < 0.5


def test_metrics_cover_scripts_without_spaces_and_short_texts() -> None:
    for text in ("青い革のコートです", "เสื้อหนังสีน้ำเงิน", "革靴", "coat", "ສີແດງ", "ကုတ်အင်္ကျီ"):
        assert bleu([text], [text]) == pytest.approx(1), text
        assert rouge([text], [text])["rouge_l"][0] == pytest.approx(1), text
    assert 0 < bleu(["青い革のコートです"], ["青い絹のコートです"]) < 1
    assert bleu(["青い革のコート"], ["red silk shoes"]) == 0
    assert distinct(["青い革", "青い革"], 1) == 0.5
    assert near_copies(["青い革のコート"], ["これは青い革のコートです"]).tolist() == [True]
    assert near_copies(["青い革のコート"], ["赤い絹の靴を売る"]).tolist() == [False]
