"""What the proof says of each term of a budget as h -> 0: its leading local error, for every score.

A term is the difference of two samplers, the scheme with some approximations replaced (advice.budget_between) and the
same with one more. Both are words over the same parts, of which only the operators differ that parts and S are in the
calculus of theory.local_error: so the difference of their one-step expectations is a term's local error, for a generic
score, and its first coefficient that is not 0, of h^(p + 1), integrated along the exact flow (exact.prediction), is
what the term tends to, over h^p. The last one is compared with the process itself: the splitting's commutators.

The terms' local errors add up to that of the scheme, coefficient by coefficient; that their sum is what
theory.weak_order proves of it is a check on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...theory.calculus import Calculus, Series, plus
from ...theory.frozen import SCORE_HELD
from ...theory.local_error import Step, Word
from ...theory.polynomials import ONE, ZERO, Polynomial
from ...theory.polynomials import number as number_of
from ...theory.scheme import Scheme
from ...theory.weak_order import Coefficient, coefficients
from ..exact import integrated
from ..targets import GaussianLaw, GaussianTarget
from .budget import Source, first_of, is_whole, replacements
from .budget_between import Between


@dataclass(frozen=True)
class Leading:
    """A term's leading local error: the coefficients of h^(order + 1), one for each monomial of the increments whose
    error is not zero; none if all vanish up to h^(searched + 1)."""

    source: Source
    order: int
    coefficients: tuple[Coefficient, ...]
    searched: int

    def constants(self, scheme: Scheme, target: GaussianTarget, t_end: float, grid: str = "uniform") -> GaussianLaw:
        """What the term tends to over h^order, mean (n, V) and covariance (n, n, V), after a run of `scheme` from the
        exact law at T to t_end. Raises ValueError as `integrated`."""
        return integrated(self.coefficients, self.order, scheme, target, t_end, grid)


def leading_errors(scheme: Scheme, searched: int = 1, linear_beta: bool = True) -> tuple[Leading, ...]:
    """Of every term that comes from steps, in the order of the budget, up to h^(searched + 1).

    linear_beta: beta linear in t; else constant. lambda_s is one of order 0. Raises ValueError for schemes that look
    back on more than one evaluation, whose steps are not comparable one by one.
    """
    if scheme.memory > 1:
        raise ValueError(
            f"leading errors of the terms of {scheme.name!r} ({scheme.held}) are not known: its steps remember; choose "
            "memory 1"
        )
    found = []
    if scheme.lambda_s != 1:
        calculus, step, test = _setting(scheme, 0, linear_beta)
        scaled, plain = (Word(s, calculus).step(step, test) for s in (scheme, replace(scheme, lambda_s=1.0)))
        found.append(_leading(Source("lambda_s"), scaled, plain, calculus, 0))
    calculus, step, test = _setting(scheme, searched, linear_beta)
    plain = replace(scheme, lambda_s=1.0)
    chain = list(replacements(plain))
    before = _Word(first_of(plain), calculus).step(step, test)
    for source, between in chain:
        after = _Word(between, calculus).step(step, test)
        found.append(_leading(source, before, after, calculus, searched))
        before = after
    exact = Word(plain, calculus).process(step.start, step.length, test)
    if not is_whole(plain):
        found.append(_leading(Source("splitting"), before, exact, calculus, searched))
    return tuple(found)


def _setting(scheme: Scheme, searched: int, linear_beta: bool) -> tuple[Calculus, Step, Series]:
    general = scheme.frozen != SCORE_HELD
    calculus = Calculus(scheme.splitting, 1, searched + 1, linear_beta, general)
    return calculus, Step(ZERO, ONE), calculus.test_function()


def _leading(source: Source, before: Series, after: Series, calculus: Calculus, searched: int) -> Leading:
    for n in range(1, searched + 2):
        if difference := calculus.operator(before[n] - after[n], calculus.p):
            return Leading(source, n - 1, coefficients(difference), searched)
    return Leading(source, searched, (), searched)


class _Word(Word):
    """A word some of whose approximations are replaced."""

    def __init__(self, between: Between, calculus: Calculus) -> None:
        super().__init__(between.scheme, calculus)
        self.between = between

    def _token(self, step: Step, position: int, g: Series) -> Series:
        token, between = self.tokens[position], self.between
        if token.weight is None:
            return super()._token(step, position, g)
        if not self.uses_score(token):
            part = self.scheme.splitting[token.symbol]
            if not (part.euler and part.name in between.exact):
                return super()._token(step, position, g)
            return self._along(step, position, self.no_score, g)
        number = sum(t.is_score for t in self.tokens[:position]) - 1
        evaluated = step.offset([t.start for t in self.tokens[:position] if t.is_score][-1])
        here = self._here(step, position)
        if number in between.running:
            return self._along(step, position, self.calculus.reading(self.calculus.held_function(here), here), g)
        if token.symbol in between.followed:
            score = self.calculus.reading(self.calculus.held_function(evaluated), here)
            half = self.scheme.flow == "euler" and token.symbol not in between.exact
            return (self._half_along if half else self._along)(step, position, score, g)
        if token.symbol not in between.own:
            return super()._token(step, position, g)
        # What it evaluates is its own: the parts behind it hold what their S gave.
        g = super()._token(step, position, self.calculus.renamed(g, "held", "kept"))
        return self.calculus.renamed(self.evaluate(evaluated, g), "kept", "held")

    def _here(self, step: Step, position: int) -> Polynomial:
        """The offset within a part's interval."""
        token = self.tokens[position]
        return step.offset(token.start) + step.length * number_of(token.weight) * (ONE - self.calculus.y)

    def _half_along(self, step: Step, position: int, score: Sequence[Series], g: Series) -> Series:
        """A part that follows the score, and holds the rest of its drift, as Euler does."""
        token, calculus = self.tokens[position], self.calculus
        part = self.scheme.splitting[token.symbol]
        clock = calculus.clock(step.offset(token.start), step.length * number_of(token.weight))
        rest = calculus.drift(part, self.no_score)
        pulled = [plus(moved, [-a for a in own]) for moved, own in zip(calculus.drift(part, score), rest, strict=True)]
        drift = [plus(pull, held) for pull, held in zip(pulled, self.frozen_drift, strict=True)]
        g = calculus.evolve(clock, drift, calculus.half_noise(part), g)
        return calculus.substitute(g, dict(zip(calculus.names("b"), rest, strict=True)))

    def _along(self, step: Step, position: int, score: Sequence[Series], g: Series) -> Series:
        """A part that follows its dynamics exactly, with this score along its interval."""
        token, calculus = self.tokens[position], self.calculus
        part = self.scheme.splitting[token.symbol]
        clock = calculus.clock(step.offset(token.start), step.length * number_of(token.weight))
        return calculus.evolve(clock, calculus.drift(part, score), calculus.half_noise(part), g)
