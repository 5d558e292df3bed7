"""Splittings: the reverse dynamics as a sum of parts, each declared once.

A part is a linear SDE; from its declaration come its exact flow (theory.flows) and its Euler flow. A splitting checks,
by algebra, that its parts add up to the whole: their drifts, and the squares of their diffusion coefficients. The
built-in ones are written down, in sympy, in theory.declarations.

    psld          O A B   the papers' splitting (arXiv 2402.07211, section 3; 2310.07894, section 4)
    psld-linear   U E     symmetric splitting CLD sampler, SSCS (Dockhorn et al., arXiv 2112.07068, section 3.3)
    psld-whole    F       the reverse SDE as one part: Euler-Maruyama
    psld-flow     A B     the probability-flow ODE (arXiv 2310.07894, section 4)
    psld-flow-whole  F    the probability-flow ODE as one part
    langevin      O A B   underdamped Langevin dynamics, whose orders are known (Leimkuhler and Matthews 2013)
    vp-whole      F       the reverse SDE of a diffusion in position alone (Song et al. 2021, arXiv 2011.13456)
    vp-flow       F       its probability-flow ODE
    vp-linear     U E     its linear part, and the score's
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

from .cache import cached
from .derivations import declared
from .flows import ExactFlow, Flow, euler_flow, exact_flow, summed_flow
from .model import DIFFUSIONS, Diffusion, LinearSDE, Parameters
from .noise_amount import NoiseAmount

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sympy import Expr

SCORE = "S"  # the token that evaluates the score; no part may take its name


def _check_part_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) or name == SCORE:
        raise ValueError(f"part name {name!r}: a letter, then letters or digits, and not {SCORE!r}, the score")


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a splitting: du = drift dtheta + diffusion dw, under a name that words use.

    `drift` and `diffusion` as in `LinearSDE`. The name is a letter, then letters or digits, and not S. euler: whether a
    part without score is followed by explicit Euler, whatever the scheme's sub-flow, which is for parts with score.
    Raises ValueError on a bad name, a drift that is not linear, or a part with score that says how it is followed.
    """

    name: str
    drift: tuple[Expr, ...]
    diffusion: tuple[Expr, ...] = field(default_factory=tuple)
    euler: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        _check_part_name(self.name)
        object.__setattr__(self, "diffusion", self.sde.diffusion)
        if self.sde.uses_score and self.euler:  # asked of every part: a drift that is not linear is refused here
            raise ValueError(
                f"part {self.name!r} uses the score: the scheme's flow says how it is followed; drop euler"
            )

    @classmethod
    def of(cls, name: str, sde: LinearSDE, euler: bool = False) -> Part:
        """The part with the dynamics `sde`. Raises ValueError on a bad name."""
        _check_part_name(name)
        part = object.__new__(cls)
        for attribute, value in (("name", name), ("sde", sde), ("euler", euler)):
            object.__setattr__(part, attribute, value)
        return part

    def __getattr__(self, name: str) -> Any:
        if name in ("drift", "diffusion") and "sde" in self.__dict__:
            return getattr(self.sde, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        return Part.of, (self.name, self.sde, self.euler)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Part) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, LinearSDE, bool]:
        return self.name, self.sde, self.euler

    @property
    def declaration(self) -> tuple[str, ...]:
        """The text that the part's dynamics, and how they are followed, are known by."""
        return (*self.sde.declaration, "euler") if self.euler else self.sde.declaration

    @cached_property
    def sde(self) -> LinearSDE:
        """The part's dynamics."""
        return LinearSDE(self.drift, self.diffusion)

    @property
    def exact(self) -> ExactFlow:
        """The exact flow with the score frozen, derived by sympy."""
        return exact_flow(self.sde)

    def flow(self, kind: str, length: ArrayLike, params: Parameters, begin: ArrayLike | None = None) -> Flow:
        """The flow over theta = `length` (any shape), "exact" or "euler"; a part without score is always exact, unless
        it says otherwise. begin: the times where these intervals begin, which noise that changes with time asks for."""
        values = self.sde.values(params, begin)
        if self.euler:
            return euler_flow(self.sde, length, values)
        if kind == "exact" or not self.sde.uses_score:
            return (
                self.exact(length, values) if self.sde.amount is None else summed_flow(self.sde.numbers(values), length)
            )
        if kind == "euler":
            return euler_flow(self.sde, length, values)
        raise ValueError(
            f"sub-flow {kind!r} of part {self.name} has no frozen score; frozen ones are 'exact' and 'euler'"
        )


