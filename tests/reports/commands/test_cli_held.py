"""--frozen, --memory and --clock, and the names of schemes that have them, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import Run
from weakorder.integrators.catalogue import EXPONENTIAL
from weakorder.integrators.grids import time_grid
from weakorder.integrators.loading import find_scheme
from weakorder.reports.commands.cli import cli
from weakorder.theory.clock import CLOCKS
from weakorder.theory.frozen import FROZEN
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.exact import exact_moments
from weakorder.verification.targets import GaussianTarget

HELD = ["--splitting", "psld-whole", "--flow", "exact", "--frozen", "data", "--memory", "2"]


def test_options_make_the_scheme_that_a_name_of_the_catalogue_is(line: Run) -> None:
    code, by_options, _ = line("moments", "S F", *HELD, "--steps", "50", "--json")
    assert code == 0
    assert by_options == line("moments", "SDE-DPM-Solver++2M", "--steps", "50", "--json")[1]
    params = Parameters()
    target = GaussianTarget.of(0.0, 1.0, PSLD_DIFFUSION, params)
    law = exact_moments(EXPONENTIAL["SDE-DPM-Solver++2M"], target, time_grid("uniform", 50, params)).computed
    answer = json.loads(by_options)
    np.testing.assert_array_equal(answer["cov"], law.cov[..., 0])
    assert answer["nfe"] == 50


def test_the_options_choices_are_the_built_in_ones() -> None:
    options = {option.name: option for option in cli.commands["verify"].params}
    assert tuple(options["frozen"].type.choices) == tuple(FROZEN)
    assert tuple(options["clock"].type.choices) == tuple(CLOCKS)


def test_a_title_says_what_is_held(line: Run) -> None:
    _, out, _ = line("moments", "S F", *HELD, "--steps", "5")
    assert out.startswith("S F on psld-whole (exact sub-flows, data held, memory 2): 5 steps")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["moments", "ROBA", "--frozen", "data"], "only exact sub-flows tell what is held"),
        (["moments", "S F", "--memory", "5"], "it is an integer from 1 to 4"),
        (["moments", "S F", "--memory", "x"], "'x' is not an integer"),
        (["moments", "S F", "--frozen", "noise"], "'noise' is not one of"),
        (["moments", "RVV", "--flow", "exact", "--memory", "2"], "evaluates the score twice at tau + 0 h"),
        (["moments", "examples/multistep.py:ab2", "--memory", "2"], "--frozen and --memory are for schemes"),
        (["moments", "S F", *HELD, "--grid", "graded nothing"], "nothing"),
        (["verify", "S F", *HELD, "--target", "mixture"], "looks back on 2 evaluations"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], message: str, line: Run) -> None:
    code, out, err = line(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.strip().count("\n") == 0 or "Usage" in err


@pytest.mark.parametrize("name", ["DDIM", "lambda-DDIM-II", "CSPS-S"])
def test_a_name_is_found(name: str, line: Run) -> None:
    assert find_scheme(name).name == name
    assert line("moments", name, "--steps", "5", "--json")[0] == 0
