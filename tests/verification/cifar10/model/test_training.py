"""Training: the loss, what a resumed run remembers, what a finished one exports.

The networks are tiny and the images few and random: nothing here says how good a trained network is.
Statistical assertions: one mean of bounded numbers, at 7 standard errors, a chance of a false alarm below 1e-9.
"""

from __future__ import annotations

import io
import math
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from selection import nightly_but
from tiny_models import same
from torch import Tensor, nn
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model import training
from weakorder.verification.cifar10.model.checkpoint import NUMERICAL_EPS, load_checkpoint
from weakorder.verification.cifar10.model.configuration import COMPACT, TrainingConfig
from weakorder.verification.cifar10.model.data import to_unit
from weakorder.verification.cifar10.model.network import Config, NCSNpp
from weakorder.verification.cifar10.model.randomness import places
from weakorder.verification.cifar10.model.training import (
    State,
    errors_of_means,
    export,
    held_out_loss,
    read_state,
    squared_errors,
    train,
)
from weakorder.verification.targets.gaussian import perturbation_kernel

TINY = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(4,), dropout=0.1, image_size=8)
CONFIG = TrainingConfig(network=TINY, batch=3, warmup=2, seed=5)
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8)


def run(output: Path, steps: int, config: TrainingConfig = CONFIG, images: np.ndarray = IMAGES) -> dict[str, Any]:
    """The state on disk after `steps` steps in all."""
    train(config, images, output, steps=steps, progress=False, device="cpu")
    return read_state(output)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG", 3)  # a mean of the curve spans the interruption
    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    torch.rand(1)  # what happens between the parts does not matter
    parts = run(tmp_path / "parts", 4)
    assert same(whole, parts)
    assert len(whole["losses"]) == 1
    assert (tmp_path / "parts" / "losses.csv").read_text() == f"step,loss\n3,{whole['losses'][0]:.6f}\n"
    assert not same(whole, run(tmp_path / "seed", 4, replace(CONFIG, seed=6)))
    assert not same(whole["network"], run(tmp_path / "more", 5)["network"])


