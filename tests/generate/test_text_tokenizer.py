import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generate.text.tokenizer import (
    SPECIAL_TOKENS,
    Tokenizer,
    clean_text,
    decode_text,
    encode_texts,
    train_tokenizer,
)
from generate.text.variety import distinct, near_copies


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a soft green coat", "a bold red hat"] * 4, vocab_size=300)


@pytest.fixture(scope="module")
def reopened(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(str(folder))
    return AutoTokenizer.from_pretrained(folder)


names = st.sampled_from(list(SPECIAL_TOKENS.values()))
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
def test_words_come_back_as_they_were_cleaned(tokenizer: Tokenizer, text: str):
    (ids,) = encode_texts(tokenizer, [text], max_tokens=1000)
    assert decode_text(tokenizer, ids) == clean_text(text)


@given(text=st.text())
def test_clean_text_has_no_control_characters_and_stays_as_it_is(text: str):
    cleaned = clean_text(text)
    assert not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in cleaned)
    assert clean_text(cleaned) == cleaned


def test_a_cut_text_has_no_end(tokenizer: Tokenizer):
    cut, whole = encode_texts(tokenizer, ["a soft green coat " * 9, "a"], max_tokens=5)
    assert len(cut) == 5
    assert tokenizer.eos_token_id not in cut
    assert whole[-1] == tokenizer.eos_token_id


def test_near_copies_take_most_of_their_words_from_one_known_text():
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


def test_distinct_counts_each_pair_of_words_once():
    assert distinct(["a b", "a b"]) == 0.5
    assert distinct(["a b c"]) == 1.0
    assert distinct([]) == 0.0
