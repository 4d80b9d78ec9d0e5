"""The scores of an image generator, and a sheet on which its pictures stand side by side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import Progress

from catalog.artifacts import open_artifact, write_artifact
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.splits import load_split
from generate.conditioning import CONDITIONS
from generate.evaluation.ground_truth import load_ground_truth
from generate.evaluation.users import EvaluationUsers, sample_users
from generate.image.attribute_classifier import (
    ImageEncoder,
    PretrainedImageEncoder,
    train_attribute_classifier,
)
from generate.image.config import ImageScoreConfig
from generate.image.sampler import ImageSampler, load_image_sampler
from generate.image.score import reference_items, sample_siblings, score_images
from generate.pseudonyms import user_key

SCORES_FILE, SHEET_FILE, JUDGE = "scores.json", "contact-sheet.png", "judge"
HISTORY_SHOWN = 4
CELL, GAP, HEAD = 128, 6, 22
"""Pixels: a picture's longer side on the sheet, between pictures, and above each row."""


def run_image_scores(folder: Path, config: ImageScoreConfig, output: Path) -> Path:
    """Scores an image-generator artifact on its own shop's test targets; writes `scores.json` (see
    `score_pictures`), `contact-sheet.png` and, where one was learned, the judge."""
    for name, least in (("num_users", 2), ("num_contact_sheet_users", 1), ("classifier_steps", 1)):
        if getattr(config, name) < least:
            raise VitrineError(f"{name} is {getattr(config, name)}; give {least} or more.")
    artifact = open_artifact(folder, kind="image-generator")
    settings = artifact.manifest["config"]
    catalog, split = load_split(
        CatalogConfig(**settings["catalog"]), SplitConfig(**settings["split"])
    )
    sampler = load_image_sampler(artifact.path)
    truth = load_ground_truth(config.ground_truth, catalog) if config.ground_truth else None
    people = sample_users(sampler.ranker, catalog, split, config.num_users, config.seed)
    eyes: ImageEncoder
    checked: dict[str, float] = {}
    if config.image_encoder:
        eyes = PretrainedImageEncoder(config.image_encoder)
    else:
        items = sample_siblings(sampler.ranker, catalog, people.items, config.seed)
        compared = np.array(reference_items(people, items))
        eyes, checked = train_attribute_classifier(
            catalog, config.classifier_steps, config.seed, without=compared
        )
    with write_artifact(
        output,
        kind="image-scores",
        config=asdict(config),
        parents={"generator": artifact.path},
        catalog=catalog.fingerprint,
        user_key=user_key().fingerprint,
    ) as staging:
        with Progress(transient=True) as progress:
            task = progress.add_task("Drawing", total=len(CONDITIONS) * len(people.users))
            scores = score_images(
                sampler.pipeline,
                sampler.ranker,
                catalog,
                people,
                config.sampling,
                readings=truth.image_readings() if truth else {},
                eyes=eyes,
                training_images=sampler.training_images,
                seed=config.seed,
                progress=lambda done: progress.advance(task, done),
            )
        scores["classifier_accuracy"] = checked
        (staging.path / SCORES_FILE).write_text(json.dumps(scores, indent=1) + "\n")
        shown = people.first(config.num_contact_sheet_users)
        sheet = contact_sheet(sampler, shown, config)
        users = [str(catalog.user_ids[user]) for user in shown.users]
        (staging.path / SHEET_FILE).write_bytes(
            sampler.signed_contact_sheet(sheet, users, config.sampling)
        )
        if not config.image_encoder:
            eyes.save_pretrained(staging.path / JUDGE)  # pyright: ignore[reportAttributeAccessIssue]
    return output


