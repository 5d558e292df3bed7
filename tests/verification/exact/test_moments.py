"""Exact moments: the recursion of weakorder.verification.exact.moments against brute force, and the known answers.

The brute force (tests/brute_force.py) is exact to the last digit of float64, so what is left between the two is the
float64 error of the code under test. Its bound is argued, not fitted: entries of flows and of marginals are accurate to
1e-13 (a test below holds the flows to it; 1 - tau - c h, the time of a score, is so at eps = 1e-3), and
`brute_force._condition` says how far the moments move if every entry that enters them does. No answer has to be more
accurate than 1e-13 of its own standard deviation. For the catalogue with its default parameters the amplification is
small, and the moments are held to 1e-12 outright.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from fractions import Fraction

import brute_force
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from selection import examples, is_representative, nightly_but
from strategies import PHASE_SPACE, parameters, words
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import GRIDS, time_grid
from weakorder.theory.model import STATIONARY, Parameters
from weakorder.theory.scheme import FLOWS, Scheme, parse
from weakorder.theory.splitting import PSLD_LINEAR, SPLITTINGS
from weakorder.verification.exact import moments
from weakorder.verification.exact.moments import Moments, exact_moments
from weakorder.verification.targets.gaussian import GaussianTarget

Array = NDArray[np.float64]

ENTRY_ACCURACY = 1e-13  # relative, of each entry of a flow and of a marginal: see the module's docstring
LINEAR_BETA = Parameters(beta_min=0.1, beta_max=15.9)


# --- Arranging --------------------------------------------------------------------------------------------------------


def target(
    scheme: Scheme, mean: float | list[float] | Array, variance: float | list[float] | Array, params: Parameters
) -> GaussianTarget:
    """Data under the scheme's diffusion."""
    return GaussianTarget(np.asarray(mean, float), np.asarray(variance, float), scheme.splitting.diffusion, params)


def by_brute_force(
    scheme: Scheme, params: Parameters, taus: Array, mean: float, variance: float, **options
) -> brute_force.Answer:
    """The brute force's answer for a `Scheme`."""
    return brute_force.moments(
        scheme.splitting.name,
        options.pop("letters", brute_force.read(scheme.word)),
        brute_force.model_of(params),
        list(taus),
        mean,
        variance,
        **{"flow": scheme.flow, "noise_scale": (scheme.lambda_s, 1.0)} | options,
    )


def standard_deviations(cov: Array) -> tuple[Array, Array]:
    """The scales of a mean and of a covariance: the standard deviations, and their products."""
    deviation = np.sqrt(np.diag(cov))
    return deviation, np.outer(deviation, deviation)


def deviation_in_conditions(got: Moments, want: brute_force.Answer, index: int = 0) -> float:
    """The largest difference between the two, in units of what `ENTRY_ACCURACY` allows: at most 1 if they agree."""
    mean_scale, cov_scale = standard_deviations(want.cov)
    pairs = (
        (got.computed.mean[:, index] - want.mean, want.mean_condition + mean_scale),
        (got.computed.cov[:, :, index] - want.cov, want.cov_condition + cov_scale),
    )
    return max(float(np.max(np.abs(difference) / (ENTRY_ACCURACY * size))) for difference, size in pairs)


def relative_deviation(got: Moments, want: brute_force.Answer, index: int = 0) -> float:
    """The largest difference between the two, relative to the standard deviations."""
    mean_scale, cov_scale = standard_deviations(want.cov)
    return max(
        float(np.max(np.abs(got.computed.mean[:, index] - want.mean) / (mean_scale + np.abs(want.mean)))),
        float(np.max(np.abs(got.computed.cov[:, :, index] - want.cov) / cov_scale)),
    )


