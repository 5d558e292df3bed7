"""Laws on lattices of states with one component, and of schemes that remember: against exact moments of Gaussian data,
and on the mixture against sums that know nothing of lattices.

The same comparison with a slightly other scheme must fail.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusions import THIRD
from numpy.typing import NDArray
from one_dimensional import bimodal, one_gaussian
from scipy.special import ndtr
from selection import nightly_but
from weakorder.integrators.catalogue import EXPONENTIAL, POSITION
from weakorder.integrators.compiled import compile_run
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import Advance
from weakorder.theory.model import DIFFUSIONS
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_FLOW, VP_LINEAR, VP_WHOLE, Part, Splitting
from weakorder.verification.exact.lattice import Cloud, carried_law, dimensions_of, resolutions_of
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.noise_free import noise_free_errors, study_noise_free
from weakorder.verification.exact.observables import OBSERVABLES, Observable, expectation, observables_of
from weakorder.verification.exact.order import T_END
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.targets.named import make_target
from weakorder.verification.verdicts.verdict import Verdict

Array = NDArray[np.float64]
PARAMS = DIFFUSIONS["vp"].parameters()
STRANG = Scheme("U(1/2) S E U(1/2)", VP_LINEAR, order=1)
# Of phase space, what can be carried with its memory: points without noise keep their past.
FLOWS = [scheme for scheme in EXPONENTIAL.values() if scheme.memory > 1 and dimensions_of(scheme) == 2]
CARRIED = [*(scheme for scheme in POSITION.values() if dimensions_of(scheme) <= 2), STRANG, *FLOWS]
NOISY = [s for s in CARRIED if s.memory == 1 and s.splitting in (VP_WHOLE, VP_LINEAR)]
X = observables_of(1)


def slipped(scheme: Scheme) -> Scheme:
    """The same, with its score a hundredth of a step late."""
    return replace(scheme, word=scheme.word.replace("S", "S@1/99", 1))


# --- Moments ----------------------------------------------------------------------------------------------------------


def deviation(law: Cloud, reference: Scheme, taus: Array) -> float:
    """How far a law's moments are from the exact ones of `reference` on N(0.5, 0.25), in its standard deviations."""
    diffusion = reference.splitting.diffusion
    exact = exact_moments(reference, GaussianTarget.of(0.5, 0.25, diffusion, PARAMS), taus).computed
    mean = law.points[: diffusion.size] @ law.weights
    centred = law.points[: diffusion.size] - mean[:, None]
    size = np.sqrt(np.diagonal(exact.cov[..., 0])) + np.abs(exact.mean[:, 0])
    off = ((centred * law.weights) @ centred.T - exact.cov[..., 0]) / np.outer(size, size)
    return max(float(np.abs((mean - exact.mean[:, 0]) / size).max()), float(np.abs(off).max()))


@pytest.mark.parametrize("scheme", CARRIED, ids=lambda scheme: scheme.name)
def test_gaussian_data_have_their_exact_moments(scheme: Scheme) -> None:
    """Claim: to 1e-9, of every scheme in position alone that lattices hold, with what it remembers."""
    taus = time_grid("uniform", 12, PARAMS, T_END)
    law = carried_law(scheme, one_gaussian(PARAMS, scheme.splitting.diffusion), taus, resolutions_of(scheme)[1])
    assert deviation(law, scheme, taus) < 1e-9
    assert deviation(law, slipped(scheme), taus) > 1e-6


# --- On the mixture ---------------------------------------------------------------------------------------------------


def kernel_sums(scheme: Scheme, target: MixtureTarget, taus: Array, count: int = 801) -> Array:
    """E f(u_N) of a run in position alone with noise in every segment, q'(y) = int q(u) N(y; g(u), Q) du as plain sums
    on one grid of `count` nodes that never moves."""
    nodes = np.linspace(-9, 9, count)
    u = torch.from_numpy(nodes)[:, None]
    run = compile_run(scheme, taus, target.params)
    P, _, Q = run.prologue
    if Q.any():
        start = target.log_density(u, target.params.T).exp().numpy() * (nodes[1] - nodes[0])
        mass = transition(nodes, P[0, 0] * nodes, Q[0, 0]) @ start
    else:
        mass = target.log_density(u, target.params.T).exp().numpy() * (nodes[1] - nodes[0])
    for t, P, K, Q in zip(run.updates.time, *run.updates.flow, strict=True):
        moved = P[0, 0] * nodes + K[0, 0] * target.score(u, float(t)).numpy()[:, 0]
        mass = transition(nodes, moved, Q[0, 0]) @ mass
    return np.array([mass @ observable.function(nodes) for observable in X])


