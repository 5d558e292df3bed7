"""The matrices of all steps at once, which studies of stability take, are those of the steps' maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from weakorder.integrators.catalogue import all_schemes
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import Parameters
from weakorder.verification.exact import moments
from weakorder.verification.targets import GaussianTarget


@pytest.mark.parametrize("name", ["SSCS", "NOBAB", "NVV", "vp-DDPM", "SDE-DPM-Solver++2M"])
@pytest.mark.parametrize("flow", [None, "true"])
def test_the_matrices_of_steps_are_those_of_their_maps(name: str, flow: str | None) -> None:
    """Claim: to 1e-12, with one evaluation or several, one component or two, with a memory, and with a flow that
    evaluates the score itself; a variance that is 1e-9 off is seen."""
    scheme = all_schemes()[name]
    if flow and scheme.memory == 1 and scheme.holds_score:
        scheme = replace(scheme, flow=flow)
    taus, data = (
        time_grid("quadratic", 12, Parameters()),
        GaussianTarget.of(0.3, [0.01, 1.0], scheme.splitting.diffusion, Parameters()),
    )
    maps = moments.step_maps(scheme, data, taus)
    found = moments.step_matrices(scheme, data, taus)
    np.testing.assert_allclose(found, np.broadcast_to(maps.matrix, found.shape), rtol=0, atol=1e-12)
    other = GaussianTarget.of(0.3, [0.01 * (1 + 1e-9), 1.0], scheme.splitting.diffusion, Parameters())
    assert np.abs(moments.step_matrices(scheme, other, taus) - maps.matrix).max() > 1e-12
    assert maps.matrix.shape[2:] == (12, 2)
