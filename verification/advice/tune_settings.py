"""What can be tuned, as a value, and as a vector that an optimiser moves.

    lambda_s   the factor on the standard deviation of the position noise, where a scheme's parts draw any
    eps        the cut-off: where the run ends, and the length of the denoising step
    grid       tau_i = (T - eps) g_i, of one exponent, g_i = 1 - (1 - i / N)^rho, where rho = 1 is the grid `uniform`
               and rho = 2 `quadratic`; or free, g_i = (h_1 + ... + h_i) / (h_1 + ... + h_N)
    denoise    whether the published last step follows, which costs an evaluation that a step could have had

The vector has log lambda_s and log eps, and then log rho or the N - 1 numbers log(h_k / h_N), what is kept left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from ...integrators.grids import GRIDS
from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ..verdicts import Array
from .tune_derivatives import takes_scale

TUNABLE = ("lambda-s", "grid", "eps", "denoise")
UNTUNED_GRID = "quadratic"
# Where settings are looked for. Below t = 1e-4 networks are hardly trained, and rounding of float32 states begins.
SCALES, CUTOFFS, EXPONENTS = (0.25, 4.0), (1e-4, 0.2), (0.5, 10.0)
# The shortest step of a grid of one exponent, of the whole; how far the logs of free steps move from where they begin.
_SHORTEST, _REACH = 1e-7, 3.0


@dataclass(frozen=True)
class Settings:
    """How a scheme is run: `fractions` are the g_i, (steps + 1,), from 0 to 1; rho: of a grid of one exponent."""

    lambda_s: float
    eps: float
    denoise: bool
    fractions: tuple[float, ...]
    rho: float | None = None

    @property
    def steps(self) -> int:
        """The number of steps N."""
        return len(self.fractions) - 1

    def applied(self, scheme: Scheme, params: Parameters) -> tuple[Scheme, Parameters, Array]:
        """The scheme and the parameters with these settings, and the grid's times tau (steps + 1,)."""
        scheme = replace(scheme, lambda_s=self.lambda_s) if takes_scale(scheme) else scheme
        params = replace(params, eps=self.eps)
        taus = (params.T - self.eps) * np.array(self.fractions)
        taus[-1] = params.T - self.eps
        return scheme, params, taus

    def grid(self, params: Parameters) -> str:
        """The grid as `--grid` takes it: an expression, or the times themselves."""
        if self.rho is not None:
            return {1.0: "uniform", 2.0: "quadratic"}.get(self.rho, f"1 - (1 - s)**{self.rho!r}")
        taus = (params.T - self.eps) * np.array(self.fractions)
        return ", ".join(map(repr, taus.tolist()))


def power_fractions(steps: int, rho: float) -> Array:
    """g_i = 1 - (1 - i / N)^rho, (steps + 1,)."""
    s = GRIDS["uniform"](steps)
    return {1.0: s, 2.0: GRIDS["quadratic"](steps)}.get(rho, 1 - (1 - s) ** rho)


def steps_for(scheme: Scheme, budget: int, denoise: bool) -> int:
    """How many steps so many evaluations buy."""
    return (budget - denoise) // scheme.nfe_per_step


def untuned(scheme: Scheme, params: Parameters, budget: int) -> Settings:
    """As published: the quadratic grid, the denoising step, the scheme's own lambda_s, the model's cut-off.

    Raises ValueError if the budget buys no step.
    """
    if scheme.nfe_per_step == 0:
        raise ValueError(f"{scheme.name!r} evaluates no score: it has nothing to spend evaluations on")
    steps = steps_for(scheme, budget, True)
    if steps < 1:
        raise ValueError(
            f"nfe = {budget}: a step of {scheme.name!r} takes {scheme.nfe_per_step} and the denoising step one; give "
            f"{scheme.nfe_per_step + 1} or more"
        )
    fractions = tuple(power_fractions(steps, 2.0).tolist())
    return Settings(scheme.lambda_s, params.eps, True, fractions, 2.0)


