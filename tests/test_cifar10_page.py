"""The page of the CIFAR-10 study: every number is the results', what is missing is named, what diverged has none."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports import cifar10_figures, cifar10_page, cifar10_scatter, figures
from weakorder.reports.cifar10_page import write_page
from weakorder.verification.cifar10.rounding import summarise

Results = dict[str, Any]

BUDGETS = (20, 50, 100)
MOMENTS = tuple(f"{moment}, {colour}" for colour in ("red", "green", "blue") for moment in ("x^3", "x^4"))
WEAK = ("mean", "spectrum", "higher moments", "Fourier features")
FRECHET = tuple(
    f"Fréchet distance of {space} to {end}" for space in ("pixels", "features") for end in ("reference", "data")
)
COMPARED = (*WEAK, "energy", "sliced Wasserstein", "strong", *FRECHET, "published FID")
SHOWN = 8
# The Gaussian reading at these budgets, rounded (`weakorder.verification.spectrum`, quadratic grid).
PREDICTED = {
    "EM": (19.6, 3.86, 1.06), "SSCS": (114, 37.9, 12.9), "NOBA": (385, 15.3, 2.99), "NBAO": (190, 5.40, 1.99),
    "NOBAB": (94.9, 7.66, 4.92), "ROBA": (27.2, 3.04, 0.739), "RBAO": (8.60, 2.12, 0.751), "ROBAB": (9.45, 3.73, 1.53),
    "NSE": (167, 9.93, 3.03), "NVV": (None, 24.0, 5.42), "RSE": (14.8, 3.03, 0.871), "RVV": (41.0, 2.20, 0.65),
}  # fmt: skip
FIDS = {("EM", 50): 30.81, ("EM", 100): 7.83, ("SSCS", 100): 4.83, ("NOBA", 50): 36.87, ("ROBA", 50): 2.76,
        ("ROBA", 100): 2.36, ("NVV", 50): 69.06, ("RVV", 50): 14.19}  # fmt: skip
DIVERGED = {("NVV", 20), ("NOBAB", 20)}


def synthetic(
    names: tuple[str, ...] = tuple(CATALOGUE),
    budgets: tuple[int, ...] = BUDGETS,
    noise: float = 0.04,
    compared: tuple[str, ...] = COMPARED,
) -> Results:
    """Results of the kind that a study writes, from a fixed generator: plausible sizes, nothing sampled."""
    rng = np.random.default_rng(7)
    schemes = []
    for name in names:
        scheme = CATALOGUE[name]
        stochastic = any(part.sde.has_noise for part in scheme.parts)
        rows = []
        for place, nfe in enumerate(budgets):
            predicted = PREDICTED[name][place]
            steps = (nfe - 1) // scheme.nfe_per_step
            row: Results = {
                "nfe": nfe,
                "steps": steps,
                "evaluations": steps * scheme.nfe_per_step + 1,
                "diverged": (name, nfe) in DIVERGED,
                "predicted": predicted,
                "predicted_to_data": None if predicted is None else predicted + 0.0069,
                "published_fid": FIDS.get((name, nfe)),
            }
            if row["diverged"]:
                rows.append(row | dict.fromkeys(("weak", "power", "moments", "strong", "distances", "frechet")))
                continue
            size = float(np.sqrt(predicted) * np.exp(0.25 * rng.standard_normal()))
            rows.append(row | _found(rng, size, noise, None if place == 0 else 1.1, stochastic))
        schemes.append(
            {
                "name": name,
                "label": name,
                "word": scheme.word,
                "splitting": scheme.splitting.name,
                "nfe_per_step": scheme.nfe_per_step,
                "kind": "stochastic" if stochastic else "deterministic",
                "reference": 0 if stochastic else 1,
                "source": scheme.reference,
                "verdict": "PASS" if name in ("EM", "RVV") else "FAIL" if name == "NVV" else "INCONCLUSIVE",
                "reason": "not resolved: higher moments; 3 neighbouring budgets stand above noise with 310 samples",
                "order": {"expected": 1, "proven": 1, "measured": 1.0613, "ci": [0.713, 1.409]},
                "systematic": dict(zip(WEAK, (0.0011, 0.021, 0.013, 0.0012), strict=True)),
                "warnings": [],
                "fits": {"spectrum": {"order": 1.0613, "low": 0.713, "high": 1.409, "steps": [19, 99]}},
                "cells": rows,
            }
        )
    return {
        "date": "2026-11-24T14:03:11+00:00",
        "command": "weakorder cifar10 study --nfe 20 50 100 -o cifar10-study",
        "versions": {"weakorder": "0.1.0", "python": "3.11.9", "numpy": "2.1.1", "torch": "2.5.0"},
        "device": "cpu",
        "seconds": 1534.5,
        "model": {
            "checkpoint": "cifar10_compact.safetensors (shipped)",
            "weights": 1291491,
            "network": {"nf": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [16], "fir": True},
            "parameters": {"gamma": 0.01, "nu": 4.01, "kappa": 0.04, "beta_min": 8.0, "beta_max": 8.0, "eps": 0.001},
            "steps": "4115",
            "images_seen": "131680",
            "held_out_loss": {"value": 0.01512, "standard_error": 0.00163, "images": 500},
            "losses": {
                "steps_per_point": 50,
                "loss": [float(v) for v in 0.015 + 60 / (50.0 * np.arange(1, 83)) ** 1.05],
            },
        },
        "settings": {
            "samples": 64,
            "grid": "quadratic",
            "nfe": list(budgets),
            "seed": 0,
            "lambda_s": None,
            "refinement": 16,
            "precisions": ["float32"],
            "imitated": [],
            "t_end": 0.001,
            "data": "512 images (shipped)",
        },
        "references": [
            {"kind": "stochastic", "name": "ROBA", "word": "O S B A", "steps": 1584, "evaluations": 1585},
            {"kind": "deterministic", "name": "RSE", "word": "S B A", "steps": 1584, "evaluations": 1585},
        ],
        "schemes": schemes,
        "comparison": {
            "quantities": {
                quantity: [
                    {
                        "nfe": nfe,
                        "schemes": list(names),
                        "correlation": 0.91 - 0.13 * k - place / 100,
                        "interval": [0.31 - k / 7, 0.97] if quantity in WEAK else None,
                        "p_value": 0.0123 * (k + 1),
                    }
                    for k, nfe in enumerate([*budgets, None])
                ]
                for place, quantity in enumerate(compared)
            },
            "disagreements": ["at 50 evaluations NOBA ranks 2nd by prediction and 7th by the energy distance"],
        },
        "grid_samples": list(range(SHOWN)),
    }


def _found(rng: np.random.Generator, size: float, noise: float, slope: float | None, stochastic: bool) -> Results:
    """What a cell's samples say if its errors are of this size."""

    def number(value: float, error: float) -> Results:
        return {"value": float(value + error * rng.standard_normal()), "standard_error": error}

    weak = {}
    for name, scale in zip(WEAK, (0.04, 0.5, 0.3, 0.03), strict=True):
        level = noise * scale * (1 + 0.1 * size) * (4 if name == "higher moments" else 1)
        entry = number(0.12 * scale * size, 0.6 * level)
        entry["value"] = max(entry["value"], 0.0)
        sure = entry["value"] > 4 * level
        weak[name] = entry | {"noise": level, "relative": entry["value"] / 0.47, "sure": sure, "slope": slope}
    k = np.array([*range(17), 18.93])
    bend = 0.05 * size * np.log(np.maximum(k, 0.5) / 3)
    ratio = [np.exp(bend + 0.03 * rng.standard_normal(18) + 0.02 * channel) for channel in range(3)]
    return {
        "weak": weak,
        "power": {
            "wavenumber": k.tolist(),
            "ratio": [row.tolist() for row in ratio],
            "standard_error": [(0.03 + 0.12 / (k + 1) * row).tolist() for row in ratio],
        },
        "moments": {name: number(0.01 * size, noise / 10) for name in MOMENTS},
        "distance_samples": 64,
        "strong": number((0.1 if stochastic else 0.03) * size**0.5, 0.002),
        "distances": {
            "energy": number(0.04 * size**2, 0.01 * (1 + size)),
            "sliced Wasserstein": number(0.02 * size, 0.004),
        },
        "frechet": {
            "pixels": {"to_reference": 90.0 + size**2, "to_data": 310.0 + size**2, "excess": number(size**2, 0.8)},
            "features": {"to_reference": 1.1 + size / 10, "to_data": 6.2 + size / 5, "excess": number(size / 5, 0.08)},
            "inception": None,
        },
    }


