"""Schemes in position alone on the command line: their own defaults, tables of one component, targets whose score is
not affine, and what knows (x, m) alone and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run

THIRD = """
from sympy import Rational, sqrt
from weakorder.theory.model import Diffusion, LinearSDE, a, m, x
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import Part, Splitting

forward = LinearSDE((m, -x + 10 * a, -m - 6 * a), (0, 0, sqrt(Rational(6, 5))))
THIRD = Diffusion("third", forward, (Rational(1, 4), Rational(1, 90)), (1, 1, Rational(1, 10)))
half = THIRD.reverse(0.5)
euler = Scheme("S F", Splitting("third-half", THIRD, half, (Part("F", half.drift, half.diffusion),)), order=1)
"""


def test_a_solver_in_position_alone_is_verified_by_name_and_as_a_word(line: Run) -> None:
    code, out, _ = line("verify", "vp-DEIS-2", "--steps", "50,100,200,400", "--json")
    named = json.loads(out)
    assert code == 0
    assert (named["order"]["proven"], named["order"]["expected"]) == (2, 2)
    word = ["S F", "--splitting", "vp-flow", "--flow", "exact", "--frozen", "eps", "--memory", "2", "--order", "2"]
    spelled = json.loads(line("verify", *word, "--steps", "50,100,200,400", "--json")[1])
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


def test_matrices_of_one_component_are_derived(line: Run) -> None:
    code, out, _ = line("derive", "vp-EM")
    assert code == 0
    assert "P_xx = exp(theta/2)" in out
    assert "P_xm" not in out


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


def test_more_dimensions_and_more_components_are_sampled(line: Run, tmp_path: Path) -> None:
    (tmp_path / "third.py").write_text(THIRD)
    third = (f"{tmp_path / 'third.py'}:euler", "--beta-min", "2", "--beta-max", "2", "--t-end", "0.5")
    budget = ("--steps", "8,16,32,64", "--evaluations", "2e5")
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
    "arguments",
    [
        ("stability", "vp-EM"),
        ("report", "vp-EM", "-o", "nowhere"),
    ],
    ids=" ".join,
)
def test_what_knows_phase_space_alone_says_so(line: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = line(*arguments)
    assert (code, out) == (2, "")
    assert "known of states (x, m), and 'vp' has (x); choose a scheme of psld" in err
    assert err.count("\n") == 1
