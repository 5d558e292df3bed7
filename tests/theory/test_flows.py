"""Derived flows: proven by substitution, evaluated to the last digits wherever a rate or a time vanishes, kept on disk.

The second source is mpmath: exponentials of block matrices in 50 digits (Van Loan 1978), which know none of the
derived formulas. The error allowed in an entry f(theta) is

    1e-12 (|f| + |theta f'|),

what a relative change of theta by 1e-12 makes of it. For an entry of one sign that is 1e-12 relative, times the
logarithmic slope for one that grows or decays exponentially; at a sign change the second term alone is left, as it
must be, since no float64 theta is closer to a zero of f than that. (One exception, said where it is made.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from numpy.typing import NDArray
from selection import nightly_but
from strategies import parameters
from sympy import Matrix
from weakorder.theory import cache, flow_proof, flows
from weakorder.theory import derivations as shipped
from weakorder.theory.cache import cached
from weakorder.theory.flow_proof import euler_matrices, residuals
from weakorder.theory.flows import ExactFlow, Flow, euler_flow, exact_flow, linear_flow
from weakorder.theory.model import PARAMETERS, LinearSDE, M, M_inv, Parameters, gamma, m, nu, s_m, s_x, theta, x
from weakorder.theory.splitting import SPLITTINGS, Part

BUILT_IN = {f"{s.name}:{part.name}": part for s in SPLITTINGS.values() for part in s.parts}

# What a user may declare: rates that can be equal or not, and couplings of x and m with real or complex rates.
DECLARED = {
    "one-way coupling": Part("W", (-gamma * x / 2 + m, -nu * m / 2), (sp.sqrt(gamma), sp.S.One)),
    "one-way coupling, no noise": Part("W", (-gamma * x / 2 + m + s_x, -nu * m / 2)),
    "rotation": Part("H", (-M_inv * m / 2, x / 2)),
    "rotation and score": Part("H", (-M_inv * m / 2, x / 2 + nu * M * s_m), (sp.S.Zero, sp.sqrt(nu * M))),
    "damped oscillator": Part("H", (m, -x - nu * m + s_x), (sp.S.Zero, sp.sqrt(2 * nu))),
    "saddle": Part("H", (x + 2 * m, 3 * x + m), (sp.S.One, sp.S.Zero)),
}
PARTS = BUILT_IN | DECLARED

LENGTHS = np.array([1e-12, 1e-6, 1e-3, 0.03, 0.3, 1.0, 1.7, 4.0, 10.0])
PARAMETER_SETS: dict[str, dict[str, float]] = {
    "published": {"gamma": 0.01, "nu": 4.01, "kappa": 0.04},
    "generic": {"gamma": 1.7, "nu": 0.9, "kappa": 0.3},
    "gamma = 0": {"gamma": 0.0, "nu": 4.0, "kappa": 0.04},
    "nu = 0": {"gamma": 3.0, "nu": 0.0, "kappa": 0.04},
    "tiny gamma": {"gamma": 1e-12, "nu": 4.0, "kappa": 0.04},
    "tiny nu": {"gamma": 2.5, "nu": 1e-12, "kappa": 0.04},
    "gamma close to nu": {"gamma": 1.3, "nu": 1.3000001, "kappa": 0.04},
    "gamma very close to nu": {"gamma": 1.3, "nu": 1.3 + 1e-12, "kappa": 0.04},
}

TOLERANCE = 1e-12


def part_id(part: str) -> str:
    return part.replace(" ", "-")


@functools.cache
def _compiled(sde: LinearSDE) -> Callable[..., Any]:
    return sp.lambdify(PARAMETERS, [e.tolist() for e in (sde.matrix, sde.score_gain, sde.noise)], "mpmath")


def reference_flow(sde: LinearSDE, length: float, values: Mapping[str, float]) -> list[tuple[Any, Any]]:
    """(f, theta f') for each of P, K and Q, as mpmath matrices, from exponentials of block matrices."""
    A, G, D = map(mp.matrix, _compiled(sde)(**{name: mp.mpf(value) for name, value in values.items()}))
    time = mp.mpf(length)
    affine = mp.zeros(4)  # (u, s)' = [[A, G], [0, 0]] (u, s)
    affine[:2, :2], affine[:2, 2:] = A * time, G * time
    exponential = mp.expm(affine)
    P, K = exponential[:2, :2], exponential[:2, 2:]
    lyapunov = mp.zeros(5)  # (vec Q, 1)' = [[A x 1 + 1 x A, vec D], [0, 0]] (vec Q, 1)
    for i in range(2):
        for j in range(2):
            for k in range(2):
                lyapunov[2 * i + j, 2 * k + j] += A[i, k] * time
                lyapunov[2 * i + j, 2 * i + k] += A[j, k] * time
            lyapunov[2 * i + j, 4] = D[i, j] * time
    column = mp.expm(lyapunov)[:4, 4]
    Q = mp.matrix([[column[0], column[1]], [column[2], column[3]]])
    slopes = (A * P, A * K + G, A * Q + Q * A.T + D)
    return [(value, slope * time) for value, slope in zip((P, K, Q), slopes, strict=True)]


def worst_error(
    flow: Flow, sde: LinearSDE, length: float, values: Mapping[str, float], *, as_correlation: bool = False
) -> float:
    """The largest error of an entry, in units of |f| + |theta f'|; infinite where a 0 is not 0.

    as_correlation: the unit of a covariance is the geometric mean of its two variances.
    """
    worst = 0.0
    with mp.workdps(50):
        for matrix, (got, (value, slope)) in enumerate(zip(flow, reference_flow(sde, length, values), strict=True)):
            for i in range(2):
                for j in range(2):
                    error = abs(mp.mpf(float(got[i, j])) - value[i, j])
                    scale = abs(value[i, j]) + abs(slope[i, j])
                    if as_correlation and matrix == 2 and i != j:
                        scale = mp.sqrt(value[i, i] * value[j, j])
                    if not mpmath.isfinite(error):
                        return float("inf")
                    if error > 0:
                        worst = max(worst, float(error / scale) if scale > 0 else float("inf"))
    return worst


def at(flow: Flow, index: int) -> Flow:
    """One flow of a batch."""
    return Flow(*(matrix[index] for matrix in flow))


def is_zero(matrix: Matrix) -> bool:
    """Whether every entry is literally 0. (`is_zero_matrix` may not know.)"""
    return all(entry == 0 for entry in matrix)


# --- Proofs -----------------------------------------------------------------------------------------------------------


# Of the declared parts, these run always: rates that are imaginary, that may be equal, that have either sign. The
# others' derivations and proofs take seconds each.
ALWAYS = {*BUILT_IN, "rotation", "one-way coupling, no noise", "saddle"}


@pytest.mark.parametrize("name", nightly_but(ALWAYS.__contains__, PARTS), ids=part_id)
def test_the_derived_flow_solves_its_equations_exactly(name: str) -> None:
    left_over = residuals(PARTS[name].sde, *PARTS[name].exact.matrices)
    assert len(left_over) == 6
    assert all(map(is_zero, left_over))


@pytest.mark.parametrize("name", nightly_but(lambda name: name != "psld-whole:F", BUILT_IN), ids=part_id)
@pytest.mark.parametrize("broken", [0, 1, 2], ids=["propagator", "score_gain", "noise_cov"])
def test_a_broken_flow_leaves_a_residual_in_its_own_equation(name: str, broken: int) -> None:
    matrices = list(BUILT_IN[name].exact.matrices)
    matrices[broken] = matrices[broken] + (1 + theta) * sp.eye(2)
    left_over = residuals(BUILT_IN[name].sde, *matrices)
    assert [i for i, residual in enumerate(left_over) if not is_zero(residual)] == [2 * broken, 2 * broken + 1]
    assert left_over[2 * broken + 1] == sp.eye(2)


def test_a_flow_whose_rates_are_wrong_leaves_a_residual() -> None:
    part = BUILT_IN["psld:O"]
    P, K, Q = part.exact.matrices
    assert not is_zero(residuals(part.sde, P.subs(theta, 2 * theta), K, Q)[0])
    assert not is_zero(residuals(part.sde, P, K, Q.subs({gamma: nu, nu: gamma}, simultaneous=True))[4])
    part = BUILT_IN["psld-linear:U"]
    P, K, Q = part.exact.matrices
    assert not is_zero(residuals(part.sde, P.T, K, Q)[0])
    assert not is_zero(residuals(part.sde, P, K, Q.multiply_elementwise(Matrix([[1, -1], [-1, 1]])))[4])


# --- Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [(name, values) for name in BUILT_IN for values in PARAMETER_SETS]
    + [(name, values) for name in DECLARED for values in ("published", "gamma = 0", "gamma close to nu")],
    ids=part_id,
)
def test_the_flow_in_float64_agrees_with_block_exponentials_in_50_digits(name: str, values: str) -> None:
    part, numbers = PARTS[name], PARAMETER_SETS[values]
    flow = part.exact(LENGTHS, numbers)
    errors = [worst_error(at(flow, i), part.sde, length, numbers) for i, length in enumerate(LENGTHS)]
    assert max(errors) <= TOLERANCE


