"""The report: complete, self-contained, honest about its numbers, safe with names, and never half written."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from json_schemas import complaints
from matplotlib.text import Annotation
from parsed_page import Page
from selection import nightly_but
from small_report import make_stability_small
from undrawn import leave_undrawn
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.figures import style as figures
from weakorder.reports.pages import report, targets
from weakorder.reports.pages import templates as pages
from weakorder.reports.pages.jobs import Jobs
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme, parse
from weakorder.verification.blackbox.subject import BlackBox
from weakorder.verification.exact import noise_free
from weakorder.verification.exact.lattice import RESOLUTIONS

PARAMS = Parameters()
NONLINEAR = targets.Settings(
    steps=(4, 8, 16, 32),
    accuracy=1e-2,
    sampling={targets.MIXTURE: targets.Sampling((5, 10, 20, 40), 1.0), "student": targets.Sampling((2, 4, 8, 16), 1.0)},
    known_steps=(5, 10),
    repetitions=40,
    paths=64,
)
SMALL: dict[str, Any] = {"steps": (100, 200, 400, 800), "budgets": (3, 20, 50, 100), "nonlinear": NONLINEAR}
ONE_GRID = SMALL | {"grids": ("quadratic",)}
ONE_TARGET = dataclasses.replace(NONLINEAR, sampling={targets.MIXTURE: targets.Sampling((5, 10, 20, 40), 1.0)})
IDLE = parse("U(1/2) U(1/2)")
HOSTILE = "<script>alert('x')</script> & $\\frac{"
FIGURES = (
    *("convergence-steps", "convergence-nfe", "error-constants", "local-slopes", "cifar10-spectrum"),
    *("stability-growth", "stability-last-step", "stability-trajectory"),
    *("targets-noise-free", "targets-sampled", "targets-intervals"),
)
# Those that are drawn as PNG in every run.
PICTURES = ("error-constants", "targets-intervals")
FILES = report._files


def _schemes() -> list[Scheme]:
    hostile = dataclasses.replace(CATALOGUE["ROBA"], name=HOSTILE, lambda_s=1.1, reference="<b>me</b>")
    return [hostile, CATALOGUE["NSE"]]


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two schemes, one of them with a hostile name and a bias. Every figure is drawn as SVG; as PNG, too,
    those of `PICTURES`, and all under --nightly."""
    pictures = FIGURES if request.config.getoption("--nightly") else PICTURES
    with pytest.MonkeyPatch.context() as patch:
        make_stability_small(patch)
        patch.setattr(report, "_files", lambda results, name: _drawn(results, name, name in pictures))
        page = report.write_report(_schemes(), PARAMS, tmp_path_factory.mktemp("report") / "new" / "folder", **SMALL)
    assert page.name == "index.html"
    return page.parent


