"""Erases users from generated artifacts, and searches every remaining byte for traces of them.

python -m benchmarks.forget                  # about five minutes on two cores; reuses trained artifacts
"""

import argparse
import base64
import csv
import html
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.record import write_record
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.demo import build_demo_world
from catalog.splits import load_split
from generate.image import sample_image
from generate.image.batch_job import run_image_batch_job
from generate.image.config import ImageBatchConfig, ImageScoreConfig
from generate.image.report import run_image_scores
from generate.provenance import verify
from generate.pseudonyms import KEY_VARIABLE, known_keys, rotate_user_key
from generate.text.batch_job import write_texts
from generate.text.config import TextBatchConfig, TextScoreConfig
from generate.text.report import run_text_scores
from launch.cli import main as vitrine
from launch.pipeline.config import PipelineConfig
from launch.pipeline.run import run_pipeline
from launch.settings import load_settings
from launch.trainer import build_trainer

ITEMS, NUM_USERS = 200, 100
SHOWN = 6
"""Users shown on each page."""
TRAINED = ("encoder", "recommenders", "text", "image")
LONER, OWN_ITEMS = "loner-λ7", 6
"""A user whose items have no other user, so that each remaining title of them is a trace."""
Needles = dict[str, list[bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-forget"))
    folder: Path = parser.parse_args().output.resolve()
    for path in (folder / "runs").glob("*"):
        if path.is_dir() and path.name not in TRAINED:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    for key in folder.glob("*.key"):
        key.unlink()
    os.environ[KEY_VARIABLE] = str(folder / "users.key")
    os.environ["VITRINE_CACHE"] = str(folder / "cache")
    config = make_shops(folder)
    runs = folder / "runs"
    make_everything(config, runs)
    figures = {**verified(runs), **measure_erasure(config, runs, folder)}
    write_record(
        "generate-forget",
        claim="Of a user who is forgotten no byte is left in what was made, also where the key that "
        "names users was changed in between, and every picture that was made verifies.",
        command="python -m benchmarks.forget",
        seeds=[0],
        figures=figures,
        sources=[
            "generate/batch_job.py",
            "generate/forget.py",
            "generate/provenance.py",
            "generate/pseudonyms.py",
            "generate/showcase.py",
            "generate/user_files.py",
            "generate/image/batch_job.py",
            "generate/image/sampler.py",
            "generate/image/report.py",
            "generate/text/batch_job.py",
            "generate/text/report.py",
            "launch/pipeline/report.py",
        ],
        goal=[
            "files_with_them_before >= 8",
            "bytes_left == 0",
            "refused_without_the_key == 1",
            "rows_of_others_kept == 1",
            "pictures >= 200",
            "pictures_verified == 1",
        ],
        note=f"The short demo's pipeline at {ITEMS} items and {NUM_USERS} users, the last item of each "
        "held out, and a user whose items no other user took; a page, texts and pictures for all, "
        "single pictures, scores with samples and a contact sheet. Texts were made under a key that was "
        "retired then. Forgotten are that user and two others, on a machine with a key of its own, "
        "first without and then with --key. Looked for: ids, also escaped as JSON and HTML; pseudonyms "
        "under both keys; files of pictures made for them; of the first user also titles and pictures "
        "of what they took; raw, in Base64, and in tables with their compression undone. The shops lie "
        "elsewhere, as they are not ours to forget.",
    )


def make_shops(folder: Path) -> PipelineConfig:
    """Builds the demo's shops beside the runs, with the unique user in the second."""
    shops = build_demo_world(folder / "shops", seed=0, num_items=ITEMS, num_users=NUM_USERS)
    add_unique_user(shops / "wardrobe")
    config = load_settings(PipelineConfig, "pipeline/demo-fast", [])
    home, wardrobe = (
        replace(stage.catalog, path=str(shops / name))
        for stage, name in ((config.pretrain, "home"), (config.finetune, "wardrobe"))
    )
    split = SplitConfig(kind="leave-one-out")
    seed = seed_with_unique_user(wardrobe, split)
    shown = replace(
        config.showcase,
        num_users=SHOWN,
        num_scored_users=24,
        items_per_user=1,
        ground_truth="",
        seed=seed,
    )
    return replace(
        config,
        world=None,
        pretrain=replace(
            config.pretrain, catalog=home, data=replace(config.pretrain.data, max_broken=0.1)
        ),
        finetune=replace(config.finetune, catalog=wardrobe, split=split),
        showcase=shown,
    )


def seed_with_unique_user(catalog: CatalogConfig, split: SplitConfig) -> int:
    """The first seed with which the unique user is among the users shown."""
    loaded, made = load_split(catalog, split)
    targets = made.test.first_per_user()
    return next(
        seed
        for seed in range(1000)
        if LONER
        in loaded.user_ids[
            targets.users[np.random.default_rng(seed).permutation(len(targets))[:SHOWN]]
        ]
    )


def add_unique_user(shop: Path) -> None:
    if (shop / "images" / "own-0.png").exists():
        return
    rows = [json.loads(line) for line in (shop / "items.jsonl").read_text("utf8").splitlines()]
    whole = {path.name for path in (shop / "images").iterdir() if path.stat().st_size > 500}
    pictured = [row for row in rows if Path(row.get("image") or "").name in whole]
    with (shop / "items.jsonl").open("a", encoding="utf8") as file:
        for number, row in enumerate(pictured[:OWN_ITEMS]):
            image = f"images/own-{number}.png"
            shutil.copy(shop / row["image"], shop / image)
            with (shop / image).open("ab") as picture:
                picture.write(f"of the loner {number}".encode())
            own = {"item_id": f"own-{number}", "title": f"Brask Quillon {number}", "image": image}
            file.write(json.dumps(row | own, ensure_ascii=False) + "\n")
    with (shop / "interactions.tsv").open(encoding="utf8", newline="") as file:
        taken = list(csv.DictReader(file, delimiter="\t"))
    with (shop / "interactions.tsv").open("a", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, list(taken[0]), delimiter="\t", lineterminator="\n")
        for number in range(OWN_ITEMS):
            ids = {"user_id": LONER, "item_id": f"own-{number}"}
            writer.writerow(taken[number] | ids)


def make_everything(config: PipelineConfig, runs: Path) -> None:
    text, image = str(runs / "text"), str(runs / "image")
    run_pipeline(config, runs, build_trainer)
    write_texts(TextBatchConfig(text, items="top:2"), runs / "texts")
    sample_image(image, user=LONER, item="own-1", output=runs / "one.png")
    rotate_user_key()
    run_image_batch_job(ImageBatchConfig(image, items="top:2"), runs / "images")
    sample_image(image, user=LONER, item="own-2", output=runs / "two.png")
    seed = config.showcase.seed
    samples = TextScoreConfig(num_users=24, num_generated=24, num_sample_users=SHOWN, seed=seed)
    run_text_scores(Path(text), samples, runs / "text-scores")
    shown = ImageScoreConfig(
        num_users=24, num_contact_sheet_users=SHOWN, classifier_steps=50, seed=seed
    )
    run_image_scores(Path(image), shown, runs / "image-scores")


def pictures_in(runs: Path) -> Iterator[bytes]:
    """Yields the bytes of every generated image."""
    for file in runs.rglob("*.png"):
        yield file.read_bytes()
    for file in runs.rglob("images.parquet"):
        for image in pq.read_table(file).column("image").to_pylist():
            if image:
                yield image["bytes"]


def verified(runs: Path) -> dict[str, float]:
    verdicts = []
    for content in pictures_in(runs):
        with NamedTemporaryFile(suffix=".png") as file:
            file.write(content)
            file.flush()
            verdicts.append(verify(file.name).is_intact)
    return {"pictures": len(verdicts), "pictures_verified": sum(verdicts) / len(verdicts)}


def measure_erasure(config: PipelineConfig, runs: Path, folder: Path) -> dict[str, Any]:
    catalog = load_catalog(config.finetune.catalog)
    users = [LONER, *(str(user) for user in catalog.user_ids[:2])]
    needles = {user: search_patterns(user, runs, folder / "shops" / "wardrobe") for user in users}
    before, rows = occurrences(runs, needles), rows_of_others(runs, users)
    os.environ[KEY_VARIABLE] = str(folder / "elsewhere.key")
    refused = [vitrine(["forget", str(runs), "--user", user]) == 2 for user in users]
    for user in users:
        keys = str(folder / "users.key")
        assert vitrine(["forget", str(runs), "--user", user, "--key", keys]) == 0
    after = occurrences(runs, needles)
    for file, count in after.items():
        print(f"{file}: {count} bytes left")
    return {
        "users_forgotten": len(users),
        "files_with_them_before": len(before),
        "bytes_before": sum(before.values()),
        "bytes_left": sum(after.values()),
        "refused_without_the_key": sum(refused) / len(refused),
        "rows_of_others": len(rows),
        "rows_of_others_kept": float(rows_of_others(runs, users) == rows),
    }


def search_patterns(user: str, runs: Path, shop: Path) -> list[bytes]:
    names = {key.pseudonym(user) for key in known_keys()}
    found = {user, json.dumps(user)[1:-1], html.escape(user), *names}
    pictures = []
    for file in runs.rglob("*.png"):
        if verify(file).metadata.get("User") in names:
            pictures.append(file.read_bytes())
    for row in pq.read_table(runs / "images" / "images.parquet").to_pylist():
        if row["user"] in names:
            pictures.append(row["image"]["bytes"])
    if user == LONER:
        found |= {f"Brask Quillon {number}" for number in range(OWN_ITEMS)}
        pictures += [path.read_bytes() for path in (shop / "images").glob("own-*.png")]
    return [*(name.encode() for name in found), *pictures, *map(base64.b64encode, pictures)]


def occurrences(runs: Path, needles: Needles) -> dict[Path, int]:
    """File → number of its bytes that match a search pattern of the users."""
    found: dict[Path, int] = {}
    for file in runs.rglob("*"):
        if not file.is_file():
            continue
        content = file.read_bytes()
        if file.suffix == ".parquet":
            for row in pq.read_table(file).to_pylist():
                image = (row.pop("image", None) or {}).get("bytes", b"")
                content += json.dumps(row, ensure_ascii=False, default=str).encode() + image
        count = sum(
            content.count(needle) * len(needle) for some in needles.values() for needle in some
        )
        if count:
            found[file] = count
    return found


def rows_of_others(runs: Path, users: list[str]) -> list[tuple[str, str, int]]:
    """(user, item, rank) of each text and image that was generated for a user who is not erased."""
    gone = {
        key.pseudonym(user) for user in users for key in known_keys([runs.parent / "users.key"])
    }
    rows = []
    for kind in ("texts", "images"):
        for row in pq.read_table(runs / kind / f"{kind}.parquet").to_pylist():
            if row["user"] not in gone:
                rows.append((row["user"], row["item_id"], row["rank"]))
    return rows


if __name__ == "__main__":
    main()
