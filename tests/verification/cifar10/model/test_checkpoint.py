"""Checkpoints: the score of eps against the published one, files of every kind, and what is refused.

Source of the numbers: data/sde.npz, computed with the published PSLD classes (see data/make_sde_fixture.py).
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tiny_models import SMALL
from tiny_models import random_network as network
from torch import Tensor, nn
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.blackbox.adapters import EpsNetwork
from weakorder.verification.cifar10.model.checkpoint import (
    NetworkScore,
    fingerprint,
    load_checkpoint,
    save_network,
)
from weakorder.verification.cifar10.model.network import ABLATION, PUBLISHED, Config, NCSNpp
from weakorder.verification.cifar10.model.state_dicts import infer_config, layout
from weakorder.verification.cifar10.model.training import held_out_loss
from weakorder.verification.targets.empirical import read_images
from weakorder.verification.targets.gaussian import perturbation_kernel
from weakorder.verification.targets.named_mixtures import bimodal

SDE = dict(np.load(Path(__file__).parents[3] / "data" / "sde.npz"))
DATA = Path(__file__).parents[4] / "verification" / "data"
NAME = "psld-hsm_gamma=0.02_nu=4.02_cifar10_continuous_sfn=ncsnpp_17thFeb-epoch=2349-loss=0.0201.ckpt"
LARGE = Parameters(gamma=0.02, nu=4.02)


class Given(nn.Module):
    """A network that answers what it is given, whatever it is asked."""

    def __init__(self, eps: Callable[[Tensor, Tensor], Tensor], channels: int, momentum_only: bool) -> None:
        super().__init__()
        self.config = Config(in_ch=2 * channels, out_ch=channels if momentum_only else 2 * channels)
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.eps = eps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.eps(x, t)


def answer(made: NCSNpp) -> Tensor:
    """Its output at a fixed input."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return made.eval()(torch.randn(2, 6, 32, 32, generator=generator), torch.tensor([0.3, 0.9]))


def agree(first: NCSNpp, second: NCSNpp) -> bool:
    """Whether their weights are equal, and their outputs but for rounding (of memory in another order)."""
    equal = all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    return equal and torch.allclose(answer(first), answer(second), rtol=1e-4, atol=1e-5)


# --- The score ---


@pytest.mark.parametrize("combo", SDE["combos"])
def test_the_score_of_eps_is_the_published_one(combo: str) -> None:
    numbers = dict(re.findall(r"(nu|gamma)=([\d.]+)", combo))
    beta = [float(part) for part in combo.rsplit("beta=", 1)[1].split("-")]
    params = Parameters(gamma=float(numbers["gamma"]), nu=float(numbers["nu"]), beta_min=beta[0], beta_max=beta[1])
    eps = torch.from_numpy(SDE["eps_pred"])[:, :, None, None]
    momentum_only = params.gamma == 0
    given = Given(lambda x, t: eps[:, 1:] if momentum_only else eps, 1, momentum_only)
    u = torch.from_numpy(SDE["u"]).reshape(-1, 2, 1, 1, 1)
    t = torch.from_numpy(SDE["t"])
    mine = NetworkScore(given, params)(u, t)[:, :, 0, 0, 0].numpy()
    # The published covariance has exp(z) - 1 for expm1(z): a few units of 2^-53 in xx, which the determinant magnifies.
    xx, xm, mm = SDE[f"{combo}/cov_hsm"].T
    lost = 8 * 2.0**-53 / xx * (1 + xm**2 / (xx * mm - xm**2))
    c11, c12, _, c22 = SDE[f"{combo}/invT_lower_hsm"].T
    e_x, e_m = np.abs(SDE["eps_pred"].T)
    size = np.stack([np.abs(c11) * e_x + np.abs(c12) * e_m, np.abs(c22) * e_m], axis=1)
    difference = np.abs(mine - SDE[f"{combo}/score_f64"])
    assert (difference <= (1e-10 + lost)[:, None] * size).all()
    assert (difference <= 1e-10 * size)[SDE["t"] > 0.1].all()
    if not momentum_only:
        without = NetworkScore(given, params, numerical_eps=0.0)(u, t)[:, :, 0, 0, 0].numpy()
        assert np.abs(without / mine - 1).max() > 1e-8
        # As published: coefficients and products rounded to float32. Three roundings of each of two terms.
        c11, c12, c22 = (entry.astype(np.float32) for entry in (c11, c12, c22))
        e_x, e_m = SDE["eps_pred"].astype(np.float32).T
        rounded = np.stack([-(c11 * e_x + c12 * e_m), -c22 * e_m], axis=1)
        assert (np.abs(rounded - mine) <= (4 * 2.0**-24 + lost)[:, None] * size).all()


