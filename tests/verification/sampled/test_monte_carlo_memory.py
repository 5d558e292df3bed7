"""Coupled Monte Carlo of schemes that look back on several evaluations, against exact moments.

At `threshold()`, z = 6.6 standard errors, as in test_monte_carlo.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selection import nightly_but
from weakorder.integrators.catalogue import EXPONENTIAL, POSITION
from weakorder.integrators.coupling import couple
from weakorder.integrators.grids import time_grid
from weakorder.integrators.recall import Recall
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.exact import Observable, exact_moments
from weakorder.verification.exact.noise_free import noise_free_errors
from weakorder.verification.sampled.calibration import exact_coupled_moments
from weakorder.verification.sampled.monte_carlo import MonteCarloStudy, study_target
from weakorder.verification.targets import GaussianTarget, MixtureTarget, make_target
from weakorder.verification.verdicts import Verdict, threshold

PARAMS = Parameters()
TWO, ONE = (EXPONENTIAL[f"SDE-DPM-Solver++{name}"] for name in ("2M", "1"))
LAW = GaussianTarget.of(0.0, 0.25, PSLD_DIFFUSION, PARAMS)
TARGET = MixtureTarget.of([1], [[0.0]], [[[0.25]]], PARAMS, name="gaussian")
SETTING: dict[str, Any] = {"steps": (10, 20, 40, 80), "evaluations": 1.0}
POSITION_TWO = ("vp-SDE-DPM-Solver++2M", "vp-DEIS-2")
REMEMBERING = [scheme for scheme in EXPONENTIAL.values() if scheme.memory > 1]


@pytest.fixture(scope="module")
def study() -> MonteCarloStudy:
    return study_target(TWO, TARGET, **SETTING)


@pytest.mark.parametrize(
    "scheme", nightly_but(lambda s: s in (TWO, EXPONENTIAL["SAB2"]), REMEMBERING), ids=lambda s: s.name
)
def test_each_run_of_a_coupling_has_its_exact_moments(scheme: Scheme) -> None:
    grids = [time_grid("quadratic", n, PARAMS, 0.1) for n in (10, 20)]
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], PSLD_DIFFUSION, PARAMS)
    joint = exact_coupled_moments(couple([(scheme, grid) for grid in grids], PARAMS), target)
    for k, grid in enumerate(grids):
        own, alone = slice(2 * k, 2 * k + 2), exact_moments(scheme, target, grid).computed
        np.testing.assert_allclose(joint.mean[own], alone.mean, rtol=0, atol=1e-11 * np.abs(alone.mean).max())
        np.testing.assert_allclose(joint.cov[own, own], alone.cov, rtol=0, atol=1e-11 * np.abs(alone.cov).max())


def exact_errors(scheme: Scheme, steps: int) -> tuple[float, float]:
    """The weak errors of x^2 and m^2, in the prior's variances."""
    law = exact_moments(scheme, LAW, time_grid("uniform", steps, PARAMS, 0.1))
    error = (law.computed.cov - law.exact.cov)[..., 0]
    return float(error[0, 0]), float(error[1, 1] / PARAMS.M)


def furthest(study: MonteCarloStudy, scheme: Scheme) -> float:
    """By how many standard errors what was sampled is off the exact answers of a scheme, at most: weak errors of every
    level, plain and multilevel, and the coupled differences of neighbours."""
    found, exact = [], [exact_errors(scheme, steps) for steps in study.steps.astype(int)]
    for axis, name in enumerate(("x^2", "m^2")):
        k = study.names.index(name)
        for level, answers in enumerate(exact):
            _, value, error, systematic = study.weak_error(level)
            plain = study.level(level)
            found.append((abs(value[k] - answers[axis]) - systematic[k]) / error[k])
            found.append(abs(plain.mean[k] - answers[axis]) / plain.standard_error[k])
        for level, difference in enumerate(study.differences):
            answer = exact[level][axis] - exact[level + 1][axis]
            found.append(abs(difference.mean[k] - answer) / difference.standard_error[k])
    return float(max(found))