def transition(nodes: Array, moved: Array, variance: float) -> Array:
    """The masses that points at `moved` leave at the nodes, in columns."""
    apart = (nodes[:, None] - moved) / math.sqrt(variance)
    return np.exp(-(apart**2) / 2) * (nodes[1] - nodes[0]) / math.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize(
    "scheme", nightly_but(lambda s: s in (POSITION["vp-EM"], STRANG), NOISY), ids=lambda scheme: scheme.name
)
def test_with_noise_a_run_on_the_mixture_is_what_sums_over_its_kernel_give(scheme: Scheme) -> None:
    """Claim: 25 steps, every test function to 1e-9."""
    taus, target = time_grid("uniform", 25, PARAMS, T_END), bimodal(scheme, PARAMS)
    found = noise_free_errors(scheme, target, taus)
    assert not found.problem
    assert np.abs(found.computed - kernel_sums(scheme, target, taus)).max() < 1e-9
    assert np.abs(found.computed - kernel_sums(slipped(scheme), target, taus)).max() > 1e-5


def sampled_sums(scheme: Scheme, target: MixtureTarget, taus: Array, starts: int, nodes: int) -> Array:
    """E f(u_N), the start summed on a fine grid and every noise by a Gauss-Hermite rule, the points moved by the
    sampler, which has a memory of its own."""
    grid = np.linspace(-8, 8, starts)
    u = torch.from_numpy(grid)[:, None]
    mass = target.log_density(u, target.params.T - float(taus[0])).exp().numpy() * (grid[1] - grid[0])
    rule, shares = np.polynomial.hermite_e.hermegauss(nodes)
    shares = shares / math.sqrt(2 * math.pi)
    run = compile_run(scheme, taus, target.params)
    noisy = run.updates.flow.noise_cov.any((1, 2))
    size = starts * nodes ** int(noisy.sum())
    u, mass = u.repeat_interleave(size // starts, 0), np.repeat(mass, size // starts)
    place = np.arange(size)

    def noise(interval: int) -> torch.Tensor:
        digit = place // nodes ** int(noisy[interval - 1 :].sum()) % nodes
        nonlocal mass
        mass = mass * shares[digit]
        return torch.from_numpy(rule[digit])[:, None]

    advance = Advance(run, u, noise)
    u = advance(0, u, None)
    for k, t in enumerate(run.updates.time.tolist()):
        u = advance(k + 1, u, target.score(u, t))
    return np.array([mass @ observable.function(u[:, 0].numpy()) for observable in X[:-1]])


@pytest.mark.parametrize(
    ("name", "steps", "starts", "nodes"),
    [
        ("vp-DDIM", 25, 20_001, 1),
        ("vp-DEIS-3", 25, 20_001, 1),
        ("vp-SDE-DPM-Solver++2M", 3, 201, 14),
    ],
)
def test_what_is_remembered_is_what_the_sampler_remembers(name: str, steps: int, starts: int, nodes: int) -> None:
    """Claim: to 1e-8, on the mixture; and not what is remembered of one evaluation less, or of scores that are late."""
    scheme = POSITION[name]
    taus = time_grid("uniform", 25, PARAMS, T_END) if steps == 25 else np.linspace(0.5, 0.5 + 0.03 * steps, steps + 1)
    target = bimodal(scheme, PARAMS)
    found = noise_free_errors(scheme, target, taus, X[:-1])
    assert not found.problem
    assert np.abs(found.computed - sampled_sums(scheme, target, taus, starts, nodes)).max() < 1e-8
    other = replace(scheme, memory=2) if scheme.memory == 3 else slipped(scheme)
    assert np.abs(found.computed - sampled_sums(other, target, taus, starts, nodes)).max() > 1e-6


def test_an_estimate_covers_what_finer_lines_still_move() -> None:
    """Claim: DDIM's map is steep between the modes; of 400 steps no answer has moved by more than its estimate."""
    scheme = POSITION["vp-DDIM"]
    target, taus = bimodal(scheme, PARAMS), time_grid("uniform", 400, PARAMS, T_END)
    found = noise_free_errors(scheme, target, taus)
    finer = carried_law(scheme, target, taus, resolutions_of(scheme)[-1])
    moved = np.abs(found.computed - [finer.weights @ observable.function(*finer.points) for observable in X])
    assert (found.estimates <= 1e-7).all()
    assert (moved <= found.estimates + 1e-13).all()
    assert finer.weights.size > 2 * found.nodes


def test_exact_expectations_are_those_of_the_closed_forms() -> None:
    """Claim: moments, characteristic function and distribution function of the scaled and blurred data, to 1e-12."""
    target = make_target("mixture", PARAMS, diffusion=DIFFUSIONS["vp"])
    theta = float(PARAMS.theta(T_END, T_END))
    alpha, weights = math.exp(-theta / 2), np.array([0.4, 0.6])
    mean, var = alpha * np.array([-1.0, 1.0]), alpha**2 * np.array([0.2, 0.05]) + 1 - alpha**2
    closed = {
        "x": mean,
        "x^2": mean**2 + var,
        "x^3": mean**3 + 3 * mean * var,
        "x^4": mean**4 + 6 * mean**2 * var + 3 * var**2,
        "cos 2x": np.cos(2 * mean) * np.exp(-2 * var),
        "mode x > 0": ndtr(mean / np.sqrt(0.25**2 + var)),
    }
    exact, estimates = expectation(X, target, T_END)
    assert [observable.name for observable in X] == list(closed)
    np.testing.assert_allclose(exact, [weights @ value for value in closed.values()], rtol=0, atol=1e-12)
    assert estimates.max() < 1e-10


# --- Orders -----------------------------------------------------------------------------------------------------------

OFTEN = ("vp-DDIM", "vp-EM")


@pytest.mark.parametrize(
    "scheme", nightly_but(lambda scheme: scheme.name in OFTEN, CARRIED), ids=lambda scheme: scheme.name
)
def test_a_scheme_has_its_order_on_the_mixture(scheme: Scheme) -> None:
    """Claim: every error is proved to 1e-7, and no order is below the claimed one."""
    steps = (50, 100, 200, 400, 800)[: 4 if scheme.name in OFTEN or scheme in FLOWS else 5]
    study = study_noise_free(scheme, bimodal(scheme, scheme.splitting.diffusion.parameters()), steps)
    assert all(not level.problem and (level.estimates <= 1e-7).all() for level in study.levels)
    assert study.proven == scheme.order
    assert study.measured is not None
    assert study.measured.order > scheme.order - 0.25
    assert study.verdict is not Verdict.FAIL
    assert replace(study, expected=scheme.order + 1, proven=None).verdict is not Verdict.PASS


@pytest.mark.parametrize(
    "scheme",
    [Scheme("S F(3/4) F(1/2)", VP_WHOLE), Scheme("S F(9/10)", VP_FLOW)],
    ids=["a quarter too much", "a tenth too little"],
)
def test_an_inconsistent_scheme_has_order_zero(scheme: Scheme) -> None:
    study = study_noise_free(scheme, bimodal(scheme, PARAMS), (25, 50, 100, 200), X[1:2])
    assert study.verdict is Verdict.FAIL
    assert study.measured is not None
    assert study.measured.order < 0.5


# --- What is refused --------------------------------------------------------------------------------------------------


def test_what_no_lattice_holds_is_refused_with_the_reason() -> None:
    reverse = THIRD.reverse()
    third = Scheme("S F", Splitting("third", THIRD, reverse, (Part("F", reverse.drift, reverse.diffusion),)))
    for scheme, message in (
        (third, r"states of 'third order' have 3 components: even a Gaussian takes 70 nodes an axis"),
        (POSITION["vp-SA-Solver-P3"], "looks back on 3 evaluations: with noise that takes a lattice in 3 dimensions"),
        (EXPONENTIAL["SDE-DPM-Solver++2M"], "looks back on 2 evaluations: with noise that takes a lattice in 4"),
    ):
        target = make_target("mixture", PARAMS, diffusion=scheme.splitting.diffusion)
        with pytest.raises(ValueError, match=message) as refusal:
            noise_free_errors(scheme, target, np.linspace(0, 0.9, 6))
        assert "--method monte-carlo" in str(refusal.value)


def test_a_test_function_of_momentum_is_refused_where_there_is_none() -> None:
    target = make_target("mixture", PARAMS, diffusion=DIFFUSIONS["vp"])
    with pytest.raises(ValueError, match=r"'m' is of 2 components, and a state of 'vp' has 1"):
        noise_free_errors(POSITION["vp-EM"], target, np.linspace(0, 0.9, 6), OBSERVABLES)
    cubes = Observable("x^3", lambda x: x**3, 1)
    assert noise_free_errors(POSITION["vp-EM"], target, np.linspace(0, 0.9, 6), [cubes]).names == ("x^3",)
