"""The local weak error of a word, expanded in h for every score function: what theory.weak_order proves orders by.

Read the word from right to left as operators on a test function f(u), u = (x, m). With everything smooth,

    E f(u_1 | u_0 = u)  =  (exp(theta_1 L_1) exp(theta_2 L_2) ... f)(u),   theta_k = int beta over the part's interval,

where a part with its score frozen at sigma has the generator L = (A u + G sigma) . grad + 1/2 D : grad grad (a Euler
sub-flow: the same with the whole drift vector frozen), and an S@c substitutes sigma = s(u, t - c h). A part that
follows its true score has sigma = s(u, t - c h) as a function of u. All of it is expanded in h and compared with the
exact one-step expectation,

    exp(h (L - d/dt)) f,   L = beta(t) sum of the parts' generators with the true score,

(tau = T - t runs against t). f is taken as exp(p . u): the coefficient of each power of h is then a polynomial in p,
the symbol of a differential operator, and its coefficients settle all test functions at once: i! j! times that of p_x^i
p_m^j is the local error of (x - x_0)^i (m - m_0)^j. The order is the smallest power of h with a non-zero coefficient,
minus one.

**Another quantity held.** If parts hold q of s = Phi(t) u + Psi(t) q (theory.frozen), a part's generator is
[(A + G Phi) u + G Psi q] . grad + 1/2 D : grad grad, its coefficients change along its interval, and its exponential is
ordered in time; S@c substitutes q(u, t - c h). The indeterminates are the jets of q, Phi and Psi, and no inverse
occurs: the theorem is one for every quantity that may be held, and for every smooth Phi and Psi.

**Memory.** If parts hold the polynomial through the last k evaluations, a step is a function of the state and of k - 1
older ones, and what it leaves behind, too. Let the exact process run up to the step, with the older evaluations made
along it, and compare the step with the process in its place, on every test function of the new state and of what is
remembered. What is remembered is only ever used times h, so

    f = exp(p . u + h (p_0 . q_0 + ... + p_{k-2} . q_{k-2})),        q_0 the last evaluation,

settles them all. Its error is averaged over the path behind, for that is where the order comes from: by itself an old q
is off by a path's roughness, h^(1/2). In a run these errors add up (the telescoping sum of Talay and Tubaro, over
states with their memory). A function v(u) of the end is V(u, h q) = v(u) + h (c_0 q_0 + c_1 q_1 + ...) . grad v + ... a
few steps before, c_j the weights with which the steps to come use what is remembered. So p_j = c_j p gives the leading
error of a run (`first_error`).

**Clocks.** The polynomial is in a clock c(t), any smooth one that runs (theory.clock): its weights are ratios of
c(t - a h) - c(t - b h) = -c'(t) h [(a - b) - (a^2 - b^2) h c_2 / 2 + ...], c_k = c^(k) / c', and the c_k are
indeterminates too.

A word whose S stands behind parts evaluates at a state that is not on the exact process. The older evaluations then
lie on a path with the same law at the ends of steps: those parts R first (which hold no score), the evaluation, the
formal inverse of R, the exact step. If parts have used the score before the last S, R is the whole step, but without a
past of its own, unless all parts have gone equally far there: then the process may. Any path will do that is laid the
same way everywhere. Lengths of earlier steps are 1, or indeterminates: order for every sequence.
Assumptions, as ever in weak expansions: coefficients smooth, with derivatives of polynomial growth; moments bounded
along the run; ratios of neighbouring steps bounded. What the first steps do, which remember less, is theory.weak_order.

For the whole reverse SDE and k >= 3 all of the leading error is h^3 beta^3 p^T (G q') D (G q')^T p / 24, q' = dq/du, of
second order in p, whatever is held and however long: noise moves q by q' dw within a step, its integral's part that is
independent of the step's own noise has the variance h^3 / 12, and no value of q at ends of steps knows it. So memory
beyond 2 gives the SDE's mean a higher order, and its covariance a smaller error of order 2. The flow has no D.

The jets are independent symbols, so a coefficient that vanishes does so for every score: the order is a lower bound for
each and sharp for a generic one, and lambda_s is generic too. It is relative to the declared splitting, whose parts add
up to its whole. Everything is exact rational arithmetic. Source: the operator calculus of weak expansions, e.g.
Leimkuhler and Matthews 2013; Talay and Tubaro 1990; memory for small noise: Buckwar and Winkler 2006.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import sympy as sp
from sympy import Expr

from .calculus import Calculus, Series, plus
from .frozen import SCORE_HELD
from .polynomials import ONE, ZERO, Polynomial, number
from .scheme import Scheme, Token
from .weak_order import Powers

# Lengths of steps in general position, where indeterminates take minutes.
_SOME = (Fraction(2, 3), Fraction(5, 4), Fraction(7, 5))


class Step(NamedTuple):
    """A step that begins at t - start h and is length h long. `earlier`: the offsets of the evaluations before it, the
    last one first."""

    start: Polynomial
    length: Polynomial
    earlier: tuple[Polynomial, ...] = ()

    def offset(self, time: Fraction) -> Polynomial:
        """The offset of a time of the step, a fraction of it."""
        return self.start + self.length * number(time)


class Word:
    """The tokens of a scheme as operators on what the calculus expands."""

    def __init__(self, scheme: Scheme, calculus: Calculus) -> None:
        self.scheme, self.calculus, self.tokens = scheme, calculus, scheme.tokens
        self.evaluations = tuple(token.start for token in scheme.tokens if token.is_score)
        self.noise_scale = ONE if scheme.lambda_s == 1 else calculus.lambda_s * calculus.lambda_s
        self.no_score = [calculus.constant(ZERO)] * calculus.size

    def uses_score(self, token: Token) -> bool:
        """Whether the token is a part that uses the score."""
        return not token.is_score and self.scheme.splitting[token.symbol].sde.uses_score

    def step(self, step: Step, g: Series, end: int | None = None) -> Series:
        """g after the word, or after its first `end` tokens."""
        for position in reversed(range(len(self.tokens) if end is None else end)):
            g = self._token(step, position, g)
        return g

    def _token(self, step: Step, position: int, g: Series) -> Series:
        token = self.tokens[position]
        if token.weight is None:
            return self.evaluate(step.offset(token.start), g)
        calculus, part = self.calculus, self.scheme.splitting[token.symbol]
        start, length = step.offset(token.start), step.length * number(token.weight)
        if not self.uses_score(token):
            drift, theta = calculus.drift(part, self.no_score), calculus.theta(start, length)
            noise = calculus.half_noise(part, self.noise_scale)
            follow = self._euler if part.euler else calculus.evolve
            return follow(theta, drift, noise, g)
        before = [step.offset(t.start) for t in self.tokens[:position] if t.is_score][::-1]
        if calculus.general or self.scheme.memory > 1:
            known = (*before, *step.earlier)[: self.scheme.memory]
            return self._held(token, start, length, known, g)
        return self._last_score(token, start, length, before[0], g)

    def evaluate(self, offset: Polynomial, g: Series) -> Series:
        """S: the last of what is held is what is evaluated here, and what was last before is one older."""
        calculus = self.calculus
        found = calculus.held_function(offset)
        if self.scheme.memory > 1 and self.scheme.flow == "euler":
            (part,) = {self.scheme.splitting[token.symbol] for token in self.tokens if self.uses_score(token)}
            found = calculus.drift(part, calculus.reading(found, offset))
        replacements = dict(zip(calculus.names("held0"), found, strict=True))
        for j in range(1, self.scheme.memory):
            newer = map(calculus.constant, calculus.held[j - 1])
            replacements |= zip(calculus.names(f"held{j}"), newer, strict=True)
        return calculus.substitute(g, replacements)

    def _held(
        self, token: Token, start: Polynomial, length: Polynomial, known: Sequence[Polynomial], g: Series
    ) -> Series:
        """A part that follows what is held exactly, or, under "euler", the drift itself that is held."""
        calculus, part = self.calculus, self.scheme.splitting[token.symbol]
        here = start + length * (ONE - calculus.y)
        if self.scheme.clock.midpoint:
            held = calculus.interpolated_midway(known, start, start + length)
        else:
            held = calculus.interpolated(known, here)
        drift = held if self.scheme.flow == "euler" else calculus.drift(part, calculus.reading(held, here))
        return calculus.evolve(calculus.clock(start, length), drift, calculus.half_noise(part, self.noise_scale), g)

    def _last_score(
        self, token: Token, start: Polynomial, length: Polynomial, evaluated: Polynomial, g: Series
    ) -> Series:
        """A part that takes the score of the last evaluation, in whichever way."""
        calculus, part, flow = self.calculus, self.scheme.splitting[token.symbol], self.scheme.flow
        theta, noise = calculus.theta(start, length), calculus.half_noise(part, self.noise_scale)
        drift = calculus.drift(part, [calculus.constant(sigma) for sigma in calculus.held[0]])
        if flow == "true":
            drift = calculus.drift(part, calculus.held_function(evaluated))
        if flow in ("exact", "true"):
            return calculus.evolve(theta, drift, noise, g)
        if flow == "midpoint":
            half = [entry * sp.QQ(1, 2) for entry in theta]

            def moved_halfway(function: Series) -> Series:
                # theta multiplies the drift, so that it is needed up to h^(n - 1)
                there = [*calculus.evolve(half, self.frozen_drift, None, function, calculus.n - 1), ZERO]
                return calculus.substitute(there, dict(zip(calculus.names("b"), drift, strict=True)))

            there = [moved_halfway(calculus.constant(u)) for u in calculus.u]
            score = [moved_halfway(s) for s in calculus.held_function(evaluated)]
            return self._euler(theta, calculus.drift(part, score, there), noise, g)
        return self._euler(theta, drift, noise, g)

    @property
    def frozen_drift(self) -> list[Series]:
        """A drift vector that is held fixed."""
        return [self.calculus.constant(b) for b in self.calculus.b]

    def _euler(self, theta: Series, drift: Sequence[Series], noise: Sequence[Series], g: Series) -> Series:
        """The drift vector is held fixed while f is expanded, and put in at the end."""
        g = self.calculus.evolve(theta, self.frozen_drift, noise, g)
        return self.calculus.substitute(g, dict(zip(self.calculus.names("b"), drift, strict=True)))

    def process(self, start: Polynomial, length: Polynomial, g: Series) -> Series:
        """The exact process over the offsets [start, start + length]."""
        calculus = self.calculus
        here = start + length * (ONE - calculus.y)
        score = calculus.reading(calculus.held_function(here), here)
        drift = noise = self.no_score
        for part in self.scheme.splitting.parts:
            drift = [plus(a, b) for a, b in zip(drift, calculus.drift(part, score), strict=True)]
            noise = [plus(a, b) for a, b in zip(noise, calculus.half_noise(part), strict=True)]
        return calculus.evolve(calculus.clock(start, length), drift, noise, g)

    @cached_property
    def _scored_before(self) -> bool:
        """Whether parts use the score before the word's last S, or follow Euler, which has no formal inverse flow."""
        last = max((position for position, token in enumerate(self.tokens) if token.is_score), default=0)
        before = [token for token in self.tokens[:last] if not token.is_score]
        return any(self.uses_score(token) or self.scheme.splitting[token.symbol].euler for token in before)

    @cached_property
    def _keeps_step(self) -> bool:
        """Whether at each S@c all parts have gone through [0, c], so that a path of the process may stand there."""
        done = dict.fromkeys(self.scheme.splitting.part_names, Fraction(0))
        for token in self.tokens:
            if token.weight is None and any(time != token.start for time in done.values()):
                return False
            if token.weight is not None:
                done[token.symbol] = token.start + token.weight
        return True

    @property
    def remembers_the_same(self) -> bool:
        """Whether a step leaves the evaluations behind that `process_with_evaluations` does in its place."""
        return not self._scored_before

    def process_with_evaluations(self, step: Step, g: Series) -> Series:
        """The exact process in the place of a step, with the word's evaluations made along it (see the module)."""
        if self.scheme.memory == 1:
            return self.process(step.start, step.length, g)
        if self._scored_before:
            return self._along_the_process(step, g) if self._keeps_step else self._along_a_corrected_step(step, g)
        g, calculus = self.process(step.start, step.length, g), self.calculus
        last = max(position for position, token in enumerate(self.tokens) if token.is_score)
        for token in self.tokens[:last]:
            if token.weight is not None:
                part = self.scheme.splitting[token.symbol]
                theta = calculus.theta(step.offset(token.start), step.length * number(token.weight))
                drift, noise = calculus.drift(part, self.no_score), calculus.half_noise(part)
                g = calculus.evolve([-entry for entry in theta], drift, noise, g)
        return self.step(step, g, last + 1)

    def _along_the_process(self, step: Step, g: Series) -> Series:
        end = Fraction(1)
        for time in reversed(self.evaluations):
            g = self.process(step.offset(time), step.length * number(end - time), g)
            g, end = self.evaluate(step.offset(time), g), time
        return self.process(step.start, step.length * number(end), g)

    def _along_a_corrected_step(self, step: Step, g: Series) -> Series:
        """S P^-1 T g: the step S that remembers nothing from before, P what it makes of functions of the state alone,
        and T the process; P^-1 = 1 + (1 - P) + (1 - P)^2 + ..., where each factor is O(h)."""
        calculus, alone = self.calculus, step._replace(earlier=())
        term = self.process(step.start, step.length, g)
        corrected = term
        for _ in range(calculus.n):
            moved = calculus.renamed(self.step(alone, calculus.renamed(term, "held", "kept")), "kept", "held")
            term = [a - b for a, b in zip(term, moved, strict=True)]
            corrected = plus(corrected, term)
        return self.step(alone, corrected)