@st.composite
def grids(draw: st.DrawFn, params: Parameters) -> Array:
    """A named grid of 1 to 12 steps, or an increasing one whose steps differ up to fifty-fold."""
    steps = draw(st.integers(1, 12))
    name = draw(st.sampled_from([*GRIDS, "random"]))
    if name in GRIDS:
        return time_grid(name, steps, params)
    sizes = np.array(draw(st.lists(st.floats(0.02, 1.0), min_size=steps + 1, max_size=steps + 1)))
    edges = np.cumsum(sizes) - sizes[0] * draw(st.sampled_from([0.0, 1.0]))  # begins at the prior, or later
    return edges / edges[-1] * (params.T - params.eps)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Scheme, Parameters, Array]:
    """Any word with any sub-flow and noise scale, any parameters, any grid."""
    splitting = draw(st.sampled_from(list(PHASE_SPACE.values())))
    word = draw(words(splitting, consistent=draw(st.booleans()), within_step=draw(st.booleans())))
    scheme = Scheme(word, splitting, flow=draw(st.sampled_from(FLOWS)))
    if any(part.sde.noise[0, 0] != 0 for part in scheme.parts):
        scheme = replace(scheme, lambda_s=draw(st.sampled_from([1.0, 0.8, 1.16, 2.0])))
    params = draw(parameters())
    return scheme, params, draw(grids(params))


def data() -> st.SearchStrategy[tuple[Array, Array]]:
    """One to three Gaussians: means in [-2, 2], variances 0.001 to 10."""
    variances = st.floats(-3.0, 1.0).map(lambda exponent: 10.0**exponent)
    pairs = st.lists(
        st.tuples(st.floats(-2.0, 2.0, width=16, allow_subnormal=False), variances), min_size=1, max_size=3
    )
    return pairs.map(lambda batch: (np.array(batch)[:, 0], np.array(batch)[:, 1]))


# --- Against brute force ----------------------------------------------------------------------------------------------


@examples(15)
@given(runs(), data(), st.sampled_from(["exact", "prior"]), st.booleans())
def test_every_word_has_the_moments_of_the_brute_force(
    run: tuple[Scheme, Parameters, Array], batch: tuple[Array, Array], start: str, denoise: bool
) -> None:
    """Claim: for all words, sub-flows, noise scales, parameters, grids, data and starts the moments are right to what
    entries accurate to 1e-13 allow, the exact law to 1e-12, and the cost is equal; both refuse the same intervals."""
    scheme, params, taus = run
    mean, variance = batch
    options = {"start": start, "denoise": denoise}
    try:
        wanted = [
            by_brute_force(scheme, params, taus, mu, s2, **options) for mu, s2 in zip(mean, variance, strict=True)
        ]
    except ValueError:
        with pytest.raises(ValueError, match="where beta is not positive; let it end within the step"):
            exact_moments(scheme, target(scheme, mean, variance, params), taus, **options)
        return
    got = exact_moments(scheme, target(scheme, mean, variance, params), taus, **options)
    assert not got.diverged.any()
    for i, want in enumerate(wanted):
        assert got.nfe == want.nfe
        assert deviation_in_conditions(got, want, i) <= 1
        mean_scale, cov_scale = standard_deviations(want.exact_cov)
        assert np.all(np.abs(got.exact.mean[:, i] - want.exact_mean) <= 1e-12 * (mean_scale + np.abs(want.exact_mean)))
        assert np.all(np.abs(got.exact.cov[:, :, i] - want.exact_cov) <= 1e-12 * cov_scale)


@pytest.mark.parametrize("params", [Parameters(), LINEAR_BETA], ids=["constant", "linear"])
@pytest.mark.parametrize(
    ("name", "steps"),
    nightly_but(lambda case: is_representative(case[0]) and case[1] == 25, itertools.product(CATALOGUE, (25, 100))),
)
def test_the_catalogue_has_the_moments_of_the_brute_force_to_12_digits(
    name: str, steps: int, params: Parameters
) -> None:
    """Claim: at 25 and 100 steps of the quadratic grid every published scheme is right to 1e-12 relative to its
    standard deviations; at 25 also with the exact and (linear beta) the true sub-flow, and with the denoising step."""
    flows = {(25, LINEAR_BETA): FLOWS, (25, Parameters()): ("euler", "exact")}.get((steps, params), ("euler",))
    for flow in flows:
        scheme = replace(CATALOGUE[name], flow=flow)
        taus = time_grid("quadratic", steps, params)
        for denoise in (False, True)[: 1 + (steps == 25 and flow == "euler")]:
            got = exact_moments(scheme, target(scheme, 0.5, 0.25, params), taus, denoise=denoise)
            want = by_brute_force(scheme, params, taus, 0.5, 0.25, denoise=denoise)
            assert relative_deviation(got, want) <= 1e-12