@pytest.mark.parametrize("name", ["one-way coupling", "one-way coupling, no noise", "damped oscillator"], ids=part_id)
@pytest.mark.parametrize("other", [1.3, 1.3 * (1 + 2**-52), 1.3 + 1e-8, 1.3 + 1e-5, 1.3 + 1e-3])
def test_the_flow_is_accurate_at_equal_rates_and_around_them(name: str, other: float) -> None:
    """gamma = nu is no diffusion (M is infinite), but a part without M has a flow there.

    The oscillator's rates, -nu/2 +- sqrt(nu^2/4 - 1), meet at nu = 2. There cov(x, m) decays like exp(-2 theta) while
    the variances stay, no closed form helps, and what can be asked for is its digits as a correlation.
    """
    part, values = DECLARED[name], {"gamma": 1.3, "nu": other, "kappa": 0.04}
    if name == "damped oscillator":
        values["nu"] = 2 + (other - 1.3)
    flow = part.exact(LENGTHS, values)
    errors = [
        worst_error(at(flow, i), part.sde, length, values, as_correlation=name == "damped oscillator")
        for i, length in enumerate(LENGTHS)
    ]
    assert max(errors) <= TOLERANCE


@settings(max_examples=60)
@given(
    st.sampled_from(list(BUILT_IN)),
    parameters(),
    st.one_of(st.floats(1e-12, 10), st.floats(-12, 1).map(lambda e: 10**e)),
)
def test_the_flow_is_accurate_for_any_parameters_and_times(name: str, params: Parameters, length: float) -> None:
    part = BUILT_IN[name]
    assert worst_error(part.exact(length, params.values()), part.sde, length, params.values()) <= TOLERANCE


