"""Black boxes over diffusions of one component and of three: by hand, and what is said of each where it is broken."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from diffusions import THIRD
from json_schemas import complaints
from selection import nightly_but
from torch import Tensor
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import POSITION
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import DIFFUSIONS, STATIONARY, Diffusion, LinearSDE, t, x
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import Part, Splitting
from weakorder.verification.blackbox import EpsNetwork, identify, inconsistencies, probed_moments, study_black_box
from weakorder.verification.blackbox.baseline import check, described, load, record, recorded_diffusion, save
from weakorder.verification.blackbox.comparison import compare
from weakorder.verification.exact import Spectrum, exact_moments, gaussian_targets
from weakorder.verification.stability import least_steps, worst_growth
from weakorder.verification.testing import assert_matches_baseline, assert_weak_order
from weakorder.verification.verdicts import Verdict

VP = DIFFUSIONS["vp"]
PARAMS, THIRD_PARAMS = VP.parameters(), THIRD.parameters()
EXPLODING = {"beta_min": 1.0, "beta_max": 4999.0}


VE = Diffusion("ve", LinearSDE((sp.S.Zero,), (sp.S.One,)), (), (sp.Integer(2500),), defaults=EXPLODING)


@pytest.mark.parametrize(("share", "verdict"), [(1.0, Verdict.PASS), (0.5, Verdict.FAIL)])
def test_a_variance_exploding_sde_of_ones_own_is_verified_and_half_its_noise_fails(
    share: float, verdict: Verdict
) -> None:
    """dx = dw in theta = int beta, which is sigma^2, up to 2,500."""

    def em(x: Tensor, tau: float, h: float, score: Any) -> Tensor:
        beta = 1 + 4998 * (1 - tau)
        return x + beta * h * score(x, 1 - tau) + math.sqrt(share * beta * h) * torch.randn_like(x)

    found = study(em, diffusion=VE, steps=(50, 100, 200, 400))
    assert found.verdict is verdict
    assert verdict is Verdict.FAIL or found.measured.order == pytest.approx(1, abs=0.1)


# --- Position alone, by hand ------------------------------------------------------------------------------------------


def alpha(t: float) -> float:
    return math.exp(-(0.1 * t + 19.9 * t**2 / 2) / 2)


def sigma(t: float) -> float:
    return math.sqrt(-math.expm1(-(0.1 * t + 19.9 * t**2 / 2)))


def ddim(x: Tensor, tau: float, h: float, score: Any, sign: float = 1.0, at: float | None = None) -> Tensor:
    """Song, Meng and Ermon 2021, equation 12 without noise."""
    t, s = 1 - tau, 1 - tau - h
    eps = -sign * sigma(t) * score(x, t if at is None else at)
    return alpha(s) * (x - sigma(t) * eps) / alpha(t) + sigma(s) * eps


def ancestral(x: Tensor, tau: float, h: float, score: Any, loud: float = 1.0, sign: float = 1.0) -> Tensor:
    """Ho, Jain and Abbeel 2020, equations 6 and 7: the posterior given the data point that the score stands for."""
    t, s = 1 - tau, 1 - tau - h
    kept = alpha(t) / alpha(s)
    data = (x + sign * sigma(t) ** 2 * score(x, t)) / alpha(t)
    mean = alpha(s) * (1 - kept**2) / sigma(t) ** 2 * data + kept * (sigma(s) / sigma(t)) ** 2 * x
    return mean + loud * math.sqrt(1 - kept**2) * sigma(s) / sigma(t) * torch.randn_like(x)


def loop(score: Any, u: Tensor, taus: Tensor, step: Any = ancestral) -> Tensor:
    for tau, later in pairwise(taus.tolist()):
        u = step(u, tau, later - tau, score)
    return u


class DEIS2:
    """A line through two scores times sigma, Adams-Bashforth with exact weights in t: Zhang and Chen 2023, tAB-1."""

    def __init__(self, forget: bool = False) -> None:
        self.forget = forget
        self.reset()

    def reset(self) -> None:
        self.old: tuple[float, Tensor] | None = None

    def __call__(self, x: Tensor, tau: float, h: float, score: Any) -> Tensor:
        t, s = 1 - tau, 1 - tau - h
        eps = -sigma(t) * score(x, t)
        nodes, weights = np.polynomial.legendre.leggauss(12)
        times = t + (s - t) * (nodes + 1) / 2
        # d(x / alpha) = d(sigma / alpha) eps, and d(sigma / alpha) / dt = beta / (2 alpha sigma)
        rate = np.array([(0.1 + 19.9 * r) / (2 * alpha(r) * sigma(r)) for r in times]) * weights * (s - t) / 2
        change = rate.sum() * eps
        if self.old is not None and not self.forget:
            change = change + (rate * (times - t)).sum() * (eps - self.old[1]) / (t - self.old[0])
        self.old = t, eps
        return alpha(s) * (x / alpha(t) + change)


FEW = (10, 20, 40, 80)
RIGHT = {"ddim": (ddim, 1), "ancestral": (ancestral, 1), "a loop of it": (loop, 1), "deis": (DEIS2(), 2)}


def study(sampler: Any, order: int = 1, diffusion: Diffusion = VP, steps: Any = FEW, **options: Any) -> Any:
    params = diffusion.parameters()
    return study_black_box("mine", sampler, params, order, steps, gaussian_targets(diffusion, params), **options)


@pytest.mark.parametrize("name", nightly_but(lambda name: name in ("ddim", "ancestral"), RIGHT))
def test_solvers_in_position_alone_pass_with_their_order_and_fail_at_the_next(name: str) -> None:
    sampler, order = RIGHT[name]
    found = study(sampler, order)
    assert found.verdict is Verdict.PASS
    assert found.measured.order == pytest.approx(order, abs=0.02)
    assert f"order {order} for any score in short runs" in found.reason
    assert study(sampler, order + 1).verdict is Verdict.FAIL


@pytest.mark.nightly
def test_a_solver_that_forgets_what_it_remembers_is_of_the_order_below() -> None:
    assert study(DEIS2(forget=True), 1).verdict is Verdict.PASS
    found = study(DEIS2(forget=True), 2)
    assert found.verdict is Verdict.FAIL
    assert "of order 1 where 2 is expected: the gain of x from s_x" in found.reason


TWINS: dict[str, tuple[Any, str]] = {
    "forgotten noise": (partial(ancestral, loud=0.0), "the noise covariance of x and x is missing"),
    "a wrong variance": (partial(ancestral, loud=1.1), "the noise covariance of x and x is 1.21 times"),
    "a wrong sign": (partial(ddim, sign=-1.0), "the gain of x from s_x is -"),
    "a wrong sign beside noise": (partial(ancestral, sign=-1.0), "the gain of x from s_x is -1 times"),
    "a frozen time": (partial(ddim, at=0.5), "the score's time t is 0.5 where 0.9 is right"),
}


@pytest.mark.parametrize("fault", TWINS)
def test_a_wrong_twin_in_position_alone_is_named_by_its_cause(fault: str) -> None:
    broken, said = TWINS[fault]
    (found,) = inconsistencies(broken, PARAMS, diffusion=VP)
    assert said in str(found)


@pytest.mark.parametrize("fault", nightly_but(lambda fault: fault == "a wrong variance", TWINS))
def test_a_wrong_twin_in_position_alone_fails(fault: str) -> None:
    broken, said = TWINS[fault]
    found = study(broken)
    assert found.verdict is Verdict.FAIL
    assert said in found.reason


def test_states_in_position_alone_are_a_batch_of_events_and_nothing_else() -> None:
    shapes = set()

    def seen(x: Tensor, tau: float, h: float, score: Any) -> Tensor:
        shapes.add(x.shape[1:])
        return ddim(x, tau, h, score)

    assert study(seen).verdict is Verdict.PASS
    assert shapes == {(), (3, 4, 4)}
    assert study(seen, event=(2, 5)).verdict is Verdict.PASS
    assert shapes == {(), (3, 4, 4), (2, 5)}


def test_pixels_that_share_their_noise_are_seen_in_position_alone() -> None:
    def shared(x: Tensor, tau: float, h: float, score: Any) -> Tensor:
        noise = torch.randn(x.shape[:1], dtype=x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        still = ancestral(x, tau, h, score, loud=0.0)
        t, s = 1 - tau, 1 - tau - h
        return still + math.sqrt(1 - (alpha(t) / alpha(s)) ** 2) * sigma(s) / sigma(t) * noise

    found = study(shared)
    assert found.verdict is Verdict.FAIL
    assert "wrong on images of 3 x 4 x 4: several pixels of an image share their noise" in found.reason


def test_a_network_of_position_alone_answers_eps() -> None:
    def step(x: Tensor, tau: float, h: float, score: Any, diffusion: Diffusion = VP) -> Tensor:
        t, s = 1 - tau, 1 - tau - h
        eps = EpsNetwork(score, PARAMS, diffusion=diffusion)(x, torch.full((len(x),), t, dtype=torch.float64))
        return alpha(s) * (x - sigma(t) * eps) / alpha(t) + sigma(s) * eps

    target = gaussian_targets(VP, PARAMS)
    taus = time_grid("uniform", 20, PARAMS)
    mine, theirs = (probed_moments(sampler, target, taus).computed for sampler in (step, ddim))
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
    with pytest.raises(ValueError, match="cannot be split into position and momentum along axis 1"):
        probed_moments(partial(step, diffusion=DIFFUSIONS["psld"]), target, taus)


# --- Three components -------------------------------------------------------------------------------------------------


def euler(
    u: Tensor, tau: float, h: float, score: Any, gain: float = 1.0, loud: float = 1.0, pull: float = 10.0
) -> Tensor:
    """Euler-Maruyama on the reverse of dx = m, dm = -x + 10 a, da = -m - 6 a + (6/5)^(1/2) dw, at PSLD's beta = 8."""
    theta = THIRD_PARAMS.beta(1 - tau) * h
    (x, m, a), s_a = u.unbind(1), score(u, 1 - tau)[:, 2]
    x, m = x - theta * m, m - theta * (pull * a - x)
    a = a + theta * (u[:, 1] + 6 * a + gain * 1.2 * s_a) + loud * (1.2 * theta) ** 0.5 * torch.randn_like(a)
    return torch.stack([x, m, a], dim=1)


