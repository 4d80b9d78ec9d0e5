"""Words for one person and one item, from artifacts on disk: what the command and a page call."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catalog.artifacts import open_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig
from generate.conditioning import Shop
from generate.shop import open_shop
from generate.text.config import WriteConfig
from generate.text.model import TextGenerator


@dataclass(frozen=True)
class Written:
    text: str
    task: str
    user: str | None
    """The person's id; None where the text is for nobody in particular."""
    item: str | None
    """The item's id; None where the person's taste is all there is to go by."""
    seed: int
    generator: str
    """Content hash of the generator's artifact: what is generated says what made it."""


@dataclass(frozen=True)
class Writer:
    """A text generator with its catalog and its shop."""

    generator: TextGenerator
    catalog: Catalog
    shop: Shop
    hash: str

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
        texts = self.generator.write(
            self._user_state(user).expand(num_texts, -1),
            self._item_vector(item).expand(num_texts, -1),
            task,
            seeds=seeds,
            max_new_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
        )
        return [
            Written(text, task, user, item, seed, self.hash)
            for text, seed in zip(texts, seeds, strict=True)
        ]

    def _user_state(self, user: str | None) -> Tensor:
        history = np.empty(0, dtype=np.int32)
        if user is not None:
            history = self.catalog.interactions.history(self.catalog.user_index(user))
        return self.shop.user_states([history])[0]

    def _item_vector(self, item: str | None) -> Tensor:
        if item is None:
            return torch.zeros(self.shop.width)
        return torch.from_numpy(np.array(self.shop.item_vectors[self.catalog.item_index(item)]))


def open_writer(
    folder: str | Path, catalog: CatalogConfig | None = None, recommender: str | Path = ""
) -> Writer:
    """The writer of a text-generator artifact; `catalog` and `recommender` as in `open_shop`."""
    artifact = open_artifact(Path(folder), kind="text-generator")
    read, shop = open_shop(artifact, catalog, recommender)
    return Writer(TextGenerator.from_pretrained(artifact.path), read, shop, artifact.hash)


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
    return open_writer(folder, recommender=recommender).write(user, item, task, config)[0].text
