"""The showcase: texts and images for a few users to look at, and scores over many users.

Every comparison holds all else equal (the same item, the same seed) but the condition: the user, another
user, or none.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.splits import load_split
from finetune.ranker import load_ranker
from generate.conditioning import CONDITIONS
from generate.config import ShowcaseConfig
from generate.evaluation.ground_truth import GroundTruth, load_ground_truth
from generate.evaluation.intervals import Figures
from generate.evaluation.users import EvaluationUsers, sample_users
from generate.image.best_of_n import SampledImage
from generate.image.loading import load_defaults, load_pipeline
from generate.image.near_copies import TrainingImageIndex
from generate.image.sampler import ImageSampler
from generate.image.score import score_images
from generate.pseudonyms import pseudonymize, user_key
from generate.requests import GenerationRequest, stack_states
from generate.text.checkpoint import load_text_generator
from generate.text.config import TextScoreConfig, WriteConfig
from generate.text.score import TextScoreInputs, score_texts
from generate.text.writer import BatchWriter
from pretrain.devices import Compute, on_cpu
from pretrain.request import result_request

HISTORY_SHOWN = 7
RECOMMENDED_SHOWN = 5
MAX_SCORED_TEXTS = 200


@dataclass(frozen=True)
class Generators:
    """The text writer and the image sampler of the showcase."""

    writer: BatchWriter
    sampler: ImageSampler


def run_showcase(config: ShowcaseConfig, output: Path, compute: Compute | None = None) -> Path:
    """Generates the gallery and the scores; returns the artifact's folder.

    `compute`: device and precision of all models; None: float32 on the CPU.

    `showcase.json` holds `users` (pseudonyms, item rows, generated texts) and `scores`; the images are
    beside it, signed, as UUU-C-own.png, …-swapped.png, …-none.png. Where every image was rejected, the file
    is missing and `rejected` has the reason.
    """
    compute = compute or on_cpu()
    catalog, split = load_split(config.catalog, config.split)
    ranker = load_ranker(config.recommender, catalog, compute=compute)
    text = open_artifact(Path(config.text), kind="text-generator")
    image = open_artifact(Path(config.image), kind="image-generator")
    generator = compute.place(load_text_generator(text.path))
    generator.precision = compute.precision
    writer = BatchWriter(generator, catalog, ranker, text.hash, config.split, split)
    sampler = ImageSampler(
        load_pipeline(image.path).place(compute),
        catalog,
        ranker,
        load_defaults(image.path),
        image.hash,
        TrainingImageIndex.load(image.path),
    )
    truth = load_ground_truth(config.ground_truth, catalog) if config.ground_truth else None
    users = sample_users(ranker, catalog, split, config.num_scored_users, config.seed)
    parents = {"recommender": config.recommender, "text": text.path, "image": image.path}
    with write_artifact(
        output,
        kind="showcase",
        config=asdict(config),
        parents=parents,
        catalog=catalog.fingerprint,
        split=split.describe(),
        user_key=user_key().fingerprint,
        request=result_request("showcase", asdict(config), parents, catalog.fingerprint),
    ) as staging:
        stories = make_gallery(config, users, Generators(writer, sampler), staging.path, truth)
        text_config = TextScoreConfig(
            num_users=config.num_scored_users,
            num_generated=min(config.num_scored_users, MAX_SCORED_TEXTS),
            seed=config.seed,
        )
        inputs = TextScoreInputs(truth.text_readings() if truth else {})
        scores = {
            "image": _score_images(config, users, sampler, truth),
            "text": score_texts(writer, split, text_config, inputs),
        }
        content = {"users": stories, "scores": scores}
        (staging.path / "showcase.json").write_text(json.dumps(content, indent=1))
    return output


def _score_images(
    config: ShowcaseConfig, users: EvaluationUsers, sampler: ImageSampler, truth: GroundTruth | None
) -> Figures:
    with Progress(transient=True) as progress:
        task = progress.add_task("Scoring images", total=len(CONDITIONS) * len(users))
        return score_images(
            sampler,
            users,
            readings=truth.image_readings() if truth else {},
            seed=config.seed,
            progress=lambda done: progress.advance(task, done),
        )


def make_gallery(
    config: ShowcaseConfig,
    users: EvaluationUsers,
    generators: Generators,
    folder: Path,
    truth: GroundTruth | None,
) -> list[Figures]:
    """Entries of `showcase.json` for the first scored users; writes their images into `folder`."""
    catalog, ranker = generators.sampler.catalog, generators.sampler.ranker
    stories: list[Figures] = []
    for index in range(min(config.num_users, len(users))):
        history = users.histories[index]
        user = str(catalog.user_ids[int(users.users[index])])
        swapped_user = str(catalog.user_ids[int(users.users[users.swapped[index]])])
        ranked = [item for item, _ in ranker.rank(np.asarray(history), RECOMMENDED_SHOWN)]
        generated = []
        for number, item in enumerate(_items_to_show(ranked, catalog, config, index)):
            files = f"{index:03}-{number}"
            texts, images = _generate(users, index, item, generators)
            of_condition = {"own": user, "swapped": swapped_user, "none": None}
            item_id = str(catalog.items[item]["item_id"])
            for condition, drawn in images.items():
                if drawn.image is not None:
                    request = of_condition[condition], item_id
                    content = generators.sampler.to_signed_png(drawn.image, request)
                    (folder / f"{files}-{condition}.png").write_bytes(content)
            rejected = {name: one.rejected for name, one in images.items() if one.rejected}
            generated.append({"item": item, "texts": texts, "files": files, "rejected": rejected})
        stories.append(
            {
                "user": pseudonymize(user),
                "swapped_user": pseudonymize(swapped_user),
                "history": [int(item) for item in history[-HISTORY_SHOWN:]],
                "recommended": ranked,
                "next_item": int(users.items[index]),
                "generated": generated,
                "task": _task(generators.writer),
                "ground_truth": truth.describe_user(user) if truth else "",
            }
        )
    return stories


def _items_to_show(
    ranked: list[int], catalog: Catalog, config: ShowcaseConfig, index: int
) -> list[int]:
    """Item rows: the best recommendation, then random items, which are not chosen by the user's taste."""
    rng = np.random.default_rng([config.seed, index])
    drawn = rng.permutation(catalog.num_items)[: config.items_per_user]
    return [ranked[0], *(int(item) for item in drawn)][: config.items_per_user]


def _task(writer: BatchWriter) -> str:
    tasks = writer.generator.tasks
    return "review" if "review" in tasks else tasks[0]


def _generate(
    users: EvaluationUsers, index: int, item: int, generators: Generators
) -> tuple[dict[str, str], dict[str, SampledImage]]:
    """A text and an image of one item under each condition, from the same seed."""
    requests = list(_requests(users, index, item))
    texts = generators.writer.write_batch(requests, _task(generators.writer), WriteConfig())
    sampler = generators.sampler
    images = sampler.sample_rows(
        stack_states(requests),
        [request.item for request in requests],
        [request.seed for request in requests],
        sampler.defaults,
    )
    return (
        {name: text.text for name, text in zip(CONDITIONS, texts, strict=True)},
        dict(zip(CONDITIONS, images, strict=True)),
    )


def _requests(users: EvaluationUsers, index: int, item: int) -> Iterator[GenerationRequest]:
    for condition in CONDITIONS:
        yield from users.requests(condition, [item], [index], [index])
