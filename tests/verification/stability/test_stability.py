"""Stability in closed form: Jury's conditions, the largest stable step and the stationary covariance, against moments
that are iterated, the frozen dynamics, and cases done by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from selection import examples, is_representative, nightly_but
from strategies import parameters, words
from weakorder.integrators.catalogue import CATALOGUE, STOCHASTIC
from weakorder.theory import first_failure, stability
from weakorder.theory.jury import jury
from weakorder.theory.model import PARAMETERS, PSLD_DIFFUSION, STATIONARY, LinearSDE, M, Parameters, gamma, nu, theta
from weakorder.theory.model import m as momentum
from weakorder.theory.model import s_x as score_x
from weakorder.theory.scheme import FROZEN_FLOWS, Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, Part, Splitting
from weakorder.verification.exact.moments import AffineMap
from weakorder.verification.stability.growth import (
    FrozenTarget,
    exact_word,
    frozen_maps,
    spectral_radius,
    stationary_cov,
    stop_clock,
)
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.algebra import determinant, inverse

PARAMS = Parameters()
STIFF = stop_clock(1e-4, 0.01, PSLD_DIFFUSION, PARAMS)

# Overdamped Langevin dynamics in x at rate gamma beside a damped momentum: decoupled, so that everything is known.
DECOUPLED = LinearSDE((gamma * score_x, -nu * momentum), (sp.sqrt(2 * gamma), sp.sqrt(2 * nu * M)))
EULER_MARUYAMA = Scheme(
    "S F", Splitting("decoupled", STATIONARY, DECOUPLED, (Part("F", DECOUPLED.drift, DECOUPLED.diffusion),))
)
HAND = {"gamma": 2.0, "nu": 0.5, "kappa": 1.0}


def _precision(frozen: FrozenTarget) -> sp.Matrix:
    return sp.Matrix(inverse(frozen.frozen.cov)[:, :, 0].tolist())


def _numbers(matrix: sp.Matrix, params: Parameters, length: float) -> np.ndarray:
    values = dict(zip(PARAMETERS, params.values().values(), strict=True)) | {theta: length}
    return np.array(matrix.subs(values).evalf(30).tolist(), dtype=float)


def _settles(step: AffineMap) -> bool:
    """Whether the covariance stays bounded: 2^40 steps, by squaring the map. This is the simulation."""
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(40):
            step = step.then(step)
    return bool(np.isfinite(step.noise_cov).all() and (np.abs(step.matrix) < 1).all())


# --- Jury's conditions ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_jurys_conditions_hold_exactly_where_the_eigenvalues_lie_in_the_unit_circle(entries: list[float]) -> None:
    matrix = np.array(entries).reshape(2, 2)
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    assume(abs(radius - 1) > 1e-6)
    margins = jury(np.trace(matrix), np.linalg.det(matrix))
    assert (min(margins) > 0) == (radius < 1)


@pytest.mark.parametrize(
    ("eigenvalues", "condition"),
    [((1.1, 0.3), "growth"), ((-1.1, 0.3), "flip"), ((0.8 + 0.8j, 0.8 - 0.8j), "rotation")],
)
def test_each_condition_is_named_after_how_the_eigenvalue_leaves(eigenvalues: tuple, condition: str) -> None:
    trace, det = (np.real(v) for v in (sum(eigenvalues), eigenvalues[0] * eigenvalues[1]))
    assert [name for name, margin in jury(trace, det)._asdict().items() if margin <= 0] == [condition]


# --- By hand ----------------------------------------------------------------------------------------------------------


def test_euler_maruyama_on_the_linear_test_equation_is_stable_up_to_two_over_its_rate() -> None:
    """x <- (1 - gamma lambda theta) x + noise: stable for theta < 2 / (gamma lambda), where it flips."""
    at = sp.diag(sp.Rational(7, 2), 1)
    step = stability.largest_stable_step(EULER_MARUYAMA, at, HAND)
    assert (step.low, step.high, step.condition) == (Fraction(2, 7), Fraction(2, 7), "flip")
    assert step.exact == sp.Rational(2, 7)


def test_euler_maruyama_settles_at_the_variance_known_by_hand() -> None:
    """v = (1 - a theta)^2 v + 2 gamma theta, a = gamma lambda: v = 1 / (lambda (1 - a theta / 2))."""
    found = stability.stationary_cov(stability.frozen_map(EULER_MARUYAMA))
    lam = stability.lambda_xx
    flat = {stability.lambda_xm: 0}
    assert sp.simplify(found[0, 0].subs(flat) - 1 / (lam * (1 - gamma * lam * theta / 2))) == 0
    exact = stability.exact_stationary_cov(DECOUPLED)
    assert sp.simplify(exact[0, 0].subs(flat) - 1 / lam) == 0
    # a broken formula: the noise counted once too often
    assert sp.simplify(found[0, 0].subs(flat) - 1 / (lam * (1 - gamma * lam * theta))) != 0


def test_symplectic_euler_of_an_oscillator_is_stable_up_to_two_over_its_frequency() -> None:
    """B A without friction (nu = 0 leaves O without effect): det R = 1 for every theta, which is no limit, and the flip
    comes at theta omega = 2."""
    word = Scheme("O S B A", LANGEVIN)
    values = {"gamma": 4.0, "nu": 0.0, "kappa": 1.0}  # M^-1 = 4
    step = stability.largest_stable_step(word, sp.diag(9, 4), values)
    assert step.condition == "flip"
    assert step.exact == sp.Rational(1, 3)  # omega^2 = 9 M^-1 = 36


# --- The largest stable step ------------------------------------------------------------------------------------------

_WORDS = st.sampled_from([PSLD, PSLD_LINEAR, PSLD_WHOLE, PSLD_FLOW, LANGEVIN]).flatmap(
    lambda splitting: st.builds(
        Scheme, words(splitting), st.just(splitting), flow=st.sampled_from(["euler", "euler", "euler", "exact"])
    )
)


_CATALOGUE = st.builds(replace, st.sampled_from(list(CATALOGUE.values())), flow=st.sampled_from(FROZEN_FLOWS))
_TARGETS = {"params": parameters(), "t": st.floats(0.01, 1), "variance": st.floats(1e-3, 4)}


@examples(5)
@given(scheme=_CATALOGUE, **_TARGETS)
def test_the_largest_stable_step_of_the_catalogue_is_where_moments_stop_settling(
    scheme: Scheme, params: Parameters, t: float, variance: float
) -> None:
    """For random parameters, times and data."""
    assert_stops_settling_there(scheme, params, t, variance)


@examples(1)
@given(scheme=_WORDS, **_TARGETS)
def test_the_largest_stable_step_of_random_words_is_where_moments_stop_settling(
    scheme: Scheme, params: Parameters, t: float, variance: float
) -> None:
    """For words over the whole grammar, whose maps sympy derives in seconds each."""
    assert_stops_settling_there(scheme, params, t, variance)


@pytest.mark.nightly
@settings(max_examples=100)
@example(  # an eigenvalue comes to the circle with ever longer steps, and does not leave
    scheme=Scheme("S O@0 A B(1/3) B(1/3) B(1/3)", LANGEVIN, flow="euler"),
    params=Parameters(gamma=0.0, nu=5.0, beta_min=8.0, beta_max=8.0),
    t=0.01,
    variance=0.25,
)
@given(scheme=_WORDS, **_TARGETS)
def test_the_largest_stable_step_of_many_random_words_is_where_moments_stop_settling(
    scheme: Scheme, params: Parameters, t: float, variance: float
) -> None:
    """The same, wider."""
    assert_stops_settling_there(scheme, params, t, variance)


def _no_rate_is_next_to_nothing(params: Parameters) -> bool:
    return all(rate == 0 or rate > 1e-6 for rate in (params.gamma, params.nu))


def test_a_rate_next_to_nothing_is_refused_where_it_cancels() -> None:
    scheme = replace(CATALOGUE["RBAO"], flow="exact")
    with pytest.raises(ValueError, match="is next to nothing; give 0 for it, or more"):
        stability.largest_stable_step(scheme, sp.diag(2, 9), {"gamma": 1e-45, "nu": 4.01, "kappa": 1.0})
    none, little = (
        stability.largest_stable_step(scheme, sp.diag(2, 9), {"gamma": rate, "nu": 4.01, "kappa": 1.0})
        for rate in (0.0, 1e-6)
    )
    assert little.high == pytest.approx(none.high, rel=1e-4)
    assert little.high != none.high


def assert_stops_settling_there(scheme: Scheme, params: Parameters, t: float, variance: float) -> None:
    """1% inside the covariance settles, or stays where an eigenvalue rounds to the circle, just outside it does not;
    the bracket is tight; without a step at all the frozen dynamics do not settle either.

    At the limit a condition vanishes: for growth and flip (1 -+ lambda_1)(1 -+ lambda_2), so that the nearer eigenvalue
    is within its root of the circle and no nearer, where the two meet: a flow that hardly damps turns them into one."""
    assume(_no_rate_is_next_to_nothing(params))
    frozen = stop_clock(variance, t, scheme.splitting.diffusion, params)
    step = stability.largest_stable_step(scheme, _precision(frozen), params.values())
    assert 0 <= step.high - step.low <= step.high / 10**6
    if step.high == 0:
        dynamics = frozen_maps(exact_word(scheme.splitting), frozen, 1e-3)
        assert spectral_radius(dynamics.matrix)[0, 0] >= 1 - 1e-9
        return
    inside = frozen_maps(scheme, frozen, 0.99 * float(step.low))
    # where an eigenvalue rounds to the circle, undamped or approached as steps grow, nothing settles in 2^40 steps
    margin = min(jury(inside.matrix.trace()[0, 0], determinant(inside.matrix)[0, 0]))
    assert spectral_radius(inside.matrix)[0, 0] < 1 + 1e-9 if abs(margin) < 1e-9 else _settles(inside)
    if step.condition is None:
        return
    at = frozen_maps(scheme, frozen, float(step.high)).matrix
    vanishing = getattr(jury(at.trace()[0, 0], determinant(at)[0, 0]), step.condition)
    assert vanishing == pytest.approx(0, abs=1e-6)
    assert spectral_radius(at)[0, 0] == pytest.approx(1, abs=max(1e-6, 2 * abs(vanishing) ** 0.5))
    outside = frozen_maps(scheme, frozen, 1.01 * float(step.high))
    slightly = frozen_maps(scheme, frozen, (1 + 1e-5) * float(step.high))
    assert not _settles(outside) or not _settles(slightly)  # a window narrower than 1% closes again
    margin = getattr(jury(slightly.matrix.trace()[0, 0], determinant(slightly.matrix)[0, 0]), step.condition)
    assert margin < 1e-9


def test_a_step_map_composed_in_the_wrong_order_has_another_limit() -> None:
    """The comparison above sees what order the segments act in: R_1 R_2 is not R_2 R_1, though their radii agree; with
    three evaluations they do not."""
    at = _precision(STIFF)
    right = stability.largest_stable_step(CATALOGUE["NOBAB"], at, PARAMS.values())
    wrong = stability.largest_stable_step(Scheme("O S B(1/2) S B(1/2) S A", PSLD), at, PARAMS.values())
    assert abs(wrong.high / right.high - 1) > 0.01


@pytest.mark.parametrize("scheme", nightly_but(is_representative, CATALOGUE.values()), ids=lambda scheme: scheme.name)
def test_every_scheme_of_the_catalogue_has_a_largest_step_near_the_data(scheme: Scheme) -> None:
    step = stability.largest_stable_step(scheme, _precision(STIFF), PARAMS.values())
    assert step.condition is not None
    assert (step.exact is not None) == all(part.sde.uses_score for part in scheme.parts)  # Euler throughout
    assert _settles(frozen_maps(scheme, STIFF, 0.99 * float(step.low))) or not scheme.splitting.whole.has_noise
    assert not _settles(frozen_maps(scheme, STIFF, 1.01 * float(step.high)))


def test_no_step_is_stable_where_the_dynamics_expand() -> None:
    """Data of variance 100: the reverse dynamics must widen the law."""
    wide = stop_clock(100.0, 0.2, PSLD_DIFFUSION, PARAMS)
    for name in ("EM", "ROBA"):
        step = stability.largest_stable_step(CATALOGUE[name], _precision(wide), PARAMS.values())
        assert step.high == 0
    assert spectral_radius(frozen_maps(exact_word(PSLD), wide, 0.01).matrix)[0, 0] > 1


def test_steps_are_searched_up_to_the_limit_only() -> None:
    step = stability.largest_stable_step(CATALOGUE["EM"], _precision(STIFF), PARAMS.values(), Fraction(1, 1000))
    assert (step.low, step.high, step.condition) == (Fraction(1, 1000), Fraction(1, 1000), None)
    with pytest.raises(ValueError, match="positive theta"):
        stability.largest_stable_step(CATALOGUE["EM"], _precision(STIFF), PARAMS.values(), 0)
    with pytest.raises(ValueError, match="no affine map"):
        stability.largest_stable_step(replace(CATALOGUE["EM"], flow="true"), _precision(STIFF), PARAMS.values())


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 2), st.integers(-3, 3)), min_size=1, max_size=4),
    st.tuples(st.floats(0, 2), st.floats(0, 2)).map(sorted),
    st.floats(0, 1),
)
def test_interval_bounds_hold_the_function(terms: list, ends: list[float], share: float) -> None:
    """What the proofs of positivity rest on."""
    low, high = map(Fraction, ends)
    point = min(high, max(low, low + (high - low) * Fraction(share)))
    combined: dict = {}
    for coefficient, power, rate in terms:
        key = (power, sp.Rational(rate, 2))
        combined[key] = combined.get(key, sp.S.Zero) + sp.Rational(coefficient, 3)
    bounds = first_failure.Enclosure(combined)(first_failure.between(low, high))
    x = sp.Rational(point.numerator, point.denominator)
    value = sp.Add(*(c * x**power * sp.exp(rate * x) for (power, rate), c in combined.items())).evalf(30)
    assert float(bounds.a) - 1e-14 <= float(value) <= float(bounds.b) + 1e-14


# --- The map and its covariance ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FROZEN_FLOWS)
@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_the_symbolic_frozen_map_is_the_compiled_word_on_a_stopped_clock(scheme: Scheme, flow: str) -> None:
    """Two readings: sympy's one-step map, and the sampler's tables on a target whose law stands still."""
    scheme = replace(scheme, flow=flow)
    symbolic = stability.frozen_map(scheme, _precision(STIFF))
    compiled = frozen_maps(scheme, STIFF, 0.08)
    np.testing.assert_allclose(_numbers(symbolic.matrix, PARAMS, 0.08), compiled.matrix[:, :, 0, 0], rtol=1e-9)
    np.testing.assert_allclose(
        _numbers(symbolic.noise_cov, PARAMS, 0.08), compiled.noise_cov[:, :, 0, 0], rtol=1e-9, atol=1e-12
    )


def test_the_conditions_of_a_word_are_expressions_in_the_step_and_the_parameters() -> None:
    """Those of Euler-Maruyama are polynomials of degree 2, and rotation begins as -tr B theta."""
    conditions = stability.stability_conditions(CATALOGUE["EM"])
    assert all(condition.is_polynomial(theta) for condition in conditions)
    whole = PSLD.whole
    B = whole.matrix - whole.score_gain * stability.PRECISION
    assert sp.simplify(sp.diff(conditions.rotation, theta).subs(theta, 0) + B.trace()) == 0


def test_the_closed_form_solves_the_discrete_lyapunov_equation() -> None:
    a, b, c, d, p, q, r = sp.symbols("a b c d p q r")
    frozen = stability.FrozenMap(sp.Matrix([[a, b], [c, d]]), sp.Matrix([[p, q], [q, r]]))
    cov = stability.stationary_cov(frozen)
    left = frozen.matrix * cov * frozen.matrix.T + frozen.noise_cov - cov
    assert left.applyfunc(sp.cancel).is_zero_matrix
    weights = stability.lyapunov_weights(frozen.matrix.trace(), frozen.matrix.det())
    assert sp.expand(weights.denominator - sp.prod(jury(a + d, a * d - b * c))) == 0


def test_the_closed_form_solves_the_continuous_lyapunov_equation() -> None:
    for sde in (PSLD.whole, LANGEVIN.whole):
        cov = stability.exact_stationary_cov(sde)
        B = sde.matrix - sde.score_gain * stability.PRECISION
        left = B * cov + cov * B.T + sde.noise
        assert left.applyfunc(lambda entry: sp.fraction(sp.together(entry))[0].expand()).is_zero_matrix


@examples(6)
@given(parameters(), st.floats(0.05, 1), st.floats(1e-3, 1), st.floats(1e-3, 0.5))
def test_the_frozen_dynamics_keep_their_own_stationary_covariance_at_any_step(
    params: Parameters, t: float, variance: float, length: float
) -> None:
    """The exact word's discrete solution is the continuous one, whatever the step: the reference of the error."""
    frozen = stop_clock(variance, t, PSLD_DIFFUSION, params)
    maps = frozen_maps(exact_word(PSLD), frozen, length)
    assume(spectral_radius(maps.matrix)[0, 0] < 0.99)
    values = dict(zip(PARAMETERS, params.values().values(), strict=True))
    expected = np.array(
        stability.exact_stationary_cov(PSLD.whole, _precision(frozen)).subs(values).evalf(30), dtype=float
    )
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    found = stationary_cov(maps)[:, :, 0, 0]
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-8)


