"""Best-of-n sampling: near-copies, safety checks, watermarks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from catalog.errors import VitrineError
from generate.image.best_of_n import NEAR_COPY, CandidateSelection
from generate.image.loading import load_image_sampler
from generate.image.near_copies import TrainingImageIndex, nearest_distances, thumbnail
from generate.image.safety import SafetyChecker
from generate.image.sampler import ImageSampler
from tests.generate.small_image_generator import FEW, small_image_generator


@pytest.fixture(scope="module")
def generator(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_image_generator(demo_world, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def sampler(generator: Path) -> ImageSampler:
    return load_image_sampler(generator)


def _plain(level: int) -> Image.Image:
    return Image.new("RGB", (16, 16), (level,) * 3)


class FakeRanker:
    """Image vectors whose first entry is the lightness, 0 … 1."""

    def image_vectors(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        light = torch.tensor([float(one.mean()) / 255 for one in pictures])
        return torch.stack([light, torch.zeros(len(pictures))], dim=1)


def test_best_of_n_keeps_the_most_similar_accepted_candidate() -> None:
    calls: list[tuple[list[int], list[int]]] = []

    def draw(indices: Sequence[int], seeds: Sequence[int]) -> list[Image.Image]:
        calls.append((list(indices), list(seeds)))
        level = (100, 200, 250, 40, 60)[len(calls) - 1]
        return [_plain(level + index) for index in indices]

    training_images = TrainingImageIndex(
        np.stack([thumbnail(np.asarray(_plain(251)))]), copy_threshold=1.0
    )

    def check(images: Sequence[Image.Image]) -> list[str]:
        levels = [np.asarray(image).mean() for image in images]
        return ["too light" if level > 251 else "" for level in levels]

    states = torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    selection = CandidateSelection(FakeRanker(), 3, 2, training_images, check)  # type: ignore[arg-type]
    sampled = selection.best_of_n(draw, states, states * 0, [5, 6, 7])
    levels = [np.asarray(one.image)[0, 0, 0] for one in sampled]
    # 251 is a near-copy, 252 too light; without conditions the first candidate is kept.
    assert levels == [250, 201, 102]
    assert calls[0] == ([0, 1, 2], [5, 6, 7])
    assert sampled[2].seed == 7
    assert sampled[0].seed == calls[2][1][0] != 5
    assert len(calls) == 3, "no retry was needed"

    calls.clear()
    rejecting = replace(selection, num_candidates=1, check=lambda images: ["no"] * len(images))
    (none,) = rejecting.best_of_n(draw, states[:1], states[:1], [5])
    assert none.image is None
    assert none.rejected == "no"
    assert len(calls) == 3
    single = replace(selection, num_candidates=1, max_retries=1)
    copy = single.best_of_n(lambda indices, seeds: [_plain(251)], states[:1], states[:1], [5])
    assert copy[0].rejected == NEAR_COPY


def test_a_rejected_image_is_not_returned(sampler: ImageSampler) -> None:
    refusing = replace(sampler, check=lambda images: ["shows a hat"] * len(images))
    with pytest.raises(VitrineError, match="was rejected: shows a hat"):
        refusing.sample([(None, sampler.catalog.items["item_id"][0])], replace(FEW, max_retries=1))
    with pytest.raises(VitrineError, match="num_candidates is 0"):
        sampler.sample([(None, None)], replace(FEW, num_candidates=0))


@pytest.mark.parametrize("mode", ["concept", "creative"])
def test_every_sampled_image_is_watermarked(
    sampler: ImageSampler, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generate.image.sampler.embed_watermark", lambda pixels: pixels * 0)
    item = next(n for n in range(80) if sampler.catalog.item_image(n, 32) is not None)
    request = (None, sampler.catalog.items["item_id"][item])
    pixels = np.asarray(sampler.sample([request], replace(FEW, mode=mode))[0])
    black = (pixels == 0).all(axis=-1)
    assert black.all() if mode == "concept" else black.any()


def test_candidates_are_compared_in_the_recommenders_space(sampler: ImageSampler) -> None:
    catalog = sampler.catalog
    user, item = str(catalog.user_ids[0]), catalog.items["item_id"][3]
    one, several = (replace(FEW, num_candidates=number) for number in (1, 3))
    first, best = (sampler.sample([(user, item)], config)[0] for config in (one, several))

    def similarity(image: Image.Image) -> float:
        state = sampler.ranker.user_states([catalog.interactions.history(0)])
        wanted = state + torch.from_numpy(np.array(sampler.ranker.item_vectors[3]))
        return float((sampler.ranker.image_vectors([np.asarray(image)]) * wanted).sum())

    assert similarity(best) >= similarity(first)
    vectors = sampler.ranker.image_vectors([np.asarray(first), np.asarray(best)])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_a_safety_model_rejects_by_its_labels(tmp_path: Path) -> None:
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, id2label={0: "SFW", 1: "NSFW"}, label2id={"SFW": 0, "NSFW": 1},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([0.0, 2.0])
    model.save_pretrained(tmp_path / "strict")
    inputs = '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    (tmp_path / "strict" / "preprocessor_config.json").write_text(inputs)
    name = str(tmp_path / "strict")
    assert (
        SafetyChecker(name, ["nsfw", "porn"])([_plain(3)] * 2)
        == ["labelled nsfw by the safety model"] * 2
    )
    assert SafetyChecker(name, ["nsfw"], threshold=0.95)([_plain(3)]) == [""]
    with pytest.raises(VitrineError, match="has none of the labels gore; it has sfw, nsfw"):
        SafetyChecker(name, ["gore"])
    with pytest.raises(VitrineError, match=r"safety_model .* cannot be loaded"):
        SafetyChecker(str(tmp_path / "nothing"), ["nsfw"])


def test_thumbnails_find_the_training_images(sampler: ImageSampler) -> None:
    codec = sampler.pipeline.codec
    found = (sampler.catalog.item_image(item, codec.buckets[0]) for item in range(12))
    real = torch.from_numpy(np.stack([image for image in found if image is not None]))
    images = codec.decode(codec.encode(real)).numpy()  # all that a generator can sample
    assert sampler.training_images.near_copies(list(images)).all()
    assert not sampler.training_images.near_copies(list(255 - images)).any()
    known = sampler.training_images.thumbnails[:50]
    apart = nearest_distances(np.array(known), known, excluded=np.arange(50))
    by_hand = np.square(known[:, None].astype(float) - known[None]).mean(2) ** 0.5
    np.fill_diagonal(by_hand, np.inf)
    np.testing.assert_allclose(apart, by_hand.min(1), atol=1e-5)
