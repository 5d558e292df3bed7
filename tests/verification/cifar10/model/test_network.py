"""NCSN++ against the published network: its parameters' names, its numbers in float64 and float32, its initialisation.

Source of the numbers: data/ncsnpp_*.npz, computed with the published PSLD classes (see data/make_ncsnpp_fixtures.py).
Statistical assertions: 6 variances of uniform numbers, each with a chance of a false alarm below 1e-9.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from selection import examples
from torch import Tensor
from torch.nn import functional
from weakorder.verification.cifar10.model import network as module
from weakorder.verification.cifar10.model.checkpoint import infer_config, layout
from weakorder.verification.cifar10.model.network import ABLATION, ABLATION_MOMENTUM, PUBLISHED, Config, NCSNpp, steps

DATA = Path(__file__).parents[3] / "data"
LAYOUTS = dict(np.load(DATA / "ncsnpp_layouts.npz"))
OPS = {name: torch.from_numpy(array) for name, array in np.load(DATA / "ncsnpp_ops.npz").items()}
PUBLISHED_LAYOUTS = {
    "cifar10": (PUBLISHED, 97_627_910),
    "cifar10_ablation_out6": (ABLATION, 39_397_254),
    "cifar10_ablation_out3": (ABLATION_MOMENTUM, 39_393_795),
}
FLOAT64, FLOAT32 = 1e-12, 5e-6


def published_config(text: np.ndarray) -> Config:
    """The fields that matter of a configuration as published."""
    content = json.loads(str(text))
    return Config(**{field.name: content[field.name] for field in fields(Config)})


def published_layout(arrays: dict[str, np.ndarray], prefix: str = "") -> list[tuple[str, tuple[int, ...]]]:
    """Keys and shapes, in order."""
    shapes = [tuple(int(n) for n in shape if n) for shape in arrays[f"{prefix}shapes"]]
    return list(zip(map(str, arrays[f"{prefix}keys"]), shapes, strict=True))


def published_network(name: str) -> tuple[NCSNpp, dict[str, np.ndarray]]:
    """A network of random weights, and its inputs and outputs."""
    arrays = dict(np.load(DATA / f"ncsnpp_{name}.npz"))
    network = NCSNpp(published_config(arrays["config"])).eval()
    numbers = torch.from_numpy(np.ascontiguousarray(arrays["planes"].T).view("<f4")[:, 0].copy())
    entries = published_layout(arrays)
    parts = numbers.split([math.prod(shape) for _, shape in entries])
    network.load_state_dict({key: part.view(shape) for (key, shape), part in zip(entries, parts, strict=True)})
    return network, arrays


def deviation(name: str, dtype: torch.dtype) -> float:
    """The largest difference of the outputs from the published ones."""
    network, arrays = published_network(name)
    with torch.no_grad():
        out = network.to(dtype)(torch.from_numpy(arrays["x"]).to(dtype), torch.from_numpy(arrays["t"]).to(dtype))
    return float(np.abs(out.numpy() - arrays["out64" if dtype == torch.float64 else "out32"]).max())


@pytest.mark.parametrize("name", PUBLISHED_LAYOUTS)
def test_every_parameter_has_the_published_name_and_shape_in_the_published_order(name: str) -> None:
    config, total = PUBLISHED_LAYOUTS[name]
    published = published_layout(LAYOUTS, f"{name}/")
    assert list(layout(config).items()) == published
    assert sum(math.prod(shape) for _, shape in published) == total
    assert replace(config, fourier_scale=16.0) == published_config(LAYOUTS[f"{name}/config"])
    assert list(layout(replace(config, num_res_blocks=1)).items()) != published


def test_only_the_frequencies_are_fixed_and_nothing_is_a_buffer() -> None:
    with torch.device("meta"):
        network = NCSNpp(PUBLISHED)
    assert [name for name, weight in network.named_parameters() if not weight.requires_grad] == ["all_modules.0.W"]
    assert not list(network.buffers())


@pytest.mark.parametrize("name", ["fourier", "positional"])
def test_the_network_agrees_with_the_published_one(name: str) -> None:
    assert deviation(name, torch.float64) < FLOAT64
    assert deviation(name, torch.float32) < FLOAT32


def cosine_first(self: module.Fourier, t: Tensor) -> Tensor:
    phases = t.log()[:, None] * self.W * 2 * math.pi
    return torch.cat((phases.cos(), phases.sin()), dim=1)


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "cosine before sine": lambda patch: patch.setattr(module.Fourier, "forward", cosine_first),
    "box for fir, up": lambda patch: patch.setattr(module, "fir_up", module.box_up),
    "box for fir, down": lambda patch: patch.setattr(module, "fir_down", module.box_down),
    "group norm with torch's eps": lambda patch: patch.setattr(
        module, "group_norm", lambda channels: torch.nn.GroupNorm(module.groups(channels), channels)
    ),
    "affine maps transposed": lambda patch: patch.setattr(
        module.NIN, "forward", lambda self, z: functional.linear(z, self.W, self.b)
    ),
    "skip before h": lambda patch: patch.setattr(
        torch, "cat", lambda parts, dim, cat=torch.cat: cat(parts[::-1] if parts[0].ndim == 4 else parts, dim)
    ),
    "sums not divided": lambda patch: patch.setattr(module, "HALF", 1.0),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_network_with_one_thing_wrong_disagrees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    assert deviation("fourier", torch.float64) > 100 * FLOAT64


def test_resampling_agrees_with_the_published_operators() -> None:
    x, blurred = OPS["x"], functional.conv2d(module.fir_blur(OPS["x"]), OPS["conv_w"], stride=2)
    for mine, name in (
        (module.fir_up(x), "upsample_2d_1331"),
        (module.fir_down(x), "downsample_2d_1331"),
        (blurred, "conv_downsample_2d_1331"),
        (module.box_up(x), "naive_upsample"),
        (module.box_down(x), "naive_downsample"),
        (module.fir_up(OPS["ramp"]), "ramp_up"),
        (module.fir_down(OPS["ramp"]), "ramp_down"),
    ):
        torch.testing.assert_close(mine, OPS[name], rtol=0, atol=1e-14 * float(OPS[name].abs().max() + 1))
    assert not torch.allclose(module.box_down(x), OPS["downsample_2d_1331"])


def test_embeddings_agree_with_the_published_ones() -> None:
    fourier = module.Fourier(len(OPS["fourier_W"]), 16.0)
    fourier.load_state_dict({"W": OPS["fourier_W"]})
    with torch.no_grad():
        assert torch.equal(fourier(OPS["t"]), OPS["fourier_embed_of_log_t_float32"])
        exact = fourier.double()(OPS["t"].double())
    # A phase of up to 2 pi |W log t| radians carries its own rounding.
    phase = 2 * math.pi * float(OPS["fourier_W"].abs().max() * OPS["t"].log().abs().max())
    torch.testing.assert_close(exact, OPS["fourier_embed_of_log_t_float64"], rtol=0, atol=4 * phase * 2.0**-53)
    assert torch.equal(module.positional(OPS["t"], 16), OPS["positional_embed_dim16_float32"])
    positional = module.positional(OPS["t"].double(), 16)
    torch.testing.assert_close(positional, OPS["positional_embed_dim16_float64"], rtol=0, atol=1e-15)


def test_attention_agrees_with_the_published_block() -> None:
    attention = module.Attention(OPS["attn_x"].shape[1]).double()
    attention.load_state_dict({name.removeprefix("attn/"): OPS[name] for name in OPS if name.startswith("attn/")})
    with torch.no_grad():
        torch.testing.assert_close(attention(OPS["attn_x"]), OPS["attn_out"], rtol=0, atol=1e-13)
        attention.NIN_0.W.mul_(1.01)
        assert not torch.allclose(attention(OPS["attn_x"]), OPS["attn_out"], atol=1e-6)


def test_an_untrained_network_is_almost_nothing_and_its_weights_have_the_published_variances() -> None:
    torch.manual_seed(0)
    network = NCSNpp(Config(nf=32, ch_mult=(1, 2), num_res_blocks=1))
    out = network(torch.randn(2, 6, 32, 32), torch.tensor([0.1, 1.0]))
    assert 0 < float(out.detach().abs().max()) < 1e-3
    weights = dict(network.named_parameters())
    for name, scale, area in (
        ("all_modules.4.Conv_0.weight", 1.0, 9),
        ("all_modules.4.Conv_1.weight", 1e-10, 9),
        ("all_modules.4.Dense_0.weight", 1.0, 1),
        ("all_modules.8.NIN_0.W", 0.1, 1),
        ("all_modules.8.NIN_3.W", 1e-10, 1),
        ("all_modules.2.weight", 1.0, 1),
    ):
        weight = weights[name].detach().double().flatten()
        outputs, inputs, *_ = weights[name].shape
        variance = scale * 2 / ((inputs + outputs) * area)
        assert float(weight.abs().max()) <= math.sqrt(3 * variance) * (1 + 1e-6)
        # A uniform number's square has a standard deviation of sqrt(4/5) of its mean; bounded, so Bernstein applies.
        assert abs(float(weight.square().mean()) / variance - 1) < 7 * math.sqrt(0.8 / len(weight)) + 20 / len(weight)


@examples(15)
@given(
    st.builds(
        Config,
        nf=st.sampled_from([4, 8, 16]),
        ch_mult=st.lists(st.integers(1, 3), min_size=2, max_size=4).map(tuple),
        num_res_blocks=st.integers(1, 3),
        attn_resolutions=st.sets(st.sampled_from([32, 16])).map(lambda sides: tuple(sorted(sides, reverse=True))),
        dropout=st.just(0.0),
        embedding_type=st.sampled_from(["fourier", "positional"]),
        fir=st.just(True),
        progressive_input=st.just("residual"),
        out_ch=st.sampled_from([3, 6]),
    )
)
def test_the_skips_fit_and_the_shapes_tell_the_configuration(drawn: Config) -> None:
    for config in (drawn, replace(drawn, fir=False, progressive_input="none")):
        word = list(steps(config))
        depth = np.cumsum([step.push - step.pop for step in word])
        assert depth.min() == 0 == depth[-1]
        assert infer_config(layout(config), config.image_size) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"nf": 6},
        {"ch_mult": ()},
        {"num_res_blocks": 0},
        {"dropout": 1.0},
        {"embedding_type": "learned"},
        {"progressive_input": "residual", "fir": False},
        {"out_ch": 4},
        {"in_ch": 5, "out_ch": 5},
        {"image_size": 30},
        {"nf": 24, "ch_mult": (2, 4)},
    ],
    ids=str,
)
def test_a_configuration_that_is_no_network_is_refused_in_one_line(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=" ") as caught:
        replace(PUBLISHED, **wrong)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_shape_is_refused() -> None:
    network = NCSNpp(Config(nf=4, ch_mult=(1, 1), num_res_blocks=1))
    with pytest.raises(ValueError, match="this network reads"):
        network(torch.zeros(2, 6, 16, 16), torch.ones(2))
    with pytest.raises(ValueError, match="this network reads"):
        network(torch.zeros(2, 6, 32, 32), torch.ones(1))
