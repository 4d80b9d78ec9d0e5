"""Missing modality: presence masks against dropping items without images and against black images.

python -m benchmarks.missing    # about 35 minutes on one core; resumes
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from benchmarks.record import write_record
from benchmarks.sources import PRETRAINING
from catalog.artifacts import request_hash
from catalog.splits import load_split, target_rows
from finetune.metrics import metric_values
from finetune.statistics import difference_interval, mean_interval
from launch.pipeline.config import PipelineConfig
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.artifact import EncoderBundle, new_encoder
from pretrain.config import PretrainConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.data import PretrainData
from pretrain.modalities import ImageSource
from pretrain.module import PretrainModule
from pretrain.projection_init import initialize_projections
from pretrain.retrieval import between_modalities, hold_out, next_items

SHARES = (0, 30, 60, 90)
"""Percentages of the images that are missing."""
SEEDS = (0, 1, 2, 3, 4)
ARMS = {
    "ours": "a missing picture is masked, in training and after",
    "drop": "training reads no item whose picture is missing; after it, such items are masked",
    "zeros": "a missing picture is a black one, in training and after",
}
SETTINGS = [
    "--pretrain.split.kind=temporal",
    "--pretrain.encoder.width=64",
    "--pretrain.encoder.image.image_size=32",
    "--pretrain.encoder.image.config.hidden_size=64",
    "--pretrain.encoder.image.config.num_hidden_layers=2",
    "--pretrain.encoder.image.config.intermediate_size=128",
    "--pretrain.encoder.image.config.patch_size=16",
    "--pretrain.encoder.text.vocab_size=2048",
    "--pretrain.encoder.text.max_tokens=16",
    "--pretrain.encoder.text.length_groups=1",
    "--pretrain.encoder.text.config.hidden_size=64",
    "--pretrain.encoder.text.config.intermediate_size=128",
    "--pretrain.encoder.text.config.hidden_dropout_prob=0",
    "--pretrain.encoder.text.config.attention_probs_dropout_prob=0",
    "--pretrain.objectives.cross_modal=0.1",
    "--pretrain.data.held_out=0.1",
    "--pretrain.trainer.max_steps=300",
]
"""Small towers, the same for every arm."""

MEASURES = (
    ("next_recall10", "next", "recall@10"),
    ("next_ndcg10", "next", "ndcg@10"),
    ("picture_recall10", "text → image", "recall@10"),
)
"""(name of the figure, retrieval task, metric)."""
CONTROLS = {"drop": ("drop", ""), "unlisted": ("drop", "unlisted"), "zeros": ("zeros", "")}
"""Name in the figures → (arm, the variant of its ranks, or "" for the plain ones)."""

Ranks = dict[str, NDArray[np.int64]]
"""Retrieval task → rank of each query's target."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-missing"))
    output = parser.parse_args().output
    torch.set_num_threads(1)
    study = Study(load_settings(PipelineConfig, "pipeline/fashion", SETTINGS).pretrain, output)
    study.check_whole()
    ranks = {
        (share, arm): [study.ranks(arm, share, seed) for seed in SEEDS]
        for share in SHARES
        for arm in (ARMS if share else ["ours"])
    }
    write_record(
        "pretrain-missing",
        claim="With 30, 60 or 90 % of the pictures missing, pretraining with presence masks is never "
        "below leaving such items out of training nor below filling in black pictures.",
        command="python -m benchmarks.missing",
        seeds=SEEDS,
        figures=figures_of(ranks),
        sources=[*PRETRAINING, "pretrain/retrieval.py", "configs/pipeline/fashion.yaml"],
        goal=[
            f"{name}_{share}_ours_minus_{control} >= 0"
            for name, task, _ in MEASURES
            for share in SHARES[1:]
            for control, (_, answer) in CONTROLS.items()
            if task == "next" or not answer
        ],
        note="A week of a fashion shop, small towers from scratch, 300 steps, one thread; the same "
        "starts, rows and objectives in every arm, whose runs are one where nothing is missing "
        "(asserted). next: test targets after a moment in time among all items; each user's mean "
        "over the seeds, 95 % paired bootstrap intervals over users. picture: of held-out items, all "
        "with their pictures, words ask for the picture; intervals over items. drop: items without "
        "picture are left out of training and encoded from what they have; unlisted: the same, but "
        "such items cannot be found. The weight of the contrast between modalities was chosen on "
        "validation.",
    )


