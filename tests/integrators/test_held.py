"""Schemes that hold another quantity than the score, or hold it over several evaluations: tables, moments, samples.

One answer three times: by hand (tests/held_by_hand.py), by exact moments, and read off the sampler with unit states and
unit noises. Then what the flows are in closed form, and that each way to get the mechanics wrong is seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from coupled_specimens import images, law_errors
from held_by_hand import run_by_hand
from sampler_probe import probe
from scipy.integrate import quad_vec
from selection import nightly_but
from weakorder.integrators import blackbox, held
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.coupling import couple
from weakorder.integrators.grids import time_grid
from weakorder.integrators.loading import load_object
from weakorder.integrators.recall import Recall
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.theory import held_flows
from weakorder.theory.clock import LOGSNR, TIME, Clock
from weakorder.theory.frozen import DATA_HELD, EPS_HELD, FROZEN, RESIDUAL_HELD, SCORE_HELD, Frozen, NumericKernel
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW, PSLD_FLOW_WHOLE, PSLD_LINEAR, PSLD_WHOLE, Splitting
from weakorder.verification.blackbox import probed_moments
from weakorder.verification.exact import errors_of, gaussian_targets, moments
from weakorder.verification.exact.moments import exact_moments, step_maps
from weakorder.verification.targets import GaussianTarget

Array = np.ndarray
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PARAMS = Parameters()
WHOLES = (PSLD_WHOLE, PSLD_FLOW_WHOLE)
LINEAR_BETA = Parameters(gamma=0.3, nu=2.1, kappa=0.1, beta_min=0.5, beta_max=9.0)
TAUS = np.array([0.1, 0.3, 0.38, 0.61])  # steps of ratios 0.4 and 2.9
WORDS = [
    ("S F", PSLD_WHOLE, "exact"),
    ("S F", PSLD_FLOW_WHOLE, "exact"),
    ("U(1/2) S@1/2 E U(1/2)", PSLD_LINEAR, "exact"),
    ("O S@1/4 B(1/2) A S@3/4 B(1/2)", PSLD, "exact"),
    ("S B A", PSLD_FLOW, "exact"),
]


def scheme_of(case: tuple, frozen=SCORE_HELD, memory: int = 1, **options) -> Scheme:
    word, splitting, flow = case
    return Scheme(word, splitting, flow=flow, frozen=frozen, memory=memory, **options)


def composed(scheme: Scheme, target: GaussianTarget, taus: np.ndarray) -> tuple[np.ndarray, ...]:
    """R, b and Q of a run by exact moments: of the state, from a state without memory."""
    maps = step_maps(scheme, target, taus)
    total = type(maps)(*(entry[..., 0, :] for entry in maps))
    for k in range(1, len(taus) - 1):
        total = total.then(type(maps)(*(entry[..., k, :] for entry in maps)))
    return total.matrix[:2, :2, 0], total.offset[:2, 0], total.noise_cov[:2, :2, 0]


def assert_same_map(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...], tolerance: float) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("memory", nightly_but((2).__eq__, (1, 2, 3)))
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=str)
@pytest.mark.parametrize("case", WORDS, ids=lambda case: f"{case[0]} on {case[1].name}")
def test_moments_and_samples_are_what_a_run_by_hand_gives(case: tuple, frozen, memory: int) -> None:
    scheme = scheme_of(case, frozen, memory, lambda_s=1.2 if case[1] in (PSLD, PSLD_WHOLE) else 1.0)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    by_hand = run_by_hand(scheme, target, TAUS)
    assert_same_map(composed(scheme, target, TAUS), by_hand, 1e-10)
    assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-10)


CLOCKED = [
    (WORDS[0], DATA_HELD, 2, LOGSNR.at_midpoint),
    (WORDS[1], EPS_HELD, 3, LOGSNR),
    (WORDS[2], DATA_HELD, 2, LOGSNR),
    (WORDS[3], SCORE_HELD, 3, TIME),
    (WORDS[4], RESIDUAL_HELD, 2, TIME.at_midpoint),
    (("U(1/2) S E U(1/2)", PSLD_LINEAR, "euler"), SCORE_HELD, 3, LOGSNR),
    (("S F", PSLD_WHOLE, "euler"), SCORE_HELD, 3, TIME.at_midpoint),
]


@pytest.mark.parametrize(
    ("case", "frozen", "memory", "clock"), nightly_but(lambda case: case in (CLOCKED[0], CLOCKED[5]), CLOCKED), ids=str
)
def test_so_are_those_of_every_clock(case: tuple, frozen: Frozen, memory: int, clock: Clock) -> None:
    """And those of int beta are others."""
    scheme = scheme_of(case, frozen, memory, clock=clock)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    by_hand = run_by_hand(scheme, target, TAUS)
    assert_same_map(composed(scheme, target, TAUS), by_hand, 1e-10)
    assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-10)
    with pytest.raises(AssertionError):
        assert_same_map(composed(scheme.remembering(1), target, TAUS), by_hand, 1e-3)
    with pytest.raises(AssertionError):
        assert_same_map(composed(scheme_of(case, frozen, memory), target, TAUS), by_hand, 1e-4)


@pytest.mark.parametrize("memory", [2, 3, 4])
@pytest.mark.parametrize("case", [("S F", PSLD_WHOLE, "euler"), ("U(1/2) S E U(1/2)", PSLD_LINEAR, "euler")], ids=str)
def test_euler_with_memory_is_adams_bashforth_by_hand(case: tuple, memory: int) -> None:
    scheme = scheme_of(case, memory=memory)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    by_hand = run_by_hand(scheme, target, TAUS)
    assert_same_map(composed(scheme, target, TAUS), by_hand, 1e-10)
    assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-10)


def test_two_evaluations_at_most_one_step_apart_are_looked_back_on_whatever_the_sweep() -> None:
    """A sweep of steps that knows those before it gives the maps of the whole run."""
    scheme = scheme_of(WORDS[3], DATA_HELD, 3)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    taus = np.array([0.1, 0.3, 0.38, 0.61, 0.8, 0.9])
    whole, rest = step_maps(scheme, target, taus), step_maps(scheme, target, taus[1:], past=2)
    for a, b in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(a[..., 3:, :], b)


# --- Couplings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [DATA_HELD, RESIDUAL_HELD], ids=str)
@pytest.mark.parametrize("memory", [1, 2])
@pytest.mark.parametrize("case", [WORDS[0], WORDS[2]], ids=lambda case: case[1].name)
def test_a_coupled_run_has_the_law_of_the_sampler(case: tuple, memory: int, frozen: Frozen) -> None:
    held = scheme_of(case, frozen, memory, lambda_s=1.1)
    runs = [(held, TAUS), (CATALOGUE["ROBA"], np.array([0.1, 0.2, 0.38, 0.5, 0.61]))]
    for coupled in (couple(runs, LINEAR_BETA), couple(runs[::-1], LINEAR_BETA)):
        assert max(law_errors(coupled)) <= 1e-11


def test_the_noise_of_a_bridge_and_of_an_increment_are_integrals_over_one_brownian_motion() -> None:
    held, grid = scheme_of(WORDS[0], DATA_HELD), np.array([0.6, 0.9])
    coupling = couple([(held, grid), (CATALOGUE["EM"], grid)], PARAMS)
    first, second = images(coupling, 0).sum(0), images(coupling, 1).sum(0)
    values = PARAMS.values()
    D = PSLD_WHOLE["F"].sde.numbers(values)[2]
    end = float(PARAMS.theta(0.4, 0.3))

    def integrand(r: float) -> np.ndarray:
        late, early = (NumericKernel(PSLD_DIFFUSION, float(PARAMS.theta(0.4, 0.4)) - x, values) for x in (r, end))
        E = late.propagator @ np.linalg.inv(early.propagator)
        return early.cov @ E.T @ np.linalg.inv(late.cov) @ D

    expected, _ = quad_vec(integrand, 0, end, epsabs=1e-13)
    np.testing.assert_allclose(first @ second.T, expected, rtol=0, atol=1e-11)
    assert np.abs(expected).max() > 0.1


# --- Orders -----------------------------------------------------------------------------------------------------------
# PSLD's defaults, errors of W2 to t = 0.1. From t = 1, as known answers are; and from t = 1/2, where what goes wrong in
# a run's first steps is not forgotten, in steps that alternate 1 : 2, which no smooth clock makes uniform.


def alternating(steps: int) -> Array:
    """From t = 1/2 to t = 0.1."""
    lengths = np.where(np.arange(steps) % 2, 2.0, 1.0)
    return 0.5 + 0.4 * np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()


def halfway(steps: int) -> Array:
    """Uniform, from t = 1/2 to t = 0.1."""
    return np.linspace(0.5, 0.9, steps + 1)


def whole_way(steps: int) -> Array:
    """Uniform, from t = 1 to t = 0.1."""
    return time_grid("uniform", steps, PARAMS, 0.1)


def errors(scheme: Scheme, grid: Callable[[int], Array], steps: Sequence[int]) -> Array:
    """The error at each number of steps."""
    target = gaussian_targets(PSLD_DIFFUSION, PARAMS)
    unit = np.sqrt(PSLD_DIFFUSION.prior_variances(PARAMS.values()))
    runs = [exact_moments(scheme, target, grid(count)) for count in steps]
    return np.array([errors_of(run.computed, run.exact, unit)["w2"] for run in runs])


def order(scheme: Scheme, grid: Callable[[int], Array], coarse: int) -> float:
    """Between so many steps and twice as many."""
    first, second = errors(scheme, grid, (coarse, 2 * coarse))
    return float(np.log2(first / second))


@pytest.mark.parametrize("splitting", WHOLES, ids=lambda splitting: splitting.name)
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=str)
@pytest.mark.parametrize("memory", [1, 2])
def test_a_memory_of_one_has_order_one_and_a_memory_of_two_order_two(memory, frozen, splitting) -> None:
    scheme = Scheme("S F", splitting, flow="exact", frozen=frozen, memory=memory)
    assert abs(order(scheme, whole_way, 800) - memory) < 0.05
    assert abs(order(scheme, alternating, 800) - memory) < 0.05


@pytest.mark.parametrize("frozen", [RESIDUAL_HELD, DATA_HELD], ids=str)
def test_a_memory_of_three_on_a_rough_path_has_order_two_with_a_small_constant(frozen: Frozen) -> None:
    """Noise that comes within a step acts on q at once, and a scheme with one evaluation a step sees it at the end: the
    variance of what it does to the state is off by h^2 / 12 times its square, whatever the polynomial."""
    two, three = (Scheme("S F", PSLD_WHOLE, flow="exact", frozen=frozen, memory=memory) for memory in (2, 3))
    larger, smaller = errors(two, halfway, (3200,)), errors(three, halfway, (1600, 3200))
    assert abs(np.log2(smaller[0] / smaller[1]) - 2) < 0.2
    assert smaller[1] < 0.2 * larger[0]


def test_sab2_is_the_word_s_f_with_a_memory_of_two() -> None:
    taus = time_grid("quadratic", 6, PARAMS, 0.1)
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], PSLD_DIFFUSION, PARAMS)
    for name, splitting in (("sab2", PSLD_WHOLE), ("ab2", PSLD_FLOW_WHOLE)):
        box = probed_moments(load_object(f"{EXAMPLES / 'multistep.py'}:{name}"), target, taus, "prior").computed
        word = exact_moments(Scheme("S F", splitting, memory=2), target, taus, "prior").computed
        np.testing.assert_allclose(word.mean, box.mean, rtol=0, atol=1e-10)
        np.testing.assert_allclose(word.cov, box.cov, rtol=0, atol=1e-10)


# --- Mutants ----------------------------------------------------------------------------------------------------------


def _a_wrong_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    right = held_flows.lagrange
    monkeypatch.setattr(held_flows, "lagrange", lambda *a: right(*a) * np.array([1, 1.1, 1])[: a[0].shape[1], None])


def _one_step_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are right, and the answer that they multiply is the one before."""
    right, compile_step = moments._remembering, moments.compile_step

    def with_a_longer_memory(scheme, taus, params, past):
        return [
            segment
            if segment.memory is None
            else segment._replace(memory=segment.memory._replace(gains=_behind_nothing(segment.memory.gains)))
            for segment in compile_step(scheme, taus, params, past)
        ]

    closed_map, identity = moments.closed_map, moments._identity
    monkeypatch.setattr(moments, "compile_step", with_a_longer_memory)
    monkeypatch.setattr(moments, "closed_map", lambda segment, target, _: closed_map(segment, target, 3))
    monkeypatch.setattr(moments, "_identity", lambda batch, _: identity(batch, 6))
    monkeypatch.setattr(moments, "_remembering", lambda law, _: right(law, 3))


