"""Black boxes: their one-step maps are read off to all digits, and what cannot be verified is refused by name."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from selection import nightly_but
from weakorder.integrators.blackbox import BlackBoxError, Kind, kind_of
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_step, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.blackbox import probe
from weakorder.verification.blackbox.adapters import EpsNetwork
from weakorder.verification.blackbox.probing import probed_moments
from weakorder.verification.blackbox.study import study_black_box
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.order import OrderStudy
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.verdict import Verdict

PARAMS = Parameters(beta_min=0.5, beta_max=12.0)
TARGET = GaussianTarget.of([0.0, 0.7, -1.0], [0.25, 1.0, 0.05], PSLD_DIFFUSION, PARAMS)
TAUS = time_grid("quadratic", 15, PARAMS, t_end=0.1)


def euler_maruyama(u, tau, h, score, draw=torch.randn_like):
    """The published sampler's step, written out: beta and score at the step's beginning."""
    t = 1 - tau
    beta, s = PARAMS.beta(t), score(u, t)
    x, m, s_x, s_m = u[:, 0], u[:, 1], s[:, 0], s[:, 1]
    g2 = torch.tensor([PARAMS.gamma, PARAMS.M * PARAMS.nu], dtype=u.dtype).reshape(2, *(1 for _ in u.shape[2:]))
    drift_x = beta / 2 * (PARAMS.gamma * x - PARAMS.M_inv * m + 2 * PARAMS.gamma * s_x)
    drift_m = beta / 2 * (x + PARAMS.nu * m + 2 * PARAMS.M * PARAMS.nu * s_m)
    return u + h * torch.stack([drift_x, drift_m], dim=1) + (beta * h * g2) ** 0.5 * draw(u)


def as_black_box(scheme: Scheme):
    """A scheme of the catalogue behind a step function: one draw for each of its segments."""

    def step(u, tau, h, score):
        for time, flow, _ in compile_step(scheme, np.array([tau, tau + h]), PARAMS):
            P, K, C = (torch.tensor(entry[0]) for entry in (*flow[:2], noise_factor(flow.noise_cov)))
            s = torch.zeros_like(u) if time is None else score(u, float(time[0]))
            u = u @ P.T + s @ K.T + torch.randn_like(u) @ C.T
        return u

    return step


def assert_same_moments(actual, expected) -> None:
    for one, other in zip((*actual.computed, *actual.exact), (*expected.computed, *expected.exact), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * max(1.0, float(np.abs(other).max())))
    assert actual.nfe == expected.nfe


@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("start", ["exact", "prior"])
def test_a_scheme_behind_a_step_function_has_its_exact_moments(scheme: Scheme, start: str) -> None:
    assert_same_moments(
        probed_moments(as_black_box(scheme), TARGET, TAUS, start), exact_moments(scheme, TARGET, TAUS, start)
    )


def test_the_comparison_sees_noise_off_by_a_part_in_a_million() -> None:
    def louder(u, tau, h, score):
        return euler_maruyama(u, tau, h, score, lambda v: (1 + 1e-6) * torch.randn_like(v))

    with pytest.raises(AssertionError):
        assert_same_moments(probed_moments(louder, TARGET, TAUS), probed_moments(euler_maruyama, TARGET, TAUS))


GENERATOR = torch.Generator().manual_seed(3)
DRAWS = {
    "randn": lambda u: torch.randn(u.shape, dtype=u.dtype),
    "randn of ints": lambda u: torch.randn(*u.shape, dtype=u.dtype),
    "randn in float32": lambda u: torch.randn(u.shape),
    "randn with a generator": lambda u: torch.randn(u.shape, generator=GENERATOR, dtype=u.dtype),
    "randn_like with a generator": lambda u: torch.randn_like(u, generator=GENERATOR),
    "a distribution": lambda u: torch.distributions.Normal(torch.zeros_like(u), 1.0).sample(),
    "an initialiser": lambda u: torch.nn.init.normal_(torch.empty_like(u)),
    "randn with out": lambda u: torch.randn(u.shape, out=torch.empty(u.shape, dtype=u.dtype)),
    "randn_like": torch.randn_like,
    "normal of tensors": lambda u: torch.normal(torch.zeros_like(u), torch.ones_like(u)),
    "normal of numbers": lambda u: torch.normal(0.0, 1.0, size=u.shape, dtype=u.dtype),
    "normal_": lambda u: torch.empty_like(u).normal_(),
    "normal_ with a scale": lambda u: torch.empty_like(u).normal_(0.0, std=2.0) / 2,
    "two draws": lambda u: 0.6 * torch.randn_like(u) + 0.8 * torch.randn_like(u),
    "an unused draw": lambda u: torch.randn_like(u) if torch.randn(u.shape) is not None else u,
    "a draw per component": lambda u: torch.stack([torch.randn_like(u[:, 0]), torch.randn_like(u[:, 1])], dim=1),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_every_way_to_draw_gaussians_is_intercepted(draw) -> None:
    expected = probed_moments(euler_maruyama, TARGET, TAUS)
    assert_same_moments(probed_moments(lambda *a: euler_maruyama(*a, draw=draw), TARGET, TAUS), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_step_may_run_without_gradients(context) -> None:
    assert_same_moments(
        probed_moments(context()(euler_maruyama), TARGET, TAUS), probed_moments(euler_maruyama, TARGET, TAUS)
    )


def _in_place(u, tau, h, score):
    v = euler_maruyama(u, tau, h, score)
    u.mul_(2)
    return v


def _plus(extra):
    return lambda u, tau, h, score: euler_maruyama(u, tau, h, score) + extra(u, tau)


def _remembering():
    memory = []

    def step(u, tau, h, score):
        memory.append(score(u, 1 - tau).mean())
        return euler_maruyama(u, tau, h, score) + 1e-6 * sum(memory)

    return step


REFUSED = {
    "exponential draws": (
        _plus(lambda u, _: torch.empty_like(u).exponential_()),
        "draws from torch.exponential_.*randn",
    ),
    "a function of uniform draws": (
        _plus(lambda u, _: torch.rand_like(u) ** 2),
        "neither linear nor steps at twelfths",
    ),
    "a network that trains": (_plus(lambda u, _: torch.dropout(u, 0.5, True)), r"torch.dropout, .* into eval\(\)"),
    "a negative standard deviation": (
        _plus(lambda u, _: torch.normal(0.0, -2.0, u.shape, dtype=u.dtype)),
        "torch.normal for std = -2; it must be >= 0",
    ),
    "complex numbers": (_plus(lambda u, _: 1j), "the next state, which is real"),
    "coins that multiply": (
        lambda u, tau, h, score: euler_maruyama(u, tau, h, score) * torch.bernoulli(torch.full_like(u, 0.5)),
        "what it draws from torch.bernoulli must be added to its state",
    ),
    "NaN": (_plus(lambda u, tau: 0.0 if tau < 0.4 else torch.nan), r"the sampler returns NaN from step \d+ on"),
    "numpy": (_plus(lambda *_: float(np.random.randn())), "draws from numpy.random"),  # noqa: NPY002
    "the random module": (_plus(lambda *_: random.gauss(0, 1)), "draws from the random module"),
    "a term of second order": (_plus(lambda u, _: 1e-7 * u**2), "not an affine map.*it is nonlinear"),
    "half precision in the middle": (
        lambda u, tau, h, score: euler_maruyama(u.bfloat16().double(), tau, h, score),
        "it rounds to half precision: verify it in float32",
    ),
    "a clamp": (lambda u, *_: u.clamp(-100, 100), "it branches on its state, as what clamps"),
    "a branch on the state": (lambda u, *_: torch.where(u > 0, u, 1.001 * u), "it branches on its state"),
    "a generator seeded in each step": (
        _plus(lambda u, _: torch.randn(u.shape, generator=torch.Generator().manual_seed(3), dtype=u.dtype)),
        "draws twice from a generator in the same state",
    ),
    "the global generator seeded in each step": (
        _plus(lambda u, _: torch.manual_seed(3).seed() * 0 + torch.randn_like(u)),
        "seeds",
    ),
    "state kept in a closure": (_remembering(), "keeps state between calls"),
    "several times at once": (
        lambda u, tau, h, score: u + score(u, torch.linspace(0.1, 0.2, len(u))),
        r"several times in one call, from 0\.1 to 0\.2; give it one time",
    ),
    "batch entries mixed": (_plus(lambda u, _: 1e-6 * u.mean(0)), "mixes the entries of a batch"),
    "noise shared by the batch": (
        _plus(lambda u, _: torch.randn(2, dtype=u.dtype)),
        "several entries share their noise",
    ),
    "the input changed in place": (_in_place, "changes its input in place"),
    "another shape returned": (lambda u, *_: u[:, :1], "it must return the next state"),
    "nothing returned": (lambda *_: None, "returns NoneType"),
}


@pytest.mark.parametrize(
    ("step", "message"), nightly_but(lambda case: case in list(REFUSED.values())[::2], REFUSED.values()), ids=REFUSED
)
def test_what_cannot_be_verified_is_refused_with_its_time_and_reason(step, message: str) -> None:
    with pytest.raises(BlackBoxError, match=rf"at tau = .*{message}"):
        probed_moments(step, TARGET, TAUS)


LEVELS = {"steps": (20, 40, 80, 160), "t_end": 0.3}  # few steps, and a stop early enough that their slopes have settled


@pytest.fixture(scope="module")
def correct() -> OrderStudy:
    return study_black_box("em", euler_maruyama, PARAMS, **LEVELS)


def test_a_step_that_draws_more_at_some_times_is_read_at_each() -> None:
    def split(u, tau, h, score):
        two = lambda v: 0.6 * torch.randn_like(v) + 0.8 * torch.randn_like(v)  # noqa: E731
        return euler_maruyama(u, tau, h, score, two if tau > 0.4 else torch.randn_like)

    assert_same_moments(probed_moments(split, TARGET, TAUS), probed_moments(euler_maruyama, TARGET, TAUS))


@pytest.mark.nightly
def test_a_correct_black_box_passes_and_a_wrong_sign_fails(correct: OrderStudy) -> None:
    assert correct.verdict is Verdict.PASS

    def wrong(u, tau, h, score):
        return euler_maruyama(u, tau, h, lambda v, t: score(v, t) * torch.tensor([-1.0, 1.0], dtype=v.dtype))

    assert study_black_box("wrong", wrong, PARAMS, **LEVELS).verdict is Verdict.FAIL


@pytest.mark.nightly
def test_float32_inside_a_step_is_measured_and_reported_and_the_verdict_stands(correct: OrderStudy) -> None:
    def single(u, tau, h, score):
        return euler_maruyama(u.float(), tau, h, score).double()

    study = study_black_box("single", single, PARAMS, **LEVELS)
    assert study.verdict is Verdict.PASS
    assert "rounds to float32" in study.warnings[0]
    assert study.rounding is not None
    assert (study.rounding > 2.0**-26 * study.steps).all()  # every step rounds, by about half a unit of 2^-24
    assert (study.rounding < 2.0**-20 * study.steps).all()
    assert correct.warnings == ()


class AdamsBashforth:
    """The probability flow by the two-step method, its first step Euler's; weak order 2."""

    def reset(self) -> None:
        self.last: torch.Tensor | None = None
        self.last_h = 0.0

    def __call__(self, u, tau, h, score):
        drift = self.drift(u, tau, score)
        slope = 0 if self.last is None else (drift - self.last) / self.last_h
        self.last, self.last_h = drift, h
        return u + h * drift + h**2 / 2 * slope

    @staticmethod
    def drift(u, tau, score):
        t = 1 - tau
        s, x, m = score(u, t), u[:, 0], u[:, 1]
        drift_x = PARAMS.gamma * x - PARAMS.M_inv * m + PARAMS.gamma * s[:, 0]
        drift_m = x + PARAMS.nu * m + PARAMS.M * PARAMS.nu * s[:, 1]
        return PARAMS.beta(t) / 2 * torch.stack([drift_x, drift_m], dim=1)


