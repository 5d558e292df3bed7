"""Whether the parts of a black box are smooth functions of the step size.

They are, of every sampler that has an order. Where one jumps, a branch on h is found by bisection; where constants of
the noise jump between neighbouring h, they were rounded; where a part is a staircase, h was. Where rates are a
staircase in time, they come from a table of times. Runs are of one step, or of some where steps remember.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..verdicts import Array, extrapolate
from .anatomy import Dissection

# Where a branch on the step size is looked for, and how often an interval is halved to find one; the longest step.
_TAU, _SIZES, _HALVINGS, _LONGEST = 0.4, tuple(2.0**-k for k in range(3, 15)), 24, 0.19
# Of so many neighbouring sizes each is foreseen; and how much worse at most from one size to its double.
_NODES, _FASTEST = 4, 64
# How many times its measured size rounding may be; how often a jump is looked for where there may be none.
_SAFE, _TRIES = 4, 4
# A jump, of the largest entry of its row, and an entry of no size beside the largest; and what a float64 step's noise
# covariance may be rough by, some thousand roundings of 2^-53.
_JUMP, _SMALL, _ROUGH = 1e-4, 1e-3, 1e-12
# Where rounding is measured: lengths, and step sizes near each, so close that parts are smooth there, and not so close
# that they would be the same in float32.
_LENGTHS, _NEAR, _AROUND = (2.0**-6, 2.0**-9, 2.0**-12), 1e-4, 8
# Where the stairs of a part that takes h rounded are looked for, in so many sizes from a half of each; the most of
# these that may rise from the one before; what is level, and how much steeper a rise is than what is not quite.
_STAIRS, _TREADS, _MOST, _LEVEL, _STEEP = (2.0**-4, 2.0**-6, 2.0**-8, 2.0**-10), 64, 0.4, 1e-9, 10
# Where the stairs of rates in time are looked for: spans from `_TAU` on, in `_TREADS` steps so short that hardly one
# crosses an edge; and how far the number of stairs in [0, 1] may be from a whole one.
_SPANS, _SHORT, _WHOLE = (0.5, 0.06, 0.008, 0.002), 2.0**-17, 0.02
# How stairs show in some of the treads: rises of so many neighbours, places as far apart; how unlike the rises of what
# is smooth may be, and its fourth differences beside the whole.
_NEXT, _UNLIKE, _BENT = 9, 3, 1e-3


def _part(k: int, names: Sequence[str]) -> str:
    """What stands at place k of `_rates`."""
    n = len(names)
    if k >= 3 * n**2:
        return f"the constant drift of {names[k - 3 * n**2]}"
    what = ("the drift of {} by {}", "the gain of {} from s_{}", "the noise covariance of {} and {}")
    return what[k // n**2].format(names[k % n**2 // n], names[k % n])


def branches(anatomy: Dissection, count: int = 1, is_single: bool = False) -> list[str]:
    """Where a part of the last of `count` steps jumps with the step size, if what it is in longer steps has another
    limit than what it is in shorter ones: who changes to another method of an order has the same. is_single: whether
    the sampler rounds to float32, which is measured then: what is smaller is no jump."""
    values = np.array([_rates(anatomy, h, count) for h in _SIZES])
    n, names = anatomy.diffusion.size, anatomy.diffusion.components
    size = _sizes(values[-1], n)
    rough = _rounding(anatomy, count) if is_single else np.zeros((len(_SIZES), len(size)))
    foreseen, noise = (
        np.array([of(_SIZES[k + 1 :], each[k + 1 :], _SIZES[k]) for k in range(len(_SIZES) - _NODES)])
        for of, each in ((_foreseen, values), (_unsure, rough))
    )
    off, noise = np.abs(values[: len(foreseen)] - foreseen), _SAFE * (noise + rough[: len(foreseen)])
    tries = _TRIES
    for k in range(len(off) - 2, -1, -1):
        # four values foresee the next one to h^4, so that this falls by 16 with each half of a step
        suspicious = off[k] - _FASTEST * np.maximum(off[k + 1] - noise[k + 1], 0)
        least = np.maximum(_JUMP * size, noise[k])
        part = int((suspicious / least).argmax())
        if not tries or suspicious[part] <= least[part]:
            continue
        below, smooth, half = _SIZES[k + 1 :], values[k + 1 :], off[k, part] / 2
        long, short = _SIZES[k], _SIZES[k + 1]
        for _ in range(_HALVINGS):
            middle = (long + short) / 2
            departs = abs(_rates(anatomy, middle, count)[part] - _foreseen(below, smooth, middle)[part]) > half
            long, short = (middle, short) if departs else (long, middle)
        above, beyond, tries = _rates(anatomy, long, count), _rates(anatomy, short, count), tries - 1
        jumps = np.abs(above - beyond) > np.maximum(_JUMP * size, _SAFE * rough[k : k + 2].sum(0))
        if not jumps[part]:
            continue
        # the limit of what it is in longer steps, from some of those
        longer = [long * min(2.0, _LONGEST / long) ** (j / 3) for j in (3, 2, 1, 0)]
        rates = np.array([_rates(anatomy, h, count) for h in longer])
        apart = np.zeros_like(size)
        for each in np.flatnonzero(jumps & (suspicious > least)):
            limit, unsure = extrapolate(longer, rates[:, each])
            short_limit, less = extrapolate(below, smooth[:, each])
            is_known = abs(float(limit - short_limit)) > 4 * (unsure + (less if is_single else 0.0))
            apart[each] = abs(float(limit - short_limit)) / size[each] if is_known else 0.0
        worst = int(apart.argmax())
        if longer[0] > 1.2 * long and apart[worst] > _JUMP:
            far, near = above[worst], beyond[worst]
            how = f"{far / near:.4g} times" if abs(near) > 1e-12 else f"{far:.4g}, not"
            return [
                f"not consistent: {_part(worst, names)} jumps with the step size: in steps longer than {short:.4g} it "
                f"is {how} what it is in shorter ones"
            ]
        return []  # what is left of coarser sizes is foreseen from both sides of the jump
    return []


def _sizes(rates: Array, n: int) -> Array:
    """What the parts are to be compared with: the largest entry of a row, and of the noise the deviations."""
    drift, gain, noise = np.abs(rates[: 3 * n**2].reshape(3, n, n))
    scale = max(1.0, float(np.abs(rates).max()))
    rows = [np.maximum(each.max(1), _SMALL * scale) for each in (drift, gain)]
    deviations = np.sqrt(np.maximum(np.diag(noise), _SMALL**2 * scale))
    return np.concatenate([*(row.repeat(n) for row in rows), np.outer(deviations, deviations).ravel(), rows[0]])


def _weights(sizes: tuple[float, ...], h: float) -> Array:
    """Lagrange's weights at h of the first `_NODES` of some sizes."""
    x = np.array(sizes[:_NODES])
    return np.array([np.prod((h - np.delete(x, j)) / (own - np.delete(x, j))) for j, own in enumerate(x)])


