"""Attacks on the black-box tools that they withstand: samplers broken, or merely unusual, in ways that people write."""

from __future__ import annotations

import copy
import functools
import json
import threading

import numpy as np
import pytest
import torch
from selection import nightly_but
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.blackbox import baseline as baselines
from weakorder.verification.blackbox.consistency import inconsistencies
from weakorder.verification.blackbox.probing import probed_moments
from weakorder.verification.blackbox.study import study_black_box
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.verdict import Verdict

PARAMS = Parameters()
STEPS = (25, 50, 100, 200)
TARGET = GaussianTarget.of((0.0, 1.0), (0.25, 1.0), PSLD_DIFFUSION, PARAMS)
TAUS = np.array([0.0, 0.1, 0.25])


def euler_maruyama(u, tau, h, score, draw=torch.randn_like, t=None, noise=1.0):
    x, m = u.unbind(1)
    s_x, s_m = score(u, 1 - tau if t is None else t).unbind(1)
    drift = torch.stack([4 * (0.01 * x - 4 * m + 0.02 * s_x), 4 * (x + 4.01 * m + 2.005 * s_m)], dim=1)
    scale = torch.tensor([0.08, 8.02], dtype=u.dtype).sqrt().reshape(2, *(1,) * (u.ndim - 2))
    return u + h * drift + h**0.5 * scale * noise * draw(u)


def drawing(draw):
    return functools.partial(euler_maruyama, draw=draw)


def law(step, event=()) -> np.ndarray:
    computed = probed_moments(step, TARGET, TAUS, event=event).computed
    return np.concatenate([computed.mean.ravel(), computed.cov.ravel()])


