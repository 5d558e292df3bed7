"""Black boxes: a sampler as anybody wrote it, with its noise made an input.

A black box is a callable of one of three kinds, told apart by its arguments and by whether it can be reset:

    step        step(u, tau, h, score) returns the next state and remembers nothing
    multistep   an object with reset() and __call__(u, tau, h, score); reset() is called at the start of each
    trajectory,
                and the next state may depend on anything since
    trajectory  sample(score, u, taus) returns the state at the last of the times taus (N + 1,), a float64 tensor

States u are `(batch, 2, *event)`, position first; tau = T - t and h are floats, and score(u, t) returns grad log p_t(u)
in u's shape, t a float or a tensor of equal times. Gaussians are drawn from torch: `randn`, `randn_like`, `normal`,
`Tensor.normal_`, with or without a generator. A torch function mode intercepts those draws and answers them from a
list, so that the sampler becomes a function of its state and its noise. Anything else that is drawn at random cannot
be made an input: it is refused by name, and draws that bypass torch's functions (numpy, random) are noticed by their
generators' states.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..theory.model import Parameters
from ..theory.scheme import Scheme
from .compiled import compile_step, noise_factor

Score = Callable[[Tensor, "float | Tensor"], Tensor]
Step = Callable[[Tensor, float, float, Score], Tensor]
Trajectory = Callable[[Score, Tensor, Tensor], Tensor]
Sampler = Step | Trajectory
Run = Callable[[Tensor, Score], Tensor]
Draw = Callable[[int, torch.Size], Tensor]


class BlackBoxError(ValueError):
    """A sampler that cannot be verified as it stands; the message says what it does and what would be right."""


_NOBODYS_SEED = 0x5EED_0F_DD


class NotAState(BlackBoxError):
    """What the sampler returned is no state."""


class SamplerRaised(BlackBoxError):
    """The sampler itself raised an error."""


# fmt: off
_UNSUPPORTED = frozenset((
    "rand", "rand_like", "randint", "randint_like", "randperm", "bernoulli", "multinomial", "poisson", "binomial",
    "dropout", "alpha_dropout", "feature_dropout", "rrelu", "gumbel_softmax", "uniform_", "exponential_", "cauchy_",
    "log_normal_", "geometric_", "random_", "bernoulli_",
))
# fmt: on


class NoiseAsInput(TorchFunctionMode):
    """While active, the k-th Gaussian draw is `draw(k, shape)` in its place, float64.

    `shapes` records what was asked for, and `seeds` the states of the generators that were passed: two draws from equal
    states are the same numbers. Raises BlackBoxError on any other random function.
    """

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.draw, self.shapes, self.seeds = draw, list[torch.Size](), list[str]()
        self.touched = False

    def __enter__(self) -> NoiseAsInput:
        # A state that nobody's seed gives: a sampler that seeds torch's own generator before it draws is noticed, also
        # where it puts the state back.
        self._before = torch.get_rng_state()
        torch.default_generator.manual_seed(_NOBODYS_SEED)
        self._start = torch.get_rng_state()
        return super().__enter__()  # type: ignore[return-value]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[arg-type]
        self.touched = not torch.equal(torch.get_rng_state(), self._start)
        torch.set_rng_state(self._before)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _UNSUPPORTED:
            cure = "put the network into eval()" if name.endswith(("dropout", "rrelu")) else "draw from torch.randn"
            raise BlackBoxError(f"the sampler draws from torch.{name}; only Gaussians can be made an input; {cure}")
        if name in ("randn", "randn_like", "normal", "normal_"):
            if kwargs.get("generator") is not None:
                self._advance(kwargs["generator"])
            elif not torch.equal(torch.get_rng_state(), self._start):
                raise BlackBoxError(
                    "the sampler seeds torch's generator before it draws, so the same noise comes again; seed it once, "
                    "before the run"
                )
        if name == "randn":
            size = kwargs.get("size") or (args[0] if args and isinstance(args[0], (tuple, list)) else args)
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
            # torch.nn.init.normal_ comes here under the same name, with its tensor as a keyword
            target, *rest = args or (kwargs["tensor"],)
            mean, std = (*rest, *(None,) * (2 - len(rest)))[:2]
            xi = self._answer(target.shape, target.dtype, target.device, None)
            mean = kwargs.get("mean", 0.0) if mean is None else mean
            std = kwargs.get("std", 1.0) if std is None else std
            with torch.no_grad():
                return target.copy_(xi * std + mean)
        return func(*args, **kwargs)

    def _advance(self, generator: torch.Generator) -> None:
        self.seeds.append(hashlib.sha1(generator.get_state().numpy().tobytes()).hexdigest())
        torch.empty(1, device=generator.device).normal_(generator=generator)

    def _normal(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
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
        value = self._answer(shape, dtype, device, None) * std + mean
        return value if named.get("out") is None else named["out"].copy_(value)

    def _answer(self, shape: torch.Size, dtype: torch.dtype, device: Any, out: Tensor | None) -> Tensor:
        if dtype.is_complex:
            raise BlackBoxError("the sampler draws complex Gaussians, which are not made inputs; draw real ones")
        xi = self.draw(len(self.shapes), shape)
        self.shapes.append(shape)
        value = xi.to(dtype=dtype, device=device)
        return value if out is None else out.copy_(value)


class Kind(StrEnum):
    """What a black box is called like."""

    STEP = "step"
    MULTISTEP = "multistep"
    TRAJECTORY = "trajectory"


def kind_of(sampler: Sampler) -> Kind:
    """The kind of a black box. Raises BlackBoxError if it is none of the three."""
    if not callable(sampler):
        raise BlackBoxError(f"{sampler!r} is not callable; a sampler is a function, or an object with __call__")
    if callable(getattr(sampler, "reset", None)):
        return Kind.MULTISTEP
    try:
        # a torch module's own __call__ takes anything
        parameters = inspect.signature(getattr(sampler, "forward", sampler)).parameters.values()
    except (TypeError, ValueError):
        return Kind.STEP
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return Kind.STEP
    required = sum(p.default is p.empty for p in positional)
    kinds = {3: Kind.TRAJECTORY, 4: Kind.STEP}
    if required in kinds:
        return kinds[required]
    for count, kind in ((4, Kind.STEP), (3, Kind.TRAJECTORY)):
        if required <= count <= len(positional):
            return kind
    raise BlackBoxError(
        f"the sampler takes ({', '.join(p.name for p in parameters)}); it must be step(u, tau, h, score) or "
        "sample(score, u, taus)"
    )


def as_step(sampler: Sampler, tau: float, h: float) -> Run:
    """One step of a black box of kind step."""
    return lambda u, score: cast("Step", sampler)(u, tau, h, score)


def as_trajectory(sampler: Sampler, taus: list[float]) -> Run:
    """A whole run of a black box of any kind over the times taus, reset first where it can be."""
    if kind_of(sampler) is Kind.TRAJECTORY:
        times = torch.tensor(taus, dtype=torch.float64)
        return lambda u, score: cast("Trajectory", sampler)(score, u, times.clone())
    step, reset = cast("Step", sampler), getattr(sampler, "reset", lambda: None)

    def run(u: Tensor, score: Score) -> Tensor:
        reset()
        for tau, later in pairwise(taus):
            before = u.clone()
            result = step(u, tau, later - tau, score)
            _check_state(result, u, before)
            u = result
        return u

    return run


def as_black_box(scheme: Scheme, params: Parameters) -> Step:
    """A scheme as a step like anybody's, with one draw for each of its segments. Raises ValueError where it cannot be
    sampled, as `compile_step`."""

    @lru_cache(maxsize=64)  # whoever probes a step takes it several times
    def segments(tau: float, h: float) -> list[tuple[float | None, list[Tensor]]]:
        return [
            (
                None if time is None else float(time[0]),
                [torch.tensor(entry[0]) for entry in (*flow[:2], noise_factor(flow.noise_cov))],
            )
            for time, flow in compile_step(scheme, np.array([tau, tau + h]), params)
        ]

    def step(u: Tensor, tau: float, h: float, score: Score) -> Tensor:
        for time, matrices in segments(tau, h):
            P, K, C = (matrix.to(u) for matrix in matrices)
            moved = _apply(P, u) if time is None else _apply(P, u) + _apply(K, score(u, time))
            u = moved + _apply(C, torch.randn_like(u))
        return u

    return step


def _apply(matrix: Tensor, u: Tensor) -> Tensor:
    """A matrix (2, 2) on states (batch, 2, *event)."""
    return torch.einsum("ij,bj...->bi...", matrix, u)


class Response(NamedTuple):
    """What a call returned, the shapes it drew, its score evaluations, and the states of the generators it passed."""

    state: Tensor
    shapes: list[torch.Size]
    nfe: int
    seeds: list[str]


def call(run: Run, u: Tensor, score: Score, draw: Draw) -> Response:
    """`run(u, score)` with its noise as an input.

    Raises BlackBoxError if it draws otherwise, changes its input, raises, or returns anything but a state.
    """
    before = u.clone()
    states = _generators()
    count = 0

    def counted(v: Tensor, t: float | Tensor) -> Tensor:
        nonlocal count
        count += 1
        return score(v, t)

    noise = NoiseAsInput(draw)
    try:
        with noise:
            result = run(u, counted)
    except BlackBoxError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise SamplerRaised(f"the sampler raised {type(error).__name__}: {reason}") from error
    for name, state in _generators().items():
        if not _same(states[name], state):
            raise BlackBoxError(f"the sampler draws from {name}, which cannot be made an input; draw from torch.randn")
    if noise.touched:
        raise BlackBoxError(
            "the sampler draws from (or seeds) torch's generator in a way that was not intercepted; use torch.randn"
        )
    _check_state(result, u, before)
    return Response(result, noise.shapes, count, noise.seeds)


def _check_state(result: Any, u: Tensor, before: Tensor) -> None:
    if not isinstance(result, Tensor) or result.shape != before.shape:
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise NotAState(
            f"the sampler returns {found} for a state of shape {tuple(before.shape)}; it must return the next state"
        )
    if result.is_complex():
        raise BlackBoxError("the sampler returns complex numbers; it must return the next state, which is real")
    if not torch.allclose(u, before, rtol=0, atol=0, equal_nan=True):
        raise BlackBoxError("the sampler changes its input in place, or reuses its memory; work on a copy (u.clone())")


def _generators() -> dict[str, Any]:
    return {
        "numpy.random": np.random.get_state(legacy=False),  # noqa: NPY002 - the global state is what is watched
        "the random module": random.getstate(),
    }


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor):
        return torch.equal(old, new)
    if isinstance(old, dict):
        return all(_same(value, new[key]) for key, value in old.items())
    if isinstance(old, np.ndarray):
        return bool(np.array_equal(old, new))
    return bool(old == new)
