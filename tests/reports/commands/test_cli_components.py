"""Schemes in position alone on the command line: their own defaults, tables of one component, and what knows (x, m)
alone and says so."""

from __future__ import annotations

import json

import pytest
from command_line import Run


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


@pytest.mark.parametrize(
    "arguments",
    [
        ("stability", "vp-EM"),
        ("verify", "vp-EM", "--target", "mixture"),
        ("verify", "vp-EM", "--target", "empirical-cifar10"),
        ("report", "vp-EM", "-o", "nowhere"),
    ],
    ids=" ".join,
)
def test_what_knows_phase_space_alone_says_so(line: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = line(*arguments)
    assert (code, out) == (2, "")
    assert "known of states (x, m), and 'vp' has (x); choose a scheme of psld" in err
    assert err.count("\n") == 1
