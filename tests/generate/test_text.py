"""Text generator: conditions, decoding, likelihood, training rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import Split
from generate.next_items import NextItemPairs
from generate.requests import HistoryPrefix
from generate.text.checkpoint import load_text_generator, save_text_generator
from generate.text.config import TextConfig, WriteConfig
from generate.text.data import TextData, TextRows
from generate.text.decoding import Decoder
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions, Prompts
from generate.text.sampling import sample_tokens
from generate.text.task_texts import TaskTexts, tasks_with_texts
from generate.text.tasks import load_task
from pretrain.config import TrainerConfig
from tests.generate.tiny_text import (
    TEXTS,
    TinyRanker,
    make_generator,
    random_vectors,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_loaded_generator_writes_and_scores_the_same(
    trained: TextGenerator, tmp_path: Path
) -> None:
    save_text_generator(trained, tmp_path)
    reopened = load_text_generator(tmp_path)
    conditions = Conditions(random_vectors(3), random_vectors(3, 1))
    assert reopened.write(conditions, "review", seeds=[0, 1, 2]) == trained.write(
        conditions, "review", seeds=[0, 1, 2]
    )
    texts = [*TEXTS, "neither"]
    ours = trained.text_nll(conditions, "description", texts)
    theirs = reopened.text_nll(conditions, "description", texts)
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_gets_the_same_text_whatever_else_is_in_the_batch(
    trained: TextGenerator, text_ranker: TinyRanker, temperature: float
) -> None:
    conditions = Conditions(torch.from_numpy(text_ranker.item_vectors[:5]), random_vectors(5))
    seeds, config = [3, 1, 4, 1, 5], WriteConfig(temperature=temperature)
    together = trained.write(conditions, "review", seeds=seeds, config=config)
    alone = [
        trained.write(conditions.take([i]), "review", seeds=[seeds[i]], config=config)[0]
        for i in range(5)
    ]
    assert together == alone
    assert len(set(together)) > 1


def test_nll_of_a_text_is_the_same_beside_longer_ones() -> None:
    generator = make_generator()
    users = random_vectors(2)
    nll, counts = generator.text_nll(Conditions(users), "review", ["soft", TEXTS[1] * 2])
    alone, count = generator.text_nll(Conditions(users[:1]), "review", ["soft"])
    torch.testing.assert_close(nll[:1], alone)
    assert counts[0] == count[0] < counts[1]


def test_tokens_with_the_kv_cache_are_those_of_full_passes() -> None:
    generator = make_generator()
    conditions = Conditions(random_vectors(1))
    config = WriteConfig(temperature=2.0, max_tokens=6)
    (request,) = generator.requests(conditions, "review", seeds=[5], config=config)
    prefix = request.prefix[None]
    model, embed = generator.language_model, generator.language_model.get_input_embeddings()
    (cached,) = Decoder(model, ends=generator.sequences.ends, forbidden=[0]).generate([request])
    inputs, written = prefix, []
    for place in range(6):
        logits = model(inputs_embeds=inputs).logits[:, -1].detach()
        logits[:, 0] = -torch.inf
        written.append(int(sample_tokens(logits, 2.0, 0.9, [5], [place])))
        inputs = torch.cat([inputs, embed(torch.tensor([written[-1:]]))], dim=1)
    assert cached == written
    assert len(set(written)) > 1


def test_streamed_pieces_join_to_the_whole_text() -> None:
    generator = make_generator()
    conditions, config = Conditions(random_vectors(1)), WriteConfig(temperature=3.0)
    for seed in range(4):
        (whole,) = generator.write(conditions, "review", seeds=[seed], config=config)
        (request,) = generator.requests(conditions, "review", seeds=[seed], config=config)
        pieces = list(generator.stream(request))
        assert "".join(pieces) == whole
        assert len(pieces) > 1


def test_history_text_conditions_and_adds_nothing_to_the_nll(
    text_catalog: Catalog, text_split: Split, text_ranker: TinyRanker
) -> None:
    """Also beside shorter ones, and truncated at its oldest end."""
    generator = make_generator(num_history_items=3, max_prompt_tokens=12)
    conditions = Conditions(
        random_vectors(3), None, ["took: Coat", "took: Hat; Coat; Hat; Coat", ""]
    )
    texts = ["soft", TEXTS[1], TEXTS[0]]
    nll, counts = generator.text_nll(conditions, "review", texts)
    for place, text in enumerate(texts):
        alone, count = generator.text_nll(conditions.take([place]), "review", [text])
        torch.testing.assert_close(nll[place : place + 1], alone)
        assert count == counts[place]
    without, same = generator.text_nll(Conditions(random_vectors(3)), "review", texts)
    assert torch.equal(counts, same)
    torch.testing.assert_close(nll[2], without[2])
    assert (nll[:2] - without[:2]).abs().min() > 1e-4
    cut, _, none = generator.sequences.data_ids(["took: " + "Coat; " * 40, "took: Hat", ""], 3)
    assert (len(cut), none) == (12, [])
    assert generator.tokenizer.decode(cut).endswith("Coat;\n")
    config = WriteConfig(temperature=2.0)
    together = generator.write(conditions, "review", seeds=[1, 2, 3], config=config)
    for place, text in enumerate(together):
        (alone,) = generator.write(
            conditions.take([place]), "review", seeds=[place + 1], config=config
        )
        assert alone == text
    with pytest.raises(VitrineError, match="set max_tokens to 4"):
        make_generator(num_history_items=3, max_prompt_tokens=82)
    config = TextConfig(drop_user=0.5, drop_item=0.5, trainer=TrainerConfig(seed=3))
    data = TextData(
        TaskTexts(text_catalog, generator.settings.tasks),
        text_ranker,
        NextItemPairs(text_catalog, text_split),
        generator,
        config,
    )
    rows = [data.rows[row] for row in range(24)]
    batch = data.collate(rows)
    prompt = ((batch.labels < 0) & (batch.token_ids != -100)).sum(dim=1)
    has_history = prompt > 1 + generator.settings.num_soft  # beside the begin token
    assert has_history.tolist() == [row.keep_user and len(row.pair.history) > 0 for row in rows]
    assert 0 < has_history.sum() < len(rows)


def test_history_text_has_the_items_most_similar_to_the_item(
    text_catalog: Catalog, text_ranker: TinyRanker
) -> None:
    one = np.array([0, 2, 1, 3, 5], dtype=np.int32)
    mixed = replace(
        text_catalog,
        interactions=replace(text_catalog.interactions, items=np.tile(one, text_catalog.num_users)),
    )
    prompts = Prompts(mixed, text_ranker, num_history_items=2)
    assert prompts.data(HistoryPrefix(3, 5), 4) == "took: Coat; Coat"
    assert prompts.data(HistoryPrefix(3, 5), 7) == "took: Hat; Hat"
    assert prompts.data(HistoryPrefix(3, 4), None) == "took: Hat; Hat", "the newest"
    assert prompts.data(HistoryPrefix(3, 0), 4) == prompts.data(HistoryPrefix(), 4) == ""


def test_style_text_is_of_earlier_reviews_and_nothing_later(
    text_catalog: Catalog, text_ranker: TinyRanker
) -> None:
    texts = [f"say {row}" if row % 2 else None for row in range(60)]
    reviewed = replace(text_catalog, interactions=replace(text_catalog.interactions, reviews=texts))
    prompts = Prompts(reviewed, text_ranker)
    assert prompts.style_text(HistoryPrefix(1, 4)) == "say 5 say 7"
    assert prompts.style_text(HistoryPrefix(1, 3)) == "say 5 say 7"
    assert prompts.style_text(HistoryPrefix(1, 2)) == "say 5"
    assert prompts.style_text(HistoryPrefix(1, 0)) == prompts.style_text(HistoryPrefix()) == ""
    without = replace(text_catalog, interactions=replace(text_catalog.interactions, reviews=None))
    assert Prompts(without, text_ranker).style_text(HistoryPrefix(1, 4)) == ""
    long = replace(
        text_catalog.interactions,
        offsets=np.array([0, 60]),
        reviews=[f"r{row}" for row in range(60)],
    )
    assert Prompts(replace(text_catalog, interactions=long), text_ranker).style_text(
        HistoryPrefix(0, 60)
    ).split() == [f"r{row}" for row in range(52, 60)]


def test_user_style_tokens_change_the_nll() -> None:
    generator = make_generator(num_style_tokens=2)
    users = random_vectors(3)
    texts = [TEXTS[0]] * 3
    conditions = Conditions(users, None, None, [TEXTS[0], TEXTS[1] * 3, ""])
    nll, _ = generator.text_nll(conditions, "review", texts)
    for place in range(3):
        alone, _ = generator.text_nll(conditions.take([place]), "review", texts[:1])
        torch.testing.assert_close(alone[0], nll[place])
    silent, _ = generator.text_nll(Conditions(users), "review", texts)
    torch.testing.assert_close(silent[2], nll[2])
    assert (silent[:2] - nll[:2]).abs().min() > 1e-4


def test_a_missing_condition_equals_the_dropped_condition(
    text_catalog: Catalog, text_split: Split, text_ranker: TinyRanker
) -> None:
    generator = make_generator()
    config = TextConfig(drop_user=1.0, drop_item=1.0, max_tokens=24)
    pairs = NextItemPairs(text_catalog, text_split)
    data = TextData(
        TaskTexts(text_catalog, generator.settings.tasks), text_ranker, pairs, generator, config
    )
    rows = [data.rows[row] for row in range(4)]
    batch = data.collate([row for row in rows if row.task == rows[0].task])
    dropped, _ = generator(*batch)
    texts = [row.text for row in rows if row.task == rows[0].task]
    absent, _ = generator.text_nll(Conditions(), generator.tasks[rows[0].task], texts)
    torch.testing.assert_close(dropped.detach(), absent)
    known, _ = generator.text_nll(Conditions(random_vectors(len(texts))), "review", texts)
    assert not torch.allclose(known, absent)


def test_rows_are_a_function_of_the_seed_and_drop_each_condition_independently(
    text_catalog: Catalog, text_split: Split
) -> None:
    pairs = NextItemPairs(text_catalog, text_split)
    rows, again = (
        TextRows(TaskTexts(text_catalog, [load_task("review")]), pairs, 7, 0.3, 0.6)
        for _ in range(2)
    )
    count = 20 * rows.num_texts
    assert rows[count - 1].pair.item == again[count - 1].pair.item
    assert rows[count - 1].text == again[count - 1].text
    shown = [(rows[row].keep_user, rows[row].keep_item) for row in range(count)]
    assert len(set(shown)) == 4
    users, items = np.mean(shown, axis=0)
    assert users == pytest.approx(0.7, abs=0.06)
    assert items == pytest.approx(0.4, abs=0.06)


def test_a_task_without_texts_is_left_out(text_catalog: Catalog, text_split: Split) -> None:
    silent = replace(text_catalog, interactions=replace(text_catalog.interactions, reviews=None))
    pairs = NextItemPairs(silent, text_split)
    texts, without = tasks_with_texts(silent, ("description", "review"), pairs)
    assert (list(texts.tasks), without) == (["description"], ("review",))
    with pytest.raises(VitrineError, match="no texts for review"):
        tasks_with_texts(silent, ("review",), pairs)
    with pytest.raises(VitrineError, match="'haiku' is unknown"):
        tasks_with_texts(silent, ("haiku",), pairs)


def test_wrong_settings_raise_errors_with_a_remedy() -> None:
    generator = make_generator(tasks=("description",))
    with pytest.raises(VitrineError, match="it writes description"):
        generator.write(Conditions(), "review", seeds=[0])
    with pytest.raises(VitrineError, match="top_p"):
        generator.write(Conditions(), "description", seeds=[0], config=WriteConfig(top_p=0))
    with pytest.raises(VitrineError, match="set max_tokens to 86"):
        make_generator(max_tokens=90)
