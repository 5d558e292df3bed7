"""Black boxes: a sampler's step as anybody wrote it, with its noise made an input.

A black box is a callable `step(u, tau, h, score)` that returns the next state and draws its Gaussians from torch:
`randn`, `randn_like`, `normal`, `Tensor.normal_`, with or without a generator. A torch function mode intercepts those
draws and answers them from a list, so that the step becomes a function of its state and its noise. Anything else that
is drawn at random cannot be made an input: it is refused by name, and draws that bypass torch's functions (numpy,
random) are noticed by their generators' states.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Step = Callable[[Tensor, float, float, Callable[[Tensor, float], Tensor]], Tensor]
Draw = Callable[[int, torch.Size], Tensor]


class BlackBoxError(ValueError):
    """A sampler that cannot be verified as it stands; the message says what it does and what would be right."""


# fmt: off
_UNSUPPORTED = frozenset((
    "rand", "rand_like", "randint", "randint_like", "randperm", "bernoulli", "multinomial", "poisson", "binomial",
    "dropout", "alpha_dropout", "feature_dropout", "rrelu", "gumbel_softmax", "uniform_", "exponential_", "cauchy_",
    "log_normal_", "geometric_", "random_", "bernoulli_",
))
# fmt: on


class NoiseAsInput(TorchFunctionMode):
    """While active, the k-th Gaussian draw is `draw(k, shape)`, standard normal in its place, float64.

    `shapes` records what was asked for. Raises BlackBoxError on any other random function.
    """

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.draw, self.shapes = draw, list[torch.Size]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _UNSUPPORTED:
            raise BlackBoxError(f"the step draws from torch.{name}; only Gaussian draws can be made an input")
        if name == "randn":
            size = kwargs.get("size") or (args[0] if args and not isinstance(args[0], int) else args)
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            return self._answer(torch.Size(size), dtype, kwargs.get("device"), kwargs.get("out"))
        if name == "randn_like":
            like = args[0] if args else kwargs["input"]
            return self._answer(
                like.shape, kwargs.get("dtype") or like.dtype, kwargs.get("device") or like.device, None
            )
        if name == "normal":
            return self._normal(args, kwargs)
        if name == "normal_":
            target, *rest = args
            mean, std = (*rest, *(None,) * (2 - len(rest)))[:2]
            xi = self._answer(target.shape, target.dtype, target.device, None)
            mean = kwargs.get("mean", 0.0) if mean is None else mean
            std = kwargs.get("std", 1.0) if std is None else std
            with torch.no_grad():
                return target.copy_(xi * std + mean)
        return func(*args, **kwargs)

    def _normal(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
        named = dict(zip(("mean", "std", "size"), args, strict=False)) | kwargs
        mean, std = named.get("mean", 0.0), named.get("std", 1.0)
        tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
        size = named.get("size")
        shape = torch.broadcast_shapes(*(t.shape for t in tensors)) if size is None else torch.Size(size)
        dtype = named.get("dtype") or (tensors[0].dtype if tensors else torch.get_default_dtype())
        device = named.get("device") or (tensors[0].device if tensors else None)
        value = self._answer(shape, dtype, device, None) * std + mean
        return value if named.get("out") is None else named["out"].copy_(value)

    def _answer(self, shape: torch.Size, dtype: torch.dtype, device: Any, out: Tensor | None) -> Tensor:
        xi = self.draw(len(self.shapes), shape)
        self.shapes.append(shape)
        value = xi.to(dtype=dtype, device=device)
        return value if out is None else out.copy_(value)


def call_step(
    step: Step, u: Tensor, tau: float, h: float, score: Any, draw: Draw
) -> tuple[Tensor, list[torch.Size], int]:
    """One step with its noise as an input: the next state, the shapes drawn, and how often the score was asked for.

    Raises BlackBoxError if the step draws otherwise, changes its input, or returns another shape or a lower precision.
    """
    before, given = u.clone(), u
    states = _generators()
    count = 0

    def counted(v: Tensor, t: float) -> Tensor:
        nonlocal count
        count += 1
        return score(v, t)

    noise = NoiseAsInput(draw)
    try:
        with noise:
            result = step(given, tau, h, counted)
    except BlackBoxError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BlackBoxError(f"the step raised {type(error).__name__}: {reason}") from error
    for name, (old, new) in {k: (states[k], v) for k, v in _generators().items()}.items():
        if not _same(old, new):
            raise BlackBoxError(f"the step draws from {name}, which cannot be made an input; draw from torch.randn")
    if not isinstance(result, Tensor) or result.shape != before.shape:
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise BlackBoxError(
            f"the step returns {found} for a state of shape {tuple(before.shape)}; it must return the next state"
        )
    if not torch.equal(given, before):
        raise BlackBoxError("the step changes its input in place; work on a copy (u = u.clone())")
    return result, noise.shapes, count


def _generators() -> dict[str, Any]:
    return {
        "numpy.random": np.random.get_state(legacy=False),  # noqa: NPY002 - the global state is what is watched
        "the random module": random.getstate(),
        "a torch generator that was not intercepted": torch.get_rng_state(),
    }


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor):
        return torch.equal(old, new)
    if isinstance(old, dict):
        return all(_same(value, new[key]) for key, value in old.items())
    if isinstance(old, np.ndarray):
        return bool(np.array_equal(old, new))
    return bool(old == new)


def slots(shapes: Sequence[torch.Size], batch: int) -> list[int]:
    """How many Gaussians each draw holds a batch entry. Raises BlackBoxError if a draw has no batch axis."""
    counts = []
    for shape in shapes:
        if not shape or shape[0] != batch:
            raise BlackBoxError(
                f"the step draws noise of shape {tuple(shape)} for a batch of {batch}: a draw that several entries "
                "of the batch share correlates them; draw noise of the state's shape"
            )
        counts.append(int(np.prod(shape[1:])))
    return counts