class Variables:
    """The vector x of what is free near the settings `base`: names, low and high (n,), and the two ways.

    free_grid: whether the grid's times are, or its exponent alone. kept: names of `TUNABLE` that stay as in `base`.
    longest: the largest cut-off.
    """

    def __init__(
        self,
        scheme: Scheme,
        base: Settings,
        free_grid: bool,
        kept: Collection[str] = (),
        longest: float = CUTOFFS[1],
    ) -> None:
        self.base, self.free_grid = base, free_grid
        self.names: list[str] = []
        bounds: list[tuple[float, float]] = []
        if "lambda-s" not in kept and takes_scale(scheme):
            self.names.append("lambda_s")
            bounds.append(SCALES)
        if "eps" not in kept:
            self.names.append("eps")
            bounds.append((min(CUTOFFS[0], base.eps), max(longest, base.eps)))
        self.low, self.high = (np.log([pair[i] for pair in bounds]) for i in (0, 1))
        self.first = len(self.names)  # of the grid's variables
        if "grid" in kept or base.steps == 1:
            return
        if free_grid:
            start = _log_ratios(base.fractions)
            self.names += [f"h_{k}" for k in range(1, base.steps)]
            self.low, self.high = np.append(self.low, start - _REACH), np.append(self.high, start + _REACH)
        elif base.rho is not None:
            self.names.append("rho")
            most = min(EXPONENTS[1], np.log(1 / _SHORTEST) / np.log(base.steps))
            self.low, self.high = np.append(self.low, np.log(EXPONENTS[0])), np.append(self.high, np.log(most))

    def settings(self, x: Array) -> Settings:
        """The settings of a vector."""
        value = dict(zip(self.names[: self.first], np.exp(x[: self.first]).tolist(), strict=True))
        base = replace(self.base, **value)
        grid = x[self.first :]
        if not grid.size:
            return base
        if self.free_grid:
            return replace(base, fractions=tuple(_from_ratios(grid).tolist()), rho=None)
        rho = float(np.exp(grid[0]))
        return replace(base, fractions=tuple(power_fractions(base.steps, rho).tolist()), rho=rho)

    def vector(self, settings: Settings) -> Array:
        """The vector of settings, moved into the bounds."""
        x = [np.log(getattr(settings, name)) for name in self.names[: self.first]]
        if len(self.names) > self.first:
            x += _log_ratios(settings.fractions).tolist() if self.free_grid else [np.log(settings.rho or 2.0)]
        return np.clip(np.array(x), self.low, self.high)

    def slopes(self, x: Array, T: float) -> tuple[Array, Array]:
        """The derivatives of the times, (steps + 1, n), and of lambda_s, (n,), by the vector."""
        settings = self.settings(x)
        fractions = np.array(settings.fractions)
        by_x, by_scale = np.zeros((len(fractions), len(x))), np.zeros(len(x))
        for place, name in enumerate(self.names[: self.first]):
            if name == "eps":
                by_x[:, place] = -settings.eps * fractions
            else:
                by_scale[place] = settings.lambda_s
        reach = T - settings.eps
        if len(x) > self.first and self.free_grid:
            h = np.diff(fractions)[:-1]
            inside = np.tri(len(fractions), len(h), -1)  # h_k is in g_i
            by_x[:, self.first :] = reach * h * (inside - fractions[:, None])
        elif len(x) > self.first:
            left = 1 - GRIDS["uniform"](settings.steps)[:-1]
            by_x[:-1, self.first] = -reach * (settings.rho or 2.0) * left ** (settings.rho or 2.0) * np.log(left)
        return by_x, by_scale

    def at_bounds(self, x: Array) -> tuple[str, ...]:
        """The names of variables that stand at a bound of theirs, of steps the bounds are where they began."""
        near = (x <= self.low + 1e-6) | (x >= self.high - 1e-6)
        return tuple(name for name, is_near in zip(self.names, near, strict=True) if is_near)


def _log_ratios(fractions: Collection[float]) -> Array:
    h = np.diff(np.array(tuple(fractions)))
    return np.log(h[:-1] / h[-1])


def _from_ratios(grid: Array) -> Array:
    h = np.exp(np.append(grid, 0.0))
    fractions = np.append(0.0, np.cumsum(h / h.sum()))
    fractions[-1] = 1.0
    return fractions
