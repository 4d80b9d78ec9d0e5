"""Does a text fit its person? Scores words with the own person, a swapped one, and none.

Everything runs in chunks over people; intervals are paired bootstraps over people.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.splits import Split, target_rows
from finetune.statistics import difference_interval, mean_interval, ratio_interval
from generate.conditioning import NextItemPairs, Shop, swap_partners
from generate.text.config import WriteConfig
from generate.text.faithful import Checker, unsupported_share
from generate.text.identify import AMONG, identification, identified
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions, Prompts
from generate.text.tasks import Words
from generate.text.variety import bleu, distinct, near_copies, rouge

Reader = Callable[[str], Hashable | None]
"""Reads a label out of a text, None where it finds none."""


@dataclass(frozen=True)
class Reading:
    """One thing a written text should show, and how to see whether it does."""

    task: str
    """Which texts are read."""
    read: Reader
    truth: Callable[[int, int], Hashable | None]
    """(person, item) → the label their text should show; None leaves the pair out."""


@dataclass(frozen=True)
class People:
    """Test targets (one a person), and for each the place of a stranger."""

    users: NDArray[np.integer]
    positions: NDArray[np.integer]
    histories: Sequence[NDArray[np.integer]]
    """Item rows before each target, oldest first."""
    partners: NDArray[np.int64]
    items: NDArray[np.integer]
    """The true next items."""
    states: dict[str, Tensor] = field(repr=False)
    """float32 (people, width) of whoever the words are told they are for: own, swapped, none."""
    told: dict[str, Sequence[NDArray[np.integer]]] = field(repr=False)
    """Their histories."""

    def conditions(
        self, prompts: Prompts, told: str, places: Sequence[int], item_shown: bool = True
    ) -> Conditions:
        """About the next items of the people at these places, for whom `told` says."""
        return prompts.make(
            self.states[told][places],
            [self.told[told][place] for place in places],
            self.items[places].tolist() if item_shown else None,
        )


def score_texts(
    generator: TextGenerator,
    shop: Shop,
    catalog: Catalog,
    split: Split,
    *,
    readings: Mapping[str, Reading] | None = None,
    people: int = 500,
    written: int = 200,
    write: WriteConfig | None = None,
    seed: int = 0,
    chunk: int = 64,
) -> dict[str, Any]:
    """Figures over at most `people` test targets, and over texts written for `written` of them.

    `likelihood`: for each task, nats per token and perplexity of the true text, with the item shown
    and with it hidden (then `description` asks what this person takes next). `swapped_minus_own` and
    `none_minus_own` are differences in nats per token; above 0, knowing the person helps.
    `identified`: how often the true text is likeliest told its own person, among so many people
    drawn at random (chance is one in that many). `written`: variety of the words, the share that
    copies a training text, likeness to the true text (ROUGE-1 and ROUGE-L F1, Lin 2004; BLEU,
    Papineni et al. 2002) told the own person, a stranger and nobody, and the share of claims that the
    catalog does not bear out. `readings`: how often a text shows what it should, told the own person
    and told a stranger.
    """
    who = choose_people(shop, catalog, split, people, seed, chunk)
    prompts = Prompts(catalog, shop, generator.history_items)
    known = Words(catalog, generator.learned)
    scores: dict[str, Any] = {"people": len(who.users), "likelihood": {}}
    scores |= {"identified": {}, "written": {}}
    for task in generator.tasks:
        texts = known.texts_of(task, who.users, who.positions)
        for item in ("hidden", "shown"):
            key = f"{task}, item {item}"
            scores["likelihood"][key] = _likelihood(
                generator, prompts, texts, who, task, item == "shown", chunk
            )
            scores["identified"][key] = _identified(
                generator, prompts, texts, who, task, item == "shown", seed, chunk
            )
    few = _first(who, written)
    options = write or WriteConfig()
    pairs = NextItemPairs(catalog, split)
    people_told = tuple(few.states)
    words = {
        (task, told): write_for(generator, prompts, few, task, told, options, chunk)
        for task in generator.tasks
        for told in people_told
    }
    checker = Checker(catalog, split, known.facts)
    for task in generator.tasks:
        texts = words[task, "own"]
        scores["written"][task] = {
            "texts": len(texts),
            "unique": len(set(texts)) / len(texts),
            "distinct_2": distinct(texts),
            "near_copies": float(near_copies(texts, known.texts(task, pairs)).mean()),
            **_likeness(
                known.texts_of(task, few.users, few.positions),
                {told: words[task, told] for told in people_told},
            ),
            "unsupported_claims": unsupported_share(
                checker.check(text, int(item)) for text, item in zip(texts, few.items, strict=True)
            ),
            "examples": texts[:8],
        }
    scores["readings"] = {
        name: _read(reading, few, words)
        for name, reading in (readings or {}).items()
        if reading.task in generator.tasks
    }
    return scores


def choose_people(
    shop: Shop, catalog: Catalog, split: Split, people: int, seed: int = 0, chunk: int = 256
) -> People:
    """At most `people` of the test targets, drawn at random, with their states and partners."""
    targets = split.test.one_each()
    chosen = targets.take(np.random.default_rng(seed).permutation(len(targets))[:people])
    interactions = catalog.interactions
    histories = [chosen.history(interactions, place) for place in range(len(chosen))]
    own = torch.cat(
        [
            shop.user_states(histories[start : start + chunk]).float().cpu()
            for start in range(0, len(histories), chunk)
        ]
    )
    partners = swap_partners(chosen.users, seed)
    items = np.asarray(interactions.items)[target_rows(interactions, chosen)]
    states = {"own": own, "swapped": own[torch.from_numpy(partners)], "none": own * 0}
    told = {
        "own": histories,
        "swapped": [histories[place] for place in partners],
        "none": [history[:0] for history in histories],
    }
    return People(chosen.users, chosen.positions, histories, partners, items, states, told)


def write_for(
    generator: TextGenerator,
    prompts: Prompts,
    people: People,
    task: str,
    told: str,
    config: WriteConfig,
    chunk: int = 64,
) -> list[str]:
    """A text about each person's next item, told who `told` (own, swapped, none) says it is for.

    Text i draws from seed `config.seed + i` whoever it is told, so own and swapped differ in the
    person alone.
    """
    texts: list[str] = []
    for start in range(0, len(people.items), chunk):
        places = range(start, min(start + chunk, len(people.items)))
        texts += generator.write(
            people.conditions(prompts, told, places),
            task,
            seeds=[config.seed + place for place in places],
            config=config,
        )
    return texts


def _first(people: People, count: int) -> People:
    """The first `count` people; their partners' states stay those of all people."""
    return People(
        people.users[:count],
        people.positions[:count],
        people.histories[:count],
        people.partners[:count],
        people.items[:count],
        {told: states[:count] for told, states in people.states.items()},
        {told: histories[:count] for told, histories in people.told.items()},
    )


