"""Checkpoints: from a file to a score.

A network of `cifar10.model.network` predicts the noise eps of the perturbation kernel of a data point,

    u_t = mean_t x_0 + L_t eps,     L_t L_t^T = cov_t + numerical_eps I,   eps ~ N(0, I)

(targets.gaussian). The score it stands for is

    s(u, t) = -L_t^-T eps(u, t):     s_m = -eps_m / l_mm,     s_x = -(eps_x + l_mx s_m) / l_xx.

Where gamma = 0 the dynamics use s_m alone; such a network predicts only eps_m (half the channels), and s_x = 0.

Three kinds of file are read (`formats`), none of which can run code: a checkpoint of PyTorch Lightning, which holds the
trained weights (`score_fn.`) and their moving average (`ema_score_fn.`); a state_dict saved by torch, alone or in an
entry of what a trainer keeps; and safetensors, with this package's metadata or without. The weights of one network all
come from one set (`state_dicts`): the published averaging shrinks every weight slightly, the fixed Fourier frequencies
too, so the two do not mix. The files know neither the network's shape, which is inferred from the weights', nor gamma
and nu, which the published file names give.
Source: Pandey and Mandt, arXiv 2303.01748, section 3 and appendix A; numerical_eps = 1e-9 is that of their code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ....theory.model import Parameters
from ...files import write_atomically
from ...targets import perturbation_kernel
from .formats import DAMAGED, read
from .network import Config, NCSNpp
from .state_dicts import ATTENTION, attention_side, check_shapes, infer_config, layout, one_network, shapes_of

T = TypeVar("T")

NUMERICAL_EPS = 1e-9
WEIGHTS = ("ema", "raw")
STATED = "as its configuration says"  # of the side of the images


# --- The score ---


class NetworkScore:
    """The score of a network, called as score(u, t): u (batch, 2, C, side, side), t a number or (batch,), 0 < t <= 1.

    The network sees state and times in its own dtype; the coefficients and what they multiply are float64, and the
    score is rounded to u's dtype at the end. (The published code rounds the coefficients to float32 before: its float32
    scores differ from these by a few units in the last place.) The network is put into evaluation mode.
    Raises ValueError on a network of eps_m alone where gamma > 0, and on a state or time out of range.
    """

    def __init__(self, network: NCSNpp, params: Parameters, numerical_eps: float = NUMERICAL_EPS) -> None:
        if not 0 <= numerical_eps < 1:
            raise ValueError(f"numerical_eps = {numerical_eps}: what is added to the variances is in [0, 1), as 1e-9")
        if network.config.out_ch < network.config.in_ch and params.gamma != 0:
            raise ValueError(
                f"gamma = {params.gamma:g}, but a network with {network.config.out_ch} channels out predicts the "
                "momentum's noise alone: its gamma is 0"
            )
        self.network, self.params, self.numerical_eps = network.eval(), params, numerical_eps

    def __call__(self, u: Tensor, t: float | Tensor) -> Tensor:
        if u.ndim != 5 or u.shape[1] != 2:
            raise ValueError(f"a state of shape {tuple(u.shape)}: give (batch, 2, channel, side, side)")
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu").reshape(-1)
        if len(times) not in (1, len(u)) or not bool(((times > 0) & (times <= self.params.T)).all()):
            shown = ", ".join(f"{time:g}" for time in times[:4].tolist())
            raise ValueError(
                f"t = {shown}: give one time in (0, {self.params.T:g}], or one for each of {len(u)} states"
            )
        weight = next(self.network.parameters())
        with torch.no_grad():
            eps = self.network(u.flatten(1, 2).to(weight.dtype), times.to(u.device, weight.dtype).expand(len(u)))
        eps = eps.double()
        factor = torch.from_numpy(perturbation_kernel(self.params, times.numpy(), self.numerical_eps).factor)
        L = factor.to(u.device)[..., None, None, None]
        s_m = -eps[:, -u.shape[2] :] / L[:, 1, 1]
        if self.network.config.out_ch < self.network.config.in_ch:
            s_x = torch.zeros_like(s_m)
        else:
            s_x = -(eps[:, : u.shape[2]] + L[:, 1, 0] * s_m) / L[:, 0, 0]
        return torch.stack((s_x, s_m), dim=1).to(u.dtype)


# --- Files ---


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and the diffusion it belongs to; `metadata` as in the file; `side_from` says, in words, how the
    side of its images is known.

    The network is on the CPU, in evaluation mode, float32, with channels last in memory.
    """

    network: NCSNpp
    params: Parameters
    metadata: Mapping[str, str]
    side_from: str = STATED

    @property
    def is_stated(self) -> bool:
        """Whether the file, or a configuration, states the side of the images."""
        return self.side_from == STATED

    def score(self, numerical_eps: float = NUMERICAL_EPS) -> NetworkScore:
        """Its score."""
        return NetworkScore(self.network, self.params, numerical_eps)


