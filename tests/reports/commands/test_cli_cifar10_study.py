"""`weakorder cifar10 study`, with a tiny network: the page, resuming, several processes, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from study_command import SMALL, cells, invoke, refused
from undrawn import leave_the_study_undrawn
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.commands.cifar10_study import BUDGETS, study_of
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.study import Design


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, by one process; its figures are another test's."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        leave_the_study_undrawn(patch)
        result = invoke("--checkpoint", str(checkpoint), *SMALL, "-o", str(folder))
    assert result.exit_code == 0, result.output
    return folder


def test_the_page_and_its_results_are_there_and_say_the_same(whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text())
    page = (whole / "index.html").read_text()
    assert [scheme["name"] for scheme in results["schemes"]] == ["ROBA", "SSCS", "RVV"]
    for scheme in results["schemes"]:
        assert [cell["nfe"] for cell in scheme["cells"]] == [4, 6]
        for cell in scheme["cells"]:
            assert cell["evaluations"] == scheme["nfe_per_step"] * cell["steps"] + 1 <= cell["nfe"]
        assert f">{scheme['label']}</th>" in page
    assert [(r["kind"], r["name"]) for r in results["references"]] == [
        ("stochastic", "SDE-DPM-Solver++2M"),
        ("deterministic", "DPM-Solver++2M"),
    ]
    assert results["settings"]["samples"] == 9
    assert results["settings"]["against"] == "ROBA"
    assert not [name for name in results["comparison"]["quantities"] if "Fréchet distance of" in name]  # of 9 samples
    assert results["model"]["parameters"]["gamma"] == 0.01
    assert "NaN" not in (whole / "results.json").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_samples_nothing_again_and_says_the_same(whole: Path, checkpoint: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.npz")}
    first = json.loads((whole / "results.json").read_text())
    result = invoke("--checkpoint", str(checkpoint), *SMALL, "-o", str(whole), "--json")
    assert result.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.npz")} == before
    second = json.loads(result.stdout)
    for results in (first, second):
        for key in ("date", "seconds", "command"):
            results.pop(key)
    assert first == second


@pytest.mark.nightly
@pytest.mark.parametrize("processes", [2, 3])
def test_samples_do_not_depend_on_the_number_of_processes(
    processes: int, whole: Path, checkpoint: Path, tmp_path: Path
) -> None:
    script = tmp_path / "study.py"
    script.write_text(
        "from weakorder.reports.commands.cli import main\n"
        "from weakorder.reports.pages import cifar10_page\n"
        "cifar10_page.cifar10_figures.draw = cifar10_page.cifar10_scatter.draw = lambda _: {}\n"  # as it is elsewhere
        "main()\n"
    )
    words = ["cifar10", "study", "--checkpoint", str(checkpoint), *SMALL, "-o", str(tmp_path / "study"), "--json"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*launcher, str(script), *words], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answer = json.loads(run.stdout)  # one process speaks, and says nothing else
    assert answer["processes"] == processes
    assert cells(tmp_path / "study") == cells(whole)
    alone = json.loads((whole / "results.json").read_text())
    assert answer["schemes"] == [
        scheme
        | {
            "cells": [
                cell | {"seconds": mine["seconds"]} for cell, mine in zip(scheme["cells"], other["cells"], strict=True)
            ]
        }
        for scheme, other in zip(alone["schemes"], answer["schemes"], strict=True)
    ]


@pytest.mark.nightly
@pytest.mark.usefixtures("undrawn")
def test_lambda_s_makes_schemes_of_its_own_and_leaves_those_without_noise(tmp_path: Path) -> None:
    words = ("--schemes", "ROBA", "RVV", "--nfe", "9", "--lambda-s", "1", "0.9", "-n", "2", "--refinement", "2")
    result = invoke(*words, "-o", str(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)
    assert [(s["name"], s["lambda_s"]) for s in results["schemes"]] == [("ROBA", 1), ("ROBA λ=0.9", 0.9), ("RVV", 1)]
    first, second = (scheme["cells"][0] for scheme in results["schemes"][:2])
    assert first["strong"]["value"] != second["strong"]["value"]
    assert results["schemes"][1]["verdict"] == "FAIL"
    assert results["settings"]["lambda_s"] == [0.9]


def test_without_references_there_are_images_and_distances_to_the_data_and_no_errors(
    checkpoint: Path, tmp_path: Path
) -> None:
    words = ("--schemes", "SSCS", "--nfe", "9", "-n", "4", "--refinement", "0", "-o", str(tmp_path), "--json")
    result = invoke("--checkpoint", str(checkpoint), *words)
    assert result.exit_code == 0, result.output
    (scheme,) = json.loads(result.stdout)["schemes"]
    assert scheme["verdict"] is None
    assert scheme["cells"][0]["weak"] is None
    assert scheme["cells"][0]["frechet"]["pixels"]["to_data"] > 0
    assert not list(tmp_path.glob("cells/RO*"))
    assert "No cell of this study has weak errors" in (tmp_path / "index.html").read_text()


def test_the_shipped_network_is_the_default(tmp_path: Path) -> None:
    words = ("--schemes", "SSCS", "--nfe", "2", "-n", "2", "--refinement", "0", "-o", str(tmp_path), "--json")
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    model = json.loads(result.stdout)["model"]
    assert model["checkpoint"].startswith("cifar10_compact.safetensors")
    assert model["weights"] > 1e6
    assert model["held_out_loss"]["value"] < 0.05
    assert len(model["losses"]["loss"]) > 50


def test_a_reference_that_diverged_is_said_to_and_its_cells_have_no_errors(checkpoint: Path, tmp_path: Path) -> None:
    words = ("--schemes", "SSCS", "--nfe", "3", "-n", "2", "--refinement", "2", "-o", str(tmp_path))
    result = invoke("--checkpoint", str(checkpoint), *words)
    assert result.exit_code == 0, result.output
    assert "reference, SDE-DPM-Solver++2M, diverged at 4 steps; give a larger --refinement" in result.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["references"][0]["diverged"]
    assert results["schemes"][0]["verdict"] is None
    assert "diverged" in (tmp_path / "index.html").read_text()


def test_the_default_study_takes_as_many_evaluations_as_half_an_hour_has() -> None:
    """At 135 a second, which two slow cores had (217,000 in 26 min 50 s); its references are a design's own."""
    defaults = {parameter.name: parameter.default for parameter in study_of("cifar10").params}
    design = Design(tuple(CATALOGUE.values()), BUDGETS, defaults["samples"])
    assert defaults["refinement"] == design.refinement
    evaluations = sum(cell.nfe for cell in (*design.cells.values(), *design.references)) * design.samples
    assert evaluations < 135 * 1800


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nfe", "1"), "from 2"),
        (("--nfe", "twenty"), "'twenty' is not a list of ints"),
        (("-n", "1"), "samples = 1"),
        (("-n", "99999999999"), "samples = 99999999999"),
        (("--seed", "-1"), "seed = -1"),
        (("--schemes", "ROBA", "RVV", "--nfe", "2"), "RVV: no budget"),
        (("--refinement", "1"), "refinement = 1"),
        (("--schemes", "ROBA", "--against", "RVV"), "against 'RVV': no scheme of the study; choose one of ROBA"),
        (("--refinement", "99999999999"), "a smaller --nfe"),
        (("--schemes", "NOPE"), "NOPE"),
        (("--schemes", "O S B A", "O S B A"), "each once"),
        (("--lambda-s", "-1"), "lambda_s = -1"),
        (("--batch", "0"), "batch = 0"),
        (("--checkpoint", "nowhere.ckpt"), "nowhere.ckpt"),
        (("--gamma", "0.02"), "gamma = 0.02"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--fid",), "--data"),
        (("--inception-weights", "w.pth"), "--fid"),
        (("--device", "nonsense"), "nonsense"),
        (("-o", "."), "no folder"),
        (("20",), "unexpected extra argument"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(*words)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_page_of_something_else_is_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    assert "holds another page" in refused("--checkpoint", str(checkpoint), *SMALL, "-o", str(tmp_path))
    assert (tmp_path / "index.html").read_text() == "mine"


def test_one_image_is_too_few_to_compare_with_and_said_so_before_sampling(checkpoint: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 32, 32, 3), np.uint8))
    words = ("--checkpoint", str(checkpoint), *SMALL, "-o", str(tmp_path / "study"))
    assert "one.npz' holds 1 image" in refused(*words, "--data", str(tmp_path / "one.npz"))
    assert not (tmp_path / "study").exists()


