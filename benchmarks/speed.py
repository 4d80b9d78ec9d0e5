"""Compares with peers what a large catalog costs in fine-tuning: full softmax and full ranking.

python -m benchmarks.speed    # about 4 minutes of CPU time
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contrast import Step, assert_equal, rise_of_peak, speed_figures
from benchmarks.record import ROOT, write_record
from benchmarks.steps import GIVE_BACK
from catalog.splits import Targets
from finetune.losses import full_softmax_loss
from finetune.metrics import metric_values
from finetune.ranker import Ranker
from finetune.recommender import Recommender
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig

COMMAND = "python -m benchmarks.speed"
WIDTH = 64
POSITIONS, SOFTMAX_ITEMS = 1024, 100_000
SCALE = 10.0
BY_HAND = 256
"""Chunk size (positions) at which torch's chunked loss was fastest here, of 16 to 512."""
NUM_USERS, RANKED_ITEMS, HISTORY = 1024, 200_000, 50
BATCH = 16
"""Batch size (users) at which RecBole's evaluation was fastest here, of 16 to 1024."""
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=2, metavar=("WHAT", "WHO"), help="one memory cell")
    cell = parser.parse_args().cell
    torch.set_num_threads(1)
    if cell:
        print(json.dumps(memory_of(*cell)))
        return
    figures = {**softmax_figures(), **ranking_figures()}
    write_record(
        "finetune-speed",
        claim="Fine-tuning's softmax over 100,000 items costs no more CPU time than torch's chunked one at "
        "its best, in less memory, and its ranking of 200,000 items less than RecBole's, in memory that "
        "holds no whole matrix.",
        command=COMMAND,
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/contrast.py",
            "finetune/evaluate.py",
            "finetune/losses.py",
            "finetune/metrics.py",
            "finetune/tie_break.py",
            "finetune/recommender.py",
            "finetune/ranker.py",
        ],
        goal=[
            "softmax_speedup_over_chunked_by_hand_low >= 1.0",
            "softmax_ours_mib <= softmax_chunked_by_hand_mib",
            "softmax_ours_mib <= 150",
            "softmax_ours_gradient_error <= 1e-5",
            "ranking_speedup_over_recbole_low >= 1.4",
            "ranking_ours_mib <= 64",
            "ranking_differing_users == 0",
        ],
        note="One thread; rounds alternate in rotating order; medians of process time with 95 % "
        f"bootstrap intervals of their ratio. Softmax: loss and gradients of {POSITIONS} positions, "
        f"width {WIDTH}; chunked is F.linear_cross_entropy as it chunks by itself (slow: no goal), "
        f"chunked_by_hand with {BY_HAND} positions at once, which is its best here; the error is the largest "
        "difference from float64 over the largest entry. Ranking: states, ranks and NDCG@10 of "
        f"{NUM_USERS} users with histories of {HISTORY}, one in two with a target near its state; "
        "recbole is its full-sort evaluation (all scores, seen ones masked, topk, a matrix of "
        f"positives) restated, recbole_{BATCH} the same for {BATCH} users at once (no goal). MiB: by "
        "how much one call raises the peak of a fresh process.",
    )


def softmax_figures() -> dict[str, Any]:
    ways = softmax_ways(POSITIONS, SOFTMAX_ITEMS)
    for who in [*ways][1:]:
        assert_equal({who: ways[who], "ours": ways["ours"]})
    exact = exact_gradients(POSITIONS, SOFTMAX_ITEMS)
    figures: dict[str, Any] = {
        f"softmax_{who}_gradient_error": error_of(way, exact) for who, way in ways.items()
    }
    figures |= speed_figures("softmax", ways, ROUNDS)
    return figures | {f"softmax_{who}_mib": memory_cell("softmax", who) for who in ways}


