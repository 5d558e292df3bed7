"""A search finds what going through everything finds: the planted answer, its filter, its pruning, and that it goes on
where it was stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL
from weakorder.theory.frozen import FROZEN
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE, VP_WHOLE
from weakorder.theory.weak_order import prove_order
from weakorder.verification.advice import search as chapter
from weakorder.verification.advice import search_judging as judging
from weakorder.verification.advice.search import Call, alone, find_words
from weakorder.verification.advice.search_findings import Findings, name_of, pareto
from weakorder.verification.advice.search_nodes import cifar10_nodes, nodes_of
from weakorder.verification.advice.search_settings import Search
from weakorder.verification.advice.search_state import SearchState
from weakorder.verification.exact import Spectrum, exact_moments, step_maps
from weakorder.verification.exact.spectrum import cifar10_spectrum, study_spectrum
from weakorder.verification.stability.growth import worst_growth
from weakorder.verification.targets.gaussian import GaussianTarget

PARAMS = Parameters()
# All words of SSCS's and RVV's splittings that a step of their lengths has, at few evaluations.
SEARCH = Search((PSLD_LINEAR, PSLD_FLOW), nfe=20, length=4, flows=("euler",), times=(Fraction(0), Fraction(1)))
KEEP = 12
BESIDE = (CATALOGUE["SSCS"], CATALOGUE["RVV"], CATALOGUE["NOBA"])


def nothing_kept(search: Search) -> SearchState:
    return SearchState(None, search.settings())


@cache
def found() -> Findings:
    return find_words(SEARCH, nothing_kept(SEARCH), keep=KEEP, beside=BESIDE)


def searched(search: Search) -> Findings:
    """Beside nothing."""
    return find_words(search, nothing_kept(search), keep=KEEP, beside=())


def whole_distances(schemes: list[Scheme], nfe: int) -> dict[str, float]:
    """By exact.spectrum, one curve each; without those that diverge."""
    study = study_spectrum(schemes, PARAMS, (nfe,), (SEARCH.grid,))
    return {
        scheme.word: float(curve.distance[0])
        for scheme, curve in zip(schemes, study.curves, strict=True)
        if curve.distance.size and not curve.diverged[0]
    }


@cache
def everything() -> dict[tuple[str, str], tuple[float, float]]:
    """Of every word of the search that does not diverge its distance on the whole spectrum and its growth there."""
    entries = {}
    for family in SEARCH.families:
        schemes = [family.scheme(word) for word in family.words()]
        for word, distance in whole_distances(schemes, SEARCH.nfe).items():
            scheme = family.scheme(word)
            taus = SEARCH.taus(scheme)
            assert taus is not None
            entries[family.splitting.name, word] = distance, worst_growth(scheme, PARAMS, taus).growth
    return entries


def check_ranking(findings: Findings) -> None:
    """The kept ones are the nearest of all that are stable, with their distances."""
    stable = sorted((distance, key) for key, (distance, growth) in everything().items() if growth <= SEARCH.growth)
    kept = [(found.scheme.splitting.name, found.scheme.word) for found in findings.kept]
    assert kept == [key for _, key in stable[:KEEP]]
    for found, (distance, _) in zip(findings.kept, stable, strict=False):
        assert found.judged.distance == pytest.approx(distance, rel=1e-12)


def test_the_nearest_words_are_those_of_all_words() -> None:
    check_ranking(found())


def test_some_are_dropped_because_they_grow() -> None:
    assert found().counts["unstable"] > 0
    assert any(growth > SEARCH.growth for _, growth in everything().values())


def test_the_catalogue_has_the_distances_of_the_spectrum_study() -> None:
    """At the budget, and at those of the front."""
    schemes = [entry.scheme for entry in found().catalogue]
    assert {scheme.name for scheme in schemes} == {scheme.name for scheme in BESIDE}
    study = study_spectrum(schemes, PARAMS, (SEARCH.nfe,), (SEARCH.grid,))
    for entry, curve in zip(found().catalogue, study.curves, strict=True):
        if curve.diverged[0]:
            assert entry.judged.distance is None
        else:
            assert entry.judged.distance == pytest.approx(curve.distance[0], rel=1e-12)
            assert (entry.steps, entry.nfe) == (curve.steps[0], curve.nfe[0])
            assert entry.curve[-1] == (entry.nfe, entry.judged.distance)


def test_the_catalogues_words_are_found_with_their_distances() -> None:
    """SSCS, RSE, RVV and NSE are words of the search: under their names, where they are near enough to be kept."""
    names = {name_of(SEARCH.families[place].scheme(word)) for place, word in every_word()}
    assert names >= {"SSCS", "RSE", "NSE"}
    for name in ("SSCS", "RSE", "NSE"):
        scheme = CATALOGUE[name]
        key = scheme.splitting.name, scheme.word
        if key in everything():
            assert everything()[key][0] == judging.distance(SEARCH, scheme, SEARCH.nfe)


def every_word() -> list[tuple[int, str]]:
    return [(place, word) for place, family in enumerate(SEARCH.families) for word in family.words()]


# --- Broken variants --------------------------------------------------------------------------------------------------


def test_a_filter_that_is_wrong_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes variances for the data's that are not, and ends too early."""
    right = cifar10_nodes()
    wrong = dataclasses.replace(right, of_spread=right.of_spread[::-1])
    monkeypatch.setattr(judging, "cifar10_nodes", lambda: wrong)
    with pytest.raises(AssertionError):
        check_ranking(searched(SEARCH))


