"""The amount of noise of reverse dynamics as a function of time, tau(t).

The dynamics du = [-f + (1 + tau^2) / 2 g^2 s] dtheta + tau g dw have the laws p_t whatever tau is, a number or a
function of time (theory.linear: at each time the drift's part in the score and the noise fit together). Published ones:

    between(low, high)   tau, 1 unless said, where low < sigma_t / alpha_t < high, and 0 elsewhere: SA-Solver (Xue et
                         al. 2023, arXiv 2309.05019, section 6)
    churn(S)             what the stochastic sampler of EDM (Karras et al. 2022, arXiv 2206.00364, algorithm 2) tends
                         to with many steps

A scheme has tau constant over each interval over which a part acts, at its value where the interval begins, as
SA-Solver's code has it. Nothing is lost: the dynamics of every such piece keep p_t too, and what is proven of a word
(theory.weak_order) is proven with tau as a symbol, for every number that it may be.

**Churn.** Before each of N steps of its grid sigma(i / N) algorithm 2 adds noise of variance ((1 + S/N)^2 - 1) sigma^2
and then follows the flow. With many steps that is noise of variance 2 S sigma^2 / |sigma'| per unit of sigma, where
the reverse SDE of dx = (2 sigma)^(1/2) dw has 2 sigma: so tau^2 = S sigma / |sigma'|, and on the grid of its equation 5
|sigma'| = rho sigma^(1 - 1/rho) (sigma_max^(1/rho) - sigma_min^(1/rho)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cache import cached
from .formulas import Compiled, FormulaError, compiled
from .parameters import LARGEST, Parameters

if TYPE_CHECKING:
    from sympy import Expr

    from .model import LinearSDE

Array = NDArray[np.float64]

# The symbol that declarations and proofs have for it, and what its formula may hold.
TAU = "tau"
ARGUMENTS = ("t", "theta")


@dataclass(frozen=True)
class NoiseAmount:
    """tau(t) as the text of a formula in t and theta = int_0^t beta (theory.formulas), such as "1 - t".

    Raises ValueError on what is no formula, and on other names in it.
    """

    formula: str

    def __post_init__(self) -> None:
        try:
            names = self._function.names
        except FormulaError as error:
            raise ValueError(f"noise {self.formula!r}: {error}") from error
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(
                f"noise {self.formula[:80]!r} is no formula; write a number, or an expression in t such as 1 - t"
            ) from error
        if unknown := sorted(set(names) - set(ARGUMENTS)):
            raise ValueError(
                f"noise {self.formula!r} holds {unknown[0]!r}; it is a formula in {' and '.join(ARGUMENTS)}, "
                "the time and int beta"
            )

    @classmethod
    def of(cls, noise: str | Expr | NoiseAmount) -> NoiseAmount:
        """Of a text, or an expression of sympy in the symbols t and theta."""
        if isinstance(noise, NoiseAmount):
            return noise
        if isinstance(noise, str):
            return cls(noise.strip())
        from .formulas import text

        return cls(text(noise))

    @cached_property
    def _function(self) -> Compiled:
        return compiled([self.formula])

    @property
    def without_time(self) -> ValueError:
        """What those raise who need one amount for all times."""
        return ValueError(f"noise {self.formula} changes with time, which is not known here; give a number as noise")

    def at(self, t: ArrayLike, params: Parameters) -> Array:
        """tau at times t of any shape. Raises ValueError where it is not a number in [0, `LARGEST`]."""
        t = np.asarray(t, dtype=float)
        with np.errstate(all="ignore"):
            found: Any = self._function({"t": t, "theta": params.theta(t, t)})[0]
            values = np.broadcast_to(np.asarray(found, dtype=float), t.shape)
        if (bad := ~((values >= 0) & (values <= LARGEST))).any():
            raise ValueError(
                f"noise {self.formula!r} is {values[bad].flat[0]:g} at t = {t[bad].flat[0]:g}; it must be in "
                f"[0, {LARGEST:g}]: give another formula, or keep it from there by Max or Min"
            )
        return values

    def __reduce__(self) -> tuple[type[NoiseAmount], tuple[str]]:
        return NoiseAmount, (self.formula,)  # other processes compile it themselves

    def __str__(self) -> str:
        return self.formula


def reverse_family(forward: LinearSDE) -> list[str]:
    """The reverse dynamics with the symbol tau as amount of noise, in text: drifts, then diffusions."""

    def derive() -> list[str]:
        from sympy import Symbol

        from .declarations import Dynamics, declaration, reverse_drift

        tau: Any = Symbol(TAU)
        drift = reverse_drift(Dynamics(forward.drift, forward.diffusion), (1 + tau**2) / 2)
        return declaration(Dynamics(drift, tuple(tau * g for g in forward.diffusion)))

    return cached(("reverse drift", forward.declaration, TAU), derive, keep=False)


def between(low: float, high: float, tau: float = 1.0) -> NoiseAmount:
    """tau where low < sigma_t / alpha_t < high, of a diffusion in position alone, and 0 elsewhere."""
    first, last = (repr(float(np.log1p(sigma**2))) for sigma in (low, high))
    return NoiseAmount(f"{tau!r}*(1 + sign(theta - {first}))*(1 + sign({last} - theta))/4")


def churn(
    amount: float,
    sigma_min: float,
    sigma_max: float,
    rho: float = 7.0,
    start: float = 0.0,
    stop: float = float("inf"),
) -> NoiseAmount:
    """That of EDM's sampler with S_churn = `amount` and S_tmin, S_tmax = `start`, `stop`, on the grid of its equation
    5, for gamma = S/N below its limit 2^(1/2) - 1; of vp at the theta with the same sigma / alpha."""
    power = 1 / rho
    scale = (amount / (rho * (sigma_max**power - sigma_min**power))) ** 0.5
    base = f"{scale!r}*(exp(theta) - 1)**{power / 4!r}"
    if start <= 0 and stop == float("inf"):
        return NoiseAmount(base)
    return NoiseAmount(f"{base}*({between(start, min(stop, 1e100))})")
