"""Reports on diffusions of any number of components, and of several beside one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusions import THIRD
from parsed_page import Page
from small_report import make_stability_small
from undrawn import leave_undrawn
from weakorder.integrators.catalogue import CATALOGUE, POSITION
from weakorder.reports.figures import stability as figures
from weakorder.reports.pages import report, targets
from weakorder.reports.pages.models import Models
from weakorder.theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import VP_WHOLE, Part, Splitting
from weakorder.verification.exact.order import study_order

HALF = THIRD.reverse(0.5)
EULER = Scheme("S F", Splitting("third-half", THIRD, HALF, (Part("F", HALF.drift, HALF.diffusion),)), "third-EM")
SMALL: dict[str, Any] = {
    "steps": (50, 100, 200, 400),
    "budgets": (20, 50),
    "grids": ("quadratic",),
    "nonlinear": targets.Settings(
        steps=(4, 8, 16, 32),
        accuracy=1e-2,
        sampling={targets.MIXTURE: targets.Sampling((5, 10, 20, 40), 1.0)},
        known_steps=(5, 10),
        repetitions=40,
        paths=64,
    ),
}
WORDS = [POSITION["vp-EM"], POSITION["vp-DPM-Solver++2M"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two schemes in position alone, at their own defaults; its figures are drawn under --nightly below."""
    page = tmp_path_factory.mktemp("report") / "index.html"
    with pytest.MonkeyPatch.context() as patch:
        make_stability_small(patch)
        leave_undrawn(patch)
        results = report.collect_results(WORDS, Diffusion.parameters, **SMALL)
        page.with_name("results.json").write_text(json.dumps(results))
        page.write_text(report.render(results), "utf-8")
    return page.parent


@pytest.mark.nightly
def test_schemes_in_position_alone_are_reported_at_their_own_defaults(folder: Path) -> None:
    """Their orders are those of studies at beta from 0.1 to 20; what depends on a mass is not there, and what knows
    phase space alone says so."""
    results = json.loads((folder / "results.json").read_text())
    text = (folder / "index.html").read_text("utf-8")
    page = Page(text)
    for scheme, row in zip(WORDS, results["schemes"], strict=True):
        params = VP_WHOLE.diffusion.parameters()
        alone = study_order(scheme, params, steps=SMALL["steps"])
        assert [level["error"] for level in row["levels"]] == alone.errors["w2"].tolist()
        assert "--beta" not in row["command"]
        assert row["stability"]["gammas"] == []
    assert "β(<i>t</i>) linear from 0.1 to 20" in text
    assert "Γ =" not in text
    assert "gamma" not in page.tables
    assert {"verdicts", "spectrum", "stability-steps", "stationary", "leading"} <= set(page.tables)
    assert [cells[1][0] for cells in page.tables["leading"][1:]] == ["dx", "dx^2", "dx"]
    if results["targets_study"] is None:
        assert "Nothing here on nonlinear targets for schemes under <code>vp</code>" in text
    other = study_order(WORDS[0], Parameters(), steps=SMALL["steps"])
    assert results["schemes"][0]["levels"][-1]["error"] != other.errors["w2"][-1]


def test_several_diffusions_have_their_own_parameters_each() -> None:
    """Defaults where nothing is given, and one cut-off for all."""
    models = Models([CATALOGUE["EM"], *WORDS, EULER], lambda diffusion: diffusion.parameters(nu=3.0))
    assert [diffusion.name for diffusion in models.diffusions] == ["psld", "vp", "third order"]
    assert [models.place(scheme) for scheme in (WORDS[1], EULER, CATALOGUE["RSE"])] == [1, 2, 0]
    assert models.of(WORDS[0]) == VP_WHOLE.diffusion.parameters(nu=3.0)
    assert models.of(CATALOGUE["EM"]) == PSLD_DIFFUSION.parameters(nu=3.0)
    entries = models.entries([{"prior": k} for k in range(3)])
    assert [(entry["uses"], entry["components"], entry["prior"]) for entry in entries] == [
        (["gamma", "nu", "kappa"], ["x", "m"], 0),
        ([], ["x"], 1),
        ([], ["x", "m", "a"], 2),
    ]
    early = {"vp": 0.01}
    with pytest.raises(
        ValueError, match=r"eps = 0.001 under 'psld' and 0.01 under 'vp', and a page has one; give --eps"
    ):
        Models([CATALOGUE["EM"], *WORDS], lambda d: d.parameters(eps=early.get(d.name, 1e-3)))


def test_panels_of_growth_reach_to_the_decade_of_the_largest_run() -> None:
    def results(*values: float | None) -> dict[str, Any]:
        return {"schemes": [{"stability": {"growth": {"uniform": [{"growth": value} for value in values]}}}]}

    assert figures._highest(results(1.0, 1.34)) == 10
    assert figures._highest(results(1.0, 95.0)) == 1000
    assert figures._highest(results(1.0, 1e7)) == figures._highest(results(1.0, None)) == 1000


@pytest.mark.nightly
def test_three_components_beside_one_and_two_are_reported(tmp_path: Path) -> None:
    params = {"third order": {"beta_min": 2.0, "beta_max": 2.0}}
    schemes = [EULER, POSITION["vp-DDIM"]]
    page = report.write_report(schemes, lambda d: d.parameters(**params.get(d.name, {})), tmp_path, **SMALL)
    text = page.read_text("utf-8")
    assert "<code>third order</code> of states (x, m, a) and the diffusion <code>vp</code> of states (x)" in text
    rows = json.loads((tmp_path / "results.json").read_text())["schemes"]
    assert [row["model"] for row in rows] == [0, 1]
    assert "--beta-min 2" in rows[0]["command"]
    assert rows[0]["stability"]["stationary"] is not None
