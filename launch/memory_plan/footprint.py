"""The memory footprint of one training step, measured on fake tensors (`launch.memory_plan.fake_tensors`)."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.catalog import Catalog
from catalog.splits import Split
from launch.memory_plan.build import PlanConfig, build_stage
from launch.memory_plan.built_stage import BuiltStage
from launch.memory_plan.fake_tensors import SMALLEST, FakeTensorMeter
from pretrain.encoder import ItemEncoder

WEIGHTS, BUFFERS = "weights", "buffers"
REAL_MICRO_BATCHES = 4
"""Micro-batches of a step (GradCache) that are run; further ones are alike, and hold no more memory."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process without sharding."""

    parameters: int
    """Number of parameters."""
    trained: int
    """Number of trained parameters."""
    weights: int
    trained_weights: int
    buffers: int
    """Above all fine-tuning's cache of item features."""
    gradients: int
    optimizer: int
    """AdamW's two moments, and the EMA."""
    forward: int
    """Peak of activations, loss and scratch memory in the forward pass."""
    backward: int
    """Peak of the same and of gradients together in the backward pass."""
    activations: int
    """Peak of the same at any time, without gradients."""
    update: int
    """Scratch memory of the optimiser's step."""
    best: int
    """The copy of the best weights, where one is kept."""
    items: int
    """Number of items that go through the towers in the heaviest step."""
    slots: int
    """Number of history slots in it."""
    bytes_each: int
    """Bytes of a weight: 2 where weights are stored in 16 bits (bf16-true), else 4."""

    @property
    def peak(self) -> int:
        """Peak memory of a single process after the first step (when the moments exist)."""
        steady = self.weights + self.buffers + self.optimizer
        return steady + max(
            self.gradients + self.forward, self.backward, self.gradients + self.update
        )


def footprint(
    config: PlanConfig,
    catalog: Catalog,
    split: Split,
    *,
    on_gpu: bool = False,
    steps: int = 8,
    counted: int = 1,
) -> Footprint:
    """Takes the `counted` heaviest of the first `steps` steps, and returns the maximum of each figure.

    `on_gpu`: attention never holds its scores there, and the optimiser is one kernel.
    """
    with (
        silent_warnings(),
        attention_as_on(on_gpu),
        default_dtype(config.trainer.precision),
        without_moving(),
        FakeTensorMeter() as mode,
    ):
        built = build_stage(config, catalog, split)
        module = built.module
        parameters = list(module.parameters())
        trained = [p for p in parameters if p.requires_grad]
        weights = mode.name(parameters, WEIGHTS)
        buffers = mode.name(module.buffers(), BUFFERS)
        mode.follow(parameters)
        heaviest = sorted(range(steps), key=lambda step: -built.cost(built.read(step)))
        detach_from_trainer(module)
        taken = [_one_step(mode, built, step, config) for step in heaviest[:counted]]
        forward, backward, activations, slots = map(max, zip(*taken, strict=True))
    learned = sum(map(size_of, trained))
    reached = [p for p in trained if p.grad is not None]  # an adaptor that no item needs has none
    gradients = sum(map(size_of, reached))
    state = 2 * gradients + sum(SMALLEST for _ in reached)
    if config.optimizer.ema_decay:
        state += gradients
    return Footprint(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in trained),
        weights=weights,
        trained_weights=learned,
        buffers=buffers,
        gradients=gradients,
        optimizer=state,
        forward=forward,
        backward=backward,
        activations=activations,
        update=0 if on_gpu else 2 * max(map(size_of, trained), default=0),
        best=learned if built.keeps_best else 0,
        items=len(built.read(heaviest[0])),
        slots=slots,
        bytes_each=parameters[0].element_size(),
    )


def _one_step(
    mode: FakeTensorMeter, built: BuiltStage, step: int, config: PlanConfig
) -> tuple[int, ...]:
    module = built.module
    module.zero_grad()
    module.train()
    module.on_train_start()
    batch = built.batch(step)
    mode.begin()
    with autocast(config.trainer.precision), few_micro_batches(built.encoder):
        loss: Any = module.training_step(batch, 0)
        forward = mode.peak_activations
        mode.begin()
        if any(p.requires_grad for p in module.parameters()):
            loss.backward()
    del loss
    fixed = mode.at_peak[WEIGHTS] + mode.at_peak[BUFFERS]
    activations = max(forward, mode.peak_activations)
    return forward, mode.peak - fixed, activations, built.slots(batch)


def size_of(tensor: Tensor) -> int:
    return max(SMALLEST, tensor.untyped_storage().nbytes())


def dtypes(precision: str) -> tuple[torch.dtype, bool]:
    """(dtype, mixed) of Lightning's name of a precision; mixed: weights stay in float32."""
    known = {"16": torch.float16, "bf16": torch.bfloat16, "64": torch.float64}
    kind, _, how = precision.partition("-")
    return known.get(kind, torch.float32), how == "mixed"


def is_half_precision(precision: str) -> bool:
    """Whether the precision computes in 16 bits, whatever the dtype of the weights."""
    return dtypes(precision)[0] in (torch.float16, torch.bfloat16)


def autocast(precision: str) -> Any:
    kind, mixed = dtypes(precision)
    return torch.autocast("cpu", dtype=kind) if mixed else nullcontext()


@contextmanager
def default_dtype(precision: str) -> Iterator[None]:
    """Within this context new weights and content have the precision's dtype, unless it is mixed."""
    kind, mixed = dtypes(precision)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if mixed else kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def detach_from_trainer(module: pl.LightningModule) -> None:
    """Lets a module take a step with no trainer around it."""
    nothing: Any = lambda *_, **__: None  # noqa: E731
    module.log = module.log_dict = nothing


@contextmanager
def few_micro_batches(encoder: ItemEncoder | None) -> Iterator[None]:
    """Within this context only the first micro-batches run the towers; later ones return empty tensors."""
    if encoder is None:
        yield
        return
    taken = {True: 0, False: 0}
    true_forward = encoder.forward
    like: list[Any] = []

    def forward(content: Any) -> Any:
        learning = torch.is_grad_enabled()
        taken[learning] += 1
        if taken[learning] <= REAL_MICRO_BATCHES or not like:
            output = true_forward(content)
            like[:] = [type(output), {n: _shape(v) for n, v in vars(output).items()}]
            return output
        rows = len(next(iter(content.values()))["present"])
        tie = 0.0 * next(p for p in encoder.parameters() if p.requires_grad).sum()
        values = {}
        for name, shape in like[1].items():
            if shape is None:
                values[name] = None
            elif shape[1] == torch.bool:
                values[name] = torch.ones(rows, *shape[0], dtype=torch.bool)
            else:
                values[name] = torch.empty(rows, *shape[0], dtype=shape[1]) + tie
        return like[0](**values)

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward


def _shape(value: Tensor | None) -> Any:
    return None if value is None else (value.shape[1:], value.dtype)


@contextmanager
def attention_as_on(gpu: bool) -> Iterator[None]:
    """Within this context, for a GPU, attention with dropout is one fused kernel that keeps no scores."""
    if not gpu:
        yield
        return
    plain = F.scaled_dot_product_attention

    def fused(*arguments: Any, dropout_p: float = 0.0, **settings: Any) -> Tensor:
        return plain(*arguments[:4], **settings)

    with patch.object(F, "scaled_dot_product_attention", fused):
        yield


@contextmanager
def without_moving() -> Iterator[None]:
    """Within this context `Module.to` does nothing: torch cannot replace fake weights in place."""

    def stay(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
        return module

    with patch.object(nn.Module, "to", stay):
        yield


@contextmanager
def silent_warnings() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
