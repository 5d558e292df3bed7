"""Cells on disk: functions of themselves and their reference, whoever computes them, whenever, beside whatever else.

The networks are tiny and random. Where the score is that of Gaussian data, what cells and references do together is
known exactly. Statistical assertions: each at `Z` standard errors, false alarms below 1e-9.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from selection import nightly_but
from tiny_models import CPU, PARAMS, SCHEMES, TINY, gaussian, network, neural
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, LANGEVIN_CONTROLS
from weakorder.integrators.coupling import couple
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.integrators.threads import one_thread
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD
from weakorder.verification.cifar10.model.checkpoint import NetworkScore
from weakorder.verification.cifar10.study import sampling
from weakorder.verification.cifar10.study.cells import Cell, Model, plan
from weakorder.verification.cifar10.study.sampling import Batch, Samples, Store, missing_work, run_work
from weakorder.verification.sampled.calibration import exact_coupled_moments
from weakorder.verification.targets.gaussian import GaussianTarget

ALL = CATALOGUE | EXPONENTIAL
CELLS = tuple(plan(SCHEMES, (4, 6), "quadratic", 3).values())
SAMPLES = 3
Z = 6.2


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def fill(folder: Path, model: Model, cells: tuple[Cell, ...] = CELLS, samples: int = SAMPLES, batch: int = 2) -> Store:
    """Sample what is missing."""
    store = Store(folder, model, batch=batch)
    run_work(store, missing_work(store, cells, samples), CPU, 2)
    return store


def files(folder: Path) -> dict[str, np.ndarray]:
    """Every file's samples."""
    found = {}
    for path in sorted((folder / "cells").rglob("*.npz")):
        with np.load(path) as arrays:
            found[str(path.relative_to(folder))] = arrays["x"]
    return found


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


# --- Resuming and adding ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """All cells of the tiny network, sampled at once."""
    return files(fill(tmp_path_factory.mktemp("whole"), neural()).folder)


@pytest.mark.nightly
def test_a_study_that_is_stopped_and_resumed_ends_in_the_same_bits(
    whole: dict[str, np.ndarray], tmp_path: Path
) -> None:
    stopped = Store(tmp_path / "stopped", stopping_after(45), batch=2)
    with pytest.raises(KeyboardInterrupt):
        run_work(stopped, missing_work(stopped, CELLS, SAMPLES), CPU, 2)
    some = files(stopped.folder)
    assert 0 < len(some) < len(whole)
    assert all(np.array_equal(some[name], whole[name]) for name in some)
    assert same(files(fill(tmp_path / "stopped", neural()).folder), whole)
    assert not list(tmp_path.rglob(".*")), "a file half written was left behind"


def stopping_after(evaluations: int) -> Model:
    """The tiny network, interrupted."""
    made, lock, left = NetworkScore(network(), PARAMS), threading.Lock(), [evaluations]

    def score(u: Tensor, t: float) -> Tensor:
        with lock:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return made(u, t)

    return Model("tiny", PARAMS, TINY, lambda _: score)


@pytest.mark.nightly
def test_what_is_there_is_not_sampled_again_and_another_scheme_changes_nothing(
    whole: dict[str, np.ndarray], tmp_path: Path
) -> None:
    few = tuple(cell for cell in CELLS if cell.scheme.name in ("ROBA", "RVV"))
    fill(tmp_path, neural(), few)
    before = files(tmp_path)
    store = Store(tmp_path, stopping_after(0), batch=2)
    run_work(store, missing_work(store, few, SAMPLES), CPU)  # no evaluation is left, and none is needed
    after = files(fill(tmp_path, neural(), CELLS).folder)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert same(after, whole)


