"""What the command and the page say of stability: causes, exit codes, the fewest steps, and nothing but results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import GRIDS
from weakorder.reports.commands.cli import cli
from weakorder.reports.figures import stability as figures
from weakorder.reports.pages import stability as pages
from weakorder.reports.pages.jobs import Jobs
from weakorder.reports.pages.models import Models
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.splitting import PSLD
from weakorder.verification.exact.spectrum import Spectrum
from weakorder.verification.stability import growth as stability
from weakorder.verification.targets.gaussian import GaussianTarget

PARAMS = Parameters()


def _run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["stability", *words])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("matrix", "cause"),
    [
        ([[-5.0, 1.0], [0.0, -0.9]], "flip"),  # Jury's rotation is smaller here, and nothing turns
        ([[-1.07, 0.0], [0.3, -1.18]], "flip"),  # two flips: Jury's is positive
        ([[3.0, 0.2], [0.0, 2.0]], "growth"),
        ([[0.9, -0.8], [0.8, 0.9]], "rotation"),
        ([[-1.1, 0.0], [0.0, 0.3]], "flip"),
    ],
)
def test_an_unstable_steps_cause_is_where_its_largest_eigenvalue_lies(matrix: list[list[float]], cause: str) -> None:
    assert stability.leaving(np.array(matrix)) == cause
    largest = max(np.linalg.eigvals(np.array(matrix)), key=abs)
    assert (largest.imag != 0, largest.real > 0) in {"flip": {(False, False)}, "growth": {(False, True)}}.get(
        cause, {(True, True), (True, False)}
    )


def test_the_stationary_deviation_is_that_of_the_clock_at_the_cut_off() -> None:
    """Under linear beta too, where beta before the cut-off is another, or negative: u <- u + theta B u + noise has
    theta = h beta(eps). Its covariance C solves C = R C R^T + theta D, here as four linear equations."""
    params = Parameters(beta_min=0.001, beta_max=20)
    few = Spectrum(np.array([2e-6, 1.0]), np.zeros(2), 1)
    rows = pages._stationary(CATALOGUE["EM"], params, few)
    assert rows is not None
    A, G, D = PSLD.whole.numbers(params.values())
    frozen = GaussianTarget.of(0.0, 2e-6, PSLD_DIFFUSION, params)
    B = A - G @ frozen.precision(frozen.law(params.eps))[..., 0]
    exact = np.linalg.solve(np.kron(B, np.eye(2)) + np.kron(np.eye(2), B), -D.ravel())[0]
    for row in rows:
        if row["variance"] == 2e-6 and row["error"] is not None:
            theta = row["h"] * params.beta(params.eps)
            R = np.eye(2) + theta * B
            found = np.linalg.solve(np.eye(4) - np.kron(R, R), theta * D.ravel())[0]
            assert row["error"] == pytest.approx(np.sqrt(found / exact) - 1, rel=1e-6)
    assert any(row["error"] for row in rows)


def test_the_command_judges_a_run_by_its_exit_code() -> None:
    code, text = _run("ROBA", "--steps", "50", "--grid", "quadratic")
    assert code == 0
    assert "stable: 50 steps" in text
    code, text = _run("ROBA", "--steps", "50", "--json")
    answer = json.loads(text)
    assert code == 1
    assert (answer["stable"], answer["step"]["cause"], answer["nfe"]) == (False, "flip", 50)
    assert answer["growth"] > 20
    assert answer["step"]["variance"] == pytest.approx(2.16e-6, rel=0.01)


def test_the_command_prints_the_fewest_steps_on_each_grid() -> None:
    code, text = _run("S F", "--json")
    assert code == 0
    grids = {least["grid"]: least for least in json.loads(text)["grids"]}
    assert set(grids) == set(GRIDS)
    assert grids["quadratic"]["steps"] < grids["uniform"]["steps"]
    assert grids["uniform"]["nfe"] == grids["uniform"]["steps"]
    assert grids["uniform"]["breaks"]["growth"] > 2 >= grids["uniform"]["holds"]["growth"]
    told = pages.stability_text(json.loads(text))
    assert f"uniform grid: {grids['uniform']['steps']} steps" in told


def test_the_command_takes_black_boxes(tmp_path: Path) -> None:
    file = tmp_path / "box.py"
    file.write_text("def step(u, tau, h, score):\n    return u + 4 * h * (u + score(u, 1 - tau))\n")
    code, text = _run(f"{file}:step", "--steps", "3")
    assert code == 1
    assert "UNSTABLE: 3 steps" in text


def test_everything_that_the_page_says_is_in_the_results() -> None:
    """Two schemes with the same parts: their rows, their comparison, and figures from nothing but JSON."""
    schemes = [CATALOGUE["NSE"], CATALOGUE["RSE"]]
    jobs = Jobs()
    models = Models(schemes, PARAMS)
    asked = pages.ask(jobs, schemes, models, ("quadratic",))
    jobs.run()
    study, rows = pages.answer(asked, schemes, models, ("quadratic",))
    assert [(pair["dear"], pair["cheap"]) for pair in study["twins"]] == [(0, 1)]
    (pair,) = study["twins"]
    assert pair["dear_run"]["steps"] == pair["same_steps"]["steps"] == 25
    assert pair["cheap_run"]["steps"] == 50
    assert rows[0]["stationary"] is None  # no noise, no stationary covariance
    for row, scheme in zip(rows, schemes, strict=True):
        least = row["least"]["quadratic"]
        assert least["nfe"] == least["steps"] * scheme.nfe_per_step
        assert [gamma["gamma"] for gamma in row["gammas"]] == study["gammas"]
    results = {
        "parameters": {"gamma": 0.01, "nu": 4.01, "eps": 1e-3, "T": 1.0, "M_inv": 4.0},
        "models": models.entries([{}]),
        "stability_study": study,
        "schemes": [
            {"label": s.name, "kind": "deterministic", "nfe_per_step": s.nfe_per_step, "stability": row, "model": 0}
            for s, row in zip(schemes, rows, strict=True)
        ],
    }
    read = json.loads(json.dumps(results))
    drawn = {name: make(read) for name, make in figures.drawings().items()}
    assert set(drawn) == set(figures.DESCRIPTIONS)