def test_an_error_of_one_part_in_ten_to_the_ten_is_seen_in_every_entry() -> None:
    part, values = BUILT_IN["psld-whole:F"], PARAMETER_SETS["generic"]
    for length in LENGTHS:
        flow = part.exact(length, values)
        for k, matrix in enumerate(flow):
            for index in zip(*np.nonzero(matrix), strict=True):
                changed = [entry.copy() for entry in flow]
                changed[k][index] *= 1 + 1e-10
                assert worst_error(Flow(*changed), part.sde, length, values) > TOLERANCE


def test_the_closed_form_alone_loses_digits_at_small_times_and_at_vanishing_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flows, "_MAX_CANCELLATION", np.inf)
    part, values = BUILT_IN["psld-linear:U"], PARAMETER_SETS["gamma = 0"]
    assert worst_error(part.exact(1e-4, values), part.sde, 1e-4, values) > 1e-6
    part, values = BUILT_IN["psld:O"], PARAMETER_SETS["tiny gamma"]
    assert worst_error(part.exact(1.0, values), part.sde, 1.0, values) > 1e-6


def test_the_series_alone_loses_the_entries_that_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_MAX_CANCELLATION", 0.0)
    part, values = BUILT_IN["psld-linear:U"], PARAMETER_SETS["published"]
    assert worst_error(part.exact(10.0, values), part.sde, 10.0, values) > TOLERANCE


