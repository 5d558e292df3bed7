"""Black boxes: their one-step maps are read off to all digits, and what cannot be verified is refused by name."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_step, noise_factor
from weakorder.integrators.grids import time_grid
from weakorder.reports import cli
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.gaussian import GaussianTarget
from weakorder.verification.moments import exact_moments
from weakorder.verification.order import Verdict, study_black_box
from weakorder.verification.probing import probed_moments

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
        for time, flow in compile_step(scheme, np.array([tau, tau + h]), PARAMS):
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


DRAWS = {
    "randn": lambda u: torch.randn(u.shape, dtype=u.dtype),
    "randn of ints": lambda u: torch.randn(*u.shape, dtype=u.dtype),
    "randn in float32": lambda u: torch.randn(u.shape),
    "randn with a generator": lambda u: torch.randn(u.shape, generator=torch.Generator().manual_seed(3), dtype=u.dtype),
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


REFUSED = {
    "uniform draws": (_plus(lambda u, _: torch.rand_like(u)), "draws from torch.rand_like"),
    "bernoulli draws": (_plus(lambda u, _: torch.bernoulli(torch.full_like(u, 0.5))), "draws from torch.bernoulli"),
    "numpy": (_plus(lambda *_: float(np.random.randn())), "draws from numpy.random"),  # noqa: NPY002
    "the random module": (_plus(lambda *_: random.gauss(0, 1)), "draws from the random module"),
    "more draws later": (_plus(lambda u, tau: torch.randn_like(u) if tau > 0.4 else 0), "another number or shape"),
    "fewer draws later": (
        lambda u, tau, h, score: euler_maruyama(u, tau, h, score, torch.zeros_like if tau > 0.4 else torch.randn_like),
        "draws 0 times, and 1 times in its first call",
    ),
    "a term of second order": (_plus(lambda u, _: 1e-7 * u**2), "not an affine map"),
    "float32 in the middle": (
        lambda u, tau, h, score: euler_maruyama(u.float(), tau, h, score).double(),
        "rounds to float32 somewhere",
    ),
    "batch entries mixed": (_plus(lambda u, _: 1e-6 * u.mean(0)), "mixes the entries of a batch"),
    "noise shared by the batch": (_plus(lambda u, _: torch.randn(2, dtype=u.dtype)), "share correlates them"),
    "the input changed in place": (_in_place, "changes its input in place"),
    "another shape returned": (lambda u, *_: u[:, :1], "it must return the next state"),
    "nothing returned": (lambda *_: None, "returns NoneType"),
}


@pytest.mark.parametrize(("step", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_verified_is_refused_with_its_time_and_reason(step, message: str) -> None:
    with pytest.raises(BlackBoxError, match=rf"at tau = .*{message}"):
        probed_moments(step, TARGET, TAUS)


def test_a_correct_black_box_passes_and_a_wrong_sign_fails() -> None:
    assert study_black_box("em", euler_maruyama, PARAMS, steps=(50, 100, 200, 400)).verdict is Verdict.PASS

    def wrong(u, tau, h, score):
        return euler_maruyama(u, tau, h, lambda v, t: score(v, t) * torch.tensor([-1.0, 1.0], dtype=v.dtype))

    assert study_black_box("wrong", wrong, PARAMS, steps=(50, 100, 200, 400)).verdict is Verdict.FAIL


BOX = """
import torch
def step(u, tau, h, score):
    s = score(u, 1 - tau)
    x, m = u[:, 0], u[:, 1]
    dx = 4 * (0.01 * x - 4 * m + 0.02 * s[:, 0])
    dm = 4 * (x + 4.01 * m + 2 * 0.25 * 4.01 * s[:, 1])
    noise = torch.randn_like(u) * torch.tensor([0.08, 8 * 4.01 * 0.25]).sqrt().to(u)
    return u + h * torch.stack([dx, dm], 1) + h ** 0.5 * noise
def uniform(u, tau, h, score):
    return u + torch.rand_like(u)
"""


def _run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["weakorder", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), *capsys.readouterr()


def test_the_command_line_verifies_a_users_step(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text(BOX)
    box = f"{tmp_path / 'box.py'}:step"
    code, out, _ = _run(monkeypatch, capsys, "verify", box, "--json", "--steps", "50,100,200,400")
    answer = json.loads(out)
    assert (code, answer["verdict"], answer["nfe_per_step"]) == (0, "PASS", 1)
    code, out, _ = _run(monkeypatch, capsys, "moments", box, "--json")
    mine, em = json.loads(out), json.loads(_run(monkeypatch, capsys, "moments", "EM", "--json")[1])
    np.testing.assert_allclose(mine["cov"], em["cov"], rtol=1e-6)  # the file rounds its constants in float32
    code, out, err = _run(monkeypatch, capsys, "verify", f"{tmp_path / 'box.py'}:uniform")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "draws from torch.rand_like" in err
    code, _, err = _run(monkeypatch, capsys, "verify", box, "--flow", "exact")
    assert (code, err.count("\n")) == (2, 1)
