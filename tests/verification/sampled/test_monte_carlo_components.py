"""Coupled Monte Carlo of words in position alone and of three components, against exact moments on Gaussian data.

At `threshold()`, z = 6.6 standard errors, as in test_monte_carlo; the systematic part is that of the multilevel sum.
"""

from __future__ import annotations

import numpy as np
import pytest
from diffusions import PARTED_THIRD, WHOLE_THIRD
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.grids import time_grid
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_LINEAR
from weakorder.verification.exact import exact_moments
from weakorder.verification.sampled.monte_carlo import MonteCarloStudy, study_target
from weakorder.verification.targets import GaussianTarget, MixtureTarget
from weakorder.verification.verdicts import threshold

STEPS = (5, 10, 20, 40)
# Each with a word that is another one, and must be told from it.
WORDS = [
    (POSITION["vp-DDPM"], POSITION["vp-EM"]),
    (Scheme("U(1/2) S E U(1/2)", VP_LINEAR, "U S E U", flow="exact"), POSITION["vp-DDPM"]),
    (Scheme("S O B A", PARTED_THIRD, "third-SOBA"), Scheme("S F", WHOLE_THIRD, "third-EM")),
]


def setting(scheme: Scheme) -> tuple[MixtureTarget, GaussianTarget]:
    """A target of one dimension, and its law."""
    diffusion = scheme.splitting.diffusion
    params = diffusion.parameters(beta_min=4.0, beta_max=4.0)
    target = MixtureTarget.of([1], [[0.0]], [[[0.25]]], params, diffusion=diffusion, name="gaussian")
    return target, GaussianTarget.of(0.0, 0.25, diffusion, params)


def furthest(study: MonteCarloStudy, scheme: Scheme) -> float:
    """The largest deviation of the second moments' weak errors from the scheme's exact ones, plain and multilevel, over
    all levels: in standard errors, beyond what is systematic."""
    _, law = setting(scheme)
    names = [f"{name}^2" for name in law.diffusion.components]
    columns = [study.names.index(name) for name in names]
    priors, worst = law.diffusion.prior_variances(law.params.values()), 0.0
    for level, steps in enumerate(STEPS):
        moments = exact_moments(scheme, law, time_grid("uniform", steps, law.params, 0.1))
        exact = np.diagonal((moments.computed.cov - moments.exact.cov)[..., 0]) / priors
        plain, (_, value, error, systematic) = study.level(level), study.weak_error(level)
        apart = np.abs(plain.mean[columns] - exact) / plain.standard_error[columns]
        beyond = (np.abs(value[columns] - exact) - systematic[columns]) / error[columns]
        worst = max(worst, float(apart.max()), float(beyond.max()))
    return worst


@pytest.mark.parametrize(("scheme", "other"), WORDS, ids=[scheme.name for scheme, _ in WORDS])
def test_the_weak_errors_are_the_exact_ones_and_not_those_of_another_word(scheme: Scheme, other: Scheme) -> None:
    study = study_target(scheme, setting(scheme)[0], steps=STEPS, evaluations=1.0)
    assert furthest(study, scheme) < threshold()
    assert furthest(study, other) > threshold()