def test_an_euler_flow_is_not_mistaken_for_the_exact_one() -> None:
    part, values = BUILT_IN["psld:A"], PARAMETER_SETS["published"]
    assert worst_error(euler_flow(part.sde, 0.03, values), part.sde, 0.03, values) > 1e-6


# --- What every flow must do ------------------------------------------------------------------------------------------


def compose(second: Flow, first: Flow) -> tuple[Flow, Flow]:
    """`first`, then `second`; and the same with absolute values: what the entries are summed from."""

    def product(P2: Any, K2: Any, Q2: Any, P1: Any, K1: Any, Q1: Any) -> Flow:
        return Flow(P2 @ P1, P2 @ K1 + K2, P2 @ Q1 @ P2.T + Q2)

    return product(*second, *first), product(*map(np.abs, second), *map(np.abs, first))


def is_composition(whole: Flow, second: Flow, first: Flow) -> bool:
    composed, sizes = compose(second, first)
    return all(bool(np.all(np.abs(w - c) <= 1e-13 * s)) for w, c, s in zip(whole, composed, sizes, strict=True))


lengths = st.floats(-6, 0.5).map(lambda e: 10.0**e)


@given(st.sampled_from(list(BUILT_IN)), parameters(), lengths, lengths)
def test_a_flow_over_a_sum_of_times_is_the_flow_after_the_flow(
    name: str, params: Parameters, first: float, second: float
) -> None:
    def exact(length: float) -> Flow:
        return BUILT_IN[name].exact(length, params.values())

    assert is_composition(exact(first + second), exact(second), exact(first))
    assert is_composition(exact(first).then(exact(second)), exact(second), exact(first))


@pytest.mark.parametrize("name", BUILT_IN, ids=part_id)
def test_a_flow_over_another_time_is_not_the_composition(name: str) -> None:
    flow = BUILT_IN[name].exact([0.1, 0.2, 0.200001], PARAMETER_SETS["generic"])
    assert is_composition(at(flow, 1), at(flow, 0), at(flow, 0))
    assert not is_composition(at(flow, 2), at(flow, 0), at(flow, 0))


def test_flows_compose_in_symbols_as_in_numbers() -> None:
    """O, then A: they do not commute, so the order is seen."""
    first, second = BUILT_IN["psld:O"].exact, BUILT_IN["psld:A"].exact
    values = PARAMETER_SETS["generic"]
    numbers = {theta: 0.3, gamma: values["gamma"], nu: values["nu"]}
    composed = Flow(
        *(np.array(entry.subs(numbers).tolist(), dtype=float) for entry in first.matrices.then(second.matrices))
    )
    assert is_composition(composed, second(0.3, values), first(0.3, values))
    assert not is_composition(composed, first(0.3, values), second(0.3, values))


def test_euler_flows_do_not_compose() -> None:
    def euler(length: float) -> Flow:
        return euler_flow(BUILT_IN["psld-whole:F"].sde, length, PARAMETER_SETS["published"])

    assert not is_composition(euler(0.2), euler(0.1), euler(0.1))


@pytest.mark.parametrize("name", BUILT_IN, ids=part_id)
def test_only_the_ornstein_uhlenbeck_parts_preserve_the_prior(name: str) -> None:
    """Of the parts that move at all with the score at 0; the kick of Langevin dynamics is its score alone."""
    P, _, Q = BUILT_IN[name].exact.matrices
    prior = sp.diag(1, M)
    change = (P * prior * P.T + Q - prior).applyfunc(sp.simplify)
    assert is_zero(change) is (name in {"psld:O", "psld-linear:U", "langevin:O", "langevin:B"})