def contact_sheet(
    sampler: ImageSampler, people: EvaluationUsers, config: ImageScoreConfig
) -> Image.Image:
    """A row for each person: what they took last, the item asked for, then concepts of it for them, for a
    stranger and for nobody, and the item itself before a ground made for them."""
    items = sample_siblings(sampler.ranker, sampler.catalog, people.items, config.seed).tolist()
    seeds = [config.seed] * len(items)
    columns: list[Sequence[Image.Image | None]] = [
        *([_picture(sampler, row) for row in rows] for rows in _last_taken(people)),
        [_picture(sampler, item) for item in items],
    ]
    names = [*["took"] * HISTORY_SHOWN, "the item"]
    for told, name in zip(CONDITIONS, ("for them", "for a stranger", "for nobody"), strict=True):
        drawn = sampler.sample_rows(people.states[told], items, seeds, config.sampling)
        columns.append([one.picture for one in drawn])
        names.append(name)
    creative = replace(config.sampling, mode="creative")
    around = sampler.sample_rows(people.states["own"], items, seeds, creative)
    columns.append([one.picture for one in around])
    names.append("ground for them")
    return _sheet(columns, names)


def _last_taken(people: EvaluationUsers) -> Iterator[list[int | None]]:
    for back in range(HISTORY_SHOWN, 0, -1):
        yield [int(taken[-back]) if len(taken) >= back else None for taken in people.histories]


def _picture(sampler: ImageSampler, item: int | None) -> Image.Image | None:
    found = (
        None if item is None else sampler.catalog.item_image(item, sampler.pipeline.codec.frames[0])
    )
    return None if found is None else Image.fromarray(found)


def _sheet(columns: Sequence[Sequence[Image.Image | None]], names: Sequence[str]) -> Image.Image:
    number = len(columns[0])
    tallest = max(
        CELL * picture.height // max(picture.size)
        for column in columns
        for picture in column
        if picture is not None
    )
    width = GAP + len(columns) * (CELL + GAP)
    sheet = Image.new("RGB", (width, HEAD + number * (tallest + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (column, name) in enumerate(zip(columns, names, strict=True)):
        left = GAP + place * (CELL + GAP)
        pen.text((left + CELL // 2, HEAD // 2), name, fill="black", anchor="mm")
        for row, picture in enumerate(column):
            if picture is None:
                continue
            scale = min(CELL / picture.width, tallest / picture.height)
            size = round(picture.width * scale), round(picture.height * scale)
            sheet.paste(
                picture.resize(size, Image.Resampling.LANCZOS),
                (left + (CELL - size[0]) // 2, HEAD + row * (tallest + GAP)),
            )
    return sheet


def describe_scores(scores: Mapping[str, Any]) -> str:
    """The main figures as lines to read."""
    return "\n".join(_lines(scores))


def _lines(scores: Mapping[str, Any]) -> Iterator[str]:
    yield f"{scores['people']:,} people"
    for name, found in scores["measures"].items():
        told = ", ".join(f"{one} {found[one]['value']:.3f}" for one in CONDITIONS)
        gap = found["contrast"]
        interval = f"{gap['value']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}]"
        yield f"{name}: {told}; {found['contrast_name']} {interval}"
    judged = scores.get("encoder_metrics", {})
    if "identified" in judged:
        whose = judged["identified"]
        yield (
            f"told from among {whose['num_candidates']} people by their picture: "
            f"{whose['accuracy']['value']:.3f} (chance {whose['chance']:.3f})"
        )
    if "kid" in judged:
        yield (
            f"KID {judged['kid']:.4f} (real halves {judged['kid_real']:.4f}), FID {judged['fid']:.2f} "
            f"({judged['fid_real']:.2f}), to {judged['reference_pictures']} pictures that the judge did "
            "not learn from"
        )
    if judged:
        yield f"diversity {judged['diversity']:.3f} ({judged['diversity_real']:.3f})"
    if "near_copies" in judged:
        yield f"near copies of pictures it learned from: {judged['near_copies']:.3f}"
    for name, share in scores.get("classifier_accuracy", {}).items():
        yield f"the judge names the {name} of held-out pictures: {share:.3f}"
