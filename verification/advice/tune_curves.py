"""How sharp an optimum is: the distance around it, parameter by parameter, and what it is worth on other data.

All on a sketch of `BINS` bins, whose distances are right to some thousandths (the tests say so on CIFAR-10's spectrum),
and with the growth at some eigenvalues, so that one sees where a better distance would be bought with growth.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..exact import Spectrum
from ..stability import thinned
from ..verdicts import Array
from .tune_derivatives import residuals, sketch
from .tune_growth import log_growth
from .tune_settings import CUTOFFS, EXPONENTS, SCALES, Settings, Variables, power_fractions

BINS, GROWN, POINTS = 256, 24, 25
# How far curves go, as a factor to both sides, and the rise of the distance that counts as still near the optimum.
_REACH = {"lambda_s": 1.5, "eps": 10.0, "rho": 2.0}
_BOUNDS = {"lambda_s": SCALES, "eps": CUTOFFS, "rho": EXPONENTS}
NEAR = 1.1
# From the grid of one exponent (0) to the free one (1), and beyond.
_BLEND = (-0.5, 1.5)
# By how much step lengths are changed at random, each by as much up or down, and how often.
JITTERS, _DRAWS = (0.01, 0.1), 8
# Other data: all variances times a factor (contrast), and times a power of themselves (flatter, steeper).
_CONTRASTS, _TILTS = (0.8, 1.25), (-0.1, 0.1)


@dataclass(frozen=True)
class Curve:
    """The distance and the growth (points,) where one of the settings has the values (points,) and the others stay.

    name: lambda_s, eps, rho, or "blend", from the grid of one exponent (0) to the free grid (1). at: the optimum's.
    near: the values, around it, within which the distance is at most `NEAR` times that at the optimum; nan at an end
    of the curve that is still near.
    """

    name: str
    at: float
    values: Array
    distance: Array
    growth: Array
    near: tuple[float, float]


class _Reader:
    """Distances and growths of settings on a sketch."""

    def __init__(self, scheme: Scheme, params: Parameters, data: Spectrum) -> None:
        self.scheme, self.params = scheme, params
        self.data, self.grown = sketch(data, BINS), thinned(data.variances, GROWN)

    def distance(self, settings: Settings) -> float:
        scheme, params, taus = settings.applied(self.scheme, self.params)
        with np.errstate(over="ignore", invalid="ignore"):
            found = residuals(scheme, self.data, params, taus, settings.denoise)
            return float(found @ found)

    def growth(self, settings: Settings) -> float:
        scheme, params, taus = settings.applied(self.scheme, self.params)
        return float(np.exp(log_growth(scheme, self.grown, params, taus).max()))

    def curve(self, name: str, at: float, values: Array, of: dict[float, Settings]) -> Curve:
        distance = np.array([self.distance(of[value]) for value in values.tolist()])
        growth = np.array([self.growth(of[value]) for value in values.tolist()])
        return Curve(name, at, values, distance, growth, near(values, distance, at))


def curves(
    scheme: Scheme, params: Parameters, data: Spectrum, family: Settings, free: Settings | None, kept: Collection[str]
) -> list[Curve]:
    """The curves around the optimum of one exponent, `family`, by each of its settings that was free; and to that of
    the `free` grid, if there is one."""
    reader = _Reader(scheme, params, data)
    found = []
    for name in Variables(scheme, family, False, kept).names:
        at = float(getattr(family, name))
        reach, (least, most) = _REACH[name], _BOUNDS[name]
        low, high = max(at / reach, least), min(at * reach, most)
        values = np.unique(np.append(np.geomspace(low, high, POINTS), at))
        of = {value: _with(family, name, value) for value in values.tolist()}
        found.append(reader.curve(name, at, values, of))
    if free is not None:
        first, second = np.array(family.fractions), np.array(free.fractions)
        if len(first) == len(second):
            of = {}
            for share in np.linspace(*_BLEND, POINTS).tolist():
                fractions = (1 - share) * first + share * second
                if (np.diff(fractions) > 0).all():
                    of[share] = replace(free, fractions=tuple(fractions.tolist()), rho=None)
            found.append(reader.curve("blend", 1.0, np.array(list(of)), of))
    return found


def _with(settings: Settings, name: str, value: float) -> Settings:
    if name == "rho":
        return replace(settings, rho=value, fractions=tuple(power_fractions(settings.steps, value).tolist()))
    return replace(settings, **{name: value})


def near(values: Array, distance: Array, at: float) -> tuple[float, float]:
    """Where the curve crosses `NEAR` times its value at the optimum, left and right of it, between points straight in
    the logs of the distance; nan where it does not."""
    start = int(np.abs(values - at).argmin())
    level = np.log(NEAR * distance[start])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.nan_to_num(np.log(distance), nan=np.inf)
    ends = []
    for step, stop in ((-1, -1), (1, len(values))):
        end = np.nan
        for i in range(start + step, stop, step):
            if logs[i] > level:
                inner, outer = values[i - step], values[i]
                share = (level - logs[i - step]) / (logs[i] - logs[i - step]) if np.isfinite(logs[i]) else 0.0
                end = float(inner + share * (outer - inner))
                break
        ends.append(end)
    return ends[0], ends[1]


def jitter(scheme: Scheme, params: Parameters, data: Spectrum, settings: Settings) -> dict[float, float]:
    """By how much the distance rises, as a factor, where every step's length is changed by so much, up or down at
    random: the mean of some draws, by the change."""
    reader, signs = _Reader(scheme, params, data), np.random.default_rng(0)
    h, at = np.diff(settings.fractions), reader.distance(settings)
    found = {}
    for size in JITTERS:
        ratios = []
        for _ in range(_DRAWS):
            bent = h * (1 + size * signs.choice([-1.0, 1.0], len(h)))
            fractions = np.append(0.0, np.cumsum(bent / bent.sum()))
            fractions[-1] = 1.0
            ratios.append(reader.distance(replace(settings, fractions=tuple(fractions.tolist()), rho=None)) / at)
        found[size] = float(np.mean(ratios))
    return found


def elsewhere(
    scheme: Scheme, params: Parameters, data: Spectrum, tuned: Settings, published: Settings
) -> dict[str, float]:
    """The tuned distance over that of the published settings, on other data than those that it was tuned on."""
    largest = float(data.variances.max())
    shares = np.maximum(data.variances / largest, 1e-12) if largest > 0 else data.variances
    others = {f"variances x {factor:g}": np.full(len(shares), factor) for factor in _CONTRASTS}
    others |= {f"variances to the power {1 + tilt:g}": shares**tilt for tilt in _TILTS}
    found = {}
    for name, factor in others.items():
        other = Spectrum(data.variances * factor, data.mean * np.sqrt(factor), data.images)
        reader = _Reader(scheme, params, other)
        found[name] = reader.distance(tuned) / reader.distance(published)
    return found
