"""What parts hold: the four readings of the network's answer, and which schemes may hold what, for how long."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.frozen import (
    DATA_HELD,
    EPS_HELD,
    FROZEN,
    RESIDUAL_HELD,
    SCORE_HELD,
    Frozen,
    NumericKernel,
    find_frozen,
    inverse,
)
from weakorder.theory.kernel import kernel, lower_cholesky
from weakorder.theory.model import PSLD_DIFFUSION, STATIONARY, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_LINEAR, PSLD_WHOLE, SPLITTINGS
from weakorder.theory.step_map import step_map
from weakorder.theory.symbols import gamma, kappa, nu, theta

PARAMS = Parameters(gamma=0.3, nu=1.7, kappa=0.2)
THETAS = np.array([0.02, 0.5, 3.0])
KERNEL = NumericKernel(PSLD_DIFFUSION, THETAS, PARAMS.values())


def test_the_kernel_in_numbers_is_the_one_that_sympy_derives() -> None:
    mean, cov = kernel(PSLD_DIFFUSION)
    symbols = (theta, gamma, nu, kappa)
    for place, length in enumerate(THETAS):
        numbers = (float(length), PARAMS.gamma, PARAMS.nu, PARAMS.kappa)
        for derived, found in ((cov, KERNEL.cov), (lower_cholesky(cov), KERNEL.factor)):
            exact = np.array(sp.lambdify(symbols, derived, "mpmath")(*numbers).tolist(), dtype=float)
            np.testing.assert_allclose(found[place], exact, rtol=1e-11)
        position = sp.symbols("mu", real=True)
        moved = np.array(sp.lambdify(symbols, mean.subs(position, 1), "mpmath")(*numbers).tolist(), dtype=float)
        np.testing.assert_allclose(KERNEL.propagator[place, :, 0], moved[:, 0], rtol=1e-12)


def test_data_held_is_the_data_point_that_a_state_was_made_of() -> None:
    """With one data point the score is the kernel's, and its q is (x_0, 0) at every state and time."""
    x_0 = np.array([1.3, 0.0])
    u = np.array([[0.4, -0.2], [1.5, 0.3], [-2.0, 0.1]])
    score = -np.einsum("nij,nj->ni", inverse(KERNEL.cov), u - KERNEL.propagator @ x_0)
    q = _held(DATA_HELD, u, score)
    np.testing.assert_allclose(q, np.broadcast_to(x_0, q.shape), atol=1e-11)


def test_eps_held_is_what_the_network_predicts() -> None:
    eps = np.array([[0.3, -1.2], [0.5, 2.0], [0.0, 1.0]])
    score = -np.linalg.solve(np.swapaxes(KERNEL.factor, -1, -2), eps[..., None])[..., 0]
    np.testing.assert_allclose(_held(EPS_HELD, np.zeros((3, 2)), score), eps, atol=1e-12)


def test_the_residual_vanishes_at_the_prior_and_the_score_is_itself() -> None:
    u = np.array([[0.4, -0.2], [1.5, 0.3], [-2.0, 0.1]])
    prior = -u / np.array([1.0, PARAMS.M])
    np.testing.assert_allclose(_held(RESIDUAL_HELD, u, prior), np.zeros((3, 2)), atol=1e-14)
    np.testing.assert_array_equal(_held(SCORE_HELD, u, prior), prior)


def _held(frozen: Frozen, u: np.ndarray, score: np.ndarray) -> np.ndarray:
    phi, psi = frozen.phi(KERNEL), frozen.psi(KERNEL)
    return (inverse(psi) @ (score[..., None] - phi @ u[..., None]))[..., 0]


@pytest.mark.parametrize("name", FROZEN)
def test_a_kind_is_found_by_name_and_survives_a_pickle(name: str) -> None:
    assert find_frozen(name) is FROZEN[name]
    assert pickle.loads(pickle.dumps(FROZEN[name])) is FROZEN[name]


def test_kinds_of_one_name_and_other_matrices_have_other_fingerprints() -> None:
    other = Frozen("data", DATA_HELD.phi, lambda k: inverse(k.cov))
    assert other != DATA_HELD
    assert other.fingerprint(PSLD_DIFFUSION) != DATA_HELD.fingerprint(PSLD_DIFFUSION)


