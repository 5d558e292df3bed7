"""Proven orders and local errors under changes: symmetry, what changes nothing, and what must change something.

A step that is its own reflection in time has an even order; what a step does not see, times that the score has not,
clocks under constant beta and the names of the coordinates change nothing; one asymmetry, one fault in a word or a
sign in its parts changes the order or the leading error.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from fractions import Fraction

import pytest
import sympy as sp
from error_operators import jet, operators, same
from hypothesis import given
from hypothesis import strategies as st
from selection import examples
from specimens import BAOAB, STRANG, tilted
from strategies import FEW, schemes
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.local_error import local_error
from weakorder.theory.scheme import FLOWS, Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, Splitting
from weakorder.theory.weak_order import prove_order

# --- Symmetry ---------------------------------------------------------------------------------------------------------


@st.composite
def symmetric_words(draw: st.DrawFn, splitting: Splitting) -> str:
    """A consistent word that is its own reflection in time: its parts with their intervals read the same backwards, and
    every part that uses the score has one of its own, at a time that is mirrored to 1 - time."""
    names = draw(st.permutations(splitting.part_names))
    sides = [(name, Fraction(size)) for name in names for size in draw(st.lists(st.integers(1, 3), max_size=1))]
    centre = names[-1]
    left = draw(st.permutations([*sides, *((name, Fraction(1)) for name in names if name != centre)]))
    sizes = {name: 2 * sum(size for part, size in left if part == name) + 3 * (name == centre) for name in names}
    half = [(name, size / sizes[name]) for name, size in left]
    times = [draw(st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1), Fraction(1, 3)])) for _ in half]
    letters = [*half, (centre, Fraction(3) / sizes[centre]), *half[::-1]]
    all_times = [*times, Fraction(1, 2), *(1 - time for time in times[::-1])]
    tokens = []
    for (name, weight), time in zip(letters, all_times, strict=True):
        if splitting[name].sde.uses_score:
            tokens.append(f"S@{time}")
        tokens.append(f"{name}({weight})")
    return " ".join(tokens)


@examples(6)
@given(
    st.sampled_from([PSLD_LINEAR, PSLD_FLOW, PSLD, LANGEVIN]).flatmap(
        lambda s: st.tuples(st.just(s), symmetric_words(s))
    )
)
def test_a_step_that_is_its_own_reflection_has_order_2(drawn: tuple[Splitting, str]) -> None:
    """Claim: with true flows its error is even in h, so the order of a consistent one is even; and 2 it is. The
    midpoint rule, of order 2, is as good."""
    splitting, word = drawn
    assert prove_order(Scheme(word, splitting, flow="true")).order == 2
    assert local_error(Scheme(word, splitting, flow="midpoint"), 2) == [{}, {}]


@FEW
@given(symmetric_words(PSLD_LINEAR), st.sampled_from(FLOWS), st.booleans())
def test_one_asymmetry_costs_an_order(word: str, flow: str, by_clock: bool) -> None:
    """Claim: in a symmetric word, a first token of U that is moved to the end, or a first S that is moved in time, or
    a frozen score leave order 1."""
    tokens = word.split()
    if by_clock:
        first = next(i for i, token in enumerate(tokens) if token.startswith("S"))
        tokens[first] = "S@1/5"
    else:
        first = next(i for i, token in enumerate(tokens) if token.startswith("U"))
        tokens = [*tokens[:first], *tokens[first + 1 :], tokens[first]]
    assert prove_order(Scheme(" ".join(tokens), PSLD_LINEAR, flow=flow)).order == 1
    if flow in ("euler", "exact"):
        assert prove_order(Scheme(word, PSLD_LINEAR, flow=flow)).order == 1


# --- What changes nothing, and what must change something -------------------------------------------------------------


def unused_scores(word: str, splitting: Splitting) -> str:
    """The word with evaluations of the score that no part uses: before each S, and at the end."""
    del splitting
    return " ".join(f"S@2/3 {token}" if token.startswith("S") else token for token in word.split()) + " S@1/4"


def halved_free_parts(word: str, splitting: Splitting) -> str:
    """The word with each part without score cut in two adjacent pieces, the second on its clock."""
    scheme = Scheme(word, splitting)
    tokens = []
    for token in scheme.tokens:
        if token.weight is None or splitting[token.symbol].sde.uses_score:
            tokens.append(str(token))
        else:
            weight, time = token.weight, f"@{token.start}" if token.explicit else ""
            tokens += [f"{token.symbol}({weight / 3}){time}", f"{token.symbol}({2 * weight / 3})"]
    return " ".join(tokens)


def repeated_scores(word: str, splitting: Splitting) -> str:
    """The word with each S evaluated again at once, at the same time."""
    del splitting
    return " ".join(f"{token} {token}" if token.startswith("S") else token for token in word.split())


def explicit_clocks(word: str, splitting: Splitting) -> str:
    """The word with every part's begin written out."""
    tokens = [replace(token, explicit=True) for token in Scheme(word, splitting).tokens]
    return " ".join(map(str, tokens)) if all(token.start <= 1 for token in tokens) else word


