"""Plants true and false claims about the items of two real shops, of known kinds, from templates.

A claim is made from the item (a sentence of its text, an attribute, a part of it, a number), from another
item, or from a list of invented properties. Templates and inventions (`planted_claims.yaml`) come in three
groups, of which none shares one with another: a judge learns from the first, its threshold is chosen on the
second, both are tested on the third. What would be true by accident, since the item's own
text says it too, is left out.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from catalog.catalog import Catalog
from catalog.catalog import load_catalog as open_catalog
from catalog.config import CatalogConfig
from catalog.yaml_files import read_yaml
from generate.text.evidence import item_facts
from generate.text.keywords import KeywordIndex

Group = Literal["train", "validate", "test"]
GROUPS: tuple[Group, ...] = ("train", "validate", "test")
SHOPS = {
    "garments": CatalogConfig(
        path="../shared/data/fashion",
        ties="shuffle",
        roles={
            "text": [
                "product_type_name",
                "colour_group_name",
                "graphical_appearance_name",
                "department_name",
                "detail_desc",
            ]
        },
    ),
    "films": CatalogConfig(
        path="../shared/data/ml-100k",
        source="movielens",
        roles={"text": ["words", "genres", "director", "actors"]},
    ),
}
PROSE = {"garments": "detail_desc", "films": "words"}
"""Shop → the column whose sentences are claims."""
COLUMNS = {
    "garments": {
        "kind": "product_type_name",
        "colour": "colour_group_name",
        "pattern": "graphical_appearance_name",
        "range": "index_group_name",
    },
    "films": {"genre": "genres", "director": "director", "actor": "actors"},
}
"""Shop → what an attribute is called in the templates, and its column."""
TRUE_KINDS = ("sentence", "attribute", "part", "number", "denial")
FALSE_KINDS = (
    *("other_sentence", "other_attribute", "other_part", "changed_number", "unit_swap", "negated"),
    "invented",
)
_CONTENT = read_yaml(Path(__file__).with_suffix(".yaml"))
TEMPLATES: dict[str, list[list[str]]] = _CONTENT["templates"]
"""What is claimed → the templates of each group."""
INVENTED: list[list[str]] = _CONTENT["invented"]
"""Invented properties of each group."""
UNITS = ("cm", "mm", "m", "metres", "denier", "%", "kg", "g", "litres", "inches", "feet", "miles")
TIMES = ("years", "year", "months", "weeks", "days", "hours", "minutes")
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)?")
_ANY_UNIT = "|".join(map(re.escape, (*UNITS, *TIMES)))
_UNIT = re.compile(rf"(?<![\w.,])(\d+(?:[.,]\d+)?)([ -]?)({_ANY_UNIT})(?!\w)")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+ [A-Z][a-z]+")
_WORDS = re.compile(r"[^\W_]{4,}|\d+")
_YEAR = re.compile(r"\((\d{4})\)")


@dataclass(frozen=True)
class PlantedClaim:
    text: str
    item: int
    kind: str
    """One of TRUE_KINDS or FALSE_KINDS."""

    @property
    def true(self) -> bool:
        return self.kind in TRUE_KINDS


class PlantedShop:
    """The items of one shop, and claims about them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.catalog: Catalog = open_catalog(SHOPS[name])
        self.keyword_index = KeywordIndex(self.catalog)
        self.prose = self.catalog.columns.column(PROSE[name]).to_pylist()
        self.columns = {
            relation: [
                _values(value, relation)
                for value in self.catalog.columns.column(column).to_pylist()
            ]
            for relation, column in COLUMNS[name].items()
        }

        self._facts: dict[int, str] = {}

    def facts(self, item: int) -> str:
        if item not in self._facts:
            self._facts[item] = item_facts(self.catalog, self.keyword_index, item)
        return self._facts[item]

    def items(self, group: Group) -> list[int]:
        """Rows of the items of a group, of those with a text: 75 % train or test, 25 % validate.

        A judge is tested on another shop than the one that it has learned from, so training and test never
        meet.
        """
        rows = np.random.default_rng(1).permutation(self.catalog.num_items)
        train, validate = np.split(rows, [int(0.75 * len(rows))])
        chosen = {"train": train, "validate": validate, "test": train}[group].tolist()
        return [item for item in chosen if self.sentences(item)]

    def sentences(self, item: int) -> list[str]:
        parts = re.split(r"(?<=[.!?])\s+", (self.prose[item] or "").strip())
        return [part for part in parts if 3 <= len(part.split()) <= 40]

    def parts(self, item: int) -> list[str]:
        """Noun phrases after "with" (garments), names of people (films)."""
        text = self.prose[item] or ""
        if self.name == "films":
            return list(dict.fromkeys(_NAME.findall(text)))
        found = re.findall(r"\bwith (?:an? )?([a-z][\w\s-]{6,45}?)(?=[.,]| and | at | in )", text)
        return list(dict.fromkeys(found))

    def value(self, relation: str, item: int, rng: np.random.Generator) -> str | None:
        values = self.columns[relation][item]
        return values[int(rng.integers(len(values)))] if values else None

    def says(self, item: int, phrase: str) -> bool:
        """Whether nearly all long words of a phrase are among what is known of the item."""
        words = set(_WORDS.findall(phrase.lower()))
        known = set(_WORDS.findall(self.facts(item).lower()))
        found = sum(word in known or word.rstrip("s") in known for word in words)
        return phrase.lower() in self.facts(item).lower() or found >= 0.8 * max(1, len(words))