def _behind_nothing(gains: Array) -> Array:
    return np.concatenate([np.zeros_like(gains), gains], axis=1)


def _a_step_off(monkeypatch: pytest.MonkeyPatch) -> None:
    right = held.evaluations_before

    def last(evaluated, place, memory):
        times = right(evaluated, place, memory + 1)
        return np.concatenate([times[:, :1], times[:, 2:]], axis=1)

    monkeypatch.setattr(held, "evaluations_before", last)


def _no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never evaluated takes part, at a time before the run, as 0."""
    right = held.evaluations_before

    def last(evaluated, place, memory):
        times = right(evaluated, place, memory)
        return np.where(np.isfinite(times), times, times[:, :1] + (times[0, 0] - times[1, 0]) * np.arange(memory))

    monkeypatch.setattr(held, "evaluations_before", last)


def _psi_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    right = held.reading_at
    monkeypatch.setattr(held, "reading_at", lambda scheme, time, params: right(scheme, time - 0.001, params))


def _uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    right = held.held_flow

    def as_if_uniform(sde, frozen, diffusion, begin, length, times, values, clock, amount):
        even = np.where(np.isfinite(times), -length[:, None] * np.arange(times.shape[1]), np.nan)
        return right(sde, frozen, diffusion, begin, length, even, values, clock, amount)

    monkeypatch.setattr(held, "held_flow", as_if_uniform)


MUTANTS = [_a_wrong_weight, _one_step_too_old, _a_step_off, _no_start, _psi_elsewhere, _uniform]


@pytest.mark.parametrize("splitting", WHOLES, ids=lambda splitting: splitting.name)
@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_known_orders_kill_each_mutant(mutate: Callable, splitting: Splitting, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = Scheme("S F", splitting, flow="exact", frozen=DATA_HELD, memory=2)
    assert abs(order(scheme, alternating, 400) - 2) < 0.1
    mutate(monkeypatch)
    assert order(scheme, alternating, 400) < 1.5


@pytest.mark.parametrize("mutate", [m for m in MUTANTS if m is not _one_step_too_old], ids=lambda m: m.__name__)
def test_a_run_by_hand_kills_each_mutant(mutate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = scheme_of(WORDS[0], DATA_HELD, 2)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    by_hand = run_by_hand(scheme, target, TAUS)
    assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-10)
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-6)


def test_a_run_by_hand_kills_a_sampler_that_recalls_an_answer_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = scheme_of(WORDS[0], DATA_HELD, 2)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    by_hand, right = run_by_hand(scheme, target, TAUS), Recall.__call__

    def late(self, k, u, s):
        before = self.old
        pull = right(self, k, u, s)
        self.old = before or self.old
        return pull

    monkeypatch.setattr(Recall, "__call__", late)
    with pytest.raises(AssertionError):
        assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-3)


# --- A start that keeps the order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [3, 4])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=str)
def test_a_graded_start_keeps_the_order_of_the_memory_on_the_flow(frozen: Frozen, memory: int) -> None:
    scheme = Scheme("S F", PSLD_FLOW_WHOLE, flow="exact", frozen=frozen, memory=memory)
    assert abs(order(scheme, lambda steps: time_grid("graded uniform", steps, PARAMS, 0.1), 400) - memory) < 0.1


def test_a_first_step_of_order_one_leaves_a_global_error_of_order_two() -> None:
    scheme = Scheme("S F", PSLD_FLOW_WHOLE, flow="exact", memory=3)
    assert abs(order(scheme, whole_way, 400) - 2) < 0.05


# --- As a black box, and with other numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_a_scheme_as_a_black_box_remembers_what_it_should(memory: int) -> None:
    scheme = scheme_of(WORDS[3], DATA_HELD, memory)
    target = GaussianTarget.of([0.5, -1.0], [0.25, 2.0], PSLD_DIFFUSION, LINEAR_BETA)
    taus = time_grid("quadratic", 5, LINEAR_BETA, 0.1)
    box = probed_moments(as_black_box(scheme, LINEAR_BETA), target, taus, "prior").computed
    word = exact_moments(scheme, target, taus, "prior").computed
    for found, expected in zip(box, word, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_a_black_box_compiles_each_step_of_a_run_once_however_often_it_is_probed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = []
    right = blackbox.compile_step
    monkeypatch.setattr(blackbox, "compile_step", lambda *args: compiled.append(args[1]) or right(*args))
    box, taus = as_black_box(scheme_of(WORDS[0], DATA_HELD, 2), PARAMS), time_grid("uniform", 100, PARAMS)
    for _ in range(2):
        u = torch.ones(2, 2, dtype=torch.float64)
        box.reset()
        for tau, later in itertools.pairwise(taus.tolist()):
            u = box(u, tau, later - tau, lambda v, t: -v)
    assert len(compiled) == 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_bit_of_a_sample_with_a_memory_depends_on_its_batch(dtype: torch.dtype) -> None:
    scheme = scheme_of(WORDS[0], DATA_HELD, 3)
    taus, numbers, event = time_grid("quadratic", 6, PARAMS), torch.arange(5), (3, 7)
    u = draw_prior(PSLD_DIFFUSION, PARAMS, numbers, event, dtype=dtype)

    def run(chosen: torch.Tensor) -> torch.Tensor:
        return sample(scheme, lambda v, t: -v / (1 + t), u[chosen], taus, PARAMS, samples=numbers[chosen], denoise=True)

    together = run(numbers)
    for chosen in (torch.tensor([3]), torch.tensor([4, 0])):
        assert torch.equal(run(chosen), together[chosen])


def test_the_score_is_evaluated_once_a_step_however_long_the_memory() -> None:
    asked: list[float] = []

    def score(u: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return -u

    scheme = scheme_of(WORDS[0], DATA_HELD, 4)
    sample(scheme, score, torch.ones(2, 2, dtype=torch.float64), TAUS, PARAMS)
    np.testing.assert_allclose(asked, 1 - TAUS[:-1])
