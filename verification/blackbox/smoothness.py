"""Whether the parts of a black box are smooth functions of the step size.

They are, of every sampler that has an order. Where one jumps, a branch on h is found by bisection; where constants of
the noise jump between neighbouring h, they were rounded. Runs are of one step, or of some where steps remember.
"""

from __future__ import annotations

import numpy as np

from ...integrators.blackbox import Sampler
from ..verdicts import Array
from .anatomy import NAMES, dissect

# Where a branch on the step size is looked for, and how often an interval is halved to find one.
_TAU, _SIZES, _HALVINGS = 0.4, tuple(2.0**-k for k in range(3, 13)), 24
# A jump, of the largest entry of a part; and what a float64 step's noise covariance may be rough by, some thousand
# roundings of 2^-53.
_JUMP, _ROUGH = 1e-4, 1e-12
# Neighbouring step sizes, relative: closer to each other they would be the same in float32.
_NEAR = 1e-4
_PARTS = (
    *(f"the drift of {i} by {j}" for i in NAMES for j in NAMES),
    *(f"the gain of {i} from s_{j}" for i in NAMES for j in NAMES),
    *(f"the noise covariance of {i} and {j}" for i in NAMES for j in NAMES),
    *(f"the constant drift of {i}" for i in NAMES),
)


def branches(sampler: Sampler, event: tuple[int, ...], count: int = 1) -> list[str]:
    """Where a part of the last of `count` steps jumps with the step size, by more than what it differs by from its
    limit there."""
    values = np.array([_rates(sampler, event, h, count) for h in _SIZES])
    scale = max(1.0, float(np.abs(values[-1]).max()))
    steps = np.abs(np.diff(values, axis=0))
    # a smooth part changes less from one size to the half of it than it did before
    for k in range(len(steps)):
        before = steps[k - 1] if k else 4 * steps[1]
        suspicious = np.flatnonzero(steps[k] > before + _JUMP * scale)
        for part in suspicious[:1]:
            long, short = _SIZES[k], _SIZES[k + 1]
            ends = {h: float(_rates(sampler, event, h, count)[part]) for h in (long, short)}
            for _ in range(_HALVINGS):
                middle = (long + short) / 2
                ends[middle] = float(_rates(sampler, event, middle, count)[part])
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


def _rates(sampler: Sampler, event: tuple[int, ...], h: float, count: int) -> Array:
    """Drift, gain, noise and offset of the last of `count` steps h, over h, (14,)."""
    run = dissect(sampler, _TAU + h * np.arange(count + 1.0), event)
    P, K, Q, b = run.propagator, run.gains.sum(0), run.noise_cov, run.offset
    if count > 1:  # beyond the steps before it
        before = dissect(sampler, _TAU + h * np.arange(float(count)), event)
        P = P @ np.linalg.inv(before.propagator)
        K, Q, b = K - P @ before.gains.sum(0), Q - P @ before.noise_cov @ P.T, b - P @ before.offset
    return np.concatenate([np.ravel(part) for part in (P - np.eye(2), K, Q, b)]) / h


def roughness(sampler: Sampler, event: tuple[int, ...], count: int = 1) -> tuple[float, str]:
    """How far the noise covariance of a run of `count` steps jumps between neighbouring step sizes, 0 if it does not;
    in words."""
    rough, text = 0.0, ""
    for h in (2.0**-6, 2.0**-9, 2.0**-12):
        near = [h * (1 + _NEAR * j) for j in range(6)]
        values = np.array([dissect(sampler, _TAU + size * np.arange(count + 1.0), event).noise_cov for size in near])
        for i, name in enumerate(NAMES):
            # fourth differences: of a smooth part some 1e-16, of rounding six times what it is
            jump = float(np.abs(np.diff(values[:, i, i], 4)).max()) / 6
            if jump > max(count * _ROUGH, rough):
                rough, part = jump, jump / float(values[0, i, i])
                text = (
                    f"rounds constants of its noise: the noise covariance of {name} and {name} jumps by {part:.1e} of "
                    f"itself between neighbouring steps of h = {h:.2g}; compute them in float64, differences by expm1"
                )
    return rough, text
