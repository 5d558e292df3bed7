"""Tuned settings on a network: the cells that are sampled, what is compared, what is said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.model import Parameters
from weakorder.verification.advice import tune_network
from weakorder.verification.advice.tune_network import Candidate, Validation, said
from weakorder.verification.advice.tune_settings import Settings, power_fractions, untuned
from weakorder.verification.cifar10.study.cells import REFERENCES, Cell
from weakorder.verification.cifar10.study.sampling import Store, missing_work, run_work

ROBA, RVV = CATALOGUE["ROBA"], CATALOGUE["RVV"]
PARAMS = tiny_models.PARAMS
REFERENCE = Cell(REFERENCES["stochastic"], 8, "quadratic")


def test_a_cell_with_the_models_cutoff_and_denoising_is_kept_by_the_key_that_it_had() -> None:
    """Claim: samples of studies made before cells had these two settings are found again; others have other keys."""
    plain = Cell(ROBA, 4, "quadratic", REFERENCE)
    words = [ROBA.word, repr(ROBA.splitting.parts), "euler", 1.0, 4, "quadratic"]
    words += [part.name for part in ROBA.parts if part.euler]
    assert plain.description() == [*words, "float32", REFERENCE.description()]
    others = [dataclasses.replace(plain, **change) for change in ({"eps": 2e-3}, {"denoises": False})]
    assert len({repr(cell.description()) for cell in (plain, *others)}) == 3
    assert [cell.nfe for cell in (plain, *others)] == [5, 5, 4]


def test_a_cells_run_ends_at_its_own_cutoff_with_its_own_last_step(tmp_path: Path) -> None:
    """Claim: on a Gaussian's score the variance of a cell's samples is the exact one of its settings, which the model's
    cut-off or denoising step would miss by more than ten standard errors."""
    model, target = tiny_models.gaussian(variance=1e-3)
    cell = Cell(ROBA, 6, "quadratic", REFERENCE, eps=0.05, denoises=False)
    store = Store(tmp_path, model, 0, 32)
    run_work(store, missing_work(store, [cell], 64), torch.device("cpu"))
    found = store.load(cell, 64)
    assert found is not None
    assert found.evaluations == 6
    sizes = {
        (eps, denoises): float(tune_network_law(target, eps, denoises)[0, 0, 0])
        for eps in (0.05, PARAMS.eps)
        for denoises in (True, False)
    }
    variance, error = float((found.x**2).mean()), float((found.x**2).std() / np.sqrt(found.x.size))
    assert abs(variance - sizes[0.05, False]) < 5 * error
    for settings, size in sizes.items():
        assert settings == (0.05, False) or abs(variance - size) > 10 * error


def tune_network_law(target, eps: float, denoises: bool) -> np.ndarray:
    from weakorder.integrators.grids import time_grid
    from weakorder.verification.exact.moments import exact_moments

    params = dataclasses.replace(PARAMS, eps=eps)
    own = dataclasses.replace(target, params=params)
    return exact_moments(ROBA, own, time_grid("quadratic", 6, params), "prior", denoises).computed.cov


class Opened:
    """A checkpoint, as far as a study looks at it."""

    def __init__(self) -> None:
        self.params = PARAMS


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    monkeypatch.setattr(tune_network.studies, "open_checkpoint", lambda path, given: (Opened(), "tiny"))
    monkeypatch.setattr(tune_network.studies, "model_of", lambda found: tiny_models.gaussian()[0])

    def run(*groups: list[Candidate], params: Parameters = PARAMS) -> dict:
        validation = Validation(tmp_path / "new", samples=8, refinement=2)
        done: list[int] = []
        found = validation.study(groups, params, torch.device("cpu"), lambda total: done.append)
        return found | {"done": sum(done)}

    return run


def test_candidates_are_compared_with_the_published_settings_on_one_fine_run(study: Callable[..., dict]) -> None:
    """Claim: of each scheme and budget the weak error of both, with standard errors, and their ratio; the same settings
    have the ratio 1; what was sampled is not sampled again."""
    groups = []
    for scheme in (ROBA, RVV):
        base = untuned(scheme, PARAMS, 7)
        fractions = tuple(power_fractions(base.steps, 2.4).tolist())
        scale = 0.8 if scheme is ROBA else 1.0
        other = Settings(scale, 0.01, False, fractions, None)
        candidates = [Candidate("published", scheme, base), Candidate("free", scheme, other)]
        groups.append([*candidates, Candidate("same", scheme, base)])
    found = study(*groups)
    assert found["done"] > 0
    assert found["reference_steps"] == {"stochastic": 12, "deterministic": 6}
    for group in found["groups"]:
        published, free, same = group
        assert [entry["label"] for entry in group] == ["published", "free", "same"]
        assert published["ratio"] is None
        assert same["ratio"]["value"] == 1
        assert same["weak"] == published["weak"]
        assert free["weak"]["standard_error"] > 0
        assert free["says"] in {"better on the network too", "worse on the network", "not told apart on the network"}
    assert study(*groups)["done"] == 0


def test_settings_tuned_at_other_parameters_are_refused(study: Callable[..., dict]) -> None:
    with pytest.raises(ValueError, match="the network that ships has the parameters"):
        study([Candidate("published", ROBA, untuned(ROBA, PARAMS, 7))], params=Parameters(gamma=0.02, nu=4.02))


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.5, 0.2, "better on the network too"),
        (0.7, 0.2, "not told apart on the network"),
        (1.3, 0.2, "not told apart on the network"),
        (1.5, 0.2, "worse on the network"),
    ],
)
def test_what_is_said_takes_two_standard_errors(value: float, error: float, words: str) -> None:
    assert said({"diverged": False, "ratio": {"value": value, "standard_error": error}}) == words
    assert said({"diverged": True, "ratio": None}) == "diverges on the network"
    assert said({"diverged": False, "ratio": None}, True) == "no ratio: the published settings diverge"
    assert said({"diverged": False, "ratio": None}).endswith("end within their noise of the fine run")


@pytest.mark.parametrize(
    ("options", "message"), [({"samples": 7}, "samples = 7"), ({"refinement": 1}, "refinement = 1")]
)
def test_too_little_is_refused(options: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Validation(tmp_path, **options)
