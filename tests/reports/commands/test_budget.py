"""`weakorder budget` as a shell runs it, and the table of the page on why schemes differ, whose numbers it made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import Run
from selection import nightly_but
from synthetic_study import synthetic

BOX = """
def step(u, tau, h, score):
    return u + 0 * score(u, 1 - tau)
"""


def test_terms_add_up_in_the_table_and_in_json(line: Run) -> None:
    code, out, _ = line("budget", "ROBAB", "--nfe", "21", "--json")
    (answer,) = json.loads(out)["budgets"]
    assert code == 0
    assert (answer["nfe"], answer["steps"]) == (21, 10)
    for measure, whole in answer["whole"].items():
        assert sum(term[measure] for term in answer["terms"]) == pytest.approx(whole, rel=1e-9)
    code, out, _ = line("budget", "ROBAB", "--nfe", "21")
    rows = {re.split(r"\s{2,}", row)[0]: row.split()[-4:] for row in out.splitlines() if re.search(r"\d$", row)}
    for term in answer["terms"]:
        assert float(rows[term["term"]][0]) == pytest.approx(term["distance"], rel=1e-3)
    assert "network: not known without your network" in out
    assert out.count("assumes: ") == 3


def test_one_gaussian_has_its_moments(line: Run) -> None:
    data = ["RVV", "--steps", "5", "--data-variance", "0.25", "--data-mean", "1", "--json"]
    out = line("budget", *data)[1]
    (answer,) = json.loads(out)["budgets"]
    assert list(answer["whole"]) == ["distance", "mean x", "mean m", "cov xx", "cov xm", "cov mm"]
    moments = json.loads(line("moments", *data, "--start", "prior")[1])
    out = line("budget", *data, "--no-denoise")[1]
    (answer,) = json.loads(out)["budgets"]
    assert answer["whole"]["mean x"] == pytest.approx(moments["mean"][0] - 1, rel=1e-9)
    assert answer["whole"]["cov xx"] == pytest.approx(moments["cov"][0][0] - 0.25, rel=1e-9)


def test_several_stand_side_by_side(line: Run) -> None:
    out = line("budget", "NOBA", "ROBA", "--nfe", "20,40", "--data-variance", "0.1")[1]
    header = next(row for row in out.splitlines() if row.startswith("distance"))
    assert [name for name in header.split() if name.isalpha()] == ["distance", "NOBA", "NOBA", "ROBA", "ROBA"]
    sharing = next(row for row in out.splitlines() if row.startswith("sharing of A")).split()
    assert sharing[3:5] == ["-", "-"]
    assert "-" not in sharing[5:]


def test_options_change_the_scheme(line: Run) -> None:
    plain, scaled = (
        json.loads(line("budget", "ROBA", "--nfe", "20", "--data-variance", "1", *more, "--json")[1])["budgets"][0]
        for more in ([], ["--lambda-s", "1.2"])
    )
    assert [term["term"] for term in scaled["terms"]] == ["lambda_s", *(term["term"] for term in plain["terms"])]
    left = scaled["whole"]["cov xx"] - scaled["terms"][0]["cov xx"]
    assert left == pytest.approx(plain["whole"]["cov xx"], rel=1e-9)


def test_the_leading_errors_of_all_terms_that_come_from_steps_are_printed(line: Run) -> None:
    words = ["budget", "ROBA", "--lambda-s", "1.2", "--nfe", "5", "--data-variance", "1", "--leading"]
    answer = json.loads(line(*words, "--json")[1])
    terms = answer["leading"]["ROBA"]
    assert [term["term"] for term in terms] == [term["term"] for term in answer["budgets"][0]["terms"][:-3]]
    assert [term["power"] for term in terms] == [1] + [2] * (len(terms) - 1)
    assert terms[0]["coefficients"] == {"dx^2": "beta*gamma*lambda_s^2 - beta*gamma"}
    out = line(*words)[1]
    assert all(f"{term['term']}, times h^{term['power']}\n" in out for term in terms)
    code, out, err = line("budget", "SAB2", "--nfe", "5", "--leading")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "choose memory 1" in err


def test_a_folder_gets_the_figure_and_the_numbers(line: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "budget"
    out = line("budget", "EM", "vp-DDPM", "--nfe", "10,20", "--data-variance", "0.1", "-o", str(folder))[1]
    assert f"wrote {folder / 'budget.svg'}" in out
    assert {path.name for path in folder.iterdir()} == {"budget.svg", "budget.png", "budget.json"}
    curves = json.loads((folder / "budget.json").read_text())["curves"]
    assert [[budget["nfe"] for budget in curve["budgets"]] for curve in curves] == [[10, 20], [10, 20]]
    assert (folder / "budget.svg").read_bytes().startswith(b"<?xml")


def test_a_black_box_has_its_steps_as_one_term(line: Run, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text(BOX)
    code, out, err = line("budget", f"{tmp_path / 'box.py'}:step", "--nfe", "6", "--data-variance", "1", "--json")
    answer = json.loads(out)
    assert code == 0, err
    assert [term["term"] for term in answer["budgets"][0]["terms"]] == ["steps", "prior", "denoising", "cut-off"]
    assert any("black box" in sentence for sentence in answer["assumes"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ROBA", "--nfe", "0"], "--nfe 0: a run has at least 1 evaluation"),
        (["ROBAB", "--nfe", "2"], "--nfe 2 buys no step of ROBAB, which takes 2 a step and 1 for the denoising step"),
        (["ROBA", "--nfe", "20", "--steps", "3"], "give one of them"),
        (["ROBA", "--steps", "0"], "steps = 0"),
        (["ROBA", "--data-variance", "-1"], "variance is finite and >= 0"),
        (["ROBA", "-o", ""], "no folder to write to"),
        (["SDE-DPM-Solver++2M", "--steps", "2"], "take shorter steps"),
        (["NOSUCH"], "neither a scheme of the catalogue nor a word"),
        (["ROBA", "--grid", "nowhere"], "grid 'nowhere' is unknown"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line(line: Run, words: list[str], says: str) -> None:
    code, out, err = line("budget", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


_NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]\d+)?")

# --- The page of one screen -------------------------------------------------------------------------------------------

WHY = (Path(__file__).parents[3] / "docs" / "understand" / "why-schemes-differ.md").read_text()


def cell_of(answer: dict) -> str:
    """A cell of its table, from the command's JSON: the distance and its three largest terms."""
    terms = sorted(answer["terms"], key=lambda term: -abs(term["distance"]))[:3]
    return f"{answer['whole']['distance']:.3g}: " + ", ".join(f"{t['term']} {t['distance']:.3g}" for t in terms)


