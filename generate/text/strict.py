"""Words that claim nothing the catalog does not bear out: tried anew, or the catalog's own instead."""

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.catalog import Catalog
from generate.conditioning import derived_seed
from generate.text.clean import clean_text
from generate.text.config import WriteConfig
from generate.text.faithful import Checker, Claim
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions
from generate.text.tasks import SENTENCE, Words


@dataclass(frozen=True)
class Checked:
    text: str
    claims: tuple[Claim, ...]
    """Of `text`; all supported, unless it is the catalog's own."""
    tried: int
    """Texts that were written."""
    own: bool
    """It is the catalog's own, as none of them was borne out."""


def write_checked(
    generator: TextGenerator,
    checker: Checker,
    own: Words,
    conditions: Conditions,
    items: Sequence[int],
    task: str,
    *,
    seeds: Sequence[int],
    config: WriteConfig,
) -> list[Checked]:
    """One text for each of `items` (rows), as `TextGenerator.write` would write it; where the catalog
    does not bear it out, the next of `config.tries` from other seeds that it does bear out; else the
    sentences of these that it does, of whichever has most of them. `own` knows the catalog's own words
    for the generator's tasks."""
    found: list[Checked | None] = [None] * len(items)
    partly: list[list[str]] = [[] for _ in items]
    tries = 1 if config.temperature == 0 else config.tries  # it would say the same again
    for attempt in range(tries):
        open_places = [place for place, done in enumerate(found) if done is None]
        if not open_places:
            break
        texts = generator.write(
            conditions.take(open_places),
            task,
            seeds=[seed_of(seeds[place], attempt) for place in open_places],
            config=config,
        )
        for place, text in zip(open_places, texts, strict=True):
            claims = tuple(checker.check(text, items[place]))
            if text and all(claim.verdict == "supported" for claim in claims):
                found[place] = Checked(text, claims, attempt + 1, own=False)
                continue
            sentences = [
                one for one in SENTENCE.findall(text) if checker.supports(one, items[place])
            ]
            if checker.check(" ".join(sentences), items[place]):  # else they say nothing of it
                partly[place] = max(partly[place], sentences, key=len)
    for place, item in enumerate(items):
        if found[place] is None and partly[place]:
            text = " ".join(one.strip() for one in partly[place])
            found[place] = Checked(text, tuple(checker.check(text, item)), tries, own=False)
        elif found[place] is None:
            text = own_words(own, task, item)
            found[place] = Checked(text, tuple(checker.check(text, item)), tries, own=True)
    return [done for done in found if done is not None]


def seed_of(seed: int, attempt: int) -> int:
    """The first attempt is what is written without checking."""
    return derived_seed(seed, attempt) if attempt else seed


def own_words(words: Words, task: str, item: int) -> str:
    """What the catalog itself says for a task, or, where that is a person's to say, of the item."""
    text = words.of_item(words.tasks[task], item)
    return clean_text(text or plain_words(words.catalog, item))


def plain_words(catalog: Catalog, item: int) -> str:
    """Its text, else its category, else its id."""
    return (
        catalog.item_text(item)
        or (catalog.column("category")[item].as_py() if catalog.has_column("category") else None)
        or str(catalog.items[item]["item_id"])
    )