class WithoutReset(AdamsBashforth):
    def __init__(self) -> None:
        super().reset()

    def reset(self) -> None:
        pass


@pytest.mark.nightly
def test_a_multistep_sampler_is_reset_and_verified_at_its_own_order() -> None:
    target = GaussianTarget.of([0.5, 0.0], [0.25, 1.0], PSLD_DIFFUSION, PARAMS)
    study = study_black_box("ab2", AdamsBashforth(), PARAMS, 2, (100, 200, 400, 800), target, t_end=0.3)
    assert study.verdict is Verdict.PASS
    assert study.measured is not None
    assert abs(study.measured.order - 2) < 0.1
    np.testing.assert_array_equal(study.nfe, study.steps)

    class Swapped(AdamsBashforth):
        def __call__(self, u, tau, h, score):
            before = self.last
            ahead = super().__call__(u, tau, h, score)
            return ahead if before is None else u + h * (1.5 * before - 0.5 * self.drift(u, tau, score))

    assert study_black_box("swapped", Swapped(), PARAMS, 2, (50, 100, 200, 400), target).verdict is not Verdict.PASS


def test_a_multistep_sampler_that_keeps_its_state_after_a_reset_is_refused() -> None:
    with pytest.raises(BlackBoxError, match=r"in a run of 15 steps: .*is state left over from it"):
        probed_moments(WithoutReset(), TARGET, TAUS)


