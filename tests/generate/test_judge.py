"""Entailment models as judges of texts: labels, windows, the two layers together, and who judges whom."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedTokenizerFast,
)

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.interactions import Interactions
from generate.text.config import WriteConfig
from generate.text.faithfulness import ClaimChecker
from generate.text.judge import (
    EntailmentJudge,
    JudgedChecker,
    check_other_judge,
    check_other_weights,
    entailment_label,
    load_judge,
    sentences,
    with_judge,
)
from generate.text.tokenizer import train_tokenizer

FACTS = ["Red wool coat, 60 cm. " + "It is warm and soft and long. " * 12, "Blue silk hat."]
Save = Callable[..., str]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Writes a tiny sequence classifier and returns its folder."""

    def write(labels: tuple[str, ...], seed: int = 0, tokenizer: bool = True) -> str:
        folder = tmp_path_factory.mktemp("judge")
        torch.manual_seed(seed)
        words: PreTrainedTokenizerFast = train_tokenizer(FACTS, 300)
        words.model_max_length = 48
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        if tokenizer:
            words.save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture(scope="module")
def checker() -> ClaimChecker:
    columns: dict[str, list[str | None]] = {
        "item_id": ["a", "b"],
        "title": list(FACTS),
        **{name: [None, None] for name in ("text", "category", "image")},
    }
    catalog = Catalog(
        name="clothes",
        folder=Path(),
        fingerprint="0",
        content_fingerprint="0",
        columns=pa.table({"item_id": ["a", "b"]}),
        items=Dataset.from_dict(columns),
        user_ids=np.array(["u"]),
        interactions=Interactions(
            offsets=np.array([0, 1]), items=np.zeros(1, np.int32), times=np.zeros(1, np.int64)
        ),
        roles={"items": {"item_id": "item_id"}},
    )
    return ClaimChecker(catalog)


@pytest.mark.parametrize(
    ("labels", "index"),
    [
        (("contradiction", "neutral", "entailment"), 2),
        (("ENTAILMENT", "NOT_ENTAILMENT"), 0),
        (("not_entailment", "entailment"), 1),
        (("unsupported", "supported"), 1),
        (("hallucinated", "consistent"), 1),
        (("inconsistent", "factual"), 1),
    ],
)
def test_the_label_of_entailment_is_found_by_its_name(labels: tuple[str, ...], index: int) -> None:
    assert entailment_label(dict(enumerate(labels)), "m", "") == index


def test_labels_that_say_nothing_need_a_setting() -> None:
    labels = {0: "LABEL_0", 1: "LABEL_1"}
    with pytest.raises(VitrineError, match="do not say which of them means entailment"):
        entailment_label(labels, "m", "")
    assert entailment_label(labels, "m", "LABEL_1") == entailment_label(labels, "m", "1") == 1
    with pytest.raises(VitrineError, match="judge_label is '2'"):
        entailment_label(labels, "m", "2")


def test_the_best_window_of_a_long_premise_counts(save: Save) -> None:
    judge = EntailmentJudge(save(("unsupported", "supported")))
    rows, owners = judge.windows(FACTS, ["It is red."] * 2)
    assert (owners == 0).sum() > 2
    assert (owners == 1).sum() == 1
    assert max(len(row["input_ids"]) for row in rows) <= 48
    first = judge._probabilities(
        [row for row, owner in zip(rows, owners, strict=True) if not owner]
    )
    scores = judge.score(FACTS, ["It is red."] * 2)
    assert scores[0] == pytest.approx(first.max(), abs=1e-5)
    alone = judge.score(FACTS[1:], ["It is red."])
    assert scores[1] == pytest.approx(alone[0], abs=1e-5), "a score depends on its batch"
    assert judge.score(["", FACTS[0]], ["?", "red " * 200]).shape == (2,)
    assert judge.score([], []).shape == (0,)


