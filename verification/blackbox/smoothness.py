"""Whether the parts of a black box are smooth functions of the step size.

They are, of every sampler that has an order. Where one jumps, a branch on h is found by bisection; where constants of
the noise jump between neighbouring h, they were rounded. Runs are of one step, or of some where steps remember.
"""

from __future__ import annotations

import numpy as np

from ..verdicts import Array, extrapolate
from .anatomy import NAMES, Dissection

# Where a branch on the step size is looked for, and how often an interval is halved to find one; the longest step.
_TAU, _SIZES, _HALVINGS, _LONGEST = 0.4, tuple(2.0**-k for k in range(3, 15)), 24, 0.19
# Of so many neighbouring sizes each is foreseen; and how much worse at most from one size to its double.
_NODES, _FASTEST = 4, 64
# What rounding of a value does to what it foresees, over h; how often a jump is looked for where there may be none.
_WORSE, _TRIES = 300, 3
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


def branches(anatomy: Dissection, count: int = 1, rounding: float = 0.0) -> list[str]:
    """Where a part of the last of `count` steps jumps with the step size, if what it is in longer steps has another
    limit than what it is in shorter ones: who changes to another method of an order has the same. rounding: of a
    step to float32, relative."""
    values = np.array([_rates(anatomy, h, count) for h in _SIZES])
    scale = max(1.0, float(np.abs(values[-1]).max()))
    finer = np.array([_foreseen(_SIZES[k + 1 :], values[k + 1 :], _SIZES[k]) for k in range(len(_SIZES) - _NODES)])
    off = np.abs(values[: len(finer)] - finer)
    tries = _TRIES
    for k in range(len(off) - 2, -1, -1):
        # four values foresee the next one to h^4, so that this falls by 16 with each half of a step
        suspicious, least = off[k] - _FASTEST * off[k + 1], scale * max(_JUMP, _WORSE * rounding / _SIZES[k])
        if not tries or suspicious.max() <= least:
            continue
        part = int(suspicious.argmax())
        below, smooth, half = _SIZES[k + 1 :], values[k + 1 :, part], off[k, part] / 2

        def rate(h: float, part: int = part) -> float:
            return float(_rates(anatomy, h, count)[part])

        long, short = _SIZES[k], _SIZES[k + 1]
        for _ in range(_HALVINGS):
            middle = (long + short) / 2
            departs = abs(rate(middle) - float(_foreseen(below, smooth, middle))) > half
            long, short = (middle, short) if departs else (long, middle)
        above, beyond, tries = rate(long), rate(short), tries - 1
        if abs(above - beyond) <= least:
            continue
        # the limit of what it is in longer steps, from some of those
        longer = [long * min(2.0, _LONGEST / long) ** (j / 3) for j in (3, 2, 1, 0)]
        limit, unsure = extrapolate(longer, [np.array([rate(h)]) for h in longer])
        short_limit, _ = extrapolate(below, [np.array([value]) for value in smooth])
        apart = abs(float(limit[0] - short_limit[0]))
        if longer[0] > 1.2 * long and apart > max(_JUMP * scale, 4 * unsure):
            how = f"{above / beyond:.4g} times" if abs(beyond) > 1e-12 else f"{above:.4g}, not"
            return [
                f"not consistent: {_PARTS[part]} jumps with the step size: in steps longer than {short:.4g} it is "
                f"{how} what it is in shorter ones"
            ]
        return []  # what is left of coarser sizes is foreseen from both sides of the jump
    return []


def _foreseen(sizes: tuple[float, ...], values: Array, h: float) -> Array:
    """What a smooth function is at h, from its values (n, ...) at the first `_NODES` of n smaller sizes."""
    x = np.array(sizes[:_NODES])
    weights = [np.prod((h - np.delete(x, j)) / (own - np.delete(x, j))) for j, own in enumerate(x)]
    return np.tensordot(weights, values[:_NODES], 1)


def _rates(anatomy: Dissection, h: float, count: int) -> Array:
    """Drift, gain, noise and offset of the last of `count` steps h, over h, (14,)."""
    run = anatomy(_TAU + h * np.arange(count + 1.0))
    P, K, Q, b = run.propagator, run.gains.sum(0), run.noise_cov, run.offset
    if count > 1:  # beyond the steps before it
        before = anatomy(_TAU + h * np.arange(float(count)))
        P = P @ np.linalg.inv(before.propagator)
        K, Q, b = K - P @ before.gains.sum(0), Q - P @ before.noise_cov @ P.T, b - P @ before.offset
    return np.concatenate([np.ravel(part) for part in (P - np.eye(2), K, Q, b)]) / h


def roughness(anatomy: Dissection, count: int = 1) -> tuple[float, str]:
    """How far the noise covariance of a run of `count` steps jumps between neighbouring step sizes, 0 if it does not;
    in words."""
    rough, text = 0.0, ""
    for h in (2.0**-6, 2.0**-9, 2.0**-12):
        near = [h * (1 + _NEAR * j) for j in range(6)]
        values = np.array([anatomy(_TAU + size * np.arange(count + 1.0)).noise_cov for size in near])
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
