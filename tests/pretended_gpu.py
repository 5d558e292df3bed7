"""A GPU that is not there: tensors that say they live on it, with their numbers in the CPU's memory.

`with pretended_gpu() as gpu:` makes the device `gpu.device` usable on a machine without one. Operators on its tensors
run on the CPU, so that values, gradients and `.item()` are real, but what CUDA would refuse is refused (DeviceError):

    tensors of two devices in one operator; allowed are `copy_`, indices on the CPU, and a number (a tensor without
    dimensions) on the CPU in an elementwise operator of two
    numpy arrays of a tensor on the GPU, unless forced
    fused optimisers where weights, gradients and averages differ in strides or dtype
    another GPU than this one: it is number 1 by default, and "cuda" alone, the current device, is number 0

The device has a generator of its own, which `torch.manual_seed` seeds, as CUDA's. `waits` counts what makes the CPU
wait for the device: copies from one to the other, and numbers read off it. Autocast casts as CUDA's lists say, as far
as this project uses them. All kernels are the CPU's, noise and updates by operators of torch on both devices: neither
the time nor the last bits are a GPU's.

To torch itself the tensors are on the meta device: it needs no driver, and autograd knows it on every build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from weakorder.integrators import draws
from weakorder.integrators.kernels import tiers

CPU, INSIDE = torch.device("cpu"), torch.device("meta")
FREE_BYTES = 2 << 30

# From the lists in torch's documentation of autocast: what CUDA computes in the lower precision, and in float32.
_LOWER = {"conv2d", "linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "scaled_dot_product_attention"}
_FLOAT32 = {"group_norm", "log", "exp", "pow", "__pow__", "softmax", "norm", "cumsum", "cdist"}

_COPIES, _READS = {"aten::copy_", "aten::_to_copy"}, {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class DeviceError(RuntimeError):
    """What CUDA would refuse."""


class GPUTensor(Tensor):
    """A tensor that says it is on `place` and holds `value`, on the CPU."""

    value: Tensor
    place: torch.device
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value: Tensor, place: torch.device) -> GPUTensor:
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset()}
        tensor = Tensor._make_wrapper_subclass(cls, value.size(), dtype=value.dtype, device=INSIDE, **layout)
        tensor.value, tensor.place = value, place
        return tensor

    device = property(lambda self: self.place)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise DeviceError(f"{func}: the pretended GPU is gone, or a thread does not know it")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self.place}: {self.value!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy)
        return memo.setdefault(id(self), copy.requires_grad_(self.requires_grad))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.value.__reduce_ex__(protocol)  # a file has no device


class GPU:
    """The pretended device."""

    def __init__(self, index: int) -> None:
        self.device, self.generator, self.waits = torch.device("cuda", index), torch.Generator(), 0

    def translated(self, named: Any) -> Any:
        """What torch is told in place of a device: INSIDE for this one. Raises DeviceError on another GPU."""
        if isinstance(named, str) and named.startswith("cuda"):
            named = torch.device(named)
        if not isinstance(named, torch.device) or named.type != "cuda":
            return named
        if (named.index or 0) != self.device.index:
            raise DeviceError(f"work on {self.device} asks for {named}")
        return INSIDE

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operator, on the CPU. Raises DeviceError where CUDA would refuse it."""
        tensors, theirs = list[Tensor](), dict[int, GPUTensor]()
        asked, name = kwargs.get("device"), func._schema.name

        def inner(value: Any) -> Any:
            if isinstance(value, Tensor):
                tensors.append(value)
                if isinstance(value, GPUTensor):
                    theirs[id(value.value)] = value
                    return value.value
            return CPU if value is asked and value == INSIDE else value

        values, named = _mapped(inner, args), _mapped(inner, kwargs)
        here = bool(theirs) if asked is None else asked == INSIDE
        if theirs:
            check(func, args, tensors)
        if theirs or here:
            ends = {isinstance(tensor, GPUTensor) for tensor in tensors[:2]} | {here}
            masked = name in _INDEXED and any(tensor.dtype == torch.bool for tensor in tensors[1:])
            self.waits += (name in _COPIES and len(ends) == 2) or name in _READS or masked
        random = here and torch.Tag.nondeterministic_seeded in func.tags
        with torch._C.DisableTorchFunction(), self._drawing() if random else nullcontext():
            result = func(*values, **named)

        def back(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return theirs[id(value)] if id(value) in theirs else GPUTensor(value, self.device)

        return _mapped(back, result) if here else result

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """torch's generator is this device's."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)


def check(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raises DeviceError if CUDA would refuse these tensors, of which one or more are on the GPU."""
    name, schema = func._schema.name, func._schema
    if name.startswith("aten::_fused"):
        lists = [[(tensor.dtype, _strides(tensor)) for tensor in each] for each in args[:4]]
        if any(each != lists[0] for each in lists[1:]):
            raise DeviceError(f"{name}: weights, gradients and averages differ in strides or dtype")
    indices = [id(index) for index in args[1]] if name in _INDEXED else []
    strays = [tensor for tensor in tensors if not isinstance(tensor, GPUTensor) and id(tensor) not in indices]
    if name in _COPIES or not strays:
        return
    numbers = (torch.Tag.pointwise in func.tags and len(tensors) == 2) or name == "aten::where"
    written = [id(value) for argument, value in zip(schema.arguments, args, strict=False) if _is_written(argument)]
    if not numbers or any(tensor.ndim or id(tensor) in written for tensor in strays):
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise DeviceError(f"{name}: tensors of two devices, {shapes}")


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _strides(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Of everything in lists, tuples and dictionaries."""
    if type(value) in (list, tuple):
        return type(value)(_mapped(function, entry) for entry in value)
    if type(value) is dict:
        return {name: _mapped(function, entry) for name, entry in value.items()}
    return function(value)


class _Operators(TorchDispatchMode):
    """Sends operators to the GPU."""

    def __init__(self, gpu: GPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.gpu.run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What happens before operators: devices are named, autocast, and a tensor's numbers leave torch."""

    def __init__(self, gpu: GPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, first = getattr(func, "__name__", ""), args[0] if args else None
        if isinstance(first, GPUTensor) and name in ("numpy", "__array__", "tolist"):
            if name != "tolist" and not kwargs.get("force"):
                raise DeviceError(f"{name}: numpy has no tensors on {first.place}; copy it to the CPU")
            self.gpu.waits += 1
            return func(first.value.detach(), *args[1:], **kwargs)
        if "device" in kwargs and torch.device(kwargs["device"] or CPU) == INSIDE:
            with torch._C._DisableTorchDispatch():  # a meta tensor that the caller means
                return func(*args, **kwargs)
        if name == "to":
            args = (first, *(self.gpu.translated(value) for value in args[1:]))
        if "device" in kwargs:
            kwargs["device"] = self.gpu.translated(kwargs["device"])
        if name in ("tensor", "as_tensor") and kwargs.get("device") == INSIDE and not isinstance(first, Tensor):
            return func(*args, **kwargs | {"device": CPU}).to(INSIDE)  # meta would drop the numbers
        if name in _LOWER | _FLOAT32 and torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda") if name in _LOWER else torch.float32
            args, kwargs = _mapped(lambda value: _cast(value, dtype), (args, kwargs))
        if name == "conv2d" and isinstance(first, GPUTensor) and len(args) > 2 and args[2] is not None:
            return func(*args[:2], None, *args[3:], **kwargs) + args[2][:, None, None]  # cuDNN's have no bias
        return func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    eligible = isinstance(value, GPUTensor) and value.is_floating_point() and value.dtype != torch.float64
    return value.to(dtype) if eligible else value


@contextmanager
def pretended_gpu(index: int = 1) -> Iterator[GPU]:
    """A machine with two GPUs, of which the code below should use number `index` alone."""
    gpu, submit = GPU(index), ThreadPoolExecutor.submit

    def waits(device: Any = None) -> None:
        gpu.waits += 1

    def submitted(pool: ThreadPoolExecutor, task: Callable[..., Any], *args: Any) -> Future[Any]:
        def in_thread() -> Any:
            with _Functions(gpu), _Operators(gpu):
                return task(*args)

        return submit(pool, in_thread)

    cuda: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: 2,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "pretended",
        "mem_get_info": lambda *_: (FREE_BYTES, FREE_BYTES),
        "synchronize": waits,
        "manual_seed_all": gpu.generator.manual_seed,
        "get_rng_state": lambda *_: gpu.generator.get_state(),
        "set_rng_state": lambda state, *_: gpu.generator.set_state(state),
    }
    with ExitStack() as stack:
        for name, function in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        stack.enter_context(mock.patch.object(ThreadPoolExecutor, "submit", submitted))
        stack.enter_context(mock.patch.object(tiers, "_problem", lambda package: f"no {package} is pretended"))
        stack.enter_context(mock.patch.object(draws, "_NO_MODES", nullcontext))  # the pretended device is such a mode
        stack.enter_context(_Functions(gpu))
        stack.enter_context(_Operators(gpu))
        yield gpu
