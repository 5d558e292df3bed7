"""Weights are found wherever trainers put them, under the names that wrappers give them; what is ambiguous is refused.

Each file holds one known network (raw, seed 1), or its average too (seed 2), in a form that a public trainer writes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tiny_models import random_network
from torch import Tensor, nn
from weakorder.verification.cifar10.model.checkpoint import load_checkpoint
from weakorder.verification.cifar10.model.network import NCSNpp
from weakorder.verification.cifar10.model.state_dicts import one_network

NAME = "net_gamma=0.01_nu=4.01.ckpt"
RAW, AVERAGE = (random_network(seed=seed).state_dict() for seed in (1, 2))
FREQUENCIES = "all_modules.0.W"  # not trained


def prefixed(prefix: str, state: dict[str, Tensor] = RAW) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def loaded(content: Any, folder: Path, weights: Literal["ema", "raw"] = "ema") -> dict[str, Tensor]:
    torch.save(content, folder / NAME)
    return load_checkpoint(folder / NAME, weights=weights).network.state_dict()


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def wrapped(wrap: Callable[[NCSNpp], nn.Module]) -> dict[str, Tensor]:
    """The state_dict of a network with RAW's weights in a wrapper."""
    return wrap(random_network(seed=1)).state_dict()


def compiled(network: nn.Module) -> nn.Module:
    return torch.compile(network, backend="eager")


def compiled_blocks(network: NCSNpp) -> NCSNpp:
    """Its blocks compiled one by one, as is done where the whole cannot be."""
    for index in (4, 5):
        network.all_modules[index] = compiled(network.all_modules[index])
    return network


