"""The anatomy of a black box: its parts are those of its word, and what is wrong with it is named with its factor."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from published_step import PARAMS, euler_maruyama, with_fault
from selection import is_representative, nightly_but
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_step
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.blackbox.anatomy import dissect
from weakorder.verification.blackbox.consistency import inconsistencies
from weakorder.verification.blackbox.examination import examine
from weakorder.verification.blackbox.short_runs import TIMES
from weakorder.verification.blackbox.study import study_black_box
from weakorder.verification.exact.order import study_order
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.extrapolation import extrapolate, magnification
from weakorder.verification.verdicts.verdict import Verdict

FEW = (2, 4, 8, 16)  # for what a study says of single steps, at any levels


@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_the_anatomy_of_a_scheme_is_its_compiled_step(scheme: Scheme) -> None:
    """P, K_k, Q and the times, composed here from the segments by hand."""
    taus = np.array([0.3, 0.37])
    anatomy = dissect(as_black_box(scheme, PARAMS), taus)
    P, Q, gains, times = np.eye(2), np.zeros((2, 2)), [], []
    for time, flow, _ in compile_step(scheme, taus, PARAMS):
        p, k, q = (entry[0] for entry in flow)
        P, Q, gains = p @ P, p @ Q @ p.T + q, [p @ gain for gain in gains]
        if time is not None:
            gains.append(k)
            times.append(float(time[0]))
    np.testing.assert_allclose(anatomy.propagator, P, rtol=0, atol=1e-13)
    np.testing.assert_allclose(anatomy.gains, gains, rtol=0, atol=1e-13)
    np.testing.assert_allclose(anatomy.noise_cov, Q, rtol=0, atol=1e-13)
    np.testing.assert_allclose(anatomy.offset, 0, atol=1e-13)
    assert anatomy.times == tuple(times)
    assert anatomy.nfe == scheme.nfe_per_step


OTHERS = (Parameters(), Parameters(gamma=0.0, nu=4.0))


@pytest.mark.parametrize(
    ("scheme", "params"),
    [
        *nightly_but(
            lambda case: is_representative(case[0]) and case[1] is PARAMS,
            itertools.product(CATALOGUE.values(), (PARAMS, *OTHERS)),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Scheme) else str(value),
)
def test_no_scheme_of_the_catalogue_is_called_inconsistent(scheme: Scheme, params: Parameters) -> None:
    assert inconsistencies(as_black_box(scheme, params), params) == []


@pytest.mark.parametrize("level", [0.25, 0.5, 1.5])
def test_dynamics_between_the_flow_and_the_sde_are_consistent(level: float) -> None:
    """Noise of level^2 times the SDE's covariance with the gain (1 + level^2) / 2 keeps the marginals."""
    fitting = with_fault(score=lambda s: (1 + level**2) / 2 * s, xi=lambda xi: level * xi)
    assert inconsistencies(fitting, PARAMS) == []
    assert inconsistencies(with_fault(score=lambda s: (1 + level) / 2 * s, xi=lambda xi: level * xi), PARAMS) != []


def test_a_skew_gain_of_the_score_keeps_every_law_and_a_symmetric_one_does_not() -> None:
    """Claim: div(p J grad log p) = 0 for a skew J: consistent, and its laws converge. Its mirror image is named."""

    def turning(sign):
        def step(u, tau, h, score):
            s_x, s_m = score(u, 1 - tau).unbind(1)
            return euler_maruyama(u, tau, h, score) + 0.3 * h * torch.stack([s_m, sign * s_x], 1)

        return step

    study = study_black_box("turning", turning(-1), PARAMS, steps=(12, 25, 50, 100), t_end=0.3)
    assert study.verdict is Verdict.PASS
    assert study.warnings == ()
    found = [str(wrong) for wrong in inconsistencies(turning(1), PARAMS)]
    assert any(re.search(r"gain of x from s_m is 0\.3 where 0 is right", text) for text in found), found


