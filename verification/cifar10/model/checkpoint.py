"""Checkpoints: from a file to a score.

A network of `cifar10.model.network` predicts the noise eps of the perturbation kernel of a data point,

    u_t = mean_t x_0 + L_t eps,     L_t L_t^T = cov_t + numerical_eps I,   eps ~ N(0, I)

(targets.gaussian). The score it stands for is

    s(u, t) = -L_t^-T eps(u, t):     s_m = -eps_m / l_mm,     s_x = -(eps_x + l_mx s_m) / l_xx.

Where gamma = 0 the dynamics use s_m alone; such a network predicts only eps_m (half the channels), and s_x = 0.

Three kinds of file are read, none of which can run code: a checkpoint of PyTorch Lightning, which holds the trained
weights (`score_fn.`) and their moving average (`ema_score_fn.`); a state_dict saved by torch; and safetensors, with
this package's metadata or without. The weights of one network all come from the same prefix: the published averaging
shrinks every weight slightly, the fixed Fourier frequencies too, so the two sets do not mix. The files know neither
the network's shape, which is inferred from the weights', nor gamma and nu, which the published file names give.
Source: Pandey and Mandt, arXiv 2303.01748, section 3 and appendix A; numerical_eps = 1e-9 is that of their code.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ....theory.model import Parameters
from ...files import write_atomically
from ...targets import perturbation_kernel
from .network import Config, NCSNpp

T = TypeVar("T")

NUMERICAL_EPS = 1e-9
PREFIXES = {"ema": "ema_score_fn.", "raw": "score_fn."}
_FORMS = "give a checkpoint, a state_dict or a safetensors file"
_DAMAGED = "it was changed or damaged, fetch it again"


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
    """A trained network and the diffusion it belongs to; `metadata` as in the file.

    The network is on the CPU, in evaluation mode, float32, with channels last in memory.
    """

    network: NCSNpp
    params: Parameters
    metadata: Mapping[str, str]

    def score(self, numerical_eps: float = NUMERICAL_EPS) -> NetworkScore:
        """Its score."""
        return NetworkScore(self.network, self.params, numerical_eps)


def load_checkpoint(
    path: str | Path,
    params: Parameters | None = None,
    config: Config | None = None,
    weights: Literal["ema", "raw"] = "ema",
) -> Checkpoint:
    """Read a Lightning checkpoint, a state_dict or a safetensors file.

    params: needed where neither the file's name (as gamma=0.02_nu=4.02) nor its metadata say gamma and nu; where they
    do, it must agree. config: None takes the metadata's, or infers it (`infer_config`). weights: of a Lightning
    checkpoint, the moving average or the weights themselves; a file without prefixes has only one set.
    Raises ValueError, in one line that names the file, on anything that is not such a network, whole and finite.
    """
    try:
        return _load(Path(path), params, config, weights)
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


def layout(config: Config) -> dict[str, tuple[int, ...]]:
    """Every key of the network's state_dict and its shape, in order; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in NCSNpp(config).state_dict().items()}


def infer_config(shapes: Mapping[str, tuple[int, ...]], image_size: int = 32) -> Config:
    """The configuration of a network from the shapes of its parameters.

    What shapes do not show: the side of the images; dropout, which does nothing in evaluation (it is 0 here); and fir
    where there is no pyramid, taken as off, as in the published ablations. Raises ValueError where the shapes are not
    those of a network with at least two levels.
    """
    try:
        config = _inferred(shapes, image_size)
        _compare(shapes, layout(config))
    except (LookupError, TypeError, ValueError) as error:
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise ValueError(f"its parameters are not those of an NCSN++ network{reason}; give its config") from error
    return config