def test_samples_do_not_depend_on_the_batch_where_the_score_does_not(tmp_path: Path) -> None:
    model, _ = gaussian()
    whole, single = (fill(tmp_path / str(size), model, batch=size) for size in (SAMPLES, 1))
    for cell in CELLS:
        first, second = whole.load(cell, SAMPLES), single.load(cell, SAMPLES)
        assert first is not None
        assert second is not None
        np.testing.assert_allclose(first.x, second.x, rtol=1e-6, atol=1e-6)  # float32 files of float64 states
        assert first.evaluations == second.evaluations == cell.nfe


def test_what_the_samples_depend_on_names_their_folder(tmp_path: Path) -> None:
    model, cell = neural(), CELLS[0]
    store = Store(tmp_path, model)
    others = [
        replace(store, seed=1),
        replace(store, batch=8),
        replace(store, model=replace(model, config=replace(TINY, fir=False, progressive_input="none"))),
        replace(store, model=replace(model, fingerprint="other")),
        replace(store, model=replace(model, params=Parameters(eps=2e-3))),
    ]
    assert cell.reference is not None
    finer = replace(cell, reference=replace(cell.reference, steps=cell.reference.steps + 1))
    scaled = replace(cell, scheme=replace(cell.scheme, lambda_s=0.9))
    flow = replace(cell, scheme=replace(cell.scheme, flow="exact"))
    half = replace(cell, precision="bfloat16")
    cells = [
        half,
        finer,
        scaled,
        flow,
        replace(cell, grid="uniform"),
        replace(cell, steps=9),
        replace(cell, reference=None),
    ]
    paths = [store.path(cell), *(other.path(cell) for other in others), *(store.path(other) for other in cells)]
    assert len(set(paths)) == len(paths)
    assert store.path(replace(cell, scheme=replace(cell.scheme, reference="a footnote"))) == store.path(cell)
    own = replace(store, imitates=False)  # an accelerator's rounding is another; float32 has none
    assert own.path(half) not in paths
    assert own.path(cell) == store.path(cell)


def test_a_damaged_file_is_named_and_not_read(tmp_path: Path) -> None:
    store = fill(tmp_path, gaussian()[0], CELLS[:1], 2)
    path = next(store.path(CELLS[0]).glob("*.npz"))
    content = path.read_bytes()
    for damaged in (b"", content[:-40], content.replace(b"float", b"flaot")):
        path.write_bytes(damaged)
        if damaged == content:
            continue
        with pytest.raises(ValueError, match=r"npz' .*remove it"):
            store.load(CELLS[0], 2)
    store.save(CELLS[0], Batch(0, 2), Samples(np.zeros((2, 3, 4, 4), np.float32), 4, 0.0))
    with pytest.raises(ValueError, match="holds float32"):
        store.load(CELLS[0], 2)
    assert store.load(CELLS[0], 3) is None  # the third sample is not there


# --- What is sampled ---


@pytest.mark.parametrize(
    "name",
    nightly_but(
        "ROBA".__eq__,
        ("ROBA", "SSCS", "EM", "NOBA", "RVV", "SDE-DPM-Solver++2M", "RES-2"),
    ),
)
def test_cells_and_their_reference_have_the_exact_joint_law_on_gaussian_data(name: str, tmp_path: Path) -> None:
    model, target = gaussian(0.25, 0.3)
    cell = plan((ALL[name],), (60,), "quadratic", 2)[0, 60]
    assert cell.reference is not None
    samples = 40
    store = fill(tmp_path, model, (cell,), samples, 8)
    found = [store.load(c, samples) for c in (cell, cell.reference)]
    x = np.stack([entry.x.reshape(-1) for entry in found if entry is not None]).astype(float)  # pixels are independent
    runs = [(c.scheme, time_grid(c.grid, c.steps, PARAMS)) for c in (cell, cell.reference)]
    law = exact_coupled_moments(couple(runs, PARAMS), target, "prior")
    last = denoising(cell.scheme, target)
    mean = np.array([last[0] @ law.mean[2 * k : 2 * k + 2, 0] + last[1] for k in range(2)])
    R = np.kron(np.eye(2), last[0][None])
    cov = R @ law.cov[..., 0] @ R.T
    n = x.shape[1]
    assert (np.abs(x.mean(1) - mean) < Z * np.sqrt(np.diag(cov) / n)).all()
    difference = x[0] - x[1]
    variance = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    assert abs(difference.var() / variance - 1) < Z * np.sqrt(2 / n) + 1e-6
    spread = 3 * (np.diag(cov) + mean**2).prod()  # E x^2 y^2 of Gaussians is at most 3 E x^2 E y^2
    assert abs((x[0] * x[1]).mean() - cov[0, 1] - mean.prod()) < Z * np.sqrt(spread / n)
    shuffled = x[0] - np.roll(x[1], 192)  # the samples of another number
    assert not abs(shuffled.var() / variance - 1) < Z * np.sqrt(2 / n) + 1e-6


