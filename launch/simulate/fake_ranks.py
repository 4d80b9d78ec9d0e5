"""A process group in which the other ranks do not exist (torch's `fake` backend), and DDP on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from typing_extensions import override

from launch.simulate.collectives import Traffic, count_bucket


class FakeEnvironment(ClusterEnvironment):
    """Claims to be one of many ranks of one node, started from outside."""

    def __init__(self, ranks: int, rank: int) -> None:
        super().__init__()
        self.ranks, self.rank = ranks, rank

    creates_processes_externally = True  # type: ignore[assignment]
    main_address = "127.0.0.1"  # type: ignore[assignment]
    main_port = 0  # type: ignore[assignment]

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.ranks

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.rank

    def teardown(self) -> None:
        pass


class FakeDDP(DDPStrategy):
    """Lightning's DDP on the process group that exists already; counts each gradient bucket."""

    def __init__(self, ranks: int, rank: int, traffic: Traffic) -> None:
        super().__init__(
            cluster_environment=FakeEnvironment(ranks, rank), process_group_backend="fake"
        )
        self.traffic = traffic

    @override
    def set_world_ranks(self) -> None:
        pass

    @property
    @override
    def global_rank(self) -> int:
        assert isinstance(self.cluster_environment, FakeEnvironment)
        return self.cluster_environment.rank

    @property
    @override
    def world_size(self) -> int:
        assert isinstance(self.cluster_environment, FakeEnvironment)
        return self.cluster_environment.ranks

    @override
    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj  # no other rank would send it

    @override
    def setup(self, trainer: pl.Trainer) -> None:
        super().setup(trainer)
        if isinstance(self.model, torch.nn.parallel.DistributedDataParallel):
            self.model.register_comm_hook(self.traffic, count_bucket)


@contextmanager
def fake_process_group(ranks: int, rank: int) -> Iterator[None]:
    """A process group of `ranks` of which only this one exists."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise RuntimeError("a process group exists already; simulate in a process of its own")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
