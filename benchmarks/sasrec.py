"""Compares a recommender of ids with RecTools' SASRec on MovieLens 100K: NDCG@10 by CPU seconds.

python -m benchmarks.sasrec    # some hours of CPU time, nearly all of them the peer's; resumes
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from benchmarks.contrast import ratio_of_medians
from benchmarks.peers import peer_python, run_single_threaded
from benchmarks.record import ROOT, commit, write_record
from benchmarks.sources import FINETUNING
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.splits import Split, Targets, make_split
from finetune.config import FinetuneConfig
from finetune.evaluate import rank_targets
from finetune.metrics import Ranking, metric_values
from finetune.run import run_finetuning
from finetune.selection import BestWeights
from finetune.statistics import mean_interval, ratio_interval
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig

REQUIREMENTS = ["rectools[torch]==0.19.0", f"torch=={torch.__version__.split('+')[0]}"]
PEER = ROOT / "runs" / "peers-rectools"
MOVIES = ROOT.parent / "shared" / "data" / "ml-100k"
SEEDS = (0, 1, 2)
LEVELS = {"": 1.0, "to_90_percent_": 0.9}
"""Validation levels to reach, as a share of the peer's best."""
MOMENTS = (2, 4, 8, 16, 32, 64, 128)
"""CPU seconds at which the learning curves are recorded."""
HISTORIES = (50, 100)
"""Maximum history lengths of both sides; each is a comparison of its own."""
RATE = {"ours": "optimizer.learning_rate", "rectools": "lr"}
LENGTH = {"ours": "sequence.max_history", "rectools": "session_max_len"}
RATES = (0.001, 0.003, 0.01)
"""First learning rates; while the best is at an end of the grid, the grid is extended by a factor of 3."""
SHAPES: dict[str, list[dict[str, Any]]] = {
    "ours": [
        {"width": 64},
        {"width": 64, "sequence.dropout": 0.2},
        {"width": 128},
        {"width": 128, "sequence.dropout": 0.3},
    ],
    "rectools": [
        {"n_factors": 64},
        {"n_factors": 64, "dropout_rate": 0.4},
        {"n_factors": 128},
        {"n_factors": 64, "loss": "gBCE", "n_negatives": 64, "gbce_t": 0.75},
    ],
}
"""Model settings tried at the middle rate; the best on validation with the first seed is chosen."""
COMMON: dict[str, dict[str, Any]] = {
    "ours": {"every": 10, "trainer.max_steps": 200, "data.rows": 24},
    "rectools": {"every": 2, "epochs": 24, "batch_size": 32},
}
"""Common settings; with batches of 128, its default, the peer learned more slowly."""
MOST_EPOCHS = 384
GOAL = tuple(
    f"history_{length}_{bound}"
    for length in HISTORIES
    for bound in ("speedup_low >= 2.0", "ndcg_ratio_low >= 1.05")
)
WORK = ROOT / "runs" / "benchmark-sasrec"


@dataclass
class Curve:
    """Learning curve of one training: metrics at each evaluation."""

    seconds: NDArray[np.float64]
    """(evaluations,): CPU seconds of training so far."""
    validation: NDArray[np.float64]
    """(evaluations, users): NDCG@10."""
    test: NDArray[np.float64]

    @property
    def course(self) -> NDArray[np.float64]:
        """Mean validation NDCG@10 at each evaluation: (evaluations,)."""
        return self.validation.mean(axis=1)

    @property
    def best(self) -> int:
        return int(self.course.argmax())

    @property
    def ends_too_soon(self) -> bool:
        """Whether the best evaluation is in the last tenth of the training."""
        return self.best >= 0.9 * (len(self.seconds) - 1)

    def at(self, moment: float, part: str) -> float:
        """Mean NDCG@10 at the last evaluation by `moment`; nan before the first and after the last one."""
        look = int(np.searchsorted(self.seconds, moment, side="right")) - 1
        if look < 0 or moment > self.seconds[-1]:
            return float("nan")
        return float(getattr(self, part)[look].mean())

    def seconds_to(self, level: float) -> float:
        """CPU seconds until validation first reaches `level`; infinite where it never does."""
        reached = np.flatnonzero(self.course >= level)
        return float(self.seconds[reached[0]]) if len(reached) else float("inf")


@cache
def movies() -> tuple[Catalog, Split]:
    catalog = load_catalog(CatalogConfig(path=str(MOVIES), source="movielens"))
    return catalog, make_split(catalog, SplitConfig(kind="leave-one-out"))


def train(who: str, settings: dict[str, Any], seed: int) -> Curve:
    """Trains one side; the peer's epochs are doubled until its best evaluation is not among its last."""
    settings = {**COMMON[who], **settings, "seed": seed}
    curve = train_once(who, settings)
    while who == "rectools" and curve.ends_too_soon and settings["epochs"] < MOST_EPOCHS:
        settings["epochs"] *= 2
        curve = train_once(who, settings)
    return curve