@pytest.mark.parametrize(
    "part", nightly_but(("average", "pending").__contains__, ("network", "average", "optimizer", "pending", "step"))
)
def test_a_run_that_forgets_a_part_of_its_state_is_another_run(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LOG", 3)
    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    restore = State.restore
    monkeypatch.setattr(State, "restore", lambda self, content: restore(self, content | {part: self.content("")[part]}))
    assert not same(whole, run(tmp_path / "parts", 4))


def test_a_run_leaves_the_generator_as_it_was(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    run(tmp_path, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_epoch_has_each_image_once_in_an_order_of_its_own() -> None:
    first, second = places(1, 0, 7, 7), places(1, 7, 7, 7)
    assert sorted(first) == sorted(second) == list(range(7))
    assert list(np.concatenate([places(1, k, 4, 7) for k in (0, 4, 8)])) == [*first, *places(1, 7, 5, 7)]
    assert any(list(places(seed, 0, 7, 7)) != list(places(seed, 7, 7, 7)) for seed in range(3))


class Linear(nn.Module):
    """eps_theta = a u + b t."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        return (0.3 * u + 0.1 * t[:, None, None, None])[:, -self.channels :]


@pytest.mark.parametrize("channels", [6, 3])
def test_the_loss_is_the_mean_squared_error_of_the_noise(channels: int) -> None:
    generator = np.random.default_rng(2)
    x_0, eps = to_unit(IMAGES), generator.standard_normal((7, 6, 8, 8)).astype(np.float32)
    t, params = generator.uniform(0.01, 1, 7), Parameters()
    mine = squared_errors(Linear(channels), params, x_0, torch.from_numpy(t), torch.from_numpy(eps))
    for j in range(7):  # sample by sample, in numpy
        mean, L = perturbation_kernel(params, t[j], NUMERICAL_EPS)
        pairs = np.stack([eps[j, :3], eps[j, 3:]]).astype(float)
        u = np.einsum("i,...->i...", mean, x_0[j].numpy()) + np.einsum("ij,j...->i...", L, pairs)
        error = (eps[j] - (0.3 * u.reshape(6, 8, 8) + 0.1 * t[j]))[-channels:]
        assert math.isclose(float(mine[j]), float((error**2).mean()), rel_tol=1e-5)


def test_the_average_keeps_what_does_not_move_and_follows_the_weights() -> None:
    state = State(replace(CONFIG, warmup=10**9), torch.device("cpu"))
    before = [weight.clone() for weight in state.weights]
    for _ in range(3):
        state.advance(torch.from_numpy(IMAGES))
    for start, weight, average in zip(before, state.weights, state.averages, strict=True):
        bound = 2e-3 * 3 / 1e9  # Adam's step is at most about the rate, and averaging does not shrink
        torch.testing.assert_close(average, start, rtol=2**-23, atol=bound)
        torch.testing.assert_close(weight.detach(), start, rtol=2**-23, atol=bound)

    moving = State(replace(CONFIG, warmup=1), torch.device("cpu"))
    averages = [weight.detach().double().clone() for weight in moving.weights]
    for step in range(4):
        moving.advance(torch.from_numpy(IMAGES))
        decay = min(0.9999, (1 + step) / (10 + step))
        averages = [decay * a + (1 - decay) * w.detach() for a, w in zip(averages, moving.weights, strict=True)]
    for mine, average in zip(moving.averages, averages, strict=True):
        torch.testing.assert_close(mine.double(), average, rtol=1e-5, atol=1e-8)
    assert torch.equal(moving.average.all_modules[0].W, moving.network.all_modules[0].W)


def test_the_first_step_has_rate_zero_and_moves_nothing() -> None:
    state = State(CONFIG, torch.device("cpu"))
    before = [weight.clone() for weight in state.weights]
    state.advance(torch.from_numpy(IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(before, state.weights, strict=True))
    state.advance(torch.from_numpy(IMAGES))
    assert not all(torch.equal(a, b) for a, b in zip(before, state.weights, strict=True))


def test_the_rate_rises_stays_and_falls_to_nothing_where_the_run_ends(tmp_path: Path) -> None:
    config = replace(CONFIG, warmup=4, cool_down=6, last=20)
    rates = [config.rate(step) / config.learning_rate for step in range(21)]
    assert rates[:15] == [0, 0.25, 0.5, 0.75, *[1.0] * 11]
    np.testing.assert_allclose(rates[14:], (1 + np.cos(np.pi * np.arange(7) / 6)) / 2, atol=1e-15)
    short = replace(CONFIG, cool_down=2, last=3)
    seen = []
    state = State(short, torch.device("cpu"))
    for _ in range(3):
        state.advance(torch.from_numpy(IMAGES))
        seen.append(state.optimizer.param_groups[0]["lr"])
    assert seen == [short.rate(step) for step in range(3)]
    assert train(short, IMAGES, tmp_path, progress=False, device="cpu").step == 3
    with pytest.raises(ValueError, match="steps = 4: the rate is 0 from step 3 on"):
        run(tmp_path, 4, short)


def test_the_error_in_the_channels_means_is_one_of_noise_and_weighs_in_training() -> None:
    error = np.random.default_rng(3).standard_normal((500, 6, 8, 8))
    mine = float(errors_of_means(torch.from_numpy(error)))
    assert math.isclose(mine, (error.mean((2, 3)) ** 2).mean() * 64, rel_tol=1e-12)
    assert abs(mine - 1) < 7 * math.sqrt(2 / 3000)  # the mean of 3,000 squares of normals
    states = [State(replace(CONFIG, warmup=1, mean_weight=weight), torch.device("cpu")) for weight in (0.0, 0.0, 2.0)]
    for state in states:
        for _ in range(2):
            state.advance(torch.from_numpy(IMAGES))
    plain, again, weighed = (dict(state.network.state_dict()) for state in states)
    assert same(plain, again)
    assert not same(plain, weighed)
    assert states[0].pending == states[1].pending  # the curve is the loss's, whatever is weighed


def test_a_run_begins_from_the_weights_that_it_is_given() -> None:
    given = NCSNpp(TINY).state_dict()
    state = State(CONFIG, torch.device("cpu"), given)
    for network in (state.network, state.average):
        assert all(torch.equal(weight, given[name]) for name, weight in network.state_dict().items())
    assert not same(given, dict(State(CONFIG, torch.device("cpu")).network.state_dict()))


def test_training_learns_and_without_a_rate_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG", 10)
    config = replace(CONFIG, batch=16, learning_rate=3e-3, warmup=5, network=replace(TINY, dropout=0.0))
    # A network that answers 0 has loss 1; the mean of 10 x 16 x 384 squares of normals is within 7 x 0.006 of it.
    assert run(tmp_path / "still", 10, replace(config, warmup=10**9))["losses"][-1] > 0.95
    assert run(tmp_path / "trained", 80, config)["losses"][-1] < 0.8


def test_the_untrained_loss_on_held_out_images_is_one_and_the_batch_does_not_matter() -> None:
    torch.manual_seed(0)
    network = NCSNpp(TINY)
    t, errors = held_out_loss(network, Parameters(), IMAGES, batch=3)
    assert np.array_equal(held_out_loss(network, Parameters(), IMAGES, batch=7)[0], t)
    np.testing.assert_allclose(held_out_loss(network, Parameters(), IMAGES, batch=7)[1], errors, rtol=1e-6)
    numbers = 7 * 6 * 64  # the mean of so many squares of normals
    assert abs(errors.mean() - 1) < 7 * math.sqrt(2 / numbers)
    assert sorted(np.floor((t - 1e-5) / (1 - 1e-5) * 7)) == list(range(7))


def test_an_exported_network_is_the_average_in_half_precision_but_for_its_frequencies(tmp_path: Path) -> None:
    content = run(tmp_path, 2)
    path = tmp_path / "model.safetensors"
    export(tmp_path, path, {"note": "tiny"})
    loaded = load_checkpoint(path)
    assert loaded.network.config == TINY
    assert loaded.params == CONFIG.params
    assert loaded.metadata["steps"] == "2"
    assert loaded.metadata["images_seen"] == "6"
    assert loaded.metadata["note"] == "tiny"
    for name, weight in loaded.network.state_dict().items():
        exact = content["average"][name]
        assert torch.equal(weight, exact if name == "all_modules.0.W" else exact.half().float())
    content["average"]["all_modules.1.bias"].fill_(1e9)
    torch.save(content, tmp_path / training.STATE)
    with pytest.raises(ValueError, match="too large"):
        export(tmp_path, path)


def test_the_compact_model_fits_in_twelve_mebibytes() -> None:
    with torch.device("meta"):
        count = sum(weight.numel() for weight in NCSNpp(COMPACT).parameters())
    assert 1.2e6 < count < 1.4e6
    assert 2 * count < 12 * 2**20


def test_a_run_of_something_else_is_not_continued(tmp_path: Path) -> None:
    run(tmp_path, 1)
    for config, images, message in (
        (replace(CONFIG, learning_rate=1e-4), IMAGES, "learning_rate = 0.001, not 0.0001"),
        (CONFIG, IMAGES[1:], "other images"),
        (CONFIG, IMAGES[:, :, :4], r"the network is for uint8 \(n, 3, 8, 8\), n >= 1"),
        (CONFIG, IMAGES.astype(float), "the network is for"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            run(tmp_path, 2, config, images)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="length is missing"):
        train(CONFIG, IMAGES, tmp_path)
    torch.save({"weights": torch.zeros(2)}, other := io.BytesIO())
    for content in (b"PK nothing", other.getvalue()):
        (tmp_path / training.STATE).write_bytes(content)
        with pytest.raises(ValueError, match=r"not the state of a training run: .*; choose another folder") as caught:
            run(tmp_path, 2)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"batch": 0}, {"learning_rate": 0.0}, {"warmup": 0}, {"clip": 0}, {"ema_decay": 1.0}, {"seed": -1}),
        *({"cool_down": 1}, {"cool_down": 3, "last": 2}, {"mean_weight": -1.0}, {"mean_weight": math.inf}),
    ],
    ids=str,
)
def test_a_training_configuration_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


@pytest.mark.nightly
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGTERM])
def test_an_interrupted_run_saves_itself_and_goes_on_as_if_it_had_not_been(tmp_path: Path, number: int) -> None:
    earlier = signal.getsignal(number)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    timer.start()
    state = train(CONFIG, IMAGES, tmp_path / "stopped", minutes=1, progress=False, device="cpu")
    timer.join()
    assert signal.getsignal(number) is earlier
    stopped = read_state(tmp_path / "stopped")
    assert stopped["step"] == state.step > 0
    whole = run(tmp_path / "whole", state.step + 1)
    assert same(whole, run(tmp_path / "stopped", state.step + 1))


def test_progress_says_loss_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(training, "LOG", 2)
    train(CONFIG, IMAGES, tmp_path, steps=4, device="cpu")
    assert "4/4 steps" in (shown := capsys.readouterr().err)
    assert "images/s" in shown
    train(CONFIG, IMAGES, tmp_path, minutes=1e-3, device="cpu")
    assert " min" in capsys.readouterr().err