def test_a_text_is_faithful_if_neither_layer_rejects_it(
    save: Save, checker: ClaimChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = load_judge(save(("unsupported", "supported")))
    assert judge is not None
    monkeypatch.setattr(
        judge,
        "score",
        lambda _, texts: np.array([0.2 if "blessed" in one else 0.9 for one in texts]),
    )
    both = with_judge(checker, judge, WriteConfig())
    assert both.supports("A red coat. It is warm.", 0)
    assert not both.supports("A red coat. It is blessed.", 0), "the judge's"
    assert checker.supports("A red coat. It is blessed.", 0)
    assert not both.supports("It is vegan.", 0), "the fast check's"
    assert [claim.about for claim in both.check("It is blessed", 0)] == ["sentence"]
    assert with_judge(checker, None, WriteConfig()) is checker
    silent = with_judge(checker, judge, WriteConfig(judge_scope="unrecognized"))
    assert silent.supports("A blessed red coat.", 0), "red was recognized and checked"
    assert not silent.supports("It is blessed.", 0)
    decisive = with_judge(checker, judge, WriteConfig(judge_scope="words"))
    unknown = "It was made by Tom Cruise."
    assert not checker.supports(unknown, 0)
    assert decisive.supports(unknown, 0), "only a word is unknown, and the judge accepts it"
    assert not decisive.supports("A blessed coat, made by Tom Cruise.", 0), "the judge rejects it"
    assert not decisive.supports("A red vegan coat.", 0), "a property is the fast check's"
    assert isinstance(both, JudgedChecker)
    share = both.supported_share(["A red coat. It is blessed.", ""], [0, 1])
    assert share == 0.5


def test_a_sentence_of_the_catalog_word_by_word_is_supported_without_the_model(
    save: Save, checker: ClaimChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = EntailmentJudge(save(("unsupported", "supported")))
    asked: list[str] = []

    def score(_: list[str], claims: list[str]) -> np.ndarray:
        asked.extend(claims)
        return np.zeros(len(claims), dtype=np.float32)

    monkeypatch.setattr(judge, "score", score)
    judged = JudgedChecker(checker, judge)
    assert judged.supports("it is  warm and soft and long.", 0)
    assert judged.supported_share(["Red wool coat, 60 cm. It is warm and soft."], [0]) == 0.5
    assert not judged.supports("It is warm and soft and long.", 1), "of another item"
    assert asked == ["It is warm and soft.", "It is warm and soft and long."], "a part is judged"


def test_sentences_end_at_stops_semicolons_and_bullets() -> None:
    assert sentences("It is red. Costs 4.90; warm\n• no end") == [
        "It is red.",
        "Costs 4.90",
        "warm",
        "no end",
    ]
    assert sentences("赤い。青い。") == ["赤い。", "青い。"]
    assert sentences(" ") == []


def test_a_filter_never_grades_itself(save: Save, tmp_path: Path) -> None:
    first, second, other = (
        save(("unsupported", "supported"), 0),
        save(("unsupported", "supported"), 0),
        save(("unsupported", "supported"), 1),
    )
    check_other_judge(first, other)
    check_other_judge("", first)
    for same in (first, f"{first}/."):
        with pytest.raises(VitrineError, match="a filter never grades itself"):
            check_other_judge(first, same)
    judge = EntailmentJudge(first)
    check_other_weights(judge, EntailmentJudge(other))
    check_other_weights(judge, None)
    with pytest.raises(VitrineError, match="have the same weights"):
        check_other_weights(judge, EntailmentJudge(second))


def test_a_judge_that_cannot_be_read_is_one_line(save: Save, tmp_path: Path) -> None:
    for name in (str(tmp_path / "absent"), save(("a", "entailment"), tokenizer=False)):
        with pytest.raises(VitrineError) as error:
            EntailmentJudge(name)
        assert "\n" not in str(error.value)
    with pytest.raises(VitrineError, match="do not say which of them means entailment"):
        EntailmentJudge(save(("LABEL_0", "LABEL_1")))
