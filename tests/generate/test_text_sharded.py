"""A generator trained by two ranks under ZeRO-2, and again after a kill, writes the same words."""

from pathlib import Path

from benchmarks.text_resume import text_settings, words_of
from tests.pretrain.runs import differing_bytes, largest_difference
from tests.stages import train


def test_killed_on_two_ranks_it_goes_on_to_the_same_words(demo_world: Path, tmp_path: Path) -> None:
    settings = text_settings(demo_world, tmp_path, steps=8, every=3)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(settings, whole, "zero2", 2)
    train(settings, broken, "zero2", 2, kill_at=5)
    assert train(settings, broken, "zero2", 2)["first_step"] == 3
    assert differing_bytes(whole, broken) == 0
    assert largest_difference(whole, broken) == 0
    words = words_of(whole, requests=8)
    assert words == words_of(broken, requests=8)
    assert len(set(words)) > 4
    # Its texts are longer than that of the other rank, or shorter: each token counts alike.
    train(settings, tmp_path / "one")
    assert 0 < largest_difference(whole, tmp_path / "one") < 1e-5