THIRD_TWINS = {
    "forgotten noise": ({"loud": 0.0}, "the noise covariance of a and a is missing (9.6 is right)"),
    "a wrong variance": ({"loud": 2**0.5}, "the noise covariance of a and a is 2 times"),
    "a wrong sign": ({"gain": -1.0}, "the gain of a from s_a is -1 times what is right"),
    "a wrong pull": ({"pull": 9.0}, "the drift of m by a is 0.9 times what is right (-72 where -80 is right)"),
}


def test_higher_order_langevin_by_hand_passes_with_order_1() -> None:
    found = study(euler, diffusion=THIRD, steps=(50, 100, 200, 400))
    assert found.verdict is Verdict.PASS
    assert found.measured.order == pytest.approx(1, abs=0.05)
    assert "images 5x6x6" in found.reason


@pytest.mark.parametrize("fault", THIRD_TWINS)
def test_a_wrong_twin_of_three_components_is_named_by_its_cause(fault: str) -> None:
    changes, said = THIRD_TWINS[fault]
    (found,) = inconsistencies(partial(euler, **changes), THIRD_PARAMS, diffusion=THIRD)
    assert said in str(found)


@pytest.mark.parametrize(
    ("right", "diffusion"), [(ddim, VP), (ancestral, VP), (euler, THIRD)], ids=["ddim", "ddpm", "third"]
)
def test_of_what_is_right_nothing_is_said(right: Any, diffusion: Diffusion) -> None:
    assert inconsistencies(right, diffusion.parameters(), diffusion=diffusion) == []