@pytest.mark.parametrize("t", [1e-3, 0.05, 1.0])
def test_the_score_undoes_the_adapter_that_makes_eps_of_a_score(t: float) -> None:
    params = Parameters(gamma=0.25, nu=4.25)
    target = bimodal(1, params, PSLD_DIFFUSION)
    eps = EpsNetwork(target.score, params, numerical_eps=1e-9)
    given = Given(lambda x, times: eps(x.reshape(-1, 2, 1), float(times[0])).reshape(x.shape), 1, False)
    u = torch.randn(50, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = NetworkScore(given, params)(u[..., None, None], t)[..., 0, 0]
    expected = target.score(u, t)
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))


def test_the_kernel_mean_is_the_published_one() -> None:
    combo = SDE["combos"][0]
    mean = perturbation_kernel(Parameters(), SDE["t"]).mean
    np.testing.assert_allclose(mean, SDE[f"{combo}/mean"][:, :, 0], rtol=1e-13)


def test_a_score_keeps_its_states_dtype_and_refuses_what_it_cannot_read() -> None:
    score = NetworkScore(network(), Parameters())
    u = torch.zeros(2, 2, 3, 32, 32)
    assert score(u, 0.5).dtype == torch.float32
    assert score(u.double(), 0.5).dtype == torch.float64
    torch.testing.assert_close(score(u, torch.tensor([0.5, 0.1]))[1], score(u[1:], 0.1)[0], rtol=1e-4, atol=1e-4)
    assert not score(u, 0.5).requires_grad
    for state, t, message in (
        (u[:, :1], 0.5, "shape"),
        (u, 0.0, "one time"),
        (u, 1.5, "one time"),
        (u, [0.1] * 3, "one for each of 2"),
    ):
        with pytest.raises(ValueError, match=message):
            score(state, torch.tensor(t))
    with pytest.raises(ValueError, match="its gamma is 0"):
        NetworkScore(network(replace(SMALL, out_ch=3)), Parameters())
    with pytest.raises(ValueError, match="numerical_eps"):
        NetworkScore(network(), Parameters(), numerical_eps=-1e-9)


def test_a_network_of_the_momentums_noise_alone_has_no_score_in_position() -> None:
    params = Parameters(gamma=0.0, nu=4.0)
    score = NetworkScore(network(replace(SMALL, out_ch=3)), params)(torch.zeros(1, 2, 3, 32, 32), 0.5)
    assert float(score[:, 0].abs().max()) == 0 < float(score[:, 1].abs().max())


# --- Files that are read ---


