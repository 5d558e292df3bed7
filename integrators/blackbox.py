"""Black boxes: a sampler as anybody wrote it, with its noise made an input.

A black box is a callable of one of three kinds, told apart by its arguments and by whether it can be reset:

    step        step(u, tau, h, score) returns the next state and remembers nothing
    multistep   an object with reset() and __call__(u, tau, h, score); reset() is called at the start of each
    trajectory,
                and the next state may depend on anything since
    trajectory  sample(score, u, taus) returns the state at the last of the times taus (N + 1,), a float64 tensor

States u are `(batch, n, *event)` of the n components of a diffusion, position first, and `(batch, *event)` of position
alone; tau = T - t and h are floats, and score(u, t) returns grad log p_t(u) in u's shape, t a float or a tensor of
equal times. What a sampler draws from torch is made an input (integrators.draws), so that it becomes a function of its
state and its noise. Anything else that it draws at random cannot be: it is refused, and what it draws from is named by
watching it draw (integrators.other_sources).
"""

from __future__ import annotations

import ctypes
import inspect
import math
import random
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ..theory.model import Parameters
from ..theory.scheme import Scheme
from .compiled import compile_step, noise_factor
from .draws import BlackBoxError as BlackBoxError
from .draws import Draw, NoiseAsInput, unwatched
from .draws import UnseenDraws as UnseenDraws
from .light_draws import LightNoise
from .other_sources import PLAIN, compiled

Score = Callable[[Tensor, "float | Tensor"], Tensor]
Step = Callable[[Tensor, float, float, Score], Tensor]
Trajectory = Callable[[Score, Tensor, Tensor], Tensor]
Sampler = Step | Trajectory
Run = Callable[[Tensor, Score], Tensor]

# Bytes of numpy's MT19937: 624 words and the place of the next.
_MERSENNE_TWISTER = 4 * 624 + 4


class NotAState(BlackBoxError):
    """What the sampler returned is no state."""


class NotFinite(BlackBoxError):
    """The sampler returned, or asked for the score at, what is not finite."""


class SamplerRaised(BlackBoxError):
    """The sampler itself raised an error."""


class Kind(StrEnum):
    """What a black box is called like."""

    STEP = "step"
    MULTISTEP = "multistep"
    TRAJECTORY = "trajectory"


def kind_of(sampler: Sampler) -> Kind:
    """The kind of a black box. Raises BlackBoxError if it is none of the three."""
    if (how := compiled(sampler)) is not None:
        raise BlackBoxError(f"the sampler is compiled by {how}; {PLAIN}")
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


def as_step(sampler: Sampler, tau: float, h: float, number: int = 1) -> Run:
    """One step of a black box of kind step; number: which one of a run it is."""

    def run(u: Tensor, score: Score) -> Tensor:
        where = f"from step {number} on (tau = {tau:.6g}, h = {h:.3g})"
        size = _largest(u)
        result = cast("Step", sampler)(u, tau, h, _watching(score, size, where))
        _check_finite(result, size, where)
        return result

    return run


def _watching(score: Score, size: float, where: str) -> Score:
    """A score that is not asked for at a state that is not finite, in a step from a state of that size."""

    def watching(v: Tensor, t: float | Tensor) -> Tensor:
        _check_finite(v, size, where)
        return score(v, t)

    return watching


def as_trajectory(sampler: Sampler, taus: list[float], kind: Kind | None = None) -> Run:
    """A whole run of a black box of any kind over the times taus, reset first where it can be; kind: where it is
    known, which takes as long to tell as a step."""
    if (kind or kind_of(sampler)) is Kind.TRAJECTORY:
        times = torch.tensor(taus, dtype=torch.float64)
        return lambda u, score: cast("Trajectory", sampler)(score, u, times.clone())
    step, reset = cast("Step", sampler), getattr(sampler, "reset", lambda: None)

    def run(u: Tensor, score: Score) -> Tensor:
        reset()
        size = _largest(u)
        for number, (tau, later) in enumerate(pairwise(taus), 1):
            before = u.clone()
            where = f"from step {number} on (tau = {tau:.6g}, h = {later - tau:.3g})"
            result = step(u, tau, later - tau, _watching(score, size, where))
            _check_state(result, u, before)
            size = _check_finite(result, size, where)
            u = result
        return u

    return run