FAULTS = {
    "a wrong sign": ({"sign": lambda s: -s}, r"drift of x by x is -1 times what is right .* at all times"),
    "a lost factor 2": ({"two": lambda _: 1.0}, r"gain of m from s_m is 0\.5 times what is right .* at all times"),
    "M inverted": ({"M": lambda M: 1 / M}, r"drift of x by m is 0\.0625 times what is right"),
    "gamma and nu swapped": (
        {"gamma": lambda _: PARAMS.nu, "nu": lambda _: PARAMS.gamma},
        r"drift of m by m is 0\.00249377 times what is right",
    ),
    "the variance for the deviation": ({"g_m": lambda g: g**2}, r"noise covariance of m and m is \S+ where"),
    "noise off by a thousandth": ({"g_x": lambda g: 1.001 * g}, r"noise covariance of x and x is 1\.002 times"),
    "noise correlated": ({"xi": lambda xi: xi + 0.1 * xi.flip(1)}, r"noise covariance of x and m is"),
    "the score at the wrong time": ({"t": lambda t: 1 - t}, r"the score's time t is 0\.1 where 0\.9 is right"),
    "the score scaled": ({"score": lambda s: 1.0001 * s}, r"gain of x from s_x is 1\.0001 times"),
    "beta fixed at its end": (
        {"beta": lambda _: PARAMS.beta(0.0)},
        r"the rate of everything .* is 0\.0460829 where 1 is right",
    ),
    "h for its root": ({"root": lambda r: r**2}, r"noise covariance of m and m is missing \(10\.8771 is right\)"),
    "a state that shrinks": (
        {"end": lambda u: 0.9999 * u},
        r"as h -> 0, the next x in terms of the old x is 0\.9999 times what is right",
    ),
    "noise that stays": ({"root": lambda r: (r**2 + 0.1) ** 0.5}, r"as h -> 0, the noise covariance of x and x is"),
}


@pytest.mark.parametrize(
    ("faults", "message"), nightly_but(lambda case: case in list(FAULTS.values())[::3], FAULTS.values()), ids=FAULTS
)
def test_what_is_wrong_is_named_with_its_factor(faults, message: str) -> None:
    study = study_black_box("faulty", with_fault(**faults), PARAMS, steps=FEW)
    assert any(re.search(message, str(wrong)) for wrong in study.problems), study.problems
    assert study.verdict is Verdict.FAIL
    assert "not consistent" in study.reason


def test_a_score_at_another_state_is_named() -> None:
    def stale(u, tau, h, score):
        return euler_maruyama(u, tau, h, lambda v, t: score(0.9 * v, t))

    def noisy(u, tau, h, score):
        return euler_maruyama(u, tau, h, lambda v, t: score(v + 0.1 * torch.randn_like(v), t))

    (first, *_), (second, *_) = (map(str, inconsistencies(sampler, PARAMS)) for sampler in (stale, noisy))
    assert "the x of the score in terms of the old x is 0.9 times what is right" in first
    assert "the noise covariance of x and x of the score is 0.01 where 0 is right" in second


def test_a_constant_drift_is_named() -> None:
    def drifting(u, tau, h, score):
        return euler_maruyama(u, tau, h, score) + 1e-4 * h

    (found,) = {wrong.what for wrong in inconsistencies(drifting, PARAMS)} - {"the constant drift of m"}
    assert found == "the constant drift of x"


def test_a_trajectory_that_drops_its_last_noise_is_consistent_and_passes() -> None:
    """What happens once, at an end, changes the law by O(h): only the run as a whole can judge it."""

    def sample(score, u, taus):
        times = taus.tolist()
        for k in range(len(times) - 1):
            quiet = {"xi": torch.zeros_like} if k == len(times) - 2 else {}
            u = with_fault(**quiet)(u, times[k], times[k + 1] - times[k], score)
        return u

    study = study_black_box("last", sample, PARAMS, steps=(12, 25, 50, 100), t_end=0.3)
    assert study.problems == ()
    assert study.verdict is Verdict.PASS


def test_the_times_of_the_limits_cover_the_run() -> None:
    assert TIMES[0] <= 0.1
    assert TIMES[-1] >= 0.95


def test_extrapolation_finds_a_limit_within_its_uncertainty_and_no_other() -> None:
    h = 2.0 ** -np.arange(3, 10)
    values = [np.array([np.exp(k), np.cos(k), 1 / (1 + 3 * k)]) for k in h]
    limit, uncertainty = extrapolate(h, values)
    error = float(np.abs(limit - 1).max())
    assert error <= uncertainty
    assert float(np.abs(values[-1] - 1).max()) > 1e3 * uncertainty  # the last value itself is far off


