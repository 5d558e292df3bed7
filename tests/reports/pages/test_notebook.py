"""What values show of themselves in a notebook: a table and a figure, with names escaped."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib import metadata

import numpy as np
import pytest
from weakorder.integrators.catalogue import CATALOGUE, POSITION
from weakorder.integrators.unmodified import function_sampler
from weakorder.theory import showing
from weakorder.theory.model import Parameters
from weakorder.theory.paths import PATHS
from weakorder.theory.scheme import Scheme, parse
from weakorder.verification.exact import OrderStudy, Spectrum, study_order
from weakorder.verification.exact.noise_free import study_noise_free
from weakorder.verification.exact.spectrum import study_spectrum
from weakorder.verification.stability import least_steps
from weakorder.verification.targets import make_target

LEVELS = (50, 100, 200, 400)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>-->"
FEW = Spectrum(np.array([1.0, 0.1]), np.zeros(2), 10)


class Parsed(HTMLParser):
    """Tags in order, text outside of figures and styles, and the cells of tables."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.text, self._in = "", ""
        html = value._repr_html_()  # type: ignore[attr-defined]
        assert isinstance(html, str), "no renderer is installed; install the package again"
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in = tag
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._in in ("td", "th", "sup"):
            self.cells[-1] += data.strip()
        if self._in != "style":
            self.text += data


def test_a_scheme_shows_its_word_its_cost_and_its_step() -> None:
    shown = Parsed(CATALOGUE["ROBAB"])
    assert shown.tags.count("svg") == 1
    cells = dict(zip(shown.cells[::2], shown.cells[1::2], strict=True))
    assert cells["network evaluations"] == "2 a step"
    assert cells["claimed weak order"] == "1"
    assert "O S B(1/2) A S@1 B(1/2)" in shown.text


def test_a_word_that_is_not_consistent_says_so() -> None:
    assert "the weights of A sum to 1/2, not 1" in Parsed(parse("O S B A(1/2)")).text


@pytest.fixture(scope="module")
def study() -> OrderStudy:
    return study_order(CATALOGUE["EM"], Parameters(), steps=LEVELS)


def test_an_order_study_shows_its_verdict_and_every_level(study: OrderStudy) -> None:
    shown = Parsed(study)
    assert shown.tags.count("svg") == 1
    assert f"PASS: {study.reason}" in shown.text
    table = np.array(shown.cells).reshape(-1, 6)
    assert table[1:, 0].tolist() == [str(level) for level in LEVELS]
    np.testing.assert_allclose(table[1:, 3].astype(float), study.errors["w2"], rtol=6e-3)
    np.testing.assert_allclose(table[2:, 4].astype(float), study.slopes(), rtol=6e-3)
    assert table[1, 4] == "–"  # the coarsest level has no slope


def test_another_number_in_the_study_is_another_in_its_table(study: OrderStudy) -> None:
    errors = study.errors | {"w2": 1.1 * study.errors["w2"]}
    assert Parsed(replace(study, errors=errors)).cells != Parsed(study).cells


@pytest.mark.nightly
def test_weak_errors_without_sampling_show_every_level() -> None:
    errors = study_noise_free(CATALOGUE["ROBA"], make_target("mixture", Parameters()), steps=(8, 12, 18, 27))
    shown = Parsed(errors)
    assert shown.tags.count("svg") == 1
    assert f"{errors.verdict}: {errors.reason}" in shown.text
    table = np.array(shown.cells).reshape(5, -1)
    assert table[1:, 0].tolist() == ["8", "12", "18", "27"]


def test_distances_and_stability_show_themselves() -> None:
    params = POSITION["vp-DDIM"].splitting.diffusion.parameters()
    distances = study_spectrum([POSITION["vp-DDIM"]], params, (5, 10), ("uniform",), FEW)
    shown = Parsed(distances)
    assert shown.tags.count("svg") == 1
    assert shown.cells[-2:] == [f"{d:.3g}" for d in distances.curves[0].distance]
    least = least_steps(POSITION["vp-DDIM"], params, "uniform", bound=20, data=FEW)
    assert f"{least.steps} steps" in Parsed(least).cells


def test_a_run_that_diverges_is_marked_in_the_table_and_left_out_of_the_figure() -> None:
    params = CATALOGUE["RVV"].splitting.diffusion.parameters()
    distances = study_spectrum([CATALOGUE["RVV"]], params, (5, 7), ("uniform",))
    assert distances.curves[0].diverged.all()
    shown = Parsed(distances)
    assert shown.cells[-2:] == ["∞", "∞"]
    assert "svg" not in shown.tags


def test_a_name_is_text_whatever_it_says(study: OrderStudy) -> None:
    for value in (
        Scheme("S F", CATALOGUE["EM"].splitting, HOSTILE, reference=HOSTILE),
        replace(study, name=HOSTILE, problems=(HOSTILE,)),
    ):
        shown = Parsed(value)
        assert not {"img", "script"} & set(shown.tags)
        assert HOSTILE in shown.text


def test_a_sampler_of_ones_own_shows_its_grids() -> None:
    from weakorder.verification.unmodified import study_unmodified

    def sampler(model, x, steps):
        grid = [0.02 ** (i / steps) for i in range(steps + 1)]
        for t, later in itertools.pairwise(grid):
            x = x + (x - model(x, t)) / t * (later - t)
        return x

    unmodified = function_sampler("mine", sampler, PATHS["edm"], "denoiser", "sigma")
    shown = Parsed(study_unmodified({"default": unmodified}, 1, (4, 8, 16, 32)))
    assert shown.tags.count("svg") == 1
    assert "default" in shown.cells


def test_where_nothing_draws_it_a_value_is_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "_entries", dict)
    assert CATALOGUE["ROBA"]._repr_html_() is None


def test_every_entry_point_is_a_class_that_shows_itself() -> None:
    entries = metadata.entry_points(group=showing.GROUP)
    assert {entry.name for entry in entries} >= {"Scheme", "OrderStudy", "NoiseFreeStudy", "UnmodifiedStudy", "Judged"}
    assert all(callable(entry.load()) for entry in entries)


def test_showing_is_not_importing() -> None:
    """The mathematics knows nothing of pages: they are imported when a value is shown."""
    script = (
        "import sys\nfrom weakorder.theory.scheme import parse\nscheme = parse('O S B A')\n"
        "loaded = lambda: [n for n in sys.modules if n.startswith(('weakorder.reports', 'matplotlib', 'jinja2'))]\n"
        "assert not loaded(), loaded()\nassert '<svg' in scheme._repr_html_()\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