def _inferred(shapes: Mapping[str, tuple[int, ...]], image_size: int) -> Config:
    modules: dict[int, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        _, index, name = key.split(".", 2)
        modules.setdefault(int(index), {})[name] = tuple(shape)
    ordered = [modules[index] for index in sorted(modules)]
    fourier = set(ordered[0]) == {"W"}
    stem, *body, _, last = ordered[3 if fourier else 2 :]
    pyramid = any("Conv2d_0.weight" in module for module in body)
    segments: list[list[dict[str, tuple[int, ...]]]] = [[]]  # blocks and attentions between two changes of side
    for module in body:
        if "Conv_2.weight" in module and module["Conv_2.weight"][0] == module["Conv_2.weight"][1]:
            segments.append([])
        elif "Conv2d_0.weight" not in module:
            segments[-1].append(module)
    if len(segments) == 1:
        raise ValueError("one level alone cannot be told from the middle")
    down = segments[: (len(segments) + 1) // 2]  # the last of them goes on into the middle and the way up
    nf, in_ch = stem["weight"][:2]

    def attends(segment: list[dict[str, tuple[int, ...]]]) -> bool:
        return any("NIN_0.W" in module for module in segment[1:2])

    return Config(
        nf=nf,
        ch_mult=tuple(segment[0]["Conv_0.weight"][0] // nf for segment in down),
        num_res_blocks=sum("Conv_0.weight" in module for module in down[0]),
        attn_resolutions=tuple(image_size >> i for i, segment in enumerate(down) if attends(segment)),
        dropout=0.0,
        embedding_type="fourier" if fourier else "positional",
        fir=pyramid,
        progressive_input="residual" if pyramid else "none",
        in_ch=in_ch,
        out_ch=last["weight"][0],
        image_size=image_size,
    )


def _load(path: Path, params: Parameters | None, config: Config | None, weights: str) -> Checkpoint:
    if weights not in PREFIXES:
        raise ValueError(f"weights {weights!r} are unknown; choose {' or '.join(PREFIXES)}")
    if not path.is_file():
        raise ValueError(f"there is no such file; {_FORMS}")
    tensors, metadata = _read(path)
    tensors = _one_network(tensors, weights)
    if "sha256" in metadata and metadata["sha256"] != fingerprint(tensors):
        raise ValueError(f"its weights do not have the SHA-256 that it states; {_DAMAGED}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if config is None:
        config = _stated(Config, metadata["config"]) if "config" in metadata else infer_config(shapes)
    try:
        _compare(shapes, layout(config))
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
    return Checkpoint(network, found, metadata)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a file under their names there, and its metadata."""
    with path.open("rb") as opened:
        start = opened.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"it is not a whole safetensors file ({error}); fetch it again") from error
    is_zip = zipfile.is_zipfile(path)
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise ValueError("it is cut short or damaged; fetch it again") from error
        if damaged:
            raise ValueError(f"{damaged} in it does not have its checksum; {_DAMAGED}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ValueError(
            "it is damaged, or holds more than tensors and plain containers, which could run code; it was not opened; "
            "fetch it again, or give its state_dict alone"
        ) from error
    except Exception as error:  # torch raises a dozen kinds on files that are not its own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"it is no checkpoint that torch can read ({reason}); {_FORMS}") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not content:
        raise ValueError(f"it holds no state_dict; {_FORMS}")
    return content, {}


def _one_network(content: dict[str, Any], weights: str) -> dict[str, Tensor]:
    """The entries of one prefix, or of none, without it."""
    prefix = PREFIXES[weights]
    chosen = {key.removeprefix(prefix): value for key, value in content.items() if str(key).startswith(prefix)}
    if not chosen:
        other = next((name for name, p in PREFIXES.items() if any(str(key).startswith(p) for key in content)), None)
        if other:
            raise ValueError(f"it has no {prefix}* weights, only {PREFIXES[other]}*; take weights {other!r}")
        chosen = content
    for key, value in chosen.items():
        if not re.fullmatch(r"all_modules\.\d+\..+", str(key)) or not isinstance(value, Tensor):
            raise ValueError(
                f"its entry {str(key)[:60]!r} is no parameter of NCSN++ (all_modules.<index>.<name>); give the weights "
                "of one"
            )
    return chosen


def _compare(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        if name not in shapes:
            raise ValueError(f"{name} {shape} is missing; the configuration asks for {len(expected)} parameters")
        if tuple(shapes[name]) != shape:
            raise ValueError(f"{name} is {tuple(shapes[name])}; the configuration asks for {shape}")
    if extra := [name for name in shapes if name not in expected]:
        raise ValueError(f"{extra[0]} is no parameter of the configuration, nor are {len(extra) - 1} others")


def _stated(kind: type[T], text: str) -> T:
    """What a file's metadata say of the network or the diffusion."""
    try:
        return kind(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its metadata on {kind.__name__} cannot be read; {_DAMAGED}") from error


def _found_params(name: str, metadata: Mapping[str, str], params: Parameters | None) -> Parameters:
    """The diffusion that the metadata or the file's name state, or the caller; they must not contradict each other."""
    stated = asdict(_stated(Parameters, metadata["params"])) if "params" in metadata else {}
    for symbol in ("gamma", "nu"):
        if symbol not in stated and (match := re.search(rf"(?<![a-z]){symbol}=(\d+(?:\.\d+)?)", name)):
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
