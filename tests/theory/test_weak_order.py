"""The symbolic reading: proven orders.

Orders are integers and known answers are theorems; a word whose weights do not sum to 1 has order 0, and its leading
error is the generator that it misses; what is proven is what is measured. The local errors behind the orders are in
tests/test_local_error.py, and what leaves them as they are in tests/test_weak_order_invariance.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import sympy as sp
from error_operators import generator, jet, operators, same
from hypothesis import given
from hypothesis import strategies as st
from selection import examples
from specimens import BAOAB, STRANG, WHOLE_LANGEVIN, tilted
from strategies import FEW, random_splittings, schemes, words
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory import derivations, weak_order
from weakorder.theory.local_error import local_error
from weakorder.theory.model import Parameters, gamma
from weakorder.theory.scheme import FLOWS, Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, Splitting
from weakorder.theory.weak_order import OrderProof, Powers, prove_order
from weakorder.verification.exact.order import study_order
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.fits import Fit

# --- Proven orders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear_beta", [False, True], ids=["constant", "linear"])
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_every_scheme_of_the_catalogue_is_proven_to_have_its_claimed_order(
    scheme: Scheme, dims: int, linear_beta: bool
) -> None:
    """Claim: the integer itself; with frozen scores no published scheme is better than 1."""
    proof = prove_order(scheme, dims, linear_beta)
    assert proof.order == scheme.order
    assert proof.leading
    assert len(proof.coordinates) == 2 * dims


# word over psld-linear, and its order with an accurate kick for constant and for linear beta; Euler's kick gives 1.
KNOWN_ANSWERS = {
    "U(1/2) S E U(1/2)@0": (1, 1),
    "U(1/2) S E U(1/2)": (1, 1),
    "U(1/2) S@1/2 E U(1/2)@0": (2, 1),
    STRANG: (2, 2),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("word", KNOWN_ANSWERS)
def test_the_known_answers_are_theorems(word: str, flow: str) -> None:
    """Claim: the table of the design page, section 4, for the true flow and the midpoint rule alike; the kick's
    accuracy, the score's time and the clock (where beta is not constant) each destroy order 2."""
    scheme = Scheme(word, PSLD_LINEAR, flow=flow)
    accurate = flow in ("true", "midpoint")
    got = tuple(prove_order(scheme, linear_beta=linear).order for linear in (False, True))
    assert got == (KNOWN_ANSWERS[word] if accurate else (1, 1))


def test_the_clock_slip_is_a_term_in_dbeta_and_nothing_else() -> None:
    """Claim: what the slipped second half-step leaves at h^2 is the generator of U times beta' / 4: it covers
    [t - h/2, t] instead of [t - h, t - h/2], and beta over it is larger by beta' h / 2."""
    slip = prove_order(Scheme("U(1/2) S@1/2 E U(1/2)@0", PSLD_LINEAR, flow="true"))
    dbeta = sp.Symbol("dbeta")
    expected = {powers: c.subs(sp.Symbol("beta"), dbeta / 4) for powers, c in generator(PSLD_LINEAR["U"]).items()}
    assert same(slip.leading, expected)


LANGEVIN_ORDERS = {
    BAOAB: 2,
    "A(1/2) S B(1/2) O B(1/2) A(1/2)": 2,  # ABOBA
    "O(1/2) S B(1/2) A S B(1/2) O(1/2)": 2,  # OBABO
    "O(1/2) A(1/2) S B A(1/2) O(1/2)": 2,  # OABAO
    "A(1/2) O(1/2) S B O(1/2) A(1/2)": 2,  # AOBOA
    "S B(1/2) O(1/2) A O(1/2) S B(1/2)": 2,  # BOAOB
    "S B(1/4) A(1/2) O(1/2) S B(1/2) O(1/2) A(1/2) S B(1/4)": 2,
    **dict.fromkeys(("O S B A", "S B A O", "O A S B", "S B O A", "A S B O", "A O S B"), 1),
    "S B(1/3) A(1/2) O A(1/2) S B(2/3)": 1,  # not symmetric in B
    "S B(1/2) A(1/3) O A(2/3) S B(1/2)": 1,
    "O(1/3) S B(1/2) A S B(1/2) O(2/3)": 1,
    "S B(1/2) A S B(1/2) O": 1,  # velocity Verlet, then the thermostat
    "S B(1/2) A(1/2) O A(1/2) B(1/2)": 1,  # BAOAB that forgot its second evaluation
}


