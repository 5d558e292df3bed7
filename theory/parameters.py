"""The model's numbers, and what they mean: beta(t), the mass, the cut-off."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

NAMES = ("gamma", "nu", "kappa")  # of the numbers that formulas depend on
# The components of a state, in order: position, momentum, acceleration, jerk. A diffusion has the first n of them.
COMPONENTS = ("x", "m", "a", "j")


def critical_mass_inverse(gamma, nu):
    """M^-1 = (Gamma - nu)^2 / 4 (critical damping), for numbers, arrays and symbols alike."""
    return (gamma - nu) * (gamma - nu) / 4


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
        return {name: getattr(self, name) for name in NAMES}