def test_the_amplification_of_the_catalogue_is_small() -> None:
    """Claim: the tolerance of the property test is strict. For the default parameters, 12 steps and data variances from
    0.001 to 10 it lies below 1e-9 of the standard deviations, for every published scheme."""
    params = Parameters()
    for scheme in CATALOGUE.values():
        for variance in (0.001, 0.25, 10.0):
            want = by_brute_force(scheme, params, time_grid("quadratic", 12, params), 0.5, variance)
            mean_scale, cov_scale = standard_deviations(want.cov)
            assert np.all(ENTRY_ACCURACY * want.mean_condition <= 1e-9 * (mean_scale + np.abs(want.mean)))
            assert np.all(ENTRY_ACCURACY * want.cov_condition <= 1e-9 * cov_scale)


@pytest.mark.parametrize("word", ["S F", "O S B A", "U(1/2) S E U(1/2)"])
@pytest.mark.parametrize("flow", FLOWS)
def test_the_condition_bounds_what_a_perturbation_does(word: str, flow: str) -> None:
    """Claim: the condition is a first-order bound. Data whose variance moves by 1e-9 moves the moments by at most 1e-9
    of it."""
    params, by = LINEAR_BETA, 1e-9
    scheme = replace(parse(word), flow=flow)
    taus = time_grid("uniform", 6, params, t_end=0.1)
    before = by_brute_force(scheme, params, taus, 0.5, 0.25)
    after = by_brute_force(scheme, params, taus, 0.5, 0.25 * (1 + by))
    moved = np.abs(after.cov - before.cov)
    assert np.all(moved <= by * 1.01 * before.cov_condition)


def _mutants(name: str) -> dict[str, dict]:
    """Brute force, wrong on purpose: what it is called with instead of the truth."""
    letters = brute_force.read(CATALOGUE[name].word)
    rewound = [letter._replace(start=Fraction(0)) for letter in letters]
    return {
        "every clock rewound to the step's begin": {"letters": rewound},
        "the momentum's noise scaled too": {"noise_scale": (1.16, 1.16)},
        "lambda_s as a factor of the variance": {"noise_scale": (float(np.sqrt(1.16)), 1.0)},
        "lambda_s forgotten": {"noise_scale": (1.0, 1.0)},
        "Euler for exact": {"flow": "euler"},
        "true for exact": {"flow": "true"},
        "started from the prior": {"start": "prior"},
        "a denoising step too much": {"denoise": True},
    }


@pytest.mark.parametrize("mutation", _mutants("ROBAB"))
def test_a_wrong_brute_force_disagrees(mutation: str) -> None:
    """Claim: the comparison can fail. It agrees for ROBAB with lambda_s = 1.16, and with any one rule changed it is off
    by more than a thousand tolerances."""
    scheme = replace(CATALOGUE["ROBAB"], lambda_s=1.16, flow="exact")
    taus = time_grid("uniform", 8, LINEAR_BETA, t_end=0.1)
    got = exact_moments(scheme, target(scheme, 0.5, 0.25, LINEAR_BETA), taus)
    options = _mutants("ROBAB")[mutation]
    assert deviation_in_conditions(got, by_brute_force(scheme, LINEAR_BETA, taus, 0.5, 0.25)) <= 1
    assert deviation_in_conditions(got, by_brute_force(scheme, LINEAR_BETA, taus, 0.5, 0.25, **options)) > 1e3


# --- Known answers ----------------------------------------------------------------------------------------------------

# word over psld-linear, sub-flow, and the order of the covariance error for constant beta and for 0.1 to 15.9
KNOWN_ORDERS = (
    ("U(1/2) S E U(1/2)@0", "euler", (1, 1)),
    ("U(1/2) S E U(1/2)", "true", (1, 1)),
    ("U(1/2) S@1/2 E U(1/2)@0", "true", (2, 1)),
    ("U(1/2) S@1/2 E U(1/2)", "true", (2, 2)),
)


def covariance_errors(scheme: Scheme, params: Parameters, steps: list[int]) -> Array:
    """The Frobenius norm of the covariance error on N(0.5, 0.25) from the exact prior, stopped at t = 0.1."""
    errors = []
    for count in steps:
        taus = time_grid("uniform", count, params, t_end=0.1)
        got = exact_moments(scheme, target(scheme, 0.5, 0.25, params), taus)
        errors.append(np.linalg.norm(got.computed.cov - got.exact.cov))
    return np.array(errors)


