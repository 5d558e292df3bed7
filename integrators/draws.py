"""Random draws as inputs: what a sampler draws from torch is answered from a list.

A torch function mode intercepts every draw. Gaussians (`randn`, `randn_like`, `normal`, `Tensor.normal_`), uniform
numbers (`rand`, `rand_like`, `uniform_`), integers (`randint`, `randint_like`, `random_`) and coins (`bernoulli`,
`bernoulli_`) are made inputs, each with its law; what else is drawn is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor
from torch.overrides import TorchFunctionMode


class BlackBoxError(ValueError):
    """A sampler that cannot be verified as it stands; the message says what it does and what would be right."""


class UnseenDraws(BlackBoxError):
    """Draws that were not intercepted, though they left a trace."""


class Law(NamedTuple):
    """The law of one number drawn: from which function of torch, and, unless it is a Gaussian that a sampler uses
    linearly, numbers (n,) that stand for it, with weights (n,) of sum 1.

    cells: 0 where these numbers are all that can be drawn. Else they are five each of so many parts of equal
    probability, two of them of weight 0 at the ends, and stand for all in functions that are constant on each part,
    or, where is_uniform, linear there, up to moments of degree 5.
    """

    source: str
    nodes: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    cells: int = 0
    is_uniform: bool = False


# Two-, three-, four-, six- and twelve-point laws have their steps at the ends of these parts.
_CELLS = 12
# Gauss-Legendre with three points, and the two ends.
_PLACES = (1e-6, 0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5, 1 - 1e-6)
_SHARES = (0.0, 5 / 18, 8 / 18, 5 / 18, 0.0)
_MOST = 64
# One integer out of more than these is a seed for a generator.
_A_SEED = 1 << 20
NORMAL = Law("randn")


@cache
def _uniform_nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes = (np.arange(_CELLS)[:, None] + np.array(_PLACES)).ravel() / _CELLS
    return nodes, np.tile(_SHARES, _CELLS) / _CELLS


def uniform(source: str) -> Law:
    """Uniform numbers in [0, 1)."""
    return Law(source, *_uniform_nodes(), _CELLS, True)


def stepwise_normal(source: str = "randn") -> Law:
    """A standard normal of which a sampler takes a function that is constant on parts of equal probability."""
    nodes, weights = _uniform_nodes()
    return Law(source, ndtri(nodes), weights, _CELLS)


def integers(source: str, low: int, high: int) -> Law:
    """Of low to high - 1, equally. Raises BlackBoxError if those are too many to try each."""
    if not 0 < high - low <= _MOST:
        raise BlackBoxError(
            f"the sampler draws one of {high - low} integers from torch.{source}; up to {_MOST} are tried one by one"
        )
    return Law(source, np.arange(low, high, dtype=float), np.full(high - low, 1 / (high - low)))


def coin(source: str, p: float) -> Law:
    """1 with probability p, else 0."""
    return Law(source, np.array([0.0, 1.0]), np.array([1 - p, p]))


Draw = Callable[[int, torch.Size, Law], Tensor]

_FUNCTORCH: Any = torch._C.__dict__["_functorch"]
# Draws of one call: those of 64 entries that draw for themselves, over the finest level of a study.
_MOST_DRAWS = 110_000
_NOBODYS_SEED = 0x5EED_0F_DD
# fmt: off
_UNSUPPORTED = frozenset((
    "randperm", "multinomial", "poisson", "binomial", "dropout", "alpha_dropout", "feature_dropout", "rrelu",
    "gumbel_softmax", "exponential_", "cauchy_", "log_normal_", "geometric_",
))
_DRAWS = frozenset((
    "randn", "randn_like", "normal", "normal_", "rand", "rand_like", "uniform_", "randint", "randint_like", "random_",
    "bernoulli", "bernoulli_",
))
# fmt: on
WATCHED = _UNSUPPORTED | _DRAWS
_NO_MODES: Callable[[], Any] = torch._C.DisableTorchFunction


def unwatched() -> Any:
    """A context for what is ours in a sampler's call: it draws nothing, and torch's function modes are off."""
    return _NO_MODES()


class NoiseAsInput(TorchFunctionMode):
    """While active, the k-th draw is `draw(k, shape, law)` in its place, float64.

    `shapes` records what was asked for, and `seeds` the states of the generators that were passed: two draws from equal
    states are the same numbers. by_state: then the second is no draw but the first again, as in a Brownian tree, which
    seeds a generator for each of its nodes and draws it anew; and one integer of a range too wide to try is a seed,
    which decides nothing. Raises BlackBoxError on any other random function.
    """

    def __init__(self, draw: Draw, by_state: bool = False) -> None:
        super().__init__()
        self.draw, self.shapes, self.seeds = draw, list[torch.Size](), list[str]()
        self.by_state, self._given = by_state, dict[tuple[str, torch.Size, str], Tensor]()
        self._state = ""
        self.touched = False

    def __enter__(self) -> NoiseAsInput:
        self.begin()
        return super().__enter__()  # type: ignore[return-value]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[arg-type]
        self.end()

    def begin(self) -> None:
        """Note where torch's own generator stands."""
        # A state that nobody's seed gives: a sampler that seeds torch's own generator before it draws is noticed, also
        # where it puts the state back.
        self._before = torch.get_rng_state()
        torch.default_generator.manual_seed(_NOBODYS_SEED)
        self._start = torch.get_rng_state()

    def end(self) -> None:
        """See whether it was moved, and put it back."""
        self.touched = not torch.equal(torch.get_rng_state(), self._start)
        torch.set_rng_state(self._before)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name not in WATCHED:  # a hundred calls a step come this way
            return func(*args, **kwargs) if kwargs else func(*args)
        return self.answer(name, args, dict(kwargs or {}))

    def answer(self, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """What a random function of torch returns in its place, `WATCHED`. Raises BlackBoxError."""
        if name in _UNSUPPORTED:
            cure = "put the network into eval()" if name.endswith(("dropout", "rrelu")) else "draw from torch.randn"
            raise BlackBoxError(f"the sampler draws from torch.{name}, which cannot be made an input; {cure}")
        self._state = ""
        if kwargs.get("generator") is not None:
            self._advance(kwargs["generator"])
        elif not torch.equal(torch.get_rng_state(), self._start):
            raise UnseenDraws(
                "the sampler seeds torch's generator before it draws, so the same noise comes again; seed it once, "
                "before the run"
            )
        return getattr(self, f"_{name.removesuffix('_like').rstrip('_')}")(name, args, kwargs)

    def _randn(self, name: str, args: Any, kwargs: Any) -> Any:
        return self._made(name, args, kwargs, NORMAL)

    def _rand(self, name: str, args: Any, kwargs: Any) -> Any:
        return self._made(name, args, kwargs, uniform(name))

    def _randint(self, name: str, args: Any, kwargs: Any) -> Any:
        like, rest = ((args[0], args[1:]) if name.endswith("_like") else (None, args)) if args else (None, ())
        numbers = [value for value in rest if isinstance(value, int)]
        sizes = [value for value in rest if not isinstance(value, int)]
        low, high = (numbers if len(numbers) == 2 else (0, *numbers)) if numbers else (0, None)
        low, high = int(kwargs.pop("low", low)), int(kwargs.pop("high", high))
        kwargs.setdefault("dtype", torch.int64 if like is None else like.dtype)
        if (
            self.by_state
            and high - low > _A_SEED
            and like is None
            and not [*kwargs.get("size", sizes[0] if sizes else ())]
        ):
            return torch.full((), low, dtype=kwargs["dtype"])
        law = integers(name, low, high)
        return self._made(name, (like,) if like is not None else sizes, kwargs, law)

    def _bernoulli(self, name: str, args: Any, kwargs: Any) -> Any:
        target = args[0] if args else kwargs["input"]
        p = kwargs.get("p", args[1] if len(args) > 1 else 0.5 if name == "bernoulli_" else target)
        chances = torch.as_tensor(p, dtype=torch.float64)
        if not bool((chances == chances.reshape(-1)[0]).all()):
            raise BlackBoxError(f"the sampler draws from torch.{name} with unequal probabilities; draw with one")
        law = coin(name, float(chances.reshape(-1)[0]))
        value = self._answer(target.shape, target.dtype, target.device, kwargs.get("out"), law)
        return target.copy_(value) if name == "bernoulli_" else value

    def _uniform(self, name: str, args: Any, kwargs: Any) -> Any:
        target, *rest = args or (kwargs["tensor"],)
        low, high = (*rest, *(None,) * (2 - len(rest)))[:2]
        low = kwargs.get("a", kwargs.get("from", 0.0)) if low is None else low
        high = kwargs.get("b", kwargs.get("to", 1.0)) if high is None else high
        value = self._answer(target.shape, target.dtype, target.device, None, uniform(name))
        with torch.no_grad():
            return target.copy_(low + (high - low) * value)

    def _random(self, name: str, args: Any, kwargs: Any) -> Any:
        target, *numbers = args
        low, high = numbers if len(numbers) == 2 else (0, *numbers) if numbers else (0, 2**24)
        law = integers(name, int(kwargs.get("from", low)), int(kwargs.get("to", high)))
        return target.copy_(self._answer(target.shape, target.dtype, target.device, None, law))

    def _made(self, name: str, args: Any, kwargs: Any, law: Law) -> Tensor:
        """A new tensor of a size, or like another."""
        if name.endswith("_like"):
            like = args[0] if args else kwargs["input"]
            dtype = kwargs.get("dtype") or like.dtype
            return self._answer(like.shape, dtype, kwargs.get("device") or like.device, None, law)
        size = kwargs.get("size") or (args[0] if args and isinstance(args[0], (tuple, list)) else args)
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return self._answer(torch.Size(size), dtype, kwargs.get("device"), kwargs.get("out"), law)

    def _advance(self, generator: torch.Generator) -> None:
        self._state = str(hash(generator.get_state().numpy().tobytes()))  # 5 KB, at each draw
        self.seeds.append(self._state)
        torch.empty(1, device=generator.device).normal_(generator=generator)

    def _normal(self, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        if name == "normal_":
            # torch.nn.init.normal_ comes here under the same name, with its tensor as a keyword
            target, *rest = args or (kwargs["tensor"],)
            mean, std = (*rest, *(None,) * (2 - len(rest)))[:2]
            xi = self._answer(target.shape, target.dtype, target.device, None, NORMAL)
            mean = kwargs.get("mean", 0.0) if mean is None else mean
            std = kwargs.get("std", 1.0) if std is None else std
            with torch.no_grad():
                return target.copy_(xi * std + mean)
        named = dict(zip(("mean", "std", "size"), args, strict=False)) | kwargs
        mean, std = named.get("mean", 0.0), named.get("std", 1.0)
        deviations = torch.as_tensor(std)
        if bool((deviations < 0).any()):
            raise BlackBoxError(f"the sampler asks torch.normal for std = {float(deviations.min()):g}; it must be >= 0")
        tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
        size = named.get("size")
        shape = torch.broadcast_shapes(*(t.shape for t in tensors)) if size is None else torch.Size(size)
        dtype = named.get("dtype") or (tensors[0].dtype if tensors else torch.get_default_dtype())
        device = named.get("device") or (tensors[0].device if tensors else None)
        value = self._answer(shape, dtype, device, None, NORMAL) * std + mean
        return value if named.get("out") is None else named["out"].copy_(value)

    def _answer(self, shape: torch.Size, dtype: torch.dtype, device: Any, out: Tensor | None, law: Law) -> Tensor:
        if dtype.is_complex:
            raise BlackBoxError("the sampler draws complex Gaussians, which are not made inputs; draw real ones")
        if len(self.shapes) >= _MOST_DRAWS:
            raise BlackBoxError(
                f"the sampler draws {_MOST_DRAWS:,} times in one call and goes on, as a loop does that "
                "rejects draws until it is content; draw from torch.randn, as often in every call"
            )
        over = _over_entries()
        whole = shape if over is None else torch.Size((over[0], *shape))
        key = (self._state, whole, law.source)
        if self.by_state and key in self._given:
            xi = self._given[key].clone()
        else:
            xi = self.draw(len(self.shapes), whole, law)
            self.shapes.append(whole)
            if self.by_state and self._state:
                self._given[key] = xi.clone()
        value = xi.to(dtype=dtype, device=device)
        if over is not None:
            value = _FUNCTORCH._add_batch_dim(value, 0, over[1])
        return value if out is None else out.copy_(value)


def _over_entries() -> tuple[int, int] | None:
    """Inside torch.vmap, how many entries it goes over and its level, where each of them draws numbers of its own.

    Raises BlackBoxError where vmaps are nested, or have no rule for randomness.
    """
    if _FUNCTORCH.maybe_current_level() is None:
        return None
    from torch._functorch.pyfunctorch import VmapInterpreter, retrieve_current_functorch_interpreter

    interpreter = retrieve_current_functorch_interpreter()
    if not isinstance(interpreter, VmapInterpreter):
        return None
    randomness = interpreter.randomness()
    if randomness == "error":
        raise BlackBoxError("the sampler draws inside torch.vmap, which needs randomness='different'")
    if interpreter.level() > 1:
        raise BlackBoxError("the sampler draws inside nested torch.vmaps; draw outside of them")
    return (interpreter.batch_size(), interpreter.level()) if randomness == "different" else None
