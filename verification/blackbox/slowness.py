"""Whether the rates of a black box's short runs reach their limits fast enough for an order.

A limit that is right makes a sampler consistent, and no more: with (P - I) / h, K / h, Q / h and b / h off by C h^q its
weak order is q at most (Kloeden and Platen 1992, theorem 14.5.2, asks for errors of O(h^2) of a step's moments for
order 1). Twice the rate in runs of half a length, less that of the whole, has no error of order h, and from each length
to the next it changes a fourth as much as before; with an error like h^q, 2^-q times.

A score that is used again, in every second step or third, is as old as so many steps, which changes a law by O(h). One
that is kept for a time of its own, as what caches it until a threshold does, is as old however short the steps are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..verdicts import Array
from .anatomy import NAMES, Dissection
from .consistency import DESCRIPTIONS
from .short_runs import LENGTHS, RATES, Spot

# An order below the first is none of 1, and below the second there is no limit; a change of a rate, of the largest
# entry of its row, that is none of rounding.
_SLOW, _GROWS, _SEEN = 0.75, 0.05, 1e-6
# Where evaluations are counted: from this time on, in a few long steps to this one, and in as many very short ones and
# four times as many.
_TAU, _UNTIL, _STEPS, _SHORT = 0.4, 0.9, 8, 2.0**-18


def slow(spots: Sequence[Spot]) -> list[str]:
    """The part whose rate reaches its limit more slowly than h, at all times with runs of all lengths; none, if none
    does."""
    full = [spot for spot in spots if spot.lengths == LENGTHS]
    for name, of in RATES.items():
        powers: dict[tuple[int, ...], list[float]] = {}
        for spot in full:
            rates = np.array(spot.over_time(of))
            rates = 2 * rates[1:] - rates[:-1]
            rounding = 48 * max(run.rounding for run in spot.runs) / spot.lengths[-1]
            changes = np.abs(np.diff(rates, axis=0))
            with np.errstate(divide="ignore", invalid="ignore"):
                power = np.log2(changes[:-1] / changes[1:])
            for place in np.ndindex(power.shape[1:]):
                size = _row(rates[-1], name, place)
                own = power[(slice(-3, None), *place)]
                to = float(2 * own[-1] - own[-2])
                if changes[(-1, *place)] > _SEEN * size + rounding and own.min() > _GROWS and own.max() < _SLOW > to:
                    powers.setdefault(place, []).append(to)
        for place, found in powers.items():
            if len(found) == len(full):
                what = DESCRIPTIONS[name].format(*(NAMES[i] for i in place))
                return [f"{what} reaches its limit like h^{np.mean(found):.2g} as h -> 0, and the order is no higher"]
    return []


def kept(anatomy: Dissection, until: float = 1.0) -> list[str]:
    """Whether a score is kept for a time of its own: long steps take more evaluations than short ones, and more of
    these take no more. until: the last time tau there is."""
    long = (min(until, _UNTIL) - _TAU) / _STEPS
    often, seldom, still = (
        anatomy(_TAU + h * np.arange(count + 1.0)).nfe
        for h, count in ((long, _STEPS), (_SHORT, _STEPS), (_SHORT, 4 * _STEPS))
    )
    if not seldom == still < often:
        return []
    return [
        f"not consistent: it keeps its scores for a time of its own, whatever the step size: {_STEPS} steps of "
        f"{long:.3g} take {often} evaluation(s), {4 * _STEPS} steps of {_SHORT:.2g} take {still}"
    ]


def _row(rate: Array, name: str, place: tuple[int, ...]) -> float:
    """What an entry of a rate is to be compared with."""
    if name == "noise":
        return float(np.sqrt(np.abs(rate[place[0], place[0]] * rate[place[1], place[1]])))
    return float(np.abs(rate[place[0]]).max()) if rate.ndim > 1 else 1.0
