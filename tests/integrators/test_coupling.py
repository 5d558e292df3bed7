"""Coupled runs have each the sampler's law and the same Brownian motion: shown exactly, on the linear images."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
import torch
from coupled_specimens import coupled_runs, images, law_errors
from diffusions import WHOLE_THIRD
from hypothesis import given
from scipy import integrate as quadrature
from scipy import linalg
from selection import examples
from weakorder.integrators import coupling as module
from weakorder.integrators.catalogue import CATALOGUE, POSITION
from weakorder.integrators.compiled import compile_run, noise_factor
from weakorder.integrators.coupling import Coupling, couple, run_coupled, sample_coupled
from weakorder.integrators.grids import time_grid
from weakorder.integrators.planes import shape_of
from weakorder.integrators.sampler import integrate
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme, parse
from weakorder.theory.splitting import PSLD, PSLD_WHOLE, VP_LINEAR, VP_WHOLE, Part, Splitting

PARAMS = Parameters()
ROBA, SSCS, EM = (CATALOGUE[name] for name in ("ROBA", "SSCS", "EM"))
OTHERS = (VP_WHOLE, VP_LINEAR, WHOLE_THIRD)  # of one and three components


@given(coupled_runs())
def test_every_coupled_run_has_the_law_of_the_sampler_exactly(case) -> None:
    runs, params = case
    # A noise is a sum over at most a dozen pieces of products of five 2x2 factors, and the flows are accurate to 1e-12.
    assert max(law_errors(couple(runs, params))) <= 1e-11


@examples(10)
@given(coupled_runs(OTHERS, OTHERS))
def test_so_has_every_run_of_one_and_of_three_components(case) -> None:
    runs, params = case
    coupling = couple(runs, params)
    assert coupling.size == runs[0][0].splitting.diffusion.size
    assert max(law_errors(coupling)) <= 1e-11


@pytest.mark.parametrize("splitting", OTHERS, ids=lambda splitting: splitting.name)
def test_in_any_number_of_components_noise_is_composed_and_not_added_up(splitting: Splitting, monkeypatch) -> None:
    """Claim: the second splitting's exact flows over a step and over its halves have one noise, carried on."""
    word = {"vp-linear": "U S E"}.get(splitting.name, "S F")
    scheme, grid = Scheme(word, splitting, flow="exact"), np.array([0.1, 0.25, 0.35])
    whole, halves = (images(couple([(scheme, grid[::2]), (scheme, grid)], PARAMS), run).sum(0) for run in (0, 1))
    assert max(law_errors(couple([(scheme, grid[::2]), (scheme, grid)], PARAMS))) <= 1e-12
    unit = np.eye(splitting.diffusion.size)
    monkeypatch.setattr(
        module.NoiseKind, "propagator", lambda _, __, length, *___: np.broadcast_to(unit, (*length.shape, *unit.shape))
    )
    assert law_errors(couple([(scheme, grid[::2]), (scheme, grid)], PARAMS))[0] > 1e-2
    assert whole.shape == halves.shape


def test_the_law_test_tells_a_noise_that_is_added_up_from_one_that_is_composed(monkeypatch) -> None:
    runs = [(ROBA, time_grid("uniform", 4, PARAMS)), (ROBA, time_grid("uniform", 8, PARAMS))]
    assert max(law_errors(couple(runs, PARAMS))) <= 1e-12
    monkeypatch.setattr(
        module.NoiseKind, "propagator", lambda _, __, length, *___: np.broadcast_to(np.eye(2), (*length.shape, 2, 2))
    )
    assert law_errors(couple(runs, PARAMS))[0] > 1e-2


def test_the_law_test_tells_noise_that_is_used_twice(monkeypatch) -> None:
    runs = [(parse("U(1/2) S E U(1/2)@0"), time_grid("uniform", 4, PARAMS))]
    assert max(law_errors(couple(runs, PARAMS))) <= 1e-12
    shares = module._shares
    monkeypatch.setattr(
        module, "_shares", lambda *args: shares(*args)._replace(replica=np.zeros_like(shares(*args).replica))
    )
    assert law_errors(couple(runs, PARAMS))[0] > 1e-2


