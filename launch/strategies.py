"""Distributed strategies: one device, DDP, or DeepSpeed ZeRO, which here also runs on CPU.

The CPU path exists so that the same ZeRO code that shards a model over a cluster is tested with
two gloo processes on a laptop; it is exact, not fast.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.seed import reset_seed
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from typing_extensions import override

from catalog.errors import VitrineError
from launch.reshard import convert_to_universal, finish_loading, refuse_foreign_types
from pretrain.config import TrainerConfig

CPU_BUCKET = 5_000_000
"""Elements communicated at once on CPU; DeepSpeed's default buffers are gigabytes."""

BATCH_FOR_LOGS = 1
"""Only scales a speed that DeepSpeed would log; asking the loader fails where it has no sampler."""


def make_strategy(config: TrainerConfig) -> str | Strategy:
    """The value of `strategy` for `pytorch_lightning.Trainer`."""
    check_world(config)
    if not config.strategy.startswith("zero"):
        return config.strategy
    zero, _, offload = config.strategy.partition("-")
    stage = int(zero.removeprefix("zero"))
    offload_optimizer = offload == "offload"
    if on_cpu(config):
        strategy = CpuDeepSpeedStrategy(stage, offload_optimizer)
    else:
        strategy = ElasticDeepSpeedStrategy(
            stage=stage,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_optimizer and stage == 3,
            logging_batch_size_per_gpu=BATCH_FOR_LOGS,
        )
    assert isinstance(strategy.config, dict)
    # The stages bring their own torch optimiser; without this, offloading insists on CPUAdam.
    strategy.config["zero_force_ds_cpu_optimizer"] = False
    return strategy


def on_cpu(config: TrainerConfig) -> bool:
    names = {config.device, config.accelerator} - {"auto"}
    return names == {"cpu"} or (not names and not torch.cuda.is_available())


def check_world(config: TrainerConfig) -> None:
    """Fails if `torchrun` started another number of processes than the settings ask for."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    started, configured = int(os.environ["WORLD_SIZE"]), config.devices * config.nodes
    if started != configured:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        raise VitrineError(
            f"torchrun started {started} processes, but trainer.devices {config.devices} × "
            f"trainer.nodes {config.nodes} = {configured}; "
            f"set --trainer.devices {local} --trainer.nodes {started // local}."
        )


def kind_of(strategy: Strategy) -> str:
    """The checkpoint format of a strategy: `whole` (one device, DDP), `zero1`, `zero2` or `zero3`."""
    if not isinstance(strategy, DeepSpeedStrategy):
        return "whole"
    assert isinstance(strategy.config, dict)
    return f"zero{strategy.config['zero_optimization']['stage']}"


class ElasticDeepSpeedStrategy(DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy, elastic: it resumes from a checkpoint of another number of ranks."""

    def prepare_elastic_load(self, checkpoint: Path) -> None:
        """Converts a DeepSpeed checkpoint for this number of ranks, and loads the result.

        Rank zero converts; it is done when all ranks have passed a barrier.
        """
        assert isinstance(self.config, dict)
        self.config["checkpoint"] = {"load_universal": True}
        if self.is_global_zero:
            convert_to_universal(checkpoint)

    @override
    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        refuse_foreign_types(Path(checkpoint_path))
        state = super().load_checkpoint(checkpoint_path, weights_only)
        if self.deepspeed_engine.load_universal_checkpoint():
            finish_loading(self.deepspeed_engine, Path(checkpoint_path))
        return state


class CpuDeepSpeedStrategy(ElasticDeepSpeedStrategy):
    """`ElasticDeepSpeedStrategy` on the CPU: without Lightning's three checks that there is a GPU."""

    def __init__(self, stage: int, offload_optimizer: bool = False) -> None:
        _choose_cpu()
        super().__init__(
            stage=stage,
            offload_optimizer=offload_optimizer,
            logging_batch_size_per_gpu=BATCH_FOR_LOGS,
            process_group_backend="gloo",
            overlap_comm=False,
            allgather_bucket_size=CPU_BUCKET,
            reduce_bucket_size=CPU_BUCKET,
        )

    @property
    @override
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)  # DeepSpeed reads the index

    @override
    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    @override
    def setup_distributed(self) -> None:
        _skip_shared_memory_operator()
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def _choose_cpu() -> None:
    """Tells DeepSpeed which accelerator to use; it looks once, when first imported."""
    if "deepspeed" not in sys.modules:
        os.environ["DS_ACCELERATOR"] = "cpu"
        return
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator is None or accelerator.device_name() != "cpu":
        raise RuntimeError(
            "DeepSpeed was imported for another accelerator; set DS_ACCELERATOR=cpu to use the CPU"
        )


def _skip_shared_memory_operator() -> None:
    """Lets gloo carry every reduction.

    DeepSpeed would otherwise compile a shared-memory operator on first use, which takes a minute
    and a half and a C++ compiler.
    """
    import deepspeed.ops
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = False
