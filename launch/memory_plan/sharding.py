"""The memory each sharding strategy needs per device, from the footprint of a single process.

The arithmetic is that of ZeRO (Rajbhandari et al., 2020, §5) with what DeepSpeed and DDP add: a
master copy of the weights, which like the moments is float32 whatever they compute in, and buckets
that are there whether they are filled or not. By itself or under DDP a process keeps no master copy:
moments are as its weights are, and where these are halves (bf16-true), so are they.
"""

from dataclasses import dataclass

from launch.memory_plan.devices import Device
from launch.memory_plan.footprint import Footprint

GPU_BUCKET = 200_000_000
"""Elements in each bucket, as Lightning configures DeepSpeed; two buckets where it overlaps."""
LIVE = 1_000_000_000
"""Weights that ZeRO-3 leaves gathered: those needed again within as many (DeepSpeed's default)."""
STRATEGIES = ("auto", "ddp", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload")
"""From the simplest on; `auto` stands for one device by itself."""


@dataclass(frozen=True)
class ShardedFootprint:
    """Bytes of one device, and of the host's memory for it."""

    strategy: str
    weights: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int
    """Activations and the loss, at the worst moment."""
    buckets: int
    overhead: int
    host: int

    @property
    def peak(self) -> int:
        held = self.weights + self.gradients + self.optimizer + self.buffers
        return held + self.activations + self.buckets + self.overhead


def shard_footprint(
    single: Footprint, strategy: str, ranks: int, device: Device, halves: bool
) -> ShardedFootprint:
    """The footprint of one of `ranks` processes; `single`: without sharding; `halves`: 16-bit compute."""
    if not strategy.startswith("zero"):
        return _replicated(single, strategy, ranks, device)
    return _zero(single, strategy, ranks, device, size=2 if halves else 4)


def _replicated(single: Footprint, strategy: str, ranks: int, device: Device) -> ShardedFootprint:
    """One process, or DDP: each rank holds everything, and DDP its gradient buckets."""
    steady = single.weights + single.buffers + single.optimizer + single.gradients
    return ShardedFootprint(
        strategy,
        weights=single.weights,
        gradients=single.gradients,
        optimizer=single.optimizer,
        buffers=single.buffers + single.best,
        activations=single.peak - steady,
        buckets=single.trained_weights if ranks > 1 else 0,
        overhead=device.process_overhead,
        host=0,
    )


def _zero(
    single: Footprint, strategy: str, ranks: int, device: Device, size: int
) -> ShardedFootprint:
    """ZeRO 1, 2 or 3, with or without offload; weights are of `size` bytes."""
    stage, offload = int(strategy[4]), strategy.endswith("offload")

    def in_bytes(size: int, counted: int) -> int:
        return counted * size // single.bytes_each

    whole = in_bytes(size, single.weights)  # the module's own, in what it computes in
    trained = in_bytes(size, single.trained_weights)
    master = in_bytes(4, single.trained_weights) // ranks
    state = master + in_bytes(4, single.optimizer) // ranks
    reduced = trained if stage == 1 else trained // ranks
    flat = master  # gradients of a rank's own weights, flat, for its step
    gathered = min(whole, LIVE * size) if stage == 3 else whole
    shard = whole // ranks if stage == 3 else 0
    gradients = 0 if stage > 1 else reduced
    return ShardedFootprint(
        strategy,
        weights=gathered if offload else gathered + shard,
        gradients=gradients if offload else reduced + flat,
        optimizer=0 if offload else state,
        # Where no rank holds whole weights, those that ranked best are not kept.
        buffers=single.buffers + (0 if stage == 3 else in_bytes(size, single.best)),
        activations=max(single.activations, single.update // ranks),
        buckets=min_bucket(device) * size * (2 if device.on_gpu else 1),
        overhead=device.process_overhead,
        host=state + flat + reduced + shard if offload else 0,
    )


def min_bucket(device: Device) -> int:
    from launch.strategies import CPU_BUCKET

    return GPU_BUCKET if device.on_gpu else CPU_BUCKET


def strategies_for(ranks: int) -> tuple[str, ...]:
    """Those that make sense, from the simplest on."""
    if ranks == 1:
        return ("auto", "zero2-offload", "zero3-offload")
    return STRATEGIES[1:]