def as_black_box(scheme: Scheme, params: Parameters) -> Step:
    """A scheme as a step like anybody's, with one draw for each of its segments; with a memory, as an object that
    remembers and has reset(). Raises ValueError where it cannot be sampled, as `compile_step`."""

    @lru_cache(maxsize=4096)  # whoever probes a run takes all of its steps several times
    def segments(*taus: float) -> list[tuple[float | None, list[Tensor], list[Tensor]]]:
        """Of the last step of these times."""
        return [
            (
                None if time is None else float(time[0]),
                [torch.tensor(entry[0]) for entry in (*flow[:2], noise_factor(flow.noise_cov))],
                [] if memory is None else [torch.tensor(memory.reading[0]), *map(torch.tensor, memory.gains[0])],
            )
            for time, flow, memory in compile_step(scheme, np.array(taus), params, len(taus) - 2)
        ]

    if scheme.memory > 1:
        return _Remembering(segments, scheme.memory)

    def step(u: Tensor, tau: float, h: float, score: Score) -> Tensor:
        for time, matrices, _ in segments(tau, tau + h):
            P, K, C = (matrix.to(u) for matrix in matrices)
            moved = _apply(P, u) if time is None else _apply(P, u) + _apply(K, score(u, time))
            u = moved + _apply(C, torch.randn_like(u))
        return u

    return step


class _Remembering:
    """A scheme with a memory of k evaluations as a step of kind multistep."""

    def __init__(self, segments: Callable[..., list[tuple[float | None, list[Tensor], list[Tensor]]]], k: int) -> None:
        self.segments, self.kept = segments, k - 1
        self.reset()

    def reset(self) -> None:
        """Forget the trajectory: before it begins."""
        self.begun: list[float] = []
        self.old: list[Tensor] = []

    def __call__(self, u: Tensor, tau: float, h: float, score: Score) -> Tensor:
        for time, matrices, memory in self.segments(*self.begun, tau, tau + h):
            P, K, C = (matrix.to(u) for matrix in matrices)
            moved = _apply(P, u)
            if time is not None:
                s = score(u, time)
                reading, *gains = (matrix.to(u) for matrix in memory)
                pulls = zip(gains, self.old, strict=False)
                moved = moved + _apply(K, s) + sum((_apply(gain, q) for gain, q in pulls), torch.zeros_like(u))
                n = len(P)
                q = _apply(reading[:, :n], u) + _apply(reading[:, n:], s)
                self.old = [q, *self.old][: self.kept]
            u = moved + _apply(C, torch.randn_like(u))
        self.begun = [*self.begun, tau][-self.kept :]
        return u


def _apply(matrix: Tensor, u: Tensor) -> Tensor:
    """A matrix (n, n) on states (batch, n, *event), or (batch, *event) of one component."""
    return torch.einsum("ij,bj...->bi..." if len(matrix) > 1 else "ij,b...->b...", matrix, u)


class Response(NamedTuple):
    """What a call returned, the shapes it drew, its score evaluations, and the states of the generators it passed."""

    state: Tensor
    shapes: list[torch.Size]
    nfe: int
    seeds: list[str]


