"""Reads the demo world's truth out of what was generated; only scores ever see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.demo.ground_truth import DemoGroundTruth
from generate.text.score import Reading


@dataclass(frozen=True)
class PictureReading:
    """Something a picture should show its person."""

    read: Callable[[NDArray[np.uint8]], Any]
    """Pixels (size, size, 3) → label."""
    labels: list[Any]
    """(num_users,): what each of the catalog's people should find."""


@dataclass(frozen=True)
class Truth:
    """What is true of one domain's people."""

    world: DemoGroundTruth
    domain: str
    users: list[str]

    def picture_readings(self) -> Mapping[str, PictureReading]:
        world = self.world
        palettes = [world.palette_of_user(self.domain, user) for user in self.users]
        motifs = [world.motif_of_user(self.domain, user) for user in self.users]
        return {
            "Palette": PictureReading(world.classify_palette, palettes),
            "Motif": PictureReading(world.classify_motif, motifs),
        }

    def text_readings(self) -> Mapping[str, Reading]:
        """A review, and a reason, should speak of the aspect its person cares about."""
        return {
            f"{task.capitalize()} names the person's aspect": Reading(
                task=task,
                read=self.world.classify_aspect,
                truth=lambda user, item: self.world.aspect_of_user(self.users[user]),
            )
            for task in ("review", "reason")
        }

    def note(self, user: str) -> str:
        world = self.world
        palette = world.palettes[world.palette_of_user(self.domain, user)].name
        motif = world.motifs[world.motif_of_user(self.domain, user)]
        aspect = world.aspects[world.aspect_of_user(user)]
        return (
            f"The truth, which no model saw: {user} likes {palette} and {motif}, "
            f"and looks at {aspect} first."
        )


def demo_truth(folder: str, catalog: Catalog) -> Truth:
    """The truth about `catalog`, one of the demo world's two shops."""
    return Truth(DemoGroundTruth.load(Path(folder)), catalog.folder.name, catalog.user_ids.tolist())