@pytest.mark.nightly
@pytest.mark.usefixtures("undrawn")
def test_a_folder_keeps_the_size_of_its_batches(checkpoint: Path, tmp_path: Path) -> None:
    words = (
        "--checkpoint",
        str(checkpoint),
        "--schemes",
        "SSCS",
        "--nfe",
        "9",
        "--refinement",
        "0",
        "-o",
        str(tmp_path),
    )
    assert invoke(*words, "-n", "4", "--batch", "2").exit_code == 0
    before = cells(tmp_path)
    assert invoke(*words, "-n", "5").exit_code == 0  # a batch more, of the same size
    after = cells(tmp_path)
    assert before.items() < after.items()
    assert invoke(*words, "-n", "3").exit_code == 0
    assert cells(tmp_path) == after
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["samples"] == 3
    (tmp_path / "batch").write_text("many")
    assert "holds no number" in refused(*words, "-n", "3")


@pytest.mark.usefixtures("undrawn")
def test_the_parameters_of_the_network_are_in_its_file_and_only_the_cut_off_may_differ(
    checkpoint: Path, tmp_path: Path
) -> None:
    words = ("--checkpoint", str(checkpoint), "--schemes", "ROBA", "--nfe", "3", "-n", "2", "--refinement", "20")
    result = invoke(*words, "--eps", "0.01", "-o", str(tmp_path), "--json")
    assert json.loads(result.stdout)["model"]["parameters"] == asdict(Parameters(eps=0.01)) | {"M_inv": 4.0}


@pytest.mark.usefixtures("undrawn")
def test_precisions_are_compared_in_the_order_of_their_bits(checkpoint: Path, tmp_path: Path) -> None:
    words = ["--checkpoint", str(checkpoint), "--schemes", "ROBA", "--nfe", "6", "-n", "4", "--refinement", "2"]
    words += ["-o", str(tmp_path), "--precision", "bfloat16", "float32", "bfloat16"]
    result = invoke(*words, "--json")
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)
    assert results["settings"]["precisions"] == ["float32", "bfloat16"]
    assert list(results["rounding"]) == ["bfloat16"]
    assert len(cells(tmp_path)) == 3 * 2  # the reference, the cell and its twin, of two batches
    assert "What rounding changes" in (tmp_path / "index.html").read_text()
    assert "bfloat16: changes by rounding over weak errors, in the middle: " in invoke(*words).stdout


def test_precisions_without_float32_have_nothing_to_be_compared_with(checkpoint: Path, tmp_path: Path) -> None:
    text = refused("--checkpoint", str(checkpoint), "--precision", "bfloat16", "tf32", "-o", str(tmp_path))
    assert "precision tf32 bfloat16: give one, or float32" in text
    assert "'half' is not one of" in refused("--precision", "half", "-o", str(tmp_path))
