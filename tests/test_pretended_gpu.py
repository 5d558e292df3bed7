"""The stand-in for a GPU: it refuses what CUDA refuses, allows what CUDA allows, and counts waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gpu_specimens import PARAMS, near, same
from pretended_gpu import GPU, DeviceError
from torch import Tensor, nn
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.kernels import fallback
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.theory.model import PSLD_DIFFUSION


def test_what_cuda_refuses_is_refused(gpu: GPU) -> None:
    here, there = torch.ones(3, device=gpu.device), torch.ones(3)
    number, index = torch.tensor(1.0), torch.tensor([0])
    for mixed in (
        lambda: here + there,
        lambda: there.add_(here),
        lambda: number.add_(here[0]),
        lambda: torch.stack([here[0], number]),
        lambda: torch.cat([here, there]),
        lambda: there[index.to(gpu.device)],
        lambda: torch.where(here > 0, here, there),
        lambda: nn.functional.linear(here, torch.ones(2, 3)),
        lambda: here.numpy(),
        lambda: np.asarray(here),
        lambda: torch.ones(3, device="cuda"),
        lambda: here.to("cuda:0"),
    ):
        with pytest.raises(DeviceError):
            mixed()


def test_what_cuda_allows_is_allowed(gpu: GPU) -> None:
    here, number = torch.ones(3, device=gpu.device), torch.tensor(2.0)
    assert same(here * number, torch.full((3,), 2.0))
    assert same(torch.where(here > 0, here, number), torch.ones(3))
    assert same(here[torch.tensor([0])], torch.ones(1))
    here[:2] = torch.zeros(2)
    assert here.tolist() == [0, 0, 1]
    assert here.to(gpu.device) is here
    assert here.device == gpu.device
    assert here.is_cuda
    assert not here.is_meta
    assert torch.tensor([1.0], device=gpu.device).cpu().item() == 1.0


def test_waits_are_copies_and_numbers_read(gpu: GPU) -> None:
    here = torch.ones(3, device=gpu.device)
    for does, waits in (
        (lambda: here.sum() * 2, 0),
        (lambda: here.clone().to(torch.float64), 0),
        (lambda: float(here[0]), 1),
        (lambda: bool((here > 0).all()), 1),
        (lambda: here.cpu(), 1),
        (lambda: torch.ones(3).to(gpu.device), 1),
        (lambda: here[here > 0], 1),
        (lambda: here.tolist(), 1),
    ):
        before = gpu.waits
        does()
        assert gpu.waits - before == waits


def test_the_generator_of_the_gpu_is_its_own(gpu: GPU) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    here = torch.rand(2, device=gpu.device)
    assert same(torch.rand(2), expected)
    assert same(here, expected)
    assert not same(torch.rand(2, device=gpu.device), here)


def test_a_fused_optimiser_refuses_gradients_of_other_strides(gpu: GPU) -> None:
    weight = nn.Parameter(torch.ones(2, 3, device=gpu.device))
    weight.grad = torch.ones(3, 2, device=gpu.device).T
    with pytest.raises(DeviceError, match="strides"):
        torch.optim.Adam([weight], fused=True).step()


def test_a_counter_on_the_cpu_is_caught(gpu: GPU, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake that philox once had: words that are plain numbers became tensors on the CPU."""
    samples = torch.arange(2, device=gpu.device)
    draw_prior(PSLD_DIFFUSION, PARAMS, samples, (3,))

    def philox(counter: Any, key: Any) -> Any:
        words = [word if isinstance(word, Tensor) else torch.tensor(word) for word in counter]
        return whole([word + torch.zeros(1, dtype=torch.int64) for word in words], key)

    whole = fallback.philox
    monkeypatch.setattr(fallback, "philox", philox)
    with pytest.raises(DeviceError, match="two devices"):
        draw_prior(PSLD_DIFFUSION, PARAMS, samples, (3,))


@pytest.mark.parametrize("constructor", ["arange", "full"])
def test_a_tensor_of_a_run_that_is_left_on_the_cpu_is_caught(
    gpu: GPU, monkeypatch: pytest.MonkeyPatch, constructor: str
) -> None:
    u, taus, make = torch.ones(2, 2, 3, device=gpu.device), time_grid("uniform", 2, PARAMS), getattr(torch, constructor)
    sample(CATALOGUE["ROBA"], near, u, taus, PARAMS)
    monkeypatch.setattr(torch, constructor, lambda *args, device=None, **options: make(*args, **options))
    with pytest.raises(DeviceError, match="two devices"):
        sample(CATALOGUE["ROBA"], near, u, taus, PARAMS)
