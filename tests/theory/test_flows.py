"""Derived flows: proven by substitution, evaluated to the last digits wherever a rate or a time vanishes.

The second source is mpmath: exponentials of block matrices in 80 digits (Van Loan 1978; of three components a
covariance begins at theta^5, 1e-60), which know none of the derived formulas. The error allowed in an entry f(theta) is

    1e-12 (|f| + |theta f'|),

what a relative change of theta by 1e-12 makes of it. For an entry of one sign that is 1e-12 relative, times the
logarithmic slope for one that grows or decays exponentially; at a sign change the second term alone is left, as it
must be, since no float64 theta is closer to a zero of f than that. (One exception, said where it is made.)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from flow_parts import BUILT_IN, DECLARED, PARAMETER_SETS, PARTS, at, is_zero, part_id
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from selection import nightly_but
from strategies import parameters
from sympy import Matrix
from weakorder.theory import flows
from weakorder.theory.flow_proof import residuals
from weakorder.theory.flows import Flow, euler_flow
from weakorder.theory.model import PARAMETERS, LinearSDE, Parameters, gamma, nu, theta

LENGTHS = np.array([1e-12, 1e-6, 1e-3, 0.03, 0.3, 1.0, 1.7, 4.0, 10.0])

TOLERANCE = 1e-12


@functools.cache
def _compiled(sde: LinearSDE) -> Callable[..., Any]:
    return sp.lambdify(PARAMETERS, [e.tolist() for e in (sde.matrix, sde.score_gain, sde.noise)], "mpmath")


@functools.lru_cache(maxsize=64)
def reference_flow(sde: LinearSDE, length: float, values: tuple[tuple[str, float], ...]) -> list[tuple[Any, Any]]:
    """(f, theta f') for each of P, K and Q, as mpmath matrices, from exponentials of block matrices; in 80 digits."""
    A, G, D = map(mp.matrix, _compiled(sde)(**{name: mp.mpf(value) for name, value in values}))
    time = mp.mpf(length)
    n = sde.size
    affine = mp.zeros(2 * n)  # (u, s)' = [[A, G], [0, 0]] (u, s)
    affine[:n, :n], affine[:n, n:] = A * time, G * time
    exponential = mp.expm(affine)
    P, K = exponential[:n, :n], exponential[:n, n:]
    lyapunov = mp.zeros(n * n + 1)  # (vec Q, 1)' = [[A x 1 + 1 x A, vec D], [0, 0]] (vec Q, 1)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                lyapunov[n * i + j, n * k + j] += A[i, k] * time
                lyapunov[n * i + j, n * i + k] += A[j, k] * time
            lyapunov[n * i + j, n * n] = D[i, j] * time
    column = mp.expm(lyapunov)[:, n * n]
    Q = mp.matrix(n, n)
    for i in range(n):
        for j in range(n):
            Q[i, j] = column[n * i + j]
    slopes = (A * P, A * K + G, A * Q + Q * A.T + D)
    return [(value, slope * time) for value, slope in zip((P, K, Q), slopes, strict=True)]


def worst_error(
    flow: Flow, sde: LinearSDE, length: float, values: Mapping[str, float], *, as_correlation: bool = False
) -> float:
    """The largest error of an entry, in units of |f| + |theta f'|; infinite where a 0 is not 0.

    as_correlation: the unit of a covariance is the geometric mean of its two variances.
    """
    worst = 0.0
    with mp.workdps(80):
        reference = reference_flow(sde, float(length), tuple(values.items()))
        for matrix, (got, (value, slope)) in enumerate(zip(flow, reference, strict=True)):
            for i in range(sde.size):
                for j in range(sde.size):
                    error = abs(mp.mpf(float(got[i, j])) - value[i, j])
                    scale = abs(value[i, j]) + abs(slope[i, j])
                    if as_correlation and matrix == 2 and i != j:
                        scale = mp.sqrt(value[i, i] * value[j, j])
                    if not mpmath.isfinite(error):
                        return float("inf")
                    if error > 0:
                        worst = max(worst, float(error / scale) if scale > 0 else float("inf"))
    return worst


# --- Proofs -----------------------------------------------------------------------------------------------------------


# Of the declared parts, these run always: rates that are imaginary, that may be equal, that have either sign. The
# others' derivations and proofs take seconds each.
OFTEN = ("psld:O", "psld:A", "psld-linear:E", "langevin:A")
ALWAYS = {*OFTEN, "psld-whole:F", "vp-whole:F", "rotation", "one-way coupling, no noise", "saddle"}


@pytest.mark.parametrize("name", nightly_but(ALWAYS.__contains__, PARTS), ids=part_id)
def test_the_derived_flow_solves_its_equations_exactly(name: str) -> None:
    left_over = residuals(PARTS[name].sde, *PARTS[name].exact.matrices)
    assert len(left_over) == 6
    assert all(map(is_zero, left_over))


@pytest.mark.parametrize("name", nightly_but(OFTEN.__contains__, BUILT_IN), ids=part_id)
@pytest.mark.parametrize("broken", [0, 1, 2], ids=["propagator", "score_gain", "noise_cov"])
def test_a_broken_flow_leaves_a_residual_in_its_own_equation(name: str, broken: int) -> None:
    matrices = list(BUILT_IN[name].exact.matrices)
    unit = sp.eye(BUILT_IN[name].sde.size)
    matrices[broken] = matrices[broken] + (1 + theta) * unit
    left_over = residuals(BUILT_IN[name].sde, *matrices)
    assert [i for i, residual in enumerate(left_over) if not is_zero(residual)] == [2 * broken, 2 * broken + 1]
    assert left_over[2 * broken + 1] == unit


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
    nightly_but(
        lambda case: (case[1] == "published" and case[0] in ALWAYS) or case == ("psld-linear:E", "gamma close to nu"),
        [
            *itertools.product(BUILT_IN, PARAMETER_SETS),
            *itertools.product(DECLARED, ("published", "gamma = 0", "gamma close to nu")),
        ],
    ),
    ids=part_id,
)
def test_the_flow_in_float64_agrees_with_block_exponentials_in_80_digits(name: str, values: str) -> None:
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