@pytest.mark.parametrize("rewrite", [unused_scores, halved_free_parts, repeated_scores, explicit_clocks])
@FEW
@given(schemes(consistent=False))
def test_what_a_step_does_not_see_changes_nothing(rewrite, scheme: Scheme) -> None:
    """Claim: unused or repeated evaluations, cutting a score-free part in two, and clocks written out leave every
    coefficient as it is, up to h^2."""
    rewritten = replace(scheme, word=rewrite(scheme.word, scheme.splitting))
    assert operators(rewritten, 2) == operators(scheme, 2)


@pytest.mark.parametrize("flow", ["exact", "true"])
@pytest.mark.parametrize(("whole", "cut"), [("S E U", "S E(1/3) E(2/3) U"), ("U S@1/3 E", "U S@1/3 E(1/2) E(1/2)")])
def test_an_exact_flow_is_its_pieces(whole: str, cut: str, flow: str) -> None:
    """Claim: a frozen or followed score with the flow exact in between makes a semigroup; Euler's does not."""
    first, second = (operators(Scheme(word, PSLD_LINEAR, flow=flow), 3) for word in (whole, cut))
    assert first == second
    first, second = (local_error(Scheme(word, PSLD_LINEAR, flow="euler"), 2)[1] for word in (whole, cut))
    assert not same(first, second)


@pytest.mark.parametrize("word", [BAOAB, "O S B A", "O(1/2) S B(1/2) A S B(1/2) O(1/2)"])
def test_a_kick_that_does_not_move_what_its_score_sees_is_the_same_in_every_sub_flow(word: str) -> None:
    """Claim: in Langevin dynamics B moves m, its score sees x: all sub-flows are one map, if an S stands before B."""
    errors = [local_error(Scheme(word, LANGEVIN, flow=flow), 3) for flow in FLOWS]
    assert all(error == errors[0] for error in errors)


@given(schemes())
def test_clocks_do_not_matter_when_beta_is_constant(scheme: Scheme) -> None:
    """Claim: rewinding every clock changes nothing for constant beta."""
    rewound = [str(t) if t.is_score else str(replace(t, start=Fraction(0), explicit=True)) for t in scheme.tokens]
    slipped = replace(scheme, word=" ".join(rewound))
    assert operators(slipped, 2, linear_beta=False) == operators(scheme, 2, linear_beta=False)


def test_times_do_not_matter_when_the_score_has_none() -> None:
    """Claim: the score of Langevin dynamics has no time, so an S@1/3 is an S."""
    assert local_error(Scheme("S@1/3 B O S@1 A", LANGEVIN), 3) == local_error(Scheme("S B O A", LANGEVIN), 3)


@FEW
@given(schemes(consistent=False))
def test_a_proof_for_constant_beta_is_that_for_linear_beta_without_its_slope(scheme: Scheme) -> None:
    """Claim: dbeta = 0 turns the one into the other."""
    linear = [{p: c.subs(jet("dbeta"), 0) for p, c in error.items()} for error in local_error(scheme, 2)]
    constant = local_error(scheme, 2, linear_beta=False)
    assert all(same(a, b) for a, b in zip(linear, constant, strict=True))