def _steps(word: Word, lengths: Sequence[Polynomial]) -> list[Step]:
    """Steps of these lengths, one after the other."""
    steps: list[Step] = []
    start, times = ZERO, ()
    for length in lengths:
        steps.append(Step(start, length, times))
        times = (*(steps[-1].offset(time) for time in reversed(word.evaluations)), *times)
        start = start + length
    return steps


def earlier_steps(scheme: Scheme) -> int:
    """How many steps the evaluations that a step looks back on reach into."""
    return -(-(scheme.memory - 1) // max(1, sum(token.is_score for token in scheme.tokens)))


def expand(
    scheme: Scheme,
    n: int,
    dims: int = 1,
    linear_beta: bool = True,
    lengths: Sequence[Polynomial | str] | None = None,
    whole: bool = False,
) -> tuple[Word, Step, Series]:
    """The word, its last step, and the local error of this up to h^n as symbols of operators (see the module).

    lengths: of the earlier steps over that of the last, the last one first, numbers or names of indeterminates; 1
    unless given (`earlier_steps` says of how many). whole: all coefficients, where fewer would settle the order:
    where nothing is random and the word remembers what the process does, test functions p . u do.
    """
    general = scheme.frozen != SCORE_HELD
    any_clock = not scheme.clock.is_theta
    calculus = Calculus(scheme.splitting, dims, n, linear_beta, general, scheme.memory, any_clock)
    word = Word(scheme, calculus)
    noisy = any(part.sde.has_noise for part in scheme.splitting.parts)
    calculus.noise_free = not (whole or noisy) and (word.remembers_the_same or scheme.memory == 1)
    given = [ONE] * earlier_steps(scheme) if lengths is None else lengths
    earlier = [calculus.generators[length] if isinstance(length, str) else length for length in given]
    *behind, last = _steps(word, [*reversed(earlier), ONE])
    test = calculus.test_function()
    error = [a - b for a, b in zip(word.step(last, test), word.process_with_evaluations(last, test), strict=True)]
    for step in reversed(behind):
        error = word.process_with_evaluations(step, error)
    return word, last, error


def _check(scheme: Scheme, n: int, dims: int) -> None:
    if dims not in (1, 2) or isinstance(dims, bool):
        raise ValueError(f"dims = {dims}: orders are proven in 1 or 2 data dimensions")
    if n < 1 or (n > 1 and scheme.lambda_s != 1):
        raise ValueError(
            f"h^{n}: the expansion starts at h^1, and ends there if lambda_s is not 1, which decides at h^1"
        )


def local_error(scheme: Scheme, n: int, dims: int = 1, linear_beta: bool = True) -> list[dict[Powers, Expr]]:
    """The local weak error of one step at h^1 ... h^n, without zero coefficients: {powers of p: coefficient}.

    Powers run over the coordinates, positions first, then, with memory, over those of h p_0, h p_1, ... (see the
    module); coefficients are sympy expressions in the state, the parameters, beta, its derivative dbeta (0 unless
    `linear_beta`), lambda_s and the jets of the score, or of q and of Phi and Psi. dims: data dimensions; every
    component of the score depends on all of them. A lambda_s other than 1 is carried to first order in h, where it
    decides. Raises ValueError otherwise.
    """
    _check(scheme, n, dims)
    word, _, error = expand(scheme, n, dims, linear_beta, whole=True)
    duals = [*word.calculus.p, *itertools.chain(*word.calculus.dual)]
    return [word.calculus.operator(error[k], duals) for k in range(1, n + 1)]


def first_error(scheme: Scheme, n: int, dims: int = 1, linear_beta: bool = True) -> dict[Powers, Expr]:
    """The coefficient of h^n in the error that one step leaves at the end of a run of equal steps, if those of lower
    powers vanish: {powers of p: coefficient}, without zero ones. Raises ValueError as `local_error` does."""
    _check(scheme, n, dims)
    word, last, error = expand(scheme, n, dims, linear_beta)
    left = error[n]
    if scheme.memory > 1 and not word.calculus.noise_free:
        left = word.calculus.substituted(left, _what_is_remembered(word, last))
        if error[n] and not left:
            raise ValueError(
                f"{scheme.name!r}: what its h^{n} leaves in what it remembers cancels in a run of equal steps; its "
                "order is not decided by first errors"
            )
    return word.calculus.operator(left, word.calculus.p)


def _what_is_remembered(word: Word, step: Step) -> Mapping[str, Polynomial]:
    """p_j = c_j p: how the steps to come use what is remembered at the end of `step`, to first order in h, summed over
    these steps (each has made its own evaluations and remembers older ones that much further back)."""
    calculus = word.calculus
    change = word.step(step, calculus.constant(ONE))[1]
    use = [
        [calculus.coefficient(change, name) for name in calculus.names(f"held{j}")]
        for j in range(word.scheme.memory - 1)
    ]
    found = {}
    for j in range(len(use)):
        later = use[j :: len(word.evaluations)]
        for c, name in enumerate(calculus.names(f"p{j}")):
            found[name] = sum((entry[c] for entry in later), ZERO)
    return found


def holds_for_any_steps(scheme: Scheme, n: int, dims: int = 1, linear_beta: bool = True) -> bool:
    """Whether all errors vanish up to h^n whatever the lengths of the earlier steps: for those as indeterminates, or,
    where they are more than two, for numbers in general position. Raises ValueError as `local_error` does."""
    _check(scheme, n, dims)
    count = earlier_steps(scheme)
    lengths = [number(_SOME[j]) if count > 2 else f"r_{j}" for j in range(count)]
    word, _, error = expand(scheme, n, dims, linear_beta, lengths)
    return all(word.calculus.vanishes(entry) for entry in error)
