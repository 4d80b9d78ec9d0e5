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
from launch.memory_plan.build import BuiltStage, StageConfig, build_stage
from launch.memory_plan.fake_tensors import SMALLEST, FakeTensorMeter
from pretrain.encoder import ItemEncoder

WEIGHTS, BUFFERS = "weights", "buffers"
REAL_MICRO_BATCHES = 4
"""Parts of a step (GradCache) that are taken; further ones are alike, and hold no more at a time."""


@dataclass(frozen=True)
class Footprint:
    """Bytes, of one process that shares nothing with others."""

    parameters: int
    """Their number."""
    trained: int
    """Of them, those that learn."""
    weights: int
    trained_weights: int
    buffers: int
    """Fine-tuning's cache of what items are known by, above all."""
    gradients: int
    optimizer: int
    """AdamW's two moments, and the moving average."""
    forward: int
    """The most that passes (activations, loss, scratch) while the forward pass goes on."""
    backward: int
    """The most of it and of gradients together, in the backward pass."""
    activations: int
    """The most that passes at any time, gradients aside."""
    update: int
    """What the optimiser needs for a moment."""
    best: int
    """A copy of the weights that ranked best."""
    items: int
    """That go through the towers in the step counted."""
    slots: int
    """Of histories in it."""
    bytes_each: int
    """Of a weight: 2 where weights are halves themselves (bf16-true), else 4."""

    @property
    def peak(self) -> int:
        """Of a process by itself, after the first step (when the moments are there)."""
        steady = self.weights + self.buffers + self.optimizer
        return steady + max(
            self.gradients + self.forward, self.backward, self.gradients + self.update
        )


def footprint(
    config: StageConfig,
    catalog: Catalog,
    split: Split,
    *,
    on_gpu: bool = False,
    steps: int = 8,
    counted: int = 1,
) -> Footprint:
    """Counts those `counted` of the first `steps` that read the most, and tells the most of each.

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
    reached = [p for p in trained if p.grad is not None]  # an adaptor that no item needs is not
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
    mode: FakeTensorMeter, built: BuiltStage, step: int, config: StageConfig
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
    return forward, mode.peak - fixed, activations, batch.items.numel()


def size_of(tensor: Tensor) -> int:
    return max(SMALLEST, tensor.untyped_storage().nbytes())


def dtypes(precision: str) -> tuple[torch.dtype, bool]:
    """What Lightning's name of a precision computes in, and whether weights stay in float32."""
    known = {"16": torch.float16, "bf16": torch.bfloat16, "64": torch.float64}
    kind, _, how = precision.partition("-")
    return known.get(kind, torch.float32), how == "mixed"


def is_half_precision(precision: str) -> bool:
    """Whether it computes in 16 bits, whatever weights are kept in."""
    return dtypes(precision)[0] in (torch.float16, torch.bfloat16)


def autocast(precision: str) -> Any:
    kind, mixed = dtypes(precision)
    return torch.autocast("cpu", dtype=kind) if mixed else nullcontext()


@contextmanager
def default_dtype(precision: str) -> Iterator[None]:
    """Weights and content are of this kind, unless it is mixed."""
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
    """The parts of a step after the first ones only hand out what they would, without the towers."""
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
            found = true_forward(content)
            like[:] = [type(found), {n: _shape(v) for n, v in vars(found).items()}]
            return found
        rows = len(next(iter(content.values()))["present"])
        tie = 0.0 * next(p for p in encoder.parameters() if p.requires_grad).sum()
        made = {}
        for name, shape in like[1].items():
            if shape is None:
                made[name] = None
            elif shape[1] == torch.bool:
                made[name] = torch.ones(rows, *shape[0], dtype=torch.bool)
            else:
                made[name] = torch.empty(rows, *shape[0], dtype=shape[1]) + tie
        return like[0](**made)

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward


def _shape(value: Tensor | None) -> Any:
    return None if value is None else (value.shape[1:], value.dtype)


@contextmanager
def attention_as_on(gpu: bool) -> Iterator[None]:
    """On a GPU attention with dropout is one kernel, too, which keeps no scores."""
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
    """Modules without content are moved nowhere; torch cannot exchange their weights in place."""

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