@pytest.mark.parametrize(("word", "flow"), [("O", "exact"), ("U", "exact"), ("S F", "exact"), ("S F", "euler")])
@pytest.mark.parametrize(
    "params", [PARAMS, Parameters(gamma=0.5, nu=3, beta_min=0.1, beta_max=15.9)], ids=["default", "linear"]
)
def test_a_step_has_the_noises_of_its_halves_composed_by_the_parts_own_flow(word, flow, params) -> None:
    scheme = Scheme(word, parse(word).splitting, flow=flow)
    grid = np.array([0.1, 0.25, 0.35])
    coarse, fine = (images(couple([(scheme, grid[::2]), (scheme, grid)], params), run)[:, :, :] for run in (0, 1))
    part = scheme.parts[0]
    if word in ("O", "U"):  # no score: the run is its prologue, and composes the two noises itself
        np.testing.assert_allclose(coarse, fine, rtol=0, atol=1e-13 * np.abs(coarse).max())
        return
    later = params.theta(params.T - grid[1], grid[2] - grid[1])
    E = part.exact(later, params.values()).propagator if flow == "exact" else np.eye(2)
    np.testing.assert_allclose(coarse[1], E @ fine[1] + fine[2], rtol=0, atol=1e-13 * np.abs(coarse).max())


@pytest.mark.parametrize("other", [SSCS, EM, Scheme("S F", PSLD_WHOLE, flow="exact")], ids=["U", "F", "F exact"])
def test_the_noises_of_different_splittings_have_the_covariance_of_integrals_over_one_brownian_motion(other) -> None:
    params = Parameters(gamma=0.5, nu=3)
    grid = np.array([0.2, 0.3])
    word = "U S E" if other is SSCS else other.word
    second = Scheme(word, other.splitting, flow=other.flow)
    coupling = couple([(parse("O S A B"), grid), (second, grid)], params)
    first_noise, second_noise = images(coupling, 0).sum(0), images(coupling, 1).sum(0)

    def drift(part: Part, flow: str) -> np.ndarray:
        return np.zeros((2, 2)) if flow == "euler" and part.sde.uses_score else part.sde.numbers(params.values())[0]

    # O and U stand before their S: segment 0. The noise of F is that of segment 1.
    part = second.parts[0]
    A, B, D = drift(PSLD["O"], "exact"), drift(part, second.flow), PSLD["O"].sde.numbers(params.values())[2]
    theta = float(params.theta(params.T - grid[0], grid[1] - grid[0]))
    expected, _ = quadrature.quad_vec(lambda r: linalg.expm(A * r) @ D @ linalg.expm(B * r).T, 0, theta, epsabs=1e-14)
    np.testing.assert_allclose(first_noise @ second_noise.T, expected, rtol=0, atol=1e-12)
    assert np.abs(expected).max() > 0.1


def test_parts_that_divide_a_coordinates_noise_are_independent() -> None:
    reverse = PSLD.whole
    half = tuple(entry / 2 for entry in reverse.drift)
    root = tuple(entry / sp.sqrt(2) for entry in reverse.diffusion)
    two = type(PSLD)("two", PSLD.diffusion, reverse, (Part("X", half, root), Part("Y", half, root)))
    grid = np.array([0.2, 0.3])
    coupling = couple([(Scheme("S X S Y", two), grid), (EM, grid)], PARAMS)
    noises = images(coupling, 0)
    assert np.abs(noises[1] @ noises[2].T).max() == 0
    assert max(law_errors(coupling)) <= 1e-12


def test_deterministic_schemes_draw_nothing_and_words_without_score_run() -> None:
    grid = time_grid("uniform", 3, PARAMS)
    flow = couple([(CATALOGUE["RVV"], grid), (CATALOGUE["NSE"], grid)], PARAMS)
    assert flow.normals == 0
    u = torch.ones(4, 2, 3, dtype=torch.float64)
    first, _ = sample_coupled(flow, lambda u, _: -u, u, torch.arange(4))
    run = compile_run(CATALOGUE["RVV"], grid, PARAMS)
    np.testing.assert_allclose(first, integrate(run, lambda u, _: -u, u, torch.zeros_like), rtol=1e-12)
    alone = couple([(parse("U"), grid)], PARAMS)
    assert max(law_errors(alone)) <= 1e-12
    assert alone.evaluations == 0


