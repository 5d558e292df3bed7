"""What every derived flow must do: compose, preserve what is stationary, tend to Euler's, broadcast, stay accurate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import sympy as sp
from flow_parts import BUILT_IN, PARAMETER_SETS, at, is_zero, part_id
from hypothesis import example, given
from hypothesis import strategies as st
from mpmath import mp
from numpy.typing import NDArray
from strategies import parameters
from weakorder.theory.flow_proof import euler_matrices
from weakorder.theory.flows import Flow, euler_flow, exact_flow, linear_flow
from weakorder.theory.model import PARAMETERS, LinearSDE, M, Parameters, gamma, nu, theta


def compose(second: Flow, first: Flow) -> tuple[Flow, Flow]:
    """`first`, then `second`; and the same with absolute values: what the entries are summed from."""

    def product(P2: Any, K2: Any, Q2: Any, P1: Any, K1: Any, Q1: Any) -> Flow:
        return Flow(P2 @ P1, P2 @ K1 + K2, P2 @ Q1 @ P2.T + Q2)

    return product(*second, *first), product(*map(np.abs, second), *map(np.abs, first))


def is_composition(whole: Flow, second: Flow, first: Flow, moved: Flow | None = None) -> bool:
    """moved: the whole flow's derivative by the logarithm of its time. The time, its power, its product with a rate and
    the exponential are each rounded; where an entry passes through 0 that is all that is left of it."""
    composed, sizes = compose(second, first)
    roundings = [0.0, 0.0, 0.0] if moved is None else [4 * np.finfo(float).eps * np.abs(entry) for entry in moved]
    return all(
        bool(np.all(np.abs(w - c) <= 1e-13 * s + r))
        for w, c, s, r in zip(whole, composed, sizes, roundings, strict=True)
    )


lengths = st.floats(-6, 0.5).map(lambda e: 10.0**e)


# At theta = 1 + 1e-3 the momentum's own propagator has just passed through 0.
@example("psld-linear:U", Parameters(gamma=0.0, nu=4.0), 1.0, 1e-3)
@given(st.sampled_from(list(BUILT_IN)), parameters(), lengths, lengths)
def test_a_flow_over_a_sum_of_times_is_the_flow_after_the_flow(
    name: str, params: Parameters, first: float, second: float
) -> None:
    def exact(length: float) -> Flow:
        return BUILT_IN[name].exact(length, params.values())

    whole, later = (exact((first + second) * stretch) for stretch in (1, 1 + 1e-6))
    moved = Flow(*((b - a) / 1e-6 for a, b in zip(whole, later, strict=True)))
    assert is_composition(whole, exact(second), exact(first), moved)
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
    prior = sp.diag(1, M)[: P.rows, : P.rows]
    change = (P * prior * P.T + Q - prior).applyfunc(sp.simplify)
    assert is_zero(change) is (name in {"psld:O", "psld-linear:U", "langevin:O", "langevin:B", "vp-linear:U"})


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
    if Q.shape == (1, 1):
        return bool(Q[0, 0] >= 0)
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
    unit = np.eye(part.sde.size)
    size = 1 + sum(np.abs(entry).max() for entry in (flow.noise_cov, flow.propagator))
    assert not is_covariance(flow.noise_cov + unit[::-1] @ flow.propagator - 2 * size * unit)


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
    np.testing.assert_array_equal(P, np.eye(sde.size) + A * length)
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
    np.testing.assert_array_equal(P, np.eye(BUILT_IN[name].sde.size))
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
