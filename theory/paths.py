"""Gaussian paths of one component: x_t = alpha(t) x_0 + sigma(t) eps, from data at t = 0 to noise at t = T.

A path is what a diffusion in position alone comes to at one time, and all that a sampler with a grid of its own has to
be told: which noise a network was trained on at the time it is asked for.

    vp       alpha = exp(-int beta / 2), sigma^2 = 1 - alpha^2, beta from 0.1 to 20 (Song et al. 2021, section 3.4)
    sub-vp   the same alpha, sigma = 1 - alpha^2
    ve       alpha = 1, sigma = 0.01 (50 / 0.01)^t
    edm      alpha = 1, sigma = t, t up to 80 (Karras et al. 2022)
    cosine   alpha = cos(pi (t + s) / (2 (1 + s))) / cos(pi s / (2 (1 + s))), s = 0.008 (Nichol and Dhariwal 2021)
    flow     alpha = 1 - t, sigma = t: rectified flow (Liu et al. 2023)

Every path is that of an SDE, dx = f x dt + g dw with f = (log alpha)' and g^2 = (sigma^2)' - 2 f sigma^2, and all of
them are one: x divided by scale = (alpha^2 + sigma^2)^(1/2) preserves variance, and moves as the diffusion vp does in

    theta(t) = log(1 + sigma^2 / alpha^2),

which is int beta of vp. So a word on vp with a grid of these theta is that word on the path (`as_vp`); where it holds
eps or the data point it is the solver as it is written down for the path: Euler on rectified flow, and on EDM's ODE in
sigma, is DDIM.

A table of rows alpha_bar, as networks with integer timesteps were trained on, is a path with the row's index as its
time; between rows log(alpha / sigma) goes linearly, and `refined` makes more rows of the same curve. Its SDE is that of
a smooth curve through the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .parameters import SMALLEST_TIME, Parameters

Array = NDArray[np.float64]


class Level(NamedTuple):
    """A noise level: a network's input is scale (alpha x_0 + sigma eps)."""

    alpha: float
    sigma: float
    scale: float = 1.0


@dataclass(frozen=True)
class GaussianPath:
    """alpha(t) and sigma(t) for arrays of t in [0, end]; table: whether a time is a row's index; drift: of a table,
    (log alpha)' of a smooth curve through its rows."""

    name: str
    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    end: float = 1.0
    table: bool = False
    drift: Callable[[Array], Array] | None = None

    def level(self, t: float) -> Level:
        """The level at a time. Raises ValueError outside of [0, end]."""
        if not 0 <= t <= self.end:
            raise ValueError(f"t = {t:g} is not on the path {self.name!r}, which goes from 0 to {self.end:g}")
        time = np.asarray(t, dtype=float)
        return Level(float(self.alpha(time)), float(self.sigma(time)))

    def theta(self, t: ArrayLike) -> Array:
        """The time of the diffusion vp that has the same ratio of noise to data, for t in [0, end]; inf where there is
        noise alone."""
        t = np.asarray(t, dtype=float)
        with np.errstate(divide="ignore"):
            return np.log1p((self.sigma(t) / self.alpha(t)) ** 2)

    def time_of(self, theta: float) -> float:
        """The time t at which the path has this theta, to rounding; beyond `end` where its formulas go on, as those of
        sigma = t do. Raises ValueError where it has it nowhere."""
        from scipy.optimize import brentq

        def missing(t: float) -> float:
            return float(self.theta(t)) - theta

        late = self.end
        while missing(late) < 0 and not self.table and late < 2**10 * self.end:
            late *= 2
        if missing(0.0) > 0 or missing(late) < 0:
            least, most = (float(self.theta(t)) for t in (0.0, late))
            raise ValueError(
                f"theta = int beta = {theta:g}: on the path {self.name!r} log(1 + (sigma / alpha)^2) goes from "
                f"{least:g} to {most:g}; choose a last time or a beta between"
            )
        if math.isinf(missing(late)):
            late *= 1 - 2.0**-52
        root: Any = brentq(missing, 0.0, late, xtol=1e-300, rtol=np.float64(2.0**-50))
        return float(root)

    def scale(self, t: ArrayLike) -> Array:
        """x of the path over x of vp: (alpha^2 + sigma^2)^(1/2)."""
        t = np.asarray(t, dtype=float)
        return np.hypot(self.alpha(t), self.sigma(t))

    def sde(self, t: ArrayLike) -> tuple[Array, Array]:
        """f and g^2 of dx = f x dt + g dw at times inside (0, end), to some 9 digits where the path is smooth.

        Derivatives are central differences of fourth order; of a table, whose levels go linearly from row to row, of
        the curve that `table_of` states. Raises ValueError on a time that is not inside.
        """
        t = np.asarray(t, dtype=float)
        if not ((t > 0) & (t < self.end)).all():
            raise ValueError(f"t = {t}: the SDE of {self.name!r} is known inside of (0, {self.end:g})")
        if self.drift is not None:  # alpha^2 + sigma^2 = 1, so that g^2 = -2 f
            drift = self.drift(t)
            return drift, -2 * drift
        step = np.minimum(1e-3 * self.end, np.minimum(t, self.end - t) / 4)

        def slope(function: Callable[[Array], Array]) -> Array:
            near, far = (function(t + k * step) - function(t - k * step) for k in (1, 2))
            return (8 * near - far) / (12 * step)

        drift = slope(lambda time: np.log(self.alpha(time)))
        return drift, slope(lambda time: self.sigma(time) ** 2) - 2 * drift * self.sigma(t) ** 2