@dataclass(frozen=True)
class Splitting:
    """Named parts that add up to `whole`; `diffusion` fixes the law p_t whose score drives them.

    The whole keeps every p_t, as the reverse SDE and the probability flow do (theory.linear): nothing that is proven of
    a word would be about p_t otherwise. Raises ValueError with the difference if it does not, or if the parts do not
    add up to it, and on an empty or doubly used name.
    """

    name: str
    diffusion: Diffusion
    whole: LinearSDE
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.name.isprintable():
            raise ValueError(f"name {self.name!r} holds characters that cannot be printed; choose a plain name")
        sizes = {sde.size for sde in (self.diffusion.forward, self.whole, *(part.sde for part in self.parts))}
        if len(sizes) > 1:
            raise ValueError(
                f"splitting {self.name!r} has dynamics of {' and '.join(map(str, sorted(sizes)))} components; all have "
                f"those of {self.diffusion.name!r}, ({', '.join(self.diffusion.components)})"
            )
        names = [part.name for part in self.parts]
        if not names:
            raise ValueError(f"splitting {self.name!r} has no parts; give at least one")
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"splitting {self.name!r} declares part {doubled[0]} twice; names must differ")
        self.check()

    def check(self) -> None:
        """Raises ValueError unless the parts add up to the whole, and the whole keeps the laws of the diffusion."""
        if other := {part.sde.amount for part in self.parts} - {None, self.whole.amount}:
            raise ValueError(
                f"the parts of splitting {self.name!r} have noise {other.pop()}, and its whole {self.whole.amount}; "
                "give both the same"
            )
        sums = {} if [part.sde for part in self.parts] == [self.whole] else self._differences
        for what, difference in sums.items():
            if any(entry != "0" for entry in difference):
                raise ValueError(
                    f"the parts of splitting {self.name!r} do not add up: {what} of parts minus whole "
                    f"is ({', '.join(difference)}) in ({', '.join(self.diffusion.components)}); it must be "
                    f"({', '.join('0' * self.diffusion.size)})"
                )
        for name, excess in zip(self.diffusion.components, self._excess, strict=True):
            if excess != "0":
                raise ValueError(
                    f"the whole of splitting {self.name!r} does not keep the laws p_t of diffusion "
                    f"{self.diffusion.name!r}: its drift of {name} has {excess} too much, and theorems on it would be "
                    "about another law; start from the diffusion's reverse() or probability_flow()"
                )

    @property
    def _excess(self) -> tuple[str, ...]:
        """What the drifts have too much to keep every p_t (theory.linear), in text."""
        forward, diffusion = self.diffusion.forward.declaration, self.diffusion
        unseen = [i for i, name in enumerate(diffusion.components) if name not in diffusion.score_names]
        others = list(diffusion.data_variance_text)
        question = ("keeps the laws", self.whole.declaration, forward, diffusion.score_names, *others)

        def derive() -> list[str]:
            from .linear import excess_drift

            return excess_drift(self.whole, diffusion.forward, {i: diffusion.data_variance[i - 1] for i in unseen})

        return tuple(cached(question, derive, keep=False))

    @property
    def _differences(self) -> dict[str, tuple[str, ...]]:
        """`differences` in text, which ships for the built-in splittings."""
        question = ("adds up", self.whole.declaration, sorted(part.sde.declaration for part in self.parts))

        def derive() -> dict[str, tuple[str, ...]]:
            from .formulas import text

            return {what: tuple(map(text, difference)) for what, difference in self.differences().items()}

        return cached(question, derive, keep=False)

    def differences(self) -> dict[str, tuple[Expr, ...]]:
        """Sum of the parts minus the whole, simplified: the drifts and the squared diffusion coefficients."""
        import sympy as sp

        n = self.whole.size
        drift = sum((sp.Matrix(p.sde.drift) for p in self.parts), sp.zeros(n, 1)) - sp.Matrix(self.whole.drift)
        noise = sum((p.sde.noise for p in self.parts), sp.zeros(n, n)) - self.whole.noise
        return {
            "drift": tuple(map(sp.simplify, drift)),
            "squared diffusion": tuple(map(sp.simplify, noise.diagonal())),
        }

    def __getitem__(self, name: str) -> Part:
        """The part called `name`; KeyError if there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def with_noise(self, noise: float | Fraction | str | Expr | NoiseAmount) -> Splitting:
        """The same single part with the reverse dynamics of another amount of noise (`Diffusion.reverse`): 0 is the
        probability flow, 1 the reverse SDE; a float is the decimal that it prints as; a function of time is a formula
        in t and theta, or a `NoiseAmount`.

        Raises ValueError on several parts, between which nothing says how the noise is shared, on a diffusion without
        noise, and on a bad amount.
        """
        said = f"{float(noise):g}" if isinstance(noise, Real) else str(noise)
        if len(self.parts) != 1:
            raise ValueError(
                f"noise = {said} of splitting {self.name!r}: how its parts {', '.join(self.part_names)} "
                "share it is not said; take a splitting of one part, such as psld-whole or vp-whole"
            )
        if not self.diffusion.forward.has_noise:
            raise ValueError(
                f"noise = {said} of splitting {self.name!r}: {self.diffusion.name!r} adds none that dynamics "
                "could have more or less of; take a splitting of another diffusion"
            )
        exact = Fraction(repr(noise)) if isinstance(noise, float) and math.isfinite(noise) else noise
        whole = self.diffusion.reverse(exact)
        if whole == self.whole:
            return self
        name = f"{self.name} (noise {said})"
        return Splitting(name, self.diffusion, whole, (Part.of(self.parts[0].name, whole, self.parts[0].euler),))

    @property
    def part_names(self) -> tuple[str, ...]:
        """The letters that words over this splitting use."""
        return tuple(part.name for part in self.parts)


def _built_in(name: str, diffusion: Diffusion) -> Splitting:
    entry = declared()["splittings"][name]
    parts = (Part.of(letter, LinearSDE.declared(part)) for letter, part in entry["parts"].items())
    return Splitting(name, diffusion, LinearSDE.declared(entry["whole"]), tuple(parts))


SPLITTINGS = {name: _built_in(name, DIFFUSIONS[entry["diffusion"]]) for name, entry in declared()["splittings"].items()}
PSLD, PSLD_LINEAR, PSLD_WHOLE, PSLD_FLOW, PSLD_FLOW_WHOLE, LANGEVIN = (
    SPLITTINGS[name] for name in ("psld", "psld-linear", "psld-whole", "psld-flow", "psld-flow-whole", "langevin")
)
VP_WHOLE, VP_FLOW, VP_LINEAR = (SPLITTINGS[name] for name in ("vp-whole", "vp-flow", "vp-linear"))


def whole_of(diffusion: Diffusion, is_noisy: bool = True) -> Splitting:
    """A diffusion's reverse SDE, or its probability flow, as samplers without a word follow it: a built-in splitting of
    these dynamics, or one of a single part."""
    whole = diffusion.reverse(1 if is_noisy else 0)
    for known in (PSLD_WHOLE, PSLD_FLOW, VP_WHOLE, VP_FLOW):
        if (known.diffusion, known.whole) == (diffusion, whole):
            return known
    return Splitting(f"{diffusion.name}-{'whole' if is_noisy else 'flow'}", diffusion, whole, (Part.of("F", whole),))


def splitting_for(names: set[str]) -> Splitting:
    """The first built-in splitting that has all the parts in `names`: the one that a bare word belongs to.

    Raises ValueError if there is none.
    """
    for splitting in SPLITTINGS.values():
        if names <= set(splitting.part_names):
            return splitting
    known = "; ".join(f"{s.name}: {' '.join(s.part_names)}" for s in SPLITTINGS.values())
    raise ValueError(f"no splitting has the parts {' '.join(sorted(names))} together; there are {known}")
