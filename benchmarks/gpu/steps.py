"""How fast training steps are, and what they take of the card's memory: ours and the peers' in turn."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contrast import ratio_of_medians
from benchmarks.gpu.towers import (
    Loss,
    Size,
    batch_of,
    hugging_face,
    loss_of,
    open_clip,
    our_module,
)
from pretrain.data import PretrainBatch
from pretrain.optim import make_optimizer

FITTING = (512, 384, 256, 192, 128, 96, 64, 32, 16)
EAGER = ("ours_eager", "hf", "open_clip")
"""Those that are not compiled, and so take the most memory."""
ROUNDS, STEPS = 7, 2
GIB = 2**30


@dataclass
class Contender:
    """A model with its optimiser, and the batch it is given."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    titles: bool = False
    batch: PretrainBatch = field(init=False)

    def step(self) -> Tensor:
        device = self.batch.items.device.type
        with torch.autocast(device, torch.bfloat16):
            loss = self.loss(self.batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @property
    def state_bytes(self) -> int:
        """Weights and AdamW's two moments; gradients come and go with the step."""
        return 3 * sum(p.nbytes for p in self.model.parameters())


def ours(size: Size, device: str, titles: bool = False, **settings: Any) -> Contender:
    with torch.device(device):
        module = our_module(size, 1, groups=4 if titles else 1, **settings)
    optimizer = make_optimizer(module.parameters(), module.optimizer_config, 1000)["optimizer"]
    return Contender(module, lambda batch: loss_of(module, batch), optimizer, titles)


def peer(
    make: Callable[..., tuple[nn.Module, Loss]], size: Size, device: str, compiled: bool
) -> Contender:
    with torch.device(device):
        model, loss = make(size, compiled)
    return Contender(model, loss, torch.optim.AdamW(model.parameters(), lr=1e-4))


def contenders(size: Size, device: str) -> dict[str, Callable[[], Contender]]:
    peers = {"hf": hugging_face} | ({"open_clip": open_clip} if find_spec("open_clip") else {})
    made: dict[str, Callable[[], Contender]] = {
        "ours": lambda: ours(size, device, compiled=True),
        "ours_eager": lambda: ours(size, device),
        "ours_titles": lambda: ours(size, device, titles=True, compiled=True),
    }
    for name, make in peers.items():
        made[name] = lambda make=make: peer(make, size, device, False)
        made[f"{name}_compiled"] = lambda make=make: peer(make, size, device, True)
    return made


def speeds(
    size: Size,
    device: str,
    peak: float | None,
    fitting: tuple[int, ...] = FITTING,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Samples/s of all at the largest batch that fits all, round by round in rotating order."""
    everyone: dict[str, Contender] = {}
    figures: dict[str, Any] = {}
    made = contenders(size, device)
    eager = {name: make() for name, make in made.items() if name in EAGER}
    pairs = next(
        n for n in fitting if all(fits(who, size, n, device, len(made)) for who in eager.values())
    )
    figures["batch"] = pairs
    for name, make in made.items():
        with record_failure(name, figures):
            who = eager.get(name) or make()
            prepare(who, size, pairs, device)
            who.step()  # compiles
            assert who.step().isfinite()
            figures[f"{name}_peak_gib"] = peak_of_step(who)
            everyone[name] = who
        release(device)
    seconds: dict[str, list[float]] = {name: [] for name in everyone}
    for turn in range(rounds):
        names = list(everyone)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(seconds_of(everyone[name]))
    for name, taken in seconds.items():
        figures[f"{name}_samples_per_second"] = rate = pairs / float(np.median(taken))
        if peak:
            length = None
            if everyone[name].titles:
                length = float(everyone[name].batch.content["text"]["attention_mask"].sum() / pairs)
            figures[f"{name}_mfu"] = rate * size.flops(length) / peak
    for mine in ("ours", "ours_titles"):
        for other in (name for name in seconds if not name.startswith("ours")):
            if mine in seconds:
                figures[f"{mine}_vs_{other}"] = ratio_of_medians(seconds[other], seconds[mine])
    return figures


def large_batches(
    size: Size, device: str, peak: float | None, pairs: int, parts: int
) -> dict[str, Any]:
    """What activations computed again cost and save: layer by layer, and part by part at `parts`
    times the batch."""
    figures: dict[str, Any] = {}
    cells = {
        "checkpointed": (pairs, {"checkpointed": True}),
        "parts": (pairs * parts, {"parts": parts}),
    }
    for name, (batch, settings) in cells.items():
        with record_failure(name, figures):
            who = ours(size, device, compiled=True, **settings)
            prepare(who, size, batch, device)
            for _ in range(2):
                who.step()
            figures[f"{name}_batch"] = batch
            figures[f"{name}_peak_gib"] = peak_of_step(who)
            rate = batch / float(np.median([seconds_of(who, 1) for _ in range(3)]))
            figures[f"{name}_samples_per_second"] = rate
            figures[f"{name}_mfu"] = rate * size.flops() / peak if peak else None
        release(device)
    return figures


def prepare(who: Contender, size: Size, pairs: int, device: str) -> None:
    """Gives it a batch, and its module the tables of that many items."""
    who.batch = batch_of(size, pairs, device, who.titles)
    if hasattr(who.model, "duplicate_ids"):
        who.model.duplicate_ids = torch.arange(pairs, device=device)
        who.model.log_popularity = torch.zeros(pairs, device=device)


def fits(who: Contender, size: Size, pairs: int, device: str, models: int) -> bool:
    """Whether its step fits on the card beside what `models` like it keep."""
    try:
        prepare(who, size, pairs, device)
        who.step()
        taken = peak_of_step(who)
    except torch.OutOfMemoryError:
        who.optimizer.zero_grad(set_to_none=True)
        return False
    finally:
        release(device)
    if taken is None:
        return True
    room = torch.cuda.get_device_properties(0).total_memory
    return taken * GIB + (models - 1) * who.state_bytes < 0.9 * room


def seconds_of(who: Contender, steps: int = STEPS) -> float:
    """Of one step, its own beginning and end waited for."""
    synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        who.step()
    synchronize()
    return (time.perf_counter() - started) / steps


def peak_of_step(who: Contender) -> float | None:
    """GiB that a step takes with what the model keeps, whatever else lies on the card."""
    if not torch.cuda.is_available():
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    who.step()
    return (torch.cuda.max_memory_allocated() - before + who.state_bytes) / GIB


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def release(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def record_failure(name: str, figures: dict[str, Any]) -> Iterator[None]:
    """Prints and records a failure in this block, so that the other contenders still run."""
    try:
        yield
    except Exception as error:
        figures[f"{name}_failed"] = f"{type(error).__name__}: {error}"[:200]
        print(f"{name} failed: {error}", flush=True)
