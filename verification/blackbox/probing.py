"""Exact moments of a black box: its maps are read off by probing, then iterated as any scheme's.

On a Gaussian target a sampler is affine in state and noise, u' = R u + b + sum_k C_k xi_k, in one step and in a whole
trajectory. One call on a batch of probes, a zero state, unit states, and a unit in each slot of each draw, gives b, R
and the columns of C for all targets. A step that remembers nothing is probed step by step; what keeps state is probed
as a whole trajectory, whose slots are the draws of all its steps.

Nothing is taken on trust. Further rows, with random states and noises of two sizes, must come out as the affine map
says: a departure of a few float32 roundings is measured and reported, a larger one is refused. The same rows alone, in
another batch and in another call, must come out the same, or entries of the batch mix or state is left over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...integrators.blackbox import (
    BlackBoxError,
    Kind,
    Response,
    Run,
    Sampler,
    SamplerRaised,
    Score,
    as_step,
    as_trajectory,
    call,
    kind_of,
)
from ...integrators.grids import check_grid
from ...integrators.threads import one_thread
from ..exact import AffineMap, Moments, starting_law
from ..targets import GaussianTarget
from ..verdicts import Array

# Rows that check a map: states and noises of size up to 2, and as many of 64 times that size.
_CHECKS, _LARGE = 4, 64
# How well they must agree: float64 steps agree to 1e-13 or so. A few roundings to float32, 2^-24 each, are reported.
_TOLERANCE, _FLOAT32 = 1e-10, 64 * 2.0**-24
# A larger departure that keeps its relative size when states are 64 times larger is coarser rounding, or a branch; that
# of a quadratic term grows 64-fold. One below _FLOAT32 even there moves a state by no more than rounding would.
_GROWTH = 8
# Coordinates (rows times targets) in one call: a few MB of intermediate results.
_BATCH = 1 << 17
# A run that makes a state of size 1 as large as this diverges; float64 keeps no digit of an affine map beyond it.
_OVERFLOW = 1e15
# A step is called twice at this many times, to see that it remembers nothing; later calls would cost more than they
# show.
_REPEATS = 64
_SAME_DRAWS = "draw the same in every call"


class _Checks:
    """The checking rows: states of all bits, which rounding of any kind changes, and noises of so few bits that drawing
    them in a lower precision is not taken for rounding."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)  # any numbers will do
        self.states = self._rng.uniform(-2, 2, (2 * _CHECKS, 2))
        self.states[_CHECKS:] *= _LARGE
        self.noises: list[Array] = []

    def noise(self, k: int, width: int) -> Array:
        """The noise of draw k, (2 _CHECKS, width), the same whenever it is asked for."""
        while len(self.noises) <= k:
            rows = self._rng.integers(-16, 17, (2 * _CHECKS, width)) / 8.0
            rows[_CHECKS:] *= _LARGE
            self.noises.append(rows)
        return self.noises[k]


class Columns(NamedTuple):
    """An affine map read off: u' = offset + rows of `state` times u + rows of `draws` times the numbers drawn.

    offset (V, 2), state (V, 2, 2) and draws (V, width, 2), the last axis that of u'; rounding: its departure from being
    affine where that is float32 rounding, else 0; response: of the call.
    """

    offset: Array
    state: Array
    draws: Array
    rounding: float
    response: Response

    @property
    def map(self) -> AffineMap:
        """As a map whose draws are standard normal; nan if the run overflowed."""
        cov = np.einsum("vki,vkj->ijv", self.draws, self.draws)
        return AffineMap(np.ascontiguousarray(self.state.transpose(2, 1, 0)), np.ascontiguousarray(self.offset.T), cov)


