"""Pictures for everybody, the choice among candidates, scores with a contact sheet, and forgetting."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from generate.conditioning import CONDITIONS
from generate.forget import forget
from generate.image import batch_job
from generate.image.attribute_classifier import SIZE, ImageAttributeClassifier, _fit
from generate.image.best_of_n import COPY, choose
from generate.image.config import (
    CodecConfig,
    DenoiserConfig,
    ImageBatchConfig,
    ImageConfig,
    ImageScoreConfig,
    SamplingConfig,
)
from generate.image.feature_metrics import (
    centred,
    diversity,
    frechet_inception_distance,
    identified,
    kernel_inception_distance,
)
from generate.image.near_copies import TrainingImageIndex, nearest_distances, thumbnail
from generate.image.report import describe_scores, run_image_scores
from generate.image.run import run_image_generator
from generate.image.safety import SafetyChecker
from generate.image.sampler import ImageSampler, load_image_sampler
from generate.provenance import verify
from generate.pseudonyms import pseudonymize
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from tests.stages import small_recommender


@pytest.fixture(scope="module")
def generator(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    finetuning = small_recommender(demo_world, folder)
    config = ImageConfig(
        recommender=str(folder / "recommender"),
        catalog=finetuning.catalog,
        split=finetuning.split,
        image_size=32,
        codec=CodecConfig(patch_size=16, channels=12),
        denoiser=DenoiserConfig(width=16, layers=1, heads=2, user_tokens=1, item_tokens=1),
        batch_size=4,
        trainer=TrainerConfig(max_steps=3, progress=False),
    )
    return run_image_generator(config, folder / "image", build_trainer)


@pytest.fixture(scope="module")
def sampler(generator: Path) -> ImageSampler:
    return load_image_sampler(generator)


FEW = SamplingConfig(steps=2, reject_near_copies=False)


def test_everybodys_pictures_are_those_each_would_get_and_go_on_where_they_were(
    generator: Path, sampler: ImageSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generate.batch_job.USERS_PER_PART", 2)
    users = [str(user) for user in sampler.catalog.user_ids[:5]]
    (tmp_path / "some.txt").write_text("\n".join(users))
    asked = ImageBatchConfig(
        generator=str(generator), items="top:2", users=str(tmp_path / "some.txt"), sampling=FEW
    )
    whole = batch_job.run_image_batch_job(asked, tmp_path / "whole")
    rows = batch_job.read_images(whole).to_pylist()
    assert [(row["user"], row["rank"]) for row in rows] == [
        (pseudonymize(user), place) for user in users for place in range(2)
    ]
    text = (whole / "images.parquet").read_bytes()
    assert not any(user.encode() in text for user in users)
    for row, user in ((rows[3], users[1]), (rows[8], users[4])):
        (tmp_path / "one.png").write_bytes(row["image"]["bytes"])
        assert verify(tmp_path / "one.png").is_intact
        again = sampler.sample([(user, row["item_id"])], replace(FEW, seed=row["seed"]))[0]
        assert np.array_equal(np.asarray(again), np.asarray(Image.open(tmp_path / "one.png")))

    sample_part, drawn = batch_job.sample_part, []

    def stop_after_two(sampler: ImageSampler, users: np.ndarray, *rest):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(users.tolist())
        return sample_part(sampler, users, *rest)

    monkeypatch.setattr(batch_job, "sample_part", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        batch_job.run_image_batch_job(asked, tmp_path / "broken")
    drawn.clear()
    broken = batch_job.run_image_batch_job(asked, tmp_path / "broken")
    assert len(drawn) == 1
    # But for its signature, which says nothing of when, each is the same.
    assert batch_job.read_images(broken).to_pylist() == rows
    assert open_artifact(whole).manifest["metrics"] == {"users": 5, "images": 10, "refused": 0}


def test_forgetting_lists_what_learned_from_all_users(
    generator: Path, sampler: ImageSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    gone = str(sampler.catalog.user_ids[0])
    assert generator in forget(gone, generator.parent).trained
    with pytest.raises(VitrineError, match="is no folder"):
        forget(gone, tmp_path / "nowhere")


def _plain(level: int) -> Image.Image:
    return Image.new("RGB", (16, 16), (level,) * 3)


class Eye:
    """Sees how light a picture is, 0 … 1, as the first of two numbers."""

    def image_vectors(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        light = torch.tensor([float(one.mean()) / 255 for one in pictures])
        return torch.stack([light, torch.zeros(len(pictures))], dim=1)


def test_of_several_candidates_the_best_liked_that_may_be_shown_is_kept() -> None:
    asked: list[tuple[list[int], list[int]]] = []

    def draw(places: Sequence[int], seeds: Sequence[int]) -> list[Image.Image]:
        asked.append((list(places), list(seeds)))
        level = (100, 200, 250, 40, 60)[len(asked) - 1]
        return [_plain(level + place) for place in places]

    training_images = TrainingImageIndex(
        np.stack([thumbnail(np.asarray(_plain(251)))]), copy_threshold=1.0
    )

    def check(pictures: Sequence[Image.Image]) -> list[str]:
        levels = [np.asarray(picture).mean() for picture in pictures]
        return ["too light" if level > 251 else "" for level in levels]

    states = torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    options = {"ranker": Eye(), "training_images": training_images, "check": check}
    drawn = choose(draw, states, states * 0, [5, 6, 7], num_candidates=3, max_retries=2, **options)  # type: ignore[arg-type]
    levels = [np.asarray(one.picture)[0, 0, 0] for one in drawn]
    # 251 is a copy, 252 too light; who wants nothing keeps the first.
    assert levels == [250, 201, 102]
    assert asked[0] == ([0, 1, 2], [5, 6, 7])
    assert drawn[2].seed == 7
    assert drawn[0].seed == asked[2][1][0] != 5
    assert len(asked) == 3, "nothing was left to try"

    asked.clear()
    refuse = {**options, "check": lambda pictures: ["no"] * len(pictures)}
    (none,) = choose(draw, states[:1], states[:1], [5], num_candidates=1, max_retries=2, **refuse)  # type: ignore[arg-type]
    assert none.picture is None
    assert none.refused == "no"
    assert len(asked) == 3
    copy = choose(
        lambda places, seeds: [_plain(251)],
        states[:1],
        states[:1],
        [5],
        num_candidates=1,
        max_retries=1,
        **options,
    )  # type: ignore[arg-type]
    assert copy[0].refused == COPY


def test_what_may_not_be_shown_is_not_drawn(sampler: ImageSampler) -> None:
    refusing = replace(sampler, check=lambda pictures: ["shows a hat"] * len(pictures))
    with pytest.raises(VitrineError, match="may be shown: shows a hat"):
        refusing.sample([(None, sampler.catalog.items["item_id"][0])], replace(FEW, max_retries=1))
    with pytest.raises(VitrineError, match="num_candidates is 0"):
        sampler.sample([(None, None)], replace(FEW, num_candidates=0))


@pytest.mark.parametrize("mode", ["concept", "creative"])
def test_whatever_is_drawn_carries_the_mark(
    sampler: ImageSampler, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generate.image.sampler.embed_watermark", lambda pixels: pixels * 0)
    item = next(n for n in range(80) if sampler.catalog.item_image(n, 32) is not None)
    asked = (None, sampler.catalog.items["item_id"][item])
    pixels = np.asarray(sampler.sample([asked], replace(FEW, mode=mode))[0])
    black = (pixels == 0).all(axis=-1)
    assert black.all() if mode == "concept" else black.any()


def test_candidates_are_compared_in_the_recommenders_space(sampler: ImageSampler) -> None:
    catalog = sampler.catalog
    user, item = str(catalog.user_ids[0]), catalog.items["item_id"][3]
    one, several = (replace(FEW, num_candidates=number) for number in (1, 3))
    first, best = (sampler.sample([(user, item)], config)[0] for config in (one, several))

    def liked(picture: Image.Image) -> float:
        state = sampler.ranker.user_states([catalog.interactions.history(0)])
        wanted = state + torch.from_numpy(np.array(sampler.ranker.item_vectors[3]))
        return float((sampler.ranker.image_vectors([np.asarray(picture)]) * wanted).sum())

    assert liked(best) >= liked(first)
    vectors = sampler.ranker.image_vectors([np.asarray(first), np.asarray(best)])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_a_safety_model_refuses_by_its_labels(tmp_path: Path) -> None:
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, id2label={0: "SFW", 1: "NSFW"}, label2id={"SFW": 0, "NSFW": 1},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([0.0, 2.0])
    model.save_pretrained(tmp_path / "strict")
    settings = '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    (tmp_path / "strict" / "preprocessor_config.json").write_text(settings)
    name = str(tmp_path / "strict")
    assert (
        SafetyChecker(name, ["nsfw", "porn"])([_plain(3)] * 2)
        == ["called nsfw by the safety model"] * 2
    )
    assert SafetyChecker(name, ["nsfw"], above=0.95)([_plain(3)]) == [""]
    with pytest.raises(VitrineError, match="knows none of gore; it tells sfw, nsfw"):
        SafetyChecker(name, ["gore"])
    with pytest.raises(VitrineError, match=r"safety_model .* cannot be loaded"):
        SafetyChecker(str(tmp_path / "nothing"), ["nsfw"])


def test_thumbnails_find_the_pictures_that_were_learned_from(sampler: ImageSampler) -> None:
    codec = sampler.pipeline.codec
    found = (sampler.catalog.item_image(item, codec.frames[0]) for item in range(12))
    real = torch.from_numpy(np.stack([picture for picture in found if picture is not None]))
    pictures = codec.decode(codec.encode(real)).numpy()  # all that a generator can draw
    assert sampler.training_images.near_copies(list(pictures)).all()
    assert not sampler.training_images.near_copies(list(255 - pictures)).any()
    known = sampler.training_images.thumbnails[:50]
    apart = nearest_distances(np.array(known), known, leave_out=np.arange(50))
    by_hand = np.square(known[:, None].astype(float) - known[None]).mean(2) ** 0.5
    np.fill_diagonal(by_hand, np.inf)
    np.testing.assert_allclose(apart, by_hand.min(1), atol=1e-5)


def test_scores_and_the_contact_sheet(generator: Path, tmp_path: Path) -> None:
    asked = ImageScoreConfig(
        num_users=24, num_contact_sheet_users=2, classifier_steps=20, sampling=FEW
    )
    folder = run_image_scores(generator, asked, tmp_path / "scores")
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["people"] == 24
    assert scores["measures"]["Likeness to what they bought before"]["people"] > 20
    assert 0 <= scores["encoder_metrics"]["identified"]["share"]["value"] <= 1
    assert scores["encoder_metrics"]["kid"] > scores["encoder_metrics"]["kid_real"]
    assert scores["classifier_accuracy"]
    assert "told from among 20 people" in describe_scores(scores)
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    with pytest.raises(VitrineError, match="num_users is 1"):
        run_image_scores(generator, replace(asked, num_users=1), tmp_path / "wrong")
    with pytest.raises(VitrineError, match="image_encoder 'nothing-here' cannot be loaded"):
        run_image_scores(
            generator, replace(asked, image_encoder="nothing-here"), tmp_path / "wrong"
        )


def test_pictures_are_compared_with_none_that_the_judge_learned_from() -> None:
    from types import SimpleNamespace

    from generate.image.attribute_classifier import train_attribute_classifier
    from generate.image.score import reference_items, score_with_encoder

    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 255, (40, SIZE, SIZE, 3), dtype=np.uint8)
    kinds = [("wide", "tall")[item % 2] for item in range(40)]
    table = pa.table({"item_id": [str(item) for item in range(40)], "stands": kinds})
    catalog: Any = SimpleNamespace(
        name="shop",
        num_items=40,
        columns=table,
        roles={},
        item_image=lambda item, size: drawn[item],
        user_ids=np.array(["a", "b", "c"]),
    )
    people = SimpleNamespace(
        users=np.arange(3),
        histories=[np.arange(n, n + 4) for n in (0, 4, 8)],
        items=np.array([12, 13, 14]),
    )
    asked = np.array([15, 16, 17])
    compared = np.array(reference_items(people, asked))
    assert compared.tolist() == list(range(18))
    judge, _ = train_attribute_classifier(catalog, 2, progress=False, without=compared)
    assert not set(judge.learned) & set(compared)
    assert len(judge.learned) == 22
    pictures = {
        condition: [Image.fromarray(drawn[item]) for item in asked] for condition in CONDITIONS
    }
    judged, _ = score_with_encoder(pictures, asked, catalog, people, judge)
    assert judged["reference_pictures"] == 18
    judge.learned = np.arange(10)
    judged, _ = score_with_encoder(pictures, asked, catalog, people, judge)
    assert (judged["real_pictures"], judged["reference_pictures"]) == (18, 8)
    most, _ = train_attribute_classifier(catalog, 2, progress=False, without=np.arange(39))
    assert len(most.learned) == 20, "half of the pictures are left to learn from"


def test_the_judge_sees_colours_that_no_label_names() -> None:
    """Labels say how a thing stands; it may also be red or blue."""
    rng = np.random.default_rng(0)
    pixels = np.full((80, SIZE, SIZE, 3), 240, np.uint8)
    tall, red = rng.integers(2, size=(2, 80))
    for picture, stands, colour in zip(pixels, tall, red, strict=True):
        where = (slice(None), slice(24, 40)) if stands else (slice(24, 40), slice(None))
        picture[where] = (200, 60, 60) if colour else (60, 60, 200)
    torch.manual_seed(0)
    judge = ImageAttributeClassifier({"stands": ["wide", "tall"]}, width=8)
    _fit(judge, pixels, tall[:, None], 150, rng, progress=False)
    features = judge.features(list(pixels))
    assert judge.read(features, "stands") == [("wide", "tall")[stands] for stands in tall]
    likeness = centred(features, features) @ centred(features, features).T
    same_kind = torch.from_numpy(tall[:, None] == tall)
    same_colour = torch.from_numpy(red[:, None] == red)
    assert (
        likeness[same_kind & same_colour].mean() - likeness[same_kind & ~same_colour].mean() > 0.5
    )


def test_a_saved_judge_reads_as_it_did(tmp_path: Path) -> None:
    """Its attributes come back from the config in another order."""
    judge = ImageAttributeClassifier(
        {"tone": ["dark", "light"], "shape": ["wide", "tall", "round"]}, width=8
    )
    judge.save_pretrained(tmp_path)
    read = ImageAttributeClassifier.from_pretrained(tmp_path)
    features = torch.randn(40, 32)
    for attribute in judge.labels:
        assert read.read(features, attribute) == judge.read(features, attribute)


def test_distances_between_sets_of_features() -> None:
    draw = torch.Generator().manual_seed(0)
    one, two = torch.randn(400, 8, generator=draw), torch.randn(400, 8, generator=draw)
    assert abs(kernel_inception_distance(one, two)) < 0.05
    assert kernel_inception_distance(one, two + 1) > 0.5
    assert frechet_inception_distance(one, one) == pytest.approx(0, abs=1e-6)
    shifted = frechet_inception_distance(one, one + 2)
    assert shifted == pytest.approx(8 * 4, rel=1e-6)
    wide = frechet_inception_distance(one, 3 * one)
    spread = torch.cov(one.double().T).trace()
    assert wide == pytest.approx(
        float(spread * 4 + (2 * one.double().mean(0)).square().sum()), rel=1e-6
    )
    units = torch.nn.functional.normalize(one, dim=-1)
    assert diversity(units) == pytest.approx(1, abs=0.02)
    assert diversity(units[:1].expand(5, -1)) == pytest.approx(0, abs=1e-5)


def test_a_picture_tells_whose_it_is() -> None:
    people = torch.nn.functional.normalize(torch.randn(60, 16), dim=-1)
    users = np.arange(60)
    assert identified(people, people, users, 20).mean() == 1
    assert identified(people.roll(1, 0), people, users, 20).mean() < 0.2
    assert identified(people * 0, people, users, 20).mean() == pytest.approx(1 / 20)
