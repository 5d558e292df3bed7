"""The phase-space Langevin diffusion (PSLD): one forward SDE, and everything that follows from it.

State u = (x, m), position and momentum; every formula acts per coordinate. All dynamics are written in
the time theta with d theta = beta(t) dt, in which they have constant coefficients:

    forward   dx = 1/2 (M^-1 m - Gamma x) dtheta + sqrt(Gamma) dw_x
              dm = 1/2 (-x - nu m) dtheta        + sqrt(nu M) dw_m         M^-1 = (Gamma - nu)^2 / 4
    reverse   du = [-f(u) + g^2 s(u, t)] dtheta + g dw,     s = grad log p_t,  in tau = T - t
    flow      du = [-f(u) + g^2 s(u, t) / 2] dtheta         (probability-flow ODE)

Only the forward SDE is written down; the other two are derived from it.
Source: Pandey and Mandt, arXiv 2303.01748 (ICCV 2023), equations 3 to 8 and the critical damping of its section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from sympy import Expr, Matrix, Rational, sqrt

x, m, s_x, s_m, t = sp.symbols("x m s_x s_m t", real=True)
gamma, nu, kappa = sp.symbols("gamma nu kappa", nonnegative=True)
theta = sp.symbols("theta", positive=True)
PARAMETERS = (gamma, nu, kappa)
_NAMES = tuple(map(str, PARAMETERS))


def critical_mass_inverse(gamma, nu):
    """M^-1 = (Gamma - nu)^2 / 4 (critical damping), for numbers, arrays and symbols alike."""
    return (gamma - nu) * (gamma - nu) / 4


M_inv: Expr = critical_mass_inverse(gamma, nu)
M: Expr = 1 / M_inv


@dataclass(frozen=True)
class LinearSDE:
    """du = (A u + G s) dtheta + diag(g) dw: linear in the state and in the score.

    `drift` is (dx, dm) per unit theta, as expressions in x, m, s_x, s_m and the parameters gamma, nu, kappa;
    `diffusion` is the pair of coefficients of dw_x and dw_m.
    Raises ValueError if the drift is not linear or an unknown symbol occurs.
    """

    drift: tuple[Expr, Expr]
    diffusion: tuple[Expr, Expr] = (sp.S.Zero, sp.S.Zero)

    def __post_init__(self) -> None:
        for name in ("drift", "diffusion"):
            pair = tuple(sp.sympify(entry) for entry in getattr(self, name))
            if len(pair) != 2:
                raise ValueError(f"{name} has {len(pair)} entries; it is a pair, (dx, dm)")
            object.__setattr__(self, name, pair)
        known: set[sp.Basic] = set(PARAMETERS)
        for name, allowed in (("drift", known | {x, m, s_x, s_m}), ("diffusion", known)):
            for entry in getattr(self, name):
                if unknown := entry.free_symbols - allowed:
                    names = ", ".join(sorted(map(str, unknown)))
                    usable = ", ".join(sorted(map(str, allowed)))
                    raise ValueError(f"{name} {entry} has the unknown symbol {names}; it may use {usable}")
            for entry in getattr(self, name):
                if entry.has(sp.I, sp.nan, sp.oo, -sp.oo, sp.zoo, sp.Piecewise):
                    raise ValueError(
                        f"{name} {entry} is not a finite real expression; write it with numbers and parameters"
                    )
        linear = self.matrix * Matrix([x, m]) + self.score_gain * Matrix([s_x, s_m])
        difference = (Matrix(self.drift) - linear).applyfunc(sp.simplify)
        matrices_free = (self.matrix.free_symbols | self.score_gain.free_symbols) <= known
        if not (matrices_free and difference.is_zero_matrix):
            raise ValueError(f"drift {self.drift} is not linear in x, m, s_x, s_m; add multiples of these alone")

    @cached_property
    def matrix(self) -> Matrix:
        """A, the 2x2 matrix of the drift in (x, m)."""
        return Matrix(self.drift).jacobian([x, m])

    @cached_property
    def score_gain(self) -> Matrix:
        """G, the 2x2 matrix of the drift in (s_x, s_m)."""
        return Matrix(self.drift).jacobian([s_x, s_m])

    @cached_property
    def noise(self) -> Matrix:
        """D = diag(g^2), the growth of the covariance per unit theta."""
        return sp.diag(*(sp.simplify(g**2) for g in self.diffusion))

    @cached_property
    def _numbers(self) -> Callable[..., list[list[list[float]]]]:
        entries = [matrix.tolist() for matrix in (self.matrix, self.score_gain, self.noise)]
        return sp.lambdify(PARAMETERS, entries, "numpy")

    def numbers(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        """A, G and D at the parameters `values`, stacked: (3, 2, 2), float64."""
        with np.errstate(all="ignore"):
            numbers = np.array(
                self._numbers(**{name: np.float64(value) for name, value in values.items()}), dtype=float
            )
        if not np.isfinite(numbers).all():
            shown = ", ".join(f"{name} = {value:g}" for name, value in values.items())
            raise ValueError(
                f"the drift ({self.drift[0]}, {self.drift[1]}) or its noise is singular at {shown}; choose others"
            )
        return numbers

    @property
    def uses_score(self) -> bool:
        """Whether the drift depends on the score."""
        return not self.score_gain.is_zero_matrix

    @property
    def has_noise(self) -> bool:
        """Whether the diffusion is not zero."""
        return not self.noise.is_zero_matrix


@dataclass(frozen=True)
class Diffusion:
    """A forward SDE and the momentum's variance at the data: together they fix every p_t and its score.

    `prior_variance` is that of (x, m) in the law N(0, .) that samplers start from; `score_arguments` are what the score
    that the dynamics use depends on.
    """

    name: str
    forward: LinearSDE
    momentum_variance: Expr
    prior_variance: tuple[Expr, Expr] = (sp.S.One, M)
    score_arguments: tuple[sp.Symbol, ...] = (x, m, t)

    def reverse(self) -> LinearSDE:
        """The reverse SDE du = [-f + g^2 s] dtheta + g dw (Anderson 1982)."""
        return LinearSDE(self._reverse_drift(sp.S.One), self.forward.diffusion)

    def probability_flow(self) -> LinearSDE:
        """The probability-flow ODE du = [-f + g^2 s / 2] dtheta (Song et al. 2021)."""
        return LinearSDE(self._reverse_drift(Rational(1, 2)))

    def variances(self, values: Mapping[str, float]) -> tuple[float, float, float]:
        """The momentum's variance at the data and the prior's two variances, at the parameters `values`."""
        momentum, position, last = self._variances(**values)
        return float(momentum), float(position), float(last)

    @cached_property
    def _variances(self) -> Callable[..., list[float]]:
        return sp.lambdify(PARAMETERS, [self.momentum_variance, *self.prior_variance], "numpy")

    def _reverse_drift(self, score_weight: Expr) -> tuple[Expr, Expr]:
        drift = -Matrix(self.forward.drift) + score_weight * self.forward.noise * Matrix([s_x, s_m])
        return drift[0], drift[1]


PSLD_DIFFUSION = Diffusion(
    "psld",
    forward=LinearSDE(
        drift=((M_inv * m - gamma * x) / 2, (-x - nu * m) / 2),
        diffusion=(sqrt(gamma), sqrt(nu * M)),
    ),
    momentum_variance=kappa * M,
)

# Underdamped Langevin dynamics in a potential does not noise its data: its law is stationary,
# N(x; data) x N(m; 0, M), and its score in x is minus the gradient of the potential.
STATIONARY = Diffusion(
    "stationary",
    forward=LinearSDE(drift=(sp.S.Zero, sp.S.Zero)),
    momentum_variance=M,
    score_arguments=(x,),
)
LANGEVIN_DYNAMICS = LinearSDE(drift=(M_inv * m, s_x - nu * m), diffusion=(sp.S.Zero, sqrt(2 * nu * M)))


# Beyond these a model's numbers are a slip, and its flows overflow; times are resolved in float64 beside T = 1.
LARGEST, SMALLEST_TIME = 1e6, 1e-12


@dataclass(frozen=True)
class Parameters:
    """The model's numbers; the defaults are those of the published CIFAR-10 model.

    gamma, nu >= 0 (not equal: M = 4 / (gamma - nu)^2), kappa >= 0 (the momentum starts with variance kappa M),
    beta(t) = beta_min + (beta_max - beta_min) t positive on [0, T], 0 < eps < T = 1 the cut-off.
    Raises ValueError naming the value and the rule it breaks.
    """

    gamma: float = 0.01
    nu: float = 4.01
    kappa: float = 0.04
    beta_min: float = 8.0
    beta_max: float = 8.0
    eps: float = 1e-3

    T = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            try:
                value = float(getattr(self, field.name))
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{field.name} = {getattr(self, field.name)!r} is not a number") from error
            object.__setattr__(self, field.name, value)
            if not math.isfinite(value):
                raise ValueError(f"{field.name} = {value} is not finite; give a finite number")
        for name in ("gamma", "nu", "kappa"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name):g} is negative; {name} must be >= 0")
            if getattr(self, name) > LARGEST:
                raise ValueError(f"{name} = {getattr(self, name):g} is too large; {name} must be <= {LARGEST:g}")
        for name in ("beta_min", "beta_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name):g} is not positive; {name} must be > 0")
            if getattr(self, name) > LARGEST:
                raise ValueError(f"{name} = {getattr(self, name):g} is too large; {name} must be <= {LARGEST:g}")
        if self.M_inv == 0 or not math.isfinite(1 / self.M_inv):
            raise ValueError(
                f"gamma = nu = {self.gamma:g} gives M^-1 = (gamma - nu)^2 / 4 = 0, a momentum of infinite "
                "variance; choose gamma and nu apart"
            )
        if not SMALLEST_TIME <= self.eps < self.T:
            raise ValueError(f"eps = {self.eps:g} is outside [{SMALLEST_TIME:g}, {self.T:g}); choose a cut-off between")

    @property
    def M_inv(self) -> float:
        """The inverse of the momentum's mass, M^-1."""
        return critical_mass_inverse(self.gamma, self.nu)

    @property
    def M(self) -> float:
        """The stationary variance of the momentum."""
        return 1 / self.M_inv

    def beta(self, t):
        """beta(t), for a number or an array."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def theta(self, t, length):
        """int of beta over [t - length, t]: beta is linear, so the midpoint rule is exact and does not cancel."""
        return length * self.beta(t - length / 2)

    def values(self) -> dict[str, float]:
        """What the symbols gamma, nu and kappa stand for."""
        return {name: getattr(self, name) for name in _NAMES}