def _drawn(results: dict[str, Any], name: str, as_picture: bool) -> tuple[bytes, bytes]:
    """A figure as SVG and PNG, or only as SVG."""
    return FILES(results, name) if as_picture else (figures.as_svg(report._drawings(results)[name]()), b"")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    """results.json, read by a parser that takes nothing but JSON."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads((folder / "results.json").read_text("utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """The page, parsed; its elements are closed in order."""
    parsed = Page((folder / "index.html").read_text("utf-8"))
    assert parsed.open == []
    return parsed


def _numbers(value: Any) -> set[float]:
    if isinstance(value, dict):
        return set().union(*map(_numbers, value.values()))
    if isinstance(value, list):
        return set().union(*map(_numbers, value))
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def test_all_files_are_written(folder: Path, request: pytest.FixtureRequest) -> None:
    """The page, the numbers, each figure as SVG and PNG, and nothing else."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "index.html",
        "results.json",
        *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")),
    }
    for name in FIGURES if request.config.getoption("--nightly") else PICTURES:
        assert (folder / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for name in FIGURES:
        assert (folder / f"figures/{name}.svg").read_text("utf-8").rstrip().endswith("</svg>")


def test_the_schema_sees_what_is_missing_new_or_of_another_kind(results: dict[str, Any]) -> None:
    """That results.json is as its schema says every test here shows (conftest.py)."""
    assert complaints("results", results) == []
    for change in (
        lambda r: r["schemes"][0].pop("verdict"),
        lambda r: r["schemes"][0].update(mood="good"),
        lambda r: r["schemes"][1]["levels"][0].update(steps="25"),
        lambda r: r["schemes"][1].update(verdict="MAYBE"),
        lambda r: r["stability_study"]["twins"].append({}),
        lambda r: r["targets_study"]["sampled"][0]["estimates"].update(x=[{"steps": 1}]),
        lambda r: r.update(seed=0.5),
    ):
        broken = copy.deepcopy(results)
        change(broken)
        assert complaints("results", broken) != []


def test_every_study_of_words_can_travel_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a function of a module and picklable arguments, which other processes answer as this one does."""

    class Asked(Exception):
        """With the jobs."""

    def stop(jobs: Jobs, *_: object) -> None:
        raise Asked(jobs._jobs)

    monkeypatch.setattr(Jobs, "run", stop)
    with pytest.raises(Asked) as asked:
        report.collect_results(_schemes(), PARAMS, **SMALL)
    jobs = asked.value.args[0]
    assert len(jobs) >= 4 * len(_schemes())
    for job in jobs:
        function, arguments = pickle.loads(pickle.dumps((job.function, job.arguments)))
        assert not job.here
        assert function.__module__ == job.function.__module__
        assert pickle.dumps(arguments) == pickle.dumps(job.arguments)


def _without_clocks(value: Any) -> Any:
    """The results but for what clocks say: when, and how many seconds."""
    if isinstance(value, dict):
        return {name: _without_clocks(inner) for name, inner in value.items() if name not in ("date", "seconds")}
    return [_without_clocks(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.nightly
def test_two_processes_write_the_report_of_one(tmp_path: Path) -> None:
    folder = report.write_report(_schemes(), PARAMS, tmp_path / "one", **SMALL).parent
    report.write_report(_schemes(), PARAMS, tmp_path / "two", workers=2, **SMALL)
    both = [json.loads((tmp_path / name / "results.json").read_text("utf-8")) for name in ("one", "two")]
    assert _without_clocks(both[0]) == _without_clocks(both[1])
    for name in FIGURES:
        assert (tmp_path / f"two/figures/{name}.svg").read_bytes() == (folder / f"figures/{name}.svg").read_bytes()


def test_results_say_what_was_run(results: dict[str, Any]) -> None:
    """Parameters, versions, date, settings, and the seed of what was sampled."""
    assert results["parameters"]["nu"] == 4.01
    assert {"python", "numpy", "scipy", "sympy", "torch", "weakorder"} <= set(results["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", results["date"])
    assert results["seed"] == 0
    assert results["order_study"]["steps"] == list(SMALL["steps"])
    assert results["spectrum_study"]["budgets"] == list(SMALL["budgets"])


def test_the_verdicts_are_the_studies(results: dict[str, Any]) -> None:
    """A biased scheme fails and says why; a plain one passes."""
    biased, plain = results["schemes"]
    assert (biased["verdict"], plain["verdict"]) == ("FAIL", "PASS")
    assert "lambda_s" in biased["reason"]
    assert biased["warnings"]
    assert (biased["kind"], plain["kind"]) == ("stochastic", "deterministic")
    assert plain["error_constant"] == plain["levels"][-1]["constant"]


def test_diverged_runs_are_null_in_the_results_and_named_on_the_page(
    results: dict[str, Any], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NSE with one step of 3 evaluations ends beyond the prior."""
    leave_undrawn(monkeypatch)
    curve = results["schemes"][1]["spectrum"]["uniform"]
    assert curve["diverged"][0] is True
    assert curve["distance"][0] is None
    assert curve["distance"][-1] is not None
    text = report.render(results | {"spectrum_study": results["spectrum_study"] | {"table_budgets": [3]}})
    assert any(cell == "diverged" for row in Page(text).tables["spectrum"] for cell, _ in row)
    assert not any(cell == "diverged" for row in page.tables["spectrum"] for cell, _ in row)


def test_a_scheme_that_diverged_at_several_budgets_is_named_once_beside_the_last(results: dict[str, Any]) -> None:
    study = copy.deepcopy(results)
    curve = study["schemes"][1]["spectrum"]["uniform"]
    curve["diverged"][:2], curve["distance"][:2] = [True, True], [None, None]
    names = [
        [
            text
            for text in axes.texts
            if isinstance(text, Annotation) and text.get_text() == study["schemes"][1]["label"]
        ]
        for axes in figures.cifar10_spectrum(study).axes
    ]
    assert max(map(len, names)) == 1
    assert [curve["budgets"][1]] in [[text.xy[0] for text in found] for found in names]


def test_every_number_in_the_tables_is_in_the_results(results: dict[str, Any], page: Page) -> None:
    """Each numeric cell carries its value, the value is in results.json, and the text is that value rounded."""
    known = _numbers(results["schemes"])
    cells = [cell for name in ("verdicts", "spectrum") for row in page.tables[name] for cell in row]
    valued = [(text, float(value)) for text, value in cells if value is not None]
    assert len(valued) >= 2 * (4 + 2 * 2 + 1)
    for text, value in valued:
        assert value in known
        assert float(text.replace("−", "-").replace("×10", "")) == pytest.approx(value, rel=6e-3)


def test_the_tables_rows_are_the_results_rows(results: dict[str, Any], page: Page) -> None:
    """The right number in the right place: the verdict row field by field, the spectrum row by grid and budget."""
    study = results["spectrum_study"]
    assert study["table_budgets"] == [50, 100]
    for scheme, verdict, distances in zip(
        results["schemes"], page.tables["verdicts"][1:], page.tables["spectrum"][2:], strict=True
    ):
        texts = [text.strip() for text, _ in verdict]
        assert texts[:2] == [scheme["label"], scheme["word"]]
        assert texts[3] == ("yes" if scheme["palindrome"] else "no")
        assert texts[-1] == scheme["verdict"]
        low, high = scheme["order"]["ci"]
        assert texts[7] == f"[{low:.3f}, {high:.3f}]"
        values = [float(value) for _, value in verdict if value is not None]
        orders = [scheme["order"][name] for name in ("expected", "proven", "measured")]
        constants = [scheme[name] for name in ("error_constant", "predicted_constant")]
        shown = [scheme["nfe_per_step"], *orders, *constants]
        assert values == [value for value in shown if value is not None]
        curves = [scheme["spectrum"][grid] for grid in study["grids"]]
        expected = [c["distance"][c["budgets"].index(b)] for c in curves for b in study["table_budgets"]]
        assert [float(value) for _, value in distances if value is not None] == [*expected, curves[0]["floor"]]


def test_the_page_is_self_contained(page: Page, folder: Path) -> None:
    """No script, no style sheet, no picture from elsewhere; references stay within the page and are met."""
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("svg") == len(FIGURES)
    text = (folder / "index.html").read_text("utf-8")
    assert page.references
    for reference in {*page.references, *re.findall(r"url\((.*?)\)", text)}:
        assert reference.startswith("#")
        assert f'id="{reference[1:]}"' in text
    assert "@import" not in text


def test_a_hostile_name_is_text(page: Page, folder: Path) -> None:
    """Names, words and sources come from users: they are shown as they are, and nothing of them is markup."""
    text = (folder / "index.html").read_text("utf-8")
    assert "<script" not in text
    assert "<b>me</b>" not in text
    assert page.tables["verdicts"][1][0][0] == f"{HOSTILE} λ=1.1"
    for name in FIGURES:
        assert "<script" not in (folder / f"figures/{name}.svg").read_text("utf-8")


@pytest.mark.nightly
def test_the_page_is_a_function_of_the_results(results: dict[str, Any], folder: Path) -> None:
    """Rendered again from the JSON file it is the same page: nothing on it has another source."""
    assert report.render(results) == (folder / "index.html").read_text("utf-8")


@pytest.mark.parametrize("name", nightly_but(PICTURES.__contains__, FIGURES))
def test_figures_are_reproducible_to_the_byte(name: str, results: dict[str, Any], folder: Path) -> None:
    svg, png = FILES(results, name)
    assert svg == (folder / f"figures/{name}.svg").read_bytes()
    assert png == (folder / f"figures/{name}.png").read_bytes()


def test_an_interrupted_write_leaves_the_old_file(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that dies leaves the earlier report whole, and no scrap beside it."""
    page = tmp_path / "index.html"
    page.write_text("the old page")
    monkeypatch.setattr(report, "collect_results", lambda *_: results)
    leave_undrawn(monkeypatch)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        report.write_report(_schemes(), PARAMS, tmp_path)
    assert page.read_text() == "the old page"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [page]


def test_a_failed_study_writes_nothing(tmp_path: Path) -> None:
    """Bad input is reported before a file exists."""
    with pytest.raises(ValueError, match="at least one"):
        report.write_report([], PARAMS, tmp_path / "report")
    with pytest.raises(ValueError, match="levels"):
        report.write_report([CATALOGUE["EM"]], PARAMS, tmp_path / "report", steps=(10, 20))
    assert not (tmp_path / "report").exists()


@pytest.mark.nightly
def test_one_scheme_that_always_diverges_can_be_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No error, no point and no fit is still a report, with its verdict."""
    monkeypatch.setattr(figures, "as_png", lambda _: b"")  # of the same figures as the SVG
    monkeypatch.setattr(noise_free, "resolutions_of", lambda _: RESOLUTIONS[:2])  # which no resolution helps
    stiff = Parameters(beta_min=4e4, beta_max=4e4)
    settings = ONE_GRID | {"steps": (100, 200, 400, 700), "budgets": (200, 300)}
    page = report.write_report([CATALOGUE["EM"]], stiff, tmp_path, **settings)
    (scheme,) = json.loads((tmp_path / "results.json").read_text())["schemes"]
    assert scheme["verdict"] == "INCONCLUSIVE"  # too stiff for these steps, which refutes no proof
    assert scheme["order"]["measured"] is None
    assert scheme["error_constant"] is None
    assert "diverges at 700 steps" in page.read_text("utf-8")


@pytest.mark.nightly
def test_a_word_without_evaluations_can_be_reported_alone(tmp_path: Path) -> None:
    """It buys no step, its curve is empty, and its verdict says what is wrong."""
    page = report.write_report([IDLE], PARAMS, tmp_path, **ONE_GRID)
    assert "the weights of E sum to 0" in page.read_text("utf-8")


def test_the_command_of_a_scheme_repeats_its_study(results: dict[str, Any]) -> None:
    """It names the word, the splitting and what differs from the defaults."""
    biased, _ = results["schemes"]
    assert biased["command"] == ("weakorder verify 'O S B A' --splitting psld --lambda-s 1.1 --steps 100,200,400,800")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (3, "3"), (0.0, "0.00"), (1.0, "1.00"), (0.9996, "1.00"), (13.94, "13.9"), (309.2, "309"),
        (2975.5, "2976"), (0.006667, "0.00667"), (-1.25e-5, "−1.25×10<sup>−5</sup>"), (3.2e7, "3.20×10<sup>7</sup>"),
        (999.6, "1000"),
    ],
)  # fmt: skip
def test_numbers_are_set_to_three_significant_digits(value: float | None, text: str) -> None:
    """With powers of ten outside the range that a reader takes in at once."""
    assert pages.number(value) == text