# --- Words as black boxes ---------------------------------------------------------------------------------------------

HALF = THIRD.reverse(0.5)
WORDS = [*POSITION.values(), Scheme("S F", Splitting("half", THIRD, HALF, (Part("F", HALF.drift, HALF.diffusion),)))]


@pytest.mark.parametrize("scheme", nightly_but(lambda each: each.name in ("vp-DEIS-2", "S F"), WORDS), ids=str)
def test_a_word_as_a_black_box_has_the_moments_of_the_word(scheme: Scheme) -> None:
    diffusion = scheme.splitting.diffusion
    params = diffusion.parameters()
    target, taus = gaussian_targets(diffusion, params), time_grid("uniform", 12, params)
    probed = probed_moments(as_black_box(scheme, params), target, taus).computed
    exact = exact_moments(scheme, target, taus).computed
    for one, other in zip(probed, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11 * np.abs(other).max())


# --- Which word, how stable, and what changed -------------------------------------------------------------------------


NAMED = {"vp-DDIM": (ddim, {"vp-DDIM"}), "vp-DDPM": (ancestral, {"vp-DDPM", "vp-SDE-DPM-Solver++1"})}


@pytest.mark.parametrize("name", nightly_but("vp-DDIM".__eq__, NAMED))
def test_a_solver_in_position_alone_is_named_by_its_word(name: str) -> None:
    sampler, names = NAMED[name]
    found = identify(sampler, PARAMS, diffusion=VP)
    assert {likeness.scheme.name for likeness in found if likeness.is_same} == names


