"""The side of a network's images: what a file shows of it, and that one of other images is refused, not resized.

The networks have the published layouts' levels and attention, and are a thirty-second as wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import random_network as network
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model import AFHQV2, CELEBA64, CIFAR10, DATASETS, Config, DataSet
from weakorder.verification.cifar10.model.checkpoint import load_checkpoint, save_network
from weakorder.verification.cifar10.model.state_dicts import attention_side, infer_config, layout
from weakorder.verification.cifar10.study.design import open_checkpoint

BLIND = Config(nf=4, ch_mult=(1, 2, 2), num_res_blocks=1, attn_resolutions=(), dropout=0.0)
EVERY = [(dataset, name) for dataset in DATASETS.values() for name in dataset.recipes]
CROSSED = [(CELEBA64, CIFAR10), (AFHQV2, CIFAR10), (CIFAR10, CELEBA64), (AFHQV2, CELEBA64)]


def narrow(dataset: DataSet) -> Config:
    """Its published network with 4 channels for 128, and one block a level."""
    return replace(dataset.recipes["published"].network, nf=4, num_res_blocks=1, dropout=0.0)


def saved(folder: Path, config: Config, gamma: str = "gamma=0.01_nu=4.01") -> Path:
    """A state_dict without metadata, as published but for the prefix."""
    path = folder / f"net_{gamma}.ckpt"
    torch.save(network(config).state_dict(), path)
    return path


@pytest.mark.parametrize(("dataset", "name"), EVERY, ids=lambda value: getattr(value, "key", value))
def test_the_attention_of_every_published_network_shows_the_side_of_its_images(dataset: DataSet, name: str) -> None:
    config = dataset.recipes[name].network
    assert config.image_size == dataset.side
    assert attention_side(layout(config)) == dataset.side
    assert infer_config(layout(config), dataset.side) == replace(config, dropout=0.0)


def test_the_weights_of_celeba_are_those_of_its_published_configuration() -> None:
    config, params = CELEBA64.recipes["published"].network, CELEBA64.params
    assert (config.nf, config.ch_mult, config.num_res_blocks, config.sides) == (128, (1, 2, 2, 2), 4, (64, 32, 16, 8))
    assert (config.attn_resolutions, config.embedding_type, config.progressive_input) == ((16,), "fourier", "residual")
    assert config.fir
    assert (params.gamma, params.nu, params.M_inv) == (0.005, 4.005, Parameters().M_inv)
    assert (AFHQV2.params.gamma, AFHQV2.params.nu, AFHQV2.side) == (0.01, 4.01, 128)


@pytest.mark.parametrize(("own", "wanted"), CROSSED, ids=lambda dataset: dataset.key)
def test_a_network_of_other_images_is_refused_in_one_line(own: DataSet, wanted: DataSet, tmp_path: Path) -> None:
    message = (
        rf"network of {own.side} x {own.side} images \(which puts its attention at 16, .*\), and {wanted.name} is "
        rf"{wanted.side} x {wanted.side}; give weakorder {own.key} study, or, .* --side {wanted.side}"
    )
    path = saved(tmp_path, narrow(own))
    with pytest.raises(ValueError, match=message) as caught:
        open_checkpoint(path, {}, dataset=wanted)
    assert "\n" not in str(caught.value)
    found, _ = open_checkpoint(path, {}, dataset=own)
    assert found.network.config == narrow(own)
    assert found.side_from.startswith("which puts its attention at 16")


def test_the_side_that_a_user_names_is_taken_where_the_file_states_none(tmp_path: Path) -> None:
    path = saved(tmp_path, narrow(CELEBA64))
    found, _ = open_checkpoint(path, {}, dataset=CIFAR10, side=32)
    assert (found.network.config.image_size, found.network.config.attn_resolutions) == (32, (8,))
    assert found.side_from == "as asked for; the file does not state it"
    with pytest.raises(ValueError, match=r"side = 64: CIFAR-10's images are 32 x 32, and are not resized; drop it"):
        open_checkpoint(path, {}, dataset=CIFAR10, side=64)
    with pytest.raises(ValueError, match="image_size = 68 is not a network's; it is a positive multiple of 8"):
        open_checkpoint(path, {}, dataset=CELEBA64, side=68)


def test_without_attention_the_side_is_the_data_sets_and_said_to_be_assumed(tmp_path: Path) -> None:
    path = saved(tmp_path, BLIND)
    for dataset in (CIFAR10, CELEBA64):
        found, _ = open_checkpoint(path, {}, dataset=dataset)
        assert found.network.config.image_size == dataset.side
        assert found.side_from.startswith("assumed: the file does not state it")
    with pytest.raises(ValueError, match="nothing shows the side of its images; give side"):
        load_checkpoint(path)
    assert load_checkpoint(path, side=16).network.config.image_size == 16


def test_a_side_that_the_file_states_is_not_changed_by_naming_another(tmp_path: Path) -> None:
    path, config = tmp_path / "net.safetensors", replace(BLIND, image_size=64)
    save_network(path, network(config).state_dict(), config, Parameters())
    found, _ = open_checkpoint(path, {}, dataset=CELEBA64)
    assert found.is_stated
    with pytest.raises(ValueError, match="side = 32, but its configuration says 64; give that, or none"):
        open_checkpoint(path, {}, side=32)
    with pytest.raises(ValueError, match=r"64 x 64 images \(as its configuration says\).* study$"):
        open_checkpoint(path, {})


@pytest.mark.parametrize("dataset", [CELEBA64, AFHQV2], ids=lambda dataset: dataset.key)
def test_where_no_network_ships_one_is_asked_for(dataset: DataSet) -> None:
    given: Mapping[str, float] = {}
    with pytest.raises(ValueError, match=f"no network of {dataset.name} ships; give yours with --checkpoint FILE"):
        open_checkpoint(None, given, dataset=dataset)


def test_a_network_of_other_channels_is_refused(tmp_path: Path) -> None:
    grey = replace(BLIND, in_ch=2, out_ch=2, image_size=64)
    with pytest.raises(ValueError, match="reads 2 channels, CelebA-64's images have 3"):
        open_checkpoint(saved(tmp_path, grey), {}, dataset=CELEBA64)