class Probe:
    """A black box as a function of its state and of what it draws; `widths` of its draws, numbers a coordinate, once
    known.

    copies: how many score functions are probed at once, V; score(rows, batch): the score of all of them, for `rows`
    rows each, in a batch of that size. event: the shape of one data point. Raises ValueError on a bad event.
    """

    def __init__(self, copies: int, score: Callable[[int, int], Score], event: tuple[int, ...]) -> None:
        if any(size < 1 for size in event):
            raise ValueError(f"event {event}: the shape of a data point is positive numbers, such as 3,4,4")
        self.copies, self.score, self.event = copies, score, event
        self.checks = _Checks()
        self.widths: list[int] | None = None
        self.alone: Array | None = None
        self.label: object = None
        self.labels: list[object] = []

    def discover(self, run: Run) -> Response:
        """Run the checking rows alone; tells the draws."""
        self.checks.noises.clear()
        widths: list[int] = []

        def noise(k: int, width: int) -> Array:
            widths.append(width)
            return self.checks.noise(k, width)[:_CHECKS]

        # The small ones alone: what is taken of the batch, its mean or its largest entry, is another one then.
        self.alone, response = self._respond(run, self.checks.states[:_CHECKS], noise)
        if self.copies == 1 and not self.event:
            self._check_a_batch_of_one(run)
        if self.widths is not None and widths != self.widths:
            raise BlackBoxError(
                f"the sampler draws {_sizes(widths)}, and {_sizes(self.widths)} in its first call; {_SAME_DRAWS}"
            )
        self.widths = widths
        return response

    def _check_a_batch_of_one(self, run: Run) -> None:
        """A state alone must go where it goes in company."""
        alone = self.alone if self.alone is not None else self.checks.states[None]
        try:
            out, _ = self._respond(run, self.checks.states[:1], lambda k, width: self.checks.noise(k, width)[:1])
        except BlackBoxError as error:
            raise BlackBoxError(f"{error}; another batch went through: is state left over from it?") from error
        error = float(np.abs(out[:, 0] - alone[:, 0]).max() / max(1.0, float(np.abs(out).max())))
        if not error <= _FLOAT32:
            raise BlackBoxError(
                f"the sampler does something else with a batch of one: it differs by {error:.1e}; it mixes the entries "
                "of a batch, as a mean over them does, or branches on their number"
            )

    def read(self, run: Run) -> Columns:
        """The map of `run`, of nan if it diverges. Raises BlackBoxError."""
        widths = self.widths or []
        try:
            out, response = self._respond_in_blocks(run, widths)
        except SamplerRaised as error:
            raise SamplerRaised(f"{error}; another batch went through: is state left over from it?") from error
        width = sum(widths)
        offset, checked = out[:, 0], out[:, 3 + width :]
        columns = out[:, 1 : 3 + width] - offset[:, None]
        if not (np.abs(out) <= _OVERFLOW).all():
            columns, rounding = np.full(columns.shape, math.nan), 0.0
        else:
            given = np.concatenate([self.checks.states, *self.checks.noises[: len(widths)]], axis=1)
            rounding = self._departure(checked, offset[:, None] + given @ columns)
            self._check_alone(checked, rounding)
        return Columns(offset, columns[:, :2], columns[:, 2:], rounding, response)

    def _departure(self, checked: Array, predicted: Array) -> float:
        """0 if the map is affine to float64, the relative departure if that is float32 rounding; raises otherwise."""
        small, large = (
            float(np.abs(checked[:, rows] - predicted[:, rows]).max() / max(1.0, np.abs(checked[:, rows]).max()))
            for rows in (slice(0, _CHECKS), slice(_CHECKS, None))
        )
        worst = max(small, large)
        if worst <= _TOLERANCE:
            return 0.0
        if worst <= _FLOAT32:
            return worst
        kind = "it rounds to half precision, or branches" if large <= _GROWTH * small else "it is nonlinear"
        raise BlackBoxError(
            "the sampler is not an affine map of its state and noise on a Gaussian target: it departs by "
            f"{small:.1e} of its size for states of size 2 and by {large:.1e} for states of size {2 * _LARGE}; {kind}"
        )

    def _check_alone(self, checked: Array, rounding: float) -> None:
        if self.alone is None:
            return
        small = checked[:, :_CHECKS]
        error = float(np.abs(self.alone - small).max() / max(1.0, float(np.abs(small).max())))
        if not error <= max(_TOLERANCE, 4 * rounding):
            raise BlackBoxError(
                f"the sampler gives other results in another batch or when called again: they differ by {error:.1e}; "
                "it mixes the entries of a batch, or keeps state between calls: give it a reset() then"
            )
        self.alone = None

    def _respond_in_blocks(self, run: Run, widths: list[int]) -> tuple[Array, Response]:
        """All probes, in as many calls as their number needs: (V, rows, 2). Row 0 is zero, rows 1 and 2 unit states,
        then come a unit in each slot of each draw, and the checking rows."""
        offsets = np.cumsum([3, *widths])
        checking = int(offsets[-1])  # the first row that checks
        size = max(1, _BATCH // self.copies)
        calls = []
        for first in range(0, checking + 2 * _CHECKS, size):
            rows = np.arange(first, min(first + size, checking + 2 * _CHECKS))
            calls.append(self._respond_block(run, rows, offsets, checking))
        return np.concatenate([out for out, _ in calls], axis=1), calls[0][1]

    def _respond_block(
        self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64], checking: int
    ) -> tuple[Array, Response]:
        check = np.maximum(rows - checking, 0)
        is_check = (rows >= checking)[:, None]

        def noise(k: int, width: int) -> Array:
            if k + 1 >= len(offsets) or width != offsets[k + 1] - offsets[k]:
                raise BlackBoxError(
                    f"draw {k + 1} of the sampler, {width} Gaussians a coordinate, is not that of its first call; "
                    f"{_SAME_DRAWS}"
                )
            unit = rows[:, None] == offsets[k] + np.arange(width)
            return np.where(is_check, self.checks.noise(k, width)[check], unit.astype(float))

        units = (rows[:, None] == np.array([1, 2])).astype(float)
        out, response = self._respond(run, np.where(is_check, self.checks.states[check], units), noise)
        if (count := len(response.shapes)) != (known := len(offsets) - 1):
            raise BlackBoxError(f"the sampler draws {count} times, and {known} times in its first call; {_SAME_DRAWS}")
        return out, response

    def _respond(self, run: Run, states: Array, noise: Callable[[int, int], Array]) -> tuple[Array, Response]:
        """`run` on every row for every target: (V, rows, 2). The rows fill the coordinates of the events."""
        V, rows = self.copies, len(states)
        elements = math.prod(self.event)
        # What fills up the last event, and a batch of at least two, is no zero, nor the same in another call: entries
        # that mix show then.
        batch = max(2, math.ceil(V * rows / elements)) if rows > 1 or V > 1 else 1
        filler = np.random.default_rng(rows)

        def pack(values: Array) -> Tensor:
            width = values.shape[1]
            cells = filler.uniform(-2, 2, (batch * elements, width))
            cells[: V * rows] = np.tile(values, (V, 1))
            return torch.as_tensor(np.ascontiguousarray(cells.reshape(batch, elements, width).transpose(0, 2, 1)))

        def draw(k: int, shape: torch.Size) -> Tensor:
            self.labels.append(self.label)
            self.label = None
            width, rest = divmod(math.prod(shape[1:]), elements)
            if not shape or shape[0] != batch or rest:
                raise BlackBoxError(
                    f"the sampler draws noise of shape {tuple(shape)} for a state of shape {(batch, 2, *self.event)}: "
                    "which numbers belong to which entry cannot be told, or several entries share them; draw noise of "
                    "the state's shape, in one call"
                )
            return pack(noise(k, width)).reshape(shape)

        self.labels.clear()
        response = call(run, pack(states).reshape(batch, 2, *self.event), self.score(rows, batch), draw)
        return self.unpack(response.state, rows), response

    def unpack(self, state: Tensor, rows: int) -> Array:
        """A state `(batch, 2, *event)` as (V, rows, 2)."""
        cells = state.detach().double().clone().numpy(force=True).reshape(len(state), 2, -1).transpose(0, 2, 1)
        return cells.reshape(-1, 2)[: self.copies * rows].reshape(self.copies, rows, 2)