def preserves_the_prior(flow: Flow, M: float) -> bool:
    P, _, Q = flow
    prior = np.diag([1.0, M])
    size = np.abs(P) @ prior @ np.abs(P.T) + np.abs(Q) + np.sqrt(np.outer([1, M], [1, M]))
    return bool(np.all(np.abs(P @ prior @ P.T + Q - prior) <= 1e-13 * size))


@given(parameters(), lengths)
def test_ornstein_uhlenbeck_parts_preserve_the_prior_in_numbers(params: Parameters, length: float) -> None:
    for name in ("psld:O", "psld-linear:U", "langevin:O"):
        assert preserves_the_prior(BUILT_IN[name].exact(length, params.values()), params.M)
    assert not preserves_the_prior(BUILT_IN["psld-whole:F"].exact(length, params.values()), params.M)
    assert not preserves_the_prior(euler_flow(BUILT_IN["psld:O"].sde, max(length, 0.01), params.values()), params.M)


def is_covariance(Q: NDArray[np.float64]) -> bool:
    """Symmetric and positive semi-definite, up to rounding."""
    symmetric = abs(Q[0, 1] - Q[1, 0]) <= 1e-14 * np.sqrt(abs(Q[0, 0] * Q[1, 1]))
    return bool(symmetric and min(Q[0, 0], Q[1, 1]) >= 0 and Q[0, 1] ** 2 <= Q[0, 0] * Q[1, 1] * (1 + 1e-12))


@given(st.sampled_from(list(BUILT_IN)), parameters(), st.floats(-12, 1).map(lambda e: 10.0**e))
def test_the_noise_covariance_is_symmetric_and_positive_semidefinite(
    name: str, params: Parameters, length: float
) -> None:
    part = BUILT_IN[name]
    flow = part.exact(length, params.values())
    assert is_covariance(flow.noise_cov)
    assert flow.noise_cov.any() == part.sde.numbers(params.values())[2].any()
    assert not is_covariance(flow.noise_cov + [[0.0, 1.0], [1.0, 0.0]] @ flow.propagator - 1e3 * np.eye(2))


def second_order_bound(sde: LinearSDE, length: float, values: Mapping[str, float]) -> list[float]:
    """What the Taylor series of P, K and Q leave after their linear terms, at most, in the maximum norm."""
    A, G, D = (np.abs(matrix).sum(-1).max() for matrix in sde.numbers(values))
    AT = np.abs(sde.numbers(values)[0]).sum(-2).max()
    growth = length**2 / 2 * np.exp((A + AT) * length)
    return [A**2 * growth, A * G * growth, (A + AT) * D * growth]


def is_first_order_limit(flow: Flow, sde: LinearSDE, length: float, values: Mapping[str, float]) -> bool:
    euler = euler_flow(sde, length, values)
    bounds = second_order_bound(sde, length, values)
    return all(
        bool(np.all(np.abs(a - b) <= bound + 4e-16 * np.maximum(np.abs(a), np.abs(b))))
        for a, b, bound in zip(flow, euler, bounds, strict=True)
    )


@given(st.sampled_from(list(BUILT_IN)), parameters(), st.floats(-7, -1).map(lambda e: 10.0**e))
def test_the_exact_flow_tends_to_the_euler_flow_at_second_order(name: str, params: Parameters, length: float) -> None:
    sde, values = BUILT_IN[name].sde, params.values()
    assert is_first_order_limit(exact_flow(sde)(length, values), sde, length, values)


@pytest.mark.parametrize("name", BUILT_IN, ids=part_id)
def test_a_flow_over_a_slightly_longer_time_has_another_limit(name: str) -> None:
    sde, values = BUILT_IN[name].sde, PARAMETER_SETS["generic"]
    assert is_first_order_limit(exact_flow(sde)(1e-6, values), sde, 1e-6, values)
    assert not is_first_order_limit(exact_flow(sde)(1.001e-6, values), sde, 1e-6, values)