def call(run: Run, u: Tensor, score: Score, draw: Draw, by_state: bool = False, light: bool = False) -> Response:
    """`run(u, score)` with its noise as an input; by_state: see `NoiseAsInput`; light: of a sampler that was watched
    before, see `light_draws`.

    Raises BlackBoxError if it draws otherwise, changes its input, raises, or returns anything but a state.
    """
    before = u.clone()
    states = _generators()
    count, largest = 0, float(u.abs().max()) if u.numel() else 0.0

    def counted(v: Tensor, t: float | Tensor) -> Tensor:
        nonlocal count, largest
        count += 1
        largest = max(largest, _check_finite(v, largest, f"in the state of its score evaluation {count}"))
        return score(v, t)

    noise = (LightNoise if light else NoiseAsInput)(draw, by_state)
    try:
        with noise:
            result = run(u, counted)
    except BlackBoxError:
        raise
    except (Exception, SystemExit) as error:
        if _is_of_compiled_code(error):
            raise BlackBoxError(f"the sampler calls code that torch.compile made; {PLAIN}") from error
        reason = " ".join(str(error).split())
        raise SamplerRaised(f"the sampler raised {type(error).__name__}: {reason}") from error
    for name, state in _generators().items():
        if not _same(states[name], state):
            raise UnseenDraws(f"the sampler draws from {name}, which cannot be made an input; draw from torch.randn")
    if noise.touched:
        raise UnseenDraws(
            "the sampler draws from (or seeds) torch's generator in a way that was not intercepted; use torch.randn"
        )
    _check_state(result, u, before)
    _check_finite(result, largest, "after its last score evaluation")
    return Response(result, noise.shapes, count, noise.seeds)


# A state beyond this may overflow in a step; one below it has no reason to.
_MODERATE = 1e100


def _check_finite(state: Tensor, largest: float, where: str) -> float:
    """The largest entry of a state in size, infinite where one is not finite. Raises NotFinite if one is not though all
    before, of size `largest`, were moderate."""
    if not isinstance(state, Tensor):
        return 0.0
    size = _largest(state)
    if size == math.inf and largest <= _MODERATE:
        with unwatched():
            what = "NaN" if bool(torch.isnan(state).any()) else "infinity"
        raise NotFinite(f"the sampler returns {what} {where}")
    return size


def _largest(state: Tensor) -> float:
    """The largest entry in size; infinite where one is not finite."""
    with unwatched():
        numbers = state.detach().abs() if state.is_complex() else state.detach()
        numbers = numbers if numbers.is_floating_point() else numbers.double()
        low, high = map(float, torch.aminmax(numbers)) if numbers.numel() else (0.0, 0.0)  # in one pass; NaN if one is
    return max(-low, high) if low == low else math.inf


def _is_of_compiled_code(error: BaseException) -> bool:
    """Whether an error was raised below torch.compile's own frames."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("torch._dynamo"):
            return True
        trace = trace.tb_next
    return False


def _check_state(result: Any, u: Tensor, before: Tensor) -> None:
    if not isinstance(result, Tensor) or result.shape != before.shape:
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise NotAState(
            f"the sampler returns {found} for a state of shape {tuple(before.shape)}; it must return the next state"
        )
    if result.is_complex():
        raise BlackBoxError("the sampler returns complex numbers; it must return the next state, which is real")
    with unwatched():
        same = torch.equal(u, before) or torch.allclose(u, before, rtol=0, atol=0, equal_nan=True)
    if not same:
        raise BlackBoxError("the sampler changes its input in place, or reuses its memory; work on a copy (u.clone())")


def _generators() -> dict[str, Any]:
    return {"numpy.random": _numpy_state(), "the random module": random.getstate()}


def _numpy_state() -> Any:
    """Of numpy's global generator: its memory, which is read in a hundredth of the time that a copy in Python takes."""
    bits = np.random.get_bit_generator()  # type: ignore[attr-defined] - numpy's stubs lack it
    if isinstance(bits, np.random.MT19937):
        return ctypes.string_at(bits.ctypes.state_address, _MERSENNE_TWISTER)
    return np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is what is watched


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor):
        return torch.equal(old, new)
    if isinstance(old, dict):
        return all(_same(value, new[key]) for key, value in old.items())
    if isinstance(old, np.ndarray):
        return bool(np.array_equal(old, new))
    return bool(old == new)