def gaussian_score(target: GaussianTarget, event: tuple[int, ...]) -> Callable[[int, int], Score]:
    """The targets' affine scores, for a Probe: each on its own rows; cells that fill up the last event have score 0."""

    def of(rows: int, batch: int) -> Score:
        fill = batch * math.prod(event) - target.mean.size * rows

        def score(u: Tensor, t: float | Tensor) -> Tensor:
            check_own_batch(u, batch, event)
            law = target.law_at(one_time(t))
            affine = (_on_rows(values, rows, fill) for values in (-target.precision(law), law.mean))
            slope, centre = (torch.as_tensor(values, device=u.device) for values in affine)
            cells = u.double().reshape(batch, 2, -1).transpose(1, 2).reshape(-1, 2)
            s = (slope * (cells.T - centre)).sum(1).T
            return s.reshape(batch, -1, 2).transpose(1, 2).reshape(u.shape).to(u.dtype)

        return score

    return of


def _on_rows(values: Array, rows: int, fill: int) -> Array:
    """Each target's values (..., V) on its rows, and 0 on `fill` more: (..., V rows + fill)."""
    return np.concatenate([np.repeat(values, rows, axis=-1), np.zeros((*values.shape[:-1], fill))], axis=-1)


def check_own_batch(u: Tensor, batch: int, event: tuple[int, ...]) -> None:
    """Raises BlackBoxError unless the score is asked for a whole batch of states, in whatever shape of event."""
    if tuple(u.shape[:2]) != (batch, 2) or u.numel() != 2 * batch * math.prod(event):
        raise BlackBoxError(
            f"the sampler asks for the score of {tuple(u.shape)} where its states are {(batch, 2, *event)}; call it on "
            "the whole batch"
        )