def _foreseen(sizes: tuple[float, ...], values: Array, h: float) -> Array:
    """What a smooth function is at h, from its values (n, ...) at the first `_NODES` of n smaller sizes."""
    return np.tensordot(_weights(sizes, h), values[:_NODES], 1)


def _unsure(sizes: tuple[float, ...], errors: Array, h: float) -> Array:
    """What `_foreseen` may be off by, if its values are by `errors`."""
    return np.tensordot(np.abs(_weights(sizes, h)), errors[:_NODES], 1)


def _differences(values: Array) -> Array:
    """The largest fourth differences of values (n, ...) near each other, over 6: of a smooth part some 1e-16, of
    rounding what it is."""
    return np.abs(np.diff(values, 4, axis=0)).max(0) / 6


def rounding_of_rates(anatomy: Dissection, count: int) -> dict[str, Array]:
    """What float32 makes of each of the rates of short runs (n, n), by the last of `count` steps."""
    n = anatomy.diffusion.size
    rates = [part / h for part, h in zip(_measured(anatomy, count), _LENGTHS, strict=True)]
    worst = _SAFE * np.max(rates, axis=0)
    matrices = zip(("drift", "gain", "noise"), worst[: 3 * n**2].reshape(3, n, n), strict=True)
    return dict(matrices) | {"offset": worst[3 * n**2 :]}


def _measured(anatomy: Dissection, count: int) -> list[Array]:
    """By how much rounding moves the parts of a step of each of `_LENGTHS`, as `_rates`."""
    measured = list[Array]()
    for h in _LENGTHS:
        near = [h * (1 + _NEAR * j) for j in range(_AROUND)]
        jumps = h * _differences(np.array([_rates(anatomy, each, count) for each in near]))
        # what does not move at all is rounded to what it was at longer steps
        measured.append(np.where(jumps > _ROUGH, jumps, measured[-1]) if measured else jumps)
    return measured


def _rounding(anatomy: Dissection, count: int) -> Array:
    """By how much rounding moves `_rates` at each of `_SIZES`, (sizes, parts)."""
    measured, found = _measured(anatomy, count), []
    for size in _SIZES:
        nearest = int(np.abs(np.log2(np.array(_LENGTHS) / size)).argmin())
        # a part of longer steps may be rounded as it grows
        found.append(measured[nearest] * max(1.0, size / _LENGTHS[nearest]) / size)
    return np.array(found)


def rounded_steps(anatomy: Dissection, count: int = 1, rounding: float = 0.0) -> tuple[str, int] | None:
    """A part of the last of `count` steps that takes its step size rounded, and to one over which number: as a function
    of h it is a staircase of even steps. None if there is none. rounding: of a step to float32, relative: a staircase
    of its own."""

    def parts(h: float) -> Array:
        return h * _rates(anatomy, h, count)

    for longest in _STAIRS:
        sizes = np.linspace(longest / 2, longest, _TREADS)
        if (values := _treads(parts, sizes, _ROUGH)) is None:
            continue
        rises = np.abs(np.diff(values, axis=0))
        nothing = _ROUGH * max(1.0, float(np.abs(values).max()))  # a part that is 0 rises and falls by roundings
        moves = rises > nothing + _LEVEL * np.abs(values).max(0) + _STEEP * (np.median(rises, axis=0) + rounding)
        for part in np.flatnonzero((moves.sum(0) >= 3) & (moves.mean(0) <= _MOST)):
            places = np.flatnonzero(moves[:, part])
            edges = [_edge(parts, sizes, values, place, int(part)) for place in (places[0], places[-1])]
            each = (edges[1] - edges[0]) / (len(places) - 1)
            if abs(1 / each - round(1 / each)) <= 1e-3 / each:
                return _part(int(part), anatomy.diffusion.components), round(1 / each)
    return None