def photographs(results: Results) -> dict[Any, np.ndarray]:
    """Real images, shifted a little in colour from scheme to scheme; of diverged cells, garbage that must not show."""
    source = resources.files("weakorder.verification.data") / "cifar10_images.npz"
    with resources.as_file(source) as path:
        images = np.load(path)["images"][:SHOWN].astype(int)
    shown: dict[Any, np.ndarray] = {r["name"]: images.astype(np.uint8) for r in results["references"]}
    for place, scheme in enumerate(results["schemes"]):
        for cell in filter(None, scheme["cells"]):
            moved = np.clip(images + 3 * place - cell["nfe"] // 10, 0, 255).astype(np.uint8)
            shown[scheme["name"], cell["nfe"]] = 255 - moved if cell["diverged"] else moved
    return shown


def with_precisions(results: Results, precisions: tuple[str, ...] = ("tf32", "bfloat16")) -> Results:
    """The same with twins of every cell, whose changes are some thousandths and hundredths of its weak errors."""
    results = copy.deepcopy(results)
    results["settings"]["precisions"] += precisions
    results["settings"]["imitated"] = list(precisions)
    entries = []
    for scheme in results["schemes"]:
        for cell in filter(None, scheme["cells"]):
            cell["precisions"] = {}
            for precision, part in zip(precisions, (0.004, 0.05), strict=False):
                change = {
                    name: {
                        **error,
                        "value": part * error["value"],
                        "standard_error": 1e-6,
                        "noise": 1e-6,
                        "share": part,
                    }
                    for name, error in (cell["weak"] or {}).items()
                }
                cell["precisions"][precision] = {"seconds": 3.0, "diverged": not change, "change": change}
            entries.append((scheme["name"], cell | {"seconds": 2.0}))
    return results | {"rounding": summarise(entries)}


# --- The claims -----------------------------------------------------------------------------------------------------

FEW = ("spectrum", "strong", "Fréchet distance of pixels to reference", "published FID")
NAMES = ("EM", "NOBAB", "ROBA", "NVV", "RVV")  # both kinds, one diverged cell of each
HOSTILE = "<script>alert('x')</script> & $\\frac{"
FIGURES = ("cifar10-weak", "cifar10-power", "cifar10-distances", "cifar10-theory", "cifar10-training")


class _Page(HTMLParser):
    """A page's tables as lists of cells (text, value), its images by description, and what it refers to."""

    VOID = frozenset({"meta", "br", "link", "img", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.images: dict[str, str] = {}
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action", "srcset")]
        if tag == "img":
            self.images[attributes["alt"] or ""] = attributes["src"] or ""
        elif tag == "table":
            self.rows = self.tables[attributes["id"] or ""] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(("", attributes.get("data-value")))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "svg"} & set(self.open):
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            text, value = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, value)


def _parse(results: Results, images: dict[Any, np.ndarray] | None = None) -> _Page:
    """The page without figures, which cost the most."""
    page = _Page(cifar10_page.render(results, photographs(results) if images is None else images, {}))
    assert page.open == []
    return page


def _values(rows: list[list[tuple[str, str | None]]]) -> list[float]:
    return [float(value) for row in rows for _, value in row if value is not None]


def _shown(page: _Page) -> set[float]:
    return {value for rows in page.tables.values() for value in _values(rows)}


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic(NAMES, compared=FEW)


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's page, in a folder that did not exist."""
    page = write_page(results, photographs(results), tmp_path_factory.mktemp("study") / "new" / "folder")
    assert page.name == "index.html"
    return page.parent


@pytest.fixture(scope="module")
def page(folder: Path) -> _Page:
    """The page, parsed; its elements are closed in order."""
    parsed = _Page((folder / "index.html").read_text("utf-8"))
    assert parsed.open == []
    return parsed


def test_all_files_are_written(folder: Path, results: Results) -> None:
    """The page, the numbers, each figure as SVG and PNG, and nothing else."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pictures = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    assert found == {"index.html", "results.json", *pictures}
    assert json.loads((folder / "results.json").read_text("utf-8")) == results


def test_the_page_is_self_contained(page: _Page, folder: Path) -> None:
    """No script, no style sheet, no picture from elsewhere; references are met within the page."""
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("svg") == len(FIGURES)
    text = (folder / "index.html").read_text("utf-8")
    for reference in {*page.references, *re.findall(r"url\((.*?)\)", text)}:
        assert reference.startswith(("#", "data:image/png;base64,"))
        assert reference[0] != "#" or f'id="{reference[1:]}"' in text
    assert "@import" not in text


def test_every_number_of_the_cells_is_in_a_table(page: _Page, results: Results) -> None:
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
                entries = [*cell["moments"].values(), *cell["distances"].values(), cell["strong"]]
                expected |= {entry["value"] for entry in entries}
                for distances in filter(None, cell["frechet"].values()):
                    expected |= {v["value"] if isinstance(v, dict) else v for v in distances.values()}
    for entries in results["comparison"]["quantities"].values():
        expected |= {entry[key] for entry in entries for key in ("correlation", "p_value")}
    assert _shown(page) == {float(value) for value in expected if value is not None}


def test_the_rows_of_the_tables_are_the_schemes(page: _Page, results: Results) -> None:
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
            assert _values([row]) == [*shown, scheme["systematic"][quantity]]
        there = [cell["frechet"]["pixels"] for cell in scheme["cells"] if not cell["diverged"]]
        columns = [[entry[key] for entry in there] for key in ("to_reference", "to_data")]
        excess = [entry["excess"]["value"] for entry in there]
        assert _values([page.tables["frechet-1"][2 + place]]) == [*columns[0], *columns[1], *excess]


def test_the_page_says_what_was_run(page: _Page, results: Results) -> None:
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
    assert "noise scaled" not in _parse(study).text
    study["settings"]["lambda_s"] = 1.1
    assert "λs = 1.1" in _parse(study).text
    study["settings"]["lambda_s"] = [0.9, 1.1]
    assert "λs = 0.9, 1.1" in _parse(study).text


def test_a_network_of_unknown_training_is_called_so() -> None:
    study = synthetic(("ROBA",))
    study["model"] |= {"steps": None, "images_seen": None, "held_out_loss": None, "losses": None}
    page = _parse(study)
    assert "unknown: the checkpoint does not say" in page.text
    assert "held-out" not in page.text
    assert cifar10_figures.training(study["model"]) is None


def test_the_images_are_those_given(page: _Page, results: Results) -> None:
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


def test_a_diverged_cell_shows_no_number_and_no_image() -> None:
    """Even where the results hold some: only that it diverged, and what was predicted."""
    study = synthetic(("RVV", "EM"))
    poisoned = study["schemes"][1]["cells"][0]
    before = _parse(study)
    garbage = 12345.678
    poisoned["diverged"] = True
    poisoned["strong"] = {"value": garbage, "standard_error": garbage}
    poisoned["weak"]["mean"] |= {"value": garbage, "relative": garbage, "noise": garbage}
    poisoned["frechet"]["pixels"]["to_data"] = garbage
    page = _parse(study)
    assert garbage not in _shown(page)
    assert "12346" not in page.text
    assert set(before.images) - set(page.images) == {"EM, 20 evaluations"}
    assert page.text.count("diverged") > before.text.count("diverged")
    assert "EM at 20" in page.text
    assert cifar10_figures.measured(poisoned) == {}
    poisoned["diverged"] = False  # the same numbers of a cell that did not
    assert garbage in _shown(_parse(study))


def test_a_partial_study_names_what_is_missing() -> None:
    """Cells that were not run (absent or null), and parts of cells that are not there."""
    study = synthetic(("EM", "ROBA", "RVV"))
    assert "partial" not in _parse(study).text
    em, roba, rvv = (scheme["cells"] for scheme in study["schemes"])
    em[2] = None
    del roba[0]
    rvv[1] |= {"frechet": None, "distances": {"energy": {"value": None, "standard_error": None}}}
    page = _parse(study)
    assert "7 of 9 cells are there. Not run: EM at 100; ROBA at 20." in page.text
    assert "Fréchet distances: RVV at 50" in page.text
    assert re.search(r"\bdistances: RVV at 50", page.text)
    assert page.tables["weak-1"][2][-2][0] == "not run"
    assert [text for text, _ in page.tables["verdicts"][3]][3] == "–, 49, 99"
    assert "EM, 100 evaluations" not in page.images


def test_a_study_without_references_or_anything_else_has_a_page(tmp_path: Path) -> None:
    """One scheme, no statistics, one budget, no images: it says that there are none."""
    study = synthetic(("ROBA",), (20,))
    study["references"], study["comparison"] = [], None
    scheme = study["schemes"][0]
    scheme |= {"reference": None, "verdict": None, "reason": None, "order": None, "fits": {}, "systematic": {}}
    scheme["cells"][0] |= dict.fromkeys(("weak", "power", "moments", "strong", "frechet", "predicted"))
    scheme["cells"][0]["distances"] = {"energy": {"value": float("nan"), "standard_error": np.float64("inf")}}
    study["model"]["losses"] = None
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "cifar10-weak.svg").write_text("of an earlier, larger study")
    page = _Page(write_page(study, {}, tmp_path).read_text("utf-8"))
    assert "svg" not in page.tags
    for text in (
        "no weak and strong errors",
        "weak errors: ROBA at 20",
        "No cell of this study has weak errors",
        "no images",
    ):
        assert text in page.text
    assert {path.name for path in tmp_path.rglob("*.*")} == {"index.html", "results.json"}


def test_no_number_is_not_a_number(page: _Page) -> None:
    for word in ("nan", "None", "inf", "undefined", "null"):
        assert not re.search(rf"(?<![\w.]){word}(?!\w)", page.text)


def test_names_are_text(tmp_path: Path) -> None:
    """Names, words, sources, reasons and file names come from users: they are shown as they are, in figures too."""
    study = synthetic(("ROBA",))
    study["schemes"][0] |= dict.fromkeys(("name", "label", "word", "source", "reason"), HOSTILE)
    study["comparison"]["disagreements"] = [HOSTILE]
    study["model"]["checkpoint"] = study["command"] = study["device"] = HOSTILE
    images = photographs(study)
    text = write_page(study, images, tmp_path).read_text("utf-8")
    assert "<script" not in text
    page = _Page(text)
    assert page.text.count(HOSTILE) >= 9
    assert f"{HOSTILE}, 20 evaluations" in page.images


def test_figures_are_reproducible_to_the_byte(folder: Path, results: Results, tmp_path: Path) -> None:
    """Every file, made again from the results read back."""
    again = json.loads((folder / "results.json").read_text("utf-8"))
    write_page(again, photographs(results), tmp_path)
    for path in folder.rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()


def _drawn(axes: Any, label: str) -> list[tuple[float, float]]:
    """The points of the line of a scheme, in data's coordinates."""
    lines = [line for line in axes.get_lines() if line.get_label() == label]
    return [tuple(map(float, point)) for line in lines for point in zip(*line.get_data(), strict=True)]


def _bars(axes: Any, gid: str) -> set[tuple[float, ...]]:
    return {(line.get_xdata()[0], *map(float, line.get_ydata())) for line in axes.get_lines() if line.get_gid() == gid}


def test_the_figure_of_weak_errors_shows_the_results(results: Results) -> None:
    """Points that are sure, with bars of two standard errors; the others as upper bounds from the edge, by the larger
    of standard error and noise; the reference's own error; nothing of diverged cells."""
    figure = cifar10_figures.errors(results, WEAK)
    assert figure is not None
    panels = iter(figure.axes)
    unsure = 0
    for quantity in WEAK:
        for kind in figures.KINDS:
            axes = next(panels)
            bottom = axes.get_ylim()[0]
            bars, bounds = set(), set()
            for scheme in (scheme for scheme in results["schemes"] if scheme["kind"] == kind):
                there = [cell for cell in scheme["cells"] if not cell["diverged"]]
                entries = [(cell["evaluations"], cell["weak"][quantity]) for cell in there]
                assert _drawn(axes, scheme["label"]) == [(x, e["value"]) for x, e in entries if e["sure"]]
                for x, entry in entries:
                    value, error = entry["value"], 2 * entry["standard_error"]
                    if entry["sure"]:
                        bars.add((x, max(value - error, bottom), value + error))
                    else:
                        bounds.add((x, bottom, value + 2 * max(entry["standard_error"], entry["noise"])))
                        unsure += 1
            assert _bars(axes, "bar") == bars
            assert _bars(axes, "bound") == bounds
            (band,) = [patch for patch in axes.patches if patch.get_gid() == "reference"]
            assert band.get_extents().transformed(axes.transData.inverted()).y1 == pytest.approx(
                results["schemes"][0]["systematic"][quantity], rel=1e-6
            )
    assert unsure


def test_a_point_within_its_noise_is_a_bound_and_one_above_is_a_point() -> None:
    """The same cell, once below and once above: from line to bound."""
    study = synthetic(("RVV",), (20,), noise=1e-6)
    for sure, points in ((True, 1), (False, 0)):
        study["schemes"][0]["cells"][0]["weak"]["mean"]["sure"] = sure
        figure = cifar10_figures.errors(study, ["mean"])
        assert figure is not None
        assert len(_drawn(figure.axes[0], "RVV")) == points
        assert len(_bars(figure.axes[0], "bound")) == 1 - points
    point = cifar10_figures.measured({"strong": {"value": -1.0, "standard_error": 2.0}})["strong"]
    assert not point["sure"]
    assert cifar10_figures.upper(point) == 3.0


def test_the_figure_of_power_shows_the_mean_of_the_channels(results: Results) -> None:
    """A panel per scheme, a line per budget that did not diverge, wavenumber 0 at the left of the log axis."""
    figure = cifar10_figures.power(results)
    assert figure is not None
    for axes, scheme in zip(figure.axes, results["schemes"], strict=False):
        assert axes.get_title(loc="left") == scheme["label"]
        for cell in scheme["cells"]:
            drawn = _drawn(axes, str(cell["nfe"]))
            if cell["diverged"]:
                assert drawn == []
                continue
            k = [max(k, 0.6) for k in cell["power"]["wavenumber"]]
            ratio = np.mean(cell["power"]["ratio"], axis=0)
            assert np.array(drawn) == pytest.approx(np.transpose([k, ratio]), rel=1e-12)


def test_the_figure_of_predictions_pairs_each_cell_with_its_prediction(results: Results) -> None:
    """Every measured quantity that the comparison names, and the published FIDs."""
    figure = cifar10_scatter.theory(results)
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == len(FEW)
    cells = [cell for scheme in results["schemes"] for cell in scheme["cells"] if cell["predicted"] is not None]
    for name, axes in zip(FEW, panels, strict=True):
        points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines() if line.get_gid() == "point"}
        if name == "published FID":
            assert points == {(cell["predicted"], cell["published_fid"]) for cell in cells if cell["published_fid"]}
            continue
        found = [(cell["predicted"], cifar10_figures.measured(cell).get(name)) for cell in cells]
        assert points == {(x, point["value"]) for x, point in found if point and point["sure"]}


