"""Fake tensors, with shapes and no content: a training step runs on them, and its memory is counted.

Formulas for a model's memory are one more copy of the model, and go wrong with every tower that is
not BERT. Here the step itself is taken, its forward and backward pass and its optimiser, on tensors
whose storages are only recorded. Whole numbers keep their content (which items are in a batch, which
slots follow each other), so code that branches on them takes the real branch. A mask that is computed
from fake values counts as true everywhere: the result is then an upper bound.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
GRADIENTS, ACTIVATIONS = "gradients", "activations"
SMALLEST = 64
"""Bytes that the smallest tensor takes of an allocator."""


class FakeTensorMeter(TorchDispatchMode):
    """Context in which new floating-point tensors are fake, and the bytes of all tensors are counted.

    `live` holds bytes by what they are for: `ACTIVATIONS` until `name` says otherwise. `peak` is the most
    there were at once since `begin`; `peak_activations` that of those with no other name.
    """

    def __init__(self, hollow: bool = True) -> None:
        """`hollow` False: tensors are real, and only counted."""
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True) if hollow else None
        self.live: Counter[str] = Counter()
        self.total = 0
        self.names: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.begin()

    def begin(self) -> None:
        """Resets the peaks."""
        self.peak = self.total
        self.peak_activations = self.live[ACTIVATIONS]
        self.at_peak = Counter(self.live)

    def name(self, tensors: Iterable[Tensor], name: str) -> int:
        """Counts the storages of `tensors` as `name` from now on; returns their bytes."""
        before = self.live[name]
        for tensor in tensors:
            storage = tensor.untyped_storage()
            entry = self.names.get(storage)
            if entry is None:
                self._keep(tensor, name)
            elif entry[0] != name:
                self.live[entry[0]] -= entry[1]
                entry[0] = name
                self.live[name] += entry[1]
        return self.live[name] - before

    def follow(self, parameters: Iterable[Tensor]) -> None:
        """Counts the gradients of `parameters` as gradients once they exist."""
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._named_gradient)

    def _named_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.name([parameter.grad], GRADIENTS)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = self._run(func, args, kwargs or {})
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor):
                self._keep(tensor, ACTIVATIONS)
        return result

    def _keep(self, tensor: Tensor, name: str) -> None:
        storage = tensor.untyped_storage()
        if storage in self.names:
            return
        size = storage.nbytes()
        size = max(SMALLEST, size) if size else 0
        entry = [name, size]
        self.names[storage] = entry
        weakref.finalize(storage, self._gone, entry)
        self.live[name] += size
        self.total += size
        if self.total > self.peak:
            self.peak, self.at_peak = self.total, Counter(self.live)
        self.peak_activations = max(self.peak_activations, self.live[ACTIVATIONS])

    def _gone(self, entry: list[Any]) -> None:
        self.live[entry[0]] -= entry[1]
        self.total -= entry[1]

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.fake is None:
            return func(*args, **kwargs)
        flat, shape = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, Tensor)]
        if not any(isinstance(x, FakeTensor) for x in tensors):
            return self._without_hollow(func, args, kwargs, bool(tensors))
        if func in ANSWERS:
            return ANSWERS[func](*args, **kwargs)
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            flat, shape = tree_flatten(((args[0], _by_numbers(args[1]), *args[2:]), kwargs))
        args, kwargs = tree_unflatten(flat, shape)
        written = kwargs.get("out", args[0] if args else None)
        known = isinstance(written, Tensor) and not isinstance(written, FakeTensor)
        if known and func._schema.is_mutable:
            return written  # what is known stays as it is
        with self.fake:
            return func(*args, **kwargs)

    def _without_hollow(self, func: Any, args: Any, kwargs: Any, of_tensors: bool) -> Any:
        assert self.fake is not None
        if not of_tensors:
            with self.fake:
                result = func(*args, **kwargs)
            if any(x.is_floating_point() for x in tree_flatten(result)[0] if isinstance(x, Tensor)):
                return result
        return tree_map_only(Tensor, self._hollowed, func(*args, **kwargs))

    def _hollowed(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or isinstance(tensor, FakeTensor):
            return tensor
        assert self.fake is not None
        return self.fake.from_tensor(tensor)


def _everywhere(mask: Tensor) -> Tensor:
    """int64 (n, dimensions): the true positions of a mask; all positions where its values are unknown."""
    if isinstance(mask, FakeTensor):
        mask = torch.ones(mask.shape, dtype=torch.bool)
    return aten.nonzero.default(mask)


def _by_numbers(indices: Any) -> list[Tensor | None]:
    """Indices with masks replaced by positions, whose number a shape does not determine."""
    expanded: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            expanded += _everywhere(index).unbind(1)
        else:
            expanded.append(index)
    return expanded


def _number(tensor: Tensor) -> Any:
    """The number that stands for an unknown value: 1, or False for booleans (an initialisation that draws
    again while any value is out of bounds would never end)."""
    if tensor.dtype == torch.bool:
        return False
    return 1.0 if tensor.is_floating_point() else 1


def _masked_select(values: Tensor, mask: Tensor) -> Tensor:
    return aten.index.Tensor(values, list(_everywhere(mask).unbind(1)))


ANSWERS = {
    aten._local_scalar_dense.default: _number,
    aten.nonzero.default: _everywhere,
    aten.masked_select.default: _masked_select,
    aten.is_nonzero.default: _number,
    aten.equal.default: lambda one, other: one.shape == other.shape,
}
"""Operation → function that answers it where it reads values that a fake tensor does not have."""


@contextmanager
def fake_weights() -> Iterator[FakeTensorMeter]:
    """Modules built in this context have fake weights, and the memory of steps is counted."""
    with FakeTensorMeter() as mode:
        yield mode
