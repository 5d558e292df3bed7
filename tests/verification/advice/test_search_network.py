"""A search's winners on a network: what is compared with what, and how a comparison ends."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION
from weakorder.theory.model import Parameters
from weakorder.theory.splitting import PSLD_LINEAR, PSLD_WHOLE, VP_WHOLE
from weakorder.verification.advice.search import find_words
from weakorder.verification.advice.search_findings import Findings
from weakorder.verification.advice.search_network import LOSES, OPEN, WINS, _ends, on_network, rivals
from weakorder.verification.advice.search_settings import Search
from weakorder.verification.advice.search_state import SearchState

BESIDE = (CATALOGUE["ROBA"], CATALOGUE["NOBA"], CATALOGUE["RVV"], EXPONENTIAL["RES-2"], EXPONENTIAL["DPM-Solver++2M"])


@cache
def found() -> Findings:
    search = Search((PSLD_LINEAR,), 20, 3, flows=("euler",), growth=1e3)
    return find_words(search, SearchState(None, search.settings()), beside=BESIDE)


def test_new_words_are_compared_with_known_schemes_of_the_same_dynamics() -> None:
    new, known = rivals(found(), 2)
    assert len(new) == 2
    assert {scheme.name for scheme in new}.isdisjoint(CATALOGUE)
    stable = [entry.scheme.name for entry in found().catalogue if entry.is_stable]
    assert [scheme.name for scheme in known] == [name for name in stable if name not in ("RVV", "DPM-Solver++2M")]


def test_where_nothing_is_to_be_compared_it_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        rivals(dataclasses.replace(found(), kept=()), 2)
    with pytest.raises(ValueError, match="nothing to compare"):
        rivals(dataclasses.replace(found(), catalogue=()), 2)
    other = Search((VP_WHOLE,), 12, 2, flows=("euler",), params=VP_WHOLE.diffusion.parameters())
    assert {scheme.splitting.diffusion.name for scheme in POSITION.values()} == {other.diffusion.name}
    with pytest.raises(ValueError, match="not vp"):
        rivals(dataclasses.replace(found(), search=other), 2)


@pytest.mark.parametrize(
    ("error", "standard_error", "ends"),
    [
        (0.4, 0.2, WINS),
        (0.6, 0.2, OPEN),
        (0.4, 0.3, OPEN),
        (1.0, 0.0, OPEN),
        (1.6, 0.2, LOSES),
        (1.4, 0.2, OPEN),
        (None, None, LOSES),
    ],
)
def test_a_comparison_is_decided_by_two_standard_errors(
    error: float | None, standard_error: float | None, ends: str
) -> None:
    """Of the difference to 1.00 +- 0.15: 0.5 for the first."""
    assert _ends(*({"error": e, "standard_error": s} for e, s in ((error, standard_error), (1.0, 0.15)))) == ends


@pytest.mark.nightly
def test_parameters_that_the_network_was_not_trained_with_are_refused(tmp_path: Path) -> None:
    search = Search((PSLD_LINEAR,), 12, 3, flows=("euler",), growth=10.0, params=Parameters(gamma=0.02, nu=4.02))
    with pytest.raises(ValueError, match="trained at"):
        on_network(dataclasses.replace(found(), search=search), tmp_path, 2, 1, lambda what, total: lambda count: None)


@pytest.mark.nightly
def test_winners_are_sampled_from_the_network_and_kept(tmp_path: Path) -> None:
    """A word of the catalogue under another name has its weak error, and a ratio of 1."""
    done = list[int]()

    def progress(what: str, total: int):
        return done.append

    search = Search((PSLD_WHOLE,), 8, 2, flows=("euler",), times=(Fraction(0),), growth=1e3)
    (em,) = find_words(search, SearchState(None, search.settings()), beside=BESIDE[:1]).kept
    disguised = dataclasses.replace(em, name=None)
    same = dataclasses.replace(em, scheme=CATALOGUE["EM"], name="EM")
    findings = dataclasses.replace(found(), search=search, kept=(disguised,), catalogue=(same,))
    answer = on_network(findings, tmp_path, 2, 1, progress)
    assert sum(done) == 2 * (8 + 8 + 7 * 8 + 1)
    (word,), (known,) = answer["words"], answer["catalogue"]
    assert answer["against"] == "EM"
    assert word["error"] == known["error"]
    assert math.isfinite(word["error"])
    assert word["ratio"] == pytest.approx(1)
    assert word["ends"] == OPEN
    done.clear()
    assert on_network(findings, tmp_path, 2, 1, progress) == answer
    assert done == []