def lightning(raw: NCSNpp, average: NCSNpp) -> dict[str, Any]:
    """The entries of a file as PyTorch Lightning 1.9.0 writes it."""
    entries = {f"score_fn.{name}": weight for name, weight in raw.state_dict().items()}
    entries |= {f"ema_score_fn.{name}": weight for name, weight in average.state_dict().items()}
    return {
        "epoch": 2349,
        "global_step": 1,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": entries,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 2e-4, "params": [0, 1]}]}],
        "lr_schedulers": [{"last_epoch": 1}],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A Lightning checkpoint under a published name: network 1 trained, network 2 its average."""
    torch.save(lightning(network(seed=1), network(seed=2)), tmp_path / NAME)
    return tmp_path / NAME


def test_a_lightning_checkpoint_gives_one_set_of_weights_and_its_name_the_constants(file: Path) -> None:
    for weights, seed in (("ema", 2), ("raw", 1)):
        loaded = load_checkpoint(file, weights=weights)
        assert agree(loaded.network, network(seed=seed))
        assert loaded.params == LARGE
        assert replace(loaded.network.config, fourier_scale=16.0) == SMALL
        assert not loaded.network.training
    assert not agree(network(seed=1), network(seed=2))
    assert load_checkpoint(file).score().params == LARGE


@pytest.mark.parametrize("kind", ["torch", "legacy", "wrapped", "safetensors"])
def test_bare_weights_are_read_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    state = network().state_dict()
    path = tmp_path / "weights"
    if kind == "safetensors":
        path.write_bytes(save(state))
    else:
        content = {"state_dict": state} if kind == "wrapped" else state
        torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    loaded = load_checkpoint(path, Parameters())
    assert agree(loaded.network, network())
    assert loaded.params == Parameters()
    with pytest.raises(ValueError, match="its name does not say gamma"):
        load_checkpoint(path)


def test_a_saved_network_brings_everything_along(tmp_path: Path) -> None:
    made, path = network(), tmp_path / "model.safetensors"
    half = {name: weight.half() for name, weight in made.state_dict().items()}
    save_network(path, half, made.config, LARGE, {"steps": "7"})
    loaded = load_checkpoint(path)
    assert loaded.params == LARGE
    assert loaded.network.config == made.config
    assert loaded.metadata["steps"] == "7"
    assert all(torch.equal(half[name].float(), weight) for name, weight in loaded.network.state_dict().items())
    with pytest.raises(ValueError, match=r"metadata config: these keys are the file's own; choose others"):
        save_network(path, half, made.config, LARGE, {"config": ""})


@pytest.mark.parametrize("config", [PUBLISHED, ABLATION], ids=["large", "ablation"])
def test_the_published_configurations_are_inferred(config: Config) -> None:
    assert infer_config(layout(config), 32) == replace(config, dropout=0.0)


def test_a_given_configuration_decides_what_shapes_do_not_show(tmp_path: Path) -> None:
    config = replace(SMALL, progressive_input="none")  # with fir, which no parameter shows
    path = tmp_path / "gamma=0.01_nu=4.01.pt"
    torch.save(network(config).state_dict(), path)
    assert agree(load_checkpoint(path, config=config).network, network(config))
    assert not agree(load_checkpoint(path).network, network(config))


# --- Files that are refused ---


class Code:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """The file with its entries changed."""

    def edit(content: bytes) -> bytes:
        loaded = torch.load(io.BytesIO(content), weights_only=True)
        changed = change(loaded)
        loaded = changed if isinstance(changed, (dict, list)) else loaded
        buffer = io.BytesIO()
        torch.save(loaded, buffer)
        return buffer.getvalue()

    return edit


def flipped(content: bytes, weight: Tensor) -> bytes:
    """The file with one bit of a weight changed."""
    place = content.index(weight.detach().numpy().tobytes()) + 3
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


KEY = "ema_score_fn.all_modules.4.Conv_0.weight"
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda content: content[: len(content) // 2], "cut short"),
    "one bit": (lambda content: flipped(content, network(seed=2).all_modules[4].Conv_0.weight), "checksum"),
    "code": (
        edited(lambda content: content | {"callbacks": Code()}),
        "would call builtins.print .*which could run code; it was not opened; fetch it again",
    ),
    "no state_dict": (edited(lambda content: [1, 2]), "no state_dict"),
    "a missing key": (edited(lambda content: content["state_dict"].pop(KEY)), "not those of an NCSN"),
    "a key too many": (
        edited(lambda content: content["state_dict"].update({"ema_score_fn.other.weight": torch.zeros(1)})),
        "no parameter of NCSN.*; give the weights of one",
    ),
    "another shape": (edited(lambda content: content["state_dict"].update({KEY: torch.zeros(4, 5, 3, 3)})), "asks for"),
    "not a number": (
        edited(lambda content: content["state_dict"][KEY].fill_(math.nan)),
        "not made of finite .*; give another",
    ),
    "no average": (
        edited(
            lambda content: {"state_dict": {k: v for k, v in content["state_dict"].items() if not k.startswith("ema")}}
        ),
        "take weights 'raw'",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_wrong_or_damaged_file_is_refused_in_one_line(kind: str, file: Path, capsys: pytest.CaptureFixture) -> None:
    change, message = DAMAGE[kind]
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert capsys.readouterr().out == ""


def test_constants_that_contradict_each_other_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gamma = 0\.02, not 0\.01; give its own, or none"):
        load_checkpoint(file, Parameters())
    assert load_checkpoint(file, replace(LARGE, eps=1e-4)).params.eps == 1e-4
    with pytest.raises(ValueError, match=r"the configuration asks for .*; give the network's own config"):
        load_checkpoint(file, config=PUBLISHED)
    with pytest.raises(ValueError, match="no such file"):
        load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="unknown"):
        load_checkpoint(file, weights="best")
    torch.save(network(replace(SMALL, out_ch=3)).state_dict(), file)
    with pytest.raises(ValueError, match="its gamma is 0"):
        load_checkpoint(file)


def test_a_changed_safetensors_file_is_refused(tmp_path: Path) -> None:
    path, made = tmp_path / "model.safetensors", network()
    save_network(path, made.state_dict(), made.config, LARGE)
    whole = path.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    place = 8 + header + 1000
    for content, message in (
        (whole[:-100], "whole safetensors"),
        (whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], "SHA-256 that it states; .*fetch it again"),
        (whole[:8] + b"x" + whole[9:], "whole safetensors"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
    tensors = made.state_dict()
    path.write_bytes(save(tensors, {"config": "{}?", "params": "[]", "sha256": fingerprint(tensors)}))
    with pytest.raises(ValueError, match=r"metadata on Config .*; it was changed or damaged, fetch it again"):
        load_checkpoint(path)


def test_the_model_that_ships_has_learned_the_score_of_real_images() -> None:
    """On 64 shipped images its loss is far below the 1 of a network that predicts nothing, and its own when cut."""
    checkpoint = load_checkpoint(DATA / "cifar10_compact.safetensors")
    images = read_images(DATA / "cifar10_images.npz")[:64]
    _, errors = held_out_loss(checkpoint.network, checkpoint.params, images)
    assert errors.mean() < 0.05
    with torch.no_grad():
        for parameter in checkpoint.network.parameters():
            parameter.mul_(0.5)
    assert held_out_loss(checkpoint.network, checkpoint.params, images)[1].mean() > 0.1
