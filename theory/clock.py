"""Clocks: the variable in which what is held is a polynomial through the last evaluations.

A scheme that remembers k evaluations (theory.scheme) takes for q the polynomial through q_1 ... q_k in a variable c,
any smooth function of time without a standstill. To first order in h all clocks run alike, so that orders are those of
every clock (theory.local_error proves them for any); what an older evaluation weighs on unequal steps, and the leading
error, are a clock's own.

    name      c                                  who takes it
    theta     int beta dt                        the default: what the parts' own coefficients are constant in
    t         the time                           DEIS, tAB (2204.13902)
    logsnr    log(alpha_t / sigma_t)             DPM-Solver++ (2211.01095), SA-Solver (2309.05019), UniPC (2302.04867),
                                                 DEIS in diffusers
    rho       sigma_t / alpha_t                  DEIS, rho-AB; LMS on EDM's ODE (k-diffusion): sigma

Of a state of several components the half log-SNR is log det(E_t^T Sigma_t^-1 E_t) / 2, with theory.frozen's kernel; as
E' = A E and Sigma' = A Sigma + Sigma A^T + D, all but the noise cancels in its rate, which has one sign:

    d logsnr / d theta = -tr(Sigma_t^-1 D) / 2.

**The middle.** Flows are exact for the polynomial that is held. DPM-Solver++(2M) and its SDE form, as published and as
they ship, hold a constant instead, the polynomial's value where the clock is half way through the part's interval
("midpoint"; their "heun" is the polynomial itself). Both have order 2; beyond that the middle has no more to give.

A further clock is one literal: a name, and dc / dtheta as a function of a `Kernel`, as theory.frozen has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .frozen import Kernel, NumericKernel, inverse, trace
from .model import Diffusion, Parameters
from .taylor import Taylor, TaylorKernel

Array = NDArray[np.float64]

_MIDPOINT = "-midpoint"


class Running(NamedTuple):
    """A clock of one diffusion and its parameters: rate, dc / dtheta at theta of any shape; whether the polynomial's
    value in the middle is held."""

    rate: Callable[[Array], Array]
    midpoint: bool


@dataclass(frozen=True)
class Clock:
    """The variable of the polynomial through the last evaluations.

    name: a word for options and titles. rate: dc / dtheta of a `Kernel`, a 1 x 1 matrix, with a time axis or without,
    that is nowhere 0; its scale and sign are of no account. midpoint: what is held is the polynomial's value in the
    middle of a part's interval, in place of the polynomial. Raises ValueError on a bad name.
    """

    name: str
    rate: Callable[[Kernel], Any]
    midpoint: bool = False

    def __post_init__(self) -> None:
        if not (self.name.isprintable() and self.name.strip() == self.name and self.name):
            raise ValueError(f"clock {self.name!r} is no name; choose printable letters, such as logsnr")

    def __reduce__(self) -> Any:
        """Built-in clocks by name: their functions cannot be pickled."""
        built_in = CLOCKS.get(str(self)) == self
        return (find_clock, (str(self),)) if built_in else (Clock, (self.name, self.rate, self.midpoint))

    @property
    def at_midpoint(self) -> Clock:
        """The same clock, with the polynomial's value in the middle held."""
        return replace(self, midpoint=True)

    @property
    def is_theta(self) -> bool:
        """Whether it is int beta, and the polynomial itself is held."""
        return self == THETA

    def check(self, diffusion: Diffusion) -> None:
        """Raises ValueError unless it runs under `diffusion`, tried at the default parameters."""
        with np.errstate(all="ignore"):
            try:
                rate = self._tried(diffusion)
                runs = bool(np.isfinite(rate).all() and (np.sign(rate) == np.sign(rate[0])).all() and rate[0] != 0)
            except (ValueError, np.linalg.LinAlgError):
                runs = False
        if not runs:
            raise ValueError(
                f"clock {self.name!r} has no rate under {diffusion.name!r} that is one number and never 0; choose "
                "another, such as theta"
            )

    def fingerprint(self, diffusion: Diffusion) -> list[float]:
        """Numbers that tell it from another clock of its name: how its rate changes, at the default parameters."""
        rate = self._tried(diffusion)
        return [*(float(f"{entry:.9g}") for entry in rate[1:] / rate[0]), float(self.midpoint)]

    def _tried(self, diffusion: Diffusion) -> Array:
        params = diffusion.parameters()
        t = np.array([1.0, 0.6, 0.3, 0.1])
        return self.running(diffusion, params).rate(params.theta(t, t))

    def running(self, diffusion: Diffusion, params: Parameters) -> Running:
        """Under the parameters. The rate raises ValueError where it is not one number."""

        def rate(theta: Array) -> Array:
            kernel = NumericKernel(diffusion, theta, params.values(), beta_at(theta, params))
            found = np.asarray(self.rate(kernel), dtype=float)
            if found.shape[-2:] != (1, 1):
                raise ValueError(f"clock {self.name!r}: its rate has the shape {found.shape[-2:]}; it is one number")
            return np.broadcast_to(found[..., 0, 0], theta.shape)

        return Running(rate, self.midpoint)

    def curvature(self, diffusion: Diffusion, t: ArrayLike, params: Parameters, order: int) -> list[Array]:
        """c''/c', c'''/c', ... with derivatives in t, up to the `order`-th, at the times t of any shape."""
        kernel = TaylorKernel(diffusion, t, params, order - 1)
        speed = kernel.beta @ kernel.beta.of(self.rate(kernel))
        return [np.broadcast_to(_at(speed, k) / _at(speed, 0), np.shape(t)) for k in range(1, order)]

    def __str__(self) -> str:
        return self.name + _MIDPOINT * self.midpoint


def beta_at(theta: Array, params: Parameters) -> Array:
    """beta at the times t with int_0^t beta = theta."""
    return np.sqrt(params.beta_min**2 + 2 * (params.beta_max - params.beta_min) * theta)


def time_at(theta: Array, params: Parameters) -> Array:
    """These times t, without cancellation."""
    return 2 * theta / (params.beta_min + beta_at(theta, params))


def _at(of: Taylor, k: int) -> Array:
    return math.factorial(k) * of.terms[k][..., 0, 0]


THETA = Clock("theta", lambda _: [[1.0]])
TIME = Clock("t", lambda k: inverse(k.beta))
LOGSNR = Clock("logsnr", lambda k: -0.5 * trace(inverse(k.cov) @ k.noise))
# Of one component: d(sigma / alpha) / dtheta = D / (2 alpha sigma). In more the product is no number.
RHO = Clock("rho", lambda k: 0.5 * inverse(k.propagator @ k.factor) @ k.noise)

CLOCKS = {str(c): c for clock in (THETA, TIME, LOGSNR, RHO) for c in (clock, clock.at_midpoint)}


def find_clock(name: str) -> Clock:
    """A built-in clock by its name, such as logsnr or logsnr-midpoint. Raises ValueError."""
    if name not in CLOCKS:
        raise ValueError(f"clock {name!r} is unknown; choose one of {', '.join(CLOCKS)}")
    return CLOCKS[name]