def denoising(scheme: Scheme, target: GaussianTarget) -> tuple[np.ndarray, float]:
    """The last step's image of (x, m) in x, on Gaussian data: a row and an offset."""
    eps = PARAMS.eps
    law = target.law(eps)
    whole = scheme.splitting.whole
    drift, gain, _ = whole.numbers(PARAMS.values())
    length = eps * float(PARAMS.beta(eps))
    precision = target.precision(law)[..., 0]
    row = (np.eye(2) + length * (drift - gain @ precision))[0]
    return row, float(length * (gain @ precision @ law.mean[..., 0])[0])


def test_the_reference_is_the_samplers_own_run(tmp_path: Path) -> None:
    model, _ = gaussian()
    cell = CELLS[0]
    assert cell.reference is not None
    store = fill(tmp_path, model, (cell,), 3)
    found = store.load(cell.reference, 3)
    numbers = torch.arange(3)
    u = draw_prior(PSLD_DIFFUSION, PARAMS, numbers, model.event)
    taus = time_grid("quadratic", cell.reference.steps, PARAMS)
    mine = sample(cell.reference.scheme, model.score(CPU), u, taus, PARAMS, samples=numbers, denoise=True)[:, 0]
    assert found is not None
    np.testing.assert_allclose(found.x, mine, rtol=1e-5, atol=1e-6)  # the noise is kept in float32


def test_a_scheme_that_overflows_ends_so_and_stops_nothing(tmp_path: Path) -> None:
    model, _ = gaussian(1e-4)

    def cubic(u: Tensor, _: float) -> Tensor:
        return -(u**3) * 1e3

    wild = replace(model, fingerprint="cubic", score=lambda _: cubic)
    store = fill(tmp_path, wild, CELLS, 3)
    for cell in CELLS:
        found = store.load(cell, 3)
        assert found is not None
        assert found.evaluations == cell.nfe
    worst = store.load(CELLS[0], 3)
    assert worst is not None
    assert not np.isfinite(worst.x).all()


def test_without_references_cells_have_the_law_of_their_scheme(tmp_path: Path) -> None:
    model, target = gaussian(0.25)
    cell = plan((CATALOGUE["SSCS"],), (9,), "quadratic", 0)[0, 9]
    assert cell.reference is None
    store = fill(tmp_path, model, (cell,), 40, 8)
    found = store.load(cell, 40)
    law = exact_coupled_moments(
        couple([(cell.scheme, time_grid("quadratic", cell.steps, PARAMS))], PARAMS), target, "prior"
    )
    row, _ = denoising(cell.scheme, target)
    variance = row @ law.cov[..., 0] @ row
    assert found is not None
    assert abs(found.x.astype(float).var() / variance - 1) < Z * np.sqrt(2 / found.x.size)


def test_evaluations_are_counted_in_the_score_and_not_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = gaussian()
    cell = plan((CATALOGUE["NOBAB"],), (9,), "uniform", 0)[0, 9]
    calls = [0]

    def score(u: Tensor, t: float) -> Tensor:
        calls[0] += 1
        return model.score(CPU)(u, t)

    monkeypatch.setattr(Cell, "nfe", 999)
    store = fill(tmp_path, replace(model, score=lambda _: score), (cell,), 2, 2)
    found = store.load(cell, 2)
    assert found is not None
    assert found.evaluations == calls[0] == 3 * 2 + 1


