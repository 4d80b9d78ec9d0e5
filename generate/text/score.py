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
from catalog.errors import NonFiniteError, VitrineError
from catalog.splits import Split, target_rows
from finetune.statistics import difference_interval, mean_interval, ratio_interval
from generate.conditioning import Ranker, encode_histories
from generate.evaluation.users import draw_swapped_users
from generate.next_items import NextItemPairs
from generate.pseudonyms import opaque_id
from generate.text.config import WriteConfig
from generate.text.faithful import Checker, unsupported_share
from generate.text.features import feature_coverage, feature_match, shared_features
from generate.text.identify import AMONG, identification, identified
from generate.text.judge import Judge, word_judge
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions, Past, Prompts
from generate.text.strict import Checked, write_checked
from generate.text.tasks import Words
from generate.text.variety import bleu, distinct, near_copies, rouge

RECENT = 20
"""Items of a history that stand for the person, the newest."""
EXAMPLES = 8
"""Texts that are kept beside the figures."""
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
    pasts: dict[str, list[Past]] = field(repr=False)
    """What these did before."""

    def first(self, count: int) -> "People":
        """The first of them; their partners' states and pasts stay those of all people."""
        return People(
            self.users[:count],
            self.positions[:count],
            self.histories[:count],
            self.partners[:count],
            self.items[:count],
            {told: states[:count] for told, states in self.states.items()},
            {told: pasts[:count] for told, pasts in self.pasts.items()},
        )

    def conditions(
        self, prompts: Prompts, told: str, places: Sequence[int], item_shown: bool = True
    ) -> Conditions:
        """About the next items of the people at these places, for whom `told` says."""
        return prompts.make(
            self.states[told][places],
            [self.pasts[told][place] for place in places],
            self.items[places].tolist() if item_shown else None,
        )