@pytest.mark.parametrize("linear_beta", [False, True], ids=["constant", "linear"])
@pytest.mark.parametrize("word", LANGEVIN_ORDERS)
def test_underdamped_langevin_has_its_published_orders(word: str, linear_beta: bool) -> None:
    """Claim: Leimkuhler and Matthews 2013: the symmetric words have order 2, the others 1."""
    assert prove_order(Scheme(word, LANGEVIN), linear_beta=linear_beta).order == LANGEVIN_ORDERS[word]


@pytest.mark.parametrize("word", [BAOAB, "A(1/2) S B(1/2) O B(1/2) A(1/2)", "O S B A"])
def test_underdamped_langevin_has_its_published_orders_in_two_dimensions(word: str) -> None:
    """Claim: the same with two coupled coordinates."""
    assert prove_order(Scheme(word, LANGEVIN), dims=2).order == LANGEVIN_ORDERS[word]


@pytest.mark.parametrize(
    ("word", "splitting", "flow"),
    [
        ("S@1/2 F", PSLD_WHOLE, "true"),
        ("S@1/2 F", PSLD_WHOLE, "midpoint"),
        pytest.param(STRANG, PSLD_LINEAR, "true", marks=pytest.mark.nightly),
        pytest.param(STRANG, PSLD_LINEAR, "midpoint", marks=pytest.mark.nightly),
    ],
)
def test_order_2_is_proven_in_two_dimensions(word: str, splitting: Splitting, flow: str) -> None:
    """Claim: symmetric words with accurate kicks have order 2 for coupled scores too; the midpoint rule on the whole
    SDE, with its noise, has 1."""
    expected = 1 if (word, flow) == ("S@1/2 F", "midpoint") else 2
    assert prove_order(Scheme(word, splitting, flow=flow), dims=2).order == expected


def test_a_splitting_that_is_its_own_exact_flow_shows_no_error() -> None:
    """Claim: one part that follows the true, timeless score is exact: no order, and nothing left up to h^4."""
    proof = prove_order(Scheme("S W", WHOLE_LANGEVIN, flow="true"))
    assert proof.order is None
    assert proof.leading == proof.monomials() == {}
    assert proof.searched == 4
    assert prove_order(Scheme("S W", WHOLE_LANGEVIN, flow="exact")).order == 1


def test_the_errors_of_monomials_are_the_coefficients_times_factorials() -> None:
    """Claim: E dx^i dm^j is i! j! times the coefficient, under readable names; by hand for Euler-Maruyama's dx^2: it
    lacks the growth of the noise by the drift's own derivative b' = db/dx, beta^2 gamma b' h^2."""
    proof = prove_order(CATALOGUE["EM"])
    names = {"dx": (1, 0), "dm": (0, 1), "dx^2": (2, 0), "dx dm": (1, 1), "dm^2": (0, 2)}
    assert set(proof.monomials()) == set(names)
    for name, (i, j) in names.items():
        assert proof.monomials()[name] == math.factorial(i) * math.factorial(j) * proof.leading[i, j]
    drift = generator(PSLD_WHOLE["F"])[1, 0] / jet("beta")
    growth = sp.diff(drift, jet("x")) + sp.diff(drift, jet("s_x")) * jet("s_x,x")
    by_hand = -(jet("beta") ** 2) * gamma * growth
    assert sp.cancel(proof.monomials()["dx^2"] - by_hand) == 0


# --- Words that are not consistent ------------------------------------------------------------------------------------


def missing(scheme: Scheme) -> dict[Powers, sp.Expr]:
    """Sum over the parts of (sum of its weights - 1) times its generator."""
    total: dict[Powers, sp.Expr] = {}
    for part in scheme.splitting.parts:
        excess = sum((token.weight for token in scheme.tokens if token.symbol == part.name), Fraction(-1))
        for powers, c in generator(part).items() if excess else ():
            total[powers] = total.get(powers, sp.S.Zero) + sp.Rational(excess) * c
    return total