@pytest.mark.nightly
def test_a_black_box_and_a_word_without_evaluations_are_reported_beside_a_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box's order and spectrum are the scheme's; what needs a word, proofs and regions, is the scheme's alone. A
    word that evaluates nothing buys no step, its curve is empty, and its verdict says what is wrong."""
    monkeypatch.setattr(figures, "_lay_out", lambda _: None)  # how figures look does not depend on what is a box
    monkeypatch.setattr(figures, "as_svg", lambda _: b"<svg ></svg>")
    monkeypatch.setattr(figures, "as_png", lambda _: b"")
    box = BlackBox("mine.py:step", as_black_box(CATALOGUE["RSE"], PARAMS))
    page = report.write_report(
        [box, CATALOGUE["RSE"], IDLE],
        PARAMS,
        tmp_path,
        **ONE_GRID | {"steps": (25, 50, 100, 200), "nonlinear": ONE_TARGET},
    )
    mine, scheme, idle = json.loads((tmp_path / "results.json").read_text())["schemes"]
    assert (mine["word"], mine["kind"], mine["order"]["proven"]) == ("black box", "deterministic", None)
    assert mine["verdict"] == scheme["verdict"] == "PASS"
    assert mine["stability"] is None
    assert mine["command"].startswith("weakorder verify mine.py:step")
    pairs = [(mine["spectrum"][grid], scheme["spectrum"][grid]) for grid in mine["spectrum"]]
    for a, b in pairs:
        assert a["diverged"] == b["diverged"]
        finite = [(x, y) for x, y in zip(a["distance"], b["distance"], strict=True) if y is not None]
        assert [x for x, _ in finite] == pytest.approx([y for _, y in finite], rel=1e-8)
    assert "mine.py:step" in page.read_text("utf-8")
    assert idle["verdict"] == "FAIL"
    assert "the weights of E sum to 0" in page.read_text("utf-8")