def test_a_whole_trajectory_has_the_moments_of_its_steps() -> None:
    def sample(score, u, taus):
        for tau, later in zip(taus[:-1].tolist(), taus[1:].tolist(), strict=True):
            u = euler_maruyama(u, tau, later - tau, score)
        return u

    class Stepwise:
        reset = staticmethod(lambda: None)
        __call__ = staticmethod(euler_maruyama)

    expected = probed_moments(euler_maruyama, TARGET, TAUS)
    for sampler in (sample, Stepwise()):
        assert_same_moments(probed_moments(sampler, TARGET, TAUS), expected)


def test_a_trajectory_of_many_draws_is_probed_in_several_calls_with_the_same_result(monkeypatch) -> None:
    class Stepwise:
        reset = staticmethod(lambda: None)
        __call__ = staticmethod(euler_maruyama)

    whole = probed_moments(Stepwise(), TARGET, TAUS)
    monkeypatch.setattr(probe, "_BATCH", 40)
    assert_same_moments(probed_moments(Stepwise(), TARGET, TAUS), whole)


def test_a_trajectory_that_forgets_its_last_noise_is_caught() -> None:
    def sample(score, u, taus):
        times = taus.tolist()
        for k, (tau, later) in enumerate(itertools.pairwise(times)):
            draw = torch.zeros_like if k == len(times) - 2 else torch.randn_like
            u = euler_maruyama(u, tau, later - tau, score, draw)
        return u

    with pytest.raises(AssertionError):
        assert_same_moments(probed_moments(sample, TARGET, TAUS), probed_moments(euler_maruyama, TARGET, TAUS))


