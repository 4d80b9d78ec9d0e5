"""Evaluates an image-generator artifact: writes its scores and a contact sheet of its images."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.splits import load_split
from generate.conditioning import CONDITIONS
from generate.evaluation.ground_truth import GroundTruth, load_ground_truth
from generate.evaluation.intervals import Figures
from generate.evaluation.users import EvaluationUsers, sample_users
from generate.image.attribute_classifier import (
    ImageAttributeClassifier,
    train_attribute_classifier,
)
from generate.image.config import ImageScoreConfig
from generate.image.contact_sheet import contact_sheet
from generate.image.encoder_metrics import reference_items, score_with_encoder
from generate.image.image_encoder import PretrainedImageEncoder
from generate.image.loading import load_image_sampler
from generate.image.sampler import ImageSampler
from generate.image.score import sample_siblings, sample_under_conditions, score_pixels
from generate.pseudonyms import user_key
from pretrain.devices import Compute, on_cpu

SCORES_FILE, SHEET_FILE, CLASSIFIER = "scores.json", "contact-sheet.png", "classifier"
MINIMUM = {"num_users": 2, "num_contact_sheet_users": 1, "classifier_steps": 1}
"""Setting → least value with which an evaluation works."""


def run_image_scores(
    folder: Path, config: ImageScoreConfig, output: Path, compute: Compute | None = None
) -> Path:
    """Scores an image-generator artifact on the test targets of its own catalog.

    Writes `scores.json` (`score_pixels` and `score_with_encoder`), `contact-sheet.png` and, where one was
    trained, the attribute classifier; returns `output`. `compute`: device and precision of the generator;
    None: float32 on the CPU.
    """
    for name, least in MINIMUM.items():
        if getattr(config, name) < least:
            raise VitrineError(f"{name} is {getattr(config, name)}; give {least} or more.")
    artifact = open_artifact(folder, kind="image-generator")
    settings = artifact.manifest["config"]
    catalog, split = load_split(
        CatalogConfig(**settings["catalog"]), SplitConfig(**settings["split"])
    )
    sampler = load_image_sampler(artifact, compute=compute)
    truth = load_ground_truth(config.ground_truth, catalog) if config.ground_truth else None
    users = sample_users(sampler.ranker, catalog, split, config.num_users, config.seed)
    items = sample_siblings(sampler.ranker, catalog, users.items, config.seed)
    held_out = reference_items(users, items)
    encoder, accuracy = build_image_encoder(config, catalog, held_out, compute)
    with write_artifact(
        output,
        kind="image-scores",
        config=asdict(config),
        parents={"generator": artifact.path},
        catalog=catalog.fingerprint,
        user_key=user_key().fingerprint,
        metrics=(compute or on_cpu()).metrics,
    ) as staging:
        scores = score_sampler(sampler, users, items, config, encoder, truth)
        scores["classifier_accuracy"] = accuracy
        (staging.path / SCORES_FILE).write_text(json.dumps(scores, indent=1) + "\n")
        shown = users.first(config.num_contact_sheet_users)
        sheet = contact_sheet(sampler, shown, config)
        user_ids = [str(catalog.user_ids[user]) for user in shown.users]
        content = sampler.signed_contact_sheet(sheet, user_ids, config.sampling)
        (staging.path / SHEET_FILE).write_bytes(content)
        if isinstance(encoder, ImageAttributeClassifier):
            encoder.save_pretrained(staging.path / CLASSIFIER)
    return output


def build_image_encoder(
    config: ImageScoreConfig,
    catalog: Catalog,
    held_out: list[int],
    compute: Compute | None = None,
) -> tuple[PretrainedImageEncoder | ImageAttributeClassifier, dict[str, float]]:
    """Loads the encoder that `config` names, or trains an attribute classifier; its accuracy by attribute."""
    if config.image_encoder:
        return PretrainedImageEncoder(config.image_encoder, compute), {}
    return train_attribute_classifier(
        catalog, config.classifier_steps, config.seed, held_out=np.array(held_out)
    )


def score_sampler(
    sampler: ImageSampler,
    users: EvaluationUsers,
    items: np.ndarray,
    config: ImageScoreConfig,
    encoder: PretrainedImageEncoder | ImageAttributeClassifier,
    truth: GroundTruth | None,
) -> Figures:
    """Samples images under each condition and scores them by rules on pixels and by the encoder."""
    with Progress(transient=True) as progress:
        task = progress.add_task("Sampling images", total=len(CONDITIONS) * len(users))
        images = sample_under_conditions(
            sampler,
            users,
            items,
            config.sampling,
            config.seed,
            lambda done: progress.advance(task, done),
        )
    catalog, readings = sampler.catalog, truth.image_readings() if truth else {}
    by_pixels = score_pixels(images, catalog, users, readings)
    by_encoder = score_with_encoder(images, items, catalog, users, encoder, config.seed)
    copies = sampler.training_images.near_copies([np.asarray(one) for one in images["own"]])
    return {
        "num_users": by_pixels["num_users"],
        "metrics": {**by_pixels["metrics"], **by_encoder.metrics},  # type: ignore[dict-item]
        "encoder_metrics": by_encoder.overall | {"near_copies": float(copies.mean())},
    }


def describe_scores(scores: Mapping[str, Any]) -> str:
    """Returns the main figures as lines of text."""
    return "\n".join(_lines(scores))


def _lines(scores: Mapping[str, Any]) -> Iterator[str]:
    yield f"{scores['num_users']:,} users"
    for name, found in scores["metrics"].items():
        means = ", ".join(f"{one} {found[one]['value']:.3f}" for one in CONDITIONS)
        gap = found["contrast"]
        interval = f"{gap['value']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}]"
        yield f"{name}: {means}; {found['contrast_name']} {interval}"
    overall = scores["encoder_metrics"]
    if "identified" in overall:
        hits = overall["identified"]
        yield (
            f"users identified among {hits['num_candidates']} by their image: "
            f"{hits['accuracy']['value']:.3f} (chance {hits['chance']:.3f})"
        )
    if "kid" in overall:
        yield (
            f"KID {overall['kid']:.4f} (between real halves {overall['kid_real']:.4f}), "
            f"FID {overall['fid']:.2f} ({overall['fid_real']:.2f}), to {overall['reference_images']} "
            "images that the encoder was not trained on"
        )
    yield f"diversity {overall['diversity']:.3f} (real {overall['diversity_real']:.3f})"
    yield f"near-copies of training images: {overall['near_copies']:.3f}"
    for name, share in scores.get("classifier_accuracy", {}).items():
        yield f"accuracy of the attribute classifier on held-out images, {name}: {share:.3f}"