@FEW
@given(schemes(consistent=False))
def test_an_error_does_not_depend_on_how_far_the_expansion_goes(scheme: Scheme) -> None:
    """Claim: h^1 of the expansion up to h^2 and h^2 of that up to h^3 are what the shorter ones give."""
    assert local_error(scheme, 2)[:1] == local_error(scheme, 1)
    if scheme.splitting is LANGEVIN:
        assert local_error(scheme, 3)[:2] == local_error(scheme, 2)


def uncoupled(expression: sp.Expr) -> sp.Expr:
    """A coefficient in two dimensions for a score whose first coordinates do not know of the second, as in one."""
    values: dict[sp.Basic, sp.Basic] = {}
    for symbol in expression.free_symbols:
        if "2" in str(symbol):
            values[symbol] = sp.S.Zero
        elif "1" in str(symbol):
            values[symbol] = jet(str(symbol).replace("1", ""))
    return expression.xreplace(values)


@pytest.mark.parametrize("scheme", [*CATALOGUE.values(), Scheme(BAOAB, LANGEVIN)], ids=lambda scheme: scheme.name)
def test_two_dimensions_contain_one(scheme: Scheme) -> None:
    """Claim: with the second coordinate unseen by the first one's score, the errors of the first coordinate's monomials
    are those of one dimension."""
    one, two = prove_order(scheme), prove_order(scheme, dims=2)
    first = {(p[0], p[2]): uncoupled(c) for p, c in two.leading.items() if p[1] == p[3] == 0}
    assert same(first, one.leading)


@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_the_two_dimensions_are_interchangeable(scheme: Scheme) -> None:
    """Claim: swapping the coordinates' names turns the leading error into itself."""
    leading = prove_order(scheme, dims=2).leading

    def swapped(symbol: sp.Basic) -> sp.Symbol:
        head, comma, letters = str(symbol).translate(str.maketrans("12", "21")).partition(",")
        ordered = sorted(re.findall(r"[xm]\d|t", letters), key=["x1", "x2", "m1", "m2", "t"].index)
        return jet(head + comma + "".join(ordered))

    mirrored = {
        (p[1], p[0], p[3], p[2]): c.xreplace({s: swapped(s) for s in c.free_symbols if not s.is_nonnegative})
        for p, c in leading.items()
    }
    assert same(mirrored, leading)


def test_a_declared_splitting_is_proven_by_its_own_parts() -> None:
    """Claim: a user's splitting of the same SDE has its own leading error, and a sign in its parts changes it."""
    proofs = [prove_order(replace(CATALOGUE["ROBA"], splitting=s)) for s in (PSLD, tilted(1), tilted(-1))]
    assert [proof.order for proof in proofs] == [1, 1, 1]
    for a, b in itertools.combinations(proofs, 2):
        assert not same(a.leading, b.leading)


@pytest.mark.parametrize(
    ("right", "wrong", "orders"),
    [
        (STRANG, "U(1/2) S@1/2 E U(1/2)@1/4", (2, 1)),
        (STRANG, "U(1/2) S@2/5 E U(1/2)", (2, 1)),
        (STRANG, "U(1/2) S@1/2 E@1/2 U(1/2)", (2, 1)),
        (STRANG, "U(49/100) S@1/2 E U(51/100)", (2, 1)),
        (STRANG, "U(1/2) S@1/2 E U(49/100)", (2, 0)),
    ],
)
def test_one_fault_in_a_word_of_order_2_is_seen(right: str, wrong: str, orders: tuple[int, int]) -> None:
    """Claim: a clock, a time, a kick's own interval, an asymmetry, a lost hundredth: each changes the order."""
    got = tuple(prove_order(Scheme(word, PSLD_LINEAR, flow="true")).order for word in (right, wrong))
    assert got == orders
