"""`weakorder search`: its table, page and JSON are the search's; bad input is one line with exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import Run
from markupsafe import escape
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL
from weakorder.reports.pages.search import render, write_search
from weakorder.theory.splitting import PSLD_LINEAR
from weakorder.verification.advice.search_settings import Search
from weakorder.verification.advice.search_state import SearchState

ASKED = "--parts psld-linear --nfe 20 --length 3 --flow euler --frozen score --memory 1 --growth 99"
WORDS = ("search", *ASKED.split())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, line: Run) -> Run:
    """The command line in this process and no other."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    return line


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that was made without the command."""
    folder = tmp_path_factory.mktemp("search") / "found"
    write_search(
        Search((PSLD_LINEAR,), 20, 3, flows=("euler",), growth=99.0), folder, lambda what, total: lambda _: None
    )
    return folder


def test_the_answer_is_the_searchs(run: Run, found: Path, tmp_path: Path) -> None:
    """As JSON on stdout and in the folder, and as a table; a search that was made is not made again."""
    folder = tmp_path / "again"
    shutil.copytree(found, folder)
    before = json.loads((found / "search.json").read_text())
    code, out, _ = run(*WORDS, "-o", str(folder), "--json")
    assert code == 0
    results = json.loads(out)
    assert results == json.loads((folder / "search.json").read_text())
    assert results | {"date": ""} == before | {"date": ""}
    assert (folder / "search-state.json").read_bytes() == (found / "search-state.json").read_bytes()
    code, out, _ = run(*WORDS, "-o", str(folder))
    assert code == 0
    lines = out.splitlines()
    for place, entry in enumerate(results["best"], 1):
        assert entry["word"] in lines[place]
        assert f"{entry['distance']:.4g}" in lines[place]
    assert sum(line.startswith("assumed: ") for line in lines) == len(results["assumptions"])


def test_the_page_shows_the_best_beside_the_catalogue(found: Path) -> None:
    """Every word with its distance, the front as a figure, and what is taken for granted."""
    results, page = json.loads((found / "search.json").read_text()), (found / "search.html").read_text()
    assert results["best"]
    assert len(results["catalogue"]) == len(CATALOGUE | EXPONENTIAL)
    for entry in (*results["best"], *results["catalogue"]):
        assert f"<code>{entry['word']}</code>" in page
        assert entry["distance"] is None or f'data-value="{entry["distance"]}"' in page
    for sentence in results["assumptions"]:
        assert escape(sentence) in page
    assert page.count("<svg") == 1
    assert 'id="network"' not in page


def test_another_search_does_not_go_on_in_its_folder(run: Run, tmp_path: Path) -> None:
    """The state says of which it is, and stays."""
    with SearchState(tmp_path / "search-state.json", {"nfe": 1}) as state:
        state.keep("a", 1)
    code, out, err = run(*WORDS, "-o", str(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "choose another folder" in err
    assert json.loads((tmp_path / "search-state.json").read_text())["done"] == {"a": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nfe", "1"], "nfe = 1"),
        (["--nfe", "x"], "not an integer"),
        (["--length", "1"], "length = 1"),
        (["--length", "99"], "12 letters"),
        (["--parts", "nowhere"], "splitting 'nowhere' is unknown"),
        (["--parts", "psld", "vp-whole"], "one diffusion"),
        (["--parts", "langevin"], "adds no noise"),
        (["--weights", "x"], "--weights 'x' is not a number"),
        (["--weights", "1/0"], "--weights '1/0' is not a number"),
        (["--weights", "2"], "outside (0, 1]"),
        (["--times", "3"], "outside [0, 1]"),
        (["--memory", "9"], "memory 9"),
        (["--flow", "euler", "--frozen", "data"], "no words"),
        (["--order", "7"], "order = 7"),
        (["--growth", "0.5"], "growth = 0.5"),
        (["--growth", "nan"], "growth = nan"),
        (["--grid", "log"], "unknown"),
        (["--gamma", "-1"], "gamma = -1 is negative"),
        (["--on-network", "--samples", "1"], "it must be >= 2"),
        (["--on-network", "--best", "0"], "it must be >= 1"),
        (["--best", "2"], "--on-network"),
        (["-o", "."], "no folder"),
    ],
)
def test_bad_input_is_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    folder = [] if "-o" in arguments else ["-o", str(tmp_path / "found")]
    code, out, err = run("search", *arguments, *folder)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert said in err
    assert not (tmp_path / "found").exists()


NETWORK = {
    "checkpoint": "a network",
    "samples": 16,
    "nfe": 20,
    "grid": "quadratic",
    "references": [{"name": "fine", "steps": 392}],
    "against": "RES-2",
    "words": [
        {"label": "S X", "steps": 19, "nfe": 20, "error": 0.5, "standard_error": 0.1, "sure": True, "ratio": 2.0}
        | {"ratio_error": 0.25, "ends": "loses", "predicted": 1.0},
        {"label": "S Y", "steps": 19, "nfe": 20, "error": None, "standard_error": None, "sure": False, "ratio": None}
        | {"ratio_error": None, "ends": "loses", "predicted": None},
    ],
    "catalogue": [
        {"label": "RES-2", "steps": 19, "nfe": 20, "error": 0.25, "standard_error": 0.1, "sure": False, "ratio": 1.0}
        | {"ratio_error": 0.0, "ends": None, "predicted": 1.0}
    ],
}


def test_the_page_says_who_won_on_the_network(found: Path) -> None:
    """From its results alone; a run that diverged has a dash."""
    results = json.loads((found / "search.json").read_text()) | {"network": NETWORK}
    page = render(results)
    assert "16 samples of each from a network" in page
    table = page.partition('<table id="network">')[2].partition("</table>")[0]
    assert table.count("<tr>") == 4
    assert "loses" in table
    assert "–" in table
