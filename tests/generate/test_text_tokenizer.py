import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.columns import TITLE
from generate.text.clean import clean_text, short_title
from generate.text.text_metrics import distinct, near_copies
from generate.text.tokenizer import (
    SPECIAL_TOKENS,
    Tokenizer,
    decode_text,
    encode_texts,
    reserved_ids,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a soft green coat", "a bold red hat"] * 4, vocab_size=300)


@pytest.fixture(scope="module")
def reopened(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(str(folder))
    return AutoTokenizer.from_pretrained(folder)


MARKS = [
    "<|im_start|>",
    "<|im_<|x|>end|>",
    "<｜User｜>",
    "<|eot_\u200bid|>",
    "\uff1c|im_start|\uff1e",
    "[INST]",
    "[ /inst ]",
    "[[INST]INST]",
    "<<SYS>>",
    "</s>",
    "<start_of_turn>",
    "<tool_call>",
    "<system>",
    "### Instruction",
    "system:",
    "Assistant :",
    "\uff35ser\uff1a",
    "Human\u2066:",
    "\U000e0041\U000e0042",
]
names = st.sampled_from([*SPECIAL_TOKENS.values(), *MARKS])
hostile = st.lists(st.one_of(st.text(max_size=20), names), max_size=6).map("".join)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(hostile, max_size=4))
def test_special_tokens_never_come_from_data(
    tokenizer: Tokenizer, reopened: Tokenizer, texts: list[str]
):
    for one in (tokenizer, reopened):
        for ids in encode_texts(one, texts, max_tokens=500):
            assert ids[-1] == one.eos_token_id
            assert not set(ids[:-1]) & set(one.all_special_ids)


@settings(max_examples=100, deadline=None)
@given(text=hostile)
def test_decoding_returns_the_cleaned_text(tokenizer: Tokenizer, text: str):
    (ids,) = encode_texts(tokenizer, [text], max_tokens=1000)
    assert decode_text(tokenizer, ids) == clean_text(text)


@given(text=st.text())
def test_cleaning_removes_control_characters_and_is_idempotent(text: str):
    cleaned = clean_text(text)
    hidden = {sign for sign in cleaned if unicodedata.category(sign) in ("Cc", "Cs", "Cf")}
    assert hidden <= {"\u200c", "\u200d"}
    assert clean_text(cleaned) == cleaned


@settings(max_examples=300, deadline=None)
@given(text=hostile)
def test_no_chat_template_markup_is_left(text: str):
    cleaned = clean_text(text)
    folded = unicodedata.normalize("NFKC", cleaned).lower()
    assert not re.search(r"<\s*[|｜][^<>]{0,80}[|｜]\s*>|\[\s*/?inst\s*\]|<<\s*/?sys|</?s>", folded)
    assert not re.search(r"(?<![^\W_])(system|user|assistant|human)\s*:", folded)
    assert clean_text(cleaned) == cleaned


@pytest.mark.parametrize("mark", MARKS)
def test_each_kind_of_markup_is_removed(mark: str):
    assert clean_text(f"a {mark} b") in ("a b", "a Instruction b") or " -" in clean_text(mark)
    assert mark not in clean_text(f"a {mark} b")


@pytest.mark.parametrize(
    "text",
    [
        "A coat [navy], size <40>, was 30 < 40",
        "# 1 in its class ## of 5",
        "می‌خواهم",
        "👨‍👩‍👧 knit",
        "systematic users: few",
        "the user interface",
    ],
)
def test_text_that_addresses_no_model_stays(text: str):
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("title", "short"),
    [
        ("A <|im_start|>navy coat", "A navy coat"),
        ("coat " * 30, ("coat " * 16).strip()),
        ("服" * 100, "服" * TITLE),
        ("a" * TITLE, "a" * TITLE),
        ("a" * TITLE + " coat", "a" * TITLE),
    ],
)
def test_a_long_title_ends_with_a_whole_word(title: str, short: str):
    assert short_title(title) == short


@settings(max_examples=100, deadline=None)
@given(text=hostile)
def test_a_short_title_is_clean_and_short(text: str):
    title = short_title(text)
    assert len(title) <= TITLE
    assert clean_text(text).startswith(title)


def test_added_tokens_that_look_like_markup_are_reserved(tokenizer: Tokenizer):
    from transformers import PreTrainedTokenizerFast

    grown = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer.from_str(tokenizer._tokenizer.to_str()),
        **SPECIAL_TOKENS,
    )
    grown.add_tokens(["<call>", "[note]", "merino"])
    call, note, word = grown.convert_tokens_to_ids(["<call>", "[note]", "merino"])
    assert {call, note} <= reserved_ids(grown)
    assert word not in reserved_ids(grown)
    (ids,) = encode_texts(grown, ["a <call> [note] merino"], 50)
    assert not {call, note} & set(ids)
    assert word in ids


def test_a_truncated_text_has_no_end_token(tokenizer: Tokenizer):
    cut, whole = encode_texts(tokenizer, ["a soft green coat " * 9, "a"], max_tokens=5)
    assert len(cut) == 5
    assert tokenizer.eos_token_id not in cut
    assert whole[-1] == tokenizer.eos_token_id


def test_near_copies_share_most_ngrams_with_one_known_text():
    known = ["a soft green coat for long walks in the rain", "nothing like it at all here"]
    texts = [
        "A soft green coat for long walks in the rain",
        "a soft green coat for long walks in the snow and the sun",
        "a soft green coat nothing like it at all here",
        "red",
        "",
    ]
    assert near_copies(texts, known).tolist() == [True, False, False, False, False]
    assert near_copies(texts[:1], known, share=1.0).dtype == np.bool_


def test_distinct_2_counts_each_bigram_once():
    assert distinct(["a b", "a b"]) == 0.5
    assert distinct(["a b c"]) == 1.0
    assert distinct([]) == 0.0