class Study:
    """Trains and evaluates one (arm, share, seed) at a time; stores the ranks in a folder."""

    def __init__(self, config: PretrainConfig, output: Path) -> None:
        self.config = config
        self.output = output / request_hash("missing", asdict(config))[:12]
        self.catalog, self.split = load_split(config.catalog, config.split)
        self.held_out = hold_out(self.catalog, config.data.held_out)

    def ranks(self, arm: str, share: int, seed: int) -> Ranks:
        """Ranks of the test targets, and of held-out items' images in text-to-image retrieval."""
        folder = self.folder(arm, share, seed)
        kept = folder / "ranks.npz"
        if not kept.exists():
            found = self.train(arm, share, seed)
            np.savez(folder / "unfinished.npz", allow_pickle=False, **found)
            (folder / "unfinished.npz").replace(kept)
        with np.load(kept) as found:
            return dict(found)

    def folder(self, arm: str, share: int, seed: int) -> Path:
        return self.output / f"{share}-{arm}-{seed}"

    def train(self, arm: str, share: int, seed: int) -> Ranks:
        parts, reader, data = self.prepare(arm, share, seed)
        settings = self.config
        module = PretrainModule(
            parts.encoder,
            parts.sequence_encoder,
            settings.objectives,
            settings.optimizer,
            data.log_popularity,
            data.duplicate_ids,
        )
        trainer = build_trainer(
            replace(settings.trainer, seed=seed),
            self.folder(arm, share, seed),
            f"{share} % missing, {arm}, seed {seed}",
        )
        trainer.fit(module, data)
        parts.encoder.eval()
        parts.sequence_encoder.eval()
        ask = partial(
            next_items, parts.encoder, parts.sequence_encoder, reader, self.catalog, self.split
        )
        line = ask(self.split.test)
        assert line.popular is not None
        found = {
            "next": line.ranks,
            "popularity": line.popular,
            "validation": ask(self.split.validation).ranks,
        }
        if arm == "drop":
            listed = ~self.missing(share, seed)
            rows = target_rows(self.catalog.interactions, self.split.test)
            there = listed[self.catalog.interactions.items[rows]]
            some = self.split.test.take(there)
            found["unlisted"] = np.full(
                len(there), self.catalog.num_items
            )  # unlisted targets rank last
            found["unlisted"][there] = ask(some, np.flatnonzero(listed)).ranks
        whole = parts.content_loader(self.catalog)
        for line in between_modalities(parts.encoder, whole, np.flatnonzero(self.held_out)):
            found[line.task] = line.ranks
        return found

    def prepare(
        self, arm: str, share: int, seed: int
    ) -> tuple[EncoderBundle, ItemContentLoader, PretrainData]:
        """Builds an untrained encoder, the item content loader for evaluation, and the training data."""
        pl.seed_everything(seed, verbose=False)
        parts = new_encoder(self.config.encoder, self.catalog)
        parts.encoder.train()  # pretrained towers are loaded in evaluation mode
        reader = parts.content_loader(self.catalog)
        missing = self.missing(share, seed)
        hide_pictures(reader, missing, black=arm == "zeros")
        unread = self.held_out | missing if arm == "drop" else self.held_out
        data = PretrainData(
            self.catalog, self.split, reader, self.config.data, seed, held_out=unread
        )
        initialize_projections(parts.encoder, reader, data.readable, seed)
        return parts, reader, data

    def missing(self, share: int, seed: int) -> NDArray[np.bool_]:
        """Mask of items without an image, bool (num_items,); a subset of that of every larger share."""
        order = np.random.default_rng((seed, 77)).permutation(self.catalog.num_items)
        return order < round(share / 100 * self.catalog.num_items)

    def check_whole(self) -> None:
        """Asserts that with no image missing all arms have equal weights and batches."""
        starts = []
        for arm in ARMS:
            parts, _, data = self.prepare(arm, 0, SEEDS[0])
            batch = data.collate([data.rows[row] for row in range(self.config.data.rows)])
            starts.append(
                [*parts.encoder.parameters(), data.duplicate_ids, *tensors_of(vars(batch))]
            )
        for start in starts[1:]:
            assert all(map(torch.equal, starts[0], start))


def hide_pictures(reader: ItemContentLoader, missing: NDArray[np.bool_], black: bool) -> None:
    """Removes the images of `missing` items from a loader, or makes them black."""
    source = reader.sources["image"]
    assert isinstance(source, ImageSource)
    cache = source.cache
    if black:
        blackened = np.where(missing[:, None, None, None], np.uint8(0), cache.values)
        cache.values = blackened.view(np.memmap)
    else:
        cache.present = cache.present & ~missing


def tensors_of(values: Mapping[str, Any]) -> list[torch.Tensor]:
    """All tensors in a nested mapping, as a list."""
    found = []
    for value in values.values():
        found += tensors_of(value) if isinstance(value, Mapping) else [value]
    return found


def figures_of(ranks: dict[tuple[int, str], list[Ranks]]) -> dict[str, Any]:
    """Metrics of each share and arm, averaged over seeds, with intervals and differences over users."""
    figures: dict[str, Any] = {}

    def measure(share: int, arm: str, task: str, metric: str) -> NDArray[np.float64]:
        return np.mean([metric_values(found[task])[metric] for found in ranks[share, arm]], axis=0)

    for name, task, metric in MEASURES:
        figures[f"{name}_queries"] = len(ranks[0, "ours"][0][task])
        for share in SHARES:
            ours = measure(share, "ours", task, metric)
            figures[f"{name}_{share}_ours"] = mean_interval(ours)
            for control, (arm, answer) in CONTROLS.items():
                if not share or (answer and task != "next"):
                    continue
                theirs = measure(share, arm, answer or task, metric)
                figures[f"{name}_{share}_{control}"] = mean_interval(theirs)
                figures[f"{name}_{share}_ours_minus_{control}"] = difference_interval(ours, theirs)
    for name, metric in (("recall10", "recall@10"), ("ndcg10", "ndcg@10")):
        figures[f"next_{name}_popularity"] = measure(0, "ours", "popularity", metric).mean()
    return figures


if __name__ == "__main__":
    main()