def test_only_a_law_that_stands_still_is_the_frozen_dynamics_stationary_law() -> None:
    """Langevin, and PSLD at its prior; near the data, where the noise makes the law, half of it."""
    langevin = GaussianTarget.of(0.0, 0.3, STATIONARY, PARAMS)
    still = FrozenTarget(langevin.mean, langevin.variance, STATIONARY, PARAMS, langevin.law(0.5))
    prior = stop_clock(1.0, 1.0, PSLD_DIFFUSION, replace(PARAMS, kappa=1.0))
    young = stop_clock(0.0, 1e-3, PSLD_DIFFUSION, replace(PARAMS, kappa=0.0))
    for splitting, frozen, share in ((LANGEVIN, still, 1.0), (PSLD, prior, 1.0), (PSLD, young, 0.5)):
        found = stationary_cov(frozen_maps(exact_word(splitting), frozen, 0.01))[:, :, 0, 0]
        diagonal = np.diag(found) / np.diag(frozen.frozen.cov[:, :, 0])
        np.testing.assert_allclose(diagonal, share, rtol=0.05 if share == 0.5 else 1e-8)
    between = stop_clock(0.1, 0.1, PSLD_DIFFUSION, PARAMS)
    found = stationary_cov(frozen_maps(exact_word(PSLD), between, 0.01))[0, 0, 0, 0]
    assert abs(found / between.frozen.cov[0, 0, 0] - 1) > 0.1