def load_checkpoint(
    path: str | Path,
    params: Parameters | None = None,
    config: Config | None = None,
    weights: Literal["ema", "raw"] = "ema",
    side: int | None = None,
    assumed: int | None = None,
) -> Checkpoint:
    """Read a Lightning checkpoint, a state_dict or a safetensors file.

    params: needed where neither the file's name (as gamma=0.02_nu=4.02) nor its metadata say gamma and nu; where they
    do, it must agree. config: None takes the metadata's, or infers it (`infer_config`). weights: of a checkpoint that
    has both, the moving average or the weights themselves. side: of the images; None takes the configuration's, or the
    one that puts the first attention at 16, as in every published network, or, without attention, `assumed`.
    Raises ValueError, in one line that names the file, on anything that is not such a network, whole and finite.
    """
    try:
        return _load(Path(path), params, config, weights, (side, assumed))
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def save_network(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    config: Config,
    params: Parameters,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network as safetensors, whole or not at all, with its configuration, parameters and SHA-256 beside it.

    Weights keep their dtype. `metadata` is added; its keys must be others.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    own = {"config": json.dumps(asdict(config)), "params": json.dumps(asdict(params)), "sha256": fingerprint(tensors)}
    if both := own.keys() & (metadata or {}).keys():
        raise ValueError(f"metadata {', '.join(sorted(both))}: these keys are the file's own; choose others")
    write_atomically(path, save(tensors, own | dict(metadata or {})))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _load(
    path: Path,
    params: Parameters | None,
    config: Config | None,
    weights: str,
    sides: tuple[int | None, int | None],
) -> Checkpoint:
    if weights not in WEIGHTS:
        raise ValueError(f"weights {weights!r} are unknown; choose {' or '.join(WEIGHTS)}")
    content, metadata = read(path)
    tensors = one_network(content, weights, config)
    if "sha256" in metadata and metadata["sha256"] != fingerprint(tensors):
        raise ValueError(f"its weights do not have the SHA-256 that it states; {DAMAGED}")
    shapes = shapes_of(tensors)
    known = STATED
    if config is None and "config" in metadata:
        config = _stated(Config, metadata["config"])
    elif config is None:
        image_size, known = _found_side(shapes, *sides)
        config = infer_config(shapes, image_size)
    if sides[0] not in (None, config.image_size):
        raise ValueError(f"side = {sides[0]}, but its configuration says {config.image_size}; give that, or none")
    try:
        check_shapes(shapes, layout(config))
    except ValueError as error:
        raise ValueError(f"{error}; give the network's own config") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{name} is not made of finite numbers; the file is damaged, or its training diverged; give another"
            )
    with torch.device("meta"):
        network = NCSNpp(config)
    network = network.to_empty(device="cpu").to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    network.load_state_dict(tensors)
    found = _found_params(path.name, metadata, params)
    if config.out_ch < config.in_ch and found.gamma != 0:
        raise ValueError(f"gamma = {found.gamma:g}, but it predicts the momentum's noise alone: its gamma is 0")
    return Checkpoint(network, found, metadata, known)


def _found_side(shapes: Mapping[str, tuple[int, ...]], side: int | None, assumed: int | None) -> tuple[int, str]:
    """The side of the images of a network that is known by its shapes alone, and how it is known."""
    attended = attention_side(shapes)
    if side is not None:
        return side, "as asked for; the file does not state it"
    if attended is not None:
        return (
            attended,
            f"which puts its attention at {ATTENTION}, as in every published network; the file does not state it",
        )
    if assumed is None:
        raise ValueError("it has no attention, so that nothing shows the side of its images; give side")
    return assumed, "assumed: the file does not state it, and it has no attention that would show it"


def _stated(kind: type[T], text: str) -> T:
    """What a file's metadata say of the network or the diffusion."""
    try:
        return kind(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its metadata on {kind.__name__} cannot be read; {DAMAGED}") from error


def _found_params(name: str, metadata: Mapping[str, str], params: Parameters | None) -> Parameters:
    """The diffusion that the metadata or the file's name state, or the caller; they must not contradict each other."""
    stated = asdict(_stated(Parameters, metadata["params"])) if "params" in metadata else {}
    for symbol in ("gamma", "nu"):
        if symbol not in stated and (match := re.search(rf"(?<![a-z]){symbol}=(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)", name)):
            stated[symbol] = float(match[1])
        elif symbol not in stated and params is None:
            raise ValueError(f"its name does not say {symbol} (as {symbol}=...); give the parameters")
    if params is None:
        return Parameters(**stated)
    for symbol, value in stated.items():
        if symbol != "eps" and getattr(params, symbol) != value:
            given = getattr(params, symbol)
            raise ValueError(f"it is a model with {symbol} = {value:g}, not {given:g}; give its own, or none")
    return params