SF = Scheme("S F", PSLD_WHOLE, flow="exact")


@pytest.mark.parametrize(
    ("scheme", "changes", "message"),
    [
        (SF, {"memory": 0}, "memory 0 is no number of evaluations"),
        (SF, {"memory": 5}, "an integer from 1 to 4"),
        (SF, {"memory": True}, "memory True"),
        (SF, {"frozen": "data"}, r"give a theory.frozen.Frozen, such as theory.frozen.FROZEN\['data'\]"),
        (SF, {"flow": "euler", "frozen": DATA_HELD}, "frozen 'data' under flow 'euler'"),
        (SF, {"flow": "true", "frozen": EPS_HELD}, "frozen 'eps' under flow 'true'"),
        (SF, {"flow": "midpoint", "memory": 2}, "memory 2 under flow 'midpoint'"),
        (Scheme("S B S A O", PSLD, flow="exact"), {"memory": 2}, r"evaluates the score twice at tau \+ 0 h"),
        (Scheme("S B A S@1 O", PSLD, flow="exact"), {"memory": 2}, r"twice at tau \+ 0 h"),
        (Scheme("S U S@1/2 E", PSLD_LINEAR, flow="exact"), {"memory": 4}, None),
        (Scheme("S@1/2 U S@1/4 E", PSLD_LINEAR, flow="exact"), {"memory": 3}, None),
        (Scheme("S U S@1/2 E S@1/2", PSLD_LINEAR, flow="exact"), {"memory": 2}, r"twice at tau \+ 1/2 h"),
        (Scheme("U", PSLD_LINEAR), {"memory": 2}, "evaluates no score to remember"),
        (Scheme("O S B A", PSLD), {"memory": 2}, "'B' of 'O S B A' must stand directly behind S"),
        (Scheme("U(1/2) S E U(1/2)", PSLD_LINEAR), {"memory": 2}, None),
        (Scheme("S B A", LANGEVIN, flow="exact"), {"frozen": DATA_HELD}, "frozen 'data' has no 2x2 Phi"),
        (Scheme("S B A", LANGEVIN, flow="exact"), {"frozen": RESIDUAL_HELD}, None),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(scheme: Scheme, changes: dict, message: str | None) -> None:
    if message is None:
        replace(scheme, **changes)
        return
    with pytest.raises(ValueError, match=message) as raised:
        replace(scheme, **changes)
    assert "\n" not in str(raised.value)


def test_titles_and_keys_name_what_is_held_and_leave_plain_schemes_as_they_were() -> None:
    held = replace(SF, frozen=DATA_HELD, memory=2)
    assert (SF.sub_flows, SF.held, SF.held_key) == ("exact sub-flows", "", [])
    assert held.sub_flows == "exact sub-flows, data held, memory 2"
    assert held.held_key != replace(held, memory=3).held_key != replace(held, frozen=EPS_HELD).held_key
    assert all(scheme.holds_score for scheme in CATALOGUE.values())
    assert not held.holds_score
    assert not replace(SF, memory=2).holds_score


def test_a_kind_is_made_of_a_kernel_that_exists() -> None:
    for splitting in SPLITTINGS.values():
        if splitting.diffusion != STATIONARY:
            for frozen in FROZEN.values():
                frozen.check(splitting.diffusion)
    with pytest.raises(ValueError, match="invertible Psi under 'psld'"):
        Frozen("nothing", lambda k: k.zero, lambda k: k.zero).check(PSLD_DIFFUSION)
    with pytest.raises(ValueError, match="is no name"):
        Frozen("", SCORE_HELD.phi, SCORE_HELD.psi)


@pytest.mark.parametrize("held", [replace(SF, frozen=DATA_HELD), replace(SF, memory=2)], ids=str)
def test_a_step_that_depends_on_when_it_is_has_no_map_in_closed_form(held: Scheme) -> None:
    with pytest.raises(ValueError, match="S F") as raised:
        step_map(held)
    assert "\n" not in str(raised.value)
