"""Twenty texts of a small pretrained language model about items of the demo world, for a reader.

python -m benchmarks.text_samples    # half an hour on one core
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.grounded_shops import HEADLINE, SHOPS, WORK, WRITE, ShopArms
from benchmarks.record import RESULTS
from benchmarks.words import STAGES, settings_of
from catalog.splits import load_split
from generate.evaluation.users import sample_users
from generate.text.run import run_text_generator
from generate.text.score import generate_texts
from generate.text.writer import load_writer
from launch.pipeline.run import run_stages
from launch.trainer import build_trainer
from pretrain.devices import choose_compute

SAMPLES = 20


def write_samples(output: Path) -> None:
    """Writes twenty verified texts about items of the demo world, each under its facts."""
    demo = settings_of("demo", 0)
    run_stages(demo, WORK / "demo", build_trainer, STAGES[:3])
    placed = replace(demo.finetune.catalog, path=str(WORK / "demo" / "world" / "wardrobe"))
    config = replace(
        ShopArms(next(iter(SHOPS))).config(HEADLINE),
        recommender=str(WORK / "demo" / "recommenders" / demo.headline),
        catalog=placed,
        split=demo.finetune.split,
        tasks=("description",),
    )
    folder = WORK / "demo" / "text"
    if not folder.exists():
        run_text_generator(config, folder, build_trainer)
    catalog, split = load_split(config.catalog, config.split)
    writer = load_writer(folder, compute=choose_compute("cpu", "auto"))
    writer = replace(writer, catalog=catalog, split=split)
    users = sample_users(writer.ranker, catalog, split, SAMPLES)
    write = replace(WRITE, verify_claims=True)
    texts = generate_texts(writer, users, "description", "own", write)
    lines = ["# Twenty descriptions for users of the demo world", ""]
    for number, (item, text) in enumerate(zip(users.items.tolist(), texts, strict=True), 1):
        facts = "; ".join(writer.prompts.facts.item_lines(item))
        source = ", the catalog's own text" if text.from_catalog else ""
        lines += [f"{number}. Facts: {facts}", "", f"   > {text.text}", "", f"   {source}", ""]
    output.write_text("\n".join(lines), encoding="utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "text-samples.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_samples(arguments.output)


if __name__ == "__main__":
    main()
