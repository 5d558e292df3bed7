"""The gallery: a card for every scheme of the catalogue, whose numbers are the readings' and whose advice is true."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
from selection import nightly_but
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION, all_schemes
from weakorder.integrators.grids import GRIDS
from weakorder.reports.pages import choosing, gallery
from weakorder.reports.pages.templates import number
from weakorder.theory.scheme import Scheme
from weakorder.verification.exact import T_END, gaussian_targets, predicted_errors
from weakorder.verification.exact.order import study_order
from weakorder.verification.exact.spectrum import study_spectrum
from weakorder.verification.stability import least_steps

FEW = (CATALOGUE["RVV"], EXPONENTIAL["DDIM"], EXPONENTIAL["DPM-Solver++2M"], POSITION["vp-DDIM"], POSITION["vp-Euler"])


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The readings of a few schemes: three of one kind and two of another."""
    return gallery.collect(FEW)


@pytest.fixture(scope="module")
def everything() -> list[dict[str, Any]]:
    """Of all; under --nightly."""
    return gallery.collect(list(all_schemes().values()))


def _card(text: str, name: str) -> dict[str, str]:
    """The table of a scheme's card by its first column."""
    card = next(part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(f"{name}\n"))
    return dict(re.findall(r"^\| (\S[^|]*?) \| (.*) \|$", card, re.MULTILINE))


