"""Exact moments of a black box: its maps are read off by probing, then iterated as any scheme's.

On a Gaussian target a sampler is affine in state and noise, u' = R u + b + sum_k C_k xi_k, in one step and in a whole
trajectory; blackbox.probe reads b, R and the columns of C for all targets at once. A step that remembers nothing is
probed step by step; what keeps state is probed as a whole trajectory, whose slots are the draws of all its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...integrators.blackbox import BlackBoxError, Kind, Sampler, Score, as_step, as_trajectory, kind_of
from ...integrators.draws import unwatched
from ...integrators.grids import check_grid
from ...integrators.light_draws import stand_ins
from ...integrators.planes import shape_of
from ...integrators.threads import one_thread
from ..exact import AffineMap, Moments, starting_law
from ..targets import GaussianTarget, point
from ..verdicts import Array
from .probe import Probe

# A step is called twice at this many times, to see that it remembers nothing; later calls would cost more than they
# show.
_REPEATS = 64


def gaussian_score(target: GaussianTarget, event: tuple[int, ...]) -> Callable[[int, int], Score]:
    """The targets' affine scores, for a Probe: each on its own rows; cells that fill up the last event have score 0."""

    def of(rows: int, batch: int) -> Score:
        owned, n = target.mean.size * rows, target.diffusion.size

        def score(u: Tensor, t: float | Tensor) -> Tensor:
            with unwatched():
                check_own_batch(u, batch, event, n)
                slope, centre = (torch.tensor(a, device=u.device) for a in target.affine_score(one_time(t)))
                cells = u.double().reshape(batch, n, -1).transpose(1, 2).reshape(-1, n)
                s = (cells[:owned].reshape(-1, rows, n) - centre) @ slope  # a precision is symmetric
                if owned < len(cells):
                    s = torch.cat([s.reshape(-1, n), cells.new_zeros(len(cells) - owned, n)])
                return s.reshape(batch, -1, n).transpose(1, 2).reshape(u.shape).to(u.dtype)

        return score

    return of


def check_own_batch(u: Tensor, batch: int, event: tuple[int, ...], components: int) -> None:
    """Raises BlackBoxError unless the score is asked for a whole batch of states, in whatever shape of event."""
    whole = (batch, *shape_of(components, event))
    first = len(whole) - len(event)
    if tuple(u.shape[:first]) != whole[:first] or u.numel() != math.prod(whole):
        raise BlackBoxError(
            f"the sampler asks for the score of {tuple(u.shape)} where its states are {whole}; call it on the whole "
            "batch"
        )


def one_time(t: float | Tensor) -> float:
    """The time of a score evaluation, a number or a tensor of equal ones. Raises BlackBoxError on unequal ones."""
    times = torch.as_tensor(t, dtype=torch.float64).reshape(-1) if isinstance(t, Tensor) else None
    first = float(t if times is None else times[0])
    if not math.isfinite(first) or (times is not None and not bool(torch.isfinite(times).all())):
        raise BlackBoxError(f"the sampler asks for the score at t = {first:g}; give it a time")
    if times is not None and not bool((times == first).all()):
        raise BlackBoxError(
            f"the sampler asks for the score at several times in one call, from {float(times.min()):g} to "
            f"{float(times.max()):g}; give it one time"
        )
    return first


def _probe(target: GaussianTarget, event: tuple[int, ...], sampler: Sampler) -> Probe:
    return Probe(target.mean.size, gaussian_score(target, event), event, sampler, target.diffusion.size)


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
        self._probe = _probe(target, event, step)
        self._probe.repeats = True
        self._seeds: set[str] = set()

    @one_thread()
    def __call__(self, tau: float, h: float) -> AffineMap:
        """The map (V,) of the step from tau to tau + h. Raises BlackBoxError, naming the step's time."""
        try:
            self.calls += 1
            run = as_step(self.step, tau, h, self.calls)
            columns = self._probe.columns_of(run, discover=self.calls <= _REPEATS)
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
    probe = _probe(target, event, sampler)
    try:
        columns = probe.columns_of(run)
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
        for each in (target, point(target.params, target.diffusion)):  # its score where most samplers ask, its kernel
            each.keep((target.params.T - taus).tolist())
        if kind_of(sampler) is Kind.STEP:
            probed = ProbedStep(sampler, target, event)
            with stand_ins():
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