@pytest.mark.parametrize(
    ("event", "schemes"),
    [
        ((), (ROBA, SSCS)),
        ((1,), (ROBA, SSCS)),
        ((2, 3), (ROBA, SSCS)),
        ((2, 3), (POSITION["vp-DDPM"], POSITION["vp-SDE-DPM-Solver++2M"])),
        ((1,), (POSITION["vp-EM"], POSITION["vp-EM"])),
        ((2,), (Scheme("S F", WHOLE_THIRD), Scheme("S F", WHOLE_THIRD, flow="exact"))),
    ],
    ids=lambda value: " and ".join(str(getattr(entry, "name", entry)) for entry in value),
)
def test_a_coupled_run_is_the_sampler_with_that_noise(event: tuple[int, ...], schemes: tuple[Scheme, ...]) -> None:
    grid = time_grid("quadratic", 5, PARAMS)
    coupling = couple([(schemes[0], grid), (schemes[1], np.delete(grid, 2))], PARAMS)
    generator, size = torch.Generator().manual_seed(1), coupling.size
    u = torch.randn(6, *shape_of(size, event), generator=generator, dtype=torch.float64)
    columns = torch.randn(coupling.columns, 6, coupling.width, *event, generator=generator, dtype=torch.float64)

    def score(u: torch.Tensor, t: float) -> torch.Tensor:
        return -torch.tanh(u) * (1 + t)

    states = run_coupled(coupling, score, u, lambda column: columns[column])
    for number, coupled in enumerate(coupling.runs):
        flat = columns.movedim(1, -1).reshape(coupling.columns, coupling.width, -1)
        noises = np.einsum(
            "sacw,cwn->san", images(coupling, number).reshape(-1, size, coupling.columns, coupling.width), flat
        )
        run = coupled.run
        covs = [run.prologue.noise_cov, *run.updates.flow.noise_cov]

        def noise(interval: int) -> torch.Tensor:
            white = linalg.pinv(noise_factor(covs[interval - 1])) @ noises[interval - 1]  # noqa: B023
            return torch.from_numpy(white).reshape(*shape_of(size, event), 6).movedim(-1, 0)

        torch.testing.assert_close(states[number], integrate(run, score, u, noise), rtol=1e-11, atol=1e-11)


def test_a_path_depends_on_its_seed_and_number_alone() -> None:
    grids = [time_grid("uniform", n, PARAMS) for n in (4, 8)]
    coupling = couple([(SSCS, grid) for grid in grids], PARAMS)
    u = torch.ones(5, 2, 2, dtype=torch.float64)
    assert_paths_are_of_seed_and_number(coupling, u)
    for scheme, shape in ((POSITION["vp-DDPM"], (5, 3)), (Scheme("S F", WHOLE_THIRD), (5, 3, 2))):
        coupling = couple([(scheme, grid) for grid in grids], PARAMS)
        assert_paths_are_of_seed_and_number(coupling, torch.ones(shape, dtype=torch.float64))


def assert_paths_are_of_seed_and_number(coupling: Coupling, u: torch.Tensor) -> None:
    def run(numbers: list[int], seed: int) -> torch.Tensor:
        return torch.stack(sample_coupled(coupling, lambda u, _: -u, u[: len(numbers)], torch.tensor(numbers), seed))

    whole = run([3, 1, 4, 15, 9], 7)
    torch.testing.assert_close(run([15, 3], 7), whole[:, [3, 0]], rtol=1e-13, atol=1e-13)
    assert (run([3, 1, 4, 15, 9], 8) != whole).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="increase strictly"):
        couple([(ROBA, np.array([0.1, 0.1]))], PARAMS)
    with pytest.raises(ValueError, match=r"states of 'vp-EM' have 1 components and those of 'O S B A' 2"):
        couple([(parse("O S B A"), np.array([0.1, 0.2])), (POSITION["vp-EM"], np.array([0.1, 0.2]))], PARAMS)
    with pytest.raises(ValueError, match="midpoint sub-flow"):
        couple([(Scheme("O S B A", PSLD, flow="midpoint"), np.array([0.1, 0.2]))], PARAMS)
