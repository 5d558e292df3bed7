"""What is known to be wrong in libraries is there, at the line that is named and as large as it is said."""

import math
import warnings

import numpy as np
import pytest
import scipy.integrate
import torch
from selection import nightly_but
from weakorder.integrators.unmodified import schedulers
from weakorder.theory.paths import PATHS, Level
from weakorder.verification.unmodified import FINDINGS, Data, measured
from weakorder.verification.unmodified.findings import Place, line_of, repaired
from weakorder.verification.unmodified.laws import consistency, denoiser
from weakorder.verification.unmodified.sizes import errors

BY_TITLE = {finding.title: finding for finding in FINDINGS}
# Of each finding, what must hold of its numbers: the faulty one beside the right one.
SIZES = {
    "Third-order DPM-Solver++ weighs its second difference wrongly": lambda n: (
        n["many"] > 3 * n["few"] > 20 * n["second"]
        and n["second"] < n["repaired_few"] < n["few"] / 3
        and 3 < n["repaired_karras"] / n["repaired_karras_fine"] < 5
        and n["karras_fine"] > 30 * n["repaired_karras_fine"]
        and n["repaired_karras_fine"] < n["second_karras"] / 3
        and n["flow"] / n["flow_fine"] < 20 < 40 < n["repaired_flow"] / n["repaired_flow_fine"]
    ),
    "Single-step SDE-DPM-Solver++ of order 3 with heun has a wrong sign": lambda n: (
        n["heun"] > 30 > 100 * n["repaired_heun"]
    ),
    "Single-step SDE-DPM-Solver++ of order 2 is of order 1": lambda n: (
        n["first"] < n["many"] < n["few"] < 2.2 * n["many"]
    ),
    "So is that of order 3": lambda n: n["first"] < n["many"] < n["few"] < 2.2 * n["many"],
    "PNDM reads v-prediction at the wrong state": lambda n: n["few"] > n["many"] > 1e-3 > 1e10 * n["eps"],
    "DDIM steps to other times than it asks the network about": lambda n: (
        min(n["linspace"], n["trailing"]) > 5 * n["leading"]
        and min(n["linspace_mean"], n["trailing_mean"]) > 0.05 > 1e5 * n["leading_mean"]
    ),
    "Churn adds its noise after the network was asked": lambda n: (
        n["mean"] > 0.1 > 1e10 * n["late_mean"] and n["early"] > 1.2 * n["late"]
    ),
    "So does that of EulerDiscreteScheduler": lambda n: n["early"] > 1.2 * n["late"] and n["mean"] < 1e-12,
    "Sigmas in float32 ruin DEIS of order 3": lambda n: (
        n["single"] > 1000 * n["double"] and n["repaired_single"] < 1.1 * n["double"]
    ),
    "Sigmas in float32 ruin SA-Solver of orders 3 and 4": lambda n: (
        n["single"] > 10 * n["double"] and n["repaired_single"] < 1.1 * n["double"]
    ),
    "On the default grid the last jump decides": lambda n: (
        n["own_final"] > 10 * n["own"]
        and n["own_final"] > 10 * n["karras_final"]
        and n["lms_final"] > 2 * n["lms_karras_final"]
        and n["pndm_final"] < n["own_final"]
    ),
    "A last sigma that stands twice is divided by": lambda n: "NaN" in n["heun"] and "NaN" in n["third"],
    "DDPM with fixed_large_log takes the root of a logarithm": lambda n: "NaN" in n["said"],
    "UniPC with bh1 ends in nan": lambda n: "NaN" in n["said"],
    "EDM's SDE-DPM-Solver++ has no order 3": lambda n: "UnboundLocalError" in n["said"],
    "LCM is for consistency networks": lambda n: (
        # c_skip, which a state keeps, is 0.25 / ((10 t)^2 + 0.25): 7e-6 at t = 19, the last of 32 steps
        n["denoiser_few"] > n["denoiser_many"] > 0.3 and max(n["consistency_few"], n["consistency_many"]) < 1e-4
    ),
    "TCD is for networks that are exact where it steps to": lambda n: (
        max(value for key, value in n.items() if key.startswith("trajectory")) < 1e-12
        and min(n["denoiser_many"], n["denoiser_many_one"], n["consistency_many"]) > 0.1
        and n["consistency_many_one"] > 0.05
    ),
    "Consistency models are for consistency networks": lambda n: (
        min(n["denoiser_few"], n["denoiser_many"]) > 0.3 and max(n["consistency_few"], n["consistency_many"]) < 1e-3
    ),
    "An exponential grid hides a wrong ratio of steps": lambda n: (
        abs(n["repaired_exponential"] / n["exponential"] - 1) < 1e-9
        and n["repaired_karras"] < n["karras"] / 2
        and 3 < n["repaired_karras"] / n["repaired_karras_fine"] < 5
    ),
    "S_noise other than 1 leaves an error that no number of steps removes": lambda n: (
        n["low"] > 10 * n["one"] and n["high"] > 2 * n["low"]
    ),
}