class AsVP(NamedTuple):
    """A path's times as those of the diffusion vp: its parameters, the grid taus (steps + 1,), and x of the path over x
    of vp at each (steps + 1,)."""

    params: Parameters
    taus: Array
    scale: Array


def as_vp(path: GaussianPath, times: ArrayLike) -> AsVP:
    """The run over `times` (steps + 1,) of a path, which fall from noise to data, as a run of vp over its own grid.

    beta is constant, such that the first time is t = 1. Raises ValueError unless the times fall and there is data at
    the first one and noise at the last.
    """
    t = np.asarray(times, dtype=float)
    theta = path.theta(t)
    if t.ndim != 1 or len(t) < 2 or not (np.isfinite(theta).all() and (np.diff(theta) < 0).all() and theta[-1] > 0):
        raise ValueError(
            f"times of {path.name!r} from {t.flat[0]:g} to {t.flat[-1]:g}: theta = log(1 + (sigma / alpha)^2) must "
            "fall from a finite value to one above 0; begin where there is data, and end where there is noise"
        )
    params = Parameters(beta_min=float(theta[0]), beta_max=float(theta[0]), eps=SMALLEST_TIME)
    return AsVP(params, 1 - theta / theta[0], path.scale(t))


def _vp_alpha(t: Array, low: float = 0.1, high: float = 20.0) -> Array:
    return np.exp(-(low * t + (high - low) * t**2 / 2) / 2)


def _of_alpha(alpha: Array) -> Array:
    """sigma of a path that preserves variance, without cancellation as alpha tends to 1."""
    return np.sqrt(np.maximum((1 - alpha) * (1 + alpha), 0))


def _cosine_alpha(t: Array, s: float = 0.008) -> Array:
    return np.cos(np.pi / 2 * (t + s) / (1 + s)) / np.cos(np.pi / 2 * s / (1 + s))


def _one(t: Array) -> Array:
    return np.ones_like(t)


PATHS = {
    path.name: path
    for path in (
        GaussianPath("vp", _vp_alpha, lambda t: np.sqrt(-np.expm1(-(0.1 * t + 19.9 * t**2 / 2)))),
        GaussianPath("sub-vp", _vp_alpha, lambda t: -np.expm1(-(0.1 * t + 19.9 * t**2 / 2))),
        GaussianPath("ve", _one, lambda t: 0.01 * 5000.0**t),
        GaussianPath("edm", _one, lambda t: t, 80.0),
        GaussianPath("cosine", _cosine_alpha, lambda t: _of_alpha(_cosine_alpha(t))),
        GaussianPath("flow", lambda t: 1 - t, lambda t: t),
    )
}


def table_of(alpha_bar: ArrayLike, name: str = "table") -> GaussianPath:
    """The path of a table of alpha^2 (rows,), strictly falling in (0, 1); its time is the row's index.

    Between rows log(alpha / sigma) goes linearly, as libraries read their tables. Its SDE has the derivative of log
    alpha^2 interpolated by Akima's method (1970), which is exact for a quadratic, as log alpha^2 of a beta that goes
    linearly is; log(alpha / sigma) is far from one in the first rows, where sigma comes from 0. Raises ValueError on
    another table.
    """
    rows = np.asarray(alpha_bar, dtype=float)
    if rows.ndim != 1 or len(rows) < 2 or not ((rows > 0) & (rows < 1)).all() or not (np.diff(rows) < 0).all():
        raise ValueError(f"a table of alpha^2 of shape {rows.shape}: give 2 or more falling numbers between 0 and 1")
    ratio, index = _log_ratio(rows), np.arange(len(rows), dtype=float)

    def alpha(t: Array) -> Array:
        return 1 / np.sqrt(1 + np.exp(-2 * np.interp(t, index, ratio)))

    def sigma(t: Array) -> Array:
        return 1 / np.sqrt(1 + np.exp(2 * np.interp(t, index, ratio)))

    def drift(t: Array) -> Array:
        from scipy.interpolate import Akima1DInterpolator

        return Akima1DInterpolator(index, np.log(rows)).derivative()(t) / 2

    return GaussianPath(name, alpha, sigma, float(len(rows) - 1), table=True, drift=drift)


def _log_ratio(alpha_bar: Array) -> Array:
    """log(alpha / sigma) of rows alpha^2."""
    return (np.log(alpha_bar) - np.log1p(-alpha_bar)) / 2


def refined(alpha_bar: ArrayLike, rows: int) -> Array:
    """The same curve with more rows, (rows,): from its first row to its last, log(alpha / sigma) interpolated
    monotonically (PCHIP)."""
    from scipy.interpolate import PchipInterpolator

    known = np.asarray(alpha_bar, dtype=float)
    curve = PchipInterpolator(np.linspace(0, 1, len(known)), _log_ratio(known))
    return 1 / (1 + np.exp(-2 * curve(np.linspace(0, 1, rows))))


def betas_of(alpha_bar: ArrayLike) -> Array:
    """beta_i = 1 - alpha_bar_i / alpha_bar_i-1 of a table of alpha^2, the first 1 - alpha_bar_0: (rows,)."""
    rows = np.asarray(alpha_bar, dtype=float)
    return 1 - rows / np.concatenate([[1.0], rows[:-1]])