ONE_NETWORK: dict[str, Callable[[], Any]] = {
    "a state_dict": lambda: RAW,
    "in an entry": lambda: {"model": RAW, "step": 100},
    "in an entry of an entry": lambda: {"checkpoint": {"net": RAW}, "config": {"nf": 4}},
    "with an optimizer": lambda: {"model": RAW, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "torch.compile": lambda: wrapped(compiled),
    "DataParallel": lambda: wrapped(nn.DataParallel),
    "both": lambda: wrapped(lambda network: nn.DataParallel(compiled(network))),
    "both, the other way": lambda: prefixed("_orig_mod.module."),
    "blocks compiled": lambda: wrapped(compiled_blocks),
    "after a module's name": lambda: {"state_dict": prefixed("denoiser.")},
    "torch's own average": lambda: wrapped(torch.optim.swa_utils.AveragedModel),
}


@pytest.mark.parametrize("form", ONE_NETWORK)
def test_a_file_with_one_network_is_read_in_every_form(form: str, tmp_path: Path) -> None:
    assert equal(loaded(ONE_NETWORK[form](), tmp_path), RAW)


TRAINED = [tensor for name, tensor in AVERAGE.items() if name != FREQUENCIES]
FIXED = AVERAGE | {FREQUENCIES: RAW[FREQUENCIES]}
# What is in the file, and the average that comes of it.
WITH_AVERAGE: dict[str, tuple[Callable[[], dict[str, Any]], dict[str, Tensor]]] = {
    "Lightning": (lambda: {"state_dict": prefixed("score_fn.") | prefixed("ema_score_fn.", AVERAGE)}, AVERAGE),
    "Lightning, parallel": (
        lambda: {"state_dict": prefixed("score_fn.module.") | prefixed("ema_score_fn.module.", AVERAGE)},
        AVERAGE,
    ),
    "Lightning, compiled": (
        lambda: {"state_dict": prefixed("score_fn._orig_mod.") | prefixed("ema_score_fn._orig_mod.", AVERAGE)},
        AVERAGE,
    ),
    "a dict": (lambda: {"model": RAW, "ema": AVERAGE}, AVERAGE),
    "a dict of wrapped names": (
        lambda: {"model": prefixed("module."), "model_ema": prefixed("module._orig_mod.", AVERAGE)},
        AVERAGE,
    ),
    "a dict in a dict": (lambda: {"model": RAW, "ema": {"decay": 0.999, "module": AVERAGE}}, AVERAGE),
    "a dict of shadows": (lambda: {"model": RAW, "optimizer": {}, "shadow": AVERAGE}, AVERAGE),
    "ema_pytorch": (
        lambda: {"model": RAW, "ema": prefixed("online_model.") | prefixed("ema_model.", AVERAGE)},
        AVERAGE,
    ),
    "a list of all": (
        lambda: {"model": prefixed("module."), "ema": {"decay": 0.999, "shadow_params": list(AVERAGE.values())}},
        AVERAGE,
    ),
    "a list of the trained": (
        lambda: {"model": RAW, "ema": {"shadow_params": TRAINED, "collected_params": list(RAW.values())}},
        FIXED,
    ),
    "a list under another name": (lambda: {"model": RAW, "ema_weights": list(AVERAGE.values())}, AVERAGE),
    "a list in the order of its file": (
        lambda: {
            "model": {name: RAW[name] for name in sorted(RAW)},
            "ema": {"shadow_params": [AVERAGE[name] for name in sorted(RAW)]},
        },
        AVERAGE,
    ),
}


@pytest.mark.parametrize("form", WITH_AVERAGE)
def test_the_average_and_the_weights_are_told_apart_in_every_form(form: str, tmp_path: Path) -> None:
    make, average = WITH_AVERAGE[form]
    assert equal(loaded(make(), tmp_path), average)
    assert equal(loaded(make(), tmp_path, "raw"), RAW)
    assert not equal(RAW, average)


def test_a_list_alone_needs_the_networks_configuration(tmp_path: Path) -> None:
    config = random_network().config
    content = {"shadow_params": list(AVERAGE.values()), "decay": 0.999}
    torch.save(content, tmp_path / NAME)
    assert equal(load_checkpoint(tmp_path / NAME, config=config).network.state_dict(), AVERAGE)
    with pytest.raises(ValueError, match=r"no weights beside it tell them; save it with names: ema\.copy_to"):
        load_checkpoint(tmp_path / NAME)


def test_a_list_that_fits_in_two_orders_is_not_guessed() -> None:
    """Two parameters of one shape, exchanged in the weights beside the list."""
    names = list(RAW)
    same = next(
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if RAW[a].shape == RAW[b].shape and RAW[a].ndim == 4
    )
    swap = dict(zip(same, reversed(same), strict=True))
    other = {swap.get(name, name): RAW[swap.get(name, name)] for name in names}
    assert list(other) != names
    with pytest.raises(ValueError, match="fits the network in 2 orders; save it with names"):
        one_network({"model": other, "ema": {"shadow_params": list(AVERAGE.values())}}, "ema")
    one_network({"model": RAW, "ema": {"shadow_params": list(AVERAGE.values())}}, "ema")


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a list too short": (
        lambda: {"model": RAW, "ema": {"shadow_params": list(AVERAGE.values())[:-2]}},
        r"'ema\.shadow_params' is a list of \d+ tensors that does not fit .*; save it with names",
    ),
    "a list of other shapes": (
        lambda: {"model": RAW, "ema": {"shadow_params": list(AVERAGE.values())[::-1]}},
        "does not fit the network's .*; save it with names",
    ),
    "a bare list": (lambda: list(RAW.values()), "a list of tensors without names; save it with names"),
    "an average without points in its names": (
        lambda: {"model": RAW, "model_ema": {name.replace(".", ""): tensor for name, tensor in AVERAGE.items()}},
        "its average 'model_ema.all_modules0W' is in a form that is not read; .*; or take weights 'raw'",
    ),
    "two networks": (lambda: {"a": RAW, "b": AVERAGE}, r"2 networks, 'a\.', 'b\.'; save one of them alone"),
    "one parameter twice": (lambda: RAW | prefixed("module."), "is in it twice, .*; save it once"),
    "the weights alone of a file that should have both": (
        lambda: {"state_dict": prefixed("score_fn.")},
        "take weights 'raw'",
    ),
    "another network's tensors": (lambda: {"model": {"conv.weight": torch.zeros(3)}}, "nor is one found"),
    "no numbers": (
        lambda: {name: tensor.to("meta") for name, tensor in RAW.items()},
        "is no plain tensor with numbers; give the weights",
    ),
    "a text for a tensor": (lambda: RAW | {FREQUENCIES: "a"}, "is no plain tensor with numbers; give the weights"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_told_is_refused_with_its_cure(form: str, tmp_path: Path) -> None:
    make, message = REFUSED[form]
    with pytest.raises(ValueError, match=message) as caught:
        loaded(make(), tmp_path)
    assert "\n" not in str(caught.value)


def test_an_average_alone_is_not_taken_for_the_weights(tmp_path: Path) -> None:
    assert equal(loaded({"ema": AVERAGE}, tmp_path), AVERAGE)
    with pytest.raises(ValueError, match="take weights 'ema'"):
        loaded({"ema": AVERAGE}, tmp_path, "raw")


@pytest.mark.parametrize("number", ["1e-2", "1E-02", "0.01"])
def test_a_files_name_states_its_constants_in_any_notation(number: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(RAW, buffer)
    path = tmp_path / f"net_gamma={number}_nu=4.01.ckpt"
    path.write_bytes(buffer.getvalue())
    assert load_checkpoint(path).params.gamma == 0.01
