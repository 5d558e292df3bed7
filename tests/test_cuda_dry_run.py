"""What a GPU's user runs, on a GPU that is pretended: no tensors of two devices meet, and answers are the CPU's.

A stand-in (pretended_gpu) computes on the CPU and refuses what CUDA refuses. Where no convolution or matrix product is
rounded otherwise the results must be the CPU's to the last bit: they are computed by the same kernels.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import cifar10_network, loops, throughput
from click.testing import CliRunner
from pretended_gpu import FREE_BYTES, GPU, DeviceError, pretended_gpu
from torch import Tensor, nn
from weakorder.integrators.anchored import Anchor, anchor_to, sample_anchored
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE, LANGEVIN_CONTROLS
from weakorder.integrators.coupling import couple, sample_coupled
from weakorder.integrators.grids import time_grid
from weakorder.integrators.kernels import fallback
from weakorder.integrators.sampler import ScoreError, draw_prior, sample
from weakorder.reports.commands.cli import cli
from weakorder.reports.pages import cifar10_training
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import FROZEN_FLOWS, Scheme
from weakorder.verification.blackbox.probing import probed_moments
from weakorder.verification.cifar10.model import training
from weakorder.verification.cifar10.model.checkpoint import Checkpoint, NetworkScore, fingerprint, save_network
from weakorder.verification.cifar10.model.machine import batch_size, free_memory, products
from weakorder.verification.cifar10.model.network import Config, NCSNpp
from weakorder.verification.cifar10.model.precisions import PRECISIONS
from weakorder.verification.cifar10.study.cells import plan
from weakorder.verification.cifar10.study.design import model_of
from weakorder.verification.cifar10.study.sampling import Store, missing_work, run_work
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.sampled.coupled_levels import Experiment
from weakorder.verification.sampled.functionals import Functionals
from weakorder.verification.targets.empirical import EmpiricalTarget
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.targets.named import make_target
from weakorder.verification.targets.target import Target

PARAMS = Parameters()
TINY = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(4,), dropout=0.1, image_size=8)
POSITIONAL = replace(TINY, embedding_type="positional", fir=False, progressive_input="none", out_ch=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
CPU = torch.device("cpu")


@pytest.fixture
def gpu() -> Iterator[GPU]:
    """The second of two pretended GPUs: what forgets the number is refused."""
    with pretended_gpu() as device:
        yield device


@pytest.fixture
def first_gpu() -> Iterator[GPU]:
    """The first: what "cuda" means."""
    with pretended_gpu(0) as device:
        yield device


def lively(config: Config = TINY) -> NCSNpp:
    """A network whose output is of size 1."""
    network, generator = NCSNpp(config), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return network.to(memory_format=torch.channels_last).eval()


def near(u: Tensor, t: float) -> Tensor:
    """A score that is not linear."""
    return -u * (1 + t) + 0.1 * u.tanh()


def same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.cpu(), second.cpu())


# --- The stand-in ---


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


@pytest.mark.parametrize("name", ["EM", "SSCS", "RVV"])
def test_runs_on_common_noise_do(gpu: GPU, name: str) -> None:
    fine, coarse = (time_grid("quadratic", steps, PARAMS) for steps in (4, 2))
    scheme, reference = CATALOGUE[name], CATALOGUE["ROBA"]
    together = couple([(scheme, coarse), (reference, fine)], PARAMS)
    given = anchor_to(anchor := Anchor(reference, fine, PARAMS), scheme, coarse)

    def run(device: torch.device) -> list[Tensor]:
        numbers = torch.arange(2, device=device)
        u = draw_prior(PSLD_DIFFUSION, PARAMS, numbers, (3,))
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


# --- The network ---


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("config", [TINY, POSITIONAL], ids=["fourier", "positional"])
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


# --- Training ---

CONFIG = training.TrainingConfig(network=TINY, batch=3, warmup=2, seed=5)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, network=POSITIONAL, params=Parameters(gamma=0, nu=4))])
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


def test_a_run_stopped_and_resumed_on_the_gpu_ends_in_the_same_bits(gpu: GPU, tmp_path: Path) -> None:
    def state(folder: str, *lengths: int) -> dict[str, Any]:
        for steps in lengths:
            training.train(CONFIG, IMAGES, tmp_path / folder, steps=steps, device=gpu.device, progress=False)
        return training.read_state(tmp_path / folder, CONFIG)

    whole, parts = state("whole", 3), state("parts", 1, 3)
    for part in ("network", "average"):
        assert all(same(value, parts[part][name]) for name, value in whole[part].items())
    moments = [content["optimizer"]["state"] for content in (whole, parts)]
    assert all(same(value, moments[1][k][name]) for k, each in moments[0].items() for name, value in each.items())


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


# --- The study ---


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


def test_the_command_studies_on_the_gpu_if_there_is_one(first_gpu: GPU, tmp_path: Path) -> None:
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

    for here, expected in zip(answers(gpu.device), answers(CPU), strict=True):
        assert same(here, expected)


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
