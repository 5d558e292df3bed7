"""The page of a CIFAR-10 study that is not as it should be: what is missing is named, what diverged has no number.

What users wrote is text, schemes of one name are told apart, and images of another kind are refused.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from parsed_page import Page, all_values
from synthetic_study import FEW, NAMES, parse, photographs, synthetic, with_precisions
from weakorder.reports.figures import cifar10_figures, cifar10_scatter
from weakorder.reports.pages import cifar10_page
from weakorder.reports.pages.cifar10_page import write_page
from weakorder.verification.cifar10.study.rounding import summarise

HOSTILE = "<script>alert('x')</script> & $\\frac{"


def test_a_network_of_unknown_training_is_called_so() -> None:
    study = synthetic(("ROBA",))
    study["model"] |= {"steps": None, "images_seen": None, "held_out_loss": None, "losses": None}
    page = parse(study)
    assert "unknown: the checkpoint does not say" in page.text
    assert "held-out" not in page.text
    assert cifar10_figures.training(study["model"]) is None


def test_a_diverged_cell_shows_no_number_and_no_image() -> None:
    """Even where the results hold some: only that it diverged, and what was predicted."""
    study = synthetic(("RVV", "EM"))
    poisoned = study["schemes"][1]["cells"][0]
    before = parse(study)
    garbage = 12345.678
    poisoned["diverged"] = True
    poisoned["strong"] = {"value": garbage, "standard_error": garbage}
    poisoned["weak"]["mean"] |= {"value": garbage, "relative": garbage, "noise": garbage}
    poisoned["frechet"]["pixels"]["to_data"] = garbage
    page = parse(study)
    assert garbage not in all_values(page)
    assert "12346" not in page.text
    assert set(before.images) - set(page.images) == {"EM, 20 evaluations"}
    assert page.text.count("diverged") > before.text.count("diverged")
    assert "EM at 20" in page.text
    assert cifar10_figures.measured(poisoned) == {}
    poisoned["diverged"] = False  # the same numbers of a cell that did not
    assert garbage in all_values(parse(study))


def test_a_partial_study_names_what_is_missing() -> None:
    """Cells that were not run (absent or null), and parts of cells that are not there."""
    study = synthetic(("EM", "ROBA", "RVV"))
    assert "partial" not in parse(study).text
    em, roba, rvv = (scheme["cells"] for scheme in study["schemes"])
    em[2] = None
    del roba[0]
    rvv[1] |= {"frechet": None, "distances": {"energy": {"value": None, "standard_error": None}}}
    page = parse(study)
    assert "7 of 9 cells are there. Not run: EM at 100; ROBA at 20." in page.text
    assert "Fréchet distances: RVV at 50" in page.text
    assert "distances (they take 8 samples): RVV at 50" in page.text
    assert page.tables["weak-1"][2][-2][0] == "not run"
    assert [text for text, _ in page.tables["verdicts"][3]][3] == "–, 49, 99"
    assert "EM, 100 evaluations" not in page.images


def test_what_every_cell_lacks_is_said_once() -> None:
    study = synthetic(("EM", "ROBA"))
    for scheme in study["schemes"]:
        for cell in scheme["cells"]:
            cell["distances"] = {"energy": {"value": None, "standard_error": None}}
    assert "distances (they take 8 samples): every scheme at every budget" in parse(study).text
    study["schemes"][0]["cells"][0] = None
    assert "distances (they take 8 samples): EM at 50, 100; ROBA at 20, 50, 100" in parse(study).text


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
    page = Page(write_page(study, {}, tmp_path).read_text("utf-8"))
    assert "svg" not in page.tags
    for text in (
        "no weak and strong errors",
        "weak errors: ROBA at 20",
        "No cell of this study has weak errors",
        "no images",
    ):
        assert text in page.text
    assert {path.name for path in tmp_path.rglob("*.*")} == {"index.html", "results.json"}


def test_a_table_is_referred_to_only_where_it_stands() -> None:
    study = synthetic(NAMES)
    assert "are left out of Table 4" in parse(study).text
    study["comparison"] = None
    page = parse(study)
    assert "correlations" not in page.tables
    assert "Table 4" not in page.text
    assert "they compare neither schemes nor studies" in page.text


def test_a_missing_or_diverged_twin_is_said_to_be() -> None:
    results = with_precisions(synthetic(NAMES))
    scheme = next(scheme for scheme in results["schemes"] if scheme["name"] == "EM")
    gone, absent = scheme["cells"][:2]
    gone["precisions"]["bfloat16"] |= {"change": {}, "diverged": True}
    del absent["precisions"]["tf32"]
    results["rounding"] = summarise(
        (scheme["name"], cell | {"seconds": 2.0}) for scheme in results["schemes"] for cell in scheme["cells"]
    )
    page = parse(results)
    row = next(row for row in page.tables["rounding"] if row[0][0] == "bfloat16")
    assert "EM at 20" in row[-1][0]
    first = next(place for place, row in enumerate(page.tables["changes"]) if row[0][0] == "EM")
    shown = [[text for text, _ in row[2:]] for row in page.tables["changes"][first : first + 2]]
    assert shown[0][4:] == ["diverged"] * 4
    assert shown[1][:4] == ["not run"] * 4
    assert "–" not in "".join(shown[0][:4] + shown[1][4:])


def test_names_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, words, sources, reasons and file names come from users: they are shown as they are, in figures too."""
    monkeypatch.setattr(cifar10_page.figures, "as_png", lambda _: b"")  # of the same figures as the SVG
    study = synthetic(("ROBA",), compared=FEW)
    study["schemes"][0] |= dict.fromkeys(("name", "label", "word", "source", "reason"), HOSTILE)
    study["comparison"]["disagreements"] = [HOSTILE]
    study["model"]["checkpoint"] = study["command"] = study["device"] = HOSTILE
    images = photographs(study)
    text = write_page(study, images, tmp_path).read_text("utf-8")
    assert "<script" not in text
    page = Page(text)
    assert page.text.count(HOSTILE) >= 9
    assert f"{HOSTILE}, 20 evaluations" in page.images


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
        parse(study)
    study["schemes"][0]["label"], study["schemes"][1]["label"] = "ROBA λ=0.9", "ROBA λ=1.1"
    images = photographs(study)
    assert set(parse(study, images).images) == {"reference: ROBA"}
    images["ROBA λ=0.9", 50], images["ROBA λ=1.1", 50] = images["ROBA", 50], images["ROBA", 50] // 2
    page = parse(study, images)
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