# --- Plans ---


def test_a_budget_buys_whole_steps_and_the_denoising_one() -> None:
    cells = plan(tuple(CATALOGUE.values()), (2, 20, 50), "quadratic")
    for (place, budget), cell in cells.items():
        scheme = tuple(CATALOGUE.values())[place]
        assert cell.nfe <= budget < cell.nfe + scheme.nfe_per_step
        assert cell.reference is not None
        assert cell.reference.steps >= 8 * cell.steps
        assert cell.reference.kind == cell.kind
        assert cell.reference.grid == cell.grid
    assert {place for place, budget in cells if budget == 2} == {
        place for place, scheme in enumerate(CATALOGUE.values()) if scheme.nfe_per_step == 1
    }
    assert len({cell.reference for cell in cells.values()}) == 2


def test_a_larger_budget_leaves_samples_alone_if_the_reference_was_fine_enough(tmp_path: Path) -> None:
    model, _ = gaussian()
    store = Store(tmp_path, model)
    schemes = tuple(CATALOGUE[name] for name in ("ROBA", "RVV"))
    few, more = (plan(schemes, budgets, "quadratic", 2, 40) for budgets in ((5, 9), (5, 9, 20)))
    assert all(store.path(cell) == store.path(more[place]) for place, cell in few.items())
    coarse, fine = (plan(schemes, budgets, "quadratic", 2) for budgets in ((5, 9), (5, 9, 20)))
    changed = {place for place, cell in coarse.items() if store.path(cell) != store.path(fine[place])}
    assert changed == {(0, 5), (0, 9)}  # the deterministic cells need none of their reference
    with pytest.raises(ValueError, match="reference_steps = 10"):
        plan(schemes, (20,), "quadratic", 2, 10)


@pytest.mark.parametrize(
    ("schemes", "budgets", "refinement", "message"),
    [
        ((), (20,), 16, "at least one"),
        ((SCHEMES[0], SCHEMES[0]), (20,), 16, "each once"),
        (SCHEMES, (), 16, "budgets"),
        (SCHEMES, (50, 20), 16, "increasing"),
        (SCHEMES, (1,), 16, "from 2"),
        (SCHEMES, (2,), 16, "NOBA, RVV: no budget"),
        (SCHEMES, (20,), 1, "refinement = 1"),
        ((Scheme("O", PSLD),), (20,), 16, "needs an S"),
        ((replace(SCHEMES[0], flow="true"),), (20,), 16, "true sub-flows"),
        (
            LANGEVIN_CONTROLS[:1],
            (20,),
            16,
            r"dynamics are 'psld'; give a scheme of those: .* the average of that over m",
        ),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    schemes: tuple[Scheme, ...], budgets: tuple[int, ...], refinement: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(schemes, budgets, "quadratic", refinement)


def test_batches_cover_every_sample_once(tmp_path: Path) -> None:
    store = Store(tmp_path, neural(), batch=4)
    for samples in (1, 4, 5, 11):
        covered = [n for batch in store.batches(samples) for n in range(batch.first, batch.first + batch.size)]
        assert covered[:samples] == list(range(samples))
        assert len(covered) - samples < 4
    with pytest.raises(ValueError, match="batch = 0"):
        Store(tmp_path, neural(), batch=0)
    with pytest.raises(ValueError, match="precision 'half'"):
        replace(CELLS[0], precision="half")


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, content: bytes) -> None:
        raise OSError(f"no space left for {len(content)} bytes at {path}")

    monkeypatch.setattr(sampling, "write_atomically", broken)
    with pytest.raises(OSError, match="no space"):
        fill(tmp_path, gaussian()[0], CELLS[:1], 2)
    assert not files(tmp_path)