def _likelihood(
    generator: TextGenerator,
    prompts: Prompts,
    texts: Sequence[str | None],
    people: People,
    task: str,
    item_shown: bool,
    chunk: int,
) -> dict[str, Any]:
    """Summed over tokens, then compared: a person's weight is the length of their text."""
    worded = np.array([place for place, text in enumerate(texts) if text], dtype=np.int64)
    losses = {told: np.empty(len(worded)) for told in people.states}
    counts = np.empty(len(worded))
    for start in range(0, len(worded), chunk):
        part = worded[start : start + chunk].tolist()
        words = [texts[place] or "" for place in part]
        for told in people.states:
            conditions = people.conditions(prompts, told, part, item_shown)
            nats, tokens = generator.loss_per_text(conditions, task, words)
            losses[told][start : start + chunk] = nats.cpu().numpy()
            counts[start : start + chunk] = tokens.cpu().numpy()
    if len(worded) < 2:
        return {"texts": len(worded)}
    figures: dict[str, Any] = {"texts": len(worded)}
    for told, nats in losses.items():
        mean = ratio_interval(nats, counts)
        figures[told] = {"nats_per_token": asdict(mean), "perplexity": float(np.exp(mean.value))}
    for told in ("swapped", "none"):
        figures[f"{told}_minus_own"] = asdict(ratio_interval(losses[told] - losses["own"], counts))
    return figures


def _identified(
    generator: TextGenerator,
    prompts: Prompts,
    texts: Sequence[str | None],
    people: People,
    task: str,
    item_shown: bool,
    seed: int,
    chunk: int,
) -> dict[str, Any]:
    worded = np.array([place for place, text in enumerate(texts) if text], dtype=np.int64)
    if len(np.unique(people.users[worded])) < AMONG:
        return {"texts": len(worded)}
    hits = identified(
        generator,
        [texts[place] or "" for place in worded],
        people.users[worded],
        prompts,
        people.states["own"][torch.from_numpy(worded)],
        [people.histories[place] for place in worded],
        people.items[worded] if item_shown else None,
        task,
        seed=seed,
        chunk=chunk,
    )
    return identification(hits)


def _likeness(truth: Sequence[str | None], written: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Of what was written to what is true, told each of `written`."""
    worded = [place for place, text in enumerate(truth) if text]
    if len(worded) < 2:
        return {}
    wanted = [truth[place] or "" for place in worded]
    figures: dict[str, Any] = {}
    likeness: dict[str, dict[str, NDArray[np.float64]]] = {}
    for told, texts in written.items():
        found = [texts[place] for place in worded]
        likeness[told] = rouge(found, wanted)
        for name, values in likeness[told].items():
            figures.setdefault(name, {})[told] = asdict(mean_interval(values))
        figures.setdefault("bleu", {})[told] = bleu(found, wanted)
    for name in ("rouge_1", "rouge_l"):
        for other in written.keys() - {"own"}:
            gap = difference_interval(likeness["own"][name], likeness[other][name])
            figures[name][f"own_minus_{other}"] = asdict(gap)
    return figures


def _read(
    reading: Reading, people: People, words: Mapping[tuple[str, str], list[str]]
) -> dict[str, Any]:
    truth = [
        reading.truth(int(user), int(item))
        for user, item in zip(people.users, people.items, strict=True)
    ]
    known = [place for place, label in enumerate(truth) if label is not None]
    if len(known) < 2:
        return {"texts": len(known)}
    hits = {
        told: np.array(
            [reading.read(words[reading.task, told][place]) == truth[place] for place in known],
            dtype=np.float64,
        )
        for told in ("own", "swapped")
    }
    return {
        "texts": len(known),
        "own": asdict(mean_interval(hits["own"])),
        "swapped": asdict(mean_interval(hits["swapped"])),
        "own_minus_swapped": asdict(difference_interval(hits["own"], hits["swapped"])),
    }
