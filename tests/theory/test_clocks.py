"""The clocks of a memory's polynomial: their tables, what they are, and orders for every one of them."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from held_by_hand import told
from selection import nightly_but
from specimens import whole
from weakorder.theory import held_flows, weak_order
from weakorder.theory.calculus import Calculus
from weakorder.theory.clock import CLOCKS, LOGSNR, RHO, THETA, TIME, Clock, find_clock
from weakorder.theory.frozen import DATA_HELD, EPS_HELD, SCORE_HELD, Frozen
from weakorder.theory.held_flows import extrapolated_flow, held_flow
from weakorder.theory.local_error import first_error, holds_for_any_steps
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.polynomials import ONE
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD_FLOW_WHOLE, PSLD_WHOLE, VP_FLOW, VP_WHOLE, Splitting
from weakorder.theory.weak_order import prove_order

VP_DIFFUSION = VP_WHOLE.diffusion
VP = VP_DIFFUSION.parameters()
PSLD = Parameters(gamma=0.8, nu=3.0, kappa=0.3, beta_min=1.0, beta_max=6.0)

# --- Tables, against thirty digits ------------------------------------------------------------------------------------
# In position alone with beta from 0.1 to 20. The last evaluations of steps of unequal lengths in t, from the prior, in
# the middle, a long one, and near the data.

RUNS = [(1.0, 0.99, 0.97), (0.52, 0.5, 0.47), (0.9, 0.8, 0.3), (0.03, 0.02, 0.002)]
SHOWN = {
    "theta": lambda t: _theta(t),
    "t": lambda t: t,
    "logsnr": lambda t: mp.log(_alpha(t) / _sigma(t)),
    "rho": lambda t: _sigma(t) / _alpha(t),
}
# What a part makes of q: (p, factor at the end) of factor int q d(alpha / sigma)^p. x_t / alpha_t moves by eps times
# d(sigma / alpha), x_t / sigma_t by the data times d(alpha / sigma), and on the SDE alpha x / sigma^2 by those of the
# square.
HELD: dict[tuple[Splitting, Frozen], Any] = {
    (VP_FLOW, EPS_HELD): (-1, lambda t: _alpha(t)),
    (VP_FLOW, DATA_HELD): (1, lambda t: _sigma(t)),
    (VP_WHOLE, DATA_HELD): (2, lambda t: _sigma(t) ** 2 / _alpha(t)),
}


def _theta(t: Any) -> Any:
    return mp.mpf("0.1") * t + mp.mpf("19.9") * t * t / 2


def _alpha(t: Any) -> Any:
    return mp.exp(-_theta(t) / 2)


def _sigma(t: Any) -> Any:
    return mp.sqrt(-mp.expm1(-_theta(t)))


def _moves(power: int, t: Any) -> Any:
    """d(alpha / sigma)^power / dt, as d log(alpha / sigma) = -dtheta / (2 sigma^2)."""
    beta = mp.mpf("0.1") + mp.mpf("19.9") * t
    return -power * (_alpha(t) / _sigma(t)) ** power * beta / (2 * _sigma(t) ** 2)


def gains_by_hand(case: tuple[Splitting, Frozen], clock: Clock, run: tuple[float, ...]) -> list[float]:
    """The gains of the evaluations at run[1] and run[0] in the step from run[1] to run[2]."""
    before, begin, end = (mp.mpf(t) for t in run)
    shown, (power, factor) = SHOWN[clock.name], HELD[case]
    middle = (shown(begin) + shown(end)) / 2

    def weight(own: Any, other: Any) -> float:
        def integrand(t: Any) -> Any:
            c = middle if clock.midpoint else shown(t)
            return _moves(power, t) * (c - shown(other)) / (shown(own) - shown(other))

        return float(factor(end) * mp.quad(integrand, mp.linspace(begin, end, 5)))

    with mp.workdps(30):
        return [weight(begin, before), weight(before, begin)]


def gains(case: tuple[Splitting, Frozen], clock: Clock, run: tuple[float, ...]) -> np.ndarray:
    """The same, of the tables."""
    before, begin, end = np.array(run)[:, None]
    times = np.stack([np.zeros(1), -VP.theta(before, before - begin)], axis=1)
    splitting, frozen = case
    return held_flow(
        splitting["F"].sde,
        frozen,
        VP_DIFFUSION,
        VP.theta(begin, begin),
        VP.theta(begin, begin - end),
        times,
        VP.values(),
        clock.running(VP_DIFFUSION, VP),
    ).gains[0, :, 0, 0]


TABLES = list(itertools.product(HELD, CLOCKS.values(), RUNS))


@pytest.mark.parametrize(
    ("case", "clock", "run"),
    nightly_but(lambda case: TABLES.index(case) % 14 == 0, TABLES),
    ids=lambda value: str(value) if isinstance(value, Clock) else None,
)
def test_gains_are_right_to_1e_13(case: tuple[Splitting, Frozen], clock: Clock, run: tuple[float, ...]) -> None:
    expected = np.array(gains_by_hand(case, clock, run))
    assert np.abs(gains(case, clock, run) - expected).max() <= 1e-13 * np.abs(expected).max()


@pytest.mark.parametrize("run", RUNS)
def test_gains_are_the_clocks_own(run: tuple[float, ...]) -> None:
    """Claim: clocks, and the middle of one, differ far above the tolerance, the more the longer a step is."""
    found = {name: gains((VP_FLOW, DATA_HELD), clock, run) for name, clock in CLOCKS.items()}
    for first, second in itertools.combinations(found.values(), 2):
        assert np.abs(first - second).max() > 1e-6 * np.abs(first).max()


def _stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old evaluations are told by the rate at the step's beginning."""
    right = held_flows._told
    monkeypatch.setattr(
        held_flows,
        "_told",
        lambda clock, begin, times, panels: clock.rate(begin)[:, None] * times + 0 * right(clock, begin, times, panels),
    )