def softmax_inputs(positions: int, items: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, item vectors, scale, targets."""
    generator = torch.Generator().manual_seed(0)
    states, vectors = (
        F.normalize(torch.randn(n, WIDTH, generator=generator), dim=-1).requires_grad_()
        for n in (positions, items)
    )
    targets = torch.randint(items, (positions,), generator=generator)
    return states, vectors, torch.tensor([SCALE], requires_grad=True), targets


def softmax_ways(positions: int, items: int) -> dict[str, Step]:
    """Implementations by name; each returns the loss and the gradients of states, item vectors and scale."""
    states, vectors, scale, targets = softmax_inputs(positions, items)
    leaves = (states, vectors, scale)

    def step(loss: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        value = loss()
        return value.detach(), *torch.autograd.grad(value, leaves)

    def torch_s(options: torch.nn.LinearCrossEntropyOptions | None) -> Tensor:
        return F.linear_cross_entropy(scale * states, vectors, targets, options=options)

    by_itself = torch.nn.LinearCrossEntropyOptions()
    by_hand = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=BY_HAND)
    return {
        "ours": lambda: step(lambda: full_softmax_loss(states, vectors, targets, scale)),
        "naive": lambda: step(lambda: torch_s(None)),
        "chunked": lambda: step(lambda: torch_s(by_itself)),
        "chunked_by_hand": lambda: step(lambda: torch_s(by_hand)),
    }


def exact_gradients(positions: int, items: int) -> list[Tensor]:
    """Reference gradients: cross-entropy in float64, in chunks of positions."""
    states, vectors, scale, targets = softmax_inputs(positions, items)
    leaves = [leaf.detach().double().requires_grad_() for leaf in (states, vectors, scale)]
    for part in torch.arange(positions).split(64):
        logits = leaves[2] * leaves[0][part] @ leaves[1].T
        (F.cross_entropy(logits, targets[part], reduction="sum") / positions).backward()
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def error_of(way: Step, exact: list[Tensor]) -> float:
    """Largest error of a gradient entry, relative to that gradient's largest entry."""
    return max(
        float((found - true).abs().max() / true.abs().max())
        for found, true in zip(way()[1:], exact, strict=True)
    )


def ranking_figures() -> dict[str, Any]:
    ways = ranking_ways(NUM_USERS, RANKED_ITEMS)
    found = {who: way() for who, way in ways.items()}
    differing = sum((values != found["ours"]).sum() for values in found.values())
    figures: dict[str, Any] = {
        "ranking_ndcg10": float(found["ours"].mean()),
        "ranking_differing_users": int(differing),
    }
    figures |= speed_figures("ranking", ways, ROUNDS)
    return figures | {f"ranking_{who}_mib": memory_cell("ranking", who) for who in ways}


def ranking_ways(num_users: int, items: int) -> dict[str, Callable[[], np.ndarray]]:
    """Implementations by name; each returns NDCG@10 of every user's target among items not in the history."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    vectors = rng.standard_normal((items, WIDTH), dtype=np.float32)
    reader = SequenceEncoder(SequenceEncoderConfig(width=WIDTH, max_history=HISTORY))
    bought = np.stack(
        [rng.choice(items - num_users, HISTORY, replace=False) for _ in range(num_users)]
    )
    target_items = np.arange(items - num_users, items)  # in no history
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranker = Ranker(Recommender(None, reader), vectors)
    near = ranker.user_states([*bought]).numpy() + 0.25 * rng.standard_normal((num_users, WIDTH))
    vectors[target_items[::2]] = (near / np.linalg.norm(near, axis=1, keepdims=True))[::2]
    rows = np.concatenate([bought, target_items[:, None]], axis=1).astype(np.int32)
    interactions = SimpleNamespace(
        offsets=np.arange(num_users + 1) * (HISTORY + 1), items=rows.ravel()
    )
    catalog: Any = SimpleNamespace(num_items=items, interactions=interactions)
    positions = np.full(num_users, HISTORY, dtype=np.int32)
    targets = Targets(np.arange(num_users, dtype=np.int32), positions)
    discounts = 1.0 / np.log2(np.arange(2, 12))

    def ours() -> np.ndarray:
        return metric_values(ranker.rank_targets(catalog, targets).ranks)["ndcg@10"]

    @torch.no_grad()
    def recbole(batch: int) -> np.ndarray:
        """RecBole 1.2: Trainer._full_sort_batch_eval, Collector.eval_batch_collect and the metric."""
        table = torch.from_numpy(vectors)
        hits = []
        for chosen in np.array_split(np.arange(num_users), -(-num_users // batch)):
            scores = ranker.user_states([*bought[chosen]]) @ table.T
            users = torch.arange(len(chosen))
            seen = torch.from_numpy(bought[chosen]).flatten()
            scores[users.repeat_interleave(HISTORY), seen] = -np.inf
            _, best = torch.topk(scores, 10, dim=-1)
            positives = torch.zeros_like(scores, dtype=torch.int)
            positives[users, torch.from_numpy(target_items[chosen])] = 1
            lengths = positives.sum(dim=1, keepdim=True)
            hits.append(torch.cat([torch.gather(positives, 1, best), lengths], dim=1))
        return torch.cat(hits)[:, :10].numpy() @ discounts

    return {
        "ours": ours,
        "recbole": lambda: recbole(num_users),
        f"recbole_{BATCH}": lambda: recbole(BATCH),
    }


def memory_cell(what: str, who: str) -> float:
    """Peak memory in MiB, measured in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", "--cell", what, who],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **GIVE_BACK},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def memory_of(what: str, who: str) -> float:
    """MiB by which one call raises the peak memory, after a small warm-up call."""
    if what == "softmax":
        softmax_ways(8, 1000)[who]()
        return rise_of_peak(softmax_ways(POSITIONS, SOFTMAX_ITEMS)[who])
    ranking_ways(8, 1000)[who]()
    return rise_of_peak(ranking_ways(NUM_USERS, RANKED_ITEMS)[who])


if __name__ == "__main__":
    main()
