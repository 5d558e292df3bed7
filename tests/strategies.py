"""Hypothesis strategies shared by the tests: parameters, splittings, words over the whole grammar, and schemes.

`words` is the grammar of weakorder.theory.scheme read as a generator; `random_splittings` cuts the reverse SDE at
random, so that nothing is tested on the built-in splittings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import sympy as sp
from hypothesis import settings
from hypothesis import strategies as st
from weakorder.theory.model import PSLD_DIFFUSION, M, M_inv, Parameters, gamma, m, nu, s_m, s_x, x
from weakorder.theory.scheme import FLOWS, Scheme
from weakorder.theory.splitting import SCORE, SPLITTINGS, Part, Splitting

FEW = settings(max_examples=max(10, settings().max_examples // 20))
MIN_RATE_DIFFERENCE = 0.2  # |gamma - nu|: M = 4 / (gamma - nu)^2 is at most 100

# The terms of the reverse drift, (dx, dm), and the squares of its diffusion coefficients.
DRIFT_TERMS = (
    (gamma * x / 2, -M_inv * m / 2, gamma * s_x),
    (x / 2, nu * m / 2, M * nu * s_m),
)
SQUARED_DIFFUSION = (gamma, nu * M)


def _rates() -> st.SearchStrategy[tuple[float, float]]:
    """(gamma, nu), apart; one of them may be exactly 0."""
    rate = st.floats(0.0, 5.0, allow_subnormal=False)
    zero_and_positive = st.floats(MIN_RATE_DIFFERENCE, 5.0).map(lambda positive: (0.0, positive))
    apart = st.tuples(rate, rate).filter(lambda pair: abs(pair[0] - pair[1]) >= MIN_RATE_DIFFERENCE)
    return st.one_of(apart, zero_and_positive, zero_and_positive.map(lambda pair: (pair[1], pair[0])))


def _betas() -> st.SearchStrategy[tuple[float, float]]:
    """(beta_min, beta_max): constant, or linear and rising or falling."""
    beta = st.floats(0.1, 20.0)
    return st.one_of(beta.map(lambda value: (value, value)), st.tuples(beta, beta))


@st.composite
def parameters(draw: st.DrawFn) -> Parameters:
    """Valid `Parameters` of moderate size: rates in [0, 5], kappa in [0.001, 1], beta in [0.1, 20]."""
    rate_x, rate_m = draw(_rates())
    beta_min, beta_max = draw(_betas())
    return Parameters(
        gamma=rate_x,
        nu=rate_m,
        kappa=draw(st.floats(0.001, 1.0)),
        beta_min=beta_min,
        beta_max=beta_max,
        eps=draw(st.floats(1e-3, 0.05)),
    )


# What the 2 x 2 references of the tests know.
PHASE_SPACE = {name: splitting for name, splitting in SPLITTINGS.items() if splitting.diffusion.size == 2}


def splittings() -> st.SearchStrategy[Splitting]:
    """The built-in splittings of phase space."""
    return st.sampled_from(list(PHASE_SPACE.values()))


def _texts(value: Fraction) -> list[str]:
    """Ways to write `value`: as a fraction, not reduced, and as a decimal where that is exact."""
    texts = [str(value), f"{2 * value.numerator}/{2 * value.denominator}"]
    if 10**6 % value.denominator == 0:
        decimal = f"{float(value):.6f}".rstrip("0")
        texts += [decimal, decimal.removeprefix("0") if value < 1 and value != 0 else decimal]
    return texts


def shares(count: int) -> st.SearchStrategy[list[Fraction]]:
    """`count` positive rationals that sum to 1."""
    sizes = st.lists(st.integers(1, 6), min_size=count, max_size=count)
    return sizes.map(lambda parts: [Fraction(part, sum(parts)) for part in parts])


_POSITIVE = st.fractions(Fraction(1, 12), Fraction(2), max_denominator=12)
_TIMES = st.one_of(st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1)]), st.fractions(0, 1, max_denominator=12))


@st.composite
def words(draw: st.DrawFn, splitting: Splitting, consistent: bool = True, within_step: bool = False) -> str:
    """A word over `splitting`: any legal text, not only the canonical one.

    consistent: every part occurs and its weights sum to 1; else any part with any weights in [1/12, 2].
    within_step: every interval lies in [0, 1], as the beta of a step needs it; else overrides are arbitrary.
    """
    letters: list[tuple[str, Fraction]] = []
    for name in splitting.part_names:
        count = draw(st.integers(1 if consistent else 0, 3))
        if consistent:
            weights = draw(shares(count))
        else:
            weight = _POSITIVE.map(lambda value: min(value, Fraction(1))) if within_step else _POSITIVE
            weights = draw(st.lists(weight, min_size=count, max_size=count))
        letters += [(name, weight) for weight in weights]
    if not letters:
        letters.append((splitting.part_names[0], Fraction(1)))
    letters = draw(st.permutations(letters))

    users = [i for i, (name, _) in enumerate(letters) if splitting[name].sde.uses_score]
    places = draw(st.lists(st.integers(0, len(letters)), max_size=3))  # of S, before letter i
    if users:
        places.append(draw(st.integers(0, users[0])))

    tokens: list[str] = []
    clocks = dict.fromkeys(splitting.part_names, Fraction(0))
    for i, (name, weight) in enumerate([*letters, ("", Fraction(0))]):
        for _ in range(places.count(i)):
            time = draw(st.none() | _TIMES)
            tokens.append(SCORE if time is None else f"{SCORE}@{draw(st.sampled_from(_texts(time)))}")
        if not name:
            break
        text = "" if weight == 1 and draw(st.booleans()) else f"({draw(st.sampled_from(_texts(weight)))})"
        outside = within_step and clocks[name] + weight > 1
        if outside or draw(st.integers(0, 3)) == 3:
            time = draw(_TIMES)
            clocks[name] = min(time, 1 - weight) if within_step else time
            text += f"@{draw(st.sampled_from(_texts(clocks[name])))}"
        clocks[name] += weight
        tokens.append(name + text)
    return " ".join(tokens)


@st.composite
def schemes(
    draw: st.DrawFn, names: Sequence[str] = tuple(PHASE_SPACE), consistent: bool = True, flows: Sequence[str] = FLOWS
) -> Scheme:
    """Any word over a built-in splitting of phase space, with any sub-flow."""
    splitting = SPLITTINGS[draw(st.sampled_from(list(names)))]
    return Scheme(draw(words(splitting, consistent=consistent)), splitting, flow=draw(st.sampled_from(list(flows))))


@st.composite
def random_splittings(draw: st.DrawFn, max_parts: int = 3) -> Splitting:
    """A valid splitting of the PSLD reverse SDE: each term of the drift cut into rational shares, of either sign, that
    sum to 1, and each squared diffusion coefficient into shares >= 0. Some shares are 0, so parts may be simple."""
    names = ["A", "B1", "Kick", "S2", "o"][: draw(st.integers(2, max_parts))]
    fraction = st.one_of(st.just(Fraction(0)), st.fractions(-1, 1, max_denominator=4))

    def cut(signed: bool) -> list[sp.Expr]:
        if signed:
            shares = draw(st.lists(fraction, min_size=len(names) - 1, max_size=len(names) - 1))
            shares = draw(st.permutations([*shares, 1 - sum(shares)]))
        else:
            sizes = draw(st.lists(st.integers(0, 3), min_size=len(names), max_size=len(names)).filter(any))
            shares = [Fraction(size, sum(sizes)) for size in sizes]
        return [sp.Integer(share.numerator) / share.denominator for share in shares]

    drifts: list[list[sp.Expr]] = [[sp.S.Zero, sp.S.Zero] for _ in names]
    diffusions: list[list[sp.Expr]] = [[sp.S.Zero, sp.S.Zero] for _ in names]
    for row in range(2):
        for term in DRIFT_TERMS[row]:
            for drift, share in zip(drifts, cut(signed=True), strict=True):
                drift[row] += share * term
        for diffusion, share in zip(diffusions, cut(signed=False), strict=True):
            diffusion[row] = sp.sqrt(share * SQUARED_DIFFUSION[row])
    parts = tuple(
        Part(name, (drift[0], drift[1]), (diffusion[0], diffusion[1]))
        for name, drift, diffusion in zip(names, drifts, diffusions, strict=True)
    )
    return Splitting("random", PSLD_DIFFUSION, PSLD_DIFFUSION.reverse(), parts)