def test_of_a_word_with_too_much_noise_it_is_said_what_differs() -> None:
    word = [POSITION["vp-DDPM"]]
    (same,), (near,) = (
        identify(sampler, PARAMS, diffusion=VP, candidates=word)
        for sampler in (ancestral, partial(ancestral, loud=1.1))
    )
    assert same.is_same
    (line,) = near.differs
    assert line.startswith("noise covariance of x and x is 1.21 times the word's (its standard deviation 1.1 times)")


def test_three_components_are_compared_with_words_that_are_given_and_else_refused() -> None:
    whole = THIRD.reverse()
    mine = Scheme("S F", Splitting("third", THIRD, whole, (Part("F", whole.drift, whole.diffusion),)))
    (found,) = identify(euler, THIRD_PARAMS, candidates=[mine], diffusion=THIRD)
    assert found.is_same
    (found,) = identify(partial(euler, pull=9.0), THIRD_PARAMS, candidates=[mine], diffusion=THIRD)
    assert any(line.startswith("propagator of m from a is 0.9 times the word's") for line in found.differs)
    with pytest.raises(ValueError, match="diffusion 'third order' has no words in the catalogue to compare with"):
        identify(euler, THIRD_PARAMS, diffusion=THIRD)


DATA = Spectrum(np.array([30.0, 1.0, 0.02, 1e-4]), np.zeros(4), 100)


@pytest.mark.parametrize(("sampler", "word"), [(ddim, "vp-DDIM"), (ancestral, "vp-DDPM")], ids=["ddim", "ancestral"])
def test_a_black_box_in_position_alone_is_as_stable_as_its_word(sampler: Any, word: str) -> None:
    taus = time_grid("uniform", 8, PARAMS)
    mine = worst_growth(sampler, PARAMS, taus, DATA, VP)
    theirs = worst_growth(POSITION[word], PARAMS, taus, DATA)
    assert mine.growth == pytest.approx(theirs.growth, rel=1e-9)
    numbers, others = (dict(asdict(run.step)) for run in (mine, theirs))
    assert numbers.pop("cause") == others.pop("cause")
    assert numbers == pytest.approx(others, rel=1e-9, abs=1e-12)
    box, own = (
        least_steps(each, PARAMS, "uniform", bound=24, data=DATA, named=VP) for each in (sampler, POSITION[word])
    )
    assert (box.steps, box.steady) == (own.steps, own.steady)