def train_once(who: str, settings: dict[str, Any]) -> Curve:
    """Trains one side in a fresh process; the curve is stored for this commit and reused."""
    ways = {"ours": _train_ours, "rectools": _train_rectools}
    key = hashlib.sha256(json.dumps([who, settings, commit()]).encode()).hexdigest()
    kept = WORK / f"{who}-{key[:12]}.npz"
    if not kept.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            curve = ways[who](Path(folder), settings)
        with tempfile.NamedTemporaryFile(dir=WORK, suffix=".npz", delete=False) as file:
            np.savez(file, **vars(curve))
        Path(file.name).replace(kept)
    with np.load(kept) as found:
        return Curve(**found)


def _train_ours(folder: Path, settings: dict[str, Any]) -> Curve:
    command = [sys.executable, "-m", "benchmarks.sasrec", "--cell", str(folder)]
    run_single_threaded([*command, json.dumps(settings)], OMP_WAIT_POLICY="PASSIVE")
    with np.load(folder / "curve.npz") as found:
        return Curve(**found)


def _train_rectools(folder: Path, settings: dict[str, Any]) -> Curve:
    catalog, split = movies()
    np.savez(
        folder / "shop.npz",
        num_items=catalog.num_items,
        offsets=catalog.interactions.offsets,
        items=catalog.interactions.items,
        train_end=split.train_end,
        validation_users=split.validation.users,
        validation_positions=split.validation.positions,
        test_users=split.test.users,
        test_positions=split.test.positions,
    )
    script = Path(__file__).with_name("rectools_sasrec.py")
    python = peer_python(PEER, REQUIREMENTS)
    command = [str(python), str(script), str(folder), json.dumps(settings)]
    run_single_threaded(command, OMP_WAIT_POLICY="PASSIVE")
    seconds = json.loads((folder / "seconds.json").read_text())
    found = [_rank_states(folder / f"{look}.npz") for look in range(1, len(seconds) + 1)]
    validation, test = (np.stack(values) for values in zip(*found, strict=True))
    return Curve(np.array(seconds), validation, test)


