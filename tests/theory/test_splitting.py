"""A splitting adds up to the dynamics it splits, whoever declared it, or is refused with what is missing."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from selection import examples
from strategies import DRIFT_TERMS, parameters, random_splittings
from weakorder.theory.model import (
    DIFFUSIONS,
    LANGEVIN_DYNAMICS,
    PSLD_DIFFUSION,
    STATIONARY,
    LinearSDE,
    M,
    M_inv,
    Parameters,
    gamma,
    m,
    nu,
    s_m,
    s_x,
    theta,
    x,
)
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW, SPLITTINGS, Part, Splitting, splitting_for
from weakorder.verification.exact.order import study_order
from weakorder.verification.verdicts.verdict import Verdict

ZERO = (sp.S.Zero, sp.S.Zero)
REVERSE = PSLD_DIFFUSION.reverse()


def with_parts(splitting: Splitting, parts: tuple[Part, ...]) -> Splitting:
    """`splitting`, declared again with other parts."""
    return Splitting("other", splitting.diffusion, splitting.whole, parts)


# --- The built-in splittings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLITTINGS)
def test_the_parts_of_a_built_in_splitting_add_up_exactly(name: str) -> None:
    nothing = (sp.S.Zero,) * SPLITTINGS[name].diffusion.size
    assert SPLITTINGS[name].differences() == {"drift": nothing, "squared diffusion": nothing}


@pytest.mark.parametrize("name", SPLITTINGS)
def test_a_built_in_splitting_without_one_of_its_parts_is_refused(name: str) -> None:
    splitting = SPLITTINGS[name]
    for missing in splitting.parts:
        rest = tuple(part for part in splitting.parts if part is not missing)
        with pytest.raises(ValueError, match=r"do not add up|has no parts"):
            with_parts(splitting, rest)


@pytest.mark.parametrize("name", SPLITTINGS)
@given(params=parameters(), state=st.tuples(*[st.floats(-3, 3)] * 4))
@settings(max_examples=10)
def test_the_parts_of_a_built_in_splitting_add_up_in_numbers(
    name: str, params: Parameters, state: tuple[float, float, float, float]
) -> None:
    splitting = SPLITTINGS[name]
    n = splitting.diffusion.size
    u, score = np.array(state[:n]), np.array(state[2 : 2 + n])

    def drift(sde: LinearSDE) -> Any:
        A, G, _ = sde.numbers(params.values())
        return A @ u + G @ score

    def size(sde: LinearSDE) -> Any:
        A, G, _ = np.abs(sde.numbers(params.values()))
        return A @ np.abs(u) + G @ np.abs(score)

    whole = splitting.whole
    total = sum(drift(part.sde) for part in splitting.parts)
    assert np.all(np.abs(total - drift(whole)) <= 1e-14 * sum(size(part.sde) for part in splitting.parts))
    noise = sum(part.sde.numbers(params.values())[2] for part in splitting.parts)
    np.testing.assert_allclose(noise, whole.numbers(params.values())[2], rtol=1e-14)


def test_the_built_in_splittings_split_what_they_say() -> None:
    wholes = {name: splitting.whole for name, splitting in SPLITTINGS.items()}
    assert wholes == {
        "psld": REVERSE,
        "psld-linear": REVERSE,
        "psld-whole": REVERSE,
        "psld-flow": PSLD_DIFFUSION.probability_flow(),
        "psld-flow-whole": PSLD_DIFFUSION.probability_flow(),
        "langevin": LANGEVIN_DYNAMICS,
        "vp-whole": DIFFUSIONS["vp"].reverse(),
        "vp-flow": DIFFUSIONS["vp"].probability_flow(),
        "vp-linear": DIFFUSIONS["vp"].reverse(),
    }
    assert {name for name, s in SPLITTINGS.items() if s.diffusion == STATIONARY} == {"langevin"}
    assert {name: splitting.part_names for name, splitting in SPLITTINGS.items()} == {
        "psld": ("O", "A", "B"),
        "psld-linear": ("U", "E"),
        "psld-whole": ("F",),
        "psld-flow": ("A", "B"),
        "psld-flow-whole": ("F",),
        "langevin": ("O", "A", "B"),
        "vp-whole": ("F",),
        "vp-flow": ("F",),
        "vp-linear": ("U", "E"),
    }


def test_the_parts_know_what_they_use() -> None:
    users = {f"{s.name}:{p.name}" for s in SPLITTINGS.values() for p in s.parts if p.sde.uses_score}
    noisy = {f"{s.name}:{p.name}" for s in SPLITTINGS.values() for p in s.parts if p.sde.has_noise}
    position = {"vp-whole:F", "vp-flow:F", "vp-linear:E"}
    flows = {"psld-flow:A", "psld-flow:B", "psld-flow-whole:F"}
    assert users == {"psld:A", "psld:B", "psld-linear:E", "psld-whole:F", *flows, "langevin:B", *position}
    assert noisy == {"psld:O", "psld-linear:U", "psld-whole:F", "langevin:O", "vp-whole:F", "vp-linear:U"}


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_the_difference_of_the_drifts_is_printed() -> None:
    O, A, B = PSLD.parts  # noqa: E741
    halved = Part("A", (A.drift[0] - gamma * s_x, A.drift[1]))
    with pytest.raises(
        ValueError, match=r"'other' do not add up: drift .* is \(-gamma\*s_x, 0\) in \(x, m\)"
    ) as caught:
        with_parts(PSLD, (O, halved, B))
    assert "\n" not in str(caught.value)
    sign = Part("B", (B.drift[0], B.drift[1] - x))
    with pytest.raises(ValueError, match=r"drift of parts minus whole is \(0, -x\)"):
        with_parts(PSLD, (O, A, sign))


def test_the_difference_of_the_noises_is_printed() -> None:
    O, A, B = PSLD.parts  # noqa: E741
    quiet = Part("O", O.drift, (sp.sqrt(gamma) / 2, O.diffusion[1]))
    with pytest.raises(ValueError, match=r"squared diffusion of parts minus whole is \(-3\*gamma/4, 0\)"):
        with_parts(PSLD, (quiet, A, B))


def test_noise_in_a_splitting_of_the_probability_flow_is_refused() -> None:
    A, B = PSLD_FLOW.parts
    with pytest.raises(ValueError, match=r"squared diffusion of parts minus whole is \(0, nu\)"):
        with_parts(PSLD_FLOW, (A, Part("B", B.drift, (sp.S.Zero, sp.sqrt(nu)))))


def test_diffusion_coefficients_add_up_in_their_squares_not_in_their_sizes() -> None:
    """Two halves of the amplitude are half of the noise; two of 1/sqrt(2) are all of it, and signs do not matter."""
    O, A, B = PSLD.parts  # noqa: E741

    def halves(amplitude: sp.Expr) -> Splitting:
        pieces = tuple(
            Part(name, (O.drift[0] / 2, O.drift[1] / 2), (amplitude * O.diffusion[0], -amplitude * O.diffusion[1]))
            for name in ("O1", "O2")
        )
        return with_parts(PSLD, (*pieces, A, B))

    assert halves(1 / sp.sqrt(2)).part_names == ("O1", "O2", "A", "B")
    with pytest.raises(ValueError, match="squared diffusion"):
        halves(sp.Rational(1, 2))


def test_a_difference_that_vanishes_only_for_some_parameters_is_refused() -> None:
    O, A, B = PSLD.parts  # noqa: E741
    for extra in (gamma * m, (gamma - nu) * x, sp.Rational(1, 10**12) * x):
        with pytest.raises(ValueError, match="do not add up"):
            with_parts(PSLD, (O, Part("A", (A.drift[0] + extra, A.drift[1])), B))


@pytest.mark.parametrize("name", ["S", "", "2A", "A-B", "A B", "O(1)", "A@1", "Ä", "_A", "A\n"])
def test_a_name_that_no_word_could_use_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="part name") as caught:
        Part(name, (x, m))
    assert repr(name) in str(caught.value)
    assert "letter" in str(caught.value)


@pytest.mark.parametrize("name", ["A", "o", "S2", "SS", "Kick", "B12"])
def test_a_letter_followed_by_letters_or_digits_names_a_part(name: str) -> None:
    assert Part(name, (x, m)).name == name


def test_a_name_used_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"splitting 'other' declares part A twice; names must differ"):
        with_parts(PSLD, (Part("A", (x, m)), Part("B", (x, m)), Part("A", (m, x))))


def test_a_splitting_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"splitting 'other' has no parts; give at least one"):
        with_parts(PSLD, ())


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        ((x**3, m), r"drift \(x\*\*3, m\) is not linear in x, m, s_x, s_m; add multiples of these"),
        ((m, -sp.sin(x)), r"sin\(x\).* is not linear"),
        ((m, s_m * m), r"m\*s_m\) is not linear"),
        ((x + 1, m), r"\(x \+ 1, m\) is not linear"),
        ((sp.Symbol("omega") * m, x), r"drift m\*omega has the unknown symbol omega; it may use gamma, .*nu, .*x"),
        ((theta * m, x), r"drift m\*theta has the unknown symbol theta"),
    ],
)
def test_a_part_that_is_not_linear_or_uses_unknown_symbols_is_refused(drift: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Part("A", drift)
    assert "\n" not in str(caught.value)


def test_a_splitting_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PSLD.parts = ()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        PSLD["A"].name = "Z"  # type: ignore[misc]


def test_a_part_is_found_by_its_name_and_a_stranger_is_a_key_error() -> None:
    assert PSLD["A"] is PSLD.parts[1]
    for stranger in ("S", "a", "Z"):
        with pytest.raises(KeyError, match=stranger):
            _ = PSLD[stranger]


# --- Splittings that users declare ------------------------------------------------------------------------------------


def test_a_splitting_of_ones_own_takes_a_few_lines() -> None:
    """The Hamiltonian part of the reverse SDE apart, as for underdamped Langevin dynamics."""
    own = Splitting(
        "own",
        PSLD_DIFFUSION,
        REVERSE,
        (
            Part("H", (-M_inv * m / 2, x / 2)),
            Part("D", (gamma * x / 2 + gamma * s_x, nu * m / 2 + M * nu * s_m), REVERSE.diffusion),
        ),
    )
    assert own.part_names == ("H", "D")
    assert not own["H"].sde.uses_score


@examples(15)
@given(random_splittings())
def test_a_random_cut_of_every_term_adds_up(splitting: Splitting) -> None:
    assert splitting.differences() == {"drift": ZERO, "squared diffusion": ZERO}
    total = sum(np.array(part.sde.numbers(Parameters(nu=3.0).values())) for part in splitting.parts)
    np.testing.assert_allclose(total, REVERSE.numbers(Parameters(nu=3.0).values()), rtol=1e-13, atol=1e-15)


amounts = st.fractions(-1, 1, max_denominator=10**6).filter(bool)


@examples(15)
@given(random_splittings(), st.data())
def test_a_random_cut_with_one_term_changed_is_refused_with_the_change(
    splitting: Splitting, data: st.DataObject
) -> None:
    row = data.draw(st.sampled_from([0, 1]))
    term = data.draw(st.sampled_from(DRIFT_TERMS[row]))
    amount: Fraction = data.draw(amounts)
    change = sp.Rational(amount.numerator, amount.denominator) * term
    index = data.draw(st.integers(0, len(splitting.parts) - 1))
    part = splitting.parts[index]
    drift = list(part.drift)
    drift[row] += change
    parts = list(splitting.parts)
    parts[index] = Part(part.name, (drift[0], drift[1]), part.diffusion)
    with pytest.raises(ValueError, match="do not add up: drift") as caught:
        with_parts(splitting, tuple(parts))
    printed = str(caught.value).split(" is (")[1].split(") in (x, m)")[0]
    names = {str(symbol): symbol for symbol in (gamma, nu, x, m, s_x, s_m)}
    difference = sp.parse_expr(f"({printed})", names)
    assert sp.simplify(difference[row] - change) == 0
    assert difference[1 - row] == 0


@examples(15)
@given(random_splittings(), st.integers(0, 4), st.fractions(0, 2, max_denominator=1000))
def test_a_random_cut_with_the_noise_of_a_part_scaled_is_refused(
    splitting: Splitting, index: int, factor: Fraction
) -> None:
    assume(factor != 1)
    parts = list(splitting.parts)
    part = parts[index % len(parts)]
    assume(part.sde.has_noise)
    scale = sp.sqrt(sp.Rational(factor.numerator, factor.denominator))
    scaled = (scale * part.diffusion[0], scale * part.diffusion[1])
    parts[index % len(parts)] = Part(part.name, part.drift, scaled)
    with pytest.raises(ValueError, match="do not add up: squared diffusion"):
        with_parts(splitting, tuple(parts))


# --- Which splitting a word belongs to --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"O", "A", "B"}, "psld"),
        ({"A"}, "psld"),
        ({"A", "B"}, "psld"),
        ({"U", "E"}, "psld-linear"),
        ({"E"}, "psld-linear"),
        ({"F"}, "psld-whole"),
    ],
)
def test_a_set_of_letters_belongs_to_the_first_splitting_that_has_them_all(names: set[str], expected: str) -> None:
    assert splitting_for(names).name == expected


@pytest.mark.parametrize("names", [{"O", "E"}, {"F", "U"}, {"Z"}])
def test_letters_that_no_splitting_has_together_are_named_with_what_there_is(names: set[str]) -> None:
    with pytest.raises(ValueError, match="no splitting has the parts") as caught:
        splitting_for(names)
    message = str(caught.value)
    assert " ".join(sorted(names)) in message
    assert all(name in message for name in SPLITTINGS)


# --- The whole --------------------------------------------------------------------------------------------------------


def as_one_part(whole: LinearSDE, diffusion: Any = PSLD_DIFFUSION) -> Splitting:
    return Splitting("one part", diffusion, whole, (Part("F", whole.drift, whole.diffusion),))


SKEW = sp.Rational(3, 10) * nu
KEEPING = {
    "half the noise, with the gain that fits it": LinearSDE(
        tuple(
            -f + sp.Rational(3, 4) * d * s
            for f, d, s in zip(
                PSLD_DIFFUSION.forward.drift, PSLD_DIFFUSION.forward.noise.diagonal(), (s_x, s_m), strict=True
            )
        ),
        tuple(g / sp.sqrt(2) for g in PSLD_DIFFUSION.forward.diffusion),
    ),
    "a constant skew gain": LinearSDE(
        (REVERSE.drift[0] + SKEW * s_m, REVERSE.drift[1] - SKEW * s_x), REVERSE.diffusion
    ),
}
LOSING = {
    "a momentum gain 1.1 times too large": LinearSDE(
        (REVERSE.drift[0], REVERSE.drift[1] + M * nu * s_m / 10), REVERSE.diffusion
    ),
    "a symmetric cross gain": LinearSDE(
        (REVERSE.drift[0] + SKEW * s_m, REVERSE.drift[1] + SKEW * s_x), REVERSE.diffusion
    ),
    "no damping": LinearSDE((REVERSE.drift[0] - gamma * x / 2, REVERSE.drift[1]), REVERSE.diffusion),
    "the flow's drift with noise": LinearSDE(PSLD_DIFFUSION.probability_flow().drift, REVERSE.diffusion),
    "a forward drift": LinearSDE(PSLD_DIFFUSION.forward.drift, PSLD_DIFFUSION.forward.diffusion),
}


@pytest.mark.parametrize("whole", KEEPING.values(), ids=KEEPING)
def test_dynamics_that_keep_every_law_may_be_split_and_converge_to_it(whole: LinearSDE) -> None:
    study = study_order(Scheme("S F", as_one_part(whole)), Parameters(), steps=(400, 800, 1600, 3200))
    assert study.verdict is Verdict.PASS, study.reason
    assert study.limit is not None
    assert abs(study.limit.bias) <= 4 * study.limit.uncertainty


@pytest.mark.parametrize("whole", LOSING.values(), ids=LOSING)
def test_dynamics_of_another_law_are_refused_with_what_they_have_too_much(whole: LinearSDE) -> None:
    """Claim: no theorem starts from them. Their own limit, computed, is another law."""
    with pytest.raises(ValueError, match=r"does not keep the laws p_t .* has .* too much.*reverse\(\)") as refusal:
        as_one_part(whole)
    assert "\n" not in str(refusal.value)


def test_the_excess_is_the_term_that_was_added() -> None:
    added = M * nu * s_m / 10
    with pytest.raises(ValueError, match="its drift of m has ") as refusal:
        as_one_part(LinearSDE((REVERSE.drift[0], REVERSE.drift[1] + added), REVERSE.diffusion))
    said = str(refusal.value).split(" has ")[1].split(" too much")[0]
    names = {str(symbol): symbol for symbol in (gamma, nu, s_m)}
    assert sp.simplify(sp.sympify(said, locals=names) - added) == 0


def test_langevin_dynamics_are_held_to_a_stationary_law() -> None:
    slow = LinearSDE((M_inv * m, s_x - nu * m), (sp.S.Zero, sp.sqrt(nu * M)))
    with pytest.raises(ValueError, match="of diffusion 'stationary'"):
        as_one_part(slow, STATIONARY)
    assert as_one_part(LANGEVIN_DYNAMICS, STATIONARY).part_names == ("F",)