@pytest.mark.parametrize("scheme", STOCHASTIC, ids=lambda scheme: scheme.name)
def test_the_error_of_the_stationary_covariance_is_of_first_order(scheme: Scheme) -> None:
    frozen = stop_clock(0.25, 0.5, PSLD_DIFFUSION, PARAMS)
    lengths = np.array([4e-3, 2e-3])
    exact = stationary_cov(frozen_maps(exact_word(PSLD), frozen, lengths))
    errors = np.abs(stationary_cov(frozen_maps(scheme, frozen, lengths)) - exact).max((0, 1))[:, 0]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(scheme.order or 1, abs=0.1)


def test_a_covariance_that_does_not_settle_is_not_a_number() -> None:
    step = stability.largest_stable_step(CATALOGUE["ROBA"], _precision(STIFF), PARAMS.values())
    lengths = float(step.high) * np.array([0.999, 0.99, 1.01])
    found = stationary_cov(frozen_maps(CATALOGUE["ROBA"], STIFF, lengths))
    assert np.isfinite(found[..., :2, 0]).all()
    assert np.isnan(found[..., 2, 0]).all()
    # towards the boundary it grows like 1 / distance
    assert found[0, 0, 0, 0] / found[0, 0, 1, 0] == pytest.approx(10, rel=0.1)


def test_the_precision_is_that_of_the_noised_data() -> None:
    t, s2 = 0.2, 0.3
    values = {"s2": s2, **PARAMS.values(), "theta": PARAMS.theta(t, t)}
    symbolic = stability.precision(PSLD_DIFFUSION)
    numbers = np.array(symbolic.subs({s: values[str(s)] for s in symbolic.free_symbols}).evalf(30), dtype=float)
    target = GaussianTarget.of(0.0, s2, PSLD_DIFFUSION, PARAMS)
    np.testing.assert_allclose(numbers, target.precision(target.law(t))[:, :, 0], rtol=1e-10)
