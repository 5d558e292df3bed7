"""What a review by attack broke once: each entry is a way in which a wrong answer or a traceback came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch
from command_line import Run
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import ScoreError, draw_prior, sample
from weakorder.theory import cache
from weakorder.theory.model import LinearSDE, Parameters, gamma, m, nu, x
from weakorder.theory.scheme import Scheme, parse
from weakorder.theory.splitting import PSLD, Part
from weakorder.verification.exact.order import study_order
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.verdict import Verdict

PARAMS = Parameters()
ROBA = CATALOGUE["ROBA"]


@pytest.mark.parametrize("text", ["import sys; sys.exit(0)", "raise SystemExit('bye')"])
def test_a_users_file_that_exits_does_not_pass(line: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "exits.py").write_text(text)
    code, out, err = line("verify", f"{tmp_path / 'exits.py'}:a")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "raised SystemExit" in err


def test_what_a_users_file_prints_is_not_in_the_json(line: Run, tmp_path: Path) -> None:
    text = "print('HELLO')\nfrom weakorder.integrators.catalogue import CATALOGUE\nscheme = CATALOGUE['ROBA']\n"
    (tmp_path / "prints.py").write_text(text)
    _, out, err = line("moments", f"{tmp_path / 'prints.py'}:scheme", "--json")
    assert json.loads(out)["nfe"] == 50
    assert "HELLO" in err


def test_a_black_box_that_raises_is_one_line(line: Run, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text("def step(u, tau, h, score):\n    raise KeyError('a')\nf = lambda: 3\n")
    for name, message in (("step", "the sampler raised KeyError"), ("f", "the sampler takes (); it must be step")):
        code, out, err = line("verify", f"{tmp_path / 'box.py'}:{name}")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


@pytest.mark.nightly
def test_a_reader_that_has_enough_is_no_verdict() -> None:
    """The reader is gone before the first byte is written: a reader that leaves later may have had it all by then."""
    command = [sys.executable, "-c", "from weakorder.reports.commands.cli import main; main()", "schemes"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.parametrize("steps", [(400, 404, 408, 412), (1000, 1001, 1002, 1003)])
def test_levels_too_close_to_fit_a_slope_are_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least 1\.5 times the one before"):
        study_order(CATALOGUE["RVV"], PARAMS, steps=steps)


def test_levels_by_threes_give_the_same_order_as_doublings() -> None:
    fit = study_order(ROBA, PARAMS, steps=(50, 150, 450, 1350)).fits["w2"]
    assert fit.low <= 1 <= fit.high
    assert fit.high - fit.low < 0.1


def test_an_error_as_large_as_the_law_does_not_pass() -> None:
    """Slopes of a run that is far from converged may settle above the order; they mean nothing."""
    study = study_order(ROBA, Parameters(gamma=1e5))
    assert study.errors["w2"][-1] > 1
    assert study.verdict is not Verdict.PASS


def test_slopes_that_contradict_a_proof_are_not_asymptotic_yet() -> None:
    study = study_order(CATALOGUE["EM"], PARAMS, steps=(2, 4, 8, 16), t_end=1e-3)
    assert study.proven == 1
    assert study.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("score", [lambda u, _: u.mul_(-1), lambda u, _: (-u, u.zero_())[0]], ids=["mul_", "zero_"])
def test_a_score_that_changes_the_state_is_refused(score) -> None:
    u = draw_prior(PSLD.diffusion, PARAMS, torch.arange(2), (3,))
    with pytest.raises(ScoreError, match="changed the state in place at step 1 of 5"):
        sample(ROBA, score, u, time_grid("uniform", 5, PARAMS), PARAMS)


@pytest.mark.parametrize("value", [None, 3, [1.0], np.zeros((2, 2, 3)), torch.zeros(2, 2, 3, dtype=torch.complex64)])
def test_a_score_that_is_no_real_tensor_is_refused(value) -> None:
    u = draw_prior(PSLD.diffusion, PARAMS, torch.arange(2), (3,))
    with pytest.raises(ScoreError, match="must be a real tensor"):
        sample(ROBA, lambda *_: value, u, time_grid("uniform", 5, PARAMS), PARAMS)


@pytest.mark.parametrize("value", [1e160, 1e308, 10**400])
@pytest.mark.parametrize("name", ["gamma", "nu", "kappa", "beta_max"])
def test_absurd_parameters_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Parameters(**{name: value})


@pytest.mark.parametrize(
    "option", [("--steps", ""), ("--steps", ",,"), ("--steps", "\uff11,2,3,4"), ("--data-mean", "")]
)
def test_an_empty_or_foreign_list_is_not_the_default(line: Run, option) -> None:
    code, out, err = line("verify", "ROBA", *option)
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("word", ["S B(\u0661) A O", "S B(" + "1" * 400 + ") A O"])
def test_weights_in_foreign_digits_or_without_end_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="token 2"):
        parse(word)


def test_a_name_that_cannot_be_printed_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be printed"):
        Scheme("O S B A", PSLD, name="\x00")


@pytest.mark.parametrize("entry", [sp.I * x, sp.nan * x, sp.Piecewise((x, gamma > 1), (2 * x, True))])
def test_a_drift_that_is_not_a_finite_real_expression_is_refused(entry) -> None:
    with pytest.raises(ValueError, match=r"finite real expression|not linear"):
        LinearSDE((entry, sp.S.Zero))


@pytest.mark.parametrize("factor", [sp.pi, sp.E, sp.exp(-gamma), sp.log(1 + gamma), sp.sqrt(2)])
def test_coefficients_may_be_any_smooth_function_of_the_parameters(factor) -> None:
    flow = Part("X", (-factor * x, sp.S.Zero)).exact(np.array([1e-6, 0.5]), PARAMS.values())
    value = float(factor.subs(gamma, PARAMS.gamma))
    np.testing.assert_allclose(flow.propagator[..., 0, 0], np.exp(-value * np.array([1e-6, 0.5])), rtol=1e-14)


@pytest.mark.parametrize("values", [{"gamma": 0.0, "nu": 2.0}, {"gamma": 2.0, "nu": 0.0}])
def test_an_oscillator_has_its_flow_where_its_frequency_vanishes(values) -> None:
    """The closed form has a pole there; the flow, 1 + A theta, has none."""
    flow = Part("R", (nu * m, -gamma * x)).exact(0.7, {**values, "kappa": 1.0})
    A = np.array([[0.0, values["nu"]], [-values["gamma"], 0.0]])
    np.testing.assert_allclose(flow.propagator, np.eye(2) + 0.7 * A, rtol=1e-14)


def test_a_drift_that_is_singular_at_the_parameters_says_so() -> None:
    with pytest.raises(ValueError, match=r"singular at gamma = 0, .*; choose others"):
        Part("X", (x / gamma, sp.S.Zero)).exact(0.5, {"gamma": 0.0, "nu": 1.0, "kappa": 1.0})


@pytest.mark.parametrize(
    "text", ["null", "3", "[]", '{"answer": null}', '{"answer": 1, "checksum": "no"}', "[" * 10**5]
)
def test_a_damaged_cache_is_derived_again(monkeypatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(tmp_path))
    assert cache.cached(("question",), lambda: [1]) == [1]
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert cache.cached(("question",), lambda: [2]) == [2]
    assert cache.cached(("question",), lambda: [3]) == [2], "mended"
    assert list(tmp_path.iterdir()) == [path], "nothing is left behind"


@pytest.mark.parametrize(("mean", "variance"), [(1e160, 1.0), (0.0, 1e20)])
def test_data_beyond_float64_is_refused(mean: float, variance: float) -> None:
    with pytest.raises(ValueError, match="at most 1e"):
        GaussianTarget.of(mean, variance, PSLD.diffusion, PARAMS)


def test_a_report_that_cannot_be_written_says_so_before_the_work(line: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = line("report", "ROBA", "-o", str(tmp_path / "file" / "sub"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "choose another folder" in err