def one_time(t: float | Tensor) -> float:
    """The time of a score evaluation, a number or a tensor of equal ones. Raises BlackBoxError on unequal ones."""
    times = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
    if not bool((times == times[0]).all()):
        raise BlackBoxError(
            f"the sampler asks for the score at several times in one call, from {float(times.min()):g} to "
            f"{float(times.max()):g}; give it one time"
        )
    return float(times[0])


def _sizes(widths: list[int]) -> str:
    return f"{len(widths)} times ({sum(widths)} Gaussians a coordinate)"


class ProbedStep:
    """A black box's step on a batch of Gaussian targets, as affine maps.

    `nfe` counts its score evaluations; `rounding` adds up how far its steps depart from affine maps by rounding to
    float32, relative to their size: 0 for a sampler in float64. event: the shape of one data point, for samplers that
    need one; its elements must not mix.
    """

    def __init__(self, step: Sampler, target: GaussianTarget, event: tuple[int, ...] = ()) -> None:
        if (kind := kind_of(step)) is not Kind.STEP:
            raise BlackBoxError(f"a {kind} has no one-step map of its own; probe its whole trajectory")
        self.step, self.target, self.event = step, target, event
        self.nfe, self.rounding, self.calls = 0, 0.0, 0
        self._probe = Probe(target.mean.size, gaussian_score(target, event), event)
        self._seeds: set[str] = set()

    @one_thread()
    def __call__(self, tau: float, h: float) -> AffineMap:
        """The map (V,) of the step from tau to tau + h. Raises BlackBoxError, naming the step's time."""
        try:
            run = as_step(self.step, tau, h)
            if self.calls < _REPEATS:
                self._probe.discover(run)
            self.calls += 1
            columns = self._probe.read(run)
            self.nfe, self.rounding = self.nfe + columns.response.nfe, self.rounding + columns.rounding
            _check_seeds(columns.response.seeds, self._seeds)
            return columns.map
        except BlackBoxError as error:
            raise BlackBoxError(f"at tau = {tau:.6g}: {error}") from error


@one_thread()
def probed_trajectory(
    sampler: Sampler, target: GaussianTarget, taus: Array, event: tuple[int, ...] = ()
) -> tuple[AffineMap, int, float]:
    """The map (V,) of a whole run over taus (N + 1,), its score evaluations, and its rounding (see `ProbedStep`).

    Any kind of black box; the cost grows as the square of the number of draws. Raises BlackBoxError.
    """
    run = as_trajectory(sampler, np.asarray(taus, dtype=float).tolist())
    probe = Probe(target.mean.size, gaussian_score(target, event), event)
    try:
        probe.discover(run)
        columns = probe.read(run)
        _check_seeds(columns.response.seeds, set())
    except BlackBoxError as error:
        raise BlackBoxError(f"in a run of {len(taus) - 1} steps: {error}") from error
    return columns.map, columns.response.nfe, columns.rounding


@one_thread()
def probed_moments(
    sampler: Sampler,
    target: GaussianTarget,
    taus: Array,
    start: str = "exact",
    event: tuple[int, ...] = (),
    progress: Callable[[Sequence[tuple[float, float]]], Iterable[tuple[float, float]]] = iter,
) -> Moments:
    """Mean and covariance that the black box delivers after the steps of the grid, as `exact_moments` for schemes.

    progress wraps the steps, where they are probed one by one. Raises BlackBoxError if it cannot be verified as it
    stands, ValueError on a bad grid or start.
    """
    taus = check_grid(taus, target.params)
    law = starting_law(target, float(taus[0]), start)
    with np.errstate(over="ignore", invalid="ignore"):
        if kind_of(sampler) is Kind.STEP:
            probed = ProbedStep(sampler, target, event)
            for tau, h in progress(list(zip(taus[:-1].tolist(), np.diff(taus).tolist(), strict=True))):
                law = probed(tau, h).apply(law)
            nfe, rounding = probed.nfe, probed.rounding
        else:
            whole, nfe, rounding = probed_trajectory(sampler, target, taus, event)
            law = whole.apply(law)
    return Moments(law, target.law(target.params.T - taus[-1]), nfe, rounding)


def _check_seeds(seeds: list[str], seen: set[str]) -> None:
    """Two draws from a generator in the same state are the same numbers, which their interception would hide."""
    if len(set(seeds)) < len(seeds) or seen.intersection(seeds):
        raise BlackBoxError(
            "the sampler draws twice from a generator in the same state, so the same noise comes again; seed it once, "
            "before the run"
        )
    seen.update(seeds)
