"""The page of the CIFAR-10 study: every number is the results', and the files are self-contained and reproducible."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from parsed_page import Page, all_values, values
from synthetic_study import FEW, NAMES, WEAK, Results, parse, photographs, synthetic, with_precisions
from weakorder.reports.pages import cifar10_page
from weakorder.reports.pages.cifar10_page import write_page

FIGURES = ("cifar10-weak", "cifar10-power", "cifar10-distances", "cifar10-theory", "cifar10-training")


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic(NAMES, compared=FEW)


@pytest.fixture(scope="module")
def folder(results: Results, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's page, in a folder that did not exist; its PNGs are blank but under --nightly."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.config.getoption("--nightly"):
            patch.setattr(cifar10_page.figures, "as_png", lambda _: b"")  # of the same figures as the SVG
        page = write_page(results, photographs(results), tmp_path_factory.mktemp("study") / "new" / "folder")
    assert page.name == "index.html"
    return page.parent


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """The page, parsed; its elements are closed in order."""
    parsed = Page((folder / "index.html").read_text("utf-8"))
    assert parsed.open == []
    return parsed


def test_all_files_are_written(folder: Path, results: Results) -> None:
    """The page, the numbers, each figure as SVG and PNG, and nothing else."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pictures = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    assert found == {"index.html", "results.json", *pictures}
    assert json.loads((folder / "results.json").read_text("utf-8")) == results


def test_the_page_is_self_contained(page: Page, folder: Path) -> None:
    """No script, no style sheet, no picture from elsewhere; references are met within the page."""
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("svg") == len(FIGURES)
    text = (folder / "index.html").read_text("utf-8")
    for reference in {*page.references, *re.findall(r"url\((.*?)\)", text)}:
        assert reference.startswith(("#", "data:image/png;base64,"))
        assert reference[0] != "#" or f'id="{reference[1:]}"' in text
    assert "@import" not in text


def test_every_number_of_the_cells_is_in_a_table(page: Page, results: Results) -> None:
    """Weak errors with relative sizes, noise and slopes, moments, strong errors, distances, Frechet distances,
    predictions and published FIDs, orders and correlations; and no other numbers."""
    expected = set()
    for scheme in results["schemes"]:
        expected |= {1, 1.0613, scheme["nfe_per_step"], *scheme["systematic"].values(), *results["settings"]["nfe"]}
        for cell in scheme["cells"]:
            expected |= {cell[key] for key in ("predicted", "predicted_to_data", "published_fid")}
            if not cell["diverged"]:
                for entry in cell["weak"].values():
                    expected |= {entry[key] for key in ("value", "relative", "noise", "slope")}
                    expected |= {entry["ratio"]["value"]} if "ratio" in entry else set()
                entries = [*cell["moments"].values(), *cell["distances"].values(), cell["strong"]]
                expected |= {entry["value"] for entry in entries}
                for distances in filter(None, cell["frechet"].values()):
                    expected |= {v["value"] if isinstance(v, dict) else v for v in distances.values()}
    for entries in results["comparison"]["quantities"].values():
        expected |= {entry[key] for entry in entries for key in ("correlation", "p_value")}
    assert all_values(page) == {float(value) for value in expected if value is not None}


def test_the_rows_of_the_tables_are_the_schemes(page: Page, results: Results) -> None:
    """The right number in the right place: a weak error by scheme and budget, steps, verdict, a Frechet distance."""
    for place, scheme in enumerate(results["schemes"]):
        verdict, reason = page.tables["verdicts"][1 + 2 * place : 3 + 2 * place]
        assert [text for text, _ in verdict[:2]] == [scheme["label"], scheme["word"]]
        assert verdict[3][0] == ", ".join(str(cell["steps"]) for cell in scheme["cells"])
        assert verdict[7][0] == "[0.71, 1.41]"
        assert (verdict[8][0], reason[1][0]) == (scheme["verdict"], scheme["reason"])
        for line, quantity in enumerate(WEAK):
            row = page.tables[f"weak-{line + 1}"][2 + place]
            there = [cell["weak"][quantity] for cell in scheme["cells"] if not cell["diverged"]]
            keys = ("value", "relative", "noise", "slope")
            shown = [entry[key] for entry in there for key in keys if entry[key] is not None]
            assert values([row]) == [*shown, scheme["systematic"][quantity]]
        there = [cell["frechet"]["pixels"] for cell in scheme["cells"] if not cell["diverged"]]
        columns = [[entry[key] for entry in there] for key in ("to_reference", "to_data")]
        excess = [entry["excess"]["value"] for entry in there]
        assert values([page.tables["frechet-1"][2 + place]]) == [*columns[0], *columns[1], *excess]


def test_errors_stand_beside_those_of_one_scheme_at_the_same_cost(page: Page, results: Results) -> None:
    """The ratio of each scheme, quantity and budget, in brackets where an error is noise, and whose ratios they are."""
    assert "Weak errors over those of ROBA at the same budget" in page.text
    for place, scheme in enumerate(results["schemes"]):
        cells = [(quantity, cell) for quantity in WEAK for cell in scheme["cells"] if not cell["diverged"]]
        expected = [cell["weak"][quantity].get("ratio", {}).get("value") for quantity, cell in cells]
        row = page.tables["ratios"][2 + place]
        assert values([row]) == [value for value in expected if value is not None]
        assert (scheme["name"] == "ROBA") is (set(values([row])) == {1.0})
    without = synthetic(("ROBA",))
    for cell in without["schemes"][0]["cells"]:
        for entry in cell["weak"].values():
            entry.pop("ratio", None)
    assert "ratios" not in parse(without).tables


