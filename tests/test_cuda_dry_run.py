"""What a GPU's user runs, on a GPU that is pretended: no tensors of two devices meet, and answers are the CPU's.

A stand-in (pretended_gpu) computes on the CPU and refuses what CUDA refuses. Where no convolution or matrix product is
rounded otherwise the results must be the CPU's to the last bit: they are computed by the same kernels.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import cifar10_network, loops, throughput
from click.testing import CliRunner
from diffusions import PARTED_THIRD, WHOLE_THIRD
from gpu_specimens import CPU, IMAGES, PARAMS, TINY, near, same
from pretended_gpu import GPU
from torch import Tensor
from weakorder.integrators.anchored import Anchor, anchor_to, sample_anchored
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE, LANGEVIN_CONTROLS, POSITION
from weakorder.integrators.coupling import couple, sample_coupled
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import ScoreError, draw_prior, sample
from weakorder.reports.commands.cli import cli
from weakorder.theory.model import PSLD_DIFFUSION
from weakorder.theory.scheme import FROZEN_FLOWS, Scheme
from weakorder.verification.blackbox.probing import probed_moments
from weakorder.verification.cifar10.model.precisions import PRECISIONS
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.sampled.coupled_levels import Experiment
from weakorder.verification.sampled.functionals import Functionals
from weakorder.verification.targets import mixture
from weakorder.verification.targets.empirical import EmpiricalTarget
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.targets.named import make_target
from weakorder.verification.targets.target import Target

# --- Sampling ---


@pytest.mark.parametrize("flow", FROZEN_FLOWS)
@pytest.mark.parametrize("scheme", [*CATALOGUE.values(), LANGEVIN_CONTROLS[0]], ids=lambda scheme: scheme.name)
def test_every_scheme_samples_on_the_gpu_what_it_does_on_the_cpu(gpu: GPU, scheme: Scheme, flow: str) -> None:
    scheme = replace(scheme, flow=flow, lambda_s=0.9 if any(part.sde.noise[0, 0] != 0 for part in scheme.parts) else 1)
    taus = time_grid("quadratic", 3, PARAMS)

    def run(device: torch.device) -> Tensor:
        numbers = torch.arange(2, 5, device=device)
        dtype = torch.float32 if flow == "exact" else torch.float64
        u = draw_prior(scheme.splitting.diffusion, PARAMS, numbers, (2, 2), dtype=dtype)
        u = sample(scheme, near, u, taus, PARAMS, samples=numbers, seed=1, denoise=True)
        assert u.device == device
        return u

    assert same(run(gpu.device), run(CPU))


def test_numbers_on_the_cpu_and_no_numbers_do(gpu: GPU) -> None:
    u, taus = torch.ones(2, 2, 3, device=gpu.device), time_grid("uniform", 2, PARAMS)
    given = sample(CATALOGUE["ROBA"], near, u, taus, PARAMS, samples=torch.arange(2))
    assert same(given, sample(CATALOGUE["ROBA"], near, u, taus, PARAMS))


def test_a_score_that_stays_on_the_cpu_is_no_error(gpu: GPU) -> None:
    """It is moved to the state: a network may live elsewhere."""
    u, taus = torch.ones(2, 2, 3, device=gpu.device), time_grid("uniform", 2, PARAMS)
    elsewhere = sample(CATALOGUE["EM"], lambda v, t: near(v.cpu(), t), u, taus, PARAMS)
    assert same(elsewhere, sample(CATALOGUE["EM"], near, u, taus, PARAMS))


@pytest.mark.parametrize(
    ("scheme", "reference"),
    [
        *((CATALOGUE[name], CATALOGUE["ROBA"]) for name in ("EM", "SSCS", "RVV")),
        (POSITION["vp-EM"], POSITION["vp-DDPM"]),
        (Scheme("S O B A", PARTED_THIRD), Scheme("S F", WHOLE_THIRD, flow="exact")),
    ],
    ids=lambda scheme: scheme.name,
)
def test_runs_on_common_noise_do(gpu: GPU, scheme: Scheme, reference: Scheme) -> None:
    fine, coarse = (time_grid("quadratic", steps, PARAMS) for steps in (4, 2))
    together = couple([(scheme, coarse), (reference, fine)], PARAMS)
    given = anchor_to(anchor := Anchor(reference, fine, PARAMS), scheme, coarse)

    def run(device: torch.device) -> list[Tensor]:
        numbers = torch.arange(2, device=device)
        u = draw_prior(scheme.splitting.diffusion, PARAMS, numbers, (3,))
        normals = anchor.draw(numbers, (3,))
        return [*sample_coupled(together, near, u, numbers), sample_anchored(given, near, u, normals, numbers)]

    for ours, theirs in zip(run(gpu.device), run(CPU), strict=True):
        assert ours.device == gpu.device
        assert same(ours, theirs)


def test_a_step_of_the_sampler_waits_for_nothing(gpu: GPU) -> None:
    """Tables and numbers of samples are on the device before the first step, and whether all scores were finite is
    asked after the last. A copy per step, or a number read, would not be wrong, but slow: this is to say so."""
    u = torch.ones(2, 2, 3, device=gpu.device)

    def waits(steps: int, score: Any = near) -> int:
        before = gpu.waits
        sample(CATALOGUE["ROBA"], score, u, time_grid("uniform", steps, PARAMS), PARAMS)
        return gpu.waits - before

    assert waits(7) == waits(6)
    assert waits(7, curious) == waits(6, curious) + 1


def curious(u: Tensor, t: float) -> Tensor:
    """A score that reads a number."""
    return near(u, t) + 0 * float(u[0, 0, 0])


def test_a_bad_score_is_reported_with_its_own_step_when_it_is_noticed(gpu: GPU) -> None:
    u, taus = torch.ones(2, 2, 3, device=gpu.device), time_grid("uniform", 8, PARAMS)

    def breaks(v: Tensor, t: float) -> Tensor:
        return near(v, t) * (float("nan") if t < 0.7 else 1)

    with pytest.raises(
        ScoreError, match=r"NaN or infinite at step 4 of 8, t = 0\.62\d* \(noticed 4 evaluations later\)"
    ):
        sample(CATALOGUE["ROBA"], breaks, u, taus, PARAMS)


# --- Targets ---


def targets() -> list[Target]:
    named = [make_target(name, PARAMS) for name in ("gaussian", "mixture", "banana", "student")]
    return [*named, make_target("mixture", PARAMS, 3), EmpiricalTarget("images", IMAGES, PSLD_DIFFUSION, PARAMS)]


@pytest.mark.parametrize("target", targets(), ids=lambda target: f"{target.name}-{math.prod(target.event)}")
def test_a_target_answers_on_the_gpu_as_on_the_cpu(gpu: GPU, target: Target) -> None:
    def answers(device: torch.device) -> list[Tensor]:
        u = target.sample(0.4, torch.arange(6, device=device), seed=2)
        functions = Functionals(target, 0.4)
        found = [u, target.score(u, 0.4), target.log_density(u, 0.4), target.responsibilities(u, 0.4)]
        found += [functions.values(u), target.score(u.float(), 0.2)]
        if isinstance(target, EmpiricalTarget):
            found.append(target.denoiser(u, 0.4))
        assert all(entry.device == device for entry in found)
        return found

    def agrees(here: Tensor, expected: Tensor) -> bool:
        return torch.allclose(here.cpu(), expected, rtol=16 * torch.finfo(here.dtype).eps, atol=0)

    # a processor has the score of few dimensions in machine code, to rounding
    equal = agrees if target.event[0] in mixture.COMPILED else same
    for here, expected in zip(answers(gpu.device), answers(CPU), strict=True):
        assert equal(here, expected)


# --- Black boxes ---


@pytest.mark.parametrize("back", [True, False])
@pytest.mark.parametrize("kind", ["step", "trajectory"])
def test_a_black_box_that_works_on_the_gpu_is_verified(gpu: GPU, kind: str, back: bool) -> None:
    """It moves its state there, draws there and asks there for the score; what it returns may stay there."""
    inner = as_black_box(CATALOGUE["ROBA"], PARAMS)

    def step(u: Tensor, tau: float, h: float, score: Callable[[Tensor, float], Tensor]) -> Tensor:
        result = inner(u.to(gpu.device), tau, h, score)
        return result.to(u.device) if back else result

    def trajectory(score: Any, u: Tensor, taus: Tensor) -> Tensor:
        for tau, later in zip(taus[:-1].tolist(), taus[1:].tolist(), strict=True):
            u = step(u, tau, later - tau, score)
        return u

    target, taus = GaussianTarget.of(0.5, 0.25, PSLD_DIFFUSION, PARAMS), time_grid("uniform", 3, PARAMS)
    found = probed_moments(step if kind == "step" else trajectory, target, taus)
    expected = exact_moments(CATALOGUE["ROBA"], target, taus)
    assert np.allclose(found.computed.cov, expected.computed.cov, rtol=1e-9)
    assert np.allclose(found.computed.mean, expected.computed.mean, rtol=1e-9)


# --- Benchmarks ---


def test_the_benchmark_of_the_network_runs(
    first_gpu: GPU, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cifar10_network.NETWORKS, "compact", replace(TINY, image_size=32))
    words = ["--network", "compact", "--batch", "2", "--seconds", "0.01", "--eager", "--device", "cuda"]
    monkeypatch.setattr(sys, "argv", ["cifar10_network.py", *words])
    cifar10_network.main()
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["precision"] for row in answer["rows"]] == list(PRECISIONS)
    assert answer["device"] == "pretended"


def test_the_benchmark_of_throughput_runs(
    first_gpu: GPU, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(throughput, "SHAPES", {"20 x 3": (20, (3,))})
    monkeypatch.setattr(throughput, "LARGE", {})
    monkeypatch.setattr(throughput, "STEPS", 2)
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--device", "cuda", "--repetitions", "1", "--json"])
    throughput.main()
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err.startswith("pretended")
    assert found["device"] == "pretended"
    assert {row["name"] for row in found["rows"] if row["what"] == "loop"} == {
        "sampler",
        "plain loop",
        "leanest plain loop",
    }


def test_a_loop_that_is_no_sampler_is_not_timed(gpu: GPU) -> None:
    u = draw_prior(PSLD_DIFFUSION, PARAMS, torch.arange(5000, device=gpu.device), (4,))
    run = loops.plain(CATALOGUE["ROBA"], u, 5)
    loops.check("plain", run(), CATALOGUE["ROBA"], u, 5)
    with pytest.raises(ValueError, match=r"quiet: covariance .* exact .*: it is no such sampler"):
        loops.check("quiet", 0.9 * run(), CATALOGUE["ROBA"], u, 5)


# --- Studies of a target ---


def test_a_targets_batch_is_simulated_on_the_gpu_it_is_given(gpu: GPU) -> None:
    target = make_target("mixture", PARAMS, 2)
    coupling = couple([(CATALOGUE["ROBA"], time_grid("uniform", steps, PARAMS, 0.1)) for steps in (2, 4)], PARAMS)
    there = Experiment(target, Functionals(target, 0.1), coupling, seed=0, stream=1)
    waits = gpu.waits
    found = replace(there, device=gpu.device).batch(3)
    assert gpu.waits > waits
    assert np.allclose(found, there.batch(3), rtol=1e-12, atol=1e-14)


@pytest.mark.nightly
def test_verify_samples_a_target_on_the_device_it_is_told(first_gpu: GPU, tmp_path: Path) -> None:
    small = ("--dim", "2", "--steps", "2,4,8,16", "--evaluations", "1", "--checkpoint", str(tmp_path / "paths.npz"))
    words = ("verify", "ROBA", "--target", "mixture", *small, "--json")
    here = CliRunner().invoke(cli, [*words, "--device", "cuda"], catch_exceptions=False)
    waits = first_gpu.waits
    assert waits > 0
    with pytest.raises(ValueError, match="another study"):  # its bits are the device's
        CliRunner().invoke(cli, words, catch_exceptions=False)
    assert first_gpu.waits == waits
    (tmp_path / "paths.npz").unlink()
    there = CliRunner().invoke(cli, words, catch_exceptions=False)
    errors = [[level["error"] for level in json.loads(found.stdout)["levels"]] for found in (here, there)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)