def test_every_scheme_of_the_catalogue_has_one_card(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Told by stand-ins for the numbers, which are another test's."""
    shelves = gallery.families()
    named = {scheme.name: scheme for family in shelves for scheme in family.schemes}
    assert named == all_schemes()
    assert sum(len(family.schemes) for family in shelves) == len(named)
    stand_ins = [rows[0] | {"name": name, "key": gallery.key_of(name), "word": s.word} for name, s in named.items()]
    assert len({row["key"] for row in stand_ins}) == len(named)
    written = gallery.pages(stand_ins, shelves)
    index = written.pop("index.md")
    for family in shelves:
        text = written.pop(f"{family.key}.md")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [scheme.name for scheme in family.schemes]
        for scheme in family.schemes:
            key = gallery.key_of(scheme.name)
            assert f"(scheme-{key})=" in text
            assert f"](figures/{key}.svg)" in text
            assert f"[{scheme.name}](#scheme-{key})" in index
            assert _card(text, scheme.name)["one step"].startswith(f"`{scheme.word}`")
    assert not written


@pytest.mark.parametrize("scheme", nightly_but(lambda s: s.name == "vp-DDIM", FEW), ids=lambda s: s.name)
def test_a_cards_numbers_are_the_readings(scheme: Scheme, rows: list[dict[str, Any]]) -> None:
    shelf = gallery.Family("few", "Few", "", FEW)
    card = _card(gallery.pages(rows, [shelf])["few.md"], scheme.name)
    diffusion = scheme.splitting.diffusion
    params = diffusion.parameters()
    study = study_order(scheme, params, steps=(200, 400, 800, 1600))
    assert study.measured is not None
    assert card["weak order"] == f"proven {study.proven}, measured {study.measured.order:.2f}"
    predicted = predicted_errors(scheme, gaussian_targets(diffusion, params), T_END)["w2"]
    assert card["error constant"] == f"measured {number(float(study.constants()[-1]))}, predicted {number(predicted)}"
    for curve in study_spectrum([scheme], params, (20, 50, 100)).curves:
        steps = least_steps(scheme, params, curve.grid).steps
        stable = "stable with no number of steps up to 500"
        if steps is not None:
            stable = f"stable from {steps} step{'s' * (steps > 1)} ({steps * scheme.nfe_per_step} NFE)"
        distances = ["diverges" if math.isnan(d) else number(float(d)) for d in curve.distance]
        at = f"distance {distances[0]} at 20, {distances[1]} at 50, {distances[2]} at 100"
        assert card[f"{curve.grid} grid"] == f"{stable}; {at}"


def test_another_number_is_another_card(rows: list[dict[str, Any]]) -> None:
    shelf = gallery.Family("few", "Few", "", FEW)
    changed = copy.deepcopy(rows)
    changed[0]["distance"]["50"]["uniform"] = 123.0
    before, after = (_card(gallery.pages(each, [shelf])["few.md"], "RVV") for each in (rows, changed))
    assert "123 at 50" in after["uniform grid"]
    assert {key for key in before if before[key] != after[key]} == {"uniform grid"}


def _check_advice(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Every sentence on a scheme, of which there is one, is true."""
    sentences = choosing.when_to_choose(row, rows)
    assert sentences
    _hold(sentences, row, rows)


def _hold(sentences: list[str], row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Sentences on a scheme to all numbers, by another way than the one that made them."""
    kin = [r for r in rows if (r["diffusion"], r["kind"]) == (row["diffusion"], row["kind"])]

    def least(entry: dict[str, Any], budget: str) -> float:
        return min([d for d in entry["distance"][budget].values() if d is not None], default=math.inf)

    for sentence in sentences:
        if found := re.match(r"Choose it at ([\d, and]+) evaluations\D*(\d+) .* ends nearer", sentence):
            group = kin
            if "that remember" in sentence:
                remembers = "that remember evaluations" in sentence
                group = [r for r in kin if (r["memory"] > 1) == remembers]
            assert len(group) == int(found[2])
            for budget in re.findall(r"\d+", found[1]):
                assert sorted(least(r, budget) for r in group)[0] == least(row, budget)
        elif sentence.startswith("To end nearest"):
            names = [r["name"] for r in kin if f"{r['name']} at " in sentence]
            said = re.split("|".join(f"{re.escape(name)} (?=at )" for name in names), sentence)[1:]
            order = sorted(names, key=lambda name: sentence.index(f"{name} at "))
            budgets = []
            for name, clause in zip(order, said, strict=True):
                (other,) = [r for r in kin if r["name"] == name]
                for budget, factor in re.findall(
                    r"at (\d+) \((?:([\d.]+) times nearer|where this one diverges)\)", clause
                ):
                    budgets.append(budget)
                    ratio = least(row, budget) / least(other, budget)
                    assert ratio == pytest.approx(float(factor or "inf"), rel=6e-3)
                    assert ratio > 1
                    assert least(other, budget) == min(least(r, budget) for r in kin)
            assert sorted(budgets) == sorted(row["distance"])
        elif found := re.match(r"It is stable with (\d+), and none of the (\d+)", sentence):
            costs = [e["nfe"] for r in kin for e in r["stability"].values() if e["nfe"] is not None]
            assert int(found[1]) == min(costs)
            assert min(costs) in [e["nfe"] for e in row["stability"].values()]
            assert int(found[2]) == len(kin)
        else:
            assert "has a smaller error, evaluation for evaluation" in sentence
            errors = [r["constant"] * r["nfe_per_step"] ** r["proven"] for r in kin
                      if r["proven"] == row["proven"] and abs(r["measured"] - r["proven"]) < 0.1]  # fmt: skip
            assert min(errors) == row["constant"] * row["nfe_per_step"] ** row["proven"]


def test_advice_is_true_of_the_readings(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        _check_advice(row, rows)


def test_advice_on_other_numbers_is_not_true_of_these(rows: list[dict[str, Any]]) -> None:
    """What is nearest, put far away, is no longer said to be nearest; and the check sees old advice."""
    changed = copy.deepcopy(rows)
    nearest = min(rows[:3], key=lambda row: choosing.distance(row, 50))
    other = changed[rows.index(nearest)]
    other["distance"] = {budget: dict.fromkeys(GRIDS, 1e3) for budget in other["distance"]}
    before, after = choosing.when_to_choose(nearest, rows), choosing.when_to_choose(other, changed)
    assert "none of the 3" in before[0]
    assert not any(sentence.startswith("Choose it") for sentence in after)
    with pytest.raises(AssertionError):
        _hold(before, other, changed)
    for row in changed:
        _check_advice(row, changed)


@pytest.mark.nightly
def test_advice_is_true_of_the_whole_catalogue(everything: list[dict[str, Any]]) -> None:
    for row in everything:
        _check_advice(row, everything)


def test_a_gallery_is_written_once_and_again_only_where_it_changed(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "collect", lambda _: rows)
    shelf = gallery.Family("few", "Few", "", FEW)
    written = gallery.write_gallery(tmp_path / "gallery", [shelf])
    assert {path.relative_to(tmp_path / "gallery").as_posix() for path in written} == {
        "index.md", "few.md", *(f"figures/{gallery.key_of(scheme.name)}.svg" for scheme in FEW),
    }  # fmt: skip
    for path in written:
        path.touch()
    stamps = {path: path.stat().st_mtime_ns for path in written}
    written[1].write_text("old")
    gallery.write_gallery(tmp_path / "gallery", [shelf])
    assert "old" not in written[1].read_text()
    assert {path for path in written if path.stat().st_mtime_ns != stamps[path]} == {written[1]}
