"""A stand-in accelerator: tensors of a device of its own, computed on the CPU, checked at each operation.

`register()` makes the device `standin` known to this process (once, and for good, so only in processes of
its own). In the context `StandIn()` a tensor on it wraps one on the CPU: values, shapes that depend on
them, and gradients are real, and an operation on tensors of both devices raises, as it does on a GPU.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
NAME = "standin"
MOVES = {aten._to_copy.default, aten.copy_.default}
"""Operations that may read a tensor of another device."""
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
"""Operations whose indices may be on the CPU."""
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.convolution.default,
}
"""Products with weights, in which the precision of a forward pass shows (attention may sum in float32)."""


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def register() -> torch.device:
    """Makes the device known; returns it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(
        True
    )  # torch.tensor(…, device=…) then copies where a mode sees it
    return torch.device(NAME, 0)


class StandInTensor(Tensor):
    """A tensor on the stand-in device; `values_on_cpu` is what it holds."""

    values_on_cpu: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "StandInTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.values_on_cpu = inner
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"StandInTensor({self.values_on_cpu!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the stand-in device outside of its context")

    def tolist(self) -> Any:
        return self.values_on_cpu.tolist()

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError(f"can't convert {NAME}:0 tensor to numpy; use Tensor.cpu() first")


class StandIn(TorchDispatchMode):
    """Runs operations of stand-in tensors. `products`: (device, dtype) → products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:  # in inference mode autograd has not taken it apart
                return func.decompose(*args, **kwargs)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        on_device = any(isinstance(x, StandInTensor) for x in tensors)
        if on_device:
            _check(func, tensors, args)
        if kwargs.get("device") is not None:
            on_device = torch.device(kwargs["device"]).type == NAME
            kwargs["device"] = torch.device("cpu")
        if func is aten.copy_.default:
            on_device = isinstance(args[0], StandInTensor)
        plain_args, plain_kwargs = tree_map(_unwrapped, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if func in PRODUCTS:
            name = str(result.dtype).removeprefix("torch.")
            self.products[NAME if on_device else "cpu", name] += 1
        if not on_device:
            return result
        returns = func._schema.returns
        if returns and returns[0].alias_info is not None and returns[0].alias_info.is_write:
            return args[0]
        return tree_map(lambda x: StandInTensor(x) if isinstance(x, Tensor) else x, result)


def _check(func: Any, tensors: list[Tensor], args: Any) -> None:
    """RuntimeError where an operation mixes devices; numbers (0-dim), copies and indices may."""
    others = [x for x in tensors if not isinstance(x, StandInTensor) and x.dim()]
    if func in INDEXING and isinstance(args[0], StandInTensor):
        others = [x for x in others if not any(x is index for index in args[1])]
    if others and func not in MOVES:
        shapes = [tuple(x.shape) for x in others]
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, but found {NAME}:0 and cpu {shapes}"
        )


def _unwrapped(value: Any) -> Any:
    return value.values_on_cpu if isinstance(value, StandInTensor) else value
