"""Errors of exact moments: their sizes, what rounding leaves of them, and what they tend to as h -> 0.

Of a computed and an exact Gaussian law, in units of the prior's standard deviations,

    mean        |mean_N - mean|                         covariance   ||cov_N - cov||_F
    w2          the 2-Wasserstein distance

root mean square over the targets. Mean and covariance are smooth functions of h. W2 is one as long as the covariance is
off by less than its own smallest variance; beyond that, as near a point mass, it is the square root of a smooth error
and has half its order (`departure`).

Of one component the squared W2 of the centred laws is E^2 / (sqrt A + sqrt B)^2; of 2x2 covariances A = B + E with
determinants a and b it is

    ((E_xx - E_mm)^2 + 4 E_xm^2 + 4 (sqrt a - sqrt b)^2) / (T + 2 sqrt(tr A B + 2 sqrt(a b))),    T = tr A + tr B,

from (T^2 - S^2) / (T + S) with S = 2 tr (A^1/2 B A^1/2)^1/2 = 2 sqrt(tr A B + 2 sqrt(a b)) and the identities
tr A^2 = (tr A)^2 - 2 a and det(A - B) = a + b - (A_xx B_mm + A_mm B_xx - 2 A_xm B_xm). It is a sum of squares, and no
small number is the difference of large ones, if determinants keep their digits (`algebra.full_determinant`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...integrators.grids import check_grid
from ...theory.model import LinearSDE
from ...theory.parameters import COMPONENTS
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import (
    Array,
    centred_wasserstein,
    congruence,
    determinant,
    extrapolate,
    full_determinant,
    inverse,
    least_eigenvalue,
    magnification,
    matmul,
    spectral_radius,
)
from .moments import coefficients_at

QUANTITIES = ("mean", "covariance", "w2")
# A limit is biased if it is off by this many times its uncertainty, and by more than constants rounded to float32 leave
# (some dozen roundings of 2^-24); below that it is a warning, if it is more than float64 constants leave.
SURE, CONSTANTS_IN_FLOAT32, CONSTANTS_IN_FLOAT64 = 4, 1e-6, 1e-10
# Against a proof it has to be off by this many: the error of an extrapolation is itself an estimate.
CERTAIN = 100
# Errors below this, in units of the law's own size, are sums of a few thousand float64 roundings.
ROUND_OFF = 1e-12
# The fastest rate of the dynamics is looked for at so many times of a grid.
_TIMES = 256


# --- Sizes ------------------------------------------------------------------------------------------------------------


def wasserstein(computed: GaussianLaw, exact: GaussianLaw, unit: Array | None = None) -> Array:
    """The 2-Wasserstein distance of Gaussians (batch,), the components in the units (n,), default 1; of one or two
    components however ill-conditioned the laws are."""
    unit = np.ones(len(exact.mean)) if unit is None else unit
    if len(unit) != 2:
        first, second = in_units(computed, unit), in_units(exact, unit)
        offset = (((computed.mean - exact.mean) / unit[:, None]) ** 2).sum(0)
        return np.sqrt(offset + _centred(first.cov, second.cov))
    x, m = unit
    scale = np.array([[x * x, x * m], [m * x, m * m]])[..., None]
    A, B = computed.cov / scale, exact.cov / scale
    E = (computed.cov - exact.cov) / scale
    # the units come last: rounded by them, the entries would have another determinant
    a, b = (np.sqrt(np.maximum(full_determinant(law.cov), 0)) / (x * m) for law in (computed, exact))
    trace = A[0, 0] + A[1, 1] + B[0, 0] + B[1, 1]
    product = A[0, 0] * B[0, 0] + 2 * A[0, 1] * B[0, 1] + A[1, 1] * B[1, 1]
    squares = (E[0, 0] - E[1, 1]) ** 2 + 4 * E[0, 1] ** 2 + 4 * (a - b) ** 2
    total = trace + 2 * np.sqrt(np.maximum(product + 2 * a * b, 0))
    spread = np.divide(squares, total, out=np.zeros_like(squares), where=squares != 0)
    return np.sqrt((((computed.mean - exact.mean) / [[x], [m]]) ** 2).sum(0) + spread)


def _centred(A: Array, B: Array) -> Array:
    """The squared distance of centred laws of one component, or of more than two."""
    if len(A) > 2:
        return centred_wasserstein(A, B)
    a, b = A[0, 0], B[0, 0]
    roots = np.sqrt(a) + np.sqrt(b)
    return np.divide(a - b, roots, out=np.zeros_like(a), where=a != b) ** 2


def in_units(law: GaussianLaw, unit: Array) -> GaussianLaw:
    """A law with its components in the units (n,)."""
    return GaussianLaw(law.mean / unit[:, None], congruence(np.diag(1 / unit)[..., None], law.cov))


def errors_of(computed: GaussianLaw, exact: GaussianLaw, unit: Array) -> dict[str, float]:
    """The errors of a batch of laws by quantity, root mean square over the batch, in the units (n,) of the
    components."""
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged level becomes nan and is reported as such
        first, second = in_units(computed, unit), in_units(exact, unit)
        squares = {
            "mean": ((first.mean - second.mean) ** 2).sum(0),
            "covariance": ((first.cov - second.cov) ** 2).sum((0, 1)),
            "w2": wasserstein(computed, exact, unit) ** 2,
        }
        return {quantity: float(np.sqrt(square.mean())) for quantity, square in squares.items()}


def sizes_of(exact: GaussianLaw, unit: Array) -> dict[str, float]:
    """The size of the laws themselves by quantity, no less than 1, in the units (n,)."""
    law = in_units(exact, unit)
    mean, cov = (max(1.0, float(np.abs(entry).max())) for entry in law)
    return {"mean": mean, "covariance": cov, "w2": max(mean, cov**0.5)}


def departure(computed: GaussianLaw, exact: GaussianLaw, unit: Array) -> float:
    """How far the covariances are off beside the exact ones: the largest |v^T (A - B) v| / v^T B v of all directions
    and targets, with A computed and B exact. W2 is a smooth function of the error where this is below 1 or so."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        A, B = (in_units(law, unit).cov for law in (computed, exact))
        if len(B) != 2:
            return float(spectral_radius(matmul(inverse(B), A - B)).max())
        E, det = A - B, determinant(B)
        trace = (E[0, 0] * B[1, 1] + E[1, 1] * B[0, 0] - 2 * E[0, 1] * B[0, 1]) / det
        root = np.sqrt(np.maximum(trace**2 / 4 - determinant(E) / det, 0))
        return float((np.abs(trace) / 2 + root).max())


