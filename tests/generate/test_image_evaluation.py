"""Image scores, the contact sheet, the attribute classifier, and metrics of features."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from catalog.errors import VitrineError
from generate.conditioning import CONDITIONS
from generate.image.attribute_classifier import SIZE, ImageAttributeClassifier, _fit
from generate.image.config import (
    ImageScoreConfig,
)
from generate.image.feature_metrics import (
    diversity,
    frechet_inception_distance,
    identified,
    kernel_inception_distance,
    standardize,
)
from generate.image.report import describe_scores, run_image_scores
from tests.generate.small_image_generator import FEW, small_image_generator


@pytest.fixture(scope="module")
def generator(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_image_generator(demo_world, tmp_path_factory.mktemp("images"))


def test_scores_and_the_contact_sheet(generator: Path, tmp_path: Path) -> None:
    config = ImageScoreConfig(
        num_users=24, num_contact_sheet_users=2, classifier_steps=20, sampling=FEW
    )
    folder = run_image_scores(generator, config, tmp_path / "scores")
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["num_users"] == 24
    assert scores["metrics"]["Similarity to earlier purchases"]["num_users"] > 20
    assert 0 <= scores["encoder_metrics"]["identified"]["accuracy"]["value"] <= 1
    assert scores["encoder_metrics"]["kid"] > scores["encoder_metrics"]["kid_real"]
    assert scores["classifier_accuracy"]
    assert "users identified among 20" in describe_scores(scores)
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    with pytest.raises(VitrineError, match="num_users is 1"):
        run_image_scores(generator, replace(config, num_users=1), tmp_path / "wrong")
    with pytest.raises(VitrineError, match="image_encoder 'nothing-here' cannot be loaded"):
        run_image_scores(
            generator, replace(config, image_encoder="nothing-here"), tmp_path / "wrong"
        )


def test_reference_images_are_none_that_the_classifier_was_trained_on() -> None:
    from types import SimpleNamespace

    from generate.image.attribute_classifier import train_attribute_classifier
    from generate.image.encoder_metrics import reference_items, score_with_encoder

    rng = np.random.default_rng(0)
    sampled = rng.integers(0, 255, (40, SIZE, SIZE, 3), dtype=np.uint8)
    kinds = [("wide", "tall")[item % 2] for item in range(40)]
    table = pa.table({"item_id": [str(item) for item in range(40)], "stands": kinds})
    catalog: Any = SimpleNamespace(
        name="shop",
        num_items=40,
        columns=table,
        roles={},
        item_image=lambda item, size: sampled[item],
        user_ids=np.array(["a", "b", "c"]),
    )
    evaluated = SimpleNamespace(
        users=np.arange(3),
        histories=[np.arange(n, n + 4) for n in (0, 4, 8)],
        items=np.array([12, 13, 14]),
    )
    condition_items = np.array([15, 16, 17])
    compared = np.array(reference_items(evaluated, condition_items))
    assert compared.tolist() == list(range(18))
    classifier, _ = train_attribute_classifier(catalog, 2, progress=False, held_out=compared)
    assert not set(classifier.training_items) & set(compared)
    assert len(classifier.training_items) == 22
    images = {
        condition: [Image.fromarray(sampled[item]) for item in condition_items]
        for condition in CONDITIONS
    }
    scores = score_with_encoder(images, condition_items, catalog, evaluated, classifier)
    assert scores.overall["reference_images"] == 18
    classifier.training_items = np.arange(10)
    overall = score_with_encoder(images, condition_items, catalog, evaluated, classifier).overall
    assert (overall["real_images"], overall["reference_images"]) == (18, 8)
    most, _ = train_attribute_classifier(catalog, 2, progress=False, held_out=np.arange(39))
    assert len(most.training_items) == 20, "half of the images are left to train on"


def test_the_classifier_has_features_of_colours_that_no_label_names() -> None:
    """Labels say how a thing stands; it may also be red or blue."""
    rng = np.random.default_rng(0)
    pixels = np.full((80, SIZE, SIZE, 3), 240, np.uint8)
    tall, red = rng.integers(2, size=(2, 80))
    for image, stands, colour in zip(pixels, tall, red, strict=True):
        where = (slice(None), slice(24, 40)) if stands else (slice(24, 40), slice(None))
        image[where] = (200, 60, 60) if colour else (60, 60, 200)
    torch.manual_seed(0)
    classifier = ImageAttributeClassifier({"stands": ["wide", "tall"]}, width=8)
    _fit(classifier, pixels, tall[:, None], 150, rng, progress=False)
    features = classifier.features(list(pixels))
    assert classifier.classify(features, "stands") == [("wide", "tall")[stands] for stands in tall]
    likeness = standardize(features, features) @ standardize(features, features).T
    same_kind = torch.from_numpy(tall[:, None] == tall)
    same_colour = torch.from_numpy(red[:, None] == red)
    assert (
        likeness[same_kind & same_colour].mean() - likeness[same_kind & ~same_colour].mean() > 0.5
    )


def test_a_saved_classifier_classifies_as_before(tmp_path: Path) -> None:
    """Its attributes come back from the config in another order."""
    classifier = ImageAttributeClassifier(
        {"tone": ["dark", "light"], "shape": ["wide", "tall", "round"]}, width=8
    )
    classifier.save_pretrained(tmp_path)
    loaded = ImageAttributeClassifier.from_pretrained(tmp_path)
    features = torch.randn(40, 32)
    for attribute in classifier.labels:
        assert loaded.classify(features, attribute) == classifier.classify(features, attribute)


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


def test_an_image_identifies_its_user() -> None:
    evaluated = torch.nn.functional.normalize(torch.randn(60, 16), dim=-1)
    users = np.arange(60)
    assert identified(evaluated, evaluated, users, 20).mean() == 1
    assert identified(evaluated.roll(1, 0), evaluated, users, 20).mean() < 0.2
    assert identified(evaluated * 0, evaluated, users, 20).mean() == pytest.approx(1 / 20)