def test_the_weak_errors_of_a_gaussian_are_the_exact_ones(study: MonteCarloStudy) -> None:
    """And not those of the scheme that holds one evaluation."""
    assert furthest(study, TWO) < threshold()
    assert furthest(study, ONE) > 2 * threshold()
    assert study.proven == 2
    assert study.verdict is not Verdict.FAIL


@pytest.mark.parametrize("fault", ["forgets", "recalls an answer too old"])
def test_a_sampler_whose_memory_is_wrong_has_other_weak_errors(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Recall.__call__

    def wrong(self, k, u, s):
        before = self.old
        pull = right(self, k, u, s)
        self.old = [] if fault == "forgets" else before or self.old
        return pull

    monkeypatch.setattr(Recall, "__call__", wrong)
    assert furthest(study_target(TWO, TARGET, **SETTING), TWO) > 2 * threshold()


@pytest.mark.parametrize("name", nightly_but(lambda name: name == "vp-EM", ("vp-EM", *POSITION_TWO)))
def test_on_a_bimodal_law_in_position_alone_the_weak_errors_are_those_computed_without_noise(name: str) -> None:
    """Claim: every moment at every level, plain and multilevel; and not those of steps half as long."""
    scheme = POSITION[name]
    params = scheme.splitting.diffusion.parameters()
    target = make_target("mixture", params, 1, diffusion=scheme.splitting.diffusion)
    study, z = study_target(scheme, target, steps=(20, 40, 80, 160), evaluations=1.0), threshold()
    powers = [Observable(f"x^{k}", lambda x, k=k: x**k, 1) for k in (1, 2, 3, 4)]
    assert study.names[:4] == ("x", "x^2", "x^3", "x^4")
    for level, steps in enumerate(study.steps.astype(int).tolist()):
        grid = time_grid("uniform", steps, params, 0.1)
        answer = noise_free_errors(scheme, target, grid, powers, 1e-6).errors
        plain, (_, value, error, systematic) = study.level(level), study.weak_error(level)
        assert (np.abs(plain.mean[:4] - answer) < z * plain.standard_error[:4]).all()
        assert (np.abs(value[:4] - answer) < (z * error + systematic)[:4]).all()
    short = replace(scheme, word="S F(1/2)")
    first = time_grid("uniform", 20, params, 0.1)
    wrong = noise_free_errors(short, target, first, powers, 1e-6).errors
    assert (np.abs(study.level(0).mean[:4] - wrong) > z * study.level(0).standard_error[:4]).any()


@pytest.mark.parametrize("name", nightly_but(lambda name: name == "vp-SDE-DPM-Solver++2M", POSITION))
def test_each_run_in_position_alone_has_its_exact_moments(name: str) -> None:
    """Claim: of one coupling, to 1e-11; the other's are seen to differ."""
    scheme = POSITION[name]
    params = scheme.splitting.diffusion.parameters()
    grids = [time_grid("quadratic", n, params, 0.1) for n in (10, 20)]
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], scheme.splitting.diffusion, params)
    joint = exact_coupled_moments(couple([(scheme, grid) for grid in grids], params), target)
    for k, grid in enumerate(grids):
        alone = exact_moments(scheme, target, grid).computed
        np.testing.assert_allclose(joint.mean[k : k + 1], alone.mean, rtol=0, atol=1e-11 * np.abs(alone.mean).max())
        np.testing.assert_allclose(joint.cov[k, k], alone.cov[0, 0], rtol=0, atol=1e-11 * np.abs(alone.cov).max())
    assert np.abs(joint.cov[0, 0] - joint.cov[1, 1]).max() > 1e-6


def test_a_study_of_a_scheme_that_remembers_goes_on_in_the_same_bits_and_not_as_another(
    study: MonteCarloStudy, tmp_path: Path
) -> None:
    file = tmp_path / "study.npz"
    stopped = study_target(TWO, TARGET, **SETTING, seconds=1e-9, checkpoint=file)
    assert not stopped.complete
    resumed = study_target(TWO, TARGET, **SETTING, checkpoint=file)
    assert [level.values.tobytes() for level in resumed.coupled] == [level.values.tobytes() for level in study.coupled]
    with pytest.raises(ValueError, match="of another study"):
        study_target(ONE, TARGET, **SETTING, checkpoint=file)
