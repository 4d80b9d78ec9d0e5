"""Words for one person and one item, from artifacts on disk: what the command and a page call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.reorder import reorder_histories
from catalog.splits import make_split
from generate.conditioning import Ranker
from generate.ranker import load_catalog_and_ranker
from generate.text.config import WriteConfig
from generate.text.faithful import Checker
from generate.text.model import TextGenerator
from generate.text.prompts import Past, Prompts
from generate.text.strict import write_checked
from generate.text.tasks import Words


@dataclass(frozen=True)
class Written:
    text: str
    task: str
    user: str | None
    """The person's id; None where the text is for nobody in particular."""
    item: str | None
    """The item's id; None where the person's taste is all there is to go by."""
    seed: int
    own: bool
    """Whether the words are the catalog's own, as with `strict` no other was borne out."""
    generator: str
    """Content hash of the generator's artifact: what is generated says what made it."""


@dataclass(eq=False)
class Writer:
    """A text generator with its catalog and its shop."""

    generator: TextGenerator
    catalog: Catalog
    ranker: Ranker
    hash: str
    split: SplitConfig
    """Of the training part a check reads the reviews."""

    @cached_property
    def checker(self) -> Checker:
        read = reorder_histories(self.catalog, self.split)
        return Checker(read, make_split(read, self.split))

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.catalog, self.ranker, self.generator.history_items)

    @cached_property
    def own(self) -> Words:
        return Words(self.checker.catalog, self.generator.learned, self.checker.facts)

    def write(
        self,
        user: str | None = None,
        item: str | None = None,
        task: str = "description",
        config: WriteConfig | None = None,
        num_texts: int = 1,
    ) -> list[Written]:
        """Texts about an item for a person, either of which may be None; seeds count up.

        Raises VitrineError for ids the catalog lacks and tasks the generator has not learned.
        """
        config = config or WriteConfig()
        seeds = range(config.seed, config.seed + num_texts)
        if item is None and config.strict:
            raise VitrineError("strict checks words against an item; name one with --item.")
        state, past = self._person(user)
        row = None if item is None else self.catalog.item_index(item)
        texts = self.write_rows(
            state.expand(num_texts, -1),
            [past] * num_texts,
            None if row is None else [row] * num_texts,
            task,
            seeds,
            config,
        )
        return [
            Written(text, task, user, item, seed, own, self.hash)
            for (text, own), seed in zip(texts, seeds, strict=True)
        ]

    def write_rows(
        self,
        states: Tensor,
        pasts: Sequence[Past],
        items: Sequence[int] | None,
        task: str,
        seeds: Sequence[int],
        config: WriteConfig,
    ) -> list[tuple[str, bool]]:
        """A text for each of `states` (texts, width) and `pasts` about each of `items` (rows), and whether
        it is the catalog's own."""
        conditions = self.prompts.make(states, pasts, items)
        if not config.strict or items is None:
            texts = self.generator.write(conditions, task, seeds=seeds, config=config)
            return [(text, False) for text in texts]
        if config.tries < 1:
            raise VitrineError(f"tries is {config.tries}; give 1 or more.")
        checked = write_checked(
            self.generator,
            self.checker,
            self.own,
            conditions,
            items,
            task,
            seeds=seeds,
            config=config,
        )
        return [(one.text, one.own) for one in checked]

    def stream(
        self,
        user: str | None = None,
        item: str | None = None,
        task: str = "description",
        config: WriteConfig | None = None,
    ) -> Iterator[str]:
        """The first text of `write`, piece by piece; checked words, and another
        engine's, come in one."""
        config = config or WriteConfig()
        if config.strict or self.generator.engine:
            yield self.write(user, item, task, config)[0].text
            return
        state, past = self._person(user)
        items = None if item is None else [self.catalog.item_index(item)]
        conditions = self.prompts.make(state[None], [past], items)
        (request,) = self.generator.requests(conditions, task, seeds=[config.seed], config=config)
        yield from self.generator.stream(request, conditions.own[0] if conditions.own else "")

    def _person(self, user: str | None) -> tuple[Tensor, Past]:
        """State (width,), zeros of nobody, and past."""
        past = Past()
        if user is not None:
            row = self.catalog.user_index(user)
            past = Past(row, len(self.catalog.interactions.history(row)))
        return self.ranker.user_states([self.prompts.history(past)])[0], past


def open_writer(
    folder: str | Path,
    catalog: CatalogConfig | None = None,
    recommender: str | Path = "",
    beside: Writer | None = None,
    engine: str = "vitrine",
) -> Writer:
    """The writer of a text-generator artifact; `catalog` and `recommender` as in `load_catalog_and_ranker`.

    `beside`: a writer of other tasks, or for another domain, on the same pretrained language model,
    which then is in memory once; each puts its own adapter in place when its turn comes.
    """
    artifact = open_artifact(Path(folder), kind="text-generator")
    read, ranker = load_catalog_and_ranker(artifact, catalog, recommender)
    split = SplitConfig(**artifact.manifest["config"]["split"])
    generator = TextGenerator.from_pretrained(artifact.path, beside.generator if beside else None)
    if engine == "vllm":
        from generate.text.engine import vllm_engine

        generator.engine = vllm_engine(generator, artifact.path)
    return Writer(generator, read, ranker, artifact.hash, split)


def write(
    folder: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    task: str = "description",
    config: WriteConfig | None = None,
    recommender: str | Path = "",
) -> str:
    """One text, straight from the artifact's folder; for several, keep `open_writer`'s Writer."""
    engine = (config or WriteConfig()).engine
    writer = open_writer(folder, recommender=recommender, engine=engine)
    return writer.write(user, item, task, config)[0].text