def _values(value: object, relation: str) -> list[str]:
    if value is None:
        return []
    listed = (
        value
        if isinstance(value, list)
        else str(value).split(",")
        if relation == "actor"
        else [value]
    )
    return [
        text
        for one in listed
        if (text := str(one).strip()) and not text.startswith(("Other", "Unknown"))
    ]


def plant(
    shop: PlantedShop, group: Group, kinds: Sequence[str], most: dict[str, int] | int, seed: int = 0
) -> list[PlantedClaim]:
    """Claims of each kind about items of the group, at most `most` of each, at most one an item and kind."""
    claims = []
    items = shop.items(group)
    for kind in kinds:
        rng = np.random.default_rng([seed, (*TRUE_KINDS, *FALSE_KINDS).index(kind)])
        limit = most if isinstance(most, int) else most[kind]
        planter = _Planter(shop, group, items, rng)
        found = filter(None, (planter.plant(kind, int(item)) for item in rng.permutation(items)))
        claims += [claim for claim, _ in zip(found, range(limit), strict=False)]
    return claims


@dataclass
class _Planter:
    shop: PlantedShop
    group: Group
    items: Sequence[int]
    rng: np.random.Generator

    def plant(self, kind: str, item: int) -> PlantedClaim | None:
        makers: dict[str, Callable[[int], str | None]] = {
            "sentence": lambda item: self._fill("sentence", self._one(self.shop.sentences(item))),
            "other_sentence": self._other_sentence,
            "attribute": lambda item: self._attribute(item, item),
            "other_attribute": lambda item: self._attribute(item, self._other()),
            "part": lambda item: self._fill("part", self._one(self.shop.parts(item))),
            "other_part": lambda item: self._fill("part", self._foreign(item, self.shop.parts)),
            "number": self._number,
            "changed_number": self._changed_number,
            "unit_swap": self._unit_swap,
            "denial": lambda item: self._negated(item, self._other()),
            "negated": lambda item: self._negated(item, item),
            "invented": self._invented,
        }
        text = makers[kind](item)
        return None if text is None else PlantedClaim(text, item, kind)

    def _one(self, listed: Sequence[str]) -> str | None:
        return listed[int(self.rng.integers(len(listed)))] if listed else None

    def _other(self) -> int:
        return self.items[int(self.rng.integers(len(self.items)))]

    def _fill(self, name: str, content: str | None) -> str | None:
        if content is None:
            return None
        template = self._one(TEMPLATES[name][GROUPS.index(self.group)])
        assert template is not None
        return template.format(content)

    def _foreign(self, item: int, read: Callable[[int], list[str]]) -> str | None:
        """Something of another item that this one's text does not say."""
        for _ in range(20):
            found = self._one(read(self._other()))
            if found and not self.shop.says(item, found):
                return found
        return None

    def _other_sentence(self, item: int) -> str | None:
        return self._fill("sentence", self._foreign(item, self.shop.sentences))

    def _relation_value(self, item: int, source: int) -> tuple[str, str] | None:
        relation = self._one(list(self.shop.columns))
        assert relation is not None
        value = self.shop.value(relation, source, self.rng)
        if value is None or (source != item and self._holds(item, relation, value)):
            return None
        return relation, value

    def _holds(self, item: int, relation: str, value: str) -> bool:
        own = [one.lower() for one in self.shop.columns[relation][item]]
        low = value.lower()
        return not own or low in self.shop.facts(item).lower() or any(one in low for one in own)

    def _attribute(self, item: int, source: int) -> str | None:
        found = self._relation_value(item, source)
        return self._fill(*found) if found else None

    def _negated(self, item: int, source: int) -> str | None:
        """A denied value or part of the item itself: false; a denied value of another item: true.

        A text that is silent on a part does not deny it, nor does a list of actors deny another one.
        """
        if source == item and self.rng.random() < 0.3:
            return self._fill("no part", self._one(self.shop.parts(item)))
        found = self._relation_value(item, source)
        if found and source != item and found[0] == "actor":
            return None
        template = self._one(TEMPLATES["negation"][GROUPS.index(self.group)])
        return template.format(found[1]) if found and template else None

    def _with_number(self, item: int) -> Iterator[str]:
        for sentence in self.shop.sentences(item):
            if _NUMBER.search(sentence):
                yield sentence

    def _year(self, item: int) -> str | None:
        found = _YEAR.search(self.shop.keyword_index.texts(item) or "")
        return found[1] if found and self.shop.name == "films" else None

    def _number(self, item: int) -> str | None:
        sentence, year = self._one(list(self._with_number(item))), self._year(item)
        if sentence and (not year or self.rng.random() < 0.7):
            return self._fill("sentence", sentence)
        return self._fill("year", year)

    def _changed_number(self, item: int) -> str | None:
        sentence, year = self._one(list(self._with_number(item))), self._year(item)
        known = set(_NUMBER.findall(self.shop.facts(item)))
        by_year = year and not (sentence and self.rng.random() < 0.7)
        written = year if by_year else sentence and self._one(_NUMBER.findall(sentence))
        if not written or not written.isdigit():
            return None
        step = int(self.rng.integers(1, 10)) * (10 if int(written) > 30 and not year else 1)
        changed = str(int(written) + step)
        if changed in known:
            return None
        if by_year:
            return self._fill("year", changed)
        return self._fill(
            "sentence", re.sub(rf"(?<![\w.,]){written}(?!\d)", changed, sentence or "", count=1)
        )

    def _unit_swap(self, item: int) -> str | None:
        sentences = [one for one in self.shop.sentences(item) if _UNIT.search(one)]
        sentence = self._one(sentences)
        if sentence is None:
            return None
        units = TIMES if _UNIT.search(sentence)[3] in TIMES else UNITS  # type: ignore[index]

        def swap(match: re.Match[str]) -> str:
            others = [unit for unit in units if unit[0] != match[3][0]]
            return f"{match[1]}{match[2]}{self._one(others)}"

        return self._fill("sentence", _UNIT.sub(swap, sentence, count=1))

    def _invented(self, item: int) -> str | None:
        listed = INVENTED[GROUPS.index(self.group)]
        found = self._one([one for one in listed if not self.shop.says(item, one)])
        return self._fill("invented", found)


def check_groups() -> None:
    """Raises AssertionError where two groups share a template or an invented property."""
    for groups in (*TEMPLATES.values(), INVENTED):
        listed = [one for group in groups for one in group]
        assert len(groups) == len(GROUPS), f"each of {GROUPS} needs its own: {groups}"
        assert len(set(listed)) == len(listed), f"two groups share one of {listed}"