def _rank_states(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@10 of validation and test by the project's evaluation; untrained items rank last."""
    catalog, split = movies()
    with np.load(path) as found:
        items, lost = torch.from_numpy(found["items"]), torch.from_numpy(~found["known"])
        validation, test = (torch.from_numpy(found[name]) for name in ("validation", "test"))

    def values(states: torch.Tensor, targets: Targets) -> NDArray[np.float64]:
        def score(users: torch.Tensor, part: slice) -> torch.Tensor:
            return (states[users] @ items[part].T).masked_fill(lost[part], -1e30)

        return metric_values(rank_targets(score, catalog, targets).ranks)["ndcg@10"]

    return values(validation, split.validation), values(test, split.test)


class Looks(pl.Callback):
    """Callback that pauses the clock every `every` steps and ranks validation and test targets."""

    def __init__(self, rank: Callable[[Any, Targets], Ranking], every: int) -> None:
        self.rank, self.every = rank, every
        self.seconds: list[float] = []
        self.found: list[list[NDArray[np.float64]]] = []
        self.spent = self.started = 0.0

    def on_train_start(self, *_: Any, **__: Any) -> None:
        self.started = time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        self.spent += time.process_time() - self.started
        if trainer.global_step % self.every == 0:
            split = movies()[1]
            rankings = [self.rank(pl_module, of) for of in (split.validation, split.test)]
            pl_module.train()
            self.seconds.append(self.spent)
            self.found.append([metric_values(r.ranks)["ndcg@10"] for r in rankings])
        self.started = time.process_time()


def cell(folder: Path, settings: dict[str, Any]) -> None:
    """Trains ours like `vitrine finetune --features id --transfer scratch`, with timed evaluations."""
    settings, looks = dict(settings), []
    every, seed = settings.pop("every"), settings.pop("seed")
    shop = {"catalog.path": MOVIES, "catalog.source": "movielens", "split.kind": "leave-one-out"}
    fixed = {"features": "id", "transfer": "scratch", "trainer.progress": "false"}
    settings = {**shop, **fixed, "trainer.checkpoint_every": 0, "trainer.seed": seed, **settings}
    arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    config = load_settings(FinetuneConfig, None, arguments)

    def with_looks(
        config: TrainerConfig,
        folder: Path,
        title: str,
        callbacks: Sequence[pl.Callback] = (),
        **options: Any,
    ) -> pl.Trainer:
        best = next(callback for callback in callbacks if isinstance(callback, BestWeights))
        looks.append(Looks(best.rank, every))
        others = [callback for callback in callbacks if callback is not best]
        return build_trainer(config, folder, title, [*others, looks[0]], **options)

    run_finetuning(config, folder / "shop", with_looks)
    validation, test = (np.stack(values) for values in zip(*looks[0].found, strict=True))
    np.savez(folder / "curve.npz", seconds=looks[0].seconds, validation=validation, test=test)


def chosen(who: str, length: int) -> dict[str, Any]:
    """The best model settings at the middle rate, then the best rate, inside the tried grid."""

    def says(settings: dict[str, Any]) -> float:
        run = train(who, settings, SEEDS[0])
        best = run.best
        print(f"{who} {settings}: {run.course[best]:.4f} at {run.seconds[best]:.0f} s", flush=True)
        return float(run.course[best])

    fixed = {LENGTH[who]: length}
    shape = max(SHAPES[who], key=lambda s: says({**fixed, **s, RATE[who]: RATES[1]}))
    tried = {rate: says({**fixed, **shape, RATE[who]: rate}) for rate in RATES}
    while (best := max(tried, key=lambda rate: tried[rate])) in (min(tried), max(tried)):
        rate = best / 3 if best == min(tried) else best * 3
        tried[rate] = says({**fixed, **shape, RATE[who]: rate})
    return {**fixed, **shape, RATE[who]: best}


def figures() -> dict[str, Any]:
    """Figures of each history length, named `history_N_…`."""
    return {
        f"history_{length}_{name}": value
        for length in HISTORIES
        for name, value in figures_at(length).items()
    }


def figures_at(length: int) -> dict[str, Any]:
    """Trains both sides with every seed, in alternating order; returns the figures."""
    settings = {who: chosen(who, length) for who in SHAPES}
    curves: dict[str, list[Curve]] = {who: [] for who in SHAPES}
    for seed in SEEDS:
        order = [*SHAPES] if seed % 2 else [*reversed(SHAPES)]
        for who in order:
            curves[who].append(train(who, settings[who], seed))
    found: dict[str, Any] = {}
    for who, runs in curves.items():
        found[f"{who}_settings"] = json.dumps(settings[who])
        found[f"{who}_validation_ndcg10"] = np.mean([run.course.max() for run in runs])
        found[f"{who}_test_ndcg10"] = mean_interval(tested(runs))
        found[f"{who}_cpu_seconds_to_best"] = np.median([run.seconds[run.best] for run in runs])
    found["ndcg_ratio"] = ratio_interval(tested(curves["ours"]), tested(curves["rectools"]))
    for name, share in LEVELS.items():
        levels = [share * run.course.max() for run in curves["rectools"]]
        seconds = {
            who: [run.seconds_to(level) for run, level in zip(runs, levels, strict=True)]
            for who, runs in curves.items()
        }
        found[f"{name}speedup"] = ratio_of_medians(seconds["rectools"], seconds["ours"])
        found |= {f"{name}{who}_cpu_seconds": np.median(taken) for who, taken in seconds.items()}
    for who, runs in curves.items():
        for moment in MOMENTS:
            for part in ("validation", "test"):
                at = [run.at(moment, part) for run in runs]
                name = f"{who}_{part}_ndcg10_at_{moment}s"
                found[name] = float(np.mean(at))
    return found


def tested(runs: Sequence[Curve]) -> NDArray[np.float64]:
    """NDCG@10 of each test target at each run's best validation, averaged over runs: (users,)."""
    return np.mean([run.test[run.best] for run in runs], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs=2, metavar=("FOLDER", "SETTINGS"), help="one training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cell:
        cell(Path(arguments.cell[0]), json.loads(arguments.cell[1]))
    else:
        write()


def write() -> None:
    write_record(
        "finetune-speed-sasrec",
        claim="From ids alone, fine-tuning comes to the ranking of RecTools' SASRec in fewer CPU "
        "seconds, and to a better one in the end.",
        command="python -m benchmarks.sasrec",
        seeds=SEEDS,
        figures=figures(),
        sources=[*FINETUNING, "benchmarks/rectools_sasrec.py"],
        goal=GOAL,
        note="MovieLens 100K, leave-one-out, all items ranked but those seen, by the same evaluation; "
        "vitrine finetune --features id --transfer scratch against RecTools 0.19's SASRecModel with "
        "what it pins in an environment of its own; a process with one thread each, whichever is "
        "first changing with the seed; CPU seconds of training alone. Speedup: to the best "
        "validation NDCG@10 (to_90_percent: to 90 % of it) that the peer's run of the same seed comes "
        "to, looked for every 10 steps here and every 2 epochs there; medians, the interval over "
        "seeds. Test figures are those at each run's best validation, averaged over seeds, their "
        "intervals over users. history_N: both read the last N items. Both sides' settings are the best on "
        "validation with the first seed of those tried (SHAPES, RATES in benchmarks/sasrec.py), the rate "
        "inside of its grid; the peer trains on until its best look is not in its last tenth.",
    )


if __name__ == "__main__":
    main()
