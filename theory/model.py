"""The phase-space Langevin diffusion (PSLD): one forward SDE, and everything that follows from it.

State u = (x, m), position and momentum; every formula acts per coordinate. A linear SDE and a diffusion are values
made from sympy expressions, or, if they are built in, from the text of them that ships (theory.derivations), and then
sympy is imported only when an expression is asked for. The built-in ones are written down in theory.declarations.

This module offers the symbols that declarations are written in, too: x, m, s_x, s_m, t, the parameters gamma, nu,
kappa, theta, and M, M_inv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .cache import cached
from .derivations import declared
from .formulas import Compiled, compiled
from .parameters import LARGEST, NAMES, SMALLEST_TIME, Parameters, critical_mass_inverse

if TYPE_CHECKING:
    from sympy import Expr, Matrix, Symbol

    from .symbols import PARAMETERS, M, M_inv, gamma, kappa, m, nu, s_m, s_x, t, theta, x

__all__ = [
    "LANGEVIN_DYNAMICS",
    "LARGEST",
    "PARAMETERS",
    "PSLD_DIFFUSION",
    "SMALLEST_TIME",
    "STATIONARY",
    "Diffusion",
    "LinearSDE",
    "M",
    "M_inv",
    "Parameters",
    "critical_mass_inverse",
    "gamma",
    "kappa",
    "m",
    "nu",
    "s_m",
    "s_x",
    "t",
    "theta",
    "x",
]


def __getattr__(name: str) -> Any:
    """The symbols, which import sympy."""
    if name in __all__:
        from . import symbols

        return getattr(symbols, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def no_diffusion() -> Any:
    """The diffusion of dynamics without noise: (0, 0), sympy expressions."""
    import sympy as sp

    return (sp.S.Zero, sp.S.Zero)


def _parsed(entries: Sequence[str]) -> tuple[Any, ...]:
    from .formulas import parse
    from .symbols import SYMBOLS

    return tuple(parse(entry, SYMBOLS) for entry in entries)


@dataclass(frozen=True, eq=False)
class LinearSDE:
    """du = (A u + G s) dtheta + diag(g) dw: linear in the state and in the score.

    `drift` is (dx, dm) per unit theta, as expressions in x, m, s_x, s_m and the parameters gamma, nu, kappa;
    `diffusion` is the pair of coefficients of dw_x and dw_m. Two SDEs of the same declaration are equal.
    Raises ValueError if the drift is not linear or an unknown symbol occurs.
    """

    drift: tuple[Expr, Expr]
    diffusion: tuple[Expr, Expr] = field(default_factory=no_diffusion)

    def __post_init__(self) -> None:
        from .linear import checked

        for name, pair in checked(self.drift, self.diffusion).items():
            object.__setattr__(self, name, pair)
        _ = self._facts

    @classmethod
    def declared(cls, declaration: Sequence[str]) -> LinearSDE:
        """The SDE of a declaration in text, which was checked when it was written."""
        sde = object.__new__(cls)
        object.__setattr__(sde, "declaration", tuple(declaration))
        return sde

    def __getattr__(self, name: str) -> Any:
        if name in ("drift", "diffusion") and "declaration" in self.__dict__:
            start = 0 if name == "drift" else 2
            object.__setattr__(self, name, _parsed(self.declaration[start : start + 2]))
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        return LinearSDE.declared, (self.declaration,)

    def __eq__(self, other: object) -> bool:
        return self.declaration == other.declaration if isinstance(other, LinearSDE) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.declaration)

    @cached_property
    def declaration(self) -> tuple[str, ...]:
        """The text that the SDE is known by: drift of x and m, diffusion of x and m."""
        from .formulas import text

        return tuple(text(entry) for entry in (*self.drift, *self.diffusion))

    @cached_property
    def _facts(self) -> dict[str, list[str]]:
        """A, G and D, row-major, in text. Raises ValueError if the drift is not linear."""

        def derive() -> dict[str, list[str]]:
            from .linear import facts

            return facts(self.drift, self.diffusion)

        return cached(("linear sde", self.declaration), derive, keep=False)

    def _matrix(self, name: str) -> Matrix:
        from sympy import Matrix

        return Matrix(2, 2, _parsed(self._facts[name]))

    @cached_property
    def matrix(self) -> Matrix:
        """A, the 2x2 matrix of the drift in (x, m)."""
        return self._matrix("A")

    @cached_property
    def score_gain(self) -> Matrix:
        """G, the 2x2 matrix of the drift in (s_x, s_m)."""
        return self._matrix("G")

    @cached_property
    def noise(self) -> Matrix:
        """D = diag(g^2), the growth of the covariance per unit theta."""
        return self._matrix("D")

    @cached_property
    def _numbers(self) -> Compiled:
        return compiled([entry for name in "AGD" for entry in self._facts[name]])

    def numbers(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        """A, G and D at the parameters `values`, stacked: (3, 2, 2), float64."""
        with np.errstate(all="ignore"):
            entries = self._numbers({name: np.float64(value) for name, value in values.items()})
            numbers = np.array(entries, dtype=float).reshape(3, 2, 2)
        if not np.isfinite(numbers).all():
            shown = ", ".join(f"{name} = {value:g}" for name, value in values.items())
            raise ValueError(
                f"the drift ({self.drift[0]}, {self.drift[1]}) or its noise is singular at {shown}; choose others"
            )
        return numbers

    @property
    def uses_score(self) -> bool:
        """Whether the drift depends on the score."""
        return any(entry != "0" for entry in self._facts["G"])

    @property
    def noisy(self) -> tuple[bool, bool]:
        """Whether x and m have noise of their own."""
        D = self._facts["D"]
        return D[0] != "0", D[3] != "0"

    @property
    def has_noise(self) -> bool:
        """Whether the diffusion is not zero."""
        return any(self.noisy)


def _unit_variances() -> Any:
    from .symbols import M

    return (M**0, M)


def _state_and_time() -> Any:
    from .symbols import m, t, x

    return (x, m, t)


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A forward SDE and the momentum's variance at the data: together they fix every p_t and its score.

    `prior_variance` is that of (x, m) in the law N(0, .) that samplers start from; `score_arguments` are what the score
    that the dynamics use depends on. Two diffusions of the same name and declaration are equal.
    """

    name: str
    forward: LinearSDE
    momentum_variance: Expr
    prior_variance: tuple[Expr, Expr] = field(default_factory=_unit_variances)
    score_arguments: tuple[Symbol, ...] = field(default_factory=_state_and_time)

    @classmethod
    def declared(
        cls, name: str, forward: LinearSDE, variances: Sequence[str], score_arguments: Sequence[str]
    ) -> Diffusion:
        """The diffusion of a declaration in text: `variances` of the momentum at the data and of the prior's x and
        m."""
        diffusion = object.__new__(cls)
        texts = {"name": name, "forward": forward, "_declaration": (tuple(variances), tuple(score_arguments))}
        for attribute, value in texts.items():
            object.__setattr__(diffusion, attribute, value)
        return diffusion

    def __getattr__(self, name: str) -> Any:
        if "_declaration" in self.__dict__:
            variances, arguments = self._declaration
            if name == "momentum_variance":
                return _parsed(variances[:1])[0]
            if name == "prior_variance":
                return _parsed(variances[1:])
            if name == "score_arguments":
                return _parsed(arguments)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        return Diffusion.declared, (self.name, self.forward, *self._declaration)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Diffusion) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return (self.name, self.forward, self._declaration)

    @cached_property
    def _declaration(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        from sympy import sympify

        from .formulas import text

        variances = tuple(text(sympify(entry)) for entry in (self.momentum_variance, *self.prior_variance))
        return variances, tuple(map(str, self.score_arguments))

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of the score's arguments."""
        return self._declaration[1]

    @property
    def mass(self) -> str:
        """The momentum's variance at the data, in text."""
        return self._declaration[0][0]

    def reverse(self) -> LinearSDE:
        """The reverse SDE du = [-f + g^2 s] dtheta + g dw (Anderson 1982)."""
        return self._reversed("1", with_noise=True)

    def probability_flow(self) -> LinearSDE:
        """The probability-flow ODE du = [-f + g^2 s / 2] dtheta (Song et al. 2021)."""
        return self._reversed("1/2", with_noise=False)

    def _reversed(self, score_weight: str, with_noise: bool) -> LinearSDE:
        def derive() -> list[str]:
            from sympy import Rational

            from .declarations import ZERO, Dynamics, declaration, reverse_drift

            forward = Dynamics(self.forward.drift, self.forward.diffusion)
            drift = reverse_drift(forward, Rational(score_weight))
            return declaration(Dynamics(drift, forward.diffusion if with_noise else ZERO))

        question = ("reverse drift", self.forward.declaration, score_weight, with_noise)
        return LinearSDE.declared(cached(question, derive, keep=False))

    def variances(self, values: Mapping[str, float]) -> tuple[float, float, float]:
        """The momentum's variance at the data and the prior's two variances, at the parameters `values`."""
        momentum, position, last = self._variances({name: values[name] for name in NAMES})
        return float(momentum), float(position), float(last)

    @cached_property
    def _variances(self) -> Compiled:
        return compiled(self._declaration[0])


def _built_in(name: str) -> Diffusion:
    entry = declared()["diffusions"][name]
    return Diffusion.declared(name, LinearSDE.declared(entry["forward"]), entry["variances"], entry["score_arguments"])


PSLD_DIFFUSION = _built_in("psld")
STATIONARY = _built_in("stationary")
LANGEVIN_DYNAMICS = LinearSDE.declared(declared()["splittings"]["langevin"]["whole"])
