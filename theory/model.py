"""Diffusions: one linear forward SDE, and everything that follows from it.

A state u has n components, (x,) in position alone, (x, m) position and momentum, (x, m, a) and so on; every formula
acts per coordinate of the data. A linear SDE and a diffusion are values
made from sympy expressions, or, if they are built in, from the text of them that ships (theory.derivations), and then
sympy is imported only when an expression is asked for. The built-in ones are written down in theory.declarations.

This module offers the symbols that declarations are written in, too: x, m, a, j, s_x, s_m, s_a, s_j, t, the parameters
gamma, nu, kappa, theta, and M, M_inv.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cache import cached
from .derivations import declared
from .formulas import Compiled, compiled
from .noise_amount import TAU, NoiseAmount, reverse_family
from .parameters import COMPONENTS, LARGEST, NAMES, SMALLEST_TIME, Parameters, critical_mass_inverse

if TYPE_CHECKING:
    from sympy import Expr, Matrix, Symbol

    from .symbols import PARAMETERS, M, M_inv, a, gamma, j, kappa, m, nu, s_a, s_j, s_m, s_x, t, theta, x

__all__ = [
    "DIFFUSIONS",
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
    "a",
    "critical_mass_inverse",
    "gamma",
    "j",
    "kappa",
    "m",
    "nu",
    "s_a",
    "s_j",
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


def _parsed(entries: Sequence[str]) -> tuple[Any, ...]:
    from .formulas import parse
    from .symbols import SYMBOLS

    return tuple(parse(entry, SYMBOLS) for entry in entries)


@dataclass(frozen=True, eq=False)
class LinearSDE:
    """du = (A u + G s) dtheta + diag(g) dw: linear in the state and in the score.

    `drift` is (dx, dm) per unit theta, or as many entries as the state has components, as expressions in x, m, s_x, s_m
    (the first n of x, m, a, j) and the parameters gamma, nu, kappa; `diffusion` holds the coefficients of dw_x, dw_m,
    none given: no noise. amount: of a family of SDEs, whose entries hold the symbol tau, what tau is as a function of
    time (theory.noise_amount). Two SDEs of the same declaration, and amount, are equal.
    Raises ValueError if the drift is not linear or an unknown symbol occurs.
    """

    drift: tuple[Expr, ...]
    diffusion: tuple[Expr, ...] = field(default_factory=tuple)
    amount: NoiseAmount | None = None

    def __post_init__(self) -> None:
        from .linear import checked

        for name, pair in checked(self.drift, self.diffusion).items():
            object.__setattr__(self, name, pair)
        _ = self._facts

    @classmethod
    def declared(cls, declaration: Sequence[str], amount: NoiseAmount | None = None) -> LinearSDE:
        """The SDE of a declaration in text, which was checked when it was written."""
        sde = object.__new__(cls)
        object.__setattr__(sde, "declaration", tuple(declaration))
        object.__setattr__(sde, "amount", amount)
        return sde

    def __getattr__(self, name: str) -> Any:
        if name in ("drift", "diffusion") and "declaration" in self.__dict__:
            half = self.declaration[: self.size] if name == "drift" else self.declaration[self.size :]
            object.__setattr__(self, name, _parsed(half))
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        return LinearSDE.declared, (self.declaration, self.amount)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LinearSDE):
            return NotImplemented
        return (self.declaration, self.amount) == (other.declaration, other.amount)

    def __hash__(self) -> int:
        return hash((self.declaration, self.amount))

    @cached_property
    def declaration(self) -> tuple[str, ...]:
        """The text that the SDE is known by: the drift of every component, then its diffusion."""
        from .formulas import text

        return tuple(text(entry) for entry in (*self.drift, *self.diffusion))

    @property
    def size(self) -> int:
        """The number n of components."""
        return len(self.declaration) // 2

    @cached_property
    def _facts(self) -> dict[str, list[str]]:
        """A, G and D, row-major, in text. Raises ValueError if the drift is not linear."""

        def derive() -> dict[str, list[str]]:
            from .linear import facts

            return facts(self.drift, self.diffusion, [] if self.amount is None else [TAU])

        return cached(("linear sde", self.declaration), derive, keep=False)

    def _matrix(self, name: str) -> Matrix:
        from sympy import Matrix

        return Matrix(self.size, self.size, _parsed(self._facts[name]))

    @cached_property
    def matrix(self) -> Matrix:
        """A, the n x n matrix of the drift in the state."""
        return self._matrix("A")

    @cached_property
    def score_gain(self) -> Matrix:
        """G, the n x n matrix of the drift in the score."""
        return self._matrix("G")

    @cached_property
    def noise(self) -> Matrix:
        """D = diag(g^2), the growth of the covariance per unit theta."""
        return self._matrix("D")

    @cached_property
    def _numbers(self) -> Compiled:
        return compiled([entry for name in "AGD" for entry in self._facts[name]])

    def values(self, params: Parameters, t: ArrayLike | None) -> dict[str, Any]:
        """What the symbols stand for: the parameters' numbers and, of a family, tau at the times t, in their shape.
        Raises ValueError as `NoiseAmount.at`, and where there is no time."""
        if self.amount is None:
            return params.values()
        if t is None:
            raise self.amount.without_time
        return {**params.values(), TAU: self.amount.at(t, params)}

    def numbers(self, values: Mapping[str, Any]) -> NDArray[np.float64]:
        """A, G and D at the parameters `values`, stacked: (3, n, n), float64, or (3, ..., n, n) with tau (...)."""
        if self.amount is not None and TAU not in values:
            raise self.amount.without_time
        with np.errstate(all="ignore"):
            entries = self._numbers({name: np.float64(value) for name, value in values.items()})
            if self.amount is not None:
                entries = np.broadcast_arrays(*entries, values[TAU])[:-1]
            numbers = np.stack(entries, axis=-1).reshape(*np.shape(entries[0]), 3, self.size, self.size)
            numbers = np.moveaxis(numbers, -3, 0)
        if not np.isfinite(numbers).all():
            shown = ", ".join(f"{name} = {value:g}" for name, value in values.items() if name != TAU)
            raise ValueError(
                f"the drift ({', '.join(map(str, self.drift))}) or its noise is singular at {shown}; choose others"
            )
        return numbers

    @property
    def uses_score(self) -> bool:
        """Whether the drift depends on the score."""
        return any(entry != "0" for entry in self._facts["G"])

    @property
    def noisy(self) -> tuple[bool, ...]:
        """Which components have noise of their own."""
        return tuple(entry != "0" for entry in self._facts["D"][:: self.size + 1])

    @property
    def has_noise(self) -> bool:
        """Whether the diffusion is not zero."""
        return any(self.noisy)


def _unit_variances() -> Any:
    from .symbols import M

    return (M**0, M)


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A forward SDE, and the variances at the data of all components but x: together they fix every p_t and its score.

    The state's components are the first n of x, m, a, j, as many as `forward` has. `data_variance` (n - 1 entries): of
    m, ... at the data. `prior_variance` (n): in the law N(0, .) that samplers start from; both may use the parameters.
    `score_arguments`: what the score that the dynamics use depends on; none given, the state and t. `defaults`: the
    parameters' values where others than the published PSLD model's are usual, such as {"beta_min": 0.1}. Two diffusions
    of the same name and declaration are equal. Raises ValueError on a wrong number of variances.
    """

    name: str
    forward: LinearSDE
    data_variance: tuple[Expr, ...]
    prior_variance: tuple[Expr, ...] = field(default_factory=_unit_variances)
    score_arguments: tuple[Symbol, ...] = field(default_factory=tuple)
    defaults: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.forward.size
        for name, least in (("data_variance", n - 1), ("prior_variance", n)):
            given = getattr(self, name)
            if not isinstance(given, tuple) or len(given) != least:
                raise ValueError(
                    f"{name} {given} of diffusion {self.name!r}: its state is ({', '.join(self.components)}); give "
                    f"a tuple of {least}, one for each component{' but x' if least < n else ''}"
                )
        if not self.score_arguments:
            from .symbols import STATE, t

            object.__setattr__(self, "score_arguments", (*STATE[:n], t))

    @classmethod
    def declared(
        cls,
        name: str,
        forward: LinearSDE,
        variances: Sequence[str],
        score_arguments: Sequence[str],
        defaults: Mapping[str, float] | None = None,
    ) -> Diffusion:
        """The diffusion of a declaration in text: `variances` at the data and of the prior, 2n - 1."""
        diffusion = object.__new__(cls)
        texts = {
            "name": name,
            "forward": forward,
            "_declaration": (tuple(variances), tuple(score_arguments)),
            "defaults": dict(defaults or {}),
        }
        for attribute, value in texts.items():
            object.__setattr__(diffusion, attribute, value)
        return diffusion

    def __getattr__(self, name: str) -> Any:
        if "_declaration" in self.__dict__:
            variances, arguments = self._declaration
            others = self.forward.size - 1
            if name == "data_variance":
                return _parsed(variances[:others])
            if name == "prior_variance":
                return _parsed(variances[others:])
            if name == "score_arguments":
                return _parsed(arguments)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        return Diffusion.declared, (self.name, self.forward, *self._declaration, dict(self.defaults))

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

        variances = tuple(text(sympify(entry)) for entry in (*self.data_variance, *self.prior_variance))
        return variances, tuple(map(str, self.score_arguments))

    @property
    def size(self) -> int:
        """The number n of components of a state."""
        return self.forward.size

    @property
    def components(self) -> tuple[str, ...]:
        """The names of a state's components."""
        return COMPONENTS[: self.size]

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Which of the parameters gamma, nu and kappa the diffusion depends on."""
        words = set(re.findall(r"\w+", " ".join((*self.forward.declaration, *self._declaration[0]))))
        return tuple(name for name in NAMES if name in words)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of the score's arguments."""
        return self._declaration[1]

    @property
    def data_variance_text(self) -> tuple[str, ...]:
        """`data_variance` in text."""
        return self._declaration[0][: self.size - 1]

    def parameters(self, **given: float) -> Parameters:
        """Parameters with the diffusion's defaults where nothing is given. Raises ValueError as `Parameters`."""
        return Parameters(**{**self.defaults, **given})

    def reverse(self, noise: float | Fraction | str | Expr | NoiseAmount = 1) -> LinearSDE:
        """The reverse dynamics du = [-f + (1 + noise^2) / 2 g^2 s] dtheta + noise g dw, which all have the laws p_t.

        noise: a number >= 0; 1 is the reverse SDE (Anderson 1982), 0 the probability flow (Song et al. 2021), the
        numbers between and beyond are the family of Zhang and Chen 2023 (arXiv 2204.13902, equation 4) and SA-Solver's
        tau (Xue et al. 2023, arXiv 2309.05019). A function of time is a `NoiseAmount`, or what it is made of: a formula
        or a sympy expression in t and theta = int_0^t beta. Raises ValueError on another noise.
        """
        if not isinstance(noise, float | int | Real):
            return LinearSDE.declared(reverse_family(self.forward), NoiseAmount.of(noise))
        if not 0 <= noise <= LARGEST:
            raise ValueError(f"noise = {noise} of reverse dynamics must be a number in [0, {LARGEST:g}]; 1 is the SDE")
        amount = Fraction(noise)
        weight = str((1 + amount**2) / 2)

        def derive() -> list[str]:
            from sympy import Rational

            from .declarations import Dynamics, declaration, reverse_drift

            forward = Dynamics(self.forward.drift, self.forward.diffusion)
            scale = Rational(amount.numerator, amount.denominator)
            return declaration(
                Dynamics(reverse_drift(forward, Rational(weight)), tuple(scale * g for g in forward.diffusion))
            )

        kind = bool(amount) if amount in (0, 1) else str(amount)
        question = ("reverse drift", self.forward.declaration, weight, kind)
        return LinearSDE.declared(cached(question, derive, keep=False))

    def probability_flow(self) -> LinearSDE:
        """The probability-flow ODE du = [-f + g^2 s / 2] dtheta (Song et al. 2021)."""
        return self.reverse(0)

    def data_variances(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        """The variances at the data of the components but x, (n - 1,), at the parameters `values`."""
        return self._variances_at(values)[: self.size - 1]

    def prior_variances(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        """The prior's variances, (n,), at the parameters `values`."""
        return self._variances_at(values)[self.size - 1 :]

    def _variances_at(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        return np.array(self._variances({name: values[name] for name in NAMES}), dtype=float)

    @cached_property
    def _variances(self) -> Compiled:
        return compiled(self._declaration[0])


def _built_in(name: str) -> Diffusion:
    entry = declared()["diffusions"][name]
    sde = LinearSDE.declared(entry["forward"])
    return Diffusion.declared(name, sde, entry["variances"], entry["score_arguments"], entry.get("defaults"))


DIFFUSIONS = {name: _built_in(name) for name in declared()["diffusions"]}
PSLD_DIFFUSION, STATIONARY = DIFFUSIONS["psld"], DIFFUSIONS["stationary"]
LANGEVIN_DYNAMICS = LinearSDE.declared(declared()["splittings"]["langevin"]["whole"])
