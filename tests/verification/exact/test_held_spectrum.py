"""The spectrum study of exponential integrators: known distances, from the prior, quadratic grid, with denoising."""

from __future__ import annotations

import numpy as np
import pytest
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL
from weakorder.theory.frozen import DATA_HELD
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD_WHOLE
from weakorder.verification.exact.spectrum import study_spectrum

# A prototype of its own found 1.2, 0.047, 0.0097 for the first, and 3.0 and 0.74 for ROBA. The flow's depend on the
# denoising step, which is its own dynamics' here.
KNOWN = {
    "SDE-DPM-Solver++2M": (1.231, 0.04661, 0.009767),
    "DPM-Solver++2M": (0.3036, 0.03755, 0.008073),
    "ROBA": (27.21, 3.040, 0.7392),
}


def test_two_evaluations_of_the_data_point_are_far_nearer_to_the_data_than_the_papers_best() -> None:
    schemes = [{**CATALOGUE, **EXPONENTIAL}[name] for name in KNOWN]
    study = study_spectrum(schemes, Parameters(), budgets=(20, 50, 100), grids=("quadratic",))
    distances = {curve.name: curve.distance for curve in study.curves}
    for name, expected in KNOWN.items():
        np.testing.assert_allclose(distances[name], expected, rtol=1e-3)
    assert study.curves[0].floor == pytest.approx(0.006933, rel=1e-3)
    assert distances["ROBA"][1] > 60 * distances["SDE-DPM-Solver++2M"][1]


def test_the_known_distances_tell_a_memory_of_one_from_two() -> None:
    one = Scheme("S F", PSLD_WHOLE, "one", flow="exact", frozen=DATA_HELD)
    (curve,) = study_spectrum([one], Parameters(), budgets=(50,), grids=("quadratic",)).curves
    assert curve.distance[0] > 100 * KNOWN["SDE-DPM-Solver++2M"][1]