def test_the_euler_flow_of_the_papers_position_part_is_the_published_update() -> None:
    """arXiv 2402.07211: x <- x + h beta/2 (2 Gamma x - M^-1 m + 2 Gamma s_x)."""
    g, n, length = 0.3, 4.1, 0.125
    P, K, Q = euler_flow(BUILT_IN["psld:A"].sde, length, {"gamma": g, "nu": n, "kappa": 0.04})
    M_inverse = (g - n) ** 2 / 4
    np.testing.assert_allclose(P, [[1 + length * g, -length * M_inverse / 2], [0, 1]], rtol=1e-15)
    np.testing.assert_allclose(K, [[length * g, 0], [0, 0]], rtol=1e-15)
    assert not Q.any()


@given(st.sampled_from(list(BUILT_IN)), parameters(), lengths)
def test_the_euler_flow_is_linear_in_time(name: str, params: Parameters, length: float) -> None:
    sde = BUILT_IN[name].sde
    A, G, D = sde.numbers(params.values())
    P, K, Q = euler_flow(sde, length, params.values())
    np.testing.assert_array_equal(P, np.eye(2) + A * length)
    np.testing.assert_array_equal(K, G * length)
    np.testing.assert_array_equal(Q, D * length)
    numbers = {theta: length, **dict(zip(PARAMETERS, params.values().values(), strict=True))}
    for symbolic, numeric in zip(euler_matrices(sde), (P, K, Q), strict=True):
        entries = np.array(symbolic.subs(numbers).tolist(), dtype=float)
        np.testing.assert_allclose(entries, numeric, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", BUILT_IN, ids=part_id)
@pytest.mark.parametrize("kind", ["exact", "euler"])
def test_no_time_is_the_identity(name: str, kind: str) -> None:
    P, K, Q = BUILT_IN[name].flow(kind, 0.0, Parameters(gamma=0.0, nu=3.0))
    np.testing.assert_array_equal(P, np.eye(2))
    assert not K.any()
    assert not Q.any()


@pytest.mark.parametrize("kind", ["exact", "euler"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_a_flow_broadcasts_over_times_of_any_shape(kind: str, shape: tuple[int, ...]) -> None:
    part, params = BUILT_IN["psld-whole:F"], Parameters()
    times = np.logspace(-8, 1, int(np.prod(shape))).reshape(shape)
    flow = part.flow(kind, times, params)
    assert [matrix.shape for matrix in flow] == [(*shape, 2, 2)] * 3
    assert all(matrix.dtype == np.float64 for matrix in flow)
    for index in np.ndindex(shape):
        for batched, single in zip(flow, part.flow(kind, times[index], params), strict=True):
            np.testing.assert_allclose(batched[index], single, rtol=1e-13, atol=0)


def test_a_part_without_score_has_an_exact_flow_whatever_the_kind() -> None:
    params = Parameters()
    for kind in ("exact", "euler", "true"):
        for flow, exact in zip(
            BUILT_IN["psld:O"].flow(kind, 0.3, params), BUILT_IN["psld:O"].exact(0.3, params.values()), strict=True
        ):
            np.testing.assert_array_equal(flow, exact)
    with pytest.raises(ValueError, match=r"sub-flow 'true' of part A has no frozen score.*'exact' and 'euler'"):
        BUILT_IN["psld:A"].flow("true", 0.3, params)


def test_the_series_follows_any_matrix_however_stiff() -> None:
    A = np.array([[[-40.0, 3.0], [0.0, -1e-3]], [[0.0, 7.0], [-7.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    D = np.array([[2.0, 0.5], [0.5, 1.0]])
    for length in (1e-9, 0.1, 3.0):
        for a, E, Phi, Q in zip(A, *linear_flow(A, D, length), strict=True):
            with mp.workdps(50):
                block = mp.zeros(4)
                block[:2, :2], block[:2, 2:], block[2:, 2:] = mp.matrix(-a), mp.matrix(D), mp.matrix(a.T)
                P = mp.expm(mp.matrix(a) * length)
                exponential = mp.expm(block * length)  # Van Loan: [[., N], [0, exp(A^T t)]], Q = exp(A t) N
                expected = P * exponential[:2, 2:]
                np.testing.assert_allclose(Q, np.array(expected.tolist(), float), rtol=1e-12, atol=1e-13 * Q.max())
                growth = np.array((P - mp.eye(2)).tolist(), float)
                np.testing.assert_allclose(E, growth, rtol=1e-12, atol=1e-13 * np.abs(E).max())
                np.testing.assert_allclose(a @ Phi, E, rtol=1e-12, atol=1e-12 * np.abs(E).max())


# --- The cache on disk ------------------------------------------------------------------------------------------------

Counter = list[LinearSDE]


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """The derivations that were not read from a cache, as they happen; nothing is shipped."""
    monkeypatch.setattr(shipped, "known", lambda _: None)
    done: Counter = []
    derive = flow_proof.derive

    def counting(sde: LinearSDE) -> Any:
        done.append(sde)
        return derive(sde)

    monkeypatch.setattr(flow_proof, "derive", counting)
    return done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that does not exist yet, and nothing shipped."""
    monkeypatch.setattr(shipped, "known", lambda _: None)
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def uncached_flow(sde: LinearSDE) -> ExactFlow:
    """As in a new process: the disk is asked, not the memory."""
    return exact_flow.__wrapped__(sde)


SDE = BUILT_IN["psld:O"].sde


def test_a_flow_is_derived_once_and_then_read_from_disk(folder: Path, derivations: Counter) -> None:
    first = uncached_flow(SDE)
    assert derivations == [SDE]
    assert [file.suffix for file in folder.iterdir()] == [".json"]
    second = uncached_flow(SDE)
    assert derivations == [SDE]
    assert second == first
    assert second.matrices == first.matrices


def test_within_a_process_a_flow_is_one_value() -> None:
    assert exact_flow(SDE) is exact_flow(LinearSDE(SDE.drift, SDE.diffusion))
    assert exact_flow(SDE) is not exact_flow(BUILT_IN["langevin:O"].sde)


def test_another_sde_is_another_entry(folder: Path, derivations: Counter) -> None:
    uncached_flow(SDE)
    other = uncached_flow(LinearSDE(SDE.drift))
    assert len(derivations) == 2
    assert len(list(folder.iterdir())) == 2
    assert is_zero(other.matrices[2])


@pytest.mark.parametrize("content", [b"", b"[[[", b"\xff\xfe", b"\0" * 64], ids=["empty", "cut", "not text", "zeros"])
def test_a_corrupted_entry_is_derived_again_and_mended(folder: Path, derivations: Counter, content: bytes) -> None:
    first = uncached_flow(SDE)
    (entry,) = folder.iterdir()
    entry.write_bytes(content)
    assert uncached_flow(SDE) == first
    assert len(derivations) == 2
    assert uncached_flow(SDE) == first
    assert len(derivations) == 2


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, derivations: Counter
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(file / "cache"))
    assert uncached_flow(SDE) == uncached_flow(SDE)
    assert len(derivations) == 2
    assert file.read_text() == "not a folder"


def test_an_answer_is_valid_for_one_question_one_version_of_the_code_and_one_of_sympy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cached(("a",), lambda: 1) == 1
    assert cached(("a",), lambda: 2) == 1
    assert cached(("b",), lambda: 3) == 3
    assert cached(("a", "b"), lambda: 4) == 4
    with monkeypatch.context() as other:
        other.setattr(cache, "_code", lambda: "another text")
        assert cached(("a",), lambda: 5) == 5
    with monkeypatch.context() as other:
        other.setattr(cache, "_sympy", lambda: "another")
        assert cached(("a",), lambda: 6) == 6
    assert cached(("a",), lambda: 7) == 1
    assert len(list(folder.iterdir())) == 5


def test_what_cannot_be_derived_raises_and_leaves_no_entry(folder: Path) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached(("fails",), fails)
    assert not folder.exists() or not list(folder.iterdir())