@pytest.mark.parametrize(
    ("word", "splitting", "flow"),
    [
        ("O S B A(1/2)", PSLD, "euler"),  # a lost half-step
        ("O S B A B", PSLD, "exact"),  # a part done twice
        ("S B A", PSLD, "midpoint"),  # the noise forgotten
        ("O", PSLD, "true"),
        ("U(1/2) S E U(1/3)", PSLD_LINEAR, "true"),
        ("S F(99/100)", PSLD_WHOLE, "euler"),
        ("S B(1/2) A", PSLD_FLOW, "midpoint"),
        ("S B(1/2) A(1/2) O A(1/2)", LANGEVIN, "euler"),
    ],
)
@pytest.mark.parametrize("dims", [1, 2])
def test_a_word_whose_weights_do_not_sum_to_1_has_order_0(
    word: str, splitting: Splitting, flow: str, dims: int
) -> None:
    """Claim: order 0, and in one dimension the leading error is the missing drift and diffusion exactly."""
    scheme = Scheme(word, splitting, flow=flow)
    proof = prove_order(scheme, dims)
    assert scheme.inconsistencies
    assert proof.order == 0
    if dims == 1:
        assert same(proof.leading, missing(scheme))


@examples(20)
@given(schemes(consistent=False))
def test_the_bias_rate_of_any_word_is_its_missing_weight(scheme: Scheme) -> None:
    """Claim: for any word at all, the error at h^1 is the sum of (weights - 1) beta L over the parts, whatever the
    sub-flow, the clocks and the times of its S; so the order is 0 exactly where some part's weights do not sum to 1."""
    (error,) = local_error(scheme, 1)
    assert same(error, missing(scheme))
    assert bool(error) == bool(scheme.inconsistencies)


@pytest.mark.parametrize("name", ["EM", "SSCS", "NOBA", "NBAO", "NOBAB", "ROBA", "RBAO", "ROBAB"])
@pytest.mark.parametrize("lambda_s", [1.05, 0.5])
def test_a_scaled_position_noise_has_order_0_and_its_bias_is_that_of_the_noise(name: str, lambda_s: float) -> None:
    """Claim: beta gamma (lambda_s^2 - 1) / 2 on p_x^2, and nothing else; the momentum's noise is untouched."""
    scaled = replace(CATALOGUE[name], lambda_s=lambda_s, order=None)
    for dims in (1, 2):
        proof = prove_order(scaled, dims)
        bias = jet("beta") * gamma * (jet("lambda_s") ** 2 - 1) / 2
        positions = [tuple(2 * (i == j) for i in range(2 * dims)) for j in range(dims)]
        assert proof.order == 0
        assert same(proof.leading, dict.fromkeys(positions, bias))


def test_a_scaled_position_noise_adds_to_what_a_word_misses() -> None:
    """Claim: in `O(1/2) S B A` with lambda_s, O's drift and momentum noise lack a half, its position noise
    1 - lambda_s^2 / 2."""
    proof = prove_order(Scheme("O(1/2) S B A", PSLD, lambda_s=1.05))
    expected = {powers: -c / 2 for powers, c in generator(PSLD["O"]).items()}
    expected[2, 0] = jet("beta") * gamma * (jet("lambda_s") ** 2 / 2 - 1) / 2
    assert proof.order == 0
    assert same(proof.leading, expected)


# --- Proven and measured ----------------------------------------------------------------------------------------------

GENERIC = st.builds(
    lambda rate, gap, swap, kappa, begin, end: Parameters(
        gamma=rate + gap if swap else rate,
        nu=rate if swap else rate + gap,
        kappa=kappa,
        beta_min=begin,
        beta_max=end,
    ),
    st.floats(0.2, 1.5),
    st.floats(1.0, 2.5),
    st.booleans(),
    st.floats(0.05, 0.8),
    st.floats(1.0, 4.0),
    st.floats(4.5, 8.0),
)
STEPS = tuple(50 * 2**k for k in range(7))


def measured(scheme: Scheme, params: Parameters) -> Fit | None:
    """The order of the worst of mean and covariance on two Gaussians."""
    target = GaussianTarget.of([0.4, -1.1], [0.35, 1.7], scheme.splitting.diffusion, params)
    return study_order(scheme, params, steps=STEPS, target=target, t_end=0.15).measured


@examples(5)
@given(schemes(), GENERIC)
def test_the_measured_order_is_the_proven_one(scheme: Scheme, params: Parameters) -> None:
    """Claim: for random consistent words and sub-flows and generic parameters and data, both inequalities.

    Measured >= proven always: the proof holds for every score. Equality needs a leading error that Gaussian data can
    see, one whose drift and diffusion coefficients do not average to zero over the exact law. It fails on purpose where
    the leading error has second derivatives of the score in every term, or where a law that does not move is already
    that of the scheme; neither happens for a word over these splittings at parameters drawn from a continuum.
    """
    proof = prove_order(scheme)
    fit = measured(scheme, params)
    assert fit is not None
    assert fit.order >= proof.order - 0.1
    assert fit.order <= proof.order + 0.1


