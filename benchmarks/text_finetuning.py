"""LoRA of a real language model on a shop's texts: memory and speed, against float32 and the usual tools.

python -m benchmarks.text_finetuning    # about twelve minutes on one core
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.batching import spread
from benchmarks.beauty import untrained_encoder
from benchmarks.pretrained import pretrained_folder
from benchmarks.record import ROOT, write_record
from catalog.artifacts import open_artifact
from catalog.splits import load_split
from finetune.config import FinetuneConfig, LoraConfig
from finetune.ranker import load_ranker
from finetune.run import run_finetuning
from generate.next_items import NextItemPairs
from generate.text.config import TextConfig
from generate.text.data import TextBatch, TextData
from generate.text.language_model import load_language_model
from generate.text.model import TextGenerator
from generate.text.run import build_text_generator
from generate.text.sequences import PADDING, SOFT
from generate.text.task_texts import tasks_with_texts
from launch.pipeline.config import PipelineConfig
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.config import Precision, TrainerConfig
from pretrain.optim import make_optimizer
from pretrain.run import run_pretraining

WORK = ROOT / "runs" / "benchmark-text-finetuning"
ARMS = ("ours", "float32", "trainer")
BATCH, STEPS, ROUNDS = 16, 3, 2
"""Texts of a step; steps that are timed after one that is not; rounds, the arms in turns."""


@dataclass(frozen=True)
class Task:
    """The same texts for every arm."""

    generator: TextGenerator
    batches: list[TextBatch]
    config: TextConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", choices=ARMS, help="one arm, in a process of its own")
    cell = parser.parse_args().cell
    torch.set_num_threads(1)
    if cell:
        print(json.dumps(run_cell(cell)))
        return
    recommender()
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for _ in range(ROUNDS):
        for arm in ARMS:
            command = [sys.executable, "-m", "benchmarks.text_finetuning", "--cell", arm]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[arm].append(json.loads(output.splitlines()[-1]))
            print(arm, found[arm][-1], flush=True)
    speed = {arm: np.array([one["tokens_per_cpu_second"] for one in found[arm]]) for arm in ARMS}
    figures: dict[str, Any] = {
        f"{arm}_{name}": float(np.median([one[name] for one in found[arm]]))
        for arm in ARMS
        for name in ("tokens_per_cpu_second", "peak_gib")
    }
    figures["peak_gib_highest"] = max(one["peak_gib"] for one in found["ours"])
    figures["ours_over_float32"] = spread(speed["ours"] / speed["float32"])
    figures["ours_over_trainer"] = spread(speed["ours"] / speed["trainer"])
    write_record(
        "text-finetuning",
        claim="LoRA of a language model of 135 million parameters takes at most 2.2 GiB of memory, and is "
        "faster than in float32 and than with peft and transformers' Trainer.",
        command="python -m benchmarks.text_finetuning",
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/beauty.py",
            "generate/text/data.py",
            "generate/text/facts.py",
            "generate/text/grouped_nll.py",
            "generate/text/language_model.py",
            "generate/text/model.py",
            "generate/text/prompts.py",
            "generate/text/sequences.py",
        ],
        goal=[
            "peak_gib_highest <= 2.2",
            "ours_over_float32 >= 1.5",
            "ours_over_trainer >= 1.0",
        ],
        note=f"SmolLM2-135M-Instruct, descriptions of garments from facts in words, {BATCH} texts a step, "
        "LoRA of rank 8 on every linear layer, one core. ours: bfloat16 weights under autocast, soft "
        "tokens, the gradient taken in groups; float32: the same without groups and in float32; trainer: "
        "peft with "
        "transformers' Trainer, bfloat16 weights under autocast (bf16), the same texts without soft tokens. "
        f"Tokens of prompts and texts a CPU second over {STEPS} steps after the first; peak: the process's "
        f"largest resident memory, data and recommender included; medians of {ROUNDS} rounds in turns, "
        "ratios with the lowest and highest.",
    )


def recommender() -> Path:
    """A recommender of the shop with few steps: user states for the soft tokens."""
    common = shop()
    encoder, folder = WORK / "encoder", WORK / "recommender"
    if not encoder.exists():
        run_pretraining(untrained_encoder(common.catalog, common.split), encoder, build_trainer)
    if not folder.exists():
        trainer = replace(common.trainer, max_steps=20)
        config = replace(common, encoder=str(encoder), transfer="frozen", trainer=trainer)
        run_finetuning(replace(config, validate_every=20), folder, build_trainer)
    return folder


def shop() -> FinetuneConfig:
    config = load_settings(PipelineConfig, "pipeline/fashion", []).finetune
    path = ROOT.parent / "shared" / "data" / "fashion"
    return replace(config, catalog=replace(config.catalog, path=str(path)))


def make_task(precision: Precision) -> Task:
    common = shop()
    catalog, split = load_split(common.catalog, common.split)
    ranker = load_ranker(open_artifact(recommender(), kind="recommender"), catalog)
    pairs = NextItemPairs(catalog, split)
    texts, _ = tasks_with_texts(catalog, ("description",), pairs)
    config = TextConfig(
        model=str(pretrained_folder("words")),
        tasks=("description",),
        batch_size=BATCH,
        trainer=TrainerConfig(max_steps=STEPS + 1, precision=precision),
    )
    generator = build_text_generator(config, texts, pairs, ranker.width).train()
    data = TextData(texts, ranker, pairs, generator, config)
    batches = [
        data.collate([data.rows[row] for row in range(BATCH * step, BATCH * (step + 1))])
        for step in range(STEPS + 1)
    ]
    return Task(generator, batches, config)


def run_cell(arm: str) -> dict[str, float]:
    task = make_task("32-true" if arm == "float32" else "bf16-mixed")
    seconds = with_trainer(task) if arm == "trainer" else with_ours(task, grouped=arm == "ours")
    tokens = sum(int((batch.token_ids >= 0).sum()) for batch in task.batches[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"tokens_per_cpu_second": tokens / sum(seconds[1:]), "peak_gib": peak}


def with_ours(task: Task, grouped: bool) -> list[float]:
    """CPU seconds of each step."""
    generator = task.generator
    optimizer = make_optimizer(generator.parameters(), task.config.optimizer, STEPS + 1)[
        "optimizer"
    ]
    mixed = task.config.trainer.precision == "bf16-mixed"
    seconds = []
    for batch in task.batches:
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext():
            if grouped:
                nll, count = generator.summed_nll(*batch)
            else:
                parts, counts = generator(*batch)
                nll, count = parts.sum(), counts.sum()
        (nll / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - began)
    return seconds


class Clock(TrainerCallback):
    """CPU seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self.began)


def with_trainer(task: Task) -> list[float]:
    """CPU seconds of each step of transformers' Trainer on the same texts, soft tokens left out."""
    name = str(pretrained_folder("words"))
    model, _, _ = load_language_model(name, LoraConfig(), (), torch.bfloat16)
    rows = [
        {"input_ids": ids[kept], "labels": labels[kept]}
        for batch in task.batches
        for ids, labels in zip(batch.token_ids, batch.labels, strict=True)
        for kept in [(ids != SOFT) & (ids != PADDING)]
    ]
    del task.generator.language_model
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(WORK / "trainer"),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS + 1,
        bf16=True,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,  # type: ignore[arg-type]
        data_collator=padded,
        callbacks=[clock],  # type: ignore[arg-type]
    )
    trainer.train()
    assert len(clock.seconds) == STEPS + 1
    return clock.seconds


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([row["input_ids"] for row in rows], batch_first=True)
    labels = pad([row["labels"] for row in rows], batch_first=True, padding_value=PADDING)
    lengths = torch.tensor([[len(row["input_ids"])] for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths).long()
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


if __name__ == "__main__":
    main()