@pytest.mark.parametrize(("name", "other"), [("strong error", "strong"), ("energy distance", "energy")])
def test_a_compared_quantity_is_found_by_its_longer_name(results: Results, name: str, other: str) -> None:
    assert cifar10_scatter._pairs(results, name) == cifar10_scatter._pairs(results, other) != []
    assert cifar10_scatter._pairs(results, f"{other} of another kind") == []


def test_images_of_another_kind_are_refused() -> None:
    study = synthetic(("EM",), (50,))
    for wrong in (np.zeros((8, 32, 32, 3)), np.zeros((8, 3, 32, 32), np.uint8), np.zeros((0, 32, 32, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"images of \('EM', 50\) are .*: give uint8"):
            cifar10_page.render(study, {("EM", 50): wrong}, {})


def test_schemes_of_one_name_have_their_own_images() -> None:
    """By their labels, which must differ; a name that two share is not looked for."""
    study = synthetic(("ROBA",), (50,))
    study["schemes"] += [copy.deepcopy(study["schemes"][0])]
    with pytest.raises(ValueError, match=r"two schemes are labelled 'ROBA'"):
        _parse(study)
    study["schemes"][0]["label"], study["schemes"][1]["label"] = "ROBA λ=0.9", "ROBA λ=1.1"
    images = photographs(study)
    assert set(_parse(study, images).images) == {"reference: ROBA"}
    images["ROBA λ=0.9", 50], images["ROBA λ=1.1", 50] = images["ROBA", 50], images["ROBA", 50] // 2
    page = _parse(study, images)
    assert page.images["ROBA λ=1.1, 50 evaluations"] != page.images["ROBA λ=0.9, 50 evaluations"]


def test_an_interrupted_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that dies leaves the earlier page whole, and no scrap beside it."""
    page = tmp_path / "index.html"
    page.write_text("the old page")
    study = synthetic(("EM",), (50,))
    for module in (cifar10_figures, cifar10_scatter):
        monkeypatch.setattr(module, "draw", lambda _: {})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_page(study, {}, tmp_path)
    assert page.read_text() == "the old page"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [page]


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
    assert "rounding" not in _parse(plain).tables
    results = with_precisions(plain)
    page = _parse(results)
    assert [row[0][0] for row in page.tables["rounding"][2:]] == ["tf32", "bfloat16"]
    assert _values(page.tables["rounding"]) == pytest.approx([0.004] * 8 + [1.5] + [0.05] * 8 + [1.5])
    cells = [cell for scheme in results["schemes"] for cell in scheme["cells"] if not cell["diverged"]]
    expected = [
        cell["precisions"][precision]["change"][name]["value"]
        for cell in cells
        for precision in ("tf32", "bfloat16")
        for name in WEAK
    ]
    assert _values([row[2:] for row in page.tables["changes"]]) == expected
    assert "precisions float32, tf32, bfloat16 (numbers without a precision are float32’s)" in page.text
    assert "tf32 and bfloat16 are imitated there" in page.text


def test_a_missing_or_diverged_twin_is_said_to_be() -> None:
    results = with_precisions(synthetic(NAMES))
    scheme = next(scheme for scheme in results["schemes"] if scheme["name"] == "EM")
    gone, absent = scheme["cells"][:2]
    gone["precisions"]["bfloat16"] |= {"change": {}, "diverged": True}
    del absent["precisions"]["tf32"]
    results["rounding"] = summarise(
        (scheme["name"], cell | {"seconds": 2.0}) for scheme in results["schemes"] for cell in scheme["cells"]
    )
    page = _parse(results)
    row = next(row for row in page.tables["rounding"] if row[0][0] == "bfloat16")
    assert "EM at 20" in row[-1][0]
    first = next(place for place, row in enumerate(page.tables["changes"]) if row[0][0] == "EM")
    shown = [[text for text, _ in row[2:]] for row in page.tables["changes"][first : first + 2]]
    assert shown[0][4:] == ["diverged"] * 4
    assert shown[1][:4] == ["not run"] * 4
    assert "–" not in "".join(shown[0][:4] + shown[1][4:])


def test_the_figure_of_rounding_has_a_point_for_every_change_beside_a_sure_error() -> None:
    results = with_precisions(synthetic(NAMES, noise=0.002))
    figure = cifar10_scatter.draw(results)["cifar10-rounding"]
    sure = {
        name: [
            (cell["weak"][name]["value"], cell["precisions"]["bfloat16"]["change"][name]["value"])
            for scheme in results["schemes"]
            for cell in scheme["cells"]
            if cell["weak"] and cell["weak"][name]["sure"]
        ]
        for name in WEAK
    }
    panels = [axes for axes in figure.axes if (place := axes.get_subplotspec()) and place.rowspan.start == 1]
    assert panels[0].get_ylabel() == "change by bfloat16"
    assert len(panels) == len(WEAK)
    for axes, name in zip(panels, WEAK, strict=True):
        drawn = [
            (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
            for line in axes.lines
            if line.get_gid() in ("point", "unsure")
        ]
        np.testing.assert_allclose(sorted(drawn), sorted(sure[name]))
        (equal,) = (line for line in axes.lines if line.get_gid() == "equal")
        np.testing.assert_array_equal(equal.get_xdata(), equal.get_ydata())
    assert "cifar10-rounding" not in cifar10_scatter.draw(synthetic(NAMES))