@pytest.mark.parametrize("flow", ["true", "midpoint"])
@pytest.mark.parametrize("word", KNOWN_ANSWERS)
def test_the_known_answers_measure_as_proven(word: str, flow: str) -> None:
    """Claim: for constant and for linear beta the measured order is the proven one, to 0.05."""
    for params in (Parameters(), Parameters(beta_min=0.1, beta_max=15.9)):
        scheme = Scheme(word, PSLD_LINEAR, flow=flow)
        proof = prove_order(scheme, linear_beta=params.beta_min != params.beta_max)
        assert measured(scheme, params).order == pytest.approx(proof.order, abs=0.05)


# --- The cache, and bad input -----------------------------------------------------------------------------------------


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A cache folder of the test's own, and nothing shipped."""
    monkeypatch.setattr(derivations, "known", lambda _: None)
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    "scheme", [CATALOGUE["ROBA"], replace(CATALOGUE["ROBA"], lambda_s=1.16), Scheme("S W", WHOLE_LANGEVIN, flow="true")]
)
def test_a_second_proof_is_read_from_disk(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: it is not derived again, and it is the same value; a lambda_s is a symbol, so one proof serves all."""
    first = prove_order(scheme)

    def refuse(*_: Any) -> Any:
        raise RuntimeError("derived")

    monkeypatch.setattr(weak_order, "_search", refuse)
    again = prove_order(scheme)
    assert isinstance(again, OrderProof)
    assert again == first
    assert prove_order(replace(scheme, name="other", reference="elsewhere")) == first
    if scheme.lambda_s != 1:
        assert prove_order(replace(scheme, lambda_s=1.05)) == first
    with pytest.raises(RuntimeError, match="derived"):
        prove_order(scheme, linear_beta=False)


@pytest.mark.usefixtures("empty_cache")
def test_proofs_of_different_questions_have_different_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: word, sub-flow, parts, noise scale, dimensions, beta and what the score depends on are all in the key."""
    keys = []

    def remember(key: tuple[Any, ...], _: Any) -> Any:
        keys.append(str(key))
        return 1, []

    monkeypatch.setattr(weak_order, "cached", remember)
    scheme = CATALOGUE["ROBA"]
    timeless = replace(PSLD.diffusion, score_arguments=PSLD.diffusion.score_arguments[:2])
    questions: list[tuple[Scheme, int, bool]] = [
        (scheme, 1, True),
        (scheme, 2, True),
        (scheme, 1, False),
        (replace(scheme, lambda_s=1.1), 1, True),
        (replace(scheme, splitting=tilted(1)), 1, True),
        (replace(scheme, splitting=replace(PSLD, diffusion=timeless)), 1, True),
        *((replace(scheme, flow=flow), 1, True) for flow in FLOWS if flow != scheme.flow),
        (replace(scheme, word="O S B A@1/2"), 1, True),
        (replace(scheme, word="O S@1 B A"), 1, True),
        (replace(scheme, word="O(1/2) S B A O(1/2)"), 1, True),
    ]
    for scheme_, dims, linear_beta in questions:
        prove_order(scheme_, dims, linear_beta)
    assert len(set(keys)) == len(questions)
    prove_order(replace(scheme, word="O(1.0) S@0 B(2/2) A", splitting=PSLD), 1, True)
    assert len(set(keys)) == len(questions) + 1, "an S with its default time written out is another word"


@pytest.mark.parametrize("dims", [0, -1, 3, 1.5])
def test_other_dimensions_are_refused_by_name(dims: int) -> None:
    """Claim: ValueError that names the value."""
    with pytest.raises(ValueError, match=f"dims = {dims}"):
        prove_order(CATALOGUE["EM"], dims)


@FEW
@given(schemes(consistent=False))
def test_no_word_needs_a_jet_beyond_the_bound(scheme: Scheme) -> None:
    """Claim: up to h^3 no derivative is asked for beyond 2k + l = 2 (n - 1); a violation raises."""
    operators(scheme, 3)


@examples(5)
@given(random_splittings().flatmap(lambda s: st.tuples(st.just(s), words(s))), st.sampled_from(FLOWS))
def test_no_word_over_any_splitting_needs_a_jet_beyond_the_bound(drawn: tuple[Splitting, str], flow: str) -> None:
    """Claim: nor over random splittings of the reverse SDE, and a consistent word has no error at h^1."""
    splitting, word = drawn
    assert local_error(Scheme(word, splitting, flow=flow), 1) == [{}]
    operators(Scheme(word, splitting, flow=flow), 2)
