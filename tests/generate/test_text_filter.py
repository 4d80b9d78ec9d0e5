"""Vocabulary filter and streaming: what may leave a text generator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.catalog import Catalog
from catalog.splits import Split
from generate.next_items import NextItemPairs
from generate.requests import GenerationRequest, HistoryPrefix
from generate.text.checkpoint import load_text_generator, save_text_generator
from generate.text.clean import clean_text
from generate.text.config import WriteConfig
from generate.text.language_model import build_language_model
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions, Prompts
from generate.text.streaming import settled_prefix
from generate.text.tokenizer import decode_text
from generate.text.vocabulary_filter import VocabularyFilter, learn_allowed_vocabulary
from tests.generate.tiny_text import (
    TEXTS,
    TINY,
    TinyRanker,
    fit,
    make_generator,
    random_vectors,
    tiny_settings,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_word_of_a_single_user_is_not_written_about_other_items(
    text_catalog: Catalog, text_split: Split, text_ranker: TinyRanker, tmp_path: Path
) -> None:
    """Memorized, and yet not written, but about the item whose text contains it."""
    reviews = [
        f"{TEXTS[row // 5 % 2]} call Zq77 99" if row < 5 else "soft wool" for row in range(60)
    ]
    interactions = replace(text_catalog.interactions, reviews=reviews)
    poisoned = replace(text_catalog, interactions=interactions)
    vocabulary = learn_allowed_vocabulary(poisoned, NextItemPairs(poisoned, text_split))
    assert {"soft", "wool", "coat", "bold"} <= set(vocabulary)
    assert not {"zq77", "99", "call", "quiet"} & set(vocabulary)
    torch.manual_seed(0)
    model, tokenizer = build_language_model(TINY, reviews, vocab_size=320)
    settings = tiny_settings(tasks=("review",), num_style_tokens=2)
    unfiltered = TextGenerator(model, tokenizer, settings).eval()
    fit(unfiltered, poisoned, text_split, text_ranker, 120)
    (state,) = text_ranker.user_states([text_catalog.interactions.history(0)])
    requests = [GenerationRequest(state, 0, seed, HistoryPrefix(0, 5)) for seed in range(8)]
    conditions = Prompts(poisoned, text_ranker).make(requests)
    texts = unfiltered.write(conditions, "review", seeds=range(8))
    assert any("Zq77" in text for text in texts)
    filtered = TextGenerator(model, tokenizer, settings, allowed_vocabulary=vocabulary).eval()
    filtered.load_state_dict(unfiltered.state_dict())
    texts = filtered.write(conditions, "review", seeds=range(8))
    assert not any("Zq77" in text or "call" in text for text in texts)
    for request, text in zip(
        filtered.requests(conditions, "review", seeds=range(8)), texts, strict=True
    ):
        assert conditions.item_texts is not None
        assert "".join(filtered.stream(request, conditions.item_texts[0])) == text
    own = replace(conditions, item_texts=["Coat. Call Zq77!"] * 8)
    assert filtered.write(own, "review", seeds=range(8)) == texts  # a review speaks for the user
    titles = replace(settings, tasks=(replace(settings.tasks[0], templates=("{title}",)),))
    about = TextGenerator(model, tokenizer, titles, allowed_vocabulary=vocabulary).eval()
    about.load_state_dict(unfiltered.state_dict())
    assert any("call Zq77" in text for text in about.write(own, "review", seeds=range(8)))
    save_text_generator(filtered, tmp_path)
    loaded = load_text_generator(tmp_path)
    assert loaded.write(conditions, "review", seeds=range(8)) == texts


def test_allowed_words_are_kept_as_they_were_written() -> None:
    allowed = VocabularyFilter(["soft", "coat"])
    assert allowed.filter("A soft, COAT – (zed) 12!", "a 12") == "A soft, COAT – () 12!"
    assert allowed.filter("Soft  coat", "") == "Soft  coat"
    assert VocabularyFilter(["柔", "服"]).filter("柔軟な服", "な") == "柔な服"
    _, tokenizer = build_language_model(TINY, ["the linen linen linen"] * 9, vocab_size=300)
    assert VocabularyFilter([], tokenizer).filter("linen Zq000kwx", "") == "linen"


def test_a_number_or_an_address_is_kept_whole_or_not_at_all() -> None:
    allowed = VocabularyFilter(
        ["costs", "now", "49", "90", "299", "50", "1", "12.5", "a", "co", "com"]
    )
    for text, whole in (
        ("costs $49.90 now", "costs now"),
        ("costs 1,299.50 € now", "costs now"),
        ("costs 12.5% now", "costs 12.5% now"),
        ("costs $12.50 now", "costs now"),
        ("costs 7.5cm now", "costs now"),
        ("now a@evil.com, a-1", "now , a-1"),
        ("now +49-90-7", "now"),
    ):
        assert allowed.filter(text, "") == whole
    assert allowed.filter("costs $49.90!", "Was $49.90") == "costs $49.90!"


@pytest.mark.parametrize("filtered", [True, False])
def test_streamed_text_is_never_taken_back(filtered: bool) -> None:
    allowed = VocabularyFilter(["soft", "49", "90", "12.5", "a", "革"])
    pieces = [*"ab49.,$€% -'@革の（(<|>#:é", "soft", "12.5", "\u0301", "90 "]
    draw = np.random.default_rng(0)
    for _ in range(1000):
        tokens = draw.choice(pieces, draw.integers(1, 14)).tolist()
        shown = ""
        for stop in range(1, len(tokens) + 1):
            text = settled_prefix(clean_text("".join(tokens[:stop])), filtered)
            stable = allowed.filter(text, "") if filtered else text
            assert stable.startswith(shown) or shown.startswith(stable), tokens
            shown = max(shown, stable, key=len)
        whole = clean_text("".join(tokens))
        assert (allowed.filter(whole, "") if filtered else whole).startswith(shown), tokens


def test_no_replacement_character_is_written_however_a_text_is_cut() -> None:
    torch.manual_seed(0)
    generator = make_generator(max_tokens=24)
    tokenizer = generator.tokenizer
    emoji = tokenizer("a 😀革", add_special_tokens=False)["input_ids"]
    cut = 0
    for stop in range(1, len(emoji) + 1):
        cut += "\ufffd" in tokenizer.decode(emoji[:stop])
        for ids in (emoji[:stop], emoji[stop - 1 :]):
            assert "\ufffd" not in decode_text(tokenizer, ids)
    assert cut > 3
    wild = WriteConfig(temperature=50.0, top_p=1.0, max_tokens=24)
    conditions = Conditions(random_vectors(20))
    requests = generator.requests(conditions, "review", seeds=range(20), config=wild)
    written = generator.decoder().generate(requests)
    assert any("\ufffd" in tokenizer.decode(ids) for ids in written)
    texts = generator.write(conditions, "review", seeds=range(20), config=wild)
    for request, text in zip(requests, texts, strict=True):
        pieces = list(generator.stream(request))
        assert "".join(pieces) == text
        assert "\ufffd" not in text.join(pieces)