def test_stability_sees_a_step_that_expands() -> None:
    def expanding(x: Tensor, tau: float, h: float, score: Any) -> Tensor:
        return ddim(x, tau, h, score) - 3 * x

    assert worst_growth(expanding, PARAMS, time_grid("uniform", 8, PARAMS), DATA, VP).growth > 100
    with pytest.raises(ValueError, match="stability needs a step"):
        worst_growth(DEIS2(), PARAMS, time_grid("uniform", 8, PARAMS), DATA, VP)


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return record("mine", ancestral, PARAMS, steps=FEW, diffusion=VP)


LOUDER = "noise covariance of x and x is 1.21 times what it was (its standard deviation 1.1"


def test_a_baseline_holds_its_diffusion(kept: dict[str, Any], tmp_path: Path) -> None:
    save(kept, tmp_path / "kept.json")
    loaded = load(tmp_path / "kept.json")
    assert complaints("baseline", loaded) == []
    assert recorded_diffusion(loaded) == VP
    for spoiled in ({"forward": ["-x/2"]}, {"forward": ["-x/2", "-m", "1", "1"]}, {"variances": []}):
        with pytest.raises(ValueError, match="record it anew"):
            check(loaded | {"diffusion": loaded["diffusion"] | spoiled}, ancestral)
    with pytest.raises(AssertionError, match="was recorded over another diffusion: pytest --weakorder-update"):
        assert_matches_baseline(ancestral, tmp_path / "kept.json", diffusion="psld")


def test_a_baseline_in_position_alone_flags_a_change(kept: dict[str, Any]) -> None:
    louder = copy.deepcopy(kept)
    assert compare(kept, louder).same
    for run in louder["short_runs"]:
        run["noise_covariance"] = [[1.21 * run["noise_covariance"][0][0]]]
    assert compare(kept, louder).lines[0].startswith(LOUDER)


@pytest.mark.nightly
def test_a_sampler_in_position_alone_is_as_recorded_until_it_is_changed(kept: dict[str, Any]) -> None:
    assert check(kept, ancestral).same
    assert check(kept, as_black_box(POSITION["vp-DDPM"], PARAMS)).same
    lines = check(kept, partial(ancestral, loud=1.1)).lines
    assert lines[0].startswith(LOUDER)
    assert "the weak order is" in " ".join(lines)


def test_a_baseline_of_phase_space_says_nothing_of_a_diffusion() -> None:
    assert recorded_diffusion({}) == DIFFUSIONS["psld"]
    assert recorded_diffusion({"diffusion": described(THIRD)}) == THIRD
    with pytest.raises(ValueError, match="scheme 'vp-DDIM' moves under 'vp', not 'third order'; drop the diffusion"):
        record("mine", POSITION["vp-DDIM"], PARAMS, diffusion=THIRD)


# --- In a test, on the command line, and what cannot be ---------------------------------------------------------------


def test_it_is_asserted_in_a_test_by_name_or_value() -> None:
    assert_weak_order(ddim, 1, steps=FEW, diffusion="vp")
    with pytest.raises(AssertionError, match=r"FAIL, not consistent: the rate of everything"):
        assert_weak_order(ddim, 1, VP.parameters(beta_max=16.0), steps=FEW, diffusion=VP)
    with pytest.raises(ValueError, match="diffusion is for black boxes; vp-DDIM has its own, drop it"):
        assert_weak_order(POSITION["vp-DDIM"], 1, diffusion="vp")
    with pytest.raises(ValueError, match="diffusion 'pv' is unknown; choose psld, vp, stationary or give"):
        assert_weak_order(ddim, 1, diffusion="pv")


def test_what_has_no_noise_or_hides_a_component_from_its_score_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="diffusion 'stationary' has no noise to run backward from"):
        study(ddim, diffusion=STATIONARY)
    psld = DIFFUSIONS["psld"]
    blind = Diffusion("blind", psld.forward, psld.data_variance, psld.prior_variance, (x, t))
    with pytest.raises(ValueError, match="the score of diffusion 'blind' does not know m, and a black box is given"):
        study(ddim, diffusion=blind)