def _panel_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are told as if each panel began where it ends."""
    monkeypatch.setattr(held_flows, "_TO_END", np.zeros_like(held_flows._TO_END))


def _whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value at the end is held for that in the middle."""
    right = held_flows.lagrange
    monkeypatch.setattr(held_flows, "lagrange", lambda times, r: right(times, 2 * r if r.shape[1] == 1 else r))


@pytest.mark.parametrize(
    ("mutate", "clock"),
    nightly_but(
        lambda case: case[0] is _stopped, [(_stopped, LOGSNR), (_panel_late, LOGSNR), (_whole, LOGSNR.at_midpoint)]
    ),
)
def test_thirty_digits_kill_a_table_that_is_wrong_in_one_thing(
    mutate: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_gains_are_right_to_1e_13((VP_FLOW, DATA_HELD), clock, RUNS[2])
    mutate(monkeypatch)
    with pytest.raises((AssertionError, ValueError)):  # what does not settle is refused
        test_gains_are_right_to_1e_13((VP_FLOW, DATA_HELD), clock, RUNS[2])


def published_2m(case: tuple[Splitting, Frozen], run: tuple[float, ...], solver: str) -> list[float]:
    """The weights of x_0 or eps now and before in DPM-Solver(++)'s second-order updates (2211.01095, equations 8 and
    14, in the notation of its code), midpoint or heun."""
    before, begin, end = (mp.mpf(t) for t in run)
    lam = SHOWN["logsnr"]
    h, r0 = lam(end) - lam(begin), (lam(begin) - lam(before)) / (lam(end) - lam(begin))
    if case == (VP_FLOW, DATA_HELD):
        first = -_alpha(end) * mp.expm1(-h)
        second = first / 2 if solver == "midpoint" else _alpha(end) * (mp.expm1(-h) / h + 1)
    elif case == (VP_FLOW, EPS_HELD):
        first = -_sigma(end) * mp.expm1(h)
        second = first / 2 if solver == "midpoint" else -_sigma(end) * (mp.expm1(h) / h - 1)
    else:
        first = -_alpha(end) * mp.expm1(-2 * h)
        second = first / 2 if solver == "midpoint" else _alpha(end) * (mp.expm1(-2 * h) / (2 * h) + 1)
    return [float(first + second / r0), float(-second / r0)]


@pytest.mark.parametrize("case", HELD, ids=lambda case: f"{case[0].name}, {case[1]}")
@pytest.mark.parametrize(("solver", "clock"), [("midpoint", LOGSNR.at_midpoint), ("heun", LOGSNR)])
def test_dpm_solver_2m_takes_log_snr_and_its_middle_or_all_of_the_polynomial(
    case: tuple[Splitting, Frozen], solver: str, clock: Clock
) -> None:
    """Claim: its published weights, on the flow and the SDE, of data and of eps, are those of one clock, and the other
    use of it is another solver."""
    for run in RUNS:
        expected = np.array(published_2m(case, run, solver))
        assert np.abs(gains(case, clock, run) - expected).max() <= 1e-13 * np.abs(expected).max()
        other = find_clock("logsnr" if clock.midpoint else "logsnr-midpoint")
        assert np.abs(gains(case, other, run) - expected).max() > 1e-6 * np.abs(expected).max()


def test_extrapolated_drifts_follow_the_clock() -> None:
    """Claim: int of (c - c_j) / (c_i - c_j) dtheta with c = t, in closed form."""
    sde, begin, length = PSLD_WHOLE["F"].sde, PSLD.theta(0.7, 0.7), PSLD.theta(0.7, 0.1)
    times = [[0.0, -PSLD.theta(0.75, 0.05)]]
    found = extrapolated_flow(sde, [begin], [length], times, PSLD.values(), TIME.running(PSLD_DIFFUSION, PSLD))
    # t falls by r from 0.7; theta moves by beta dr, and the older evaluation was at r = -0.05
    moment = PSLD.beta(0.7) * 0.1**2 / 2 - 5.0 * 0.1**3 / 3
    np.testing.assert_allclose(found.gains[0, :, 0, 0], [length + moment / 0.05, -moment / 0.05], rtol=1e-13)
    plain = extrapolated_flow(sde, [begin], [length], times, PSLD.values())
    assert np.abs(plain.gains - found.gains).max() > 1e-3


def test_a_clock_that_is_int_beta_changes_nothing() -> None:
    case, run = (VP_WHOLE, DATA_HELD), RUNS[1]
    other = Clock("twice", lambda k: -2.0 * np.ones((*k.theta.shape, 1, 1)))
    np.testing.assert_allclose(gains(case, other, run), gains(case, THETA, run), rtol=1e-14)


# --- What they are ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [THETA, TIME, LOGSNR], ids=str)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_clock_has_the_curvature_of_what_it_shows(clock: Clock, order: int) -> None:
    """Claim: in phase space, to 1e-7, against a polynomial through values from matrix exponentials."""
    scheme = replace(whole(PSLD_WHOLE, memory=2), clock=clock)
    nodes = 0.6 + 0.1 * np.cos((np.arange(15) + 0.5) * np.pi / 15)
    shown = np.polynomial.Polynomial.fit(nodes, [told(scheme, PSLD, 0.6, t) for t in nodes], 14)
    found = clock.curvature(PSLD_DIFFUSION, np.array([0.6, 0.3]), PSLD, order)
    assert len(found) == order - 1
    for k, entry in enumerate(found, 2):
        assert entry[0] == pytest.approx(shown.deriv(k)(0.6) / shown.deriv()(0.6), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", CLOCKS)
def test_a_clock_is_found_by_name_and_survives_a_pickle(name: str) -> None:
    assert str(find_clock(name)) == name
    assert pickle.loads(pickle.dumps(CLOCKS[name])) is CLOCKS[name]


SF = Scheme("S F", PSLD_WHOLE, flow="exact", memory=2)


@pytest.mark.parametrize(
    ("scheme", "changes", "message"),
    [
        (SF, {"clock": "logsnr"}, r"give a theory.clock.Clock, such as theory.clock.CLOCKS\['logsnr'\]"),
        (SF, {"clock": LOGSNR, "memory": 1}, "clock 'logsnr' with memory 1: nothing is extrapolated"),
        (SF, {"clock": RHO}, "clock 'rho' has no rate under 'psld'"),
        (Scheme("S B A", LANGEVIN, flow="exact", memory=2), {"clock": LOGSNR}, "clock 'logsnr' has no rate"),
        (SF, {"clock": Clock("still", lambda _: [[0.0]])}, "clock 'still' has no rate"),
        (SF, {"clock": Clock("turns", lambda k: k.beta * 0 + k.theta[:, None, None] - 4)}, "clock 'turns' has no rate"),
        (SF, {"clock": LOGSNR.at_midpoint}, None),
        (Scheme("S F", VP_WHOLE, flow="exact", memory=2), {"clock": RHO}, None),
    ],
)
def test_what_is_no_clock_is_refused_by_name(scheme: Scheme, changes: dict, message: str | None) -> None:
    if message is None:
        replace(scheme, **changes)
        return
    with pytest.raises(ValueError, match=message) as raised:
        replace(scheme, **changes)
    assert "\n" not in str(raised.value)


def test_bad_names_are_refused() -> None:
    with pytest.raises(ValueError, match="clock 'lambda' is unknown; choose one of theta, theta-midpoint, t,"):
        find_clock("lambda")
    with pytest.raises(ValueError, match="is no name"):
        Clock(" ", THETA.rate)


def test_titles_and_keys_name_the_clock_and_leave_others_as_they_were() -> None:
    clocked = replace(SF, clock=LOGSNR.at_midpoint)
    assert clocked.sub_flows == "exact sub-flows, memory 2, clock logsnr-midpoint"
    assert SF.sub_flows == "exact sub-flows, memory 2"
    keys = [replace(SF, clock=clock).held_key for clock in (THETA, TIME, LOGSNR, LOGSNR.at_midpoint)]
    assert len({str(key) for key in keys}) == 4
    mine = replace(SF, clock=Clock("logsnr", lambda k: k.beta))
    assert mine.held_key != replace(SF, clock=LOGSNR).held_key
    assert replace(clocked, memory=3).remembering(1) == replace(SF, memory=1)
    assert clocked.remembering(3) == replace(clocked, memory=3)


# --- Orders, for every clock ------------------------------------------------------------------------------------------

KNOWN = [
    (LOGSNR, 2, (2, 2)),
    (LOGSNR.at_midpoint, 2, (2, 2)),
    (LOGSNR, 3, (2, 3)),
    (LOGSNR.at_midpoint, 3, (2, 2)),
]


@pytest.mark.parametrize(("clock", "memory", "orders"), KNOWN, ids=str)
def test_orders_are_theorems_for_every_clock(clock: Clock, memory: int, orders: tuple[int, int]) -> None:
    """Claim: those of int beta, for steps of any lengths, whatever is held; the middle has order 2."""
    for splitting, order in zip((VP_WHOLE, VP_FLOW), orders, strict=True):
        scheme = replace(whole(splitting, memory=memory), clock=clock)
        assert holds_for_any_steps(scheme, order)
        assert first_error(scheme, order + 1)


@pytest.mark.parametrize("clock", [LOGSNR, LOGSNR.at_midpoint], ids=str)
@pytest.mark.parametrize("splitting", [PSLD_WHOLE, PSLD_FLOW_WHOLE], ids=lambda splitting: splitting.name)
def test_a_memory_of_two_has_order_2_in_phase_space_too(splitting: Splitting, clock: Clock) -> None:
    assert holds_for_any_steps(replace(whole(splitting, memory=2), clock=clock), 2)


def test_all_clocks_share_one_proof_and_int_beta_s_is_as_it_was() -> None:
    def question(clock: Clock) -> Any:
        return weak_order._question(replace(whole(VP_FLOW, memory=2), clock=clock), 1, True)

    assert question(TIME) == question(LOGSNR) == question(RHO)
    assert len({str(question(clock)) for clock in (THETA, LOGSNR, LOGSNR.at_midpoint, THETA.at_midpoint)}) == 3
    assert question(THETA)[-1] == 2  # no word of a clock: what ships is found


def test_what_is_proven_for_every_clock_is_int_beta_s_where_it_is_int_beta() -> None:
    """Claim: with c'' / c' = beta' / beta and no higher ones."""
    splitting = VP_FLOW
    every = prove_order(replace(whole(splitting, memory=3), clock=LOGSNR)).leading
    own = prove_order(whole(splitting, memory=3)).leading
    names: dict[Any, Any] = {"c_2": sp.Symbol("dbeta") / sp.Symbol("beta"), "c_3": 0, "c_4": 0}
    assert set(every) == set(own)
    for powers, value in every.items():
        assert sp.expand(value.subs({sp.Symbol(k): v for k, v in names.items()}) - own[powers]) == 0
        assert sp.Symbol("c_3") in value.free_symbols


def _unequal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances of evaluations are told by a clock that keeps its speed."""
    monkeypatch.setattr(Calculus, "_reciprocal", lambda calculus, _: calculus.constant(ONE))


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value at the beginning is held for that in the middle."""
    monkeypatch.setattr(
        Calculus,
        "interpolated_midway",
        lambda calculus, evaluations, start, _: calculus.interpolated(evaluations, start),
    )


@pytest.mark.parametrize(("mutate", "clock"), [(_unequal, LOGSNR), (_elsewhere, LOGSNR.at_midpoint)])
def test_a_clock_that_is_read_wrongly_has_no_order_2(
    mutate: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = replace(whole(VP_FLOW, SCORE_HELD, 2), clock=clock)
    assert not first_error(scheme, 2)
    mutate(monkeypatch)
    assert first_error(scheme, 2)


def _halved(calculus: Calculus, evaluations: Any, offset: Any) -> Any:
    """The polynomial through three, its square counted by half: sum_j q_j prod_(i != j) (c - c_0) / (c_j - c_i)."""
    right = _RIGHT(calculus, evaluations, offset)
    if len(evaluations) < 3:
        return right
    for j, own in enumerate(evaluations):
        square = calculus.constant(ONE)
        for other in (e for i, e in enumerate(evaluations) if i != j):
            passed = [s * (offset - evaluations[0]) for s in calculus._slope_of_clock(offset, evaluations[0])]
            apart = calculus._reciprocal(calculus._slope_of_clock(own, other))
            square = calculus.times(square, [entry * calculus.inverse(own - other) for entry in passed])
            square = calculus.times(square, apart)
        for c, entries in enumerate(right):
            right[c] = [a - b * calculus.held[j][c] * sp.QQ(1, 2) for a, b in zip(entries, square, strict=True)]
    return right


_RIGHT = Calculus.interpolated


def test_a_second_difference_by_half_leaves_order_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: what DPM-Solver++'s code calls third order has order 2, on the flow, whatever its start; the polynomial
    has 3. (That it is this, its weights say: tests/verification/unmodified/test_identify.py.)"""
    scheme = replace(whole(VP_FLOW, memory=3), clock=LOGSNR)
    assert not first_error(scheme, 3)
    monkeypatch.setattr(Calculus, "interpolated", _halved)
    assert not first_error(scheme, 2)
    assert first_error(scheme, 3)
