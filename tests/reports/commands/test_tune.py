"""`weakorder tune`: answers for people and for programs, files, going on where it was stopped, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from weakorder.integrators.grids import read_times
from weakorder.reports.commands.cli import cli
from weakorder.reports.pages import tune as pages
from weakorder.reports.pages.orders import with_table

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--nfe", "4", "--keep", "denoise", "eps", "--growth", "1e9")
ALONE = ("--nfe", "4", "--keep", "denoise", "eps", "grid")  # lambda_s is all that is left


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures of 6 x 8 pixels, which are resized to 4 x 4."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(9):
        pixels = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def tune(line: Run, pictures: Path) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        return line("tune", *words, "--data", str(pictures), "--side", "4")

    return run


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search for `ALONE`."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    words = ["tune", "vp-EM", *ALONE, "-o", str(folder), "--data", str(pictures), "--side", "4"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def out(alone: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(alone, tmp_path / "out"))


def test_tune_answers_as_json_with_the_settings_that_are_nearest(tune: Run, tmp_path: Path) -> None:
    """Claim: for a folder of pictures: the published settings, one exponent and the free grid at the budget, each
    nearer than the one before, with growth, curves and what holds elsewhere; the files hold the same."""
    code, out, err = tune("vp-EM", *QUICK, "--json", "-o", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["data"] == {"name": "pictures", "images": 9, "dimensions": 48}
    (scheme,) = found["schemes"]
    (entry,) = scheme["budgets"]
    published, family, free = (entry[key] for key in ("published", "family", "free"))
    assert published["rho"] == 2
    assert published["lambda_s"] == 1
    assert published["distance"] > family["distance"] >= free["distance"] > 0
    for one in (published, family, free):
        assert one["steps"] == 3
        assert one["evaluations"] == 4
        assert one["growth"]["growth"] >= 1
        assert one["eps"] == 1e-3
    assert {curve["name"] for curve in entry["curves"]} == {"lambda_s", "rho", "blend"}
    assert len(entry["elsewhere"]) == 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"tune.json", "tune-vp_EM.svg", "tune-distances.svg", "grid-vp_EM-4.txt", "parts"}
    times = np.array(read_times(tmp_path / "out" / "grid-vp_EM-4.txt").split(", "), dtype=float)
    assert times == pytest.approx((1 - 1e-3) * np.array(entry["best"]["fractions"]), abs=1e-15)


def test_tune_prints_a_table_and_where_not_to_trust_it(tune: Run) -> None:
    code, out, err = tune("vp-EM", *ALONE)  # in no folder
    assert code == 0, err
    assert "on the spectrum of pictures (9 images, 48 eigenvalues)" in out
    rows = [row for row in out.splitlines() if row.startswith(("as published", "one exponent", "free grid"))]
    assert len(rows) == 2
    for words in ("within 10% of the optimum", "were followed", "on other data", "step lengths off"):
        assert words in out


@pytest.mark.nightly
def test_a_run_that_was_stopped_goes_on_and_searches_nothing_twice(
    tune: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("vp-EM", *ALONE, "--json", "-o", str(out))
    first = json.loads((out / "tune.json").read_text())

    def never(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(pages, "_searched", never)
    monkeypatch.setattr(pages, "_around", never)
    second = json.loads(tune(*words)[1])
    assert second["schemes"] == first["schemes"]
    code, _, err = tune(*words, "--growth", "1.5")
    assert (code, "searched again" in err) == (2, True)


def test_a_part_that_is_damaged_is_named(tune: Run, out: Path) -> None:
    words = ("vp-EM", *ALONE, "-o", str(out))
    part = next((out / "parts").glob("search-*"))
    part.write_text("{")
    code, _, err = tune(*words)
    assert code == 2
    assert "cannot be read; remove it" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ROBA", "--nfe", "1"), "nfe = 1: give 2"),
        (("NOBA", "--nfe", "2"), "a step of 'NOBA' takes 2 and the denoising step one; give 3 or more"),
        (("ROBA", "ROBA"), "ROBA is given twice"),
        (("ROBA", "--growth", "1"), "growth = 1: the exact dynamics have growth 1"),
        (("ROBA", "--growth", "nan"), "growth = nan"),
        (("ROBA", "--keep", "rho"), "'rho' is not one of"),
        (("ROBA", "--on-network"), "name one with -o DIR"),
        (("ROBA", "-o", "."), "no folder to write to"),
        (("ROBA", "--crop", "3"), "--crop 3 is of the pictures of --data"),
        (("ROBA", "--data", "nowhere"), "there is no such file"),
        (("O A B", "--nfe", "5"), "no S stands before"),
        ((), "Missing argument"),
    ],
)
def test_bad_input_is_refused_in_one_line(words: tuple[str, ...], message: str, line: Run, tmp_path: Path) -> None:
    code, out, err = line("tune", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_the_table_of_the_page_stands_between_its_marks() -> None:
    text = f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter"
    assert with_table(text, "new", (pages.BEGIN, pages.END)) == f"before\n{pages.BEGIN}\nnew\n{pages.END}\nafter"
    with pytest.raises(ValueError, match="no place for the table"):
        with_table("no marks", "new", (pages.BEGIN, pages.END))