def test_extrapolation_of_a_function_without_a_limit_is_uncertain() -> None:
    limit, uncertainty = extrapolate(
        [0.5, 0.25, 0.125, 0.0625], [np.array([1 / h]) for h in (0.5, 0.25, 0.125, 0.0625)]
    )
    assert uncertainty > 0.1 * abs(float(limit[0]))


def test_what_differs_on_images_is_noticed_though_one_coordinate_is_probed() -> None:
    def shared(u, tau, h, score):
        xi = torch.randn(u.shape[:2], dtype=u.dtype).reshape(*u.shape[:2], *(1,) * (u.ndim - 2)).expand_as(u)
        return euler_maruyama(u, tau, h, score, lambda name, value: xi if name == "xi" else value)

    def otherwise(u, tau, h, score):
        return euler_maruyama(u, tau, h, score) * (1 if u.ndim == 2 else 1.1)

    def flat_only(u, tau, h, score):
        _, _ = u.shape
        return euler_maruyama(u, tau, h, score)

    for sampler, message in ((shared, "several pixels of an image share"), (otherwise, "its propagator is another")):
        study = study_black_box("x", sampler, PARAMS, steps=FEW)
        assert study.verdict is Verdict.FAIL
        assert f"wrong on images of 3 x 4 x 4: {message}" in study.reason.replace("the sampler ", "")
    study = study_black_box("x", flat_only, PARAMS, steps=FEW)  # takes none, and need not
    assert "too many values to unpack" in study.warnings[0]
    plain = study_black_box("x", euler_maruyama, PARAMS, steps=FEW)
    assert not any("image" in warning or "shape" in warning for warning in plain.warnings)


def test_a_sampler_whose_evaluations_depend_on_the_time_is_verified() -> None:
    """Heun in the first half, Euler after: another number of scores at some of the times that are looked at."""

    def slope(u, t, score):
        beta, (x, m), (s_x, s_m) = PARAMS.beta(t), u.unbind(1), score(u, t).unbind(1)
        dx = PARAMS.gamma * x - PARAMS.M_inv * m + PARAMS.gamma * s_x
        return beta / 2 * torch.stack([dx, x + PARAMS.nu * m + PARAMS.M * PARAMS.nu * s_m], 1)

    def step(u, tau, h, score, weight=0.5):
        first = slope(u, 1 - tau, score)
        if tau + h > 0.5:
            return u + h * first
        return u + h * ((1 - weight) * first + weight * slope(u + h * first, 1 - tau - h, score))

    assert study_black_box("heun, then euler", step, PARAMS, steps=FEW).problems == ()
    assert examine(lambda *given: step(*given, weight=1 / 3), PARAMS, 1).problems == ()  # consistent as well

    def drifts(u, tau, h, score):
        return step(u, tau, h, score) + h * (tau > 0.5) * u

    assert examine(drifts, PARAMS, 1).problems


@pytest.mark.parametrize(("ratio", "count"), [(2.0, 7), (1.5, 7), (3.0, 4)])
def test_the_magnification_is_what_alternating_errors_of_the_values_become(ratio: float, count: int) -> None:
    """Of values that are 0 but for errors of size 1 in the signs of the weights, the last column of Neville's table is
    the sum of their sizes; no column before has more."""
    x = ratio ** -np.arange(count, dtype=float)
    weights = [np.prod([b / (b - a) for b in x if b != a]) for a in x]
    row = list(np.sign(weights))
    for column in range(1, count):
        row = [f + (f - c) * x[k + column] / (x[k] - x[k + column]) for k, (c, f) in enumerate(itertools.pairwise(row))]
    assert magnification(x) == pytest.approx(row[0], rel=1e-9)


def test_an_accidental_agreement_of_two_columns_is_no_certainty() -> None:
    """ROBAB at Gamma = 0.25 on N(1, 25): the limit of its variance was said to be 6.7 uncertainties off, and is 0."""
    params = Parameters(gamma=0.25, nu=4.25)
    target = GaussianTarget.of(1.0, 25.0, PSLD_DIFFUSION, params)
    study = study_order(CATALOGUE["ROBAB"], params, steps=tuple(25 * 2**k for k in range(7)), target=target, t_end=0.01)
    assert study.limit is not None
    assert not study.limit.is_biased
