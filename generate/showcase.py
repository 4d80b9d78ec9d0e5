"""Dresses the window: words and pictures for a few people to look at, scores over many to believe.

Every comparison holds all else equal: the same item, the same seed; told the person, told somebody
else, told nobody.
"""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.splits import load_split
from finetune.shop import Shop, load_shop
from generate.config import ShowcaseConfig
from generate.image.config import DrawConfig
from generate.image.painter import load_defaults, load_pipeline
from generate.image.pipeline import PersonalImagePipeline, drawing
from generate.image.score import score_pictures
from generate.text.model import TextGenerator
from generate.text.prompts import Prompts
from generate.text.score import People, choose_people, score_texts
from generate.truth import Truth, demo_truth

HISTORY_SHOWN = 7
RECOMMENDED_SHOWN = 5
TOLD = ("own", "swapped", "none")


def run_showcase(config: ShowcaseConfig, output: Path) -> Path:
    """Makes the gallery and the scores; returns the artifact's folder.

    `showcase.json` holds `people` (ids, rows of items, what was written) and `scores`; the pictures
    lie beside it as PPP-C-own.png, …-swapped.png, …-none.png.
    """
    catalog, split = load_split(config.catalog, config.split)
    shop = load_shop(config.recommender, catalog)
    text = open_artifact(Path(config.text), kind="text-generator")
    image = open_artifact(Path(config.image), kind="image-generator")
    writer = TextGenerator.from_pretrained(text.path).eval()
    painter = load_pipeline(image.path)
    draw = load_defaults(image.path)
    truth = demo_truth(config.truth, catalog) if config.truth else None
    people = choose_people(shop, catalog, split, config.scored_people, config.seed)
    with write_artifact(
        output,
        kind="showcase",
        config=asdict(config),
        parents={"recommender": config.recommender, "text": text.path, "image": image.path},
        catalog=catalog.fingerprint,
        split=split.describe(),
    ) as staging:
        with Progress(transient=True) as progress:
            stories = make_gallery(
                config, catalog, shop, people, writer, painter, draw, staging.path, truth
            )
            task = progress.add_task("Scoring pictures", total=3 * len(people.users))
            pictures = score_pictures(
                painter,
                shop,
                catalog,
                people,
                draw,
                readings=truth.picture_readings() if truth else {},
                seed=config.seed,
                progress=lambda done: progress.advance(task, done),
            )
        words = score_texts(
            writer,
            shop,
            catalog,
            split,
            readings=truth.text_readings() if truth else {},
            people=config.scored_people,
            written=min(config.scored_people, 200),
            seed=config.seed,
        )
        content = {"people": stories, "scores": {"pictures": pictures, "words": words}}
        (staging.path / "showcase.json").write_text(json.dumps(content, indent=1))
    return output


def make_gallery(
    config: ShowcaseConfig,
    catalog: Catalog,
    shop: Shop,
    people: People,
    writer: TextGenerator,
    painter: PersonalImagePipeline,
    draw: DrawConfig,
    folder: Path,
    truth: Truth | None,
) -> list[dict[str, Any]]:
    """The first people among the scored: their history, list, and creations."""
    task = "review" if "review" in writer.tasks else writer.tasks[0]
    prompts = Prompts(catalog, shop, writer.history_items)
    stories = []
    for place in range(min(config.people, len(people.users))):
        user, history = int(people.users[place]), people.histories[place]
        ranked = [item for item, _ in shop.rank(np.asarray(history), RECOMMENDED_SHOWN)]
        creations = []
        for number, item in enumerate(_items_to_dress(ranked, catalog, config, place)):
            words, pictures = _dress(people, place, item, prompts, writer, task, painter, draw)
            for told in TOLD:
                name = f"{place:03}-{number}-{told}.png"
                (folder / name).write_bytes(_png(pictures[told]))
            creations.append({"item": item, "words": words, "files": f"{place:03}-{number}"})
        partner = int(people.users[people.partners[place]])
        stories.append(
            {
                "user": str(catalog.user_ids[user]),
                "partner": str(catalog.user_ids[partner]),
                "history": [int(item) for item in history[-HISTORY_SHOWN:]],
                "recommended": ranked,
                "bought_next": int(people.items[place]),
                "creations": creations,
                "task": task,
                "note": truth.note(str(catalog.user_ids[user])) if truth else "",
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
    painter: PersonalImagePipeline,
    draw: DrawConfig,
) -> tuple[dict[str, str], dict[str, Image.Image]]:
    """One item three ways: words and a picture for each of TOLD."""
    states = torch.stack([people.states[told][place] for told in TOLD])
    vectors = torch.from_numpy(np.array(prompts.shop.item_vectors[item])).expand(len(TOLD), -1)
    pasts = [people.pasts[told][place] for told in TOLD]
    conditions = prompts.make(states, pasts, [item] * len(TOLD))
    texts = writer.write(conditions, task, seeds=[place] * len(TOLD))
    pictures = painter(
        states,
        vectors,
        seeds=[place] * len(TOLD),
        **drawing(draw),
    )
    return dict(zip(TOLD, texts, strict=True)), dict(zip(TOLD, pictures, strict=True))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