@pytest.mark.parametrize("beta", ["constant", "linear"])
@pytest.mark.parametrize(("word", "flow", "orders"), KNOWN_ORDERS)
def test_the_known_orders_of_symmetric_splittings_come_out(
    word: str, flow: str, orders: tuple[int, int], beta: str
) -> None:
    """Claim: the four variants of SSCS have the orders of the design page; those that are broken by the kick's
    accuracy, the score's time or the clock are of order 1 and refute the claim of order 2."""
    params, order = (Parameters(), orders[0]) if beta == "constant" else (LINEAR_BETA, orders[1])
    errors = covariance_errors(Scheme(word, PSLD_LINEAR, flow=flow), params, [200, 400, 800, 1600])
    slopes = np.log2(errors[:-1] / errors[1:])
    assert abs(slopes[-1] - order) < 0.05, slopes
    assert np.all(np.abs(np.diff(slopes)) < 0.2), slopes
    if order == 1:
        assert slopes[-1] < 1.5, "a broken scheme passed for order 2"


# --- Cost, batches, sweeps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "evaluations"),
    {"EM": 1, "SSCS": 1, "NOBA": 2, "NBAO": 2, "NOBAB": 3, "ROBA": 1, "RBAO": 1, "ROBAB": 2}.items(),
)
def test_the_cost_is_that_of_the_design_page(name: str, evaluations: int) -> None:
    """Claim: a run of 7 steps costs 7 times the page's NFE per step, and one more with the denoising step."""
    scheme, params = CATALOGUE[name], Parameters()
    gaussian, taus = target(scheme, 0.0, 1.0, params), time_grid("uniform", 7, params)
    assert exact_moments(scheme, gaussian, taus).nfe == 7 * evaluations
    assert exact_moments(scheme, gaussian, taus, denoise=True).nfe == 7 * evaluations + 1


