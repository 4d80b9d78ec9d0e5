"""An encoder says which interactions it was shown, and that it was shown none where it took no step."""

from pathlib import Path

from catalog.artifacts import open_artifact
from catalog.interaction_sketch import InteractionSketch
from tests.stages import pretrain_small


def test_an_encoder_that_took_no_step_was_shown_nothing(demo_world: Path, tmp_path: Path) -> None:
    for steps in (0, 1):
        encoder = open_artifact(pretrain_small(demo_world, tmp_path / str(steps), steps))
        assert bool(len(InteractionSketch.load(encoder.path).entries)) == bool(steps)