@pytest.mark.parametrize("event", [(1,), (5,), (3, 2, 2)])
def test_a_sampler_of_events_has_the_moments_of_one_coordinate(event) -> None:
    def images_only(u, tau, h, score):
        if u.shape[2:] != torch.Size(event):
            raise ValueError(f"a state of shape {tuple(u.shape)}")
        return euler_maruyama(u, tau, h, score)

    expected = probed_moments(euler_maruyama, TARGET, TAUS)
    assert_same_moments(probed_moments(images_only, TARGET, TAUS, event=event), expected)


def test_a_sampler_that_mixes_the_elements_of_an_event_is_refused() -> None:
    def blurred(u, tau, h, score):
        return euler_maruyama(u, tau, h, score) + 1e-4 * u.roll(1, dims=2)

    with pytest.raises(BlackBoxError):
        probed_moments(blurred, TARGET, TAUS, event=(4,))


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda u, tau, h, score: u, Kind.STEP),
        (lambda u, tau, h, score, clip=False: u, Kind.STEP),
        (lambda *args: args[0], Kind.STEP),
        (lambda score, u, taus: u, Kind.TRAJECTORY),
        (lambda score, u, taus, *, seed=0: u, Kind.TRAJECTORY),
        (AdamsBashforth(), Kind.MULTISTEP),
    ],
)
def test_the_kind_of_a_black_box_is_told_by_its_arguments(function, kind: Kind) -> None:
    assert kind_of(function) is kind


def test_what_is_no_sampler_is_refused_by_its_arguments() -> None:
    with pytest.raises(BlackBoxError, match=r"the sampler takes \(u\); it must be step"):
        kind_of(lambda u: u)
    with pytest.raises(BlackBoxError, match="not callable"):
        kind_of(3)  # type: ignore[arg-type]


def test_an_eps_network_gives_the_score_back_through_the_kernels_cholesky_factor() -> None:
    """eps from `EpsNetwork` and s = -L^-T eps by the sampler's own algebra: the moments are the score's own."""
    kernel = GaussianTarget.of(0.0, 0.0, PSLD_DIFFUSION, PARAMS)

    def by_eps(transpose: bool, added: float, layout):
        def step(u, tau, h, score):
            network = EpsNetwork(score, PARAMS, numerical_eps=added)

            def from_eps(v, t):
                L = np.linalg.cholesky(kernel.law(t).cov[..., 0] + 1e-9 * np.eye(2))
                matrix = torch.as_tensor(-np.linalg.inv(L.T if transpose else L))
                eps = network(layout(v), torch.full((len(v),), t, dtype=torch.float64)).reshape(v.shape)
                return torch.einsum("ij,bj...->bi...", matrix, eps)

            return euler_maruyama(u, tau, h, from_eps)

        return step

    expected = probed_moments(euler_maruyama, TARGET, TAUS)
    assert_same_moments(probed_moments(by_eps(True, 1e-9, lambda v: v), TARGET, TAUS), expected)
    channels = by_eps(True, 1e-9, lambda v: v.reshape(len(v), -1, *v.shape[3:]))  # (B, 2C, H, W)
    assert_same_moments(probed_moments(channels, TARGET, TAUS, event=(3, 2, 2)), expected)
    for wrong in (by_eps(False, 1e-9, lambda v: v), by_eps(True, 1e-5, lambda v: v)):
        with pytest.raises(AssertionError):
            assert_same_moments(probed_moments(wrong, TARGET, TAUS), expected)
