"""Trains an entailment model that has seen neither garments nor films: on claims about office supplies, toys,
cosmetics and news.

A claim is a sentence of an item's text, a part of one, or values of its columns in plain forms. A false one
comes from another item, or has a word, a number, a part or a value changed for what the item's facts do not
hold.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from benchmarks.claims import check_claims, detection
from benchmarks.planted_claims import PlantedShop
from benchmarks.pretrained import pretrained_folder
from benchmarks.train_judge import LABELS
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from finetune.statistics import Interval
from generate.text.evidence import item_facts
from generate.text.judge import EntailmentJudge, JudgedChecker, sentences
from generate.text.keywords import KeywordIndex
from pretrain.devices import Compute, choose_compute, resolve_precision

SHOPS = {
    "office": ("product", CatalogConfig(path="../shared/data/office")),
    "toys": ("toy", CatalogConfig(path="../shared/data/toys")),
    "news": (
        "story",
        CatalogConfig(path="../shared/data/raw/mind", source="mind", unknown_items="drop"),
    ),
    "beauty": ("item", CatalogConfig(path="../shared/data/beauty")),
}
"""Shop → what its items are called, and its catalog."""
WINDOW, LETTERS = 256, 450
"""Tokens of premise and claim together, and letters of a premise in training, at most."""
BATCH, STEPS, LEARNING_RATE, WARMUP = 16, 900, 2e-4, 0.1
PLANTED = 60
"""Planted claims of each kind about another shop by which the judge is judged, at most."""
ITEMS = 1_800
"""Items of each shop from which the judge learns."""
FORMS = (
    *("{}.", "{}", "{} {noun}.", "{} {noun}.", "This is {}.", "It is {}.", "A {}.", "Kind: {}."),
    *("It belongs to {}.", "You are looking at {}.", "Category: {}.", "In {}."),
)
PAIRS = ("{} in {}.", "{}, {}.", "{} of {}.", "{} by {}.", "It is {} and {}.")
PREFIXES = ("", "", "", "", "It says: ", "Note: ", "From the description: ")
_WORD = re.compile(r"[^\W\d_]{4,}")
_NUMBER = re.compile(r"(?<![\w.,])\d+(?![\w.,]*\d)")
Claim = tuple[str, str]
"""Premise, claim."""


@dataclass(frozen=True)
class ThirdShop:
    """Facts and claims about the items of one shop."""

    name: str

    @cached_property
    def facts(self) -> list[str]:
        return [premise for premise, _ in self._read]

    @cached_property
    def values(self) -> list[list[str]]:
        return [values for _, values in self._read]

    @cached_property
    def _read(self) -> list[tuple[str, list[str]]]:
        catalog = load_catalog(SHOPS[self.name][1])
        index = KeywordIndex(catalog)
        rows = np.random.default_rng(0).permutation(catalog.num_items)[:ITEMS]
        found = []
        for row in rows.tolist():
            listed = index.attribute_values(row).values()
            values = [part.strip() for some in listed for one in some for part in one.split(">")]
            found.append(
                (item_facts(catalog, index, row)[:LETTERS], [one for one in values if one])
            )
        return found

    @cached_property
    def sentences(self) -> list[list[str]]:
        return [
            [one for one in sentences(text) if 3 <= len(one.split()) <= 45] for text in self.facts
        ]


class Claims:
    """Draws claims about the items of a shop."""

    def __init__(self, shop: ThirdShop, rng: np.random.Generator) -> None:
        self.shop, self.rng = shop, rng
        self.noun = SHOPS[shop.name][0]
        self.true: tuple[Callable[[int], str | None], ...] = (
            *(self._sentence, self._sentence, self._part, self._value, self._values),
        )
        self.false: tuple[Callable[[int], str | None], ...] = (
            *(self._other_sentence, self._spliced, self._word, self._number),
            *(self._other_value, self._wrong_pair),
        )

    def draw(self, true: bool) -> Claim:
        while True:
            item = self._item()
            made = self._one(self.true if true else self.false)(item)
            if made and made.strip():
                return self.shop.facts[item], made

    def _item(self) -> int:
        return int(self.rng.integers(len(self.shop.facts)))

    def _one(self, listed: Sequence[Any]) -> Any:
        return listed[int(self.rng.integers(len(listed)))]

    def _of(self, item: int) -> str | None:
        own = self.shop.sentences[item]
        return self._one(own) if own else None

    def _sentence(self, item: int) -> str | None:
        own = self._of(item)
        return own and self._one(PREFIXES) + own

    def _part(self, item: int) -> str | None:
        words = (self._of(item) or "").split()
        if len(words) < 6:
            return None
        length = int(self.rng.integers(3, len(words)))
        start = int(self.rng.integers(0, len(words) - length + 1))
        return " ".join(words[start : start + length])

    def _value(self, item: int) -> str | None:
        own = self.shop.values[item]
        return self._form(self._one(own)) if own else None

    def _form(self, value: str) -> str:
        return self._one(FORMS).format(value, noun=self.noun)

    def _values(self, item: int) -> str | None:
        own = self.shop.values[item]
        if len(own) < 2:
            return None
        first, second = self.rng.permutation(len(own))[:2]
        return self._one(PAIRS).format(own[first], own[second])

    def _holds(self, item: int, text: str) -> bool:
        known = self.shop.facts[item].lower()
        words = set(_WORD.findall(text.lower()))
        shared = sum(word in known for word in words)
        return text.lower() in known or shared >= 0.8 * max(1, len(words))

    def _other_sentence(self, item: int) -> str | None:
        other = self._of(self._item())
        return None if other is None or self._holds(item, other) else self._one(PREFIXES) + other

    def _spliced(self, item: int) -> str | None:
        own, other = (self._of(item) or "").split(), (self._of(self._item()) or "").split()
        if len(own) < 6 or len(other) < 6:
            return None
        end = " ".join(other[len(other) // 2 :])
        return None if self._holds(item, end) else " ".join([*own[: len(own) // 2], end])

    def _word(self, item: int) -> str | None:
        own, other = self._of(item) or "", self._of(self._item()) or ""
        known = self.shop.facts[item].lower()
        places = list(_WORD.finditer(own))
        words = [word for word in _WORD.findall(other) if word.lower() not in known]
        if not places or not words:
            return None
        place = self._one(places)
        return own[: place.start()] + self._one(words) + own[place.end() :]

    def _number(self, item: int) -> str | None:
        own = self._of(item) or ""
        places = list(_NUMBER.finditer(own))
        if not places:
            return None
        place = self._one(places)
        changed = str(int(place[0]) + int(self.rng.integers(1, 40)))
        if changed in self.shop.facts[item]:
            return None
        return own[: place.start()] + changed + own[place.end() :]

    def _other_value(self, item: int) -> str | None:
        listed = self.shop.values[self._item()]
        value = self._one(listed) if listed else None
        return None if value is None or self._holds(item, value) else self._form(value)

    def _wrong_pair(self, item: int) -> str | None:
        own, others = self.shop.values[item], self.shop.values[self._item()]
        if not own or not others:
            return None
        pair = [self._one(own), self._one(others)]
        if self._holds(item, pair[1]):
            return None
        first, second = self.rng.permutation(2)
        return self._one(PAIRS).format(pair[first], pair[second])


def draw_claims(
    shops: Sequence[ThirdShop], count: int, seed: int
) -> tuple[list[Claim], NDArray[np.bool_]]:
    """So many claims, true and false by turns, about the shops by turns; and which are true."""
    rng = np.random.default_rng(seed)
    sources = [Claims(shop, rng) for shop in shops]
    true = np.arange(count) % 2 == 0
    return [sources[i // 2 % len(sources)].draw(bool(one)) for i, one in enumerate(true)], true


def load_third_judge(folder: Path) -> EntailmentJudge:
    """The judge in a folder, trained where there is none."""
    if not (folder / "config.json").exists():
        train_third_judge(folder)
    return EntailmentJudge(str(folder), compute=choose_compute("cpu", "auto"))


def judge_planted(shop: str, judge: EntailmentJudge, threshold: float) -> dict[str, Any]:
    """Precision and recall of the judge among planted claims about garments or films."""
    tested = check_claims(PlantedShop(shop), "test", PLANTED, judge)
    found = detection(tested.by_judge(threshold), tested)
    return {name: asdict(value) for name, value in found.items() if isinstance(value, Interval)}


def train_third_judge(folder: Path, steps: int = STEPS, seed: int = 0) -> None:
    """Trains a judge and writes it to `folder`."""
    logging.set_verbosity_error()
    torch.manual_seed(seed)
    base = pretrained_folder("text")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.model_max_length = WINDOW
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=LABELS, label2id={name: index for index, name in LABELS.items()}
    )
    model.base_model.embeddings.requires_grad_(False)
    device = torch.device("cpu")
    compute = Compute(device, resolve_precision("auto", device))
    shops = [ThirdShop(name) for name in SHOPS]
    claims, true = draw_claims(shops, steps * BATCH, seed)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE)
    schedule = LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARMUP * steps), 1 - step / steps)
    )
    model.train()
    losses: list[float] = []
    started = time.process_time()
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        premises, hypotheses = zip(*claims[rows], strict=True)
        batch = tokenizer(
            list(premises),
            list(hypotheses),
            truncation="only_first",
            max_length=WINDOW,
            padding=True,
            return_tensors="pt",
        )
        with compute.autocast():
            logits = model(**batch).logits
        loss = F.cross_entropy(logits.float(), torch.from_numpy(true[rows].astype(np.int64)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 49:
            spent = time.process_time() - started
            print(f"  step {step + 1}: loss {np.mean(losses[-50:]):.3f}, {spent:.0f} s", flush=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def choose_threshold(judged: JudgedChecker, texts: Mapping[int, str]) -> float:
    """The threshold that tells sentences of items' true texts best from the same sentences about other items;
    `texts`: item → its true text. Sentences that the catalog has word by word never reach the model, and do
    not count."""
    items = list(texts)
    premises = [judged.premise(item) for item in items]
    pairs = [
        (premises[(place + shift) % len(items)], sentence, not shift)
        for place, item in enumerate(items)
        for sentence in sentences(texts[item])
        for shift in (0, 1)
    ]
    known, said, true = zip(*pairs, strict=True)
    scores = judged.score(known, said)
    asked = scores < 1
    return best_threshold(scores[asked], np.array(true)[asked])


def best_threshold(scores: NDArray[np.float32], true: NDArray[np.bool_]) -> float:
    """The threshold at which the share of false claims that are rejected exceeds that of true ones most
    (Youden 1950): it does not depend on how many there are of each."""
    thresholds = [round(float(one), 2) for one in np.arange(0.02, 1.0, 0.01)]

    def gain(threshold: float) -> float:
        rejected = scores < threshold
        return float(rejected[~true].mean() - rejected[true].mean())

    return max(thresholds, key=gain)
