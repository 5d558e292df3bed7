"""What is known to be wrong in libraries is there, at the line that is named and as large as it is said."""

import pytest
from weakorder.verification.unmodified import FINDINGS, measured
from weakorder.verification.unmodified.findings import Place, errors, line_of, repaired

BY_TITLE = {finding.title: finding for finding in FINDINGS}
# Of each finding, what must hold of its numbers: the faulty one beside the right one.
SIZES = {
    "Third-order SDE-DPM-Solver++ has a wrong sign": lambda n: (
        n["many"] > 3 * n["few"] > 20 * n["second"] and n["repaired_many"] < n["repaired_few"] / 2
    ),
    "So has its single-step form with heun": lambda n: n["heun"] > 30 > 100 * n["repaired_heun"],
    "Third-order DPM-Solver++ weighs the second difference by half": lambda n: (
        n["few"] / n["many"] < 20 < 40 < n["repaired_few"] / n["repaired_many"] and n["many"] > 5 * n["repaired_many"]
    ),
    "Single-step SDE-DPM-Solver++ of order 2 and 3 is of order 1": lambda n: (
        n["of_1"] < n["of_2"] < n["of_3"] and n["at_80"] < 2.2 * n["of_2"]
    ),
    "PNDM reads v-prediction at the wrong state": lambda n: n["few"] > n["many"] > 1e-3 > 1e10 * n["eps"],
    "DDIM steps to other times than it asks the network about": lambda n: (
        min(n["linspace"], n["trailing"]) > 5 * n["leading"]
        and min(n["linspace_mean"], n["trailing_mean"]) > 0.05 > 1e5 * n["leading_mean"]
    ),
    "Churn adds its noise after the network was asked": lambda n: (
        n["edm_mean"] > 0.1 > 1e10 * n["late_mean"] and n["early"] > 1.2 * n["late"]
    ),
    "Coefficients in float32 ruin high orders": lambda n: (
        n["deis_single"] > 1000 * n["deis_double"] and n["sa_single"] > 10 * n["sa_double"]
    ),
    "On the default grid the last jump decides": lambda n: (
        n["own_final"] > 10 * n["own"] and n["own_final"] > 10 * n["karras_final"]
    ),
    "A last sigma that stands twice is divided by": lambda n: "NaN" in n["heun"] and "NaN" in n["third"],
    "DDPM with fixed_large_log takes the root of a logarithm": lambda n: "NaN" in n["said"],
    "UniPC with bh1 ends in nan": lambda n: "NaN" in n["said"],
    "EDM's SDE-DPM-Solver++ has no order 3": lambda n: "UnboundLocalError" in n["said"],
    "LCM and TCD are for consistency networks": lambda n: (
        n["lcm_many"] > n["lcm_few"] > 0.3 and n["tcd_many"] > n["tcd_few"] / 2
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


@pytest.mark.parametrize(
    "title", [title if "bh1" in title else pytest.param(title, marks=pytest.mark.nightly) for title in SIZES]
)
def test_a_finding_is_as_large_as_it_is_said(title):
    found = measured(title)
    assert SIZES[title](found["numbers"]), found["numbers"]
    assert "?" not in found["text"]


@pytest.mark.nightly
def test_with_its_sign_repaired_third_order_sde_dpm_solver_has_the_papers_order():
    """Order 2 of the law, on Karras' grid, and far below what the wrong sign leaves."""
    name, settings = "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    shipped = errors(name, 160, settings, "karras")["variance"]
    with repaired(BY_TITLE["Third-order SDE-DPM-Solver++ has a wrong sign"]):
        coarse, fine = (errors(name, steps, settings, "karras")["variance"] for steps in (80, 160))
    assert 3 < coarse / fine < 10
    assert shipped > 30 * fine
    assert errors(name, 160, settings, "karras")["variance"] == shipped  # what was repaired is as it was
