"""Schemes in position alone on the command line: their own defaults, tables of one component, and targets whose score
is not affine."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from command_line import Run

_EULER = """
from diffusions import THIRD
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import Part, Splitting

half = THIRD.reverse(0.5)
euler = Scheme("S F", Splitting("third-half", THIRD, half, (Part("F", half.drift, half.diffusion),)), order=1)
"""


def test_a_solver_in_position_alone_is_verified_by_name_and_as_a_word(line: Run) -> None:
    code, out, _ = line("verify", "vp-DEIS-2", "--steps", "50,100,200,400", "--json")
    named = json.loads(out)
    assert code == 0
    assert (named["order"]["proven"], named["order"]["expected"]) == (2, 2)
    word = ["S F", "--splitting", "vp-flow", "--flow", "exact", "--frozen", "eps", "--memory", "2", "--clock", "t"]
    spelled = json.loads(line("verify", *word, "--order", "2", "--steps", "50,100,200,400", "--json")[1])
    assert spelled["levels"] == named["levels"]
    code, _, _ = line("verify", "vp-DDIM", "--order", "2", "--steps", "50,100,200,400")
    assert code == 1


def test_the_defaults_are_the_diffusions_own_and_options_change_them(line: Run) -> None:
    default, spelled, changed = (
        line("moments", "vp-EM", "--steps", "20", "--json", *options)[1]
        for options in ([], ["--beta-min", "0.1", "--beta-max", "20"], ["--beta-max", "8"])
    )
    assert default == spelled != changed
    assert len(json.loads(default)["mean"]) == 1
    table = line("moments", "vp-EM", "--steps", "20")[1].splitlines()[1]
    assert table.split() == ["mean", "x", "cov", "xx"]


def test_noise_is_an_option_wherever_a_splitting_is(line: Run) -> None:
    """None of it is the flow, to the last digit; between, two steps of Euler-Maruyama are those of a loop; and what
    holds the data keeps its order."""
    levels = ["--flow", "exact", "--frozen", "eps", "--steps", "50,100,200,400", "--json"]
    flow, none, half = (
        json.loads(line("verify", "S F", "--splitting", *words, *levels)[1])
        for words in (["vp-flow"], ["vp-whole", "--noise", "0"], ["vp-whole", "--noise", "0.5"])
    )
    assert none["levels"] == flow["levels"] != half["levels"]
    assert (half["verdict"], half["order"]["proven"]) == ("PASS", 1)
    found = json.loads(line("moments", "vp-EM", "--noise", "0.5", "--steps", "2", "--data-variance", "4", "--json")[1])
    clock = [0.1 * t + 19.9 * t**2 / 2 for t in (1.0, 0.5005, 0.001)]
    cov = 1 + 3 * math.exp(-clock[0])
    for before, after in itertools.pairwise(clock):
        length, law = before - after, 1 + 3 * math.exp(-before)
        cov = (1 + length * (0.5 - (1 + 0.25) / 2 / law)) ** 2 * cov + length * 0.25
    assert found["cov"][0][0] == pytest.approx(cov, rel=1e-12)
    for command in ("derive", "stability", "moments", "verify"):
        code, _, err = line(command, "ROBA", "--noise", "0.5")
        assert code == 2
        assert "how its parts O, A, B share it is not said; take a splitting of one part" in err


def test_matrices_of_one_component_are_derived(line: Run) -> None:
    code, out, _ = line("derive", "vp-EM")
    assert code == 0
    assert "P_xx = exp(theta/2)" in out
    assert "P_xm" not in out


@pytest.mark.nightly
def test_on_a_mixture_a_solver_in_position_alone_is_verified_without_sampling(line: Run) -> None:
    """Claim: DDIM's order is shown to 1e-7, DEIS's second order with its memory, and a word that is too short fails."""
    code, out, _ = line("verify", "vp-DDIM", "--target", "mixture", "--steps", "50,100,200,400", "--json")
    answer = json.loads(out)
    assert (code, answer["verdict"], answer["order"]["proven"]) == (0, "PASS", 1)
    assert set(answer["levels"][0]["weak_errors"]) == {"x", "x^2", "x^3", "x^4", "cos 2x", "mode x > 0"}
    assert all(level["estimate"] < 1e-7 < abs(level["error"]) for level in answer["levels"])
    code, out, _ = line("verify", "vp-DEIS-2", "--target", "mixture", "--steps", "50,100,200,400", "--json")
    assert json.loads(out)["levels"][-1]["slope"] == pytest.approx(2, abs=0.1)
    code, out, _ = line("verify", "S F(9/10)", "--splitting", "vp-flow", "--target", "mixture", "--steps", "4,8,16,32")
    assert (code, out.splitlines()[-1]) == (1, "FAIL: not consistent: the weights of F sum to 9/10, not 1")


@pytest.mark.nightly
def test_more_dimensions_and_more_components_are_sampled(line: Run, tmp_path: Path) -> None:
    (tmp_path / "third.py").write_text(_EULER)
    third = (f"{tmp_path / 'third.py'}:euler", "--beta-min", "2", "--beta-max", "2", "--t-end", "0.5")
    budget = ("--steps", "8,16,32,64", "--evaluations", "1")  # a pilot alone
    for arguments, kind in (
        (("vp-EM", "--target", "mixture", "--dim", "8"), "mixture (8)"),
        (("vp-SDE-DPM-Solver++2M", "--target", "banana"), "banana (2)"),
        ((*third, "--target", "mixture", "--method", "monte-carlo"), "mixture (1)"),
    ):
        code, out, _ = line("verify", *arguments, *budget)
        assert code in (0, 3)
        assert kind in out
        assert len(out.splitlines()) == 7
    code, out, err = line("verify", *third, "--target", "mixture")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "have 3 components: even a Gaussian takes 70 nodes an axis" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("vp-EM",), 0, "uniform grid: 5 steps (5 NFE), a growth of at most 2\n  at 4: growth 2.277 from t = 0.251"),
        (("vp-DDIM", "--steps", "20"), 0, "stable: 20 steps (uniform): growth 1: no perturbation ever grows"),
        (("vp-SDE-DPM-Solver++1",), 0, "uniform grid: 1 step (1 NFE), a growth of at most 2"),
        pytest.param(
            ("vp-SDE-DPM-Solver++2M",),
            0,
            "quadratic grid: 12 steps (12 NFE), a growth of at most 2\n  at 11: growth 2.02",
            marks=pytest.mark.nightly,
        ),
        (("vp-DEIS-3", "--steps", "2"), 1, "UNSTABLE: 2 steps (uniform): growth"),
    ],
)
def test_stability_answers_in_position_alone(line: Run, arguments: tuple[str, ...], code: int, text: str) -> None:
    found, out, _ = line("stability", *arguments)
    assert found == code
    assert text in out


def test_stability_answers_of_three_components(line: Run, tmp_path: Path) -> None:
    """Of steps four times as long one turns its perturbations out of bounds."""
    (tmp_path / "third.py").write_text(_EULER)
    euler = ["stability", f"{tmp_path / 'third.py'}:euler", "--beta-min", "2", "--beta-max", "2", "--steps"]
    code, out, _ = line(*euler, "108")
    assert code == 0
    code, out, _ = line(*euler, "27")
    assert code == 1
    assert "rotation in the step" in out
