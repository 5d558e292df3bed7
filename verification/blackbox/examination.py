"""All that short runs say of a black box: what is wrong with it, and what it rounds.

Consistency (blackbox.consistency) is of first order in h and of the limit h -> 0. Further:

increments   weak schemes draw discrete increments; of what these add to the state order 1 needs the third
             cumulant of size O(h^2), order 2 also the fourth and the fifth smaller than h^2 and h^5/2
             (Kloeden and Platen 1992, section 14.2), which laws of two and of three points have
curvature    the second derivative of the score enters E u' through the noise of the states where scores are taken:
             sum_k K_k (x) Cov_k / h^2 -> G (x) D / 2 for weak order 2, the one condition of it that affine scores do
             not see
step sizes   the parts of a step are smooth functions of h: where one jumps, a branch on h is found by bisection
rounding     a score is asked for at t = T - tau - c h: times that lie on a grid instead, and constants of the noise
             that jump between neighbouring h
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ...integrators.blackbox import Kind, Sampler, kind_of
from ...theory.model import PSLD_DIFFUSION, Parameters
from ..verdicts import Array, extrapolate
from .anatomy import NAMES, Anatomy, dissect
from .consistency import LENGTHS, LONGER, STEPS, Spot, departures, look, reference

# A normalised cumulant that is this large is none of rounding, and a limit that is off by so much of its size.
_MOMENT, _CURVATURE = 1e-4, 1e-3
# Where a branch on the step size is looked for, and how often an interval is halved to find one.
_JUMP_TAU, _SIZES, _HALVINGS = 0.4, tuple(2.0**-k for k in range(3, 13)), 24
# A jump, of the largest entry of a part; and what a float64 step's noise covariance may be rough by, some thousand
# roundings of 2^-53.
_JUMP, _ROUGH = 1e-4, 1e-12
# Neighbouring step sizes, relative: closer to each other they would be the same in float32.
_NEAR = 1e-4
# Off by more than float32, a score's time is rounded if all lie on a grid of at most so many times.
_TIME, _FINEST = 4 * 2.0**-24, 20_000


class Examination(NamedTuple):
    """Sentences: problems refute the sampler, rounding says how it rounds and from where on that shows; and whether the
    conditions of the order were checked for every score."""

    problems: tuple[str, ...]
    rounding: tuple[str, ...]
    any_score: bool


def examine(sampler: Sampler, params: Parameters, order: int, event: tuple[int, ...] = ()) -> Examination:
    """What short runs say of a black box that is held to an order. Raises BlackBoxError if it cannot be probed."""
    is_step = kind_of(sampler) is Kind.STEP
    spots = look(sampler, params, event, (1,) if is_step else STEPS)
    rounded, spots = _times(spots, params)
    single = any(run.rounding for spot in spots for run in spot.runs)  # reported with its size by the study
    rough, roughness = _rough(sampler, event) if is_step and not single else (0.0, "")
    wrong = departures(spots, params, rough)
    if wrong and not is_step:
        # what a run of twice, four times as many steps does not show is a start or an end that takes a few steps
        longer = _times(look(sampler, params, event, LONGER), params)[1]
        lasting = {fault.what for fault in departures(longer, params)}
        wrong = [fault for fault in wrong if fault.what in lasting]
    problems = [f"not consistent: {fault}" for fault in wrong]
    problems += [] if wrong else _increments(spots, order)
    rounding = [text for text in (rounded, roughness) if text]
    any_score = order == 1
    if is_step and not wrong:
        problems += _branches(sampler, event)
        if order >= 2 and not problems:
            problems += _curvature(spots, params, order)
            any_score = order == 2
    return Examination(tuple(problems), tuple(rounding), any_score)


# --- Increments -------------------------------------------------------------------------------------------------------


def _increments(spots: Sequence[Spot], order: int) -> list[str]:
    """What discrete increments lack for the order."""
    found = []
    for i, name in enumerate(NAMES):
        for degree, needed, size in ((3, 1, "0"), (4, 2, "3"), (5, 2, "0")):
            if order < needed:
                continue
            limits = [_moment_limit(spot, i, degree) for spot in spots]
            worst = max(limits, key=abs)
            if abs(worst) > _MOMENT:
                ordinal = {3: "third", 4: "fourth", 5: "fifth"}[degree]
                found.append(
                    f"the {ordinal} moment of the increments of {name} is {worst + 3 * (degree == 4):.4g} where order "
                    f"{needed} needs {size}, in units of their standard deviation"
                )
    return found[:1]


def _moment_limit(spot: Spot, i: int, degree: int) -> float:
    """The cumulant of component i's increments over the deviation's power, as h -> 0; 0 for Gaussians."""
    values = [_cumulant(run, i, degree) for run in spot.runs]
    if not any(values):
        return 0.0
    limit, unsure = extrapolate(spot.lengths, [np.array([value]) for value in values])
    return float(limit[0]) if abs(float(limit[0])) > 4 * unsure else 0.0


def _cumulant(run: Anatomy, i: int, degree: int) -> float:
    total = 0.0
    for weights, values in run.increments:
        m = {power: float(weights @ values[:, i] ** power) for power in (2, 3, 4, 5)}
        total += {3: m[3], 4: m[4] - 3 * m[2] ** 2, 5: m[5] - 10 * m[3] * m[2]}[degree]
    variance = float(run.noise_cov[i, i])
    return total / variance ** (degree / 2) if variance > 0 else 0.0


# --- The second derivative of the score -------------------------------------------------------------------------------


def _curvature(spots: Sequence[Spot], params: Parameters, order: int) -> list[str]:
    """What of order 2 is missed where the score is not affine."""
    _, G, D = PSLD_DIFFUSION.reverse().numbers(params.values())
    for spot in spots:
        if spot.lengths != LENGTHS:
            continue
        beta = params.beta(params.T - spot.tau)
        rates = spot.rates()
        held = reference(rates["gain"][0][None], rates["noise"][0][None], beta * G[None], beta * D[None])
        wanted = np.einsum("ij,kl->ijkl", held["gain"][0], held["noise"][0]) / 2
        terms = [
            np.einsum("nij,nkl->ijkl", run.gains, np.array([place.noise_cov for place in run.places]).reshape(-1, 2, 2))
            for run in spot.runs
        ]
        limit, unsure = extrapolate(spot.lengths, [t / h**2 for t, h in zip(terms, spot.lengths, strict=True)])
        size = float(np.abs(np.einsum("ij,kl->ijkl", held["gain"][0], beta * D)).max()) / 2
        off = np.abs(limit - wanted)
        if off.max() > max(_CURVATURE * size, 4 * unsure):
            i, j, k, m = np.unravel_index(int(off.argmax()), off.shape)
            have, want = float(limit[i, j, k, m]), float(wanted[i, j, k, m])
            how = (
                f"{have / want:.4g} times what order {order} needs"
                if want
                else f"{have:.4g} where order {order} needs 0"
            )
            return [
                f"of order 1 where the score is not affine: the weight of its second derivative in {NAMES[k]} and "
                f"{NAMES[m]} is {how} (noise in the states where scores are taken)"
            ]
    return []


# --- Step sizes -------------------------------------------------------------------------------------------------------


def _parts(sampler: Sampler, event: tuple[int, ...], h: float) -> Array:
    """Drift, gain, noise (each over h) and offset of a step, (16,), and where its scores are conditioned."""
    run = dissect(sampler, np.array([_JUMP_TAU, _JUMP_TAU + h]), event)
    rates = [(run.propagator - np.eye(2)) / h, run.gains.sum(0) / h, run.noise_cov / h, run.offset / h]
    return np.concatenate([np.ravel(rate) for rate in rates])


_PARTS = (
    *(f"the drift of {i} by {j}" for i in NAMES for j in NAMES),
    *(f"the gain of {i} from s_{j}" for i in NAMES for j in NAMES),
    *(f"the noise covariance of {i} and {j}" for i in NAMES for j in NAMES),
    *(f"the constant drift of {i}" for i in NAMES),
)


def _branches(sampler: Sampler, event: tuple[int, ...]) -> list[str]:
    """Where a part of the step jumps with the step size, by more than what it differs by from its limit there."""
    values = np.array([_parts(sampler, event, h) for h in _SIZES])
    scale = max(1.0, float(np.abs(values[-1]).max()))
    steps = np.abs(np.diff(values, axis=0))
    # a smooth part changes less from one size to the half of it than it did before
    for k in range(len(steps)):
        before = steps[k - 1] if k else 4 * steps[1]
        suspicious = np.flatnonzero(steps[k] > before + _JUMP * scale)
        for part in suspicious[:1]:
            long, short = _SIZES[k], _SIZES[k + 1]
            ends = {h: float(_parts(sampler, event, h)[part]) for h in (long, short)}
            for _ in range(_HALVINGS):
                middle = (long + short) / 2
                ends[middle] = float(_parts(sampler, event, middle)[part])
                longer_half = abs(ends[long] - ends[middle]) > abs(ends[middle] - ends[short])
                long, short = (long, middle) if longer_half else (middle, short)
            jump, limit = abs(ends[long] - ends[short]), float(values[-1][part])
            if jump > max(_JUMP * scale, 4 * abs(ends[short] - limit)):
                how = f"{ends[long] / ends[short]:.4g} times" if abs(ends[short]) > 1e-12 else f"{ends[long]:.4g}, not"
                return [
                    f"not consistent: {_PARTS[part]} jumps with the step size: in steps longer than {short:.4g} it is "
                    f"{how} what it is in shorter ones"
                ]
    return []


# --- Rounding ---------------------------------------------------------------------------------------------------------


def _rough(sampler: Sampler, event: tuple[int, ...]) -> tuple[float, str]:
    """How far the noise covariance of a step jumps between neighbouring step sizes, 0 if it does not; in words."""
    rough, text = 0.0, ""
    for h in (2.0**-6, 2.0**-9, 2.0**-12):
        runs = [dissect(sampler, np.array([_JUMP_TAU, _JUMP_TAU + h * (1 + _NEAR * j)]), event) for j in range(6)]
        values = np.array([run.noise_cov for run in runs])
        for i, name in enumerate(NAMES):
            # fourth differences: of a smooth part some 1e-16, of rounding six times what it is
            jump = float(np.abs(np.diff(values[:, i, i], 4)).max()) / 6
            if jump > max(_ROUGH, rough):
                rough, part = jump, jump / float(values[0, i, i])
                text = (
                    f"rounds constants of its noise: the noise covariance of {name} and {name} jumps by {part:.1e} of "
                    f"itself between neighbouring steps of h = {h:.2g}; compute them in float64, differences by expm1"
                )
    return rough, text


def _times(spots: list[Spot], params: Parameters) -> tuple[str | None, list[Spot]]:
    """How the times of the scores are rounded, and the short runs as if they were not."""
    asked = [
        (run.nfe, k, params.T - run.taus[0] - t, run.taus[-1] - run.taus[0])
        for spot in spots
        for run in (*spot.runs, *spot.shorter)
        for k, t in enumerate(run.times)
    ]
    # c of t = T - tau - c h, from runs that are long beside what is rounded: a part of a step
    parts = 12 if not spots[0].shorter else 2 * STEPS[-1]
    places: dict[tuple[int, int], list[float]] = {}
    for nfe, k, back, h in asked:
        if h >= 0.9 * LENGTHS[0]:
            places.setdefault((nfe, k), []).append(back / h)
    c = {key: round(float(np.median(values)) * parts) / parts for key, values in places.items()}
    off = [back - c[nfe, k] * h for nfe, k, back, h in asked if (nfe, k) in c]
    largest = max(map(abs, off), default=0.0)
    times = np.unique([t for spot in spots for run in spot.runs for t in run.times])
    if largest <= _TIME or (grid := _grid_of(times, params.eps, largest)) is None:
        return None, spots
    exact = [
        spot._replace(
            runs=tuple(_unrounded(run, c, params.T) for run in spot.runs),
            shorter=tuple(_unrounded(run, c, params.T) for run in spot.shorter),
        )
        for spot in spots
    ]
    text = f"rounds the times of its scores to {grid}: they are off by up to {largest:.1e}, whatever the step size"
    return text, exact


def _grid_of(times: Array, eps: float, off: float) -> str | None:
    """The grid that all times lie on, if there is one of few enough times, none of which is `off` by more than it."""
    counts = np.arange(2, min(_FINEST, int(1.01 / off) + 1))
    for start, name in ((0.0, "1/{}"), (eps, "one of {} times")):
        scaled = (times - start)[:, None] / (1 - start) * counts
        fits = (np.abs(scaled - np.round(scaled)) <= 2.0**-22 * counts).all(0)
        if fits.any():
            return name.format(int(counts[fits.argmax()]) + (start > 0))
    for digits, name in ((8, "bfloat16"), (11, "half precision")):
        mantissa = np.frexp(times)[0] * 2.0**digits
        if off <= 2.0**-digits and np.abs(mantissa - np.round(mantissa)).max() <= 1e-6:
            return name
    return None


def _unrounded(run: Anatomy, c: dict[tuple[int, int], float], T: float) -> Anatomy:
    h = run.taus[-1] - run.taus[0]
    times = (T - run.taus[0] - c[run.nfe, k] * h if (run.nfe, k) in c else t for k, t in enumerate(run.times))
    return replace(run, times=tuple(times))
