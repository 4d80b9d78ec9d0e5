"""Counts what ranks send each other in a step: collectives and DDP's gradient buckets."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class Traffic:
    """What ranks send each other, by step: collective → number of calls, bytes sent, shapes."""

    steps: list[dict[str, dict[str, Any]]] = field(default_factory=list)

    def begin(self) -> None:
        self.steps.append({})

    def count(self, name: str, tensor: Tensor) -> None:
        if not self.steps:
            return
        entry = self.steps[-1].setdefault(name, {"calls": 0, "bytes": 0, "shapes": []})
        entry["calls"] += 1
        entry["bytes"] += tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        if shape not in entry["shapes"]:
            entry["shapes"].append(shape)


class StepBoundaries(pl.Callback):
    """Starts a new step of the traffic at each training batch."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self.traffic.begin()


def count_bucket(
    traffic: Traffic,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage] – DDP insists on it
) -> torch.futures.Future[Tensor]:
    traffic.count("gradient buckets (all_reduce)", bucket.buffer())
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@contextmanager
def count_collectives(traffic: Traffic) -> Iterator[None]:
    """Counts what the objectives send; each rank receives what this one sent, never uninitialised memory."""
    gather, reduce = dist.all_gather, dist.all_reduce

    def all_gather(parts: list[Tensor], rows: Tensor, *rest: Any, **more: Any) -> Any:
        traffic.count("all_gather", rows)
        done = gather(parts, rows, *rest, **more)
        for part in parts:
            part.copy_(rows)
        return done

    def all_reduce(tensor: Tensor, *rest: Any, **more: Any) -> Any:
        traffic.count("all_reduce", tensor)
        return reduce(tensor, *rest, **more)

    def batch_isend_irecv(operations: list[Any]) -> Any:
        for sent, received in zip(operations[::2], operations[1::2], strict=True):
            traffic.count("send to the next rank", sent.tensor)
            received.tensor.copy_(sent.tensor)
        return []

    with ExitStack() as stack:
        stack.enter_context(patch.object(dist, "all_gather", all_gather))
        stack.enter_context(patch.object(dist, "all_reduce", all_reduce))
        stack.enter_context(patch.object(dist, "batch_isend_irecv", batch_isend_irecv))
        yield
