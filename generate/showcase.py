"""Dresses the window: words and pictures for a few people to look at, scores over many to believe.

Every comparison holds all else equal: the same item, the same seed; told the person, told somebody
else, told nobody.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.splits import load_split
from finetune.ranker import load_ranker
from generate.config import ShowcaseConfig
from generate.image.best_of_n import SampledImage
from generate.image.near_copies import TrainingImageIndex
from generate.image.sampler import ImageSampler, load_defaults, load_pipeline
from generate.image.score import score_images
from generate.pseudonyms import opaque_id, user_key
from generate.text.model import TextGenerator
from generate.text.prompts import Prompts
from generate.text.score import People, choose_people, score_texts
from generate.truth import Truth, demo_truth
from pretrain.work import learned_request

HISTORY_SHOWN = 7
RECOMMENDED_SHOWN = 5
TOLD = ("own", "swapped", "none")


def run_showcase(config: ShowcaseConfig, output: Path) -> Path:
    """Makes the gallery and the scores; returns the artifact's folder.

    `showcase.json` holds `people` (pseudonyms, rows of items, what was written) and `scores`; the
    pictures lie beside it, signed, as PPP-C-own.png, …-swapped.png, …-none.png. Where nothing that was
    drawn may be shown, the file is missing and `refused` says why.
    """
    catalog, split = load_split(config.catalog, config.split)
    ranker = load_ranker(config.recommender, catalog)
    text = open_artifact(Path(config.text), kind="text-generator")
    image = open_artifact(Path(config.image), kind="image-generator")
    writer = TextGenerator.from_pretrained(text.path).eval()
    sampler = ImageSampler(
        load_pipeline(image.path),
        catalog,
        ranker,
        load_defaults(image.path),
        image.hash,
        TrainingImageIndex.load(image.path),
    )
    truth = demo_truth(config.truth, catalog) if config.truth else None
    people = choose_people(ranker, catalog, split, config.scored_people, config.seed)
    parents = {"recommender": config.recommender, "text": text.path, "image": image.path}
    with write_artifact(
        output,
        kind="showcase",
        config=asdict(config),
        parents=parents,
        catalog=catalog.fingerprint,
        split=split.describe(),
        user_key=user_key().fingerprint,
        request=learned_request("showcase", asdict(config), parents, catalog.fingerprint),
    ) as staging:
        with Progress(transient=True) as progress:
            stories = make_gallery(config, people, writer, sampler, staging.path, truth)
            task = progress.add_task("Scoring pictures", total=3 * len(people.users))
            images = score_images(
                sampler.pipeline,
                ranker,
                catalog,
                people,
                sampler.defaults,
                readings=truth.picture_readings() if truth else {},
                seed=config.seed,
                progress=lambda done: progress.advance(task, done),
            )
        words = score_texts(
            writer,
            ranker,
            catalog,
            split,
            readings=truth.text_readings() if truth else {},
            people=config.scored_people,
            written=min(config.scored_people, 200),
            seed=config.seed,
        )
        content = {"people": stories, "scores": {"images": images, "words": words}}
        (staging.path / "showcase.json").write_text(json.dumps(content, indent=1))
    return output


def make_gallery(
    config: ShowcaseConfig,
    people: People,
    writer: TextGenerator,
    sampler: ImageSampler,
    folder: Path,
    truth: Truth | None,
) -> list[dict[str, Any]]:
    """The first people among the scored: their history, list, and creations."""
    catalog, ranker = sampler.catalog, sampler.ranker
    task = "review" if "review" in writer.tasks else writer.tasks[0]
    prompts = Prompts(catalog, ranker, writer.history_items)
    stories = []
    for place in range(min(config.people, len(people.users))):
        history = people.histories[place]
        user = str(catalog.user_ids[int(people.users[place])])
        partner = str(catalog.user_ids[int(people.users[people.partners[place]])])
        drawn_for = {"own": user, "swapped": partner, "none": None}
        ranked = [item for item, _ in ranker.rank(np.asarray(history), RECOMMENDED_SHOWN)]
        creations = []
        for number, item in enumerate(_items_to_dress(ranked, catalog, config, place)):
            words, pictures = _dress(people, place, item, prompts, writer, task, sampler)
            name, item_id = f"{place:03}-{number}", str(catalog.items[item]["item_id"])
            for told, drawn in pictures.items():
                if drawn.picture is not None:
                    content = sampler.to_signed_png(drawn.picture, (drawn_for[told], item_id))
                    (folder / f"{name}-{told}.png").write_bytes(content)
            refused = {told: one.refused for told, one in pictures.items() if one.refused}
            creations.append({"item": item, "words": words, "files": name, "refused": refused})
        stories.append(
            {
                "user": opaque_id(user),
                "partner": opaque_id(partner),
                "history": [int(item) for item in history[-HISTORY_SHOWN:]],
                "recommended": ranked,
                "bought_next": int(people.items[place]),
                "creations": creations,
                "task": task,
                "note": truth.note(user) if truth else "",
            }
        )
    return stories


def _items_to_dress(
    ranked: list[int], catalog: Catalog, config: ShowcaseConfig, place: int
) -> list[int]:
    """The best recommendation, then items drawn at random, which the person's taste must carry."""
    rng = np.random.default_rng([config.seed, place])
    drawn = rng.permutation(catalog.num_items)[: config.creations]
    return [ranked[0], *(int(item) for item in drawn)][: config.creations]


def _dress(
    people: People,
    place: int,
    item: int,
    prompts: Prompts,
    writer: TextGenerator,
    task: str,
    sampler: ImageSampler,
) -> tuple[dict[str, str], dict[str, SampledImage]]:
    """One item three ways: words and a picture for each of TOLD."""
    states = torch.stack([people.states[told][place] for told in TOLD])
    pasts = [people.pasts[told][place] for told in TOLD]
    items, seeds = [item] * len(TOLD), [place] * len(TOLD)
    conditions = prompts.make(states, pasts, items)
    texts = writer.write(conditions, task, seeds=seeds)
    pictures = sampler.sample_rows(states, items, seeds, sampler.defaults)
    return dict(zip(TOLD, texts, strict=True)), dict(zip(TOLD, pictures, strict=True))