NOISE = torch.randn(4096, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
GENERATOR = torch.Generator().manual_seed(1)
NUMPY = np.random.default_rng(0)


def _by_shape():
    cache: dict[torch.Size, torch.Tensor] = {}
    return lambda u: cache.setdefault(u.shape, cache[u.shape] if u.shape in cache else torch.randn_like(u))


def _in_a_thread(u):
    found = []
    worker = threading.Thread(target=lambda: found.append(torch.randn(u.shape, dtype=u.dtype)))
    worker.start()
    worker.join()
    return found[0]


def _row_signs(u):
    z = torch.randn_like(u)
    return z * torch.arange(1, len(u) + 1).reshape(-1, *(1,) * (u.ndim - 1))


BROKEN_NOISE = {
    "antithetic in pairs, one louder": lambda u: torch.cat([z := torch.randn_like(u[: (len(u) + 1) // 2]), -1.01 * z])[
        : len(u)
    ],
    "one draw for the batch": lambda u: torch.randn(1, *u.shape[1:], dtype=u.dtype).expand_as(u),
    "cached by shape": _by_shape(),
    "made at import": lambda u: NOISE[: len(u)],
    "of a numpy Generator": lambda u: torch.from_numpy(NUMPY.standard_normal(u.shape)),
    "of a numpy Generator seeded in the step": lambda u: torch.from_numpy(
        np.random.default_rng(0).standard_normal(u.shape)
    ),
    "below torch's functions": lambda u: torch.ops.aten.randn.default(list(u.shape), dtype=u.dtype),
    "below torch's functions, with a generator": lambda u: torch.ops.aten.normal_.default(
        torch.empty_like(u), 0.0, 1.0, generator=GENERATOR
    ),
    "from another thread": _in_a_thread,
    "truncated": lambda u: torch.randn_like(u).clamp(-3, 3),
    "of truncated normals": lambda u: torch.nn.init.trunc_normal_(torch.empty_like(u)),
    "Gumbel": lambda u: -torch.empty_like(u).exponential_().log(),
    "with dropout": lambda u: torch.nn.functional.dropout(torch.randn_like(u), 0.5),
    "less its mean over the batch": lambda u: (z := torch.randn_like(u)) - z.mean(0),
    "missing in the first row": lambda u: torch.randn_like(u) * (torch.arange(len(u)) > 0)[:, None],
    "scaled by the row": _row_signs,
    "quantised": lambda u: torch.randn_like(u).mul(8).round() / 8 + 1e-3 * torch.randn_like(u) ** 2,
}


@pytest.mark.parametrize(
    "draw", nightly_but(lambda draw: draw in list(BROKEN_NOISE.values())[::2], BROKEN_NOISE.values()), ids=BROKEN_NOISE
)
def test_noise_that_is_not_independent_normals_is_refused(draw) -> None:
    with torch.random.fork_rng(devices=[]), pytest.raises(BlackBoxError):
        law(drawing(draw))


GOOD_NOISE = {
    "reversed across the batch": lambda u: torch.randn_like(u).flip(0),
    "antithetic in pairs": lambda u: torch.cat([z := torch.randn_like(u[: (len(u) + 1) // 2]), -z])[: len(u)],
    "component first": lambda u: torch.randn(2, len(u), *u.shape[2:], dtype=u.dtype).movedim(0, 1),
    "component last": lambda u: torch.randn(len(u), *u.shape[2:], 2, dtype=u.dtype).movedim(-1, 1),
    "flat": lambda u: torch.randn(u.numel(), dtype=u.dtype).view_as(u),
    "of a stack": lambda u: torch.tensordot(
        torch.tensor([0.6, 0.8], dtype=u.dtype), torch.randn(2, *u.shape, dtype=u.dtype), 1
    ),
    "a call for each entry": lambda u: torch.stack([torch.randn(u.shape[1:], dtype=u.dtype) for _ in u]),
    "inside vmap": lambda u: torch.vmap(torch.randn_like, randomness="different")(u),
    "of a distribution, with gradients": lambda u: torch.distributions.Normal(torch.zeros_like(u), 1.0).rsample(),
    "of a multivariate distribution": lambda u: torch.distributions.MultivariateNormal(
        torch.zeros(2, dtype=u.dtype), torch.eye(2, dtype=u.dtype)
    ).sample((len(u),)),
    "with gradients": lambda u: torch.randn(u.shape, dtype=u.dtype, requires_grad=True),
    "in half precision": lambda u: torch.randn(u.shape, dtype=torch.float16).to(u),
    "of new_empty and normal_": lambda u: u.new_empty(u.shape).normal_(mean=0, std=1, generator=GENERATOR),
    "of a mean tensor and a number": lambda u: torch.normal(torch.zeros_like(u), 1.0),
    "of a number and a deviation tensor": lambda u: torch.normal(0.0, torch.ones_like(u)),
    "with every keyword": lambda u: torch.randn(
        size=u.shape, dtype=u.dtype, layout=torch.strided, pin_memory=False, device="cpu"
    ),
    "into a non-contiguous tensor": lambda u: torch.empty(2, len(u), dtype=u.dtype).t().normal_(),
    "of a list of sizes": lambda u: torch.randn([len(u), 2], dtype=u.dtype),
    "correlated and decorrelated": lambda u: (torch.randn_like(u) + torch.randn_like(u)) / 2**0.5,
    "in an orthogonal frame": lambda u: torch.randn_like(u) @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=u.dtype),
}


@pytest.mark.parametrize("draw", GOOD_NOISE.values(), ids=GOOD_NOISE)
def test_noise_of_the_right_law_is_taken_however_it_is_drawn(draw) -> None:
    assert np.abs(law(drawing(draw)) - law(euler_maruyama)).max() < 1e-12


def test_one_normal_for_position_and_momentum_is_told_as_their_covariance() -> None:
    step = drawing(lambda u: torch.randn(len(u), 1, *u.shape[2:], dtype=u.dtype).expand_as(u))
    (found,) = inconsistencies(step, PARAMS)
    assert str(found).startswith("the noise covariance of x and m is 0.800999 where 0 is right at all times")


def _on_a_copy_in_place(u, tau, h, score):
    v = u.clone()
    x, m = v[:, 0], v[:, 1]
    s = score(v, 1 - tau)
    old = x.clone()
    x += h * 4 * (0.01 * x - 4 * m + 0.02 * s[:, 0])
    m += h * 4 * (old + 4.01 * m + 2.005 * s[:, 1])
    v += h**0.5 * torch.tensor([0.08, 8.02], dtype=u.dtype).sqrt() * torch.randn_like(u)
    return v


def _with_gradients(u, tau, h, score):
    return euler_maruyama(u.detach().clone().requires_grad_(True), tau, h, score)


def _through_numpy(u, tau, h, score):
    return torch.from_numpy(euler_maruyama(u, tau, h, score).numpy().copy())


def _two_evaluations_that_cancel(u, tau, h, score):
    s = score(u, 1 - tau)
    return euler_maruyama(u, tau, h, lambda v, t: 2 * score(v, t) - s)


class _WarmUp:
    """Euler-Maruyama, whose first step of a trajectory is of two halves."""

    def reset(self):
        self.first = True

    def __call__(self, u, tau, h, score):
        halves, self.first = (2 if self.first else 1), False
        for k in range(halves):
            u = euler_maruyama(u, tau + k * h / halves, h / halves, score)
        return u


UNUSUAL = {
    "in place on a copy": _on_a_copy_in_place,
    "on states with gradients": _with_gradients,
    "through numpy": _through_numpy,
    "two evaluations that cancel": _two_evaluations_that_cancel,
    "times of shape (batch, 1, 1)": lambda u, tau, h, score: euler_maruyama(
        u, tau, h, score, t=torch.full((len(u), 1, 1), 1 - tau, dtype=torch.float64)
    ),
    "times in float32": lambda u, tau, h, score: euler_maruyama(
        u, tau, h, score, t=torch.full((len(u),), 1 - tau, dtype=torch.float32)
    ),
    "a bound method": type("Holder", (), {"step": lambda _, u, tau, h, score: euler_maruyama(u, tau, h, score)})().step,
    "a partial": functools.partial(euler_maruyama, noise=1.0),
    "a warm-up": _WarmUp(),
}


@pytest.mark.parametrize(
    "step", nightly_but(lambda step: step in list(UNUSUAL.values())[1::2], UNUSUAL.values()), ids=UNUSUAL
)
def test_a_correct_sampler_is_consistent_however_it_is_written(step) -> None:
    assert inconsistencies(step, PARAMS) == []
    if not isinstance(step, _WarmUp):
        assert np.abs(law(step) - law(euler_maruyama)).max() < 1e-6  # times in float32 move it by 1e-8


@pytest.mark.nightly
def test_a_sampler_with_a_warm_up_passes() -> None:
    study = study_black_box("step", _WarmUp(), PARAMS, 1, STEPS)
    assert study.verdict is Verdict.PASS, study.reason


WRONG = {
    "score at tau": (lambda u, tau, h, score: euler_maruyama(u, tau, h, score, t=tau), "the score's time t is 0.1"),
    "score at thousandths": (
        lambda u, tau, h, score: euler_maruyama(u, tau, h, score, t=1000 * (1 - tau)),
        "the score's time t is 1000 times what is right",
    ),
    "score's time clamped near the data": (
        lambda u, tau, h, score: euler_maruyama(u, tau, h, score, t=max(1 - tau, 0.06)),
        "from tau = 0.95 on",
    ),
    "time in bfloat16": (
        lambda u, tau, h, score: euler_maruyama(u, tau, h, score, t=torch.tensor(1 - tau, dtype=torch.bfloat16)),
        "the score's time",
    ),
    "nothing done": (lambda u, *_: u, "the rate of everything"),
    "noise of variance 1/2": (
        drawing(lambda u: torch.randn_like(u) * 2**-0.5),
        "the noise covariance of x and x is 0.5 times what is right",
    ),
    "a score from where it is not": (
        lambda u, tau, h, score: euler_maruyama(u, tau, h, lambda v, t: score(1.5 * v, t)),
        "the x of the score in terms of the old x is 1.5 times what is right",
    ),
}


@pytest.mark.parametrize(("step", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_sampler_fails_and_is_told_where(step, said: str) -> None:
    assert said in "; ".join(map(str, inconsistencies(step, PARAMS)))


def test_a_score_taken_away_from_the_state_by_its_own_gradient_is_told() -> None:
    def step(u, tau, h, score):
        s = score(u, 1 - tau)
        return euler_maruyama(u, tau, h, lambda v, t: score(v + 0.01 * s, t))

    study = study_black_box("step", step, PARAMS, 1, (5, 10, 20, 40))
    assert study.verdict is Verdict.FAIL
    assert "the gain of the x of score 2 from an earlier score's s_x is 0.01 where 0 is right" in study.reason


@pytest.fixture(scope="module")
def recorded() -> baselines.Baseline:
    return baselines.record("step", euler_maruyama, PARAMS, steps=(5, 10, 20, 40))


CHANGED = {
    "the last step without noise": lambda u, tau, h, score: euler_maruyama(
        u, tau, h, score, noise=0.0 if tau > 0.998 else 1.0
    ),
    "noise off by 1e-10": functools.partial(euler_maruyama, noise=1 + 1e-10),
    "times in float32": lambda u, tau, h, score: euler_maruyama(u, tau, h, score, t=float(np.float32(1 - tau))),
    "an evaluation more": lambda u, tau, h, score: euler_maruyama(u, tau, h, score) + 0 * score(u, 1 - tau),
}


@pytest.mark.parametrize("change", nightly_but(lambda change: "1e-10" in change, CHANGED))
def test_a_small_or_late_change_is_not_as_recorded(recorded, change: str) -> None:
    assert not baselines.check(recorded, CHANGED[change]).same


def test_the_same_sampler_drawing_otherwise_is_as_recorded(recorded) -> None:
    assert baselines.check(recorded, drawing(GOOD_NOISE["in an orthogonal frame"])).same


@pytest.mark.parametrize("value", [{}, [], None, 3, {"format": "weakorder baseline 0"}])
def test_what_is_no_baseline_is_refused_in_one_line(tmp_path, value) -> None:
    (tmp_path / "b.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"b\.json': this is no baseline of format .*: record it anew$"):
        baselines.load(tmp_path / "b.json")


def test_comparing_does_not_change_a_baseline(recorded) -> None:
    before = copy.deepcopy(recorded)
    baselines.check(recorded, euler_maruyama)
    assert recorded == before
