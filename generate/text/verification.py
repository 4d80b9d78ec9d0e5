"""Verified writing: returns texts whose claims the catalog supports, or the catalog's own as fallback."""

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.catalog import Catalog
from generate.conditioning import derived_seed
from generate.text.clean import clean_text
from generate.text.config import WriteConfig
from generate.text.faithfulness import Claim, ClaimChecker
from generate.text.judge import JudgedChecker
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions
from generate.text.task_texts import SENTENCE, TaskTexts


@dataclass(frozen=True)
class VerifiedText:
    text: str
    claims: tuple[Claim, ...]
    """Claims of `text`; all supported, unless it is the catalog's own."""
    attempts: int
    """Number of texts that were generated for this one."""
    from_catalog: bool
    """Whether it is the catalog's own text, since every generated one had unsupported claims."""


@dataclass(frozen=True)
class ClaimVerifier:
    """Generates texts until the catalog supports all their claims."""

    generator: TextGenerator
    checker: ClaimChecker | JudgedChecker
    catalog_texts: TaskTexts
    """The catalog's own texts for the generator's tasks: the fallback."""

    def write(
        self,
        conditions: Conditions,
        items: Sequence[int],
        task: str,
        *,
        seeds: Sequence[int],
        config: WriteConfig,
    ) -> list[VerifiedText]:
        """Generates one verified text for each of `items` (rows).

        In this order: the text of `TextGenerator.write`, if the catalog supports all its claims; the first
        supported one of `config.max_attempts` texts from other seeds; the supported sentences of the
        attempt that has most of them; the catalog's own text.
        """
        accepted: list[VerifiedText | None] = [None] * len(items)
        supported_sentences: list[list[str]] = [[] for _ in items]
        # At temperature 0 every attempt gives the same text.
        max_attempts = 1 if config.temperature == 0 else config.max_attempts
        for attempt in range(max_attempts):
            pending = [index for index, found in enumerate(accepted) if found is None]
            if not pending:
                break
            texts = self.generator.write(
                conditions.take(pending),
                task,
                seeds=[attempt_seed(seeds[index], attempt) for index in pending],
                config=config,
            )
            for index, text in zip(pending, texts, strict=True):
                claims = tuple(self.checker.check(text, items[index]))
                if text and all(claim.verdict == "supported" for claim in claims):
                    accepted[index] = VerifiedText(text, claims, attempt + 1, from_catalog=False)
                    continue
                sentences = self._supported_sentences(text, items[index])
                best = supported_sentences[index]
                supported_sentences[index] = max(best, sentences, key=len)
        return [
            found or self._fallback(task, item, sentences, max_attempts)
            for found, item, sentences in zip(accepted, items, supported_sentences, strict=True)
        ]

    def _supported_sentences(self, text: str, item: int) -> list[str]:
        """Sentences whose claims are all supported; empty if these sentences contain no claim at all."""
        sentences = [one for one in SENTENCE.findall(text) if self.checker.supports(one, item)]
        return sentences if self.checker.check(" ".join(sentences), item) else []

    def _fallback(
        self, task: str, item: int, sentences: Sequence[str], attempts: int
    ) -> VerifiedText:
        text = " ".join(sentence.strip() for sentence in sentences)
        if not sentences:
            text = catalog_text(self.catalog_texts, task, item)
        claims = tuple(self.checker.check(text, item))
        return VerifiedText(text, claims, attempts, from_catalog=not sentences)


def attempt_seed(seed: int, attempt: int) -> int:
    """The seed of an attempt; attempt 0 has the request's own seed, as without verification."""
    return derived_seed(seed, attempt) if attempt else seed


def catalog_text(texts: TaskTexts, task: str, item: int) -> str:
    """The catalog's own text of an item for a task, or, where that depends on the user, of the item."""
    text = texts.item_text(texts.tasks[task], item)
    return clean_text(text or item_description(texts.catalog, item))


def item_description(catalog: Catalog, item: int) -> str:
    """The item's text, else its category, else its id."""
    return (
        catalog.item_text(item)
        or (catalog.column("category")[item].as_py() if catalog.has_column("category") else None)
        or str(catalog.items[item]["item_id"])
    )