def table_of_rates(anatomy: Dissection, start: float, count: int = 1) -> tuple[int, float] | None:
    """The table of times t that the rates of a step are taken from: they are constant but for jumps at even distances.
    Its number of spacings and its first time, 0 or `start`. None if there is none.
    """

    def rates(tau: float) -> Array:
        return _rates(anatomy, _SHORT, count, tau)

    for span in _SPANS:
        taus = np.linspace(_TAU, _TAU + span, _TREADS)
        if (values := _treads(rates, taus, _LEVEL)) is None:
            continue
        rises = np.abs(np.diff(values, axis=0))
        part = int(rises.max(0).argmax())
        moves = rises[:, part] > _LEVEL * np.abs(values[:, part]).max() + _STEEP * np.median(rises[:, part])
        if not (moves.sum() >= 3 and moves.mean() <= _MOST):
            continue
        places = np.flatnonzero(moves)
        edges = [_edge(rates, taus, values, place, part) for place in (places[0], places[-1])]
        spacing = (edges[1] - edges[0]) / (len(places) - 1)
        for first in (0.0, start):
            number = (1 - first) / spacing
            if abs(number - round(number)) <= _WHOLE:
                return round(number), first
    return None


def _treads(of: Callable[[float], Array], at: Array, still: float) -> Array | None:
    """Parts at places (n,), in which a staircase is looked for: (n, parts). None if some of them show that none is.

    Stairs that rise at `_MOST` of the places are wider than two. Where they are no wider than `_NEXT`, some of so many
    neighbouring rises are theirs and some are not, and unlike; where they are wider, places that far apart have none or
    one between them, and no sequence of these two has vanishing third differences. What moves by less than `still`
    does not count.
    """
    near, far = range(_NEXT + 1), range(0, len(at), _NEXT)
    known = {k: of(float(at[k])) for k in (*near, *far)}
    seen = np.array(list(known.values()))
    rises, reach = np.abs(np.diff([known[k] for k in near], axis=0)), np.ptp(seen, axis=0)
    bends = np.abs(np.diff([known[k] for k in far], 4, axis=0)).max(0)
    smooth = (rises.max(0) <= _UNLIKE * rises.min(0)) & (bends <= _BENT * reach)
    moves = reach > still * max(1.0, float(np.abs(seen).max()))
    if moves.any() and smooth[moves].all():
        return None
    return np.array([known[k] if k in known else of(float(place)) for k, place in enumerate(at)])


def _edge(of: Callable[[float], Array], at: Array, values: Array, place: int, part: int) -> float:
    """Where a part jumps between its values (n, parts) at the places (n,), behind that one: by halving."""
    low, high = float(at[place]), float(at[place + 1])
    step = abs(values[place + 1, part] - values[place, part])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        same = abs(of(middle)[part] - values[place, part]) <= step / 2
        low, high = (middle, high) if same else (low, middle)
    return low


def _rates(anatomy: Dissection, h: float, count: int, tau: float = _TAU) -> Array:
    """Drift, gain and noise (n, n) and offset (n,) of the last of `count` steps h from tau on, over h, row-major:
    (3 n^2 + n,)."""
    run = anatomy(tau + h * np.arange(count + 1.0))
    P, K, Q, b = run.propagator, run.gains.sum(0), run.noise_cov, run.offset
    if count > 1:  # beyond the steps before it
        before = anatomy(tau + h * np.arange(float(count)))
        P = P @ np.linalg.inv(before.propagator)
        K, Q, b = K - P @ before.gains.sum(0), Q - P @ before.noise_cov @ P.T, b - P @ before.offset
    return np.concatenate([np.ravel(part) for part in (P - np.eye(len(P)), K, Q, b)]) / h


def roughness(anatomy: Dissection, count: int = 1) -> tuple[float, str]:
    """How far the noise covariance of a run of `count` steps jumps between neighbouring step sizes, 0 if it does not;
    in words."""
    rough, text = 0.0, ""
    for h in _LENGTHS:
        near = [h * (1 + _NEAR * j) for j in range(6)]
        values = np.array([anatomy(_TAU + size * np.arange(count + 1.0)).noise_cov for size in near])
        for i, name in enumerate(anatomy.diffusion.components):
            jump = float(_differences(values[:, i, i]))
            if jump > max(count * _ROUGH, rough):
                rough, part = jump, jump / float(values[0, i, i])
                text = (
                    f"rounds constants of its noise: the noise covariance of {name} and {name} jumps by {part:.1e} of "
                    f"itself between neighbouring steps of h = {h:.2g}; compute them in float64, differences by expm1"
                )
    return rough, text