def test_the_page_says_what_was_run(page: Page, results: Results) -> None:
    """Model and how far it was trained, settings, references, device, date, command, versions, seed; reasons."""
    for text in (
        "cifar10_compact.safetensors (shipped): 1,291,491 weights",
        "131,680 images in 4,115 steps, 2.6 passes over CIFAR-10’s 50,000",
        "loss on 500 held-out images 0.0151 ± 0.0016",
        "ν = 4.01", "64 samples a cell", "quadratic grid", "at least 16 times", "float32",
        "ROBA (O S B A), 1,584 steps, 1,585 evaluations", "25 min 34 s", "2026-11-24, 14:03:11 UTC",
        results["command"], "torch 2.5.0", results["schemes"][0]["reason"], *results["comparison"]["disagreements"],
    ):  # fmt: skip
        assert text in re.sub(r"\s+", " ", page.text)


def test_a_scale_of_the_noise_is_said() -> None:
    study = synthetic(("ROBA",))
    assert "noise scaled" not in parse(study).text
    study["settings"]["lambda_s"] = 1.1
    assert "λs = 1.1" in parse(study).text
    study["settings"]["lambda_s"] = [0.9, 1.1]
    assert "λs = 0.9, 1.1" in parse(study).text


def test_the_images_are_those_given(page: Page, results: Results) -> None:
    """To the pixel, eight beside each other, under the scheme and budget that made them."""
    images = photographs(results)
    for scheme in results["schemes"]:
        for cell in scheme["cells"]:
            description = f"{scheme['label']}, {cell['nfe']} evaluations"
            if cell["diverged"]:
                assert description not in page.images
                continue
            data = base64.b64decode(page.images[description].split(",")[1])
            strip = (255 * matplotlib.image.imread(io.BytesIO(data))[..., :3]).round().astype(np.uint8)
            for place, image in enumerate(images[scheme["name"], cell["nfe"]]):
                assert (strip[:, 33 * place : 33 * place + 32] == image).all()
    assert {"reference: ROBA", "reference: RSE"} <= set(page.images)


def test_strips_of_large_images_shrink_to_the_page(folder: Path) -> None:
    """A strip is as wide as its pixels ask for, but in a block that may not be wider than the page: of 64 x 64 images
    eight are wider than most windows."""
    style = (folder / "index.html").read_text("utf-8")
    assert re.search(r"\.block { [^}]*min-width: 0; max-width: 100%;", style)
    assert re.search(r"\.strip img, \.strip em { width: [^;]*; max-width: calc\(100% - var\(--label\)\); }", style)
    assert "aspect-ratio: var(--width) / var(--height)" in style  # what stands for images that are not there


def test_no_number_is_not_a_number(page: Page) -> None:
    for word in ("nan", "None", "inf", "undefined", "null"):
        assert not re.search(rf"(?<![\w.]){word}(?!\w)", page.text)


@pytest.mark.nightly
def test_figures_are_reproducible_to_the_byte(folder: Path, results: Results, tmp_path: Path) -> None:
    """Every file, made again from the results read back."""
    again = json.loads((folder / "results.json").read_text("utf-8"))
    write_page(again, photographs(results), tmp_path)
    for path in folder.rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.123456, 0.0123, "0.123 ± 0.012"), (12.3456, 0.996, "12.3 ± 1.0"), (-0.004, 0.05, "−0.004 ± 0.050"),
        (1234.5, 321.0, "1234 ± 321"), (1.234e-5, 5e-7, "(1.234 ± 0.050)×10<sup>−5</sup>"), (None, 1.0, "–"),
        (0.0, 0.01, "0.000 ± 0.010"), (3.14159, None, "3.14"), (2.5e7, 1e6, "(2.50 ± 0.10)×10<sup>7</sup>"),
        (-1e-9, 0.1, "0.00 ± 0.10"),
    ],
)  # fmt: skip
def test_an_error_is_set_to_two_digits_and_its_value_with_it(value: float | None, error: Any, text: str) -> None:
    assert cifar10_page._uncertain(value, error) == text


def test_what_rounding_changes_is_on_the_page_where_there_are_precisions_and_only_there() -> None:
    plain = synthetic(NAMES, noise=0.002)
    assert "rounding" not in parse(plain).tables
    results = with_precisions(plain)
    page = parse(results)
    assert [row[0][0] for row in page.tables["rounding"][2:]] == ["tf32", "bfloat16"]
    assert values(page.tables["rounding"]) == pytest.approx([0.004] * 8 + [1.5] + [0.05] * 8 + [1.5])
    cells = [cell for scheme in results["schemes"] for cell in scheme["cells"] if not cell["diverged"]]
    expected = [
        cell["precisions"][precision]["change"][name]["value"]
        for cell in cells
        for precision in ("tf32", "bfloat16")
        for name in WEAK
    ]
    assert values([row[2:] for row in page.tables["changes"]]) == expected
    assert "precisions float32, tf32, bfloat16 (numbers without a precision are float32’s)" in page.text
    assert "tf32 and bfloat16 are imitated there" in page.text