def test_every_finding_has_a_size_that_is_tested():
    assert list(SIZES) == list(BY_TITLE)


@pytest.mark.parametrize("title", SIZES)
def test_a_finding_is_at_the_line_that_is_named(title):
    file, number = line_of(BY_TITLE[title]).split(":")
    assert file.endswith(".py")
    assert int(number) > 1


def test_a_line_that_a_version_has_not_is_said_to_be_gone():
    finding = BY_TITLE["UniPC with bh1 ends in nan"]
    assert line_of(finding._replace(place=finding.place._replace(piece="B_h = 2 * hh"))) == ""
    assert line_of(finding._replace(place=Place("NoScheduler", "step", "x"))) == ""
    with pytest.raises(ValueError, match="has no '' to repair"), repaired(finding):
        pass


OFTEN = {"UniPC with bh1 ends in nan", "Consistency models are for consistency networks"}


@pytest.mark.parametrize("title", nightly_but(OFTEN.__contains__, SIZES))
def test_a_finding_is_as_large_as_it_is_said(title):
    found = measured(title)
    assert SIZES[title](found["numbers"]), found["numbers"]
    assert "?" not in found["text"]


def _phi(k, z):
    """phi_0 = exp, phi_k+1(z) = (phi_k(z) - 1 / k!) / z: for k > 0 the integral of e^((1 - s) z) s^(k - 1) / (k - 1)!
    over [0, 1]."""
    return math.exp(z) if k == 0 else (_phi(k - 1, z) - 1 / math.factorial(k - 1)) / z


def _after_a_step(made, answers):
    """Of a state 0, without noise, and what the network predicted at three evaluations."""
    zero = torch.zeros(1, dtype=torch.float64)
    return float(made.multistep_dpm_solver_third_order_update([*map(zero.__add__, answers)], sample=zero, noise=zero))


@pytest.mark.parametrize("kind", ["dpmsolver++", "sde-dpmsolver++"])
def test_the_cure_of_third_order_is_the_exponential_integrator_of_a_parabola(kind):
    """Predictions 1, u and u^2 of u = (lambda - lambda_s0) / h are integrated exactly: alpha_t c h k! phi_k+1(-c h) for
    u^k, with c = 1 of the ODE and 2 of the SDE (Hochbruck and Ostermann 2010, equation 2.5)."""
    finding = BY_TITLE["Third-order DPM-Solver++ weighs its second difference wrongly"]
    made = schedulers().DPMSolverMultistepScheduler(algorithm_type=kind, solver_order=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library to its authors
        made.set_timesteps(10)
    made._step_index, made.sigmas = 5, made.sigmas.double()
    alphas = (1 + made.sigmas[3:7] ** 2) ** -0.5
    at = -made.sigmas[3:7].log()
    h, c = float(at[3] - at[2]), 2 if kind.startswith("sde") else 1
    u = ((at[:3] - at[2]) / h).tolist()
    exact = [float(alphas[3]) * c * h * math.factorial(k) * _phi(k + 1, -c * h) for k in range(3)]

    def found():
        return [_after_a_step(made, [x**k for x in u]) for k in range(3)]

    shipped = found()
    with repaired(finding):
        assert found() == pytest.approx(exact, rel=1e-9)
    assert shipped[:2] == pytest.approx(exact[:2], rel=1e-9)
    assert abs(shipped[2] / exact[2] - 1) > 0.4
    with repaired(finding._replace(repairs=finding.repairs[:1])):  # D2 alone cures the ODE
        assert (abs(found()[2] / exact[2] - 1) < 1e-9) == (c == 1)


@pytest.mark.nightly
def test_what_was_repaired_is_as_it_was():
    finding = BY_TITLE["Third-order DPM-Solver++ weighs its second difference wrongly"]
    settings = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}

    def variance():
        return errors("DPMSolverMultistepScheduler", 80, settings, "karras")["variance"]

    shipped = variance()
    with repaired(finding):
        during = variance()
    assert variance() == shipped > 30 * during


@pytest.mark.parametrize("path", ["edm", "vp"])
def test_a_consistency_network_predicts_where_the_flow_ends(path):
    """The flow dz/dr = (z - E[x_0 | z]) / r of z = x / alpha in r = sigma / alpha (Karras et al. 2022, equation 3),
    integrated to r = 0; the network of a diffusion predicts another point."""
    at, data = PATHS[path].level(0.4), Data(np.zeros(2), np.array([0.04, 4.0]))

    def slope(r, z):
        return z * (1 - denoiser(data, Level(1.0, r))) / r

    (*_, end) = scipy.integrate.solve_ivp(slope, (at.sigma / at.alpha, 1e-9), [1, 1], rtol=1e-10, atol=1e-12).y.T
    assert at.alpha * consistency(data, at) == pytest.approx(end, rel=1e-8)
    assert np.abs(at.alpha * denoiser(data, at) / end - 1).min() > 1e-3