def test_a_search_that_ends_too_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = chapter._Run.judged

    def ended(self: chapter._Run, ranked: list[chapter.Ranked], keep: int) -> object:
        return original(self, ranked[: KEEP // 2], keep)

    monkeypatch.setattr(chapter._Run, "judged", ended)
    with pytest.raises(AssertionError):
        check_ranking(searched(SEARCH))


def test_a_search_that_drops_no_unstable_word_is_caught() -> None:
    lenient = dataclasses.replace(SEARCH, growth=1e9)
    with pytest.raises(AssertionError):
        check_ranking(searched(lenient))


# --- The filter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ROBA", "SSCS", "RVV", "SDE-DPM-Solver++2M", "DDIM"])
def test_nodes_know_the_whole_spectrum_to_their_estimate(name: str) -> None:
    scheme = (CATALOGUE | EXPONENTIAL)[name]
    search = dataclasses.replace(SEARCH, nfe=50)
    taus = search.taus(scheme)
    assert taus is not None
    target = cifar10_nodes().target(search.diffusion, PARAMS)
    value, error = cifar10_nodes().distance(exact_moments(scheme, target, taus, "prior", denoise=True).computed)
    whole = whole_distances([scheme], 50)[scheme.word]
    assert abs(value - whole) <= error + 1e-11 * whole
    assert error < 0.01 * whole, "an estimate that says something"


def test_few_nodes_say_that_they_are_few() -> None:
    """Six nodes are far off, and their estimate is larger than what they are off by."""
    few = nodes_of(cifar10_spectrum(), 6)
    scheme = CATALOGUE["ROBA"]
    taus = SEARCH.taus(scheme)
    assert taus is not None
    law = exact_moments(scheme, few.target(SEARCH.diffusion, PARAMS), taus, "prior", denoise=True).computed
    value, error = few.distance(law)
    whole = whole_distances([scheme], SEARCH.nfe)[scheme.word]
    assert 1e-4 * whole < abs(value - whole) < error


def test_a_spectrum_with_a_point_mass_has_no_nodes() -> None:
    with pytest.raises(ValueError, match="variance 0"):
        nodes_of(Spectrum(np.array([1.0, 0.0]), np.zeros(2), 2))


# --- What is kept on disk ---------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """To the same answer, and nothing is computed twice."""
    path, asked = tmp_path / "state.json", list[str]()

    def stopping(calls: list[Call]) -> Iterator[tuple[int, object]]:
        yield from itertools.islice(alone(calls), 2)
        raise Stopped

    def counting(calls: list[Call]) -> Iterator[tuple[int, object]]:
        asked.extend(str(arguments[1:]) for _, _, arguments in calls)
        return alone(calls)

    with pytest.raises(Stopped), SearchState(path, SEARCH.settings()) as state:
        find_words(SEARCH, state, stopping, keep=KEEP, beside=BESIDE)
    with SearchState(path, SEARCH.settings()) as state:
        before = len(state.done)
        assert before == 2
        again = find_words(SEARCH, state, counting, keep=KEEP, beside=BESIDE)
        assert len(state.done) == before + len(asked)
    assert again.as_dict() == found().as_dict()
    asked.clear()
    with SearchState(path, SEARCH.settings()) as state:
        assert find_words(SEARCH, state, counting, keep=KEEP, beside=BESIDE).as_dict() == again.as_dict()
    assert asked == []


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": {}}', "null"])
def test_a_damaged_state_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(ValueError, match="remove it"):
        SearchState(tmp_path / "state.json", {"nfe": 20})


def test_a_state_of_another_search_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with SearchState(path, {"nfe": 20, "length": 4}) as state:
        state.keep("a", 1)
    with pytest.raises(ValueError, match="another nfe"):
        SearchState(path, {"nfe": 50, "length": 4})
    assert json.loads(path.read_text())["done"] == {"a": 1}


# --- Orders -----------------------------------------------------------------------------------------------------------


def test_words_of_order_two_are_those_that_are_proven() -> None:
    """Of one part that looks back on two evaluations the one that makes them where they are said to be made."""
    search = Search((PSLD_WHOLE,), 50, 2, flows=("euler",), memories=(1, 2), order=2, growth=1e6)
    findings = searched(search)
    assert [(entry.scheme.word, entry.scheme.memory, entry.order) for entry in findings.kept] == [("S F", 2, 2)]
    assert findings.counts["slow"] == findings.counts["judged"] - 1


def test_a_word_that_a_proof_refutes_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Gaussians do not show it."""
    monkeypatch.setattr(judging, "slope_on_gaussians", lambda scheme, params: 2.0)
    search = Search((PSLD_WHOLE,), 50, 2, flows=("euler",), memories=(1, 2), order=2, growth=1e6)
    findings = searched(search)
    assert [(entry.scheme.word, entry.scheme.memory) for entry in findings.kept] == [("S F", 2)]
    assert findings.counts["slow"] == 0
    assert findings.counts["refuted"] > 0


def test_a_slope_on_gaussians_refutes_nothing_that_is_proven() -> None:
    for scheme in (*CATALOGUE.values(), *EXPONENTIAL.values()):
        order = prove_order(scheme, linear_beta=False).order
        assert order is not None
        assert judging.slope_on_gaussians(scheme, PARAMS) > order - 0.5, scheme.name


def test_consistent_words_have_order_one() -> None:
    """As the search takes for granted: a proof of some, spread over the words."""
    family = Search((PSLD,), length=5).families[0]
    for word in list(family.words())[::97]:
        order = prove_order(family.scheme(word), linear_beta=False).order
        assert order is not None
        assert order >= 1, word


# --- Small things -----------------------------------------------------------------------------------------------------


def test_of_a_word_with_memory_the_start_is_what_must_not_grow() -> None:
    """SDE-DPM-Solver++2M at 49 steps: a perturbed state grows 50-fold, a perturbed start does not."""
    scheme = EXPONENTIAL["SDE-DPM-Solver++2M"]
    taus = dataclasses.replace(SEARCH, nfe=50).taus(scheme)
    assert taus is not None
    growth, from_start = judging.growths(scheme, PARAMS, taus, 2.0)
    assert growth > 10
    assert from_start < 2


def test_growth_from_the_start_is_that_of_the_products() -> None:
    """Of a word without memory, the norms of the products of all steps so far, at most the growth."""
    scheme = CATALOGUE["ROBA"]
    taus = SEARCH.taus(scheme)
    assert taus is not None
    variances = cifar10_nodes().variances[::8]
    from_start = judging.growth_from_start(scheme, PARAMS, taus, variances)
    assert 1 <= from_start <= judging.growths(scheme, PARAMS, taus, 2.0)[0] * (1 + 1e-9)
    by_hand = 1.0
    for variance in variances:
        target = GaussianTarget.of(0.0, variance, scheme.splitting.diffusion, PARAMS)
        moved = np.linalg.cholesky(target.law(PARAMS.T - taus[0]).cov[..., 0])
        for k in range(len(taus) - 1):
            moved = step_maps(scheme, target, taus[k : k + 2]).matrix[:, :, 0, 0] @ moved
            factor = np.linalg.cholesky(target.law(PARAMS.T - taus[k + 1]).cov[..., 0])
            by_hand = max(by_hand, float(np.linalg.norm(np.linalg.solve(factor, moved), 2)))
    assert from_start == pytest.approx(by_hand, rel=1e-8)


def test_the_front_is_what_nothing_cheaper_is_nearer_than() -> None:
    rng = np.random.default_rng(0)
    costs, distances = rng.integers(1, 9, 60).tolist(), rng.random(60).tolist()
    points = [(cost, distance, str(i)) for i, (cost, distance) in enumerate(zip(costs, distances, strict=True))]
    slow = [
        point
        for point in points
        if not any(o[:2] != point[:2] and o[0] <= point[0] and o[1] <= point[1] for o in points)
    ]
    assert pareto(points) == sorted(slow, key=lambda point: point[:2])


def test_a_scheme_of_the_catalogue_is_called_by_its_name() -> None:
    for scheme in (CATALOGUE | EXPONENTIAL).values():
        unnamed = dataclasses.replace(scheme, name="", order=None, reference="")
        assert name_of(unnamed) == scheme.name
    assert name_of(Scheme("O S B A", PSLD, lambda_s=1.1)) is None
    assert name_of(Scheme("S A B", PSLD_FLOW)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nfe": 1}, "nfe = 1"),
        ({"order": 0}, "order = 0"),
        ({"growth": 1.0}, "growth = 1"),
        ({"splittings": ()}, "at least one"),
        ({"splittings": (PSLD, VP_WHOLE)}, "one diffusion"),
        ({"splittings": (LANGEVIN,)}, "no noise"),
        ({"splittings": (PSLD, PSLD)}, "each once"),
        ({"flows": ()}, "no words"),
        ({"flows": ("euler",), "frozen": (FROZEN["data"],)}, "no words"),
        ({"memories": (9,)}, "memory 9"),
        ({"grid": "log"}, "unknown"),
        ({"length": 1}, "length = 1"),
    ],
)
def test_what_makes_no_search_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**({"splittings": (PSLD_WHOLE,)} | change))


def test_at_least_one_word_is_kept() -> None:
    with pytest.raises(ValueError, match="keep = 0"):
        find_words(SEARCH, nothing_kept(SEARCH), keep=0)
