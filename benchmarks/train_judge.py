"""Trains a small entailment model on planted claims of one shop: a MiniLM cross-encoder.

No entailment model of the hub is within reach of every machine that runs the benchmarks, so two are made: one
that has seen garments alone, and one that has seen films alone. Each then judges the shop it has not seen.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from benchmarks.planted_claims import FALSE_KINDS, TRUE_KINDS, PlantedClaim, PlantedShop, plant
from benchmarks.pretrained import pretrained_folder
from generate.text.judge import EntailmentJudge
from pretrain.devices import Compute, resolve_precision

HELD_OUT_KINDS = ("changed_number", "unit_swap")
"""Kinds that no judge learns from."""
LABELS = {0: "unsupported", 1: "supported"}
WINDOW = 80
"""Tokens of a window of premise and claim."""
BATCH, STEPS, LEARNING_RATE, WARMUP = 16, 280, 2e-4, 0.1
MOST = 1_000
"""Training claims of each kind, at most."""


def train_judge(shop: PlantedShop, folder: Path, seed: int = 0, steps: int = STEPS) -> float:
    """Trains a judge on the shop's training items and writes it to `folder`; returns the seconds it took."""
    logging.set_verbosity_error()
    torch.manual_seed(seed)
    base = pretrained_folder("text")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.model_max_length = WINDOW
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=LABELS, label2id={name: index for index, name in LABELS.items()}
    )
    model.base_model.embeddings.requires_grad_(False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    untrained = EntailmentJudge(str(folder))
    precision = resolve_precision("auto", torch.device("cpu"))
    compute = Compute(torch.device("cpu"), precision)
    kinds = [kind for kind in (*TRUE_KINDS, *FALSE_KINDS) if kind not in HELD_OUT_KINDS]
    claims = plant(shop, "train", kinds, MOST, seed)
    started = time.process_time()
    batches = _batches(untrained, shop, claims, steps, seed)
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], LEARNING_RATE
    )
    schedule = LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARMUP * steps), 1 - step / steps)
    )
    model.train()
    losses = []
    for step, (batch, labels) in enumerate(batches):
        with compute.autocast():
            logits = model(**batch).logits
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if step % 40 == 39:
            seconds = time.process_time() - started
            print(
                f"  step {step + 1}: loss {np.mean(losses[-40:]):.3f}, {seconds:.0f} s", flush=True
            )
    seconds = time.process_time() - started
    model.eval().save_pretrained(folder)
    return seconds


def _batches(
    judge: EntailmentJudge,
    shop: PlantedShop,
    claims: Sequence[PlantedClaim],
    steps: int,
    seed: int,
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Batches with as many true claims as false ones, each with the window of its premise that has most of
    the claim's tokens."""
    rng = np.random.default_rng(seed)
    sides = [
        np.array([i for i, one in enumerate(claims) if one.true == side]) for side in (True, False)
    ]
    for _ in range(steps):
        rows = np.concatenate([rng.choice(side, BATCH // 2) for side in sides])
        chosen = [claims[row] for row in rows]
        encoded, owners = judge.windows(
            [shop.facts(one.item) for one in chosen], [one.text for one in chosen]
        )
        best: dict[int, tuple[int, dict[str, list[int]]]] = {}
        for row, owner in zip(encoded, owners.tolist(), strict=True):
            second = row["token_type_ids"].index(1)
            common = len(set(row["input_ids"][:second]) & set(row["input_ids"][second:]))
            if owner not in best or common > best[owner][0]:
                best[owner] = (common, row)
        padded = judge.tokenizer.pad(
            [best[index][1] for index in range(len(chosen))], return_tensors="pt"
        )
        yield dict(padded), torch.tensor([int(one.true) for one in chosen])