@pytest.mark.parametrize(
    ("name", "nfe"),
    nightly_but(
        lambda case: case == ("EM", 20),
        [(name, nfe) for name in ("EM", "SSCS", "ROBA", "SDE-DPM-Solver++2M") for nfe in (20, 50, 100)],
    ),
)
def test_why_schemes_differ_is_what_the_command_says(line: Run, name: str, nfe: int) -> None:
    row = next(row for row in WHY.splitlines() if row.startswith(f"| {name} |"))
    said = row.split("|")[2 + (20, 50, 100).index(nfe)].strip()
    out = line("budget", name, "--nfe", str(nfe), "--grid", "quadratic", "--json")[1]
    found = cell_of(json.loads(out)["budgets"][0])
    assert _NUMBER.sub("#", said) == _NUMBER.sub("#", found)
    shown, numbers = ([float(n) for n in _NUMBER.findall(text)] for text in (said, found))
    assert shown == pytest.approx(numbers, rel=0.006)


def test_a_table_of_another_budget_is_seen(line: Run) -> None:
    out = line("budget", "EM", "--nfe", "20", "--json")[1]  # on the uniform grid
    assert cell_of(json.loads(out)["budgets"][0]) not in WHY


def test_a_study_says_what_the_network_adds(line: Run, tmp_path: Path) -> None:
    """The fine run's distance to the data, and with it what is left to the steps, of the study's own cell."""
    study = synthetic(("ROBA", "EM"), (20, 50))
    (tmp_path / "results.json").write_text(json.dumps(study))
    asked = ["budget", "ROBA", "--nfe", "50", "--grid", "quadratic", "--data-variance", "1", "--study", str(tmp_path)]
    answer = json.loads(line(*asked, "--json")[1])
    (scheme,) = (scheme for scheme in study["schemes"] if scheme["name"] == "ROBA")
    (cell,) = (cell for cell in scheme["cells"] if cell["nfe"] == 50)
    assert [entry["space"] for entry in answer["network"]] == ["pixels", "features"]
    for entry in answer["network"]:
        distances = cell["frechet"][entry["space"]]
        assert entry["whole"] == distances["to_data"]
        assert (entry["sampler"], entry["nfe"], entry["steps"]) == ("ROBA", 50, 49)
        assert entry["by_network"] + entry["by_steps"] == pytest.approx(distances["to_data"], rel=1e-12)
        assert (entry["by_steps"], entry["standard_error"]) == tuple(distances["excess"].values())
    out = line(*asked)[1]
    assert f"features of 64 samples: {cell['frechet']['features']['to_data']:.4g} from the data" in out
    for other in (["--grid", "uniform"], ["--nfe", "30"], ["--nu", "4"], ["--lambda-s", "1.1"]):
        out = line(*asked, *other)[1]
        assert "ROBA @ " in out
        assert "not known, the study has no such run" in out


def test_what_is_no_study_is_refused_in_one_line(line: Run, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text(BOX)
    (tmp_path / "results.json").write_text(json.dumps(synthetic(("ROBA",), (20,))))
    (tmp_path / "other.json").write_text("[]")
    for x, study, message in (
        ("ROBA", tmp_path / "none", "No such file"),
        ("ROBA", tmp_path / "other.json", "it holds no study"),
        (f"{tmp_path / 'box.py'}:step", tmp_path, "is a black box; --study is for schemes"),
    ):
        code, _, err = line("budget", x, "--steps", "3", "--data-variance", "1", "--study", str(study))
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