@settings(max_examples=20)
@given(runs(), data())
def test_a_batch_of_targets_is_its_targets_one_by_one(
    run: tuple[Scheme, Parameters, Array], batch: tuple[Array, Array]
) -> None:
    """Claim: to the last bit, no target knows of the others in its batch."""
    scheme, params, taus = run
    mean, variance = batch
    try:
        together = exact_moments(scheme, target(scheme, mean, variance, params), taus)
    except ValueError:  # an interval past t = 0: the property test above is about those
        return
    for i in range(len(mean)):
        alone = exact_moments(scheme, target(scheme, mean[i], variance[i], params), taus)
        for one, all_ in zip((*alone.computed, *alone.exact), (*together.computed, *together.exact), strict=True):
            np.testing.assert_array_equal(one[..., 0], all_[..., i])


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", nightly_but(is_representative, CATALOGUE))
def test_the_size_of_a_sweep_changes_nothing(name: str, flow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: 20 steps for 3 targets, composed in one sweep, in sweeps of 7 steps (the last one is shorter), or step by
    step (also with more targets than a sweep holds), are the same to 1e-12."""
    scheme, params = replace(CATALOGUE[name], flow=flow), LINEAR_BETA
    gaussian = target(scheme, np.array([0.5, -1.0, 0.0]), np.array([0.25, 0.01, 10.0]), params)
    taus = time_grid("quadratic", 20, params)
    whole = exact_moments(scheme, gaussian, taus)
    for size in (21, 1):
        monkeypatch.setattr(moments, "_SWEEP", size)
        swept = exact_moments(scheme, gaussian, taus)
        assert swept.nfe == whole.nfe
        for i in range(3):
            mean_scale, cov_scale = standard_deviations(whole.computed.cov[:, :, i])
            difference = swept.computed.mean[:, i] - whole.computed.mean[:, i]
            assert np.all(np.abs(difference) <= 1e-12 * (mean_scale + np.abs(whole.computed.mean[:, i])))
            assert np.all(np.abs(swept.computed.cov[:, :, i] - whole.computed.cov[:, :, i]) <= 1e-12 * cov_scale)


# --- Overflow and bad input -------------------------------------------------------------------------------------------


def test_an_overflowing_run_is_reported_and_warns_of_nothing() -> None:
    """Claim: an explosion is told per target through `diverged`, without a warning, and leaves the exact law finite;
    the targets beside it are untouched."""
    params = Parameters(beta_min=1e3, beta_max=1e3)
    scheme = Scheme("S B(1/2) A S@1 B(1/2)", SPLITTINGS["psld-flow"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = exact_moments(scheme, target(scheme, 0.5, [0.25, 1.0], params), time_grid("uniform", 400, params))
        calm = exact_moments(scheme, target(scheme, 0.5, 0.25, Parameters()), np.array([0.0, 0.5]))
    assert got.diverged.all()
    assert not calm.diverged.any()
    assert all(np.isfinite(entry).all() for entry in got.exact)


def test_a_diverged_target_leaves_the_others_alone() -> None:
    """Claim: `diverged` is per target: Langevin dynamics explodes in a potential too steep for the step, and the target
    beside it has the moments that it has alone."""
    params, scheme = Parameters(), Scheme("S B A O", SPLITTINGS["langevin"])
    taus = time_grid("uniform", 100, params)
    got = exact_moments(scheme, target(scheme, 0.5, [1.0, 1e-6], params), taus)
    alone = exact_moments(scheme, target(scheme, 0.5, 1.0, params), taus)
    np.testing.assert_array_equal(got.diverged, [False, True])
    np.testing.assert_array_equal(got.computed.cov[..., 0], alone.computed.cov[..., 0])


def test_bad_input_is_refused_by_name() -> None:
    """Claim: a wrong start, a word of another diffusion, data with a negative or infinite variance, and a grid that
    leaves [0, 1) raise ValueError, and the message names the value."""
    scheme, params = CATALOGUE["ROBA"], Parameters()
    taus, gaussian = time_grid("uniform", 3, params), target(scheme, 0.0, 1.0, params)
    with pytest.raises(ValueError, match="'warm'"):
        exact_moments(scheme, gaussian, taus, start="warm")
    stationary = GaussianTarget(np.array(0.0), np.array(1.0), STATIONARY, params)
    with pytest.raises(ValueError, match=r"'ROBA' moves under 'psld' and the target under 'stationary'"):
        exact_moments(scheme, stationary, taus)
    for variance, shown in ((-0.25, "-0.25"), (np.inf, "inf"), (np.nan, "nan")):
        with pytest.raises(ValueError, match=f"variance = {shown}"):
            target(scheme, 0.0, np.array([1.0, variance]), params)
    with pytest.raises(ValueError, match="mean = nan"):
        target(scheme, np.nan, 1.0, params)
    for grid, shown in (([0.0, 1.0], "0 to 1"), ([-0.25, 0.5], "-0.25 to 0.5")):
        with pytest.raises(ValueError, match=shown):
            exact_moments(scheme, gaussian, np.array(grid))


@pytest.mark.parametrize("grid", [[0.0, 0.6, 0.5], [0.0, 0.5, 0.5, 0.9], [0.0, np.nan]])
def test_a_grid_that_does_not_increase_is_refused(grid: list[float]) -> None:
    """Claim: ValueError, whatever the size of a sweep."""
    scheme, params = CATALOGUE["ROBA"], Parameters()
    with pytest.raises(ValueError, match="increase strictly"):
        exact_moments(scheme, target(scheme, 0.0, 1.0, params), np.array(grid))


LET_THROUGH = {
    "a grid of one time": ("S F", 1.0, [0.5], "at least 2 times"),
    "a grid of two axes": ("S F", 1.0, [[0.0, 0.5]], "at least 2 times"),
    "the time that does not increase": ("S F", 1.0, [0.0, 0.75, 0.625], r"0\.625"),
    "a stationary law without a score": ("S B A O", 0.0, [0.0, 0.5], "variance"),
    "no data": ("S F", [], [0.0, 0.5], "data"),
}


@pytest.mark.parametrize("case", LET_THROUGH)
def test_bad_input_is_refused_by_name_also_here(case: str) -> None:
    """Claim: ValueError that names the value, and neither an answer nor another error."""
    word, variance, grid, shown = LET_THROUGH[case]
    params = Parameters()
    scheme = Scheme(word, SPLITTINGS["langevin" if "O" in word else "psld-whole"])
    with pytest.raises(ValueError, match=shown):
        exact_moments(scheme, target(scheme, np.zeros_like(variance), variance, params), np.array(grid))
