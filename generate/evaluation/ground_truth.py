"""The demo world's ground truth as readings of generated outputs; only scores read it, no model does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.demo.ground_truth import DemoGroundTruth
from generate.evaluation.readings import Reading


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth about the users of one domain."""

    world: DemoGroundTruth
    domain: str
    user_ids: list[str]

    def image_readings(self) -> Mapping[str, Reading[NDArray[np.uint8]]]:
        """An image (height, width, 3) should show its user's palette and motif."""
        world, domain, ids = self.world, self.domain, self.user_ids
        return {
            "Palette": Reading(
                lambda pixels: int(world.classify_palette(pixels)),
                lambda user, _: world.palette_of_user(domain, ids[user]),
            ),
            "Motif": Reading(
                lambda pixels: int(world.classify_motif(pixels)),
                lambda user, _: world.motif_of_user(domain, ids[user]),
            ),
        }

    def text_readings(self) -> Mapping[str, Reading[str]]:
        """A review, and a reason, should mention the aspect its user cares about."""
        world, ids = self.world, self.user_ids
        return {
            f"{task.capitalize()} names the user's aspect": Reading(
                world.classify_aspect, lambda user, _: world.aspect_of_user(ids[user]), task
            )
            for task in ("review", "reason")
        }

    def describe_user(self, user: str) -> str:
        world = self.world
        palette = world.palettes[world.palette_of_user(self.domain, user)].name
        motif = world.motifs[world.motif_of_user(self.domain, user)]
        aspect = world.aspects[world.aspect_of_user(user)]
        return (
            f"Ground truth, which no model was trained on: {user} likes {palette} and {motif}, and "
            f"pays most attention to {aspect}."
        )


def load_ground_truth(folder: str, catalog: Catalog) -> GroundTruth:
    """Loads the ground truth of `catalog`, one of the demo world's two shops."""
    return GroundTruth(
        DemoGroundTruth.load(Path(folder)), catalog.folder.name, catalog.user_ids.tolist()
    )
