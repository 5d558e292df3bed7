"""Networks, their training and their study on a pretended GPU: answers are the CPU's."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gpu_specimens import CPU, IMAGES, PARAMS, POSITIONAL, TINY, lively, same
from pretended_gpu import FREE_BYTES, GPU
from selection import nightly_but
from undrawn import leave_the_study_undrawn
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.commands.cli import cli
from weakorder.reports.pages import cifar10_training
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model import training
from weakorder.verification.cifar10.model.checkpoint import Checkpoint, NetworkScore, fingerprint, save_network
from weakorder.verification.cifar10.model.machine import batch_size, free_memory, products
from weakorder.verification.cifar10.model.network import Config
from weakorder.verification.cifar10.model.precisions import PRECISIONS
from weakorder.verification.cifar10.study.cells import plan
from weakorder.verification.cifar10.study.design import model_of
from weakorder.verification.cifar10.study.sampling import Store, missing_work, run_work


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "config", nightly_but(lambda config: config is TINY, (TINY, POSITIONAL)), ids=["fourier", "positional"]
)
def test_a_network_scores_on_the_gpu(gpu: GPU, config: Config, precision: str) -> None:
    params = PARAMS if config.out_ch == config.in_ch else Parameters(gamma=0, nu=4)
    u = torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = NetworkScore(lively(config), params)(u, 0.3)
    score, here = NetworkScore(lively(config).to(gpu.device), params), u.to(gpu.device)
    with products(precision, gpu.device):
        for t in (0.3, torch.full((3,), 0.3), torch.full((3,), 0.3, device=gpu.device)):
            found = score(here, t)
            assert found.device == gpu.device
            assert found.dtype == torch.float64
            off = float((found.cpu() - expected).norm() / expected.norm())
            assert off < 1e-5 if precision != "bfloat16" else 1e-5 < off < 0.1


def test_a_network_on_the_gpu_has_its_fingerprint(gpu: GPU) -> None:
    weights = lively().state_dict()
    assert fingerprint(lively().to(gpu.device).state_dict()) == fingerprint(weights)


CONFIG = training.TrainingConfig(network=TINY, batch=3, warmup=2, seed=5)


@pytest.mark.parametrize(
    "config",
    nightly_but(
        lambda config: config is CONFIG, (CONFIG, replace(CONFIG, network=POSITIONAL, params=Parameters(gamma=0, nu=4)))
    ),
)
def test_a_step_of_training_moves_weights_and_their_average(gpu: GPU, config: training.TrainingConfig) -> None:
    state = training.State(config, gpu.device)
    images = torch.from_numpy(IMAGES).to(gpu.device)
    before = [weight.detach().clone() for weight in state.weights]
    for _ in range(3):
        state.advance(images)
    assert all(weight.device == gpu.device for weight in state.average.parameters())
    assert sum(not same(new, old) for new, old in zip(state.weights, before, strict=True)) > len(before) / 2
    assert math.isfinite(state.loss)


def test_the_loss_on_the_gpu_is_in_bfloat16_and_close_to_the_cpus(gpu: GPU) -> None:
    x, t, eps = torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.rand(3, dtype=torch.float64), torch.randn(3, 6, 8, 8)
    with torch.no_grad():
        expected = training.squared_errors(lively(), PARAMS, x, t, eps)
        found = training.squared_errors(lively().to(gpu.device), PARAMS, x.to(gpu.device), t, eps.to(gpu.device))
    off = float((found.cpu() / expected - 1).abs().max())
    assert 1e-6 < off < 0.05


@pytest.mark.nightly
def test_a_run_stopped_and_resumed_on_the_gpu_ends_in_the_same_bits(gpu: GPU, tmp_path: Path) -> None:
    def state(folder: str, *lengths: int) -> dict[str, Any]:
        for steps in lengths:
            training.train(CONFIG, IMAGES, tmp_path / folder, steps=steps, device=gpu.device, progress=False)
        return training.read_state(tmp_path / folder, CONFIG)

    whole, parts = state("whole", 2), state("parts", 1, 2)
    for part in ("network", "average"):
        assert all(same(value, parts[part][name]) for name, value in whole[part].items())
    moments = [content["optimizer"]["state"] for content in (whole, parts)]
    assert all(same(value, moments[1][k][name]) for k, each in moments[0].items() for name, value in each.items())


@pytest.mark.nightly
def test_a_run_begun_on_the_cpu_goes_on_on_the_gpu_and_back(gpu: GPU, tmp_path: Path) -> None:
    for steps, device in ((1, CPU), (2, gpu.device), (3, CPU)):
        state = training.train(CONFIG, IMAGES, tmp_path, steps=steps, device=device, progress=False)
        assert state.step == steps
    training.export(tmp_path, tmp_path / "model.safetensors")


def test_training_leaves_both_generators_as_they_were(gpu: GPU, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    training.train(CONFIG, IMAGES, tmp_path, steps=2, device=gpu.device, progress=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(torch.cuda.get_rng_state(), before[1])


def test_without_a_device_training_takes_the_first_gpu(first_gpu: GPU, tmp_path: Path) -> None:
    state = training.train(CONFIG, IMAGES, tmp_path, steps=1, progress=False)
    assert state.weights[0].device == first_gpu.device


def test_the_held_out_loss_is_that_of_the_cpu(gpu: GPU) -> None:
    times, errors = training.held_out_loss(lively().to(gpu.device), PARAMS, IMAGES, batch=4)
    expected_times, expected = training.held_out_loss(lively(), PARAMS, IMAGES, batch=4)
    assert np.array_equal(times, expected_times)
    assert np.abs(errors / expected - 1).max() < 0.1


@pytest.mark.parametrize(
    ("name", "refinement", "precision"), [("SSCS", 2, "float32"), ("RSE", 2, "tf32"), ("ROBA", 0, "bfloat16")]
)
def test_a_study_samples_on_the_gpu(gpu: GPU, tmp_path: Path, name: str, refinement: int, precision: str) -> None:
    """From a worker thread; the cells are those of the CPU, up to the network's precision: float32's roundings differ,
    and with them, now and then, the place of a number on TF32's grid, whose rounding unit is 2^-11, or bfloat16's."""
    cells = plan([CATALOGUE[name]], (3,), "quadratic", refinement, precision=precision).values()
    found = {}
    for device in (CPU, gpu.device):
        store = Store(tmp_path / device.type, model_of(Checkpoint(lively(), PARAMS, {})), batch=2)
        run_work(store, missing_work(store, cells, 2), device, 1)
        found[device.type] = [store.load(cell, 2) for cell in cells]
    for here, expected in zip(found["cuda"], found["cpu"], strict=True):
        assert here is not None
        assert expected is not None
        assert here.evaluations == expected.evaluations
        bound = {"float32": 1e-4, "tf32": 2.0**-11, "bfloat16": 0.2}[precision]
        assert np.abs(here.x - expected.x).max() / np.abs(expected.x).max() < bound


def test_a_batch_is_what_the_gpus_memory_holds(gpu: GPU) -> None:
    assert free_memory(gpu.device) == FREE_BYTES
    assert batch_size(TINY, 10, 10_000, gpu.device) == 256
    assert batch_size(TINY, 10, 100, gpu.device) == 32  # each of the two has one
    assert 1 <= batch_size(Config(), 1600, 10_000, gpu.device) < 16


def _checkpoint(folder: Path) -> Path:
    config = replace(TINY, image_size=32, attn_resolutions=())
    path = folder / "tiny.safetensors"
    save_network(path, lively(config).state_dict(), config, PARAMS)
    return path


def invoke(*words: str) -> Any:
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.nightly
def test_the_command_studies_on_the_gpu_if_there_is_one(
    first_gpu: GPU, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_the_study_undrawn(monkeypatch)
    small = ("--schemes", "ROBA", "--nfe", "3", "-n", "4", "--refinement", "2", "--grid", "uniform")
    words = ("cifar10", "study", "--checkpoint", str(_checkpoint(tmp_path)), *small, "-o", str(tmp_path / "study"))
    assert invoke(*words, "--json")["device"] == "pretended"
    assert first_gpu.waits > 0


def test_the_command_trains_on_the_gpu(first_gpu: GPU, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10_training, "STEPS", 2)  # of the samples that it shows
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images[:5])
    np.savez(tmp_path / "test.npz", images=images[5:])
    tiny = ("--nf", "4", "--ch-mult", "1,1", "--attention", "none", "--batch", "2", "--steps", "2", "--samples", "1")
    data, output = str(tmp_path / "images.npz"), str(tmp_path / "run")
    answer = invoke(
        "cifar10",
        "train",
        data,
        "-o",
        output,
        "--test",
        str(tmp_path / "test.npz"),
        *tiny,
        "--device",
        "cuda",
        "--json",
    )
    assert answer["device"] == "cuda"