def score_texts(
    generator: TextGenerator,
    ranker: Ranker,
    catalog: Catalog,
    split: Split,
    *,
    readings: Mapping[str, Reading] | None = None,
    judges: Mapping[str, Judge] | None = None,
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
    drawn at random (chance is one in that many). `written`, of what is written about each person's
    next item: the share of unique texts (USR), distinct runs of words, the share that copies a
    training text; likeness to the true text (ROUGE-1 and ROUGE-L F1, Lin 2004; BLEU, Papineni et al.
    2002) told the own person, a stranger and nobody, and the same where the item was hidden; features
    (`generate.text.features`): match (FMR), coverage (FCR), and how many two texts share (DIV); `near`
    the item and the person's history as `judges` read them, which nothing was conditioned on; the
    share of claims that the catalog does not bear out; with `write.strict`, how often the catalog's own
    words are taken instead. `readings`:
    how often a text shows what it should, told the own person and told a stranger.
    """
    who = choose_people(ranker, catalog, split, people, seed, chunk)
    prompts = Prompts(catalog, ranker, generator.history_items)
    known = Words(catalog, generator.learned)
    scores: dict[str, Any] = {"people": len(who.users), "likelihood": {}}
    scores |= {"identified": {}, "written": {}}
    true = {task: known.texts_of(task, who.users, who.positions) for task in generator.tasks}
    for task, texts in true.items():
        for item in ("hidden", "shown"):
            key = f"{task}, item {item}"
            scores["likelihood"][key] = _likelihood(
                generator, prompts, texts, who, task, item == "shown", chunk
            )
            scores["identified"][key] = _identified(
                generator, prompts, texts, who, task, item == "shown", seed, chunk
            )
    few = who.first(written)
    options = write or WriteConfig()
    pairs = NextItemPairs(catalog, split)
    checker = Checker(catalog, split, known.facts)
    judges = {"words": word_judge(known.facts), **(judges or {})}
    near_to = {name: _judged(judge, few, catalog) for name, judge in judges.items()}

    def written_for(task: str, item_shown: bool) -> dict[str, list[str]]:
        return {
            told: write_for(generator, prompts, few, task, told, options, chunk, item_shown)
            for told in few.states
        }

    words = {task: written_for(task, item_shown=True) for task in generator.tasks}
    for task, texts in words.items():
        own, wanted = texts["own"], true[task][:written]
        scores["written"][task] = {
            "texts": len(own),
            "unique": len(set(own)) / len(own),
            "distinct_1": distinct(own, 1),
            "distinct_2": distinct(own),
            "near_copies": float(near_copies(own, known.texts(task, pairs)).mean()),
            **_likeness(wanted, texts),
            **_features(wanted, texts, few, checker),
            "near": {
                name: _nearness(judge, texts, near_to[name]) for name, judge in judges.items()
            },
            "item_hidden": _likeness(wanted, written_for(task, item_shown=False)),
            "examples": [
                {"user": opaque_id(str(catalog.user_ids[user])), "text": text}
                for user, text in zip(few.users[:EXAMPLES].tolist(), own, strict=False)
            ],
        }
        if options.strict:
            scores["written"][task]["strict"] = _strictly(
                generator, prompts, few, task, options, checker, known, chunk
            )
    scores["readings"] = {
        name: _read(reading, few, words[reading.task])
        for name, reading in (readings or {}).items()
        if reading.task in generator.tasks
    }
    return scores


def choose_people(
    ranker: Ranker, catalog: Catalog, split: Split, people: int, seed: int = 0, chunk: int = 256
) -> People:
    """At most `people` of the test targets, drawn at random, with their states and partners."""
    targets = split.test.first_per_user()
    if min(len(targets), people) < 2:
        raise VitrineError(
            f"{catalog.name} has {len(targets)} people with a test target; a stranger to compare with "
            "takes two"
        )
    chosen = targets.take(np.random.default_rng(seed).permutation(len(targets))[:people])
    interactions = catalog.interactions
    histories = [chosen.history(interactions, place) for place in range(len(chosen))]
    own = encode_histories(ranker, histories, chunk)
    partners = draw_swapped_users(chosen.users, seed)
    items = np.asarray(interactions.items)[target_rows(interactions, chosen)]
    states = {"own": own, "swapped": own[torch.from_numpy(partners)], "none": own * 0}
    own_pasts = [
        Past(int(user), len(history)) for user, history in zip(chosen.users, histories, strict=True)
    ]
    pasts = {
        "own": own_pasts,
        "swapped": [own_pasts[place] for place in partners],
        "none": [Past()] * len(own_pasts),
    }
    return People(chosen.users, chosen.positions, histories, partners, items, states, pasts)


def write_for(
    generator: TextGenerator,
    prompts: Prompts,
    people: People,
    task: str,
    told: str,
    config: WriteConfig,
    chunk: int = 64,
    item_shown: bool = True,
) -> list[str]:
    """A text about each person's next item, or, with that hidden, about whatever suits the person, told
    who `told` (own, swapped, none) says it is for.

    Text i draws from seed `config.seed + i` whoever it is told, so own and swapped differ in the
    person alone.
    """
    texts: list[str] = []
    for start in range(0, len(people.items), chunk):
        places = range(start, min(start + chunk, len(people.items)))
        texts += generator.write(
            people.conditions(prompts, told, places, item_shown),
            task,
            seeds=[config.seed + place for place in places],
            config=config,
        )
    return texts


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
            if not nats.isfinite().all():
                place = part[int((~nats.isfinite()).nonzero()[0])]
                raise NonFiniteError(
                    f"the likelihood of the {task} of user row {people.users[place]} ({told}) is not "
                    "finite; look at that text and at the generator's weights"
                )
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
        [people.pasts["own"][place] for place in worded],
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
    found = {told: [texts[place] for place in worded] for told, texts in written.items()}
    likeness = {told: rouge(texts, wanted) for told, texts in found.items()}
    return {
        **{
            name: _compared({told: values[name] for told, values in likeness.items()})
            for name in ("rouge_1", "rouge_l")
        },
        "bleu": {told: bleu(texts, wanted) for told, texts in found.items()},
    }


def _compared(values: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Means of what was measured person by person, and by how much the own is ahead of the others."""
    own = values["own"]
    means = {told: asdict(mean_interval(each)) for told, each in values.items()}
    gaps = {
        f"own_minus_{told}": asdict(difference_interval(own, each))
        for told, each in values.items()
        if told != "own"
    }
    return means | gaps


def _features(
    truth: Sequence[str | None],
    written: Mapping[str, Sequence[str]],
    people: People,
    checker: Checker,
) -> dict[str, Any]:
    claims = {
        told: [
            checker.check(text, int(item)) for text, item in zip(texts, people.items, strict=True)
        ]
        for told, texts in written.items()
    }
    found = {
        told: [{claim.words for claim in listed} for listed in every]
        for told, every in claims.items()
    }
    true = [
        {claim.words for claim in checker.check(text or "", int(item))}
        for text, item in zip(truth, people.items, strict=True)
    ]
    figures: dict[str, Any] = {
        "unsupported_claims": unsupported_share(claims["own"]),
        "claims": sum(map(len, claims["own"])),
        "feature_coverage": feature_coverage(found["own"], true),
        "shared_features": shared_features(found["own"]),
    }
    hits = {told: feature_match(every, true)[0] for told, every in found.items()}
    if len(hits["own"]) > 1:
        figures["feature_match"] = _compared(hits)
    return figures


def _judged(judge: Judge, people: People, catalog: Catalog) -> dict[str, NDArray[np.float32]]:
    """What words may be near to, (people, width) each: the item's own text, the mean of the person's
    newest items'."""
    texts = catalog.texts()
    items = judge([texts(int(item)) or "" for item in people.items])
    taken = np.stack(
        [
            judge([texts(int(item)) or "" for item in history[-RECENT:]]).mean(axis=0)
            if len(history)
            else np.zeros(items.shape[1], dtype=np.float32)
            for history in people.histories
        ]
    )
    return {"item": items, "history": taken}


def _nearness(
    judge: Judge,
    written: Mapping[str, Sequence[str]],
    near_to: Mapping[str, NDArray[np.float32]],
) -> dict[str, Any]:
    """Mean cosine of what is written to each of what `_judged` gives."""
    vectors = {told: judge(texts) for told, texts in written.items()}
    return {
        name: _compared(
            {told: (one * others).sum(axis=1).astype(np.float64) for told, one in vectors.items()}
        )
        for name, others in near_to.items()
    }


def _strictly(
    generator: TextGenerator,
    prompts: Prompts,
    people: People,
    task: str,
    options: WriteConfig,
    checker: Checker,
    known: Words,
    chunk: int,
) -> dict[str, Any]:
    """How often strict tries, and how often the catalog's own words are left. Not what claims are borne
    out then: the check that would say so is the one that chose the texts."""
    checked: list[Checked] = []
    for start in range(0, len(people.items), chunk):
        places = range(start, min(start + chunk, len(people.items)))
        checked += write_checked(
            generator,
            checker,
            known,
            people.conditions(prompts, "own", places),
            [int(people.items[place]) for place in places],
            task,
            seeds=[options.seed + place for place in places],
            config=options,
        )
    return {
        "catalogs_own": sum(one.own for one in checked) / len(checked),
        "tried": sum(one.tried for one in checked) / len(checked),
    }


def _read(reading: Reading, people: People, words: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    truth = [
        reading.truth(int(user), int(item))
        for user, item in zip(people.users, people.items, strict=True)
    ]
    known = [place for place, label in enumerate(truth) if label is not None]
    if len(known) < 2:
        return {"texts": len(known)}
    hits = {
        told: np.array(
            [reading.read(words[told][place]) == truth[place] for place in known],
            dtype=np.float64,
        )
        for told in ("own", "swapped")
    }
    return {
        "texts": len(known),
        **_compared(hits),
        "own_over_swapped": asdict(ratio_interval(hits["own"], hits["swapped"])),
    }