# --- Rounding ---------------------------------------------------------------------------------------------------------


def rounding_errors(bound: GaussianLaw, exact: GaussianLaw, unit: Array) -> dict[str, float]:
    """The errors that moments which are off by `bound` could show, by quantity, as `errors_of` measures them."""
    off, law = in_units(bound, unit), in_units(exact, unit)
    mean, cov = (off.mean**2).sum(0), np.sqrt((off.cov**2).sum((0, 1)))
    least = least_eigenvalue(law.cov)
    with np.errstate(divide="ignore"):  # |dW2| <= |dC| / (2 sqrt(least)), and never more than sqrt(|dC|)
        moved = np.minimum(cov / (2 * np.sqrt(least)), np.sqrt(cov))
    squares = {"mean": mean, "covariance": cov**2, "w2": mean + moved**2}
    return {quantity: float(np.sqrt(square.mean())) for quantity, square in squares.items()}


def stiffness(sde: LinearSDE, target: GaussianTarget, taus: Array) -> float:
    """The largest |rate| h of the steps of a grid (steps + 1,): the rates are eigenvalues of the closed drift
    beta (A - G Lambda_t). Far above 1 a run does not resolve the dynamics, and its errors say little of smaller h."""
    taus = check_grid(taus, target.params)
    stride = max(1, (len(taus) - 1) // _TIMES)
    later, h = taus[1:][::-stride], np.diff(taus)[::-stride]  # the last step, where rates are largest, is among them
    t = target.params.T - later
    A, G, _ = coefficients_at(sde, t, target.params)
    drift = target.params.beta(t)[:, None] * (A - matmul(G, target.precision(target.law(t))))
    return float((spectral_radius(drift) * h[:, None]).max())


# --- Limits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """The moment that is farthest from the exact one as h -> 0: `bias` +- `uncertainty`, relative to the law's size."""

    moment: str
    bias: float
    uncertainty: float

    @property
    def is_biased(self) -> bool:
        """Whether the limit differs from the exact law by more than its uncertainty and the rounding of constants."""
        return abs(self.bias) > max(SURE * self.uncertainty, CONSTANTS_IN_FLOAT32)

    @property
    def is_certain(self) -> bool:
        """Whether it differs by so many uncertainties that no estimate of them matters."""
        return self.is_biased and abs(self.bias) > CERTAIN * self.uncertainty

    @property
    def is_rounded(self) -> bool:
        """Whether it differs, but by no more than constants or times in float32 would make it."""
        return not self.is_biased and abs(self.bias) > max(SURE * self.uncertainty, CONSTANTS_IN_FLOAT64)

    def __str__(self) -> str:
        return f"as h -> 0 the {self.moment} is off by {self.bias:+.2e} +- {self.uncertainty:.0e} of the law's size"


def _moment(place: int, size: int) -> str:
    """The name of a moment in `relative`'s order."""
    names = [f"mean of {name}" for name in COMPONENTS[:size]]
    for i, j in zip(*np.triu_indices(size), strict=True):
        first, second = COMPONENTS[i], COMPONENTS[j]
        names.append(f"variance of {first}" if i == j else f"covariance of {first} and {second}")
    return names[place]


def signed_errors(computed: GaussianLaw, exact: GaussianLaw, unit: Array) -> Array:
    """Computed minus exact, relative to the exact law's size: of each target the mean, then the covariance's upper
    triangle by rows, of two components x, m, xx, xm, mm: (n + n (n + 1) / 2, V)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return relative(GaussianLaw(computed.mean - exact.mean, computed.cov - exact.cov), exact, unit)


def relative(errors: GaussianLaw, exact: GaussianLaw, unit: Array) -> Array:
    """Errors of mean and covariance relative to the exact law's size, as `signed_errors` has them."""
    i, j = np.triu_indices(len(unit))
    mean_size = np.maximum(unit[:, None], np.abs(exact.mean))
    variance = np.maximum(exact.cov[range(len(unit)), range(len(unit))], mean_size**2)
    return np.concatenate([errors.mean / mean_size, errors.cov[i, j] / np.sqrt(variance[i] * variance[j])])


def limit_of(steps: Array, signed: Sequence[Array], rounding: Sequence[Array], exact: GaussianLaw) -> Limit | None:
    """The signed errors (levels of (moments, V)), extrapolated to 1/N = 0: a step's error is smooth in h, so errors are
    power series in 1/N. None with fewer than four finite levels up to the finest.

    rounding: of each of `signed`. Where it grows with the steps, as that of float32 does, the finest levels may
    say less than those before them: the run of levels that knows the limit best is taken.
    """
    usable = list(itertools.takewhile(lambda errors: np.isfinite(errors).all(), signed[::-1]))[::-1]
    first = len(signed) - len(usable)
    if len(usable) < 4:
        return None
    found = []
    for stop in range(len(usable), 3, -1):
        arguments = 1 / steps[first : first + stop]
        best, moved = extrapolate(arguments, usable[:stop])
        round_off = np.max(rounding[first : first + stop], axis=0)
        uncertainty = np.maximum(moved, magnification(arguments) * round_off)
        found.append((float(uncertainty.max()), best, uncertainty))
        if moved >= uncertainty.max():
            break  # fewer levels are no better where it is not rounding that limits
    _, best, uncertainty = min(found, key=lambda entry: entry[0])
    excess = np.abs(best) / np.maximum(SURE * uncertainty, CONSTANTS_IN_FLOAT32)
    moment, place = np.unravel_index(int(excess.argmax()), best.shape)
    law = f"exact law: mean {exact.mean[0, place]:.2g}, variance {exact.cov[0, 0, place]:.2g} of x"
    name = f"{_moment(int(moment), len(exact.mean))} ({law})"
    return Limit(name, float(best[moment, place]), float(uncertainty[moment, place]))
