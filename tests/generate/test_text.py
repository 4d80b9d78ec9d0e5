from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch import Tensor

from catalog.catalog import Catalog
from catalog.config import SplitConfig
from catalog.errors import VitrineError
from catalog.interactions import Interactions
from catalog.splits import Split, make_split
from generate.next_items import NextItemPairs
from generate.text.clean import clean_text
from generate.text.config import TextConfig, WriteConfig
from generate.text.data import TextData, TextRows
from generate.text.decoding import Decoder, Request, choose_tokens
from generate.text.identify import draw_strangers, identified
from generate.text.language_model import build_language_model
from generate.text.model import TextGenerator, settled
from generate.text.module import TextModule
from generate.text.prompts import Conditions, Past, Prompts
from generate.text.score import Reading, score_texts
from generate.text.tasks import Words, load_task, tasks_with_words
from generate.text.tokenizer import decode_text
from generate.text.variety import bleu, distinct, near_copies, rouge
from generate.text.vouched import Vouched, learn_vouched
from pretrain.config import OptimizerConfig, TrainerConfig

WIDTH = 8
WORDS = ["soft and quiet, my kind of wool", "bold and loud, a colour that shouts"]
TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more to handing work over than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class FakeRanker:
    """Items of two sorts point two ways; a person is the mean of their items."""

    def __init__(self, num_items: int) -> None:
        vectors = np.random.default_rng(0).normal(size=(num_items, WIDTH)) * 0.3
        vectors[np.arange(num_items), np.arange(num_items) % 2] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.width = WIDTH
        self.item_vectors = vectors.astype(np.float32)

    def user_states(self, histories: list[np.ndarray]) -> Tensor:
        sums = [self.item_vectors[history].sum(axis=0) for history in histories]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(sums)), dim=-1)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Twelve people who each take five items of one sort out of twelve, and review in two ways."""
    people, length = 12, 5
    rng = np.random.default_rng(1)
    items = [2 * rng.choice(6, length, replace=False) + person % 2 for person in range(people)]
    return Catalog(
        name="tiny",
        folder=Path(),
        fingerprint="0",
        content_fingerprint="0",
        columns=pa.table({}),
        items=Dataset.from_dict(
            {
                "item_id": [str(item) for item in range(12)],
                "title": ["Coat", "Hat"] * 6,
                "text": ["a soft thing", "a bold thing"] * 6,
                "category": [None] * 12,
                "image": [None] * 12,
            }
        ),
        user_ids=np.array([str(person) for person in range(people)]),
        interactions=Interactions(
            offsets=np.arange(people + 1) * length,
            items=np.concatenate(items).astype(np.int32),
            times=np.tile(np.arange(length), people),
            reviews=[WORDS[person % 2] for person in range(people) for _ in range(length)],
        ),
    )


@pytest.fixture(scope="module")
def split(catalog: Catalog) -> Split:
    return make_split(catalog, SplitConfig(kind="leave-one-out"))


@pytest.fixture(scope="module")
def ranker() -> FakeRanker:
    return FakeRanker(12)


def make_generator(**options) -> TextGenerator:
    torch.manual_seed(0)
    model, tokenizer = build_language_model(TINY, WORDS, vocab_size=320)
    settings = {"width": WIDTH, "tasks": ("description", "review"), "max_tokens": 24, **options}
    return TextGenerator(model, tokenizer, **settings).eval()


def some_vectors(count: int, seed: int = 0) -> Tensor:
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def fit(generator: TextGenerator, catalog: Catalog, split: Split, ranker: FakeRanker, steps: int):
    config = TextConfig(batch_size=16, max_tokens=24, trainer=TrainerConfig(max_steps=steps))
    pairs = NextItemPairs(catalog, split)
    data = TextData(Words(catalog, generator.learned), ranker, pairs, generator, config)
    module = TextModule(generator, OptimizerConfig(learning_rate=5e-3))
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    generator.eval()


@pytest.fixture(scope="module")
def learned(catalog: Catalog, split: Split, ranker: FakeRanker) -> TextGenerator:
    generator = make_generator()
    fit(generator, catalog, split, ranker, 120)
    return generator


def test_reopened_generator_writes_and_scores_the_same(learned: TextGenerator, tmp_path: Path):
    learned.save_pretrained(tmp_path)
    reopened = TextGenerator.from_pretrained(tmp_path)
    asked = Conditions(some_vectors(3), some_vectors(3, 1))
    assert reopened.write(asked, "review", seeds=[0, 1, 2]) == learned.write(
        asked, "review", seeds=[0, 1, 2]
    )
    texts = [*WORDS, "neither"]
    ours = learned.loss_per_text(asked, "description", texts)
    theirs = reopened.loss_per_text(asked, "description", texts)
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_gets_the_same_words_whatever_else_is_in_the_batch(
    learned: TextGenerator, ranker: FakeRanker, temperature: float
):
    asked = Conditions(torch.from_numpy(ranker.item_vectors[:5]), some_vectors(5))
    seeds, config = [3, 1, 4, 1, 5], WriteConfig(temperature=temperature)
    together = learned.write(asked, "review", seeds=seeds, config=config)
    alone = [
        learned.write(asked.take([i]), "review", seeds=[seeds[i]], config=config)[0]
        for i in range(5)
    ]
    assert together == alone
    assert len(set(together)) > 1


def test_a_text_scores_the_same_beside_longer_ones():
    generator = make_generator()
    users = some_vectors(2)
    nats, counts = generator.loss_per_text(Conditions(users), "review", ["soft", WORDS[1] * 2])
    alone, count = generator.loss_per_text(Conditions(users[:1]), "review", ["soft"])
    torch.testing.assert_close(nats[:1], alone)
    assert counts[0] == count[0] < counts[1]


def test_cached_words_are_those_of_full_passes():
    generator = make_generator()
    prefix = generator.prefix(
        some_vectors(1), torch.zeros(1, WIDTH), torch.tensor([[-100]]), torch.tensor([1])
    )
    model, embed = generator.language_model, generator.language_model.get_input_embeddings()
    request = Request(prefix[0], seed=5, temperature=2.0, max_tokens=6)
    (cached,) = Decoder(model, end=generator.end, forbidden=[0]).write([request])
    inputs, written, draws = prefix, [], [torch.Generator().manual_seed(5)]
    for _ in range(6):
        logits = model(inputs_embeds=inputs).logits[:, -1].detach()
        logits[:, 0] = -torch.inf
        written.append(int(choose_tokens(logits, 2.0, 0.9, draws)))
        inputs = torch.cat([inputs, embed(torch.tensor([written[-1:]]))], dim=1)
    assert cached == written
    assert len(set(written)) > 1


def test_pieces_are_those_of_the_whole_text():
    generator = make_generator()
    asked, config = Conditions(some_vectors(1)), WriteConfig(temperature=3.0)
    for seed in range(4):
        (whole,) = generator.write(asked, "review", seeds=[seed], config=config)
        (request,) = generator.requests(asked, "review", seeds=[seed], config=config)
        pieces = list(generator.stream(request))
        assert "".join(pieces) == whole
        assert len(pieces) > 1


def test_what_a_person_took_is_told_in_words_and_costs_nothing(
    catalog: Catalog, split: Split, ranker: FakeRanker
):
    """Beside shorter ones, and cut at the old end where there is no room for more."""
    generator = make_generator(history_items=3, history_tokens=12)
    asked = Conditions(some_vectors(3), None, ["took: Coat", "took: Hat; Coat; Hat; Coat", ""])
    texts = ["soft", WORDS[1], WORDS[0]]
    nats, counts = generator.loss_per_text(asked, "review", texts)
    for place, text in enumerate(texts):
        alone, count = generator.loss_per_text(asked.take([place]), "review", [text])
        torch.testing.assert_close(nats[place : place + 1], alone)
        assert count == counts[place]
    silent, same = generator.loss_per_text(Conditions(some_vectors(3)), "review", texts)
    assert torch.equal(counts, same)
    torch.testing.assert_close(nats[2], silent[2])
    assert (nats[:2] - silent[:2]).abs().min() > 1e-4
    cut, _, none = generator.history_ids(["took: " + "Coat; " * 40, "took: Hat", ""], 3)
    assert (len(cut), none) == (12, [])
    assert generator.tokenizer.decode(cut).endswith("Coat;\n")
    config = WriteConfig(temperature=2.0)
    together = generator.write(asked, "review", seeds=[1, 2, 3], config=config)
    for place, text in enumerate(together):
        (alone,) = generator.write(asked.take([place]), "review", seeds=[place + 1], config=config)
        assert alone == text
    with pytest.raises(VitrineError, match="set max_tokens to 4"):
        make_generator(history_items=3, history_tokens=82)
    config = TextConfig(drop_user=0.5, drop_item=0.5, trainer=TrainerConfig(seed=3))
    data = TextData(
        Words(catalog, generator.learned), ranker, NextItemPairs(catalog, split), generator, config
    )
    rows = [data.rows[row] for row in range(24)]
    batch = data.collate(rows)
    told = (batch.token_ids != batch.labels).any(dim=1)
    assert told.tolist() == [row.user_shown and len(row.pair.history) > 0 for row in rows]
    assert 0 < told.sum() < len(rows)


def test_of_a_long_history_what_is_most_like_the_item_is_told(catalog: Catalog, ranker: FakeRanker):
    one = np.array([0, 2, 1, 3, 5], dtype=np.int32)
    mixed = replace(
        catalog,
        interactions=replace(catalog.interactions, items=np.tile(one, catalog.num_users)),
    )
    prompts = Prompts(mixed, ranker, history_items=2)
    assert prompts.told(Past(3, 5), 4) == "took: Coat; Coat"
    assert prompts.told(Past(3, 5), 7) == "took: Hat; Hat"
    assert prompts.told(Past(3, 4), None) == "took: Hat; Hat", "the newest"
    assert prompts.told(Past(3, 0), 4) == prompts.told(Past(), 4) == ""


def test_a_voice_is_what_was_said_before_and_nothing_later(catalog: Catalog, ranker: FakeRanker):
    texts = [f"say {row}" if row % 2 else None for row in range(60)]
    spoken = replace(catalog, interactions=replace(catalog.interactions, texts=texts))
    prompts = Prompts(spoken, ranker)
    assert prompts.said(Past(1, 4)) == "say 5 say 7"
    assert prompts.said(Past(1, 3)) == "say 5 say 7"
    assert prompts.said(Past(1, 2)) == "say 5"
    assert prompts.said(Past(1, 0)) == prompts.said(Past()) == ""
    assert (
        Prompts(
            replace(catalog, interactions=replace(catalog.interactions, texts=None)), ranker
        ).said(Past(1, 4))
        == ""
    )
    long = replace(
        catalog.interactions, offsets=np.array([0, 60]), reviews=[f"r{row}" for row in range(60)]
    )
    assert Prompts(replace(catalog, interactions=long), ranker).said(Past(0, 60)).split() == [
        f"r{row}" for row in range(52, 60)
    ]


def test_another_voice_gives_other_words_likeliness(catalog: Catalog):
    generator = make_generator(num_voice_tokens=2)
    users = some_vectors(3)
    texts = [WORDS[0]] * 3
    asked = Conditions(users, None, None, [WORDS[0], WORDS[1] * 3, ""])
    nats, _ = generator.loss_per_text(asked, "review", texts)
    for place in range(3):
        alone, _ = generator.loss_per_text(asked.take([place]), "review", texts[:1])
        torch.testing.assert_close(alone[0], nats[place])
    silent, _ = generator.loss_per_text(Conditions(users), "review", texts)
    torch.testing.assert_close(silent[2], nats[2])
    assert (silent[:2] - nats[:2]).abs().min() > 1e-4


def test_a_word_that_one_person_brought_in_is_not_said_of_other_items(
    catalog: Catalog, split: Split, ranker: FakeRanker, tmp_path: Path
):
    """Learned by heart, and yet it does not come out, but of the item whose text it is."""
    texts = [f"{WORDS[row // 5 % 2]} call Zq77 99" if row < 5 else "soft wool" for row in range(60)]
    poisoned = replace(catalog, interactions=replace(catalog.interactions, reviews=texts))
    vouched = learn_vouched(poisoned, NextItemPairs(poisoned, split))
    assert {"soft", "wool", "coat", "bold"} <= set(vouched)
    assert not {"zq77", "99", "call", "quiet"} & set(vouched)
    torch.manual_seed(0)
    model, tokenizer = build_language_model(TINY, texts, vocab_size=320)
    settings = {"width": WIDTH, "tasks": ("review",), "max_tokens": 24, "num_voice_tokens": 2}
    free = TextGenerator(model, tokenizer, **settings).eval()
    fit(free, poisoned, split, ranker, 120)
    prompts = Prompts(poisoned, ranker)
    users = ranker.user_states([catalog.interactions.history(0)] * 8)
    asked = prompts.make(users, [Past(0, 5)] * 8, [0] * 8)
    assert any("Zq77" in text for text in free.write(asked, "review", seeds=range(8)))
    guarded = TextGenerator(model, tokenizer, **settings, vouched=vouched).eval()
    guarded.load_state_dict(free.state_dict())
    found = guarded.write(asked, "review", seeds=range(8))
    assert not any("Zq77" in text or "call" in text for text in found)
    for seed, (request, text) in enumerate(
        zip(guarded.requests(asked, "review", seeds=range(8)), found, strict=True)
    ):
        assert "".join(guarded.stream(request, asked.own[0])) == text, seed
    own = replace(asked, own=["Coat. Call Zq77!"] * 8)
    assert any("call Zq77" in text for text in guarded.write(own, "review", seeds=range(8)))
    guarded.save_pretrained(tmp_path)
    reopened = TextGenerator.from_pretrained(tmp_path)
    assert reopened.write(asked, "review", seeds=range(8)) == found


def test_what_is_vouched_for_is_kept_as_it_was_written():
    kept = Vouched(["soft", "coat"])
    assert kept.keep("A soft, COAT – (zed) 12!", "a 12") == "A soft, COAT – () 12!"
    assert kept.keep("Soft  coat", "") == "Soft  coat"
    assert Vouched(["柔", "服"]).keep("柔軟な服", "な") == "柔な服"
    _, tokenizer = build_language_model(TINY, ["the linen linen linen"] * 9, vocab_size=300)
    assert Vouched([], tokenizer).keep("linen Zq000kwx", "") == "linen"


def test_a_number_or_an_address_is_kept_whole_or_not_at_all():
    kept = Vouched(["costs", "now", "49", "90", "299", "50", "1", "12.5", "a", "co", "com"])
    for text, whole in (
        ("costs $49.90 now", "costs now"),
        ("costs 1,299.50 € now", "costs now"),
        ("costs 12.5% now", "costs 12.5% now"),
        ("costs $12.50 now", "costs now"),
        ("costs 7.5cm now", "costs now"),
        ("now a@evil.com, a-1", "now , a-1"),
        ("now +49-90-7", "now"),
    ):
        assert kept.keep(text, "") == whole
    assert kept.keep("costs $49.90!", "Was $49.90") == "costs $49.90!"


@pytest.mark.parametrize("guarded", [True, False])
def test_what_was_streamed_is_never_taken_back(guarded: bool):
    vouched = Vouched(["soft", "49", "90", "12.5", "a", "革"])
    pieces = [*"ab49.,$€% -'@革の（(<|>#:é", "soft", "12.5", "\u0301", "90 "]
    draw = np.random.default_rng(0)
    for _ in range(1000):
        tokens = draw.choice(pieces, draw.integers(1, 14)).tolist()
        shown = ""
        for stop in range(1, len(tokens) + 1):
            text = settled(clean_text("".join(tokens[:stop])), guarded)
            sure = vouched.keep(text, "") if guarded else text
            assert sure.startswith(shown) or shown.startswith(sure), tokens
            shown = max(shown, sure, key=len)
        whole = clean_text("".join(tokens))
        assert (vouched.keep(whole, "") if guarded else whole).startswith(shown), tokens


def test_no_replacement_sign_leaves_however_a_text_is_cut():
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
    asked = Conditions(some_vectors(20))
    requests = generator.requests(asked, "review", seeds=range(20), config=wild)
    written = generator.decoder().write(requests)
    assert any("\ufffd" in tokenizer.decode(ids) for ids in written)
    texts = generator.write(asked, "review", seeds=range(20), config=wild)
    for request, text in zip(requests, texts, strict=True):
        pieces = list(generator.stream(request))
        assert "".join(pieces) == text
        assert "\ufffd" not in text.join(pieces)


def test_no_condition_is_the_dropped_condition(catalog: Catalog, split: Split, ranker: FakeRanker):
    generator = make_generator()
    config = TextConfig(drop_user=1.0, drop_item=1.0, max_tokens=24)
    pairs = NextItemPairs(catalog, split)
    data = TextData(Words(catalog, generator.learned), ranker, pairs, generator, config)
    rows = [data.rows[row] for row in range(4)]
    batch = data.collate([row for row in rows if row.task == rows[0].task])
    dropped, _ = generator(*batch)
    texts = [row.text for row in rows if row.task == rows[0].task]
    absent, _ = generator.loss_per_text(Conditions(), generator.tasks[rows[0].task], texts)
    torch.testing.assert_close(dropped.detach(), absent)
    known, _ = generator.loss_per_text(Conditions(some_vectors(len(texts))), "review", texts)
    assert not torch.allclose(known, absent)


def test_rows_are_a_function_of_the_seed_and_hide_each_condition_alone(
    catalog: Catalog, split: Split
):
    pairs = NextItemPairs(catalog, split)
    rows, again = (
        TextRows(Words(catalog, [load_task("review")]), pairs, 7, 0.3, 0.6) for _ in range(2)
    )
    count = 20 * rows.num_texts
    assert rows[count - 1].pair.item == again[count - 1].pair.item
    assert rows[count - 1].text == again[count - 1].text
    shown = [(rows[row].user_shown, rows[row].item_shown) for row in range(count)]
    assert len(set(shown)) == 4
    users, items = np.mean(shown, axis=0)
    assert users == pytest.approx(0.7, abs=0.06)
    assert items == pytest.approx(0.4, abs=0.06)


def test_own_words_become_likelier_than_a_strangers(
    learned: TextGenerator, catalog: Catalog, split: Split, ranker: FakeRanker
):
    states = ranker.user_states([catalog.interactions.history(person) for person in (0, 1)])
    own, _ = learned.loss_per_text(Conditions(states), "review", WORDS)
    swapped, _ = learned.loss_per_text(Conditions(states.flip(0)), "review", WORDS)
    assert (own + 1 < swapped).all()
    reading = Reading("review", lambda text: "wool" in text, lambda user, _: user % 2 == 0)
    scores = score_texts(
        learned, ranker, catalog, split, readings={"wool": reading}, written=8, chunk=5
    )
    hits = scores["readings"]["wool"]
    assert hits["own"]["value"] > hits["swapped"]["value"]
    review = scores["likelihood"]["review, item hidden"]
    assert review["swapped_minus_own"]["value"] > 0
    assert review["texts"] == len(split.test)
    assert scores["written"]["review"]["near_copies"] > 0
    assert scores["identified"]["review, item hidden"] == {"texts": len(split.test)}, (
        "too few people"
    )
    likeness = scores["written"]["review"]["rouge_l"]
    gap = likeness["own"]["value"] - likeness["swapped"]["value"]
    assert likeness["own_minus_swapped"]["value"] == pytest.approx(gap) != 0
    assert (
        0
        <= scores["written"]["review"]["bleu"]["none"]
        < scores["written"]["review"]["bleu"]["own"]
    )


def test_whose_words_they_are_is_told_from_among_others(
    learned: TextGenerator, catalog: Catalog, ranker: FakeRanker
):
    users = np.arange(12)
    states = ranker.user_states([catalog.interactions.history(person) for person in users])
    prompts, pasts = Prompts(catalog, ranker), [Past(int(person), 5) for person in users]
    texts = [WORDS[person % 2] for person in users]

    def told(states: Tensor) -> np.ndarray:
        return identified(
            learned, texts, users, prompts, states, pasts, None, "review", among=4, chunk=9
        )

    hits = told(states)
    strangers = draw_strangers(users, 3, seed=0)
    rivals = (strangers % 2 == users[:, None] % 2).sum(axis=1)  # who would say the same
    assert ((hits == 0) | (rivals > 0) | (hits == 1)).all()
    assert hits[rivals == 0].all()
    assert 0 < hits.mean() < 1
    assert (told(states * 0) == 0.25).all(), "of people nobody can tell apart each is as likely"


def test_strangers_are_other_people_and_none_twice():
    users = np.array([3, 3, 5, 7, 7, 9, 11])
    drawn = draw_strangers(users, 3, seed=1)
    for user, places in zip(users, drawn, strict=True):
        assert user not in users[places]
        assert len(set(users[places])) == 3
    assert len({tuple(row) for row in drawn}) > 1
    with pytest.raises(ValueError, match="5 people are too few"):
        draw_strangers(users, 5, seed=1)


def test_likeness_to_true_words_is_rouge_and_bleu():
    """By hand: of "a big cat" two words are in "the big cat sat", in order."""
    found = rouge(["a big cat", "x"], ["the big cat sat", "x"])
    assert found["rouge_1"].tolist() == pytest.approx([2 * 2 / 7, 1])
    assert rouge(["cat big a"], ["the big cat sat"])["rouge_l"][0] == pytest.approx(2 / 7)
    assert bleu(["the cat sat on it"], ["the cat sat on it"]) == pytest.approx(1)
    assert bleu(["it on sat cat the"], ["the cat sat on it"]) < 0.5


def test_likeness_is_known_of_scripts_without_spaces_and_of_few_words():
    for text in ("青い革のコートです", "เสื้อหนังสีน้ำเงิน", "革靴", "coat", "ສີແດງ", "ကုတ်အင်္ကျီ"):
        assert bleu([text], [text]) == pytest.approx(1), text
        assert rouge([text], [text])["rouge_l"][0] == pytest.approx(1), text
    assert 0 < bleu(["青い革のコートです"], ["青い絹のコートです"]) < 1
    assert bleu(["青い革のコート"], ["red silk shoes"]) == 0
    assert distinct(["青い革", "青い革"], 1) == 0.5
    assert near_copies(["青い革のコート"], ["これは青い革のコートです"]).tolist() == [True]
    assert near_copies(["青い革のコート"], ["赤い絹の靴を売る"]).tolist() == [False]


def test_a_task_without_words_is_left_out(catalog: Catalog, split: Split):
    silent = replace(catalog, interactions=replace(catalog.interactions, reviews=None))
    pairs = NextItemPairs(silent, split)
    words, wordless = tasks_with_words(silent, ("description", "review"), pairs)
    assert (list(words.tasks), wordless) == (["description"], ("review",))
    with pytest.raises(VitrineError, match="no words for review"):
        tasks_with_words(silent, ("review",), pairs)
    with pytest.raises(VitrineError, match="'haiku' is unknown"):
        tasks_with_words(silent, ("haiku",), pairs)


def test_mistakes_are_answered_with_a_remedy():
    generator = make_generator(tasks=("description",))
    with pytest.raises(VitrineError, match="it writes description"):
        generator.write(Conditions(), "review", seeds=[0])
    with pytest.raises(VitrineError, match="top_p"):
        generator.write(Conditions(), "description", seeds=[0], config=WriteConfig(top_p=0))
    with pytest.raises(VitrineError, match="set max_tokens to 86"):
        make_generator(max_tokens=90)
