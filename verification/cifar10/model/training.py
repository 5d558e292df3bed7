"""Training a small network of the published kind, by hybrid score matching.

For data x_0 (images in [-1, 1]), t ~ U(1e-5, 1) and eps ~ N(0, I) the network learns the noise of the perturbation
kernel (cifar10.model.checkpoint), momentum marginalised:

    loss = mean |eps - eps_theta(u_t, t)|^2,     u_t = mean_t x_0 + L_t eps.

and where `mean_weight` is not 0 that times the square of the errors' means over the pixels (`errors_of_means`): a
flow's drift in colour is carried by few of many directions, which weigh little in the loss. Adam, a learning rate that
grows linearly for `warmup` steps and may fall to 0 at the end, gradients clipped to norm 1, horizontal flips. The
weights that are kept are a moving average,

    ema <- ema + (1 - d_k) (w - ema),     d_k = min(ema_decay, (1 + k) / (10 + k)),

over about the last tenth of the steps until 1 / (1 - ema_decay) of them suffice. (The published code has d_k = 0.9999
and computes d ema + (1 - d) w with a rounded d, which also shrinks the weights, and averages the fixed frequencies.)

Step k begins by seeding the generator with a hash of (seed, k), and reads the images that a permutation of
(seed, epoch) puts in its place. So a run is a function of its configuration and data: stopped and resumed it goes on
as if it had not been, bit for bit (on one machine and number of threads, where the kernels are deterministic).

On a processor, threads that wait for each other should sleep: set OMP_WAIT_POLICY=PASSIVE before torch is imported
(`weakorder cifar10 train` does; on two busy cores it made 60 images/s of 4). And freed memory should be kept
(machine.keep_freed_memory).
Source: Pandey and Mandt, arXiv 2303.01748, section 3.2 and appendix C; Karras et al., arXiv 2312.02696, on averages.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ....theory.model import Parameters
from ...files import make_folder, write_atomically
from ...targets import perturbation_kernel
from .checkpoint import NUMERICAL_EPS, save_network
from .configuration import TrainingConfig
from .data import to_unit
from .interrupts import interruptible
from .network import Config, NCSNpp
from .randomness import hashed, permutation, places

EARLIEST = 1e-5  # training times are uniform between this and T
STATE, CURVE = "state.pt", "losses.csv"
LOG = 50  # steps per point of the loss curve


def errors(network: nn.Module, params: Parameters, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """eps - eps_theta(u_t, t), (batch, 6, side, side), in the network's precision.

    x_0 (batch, 3, side, side), t (batch,) on the CPU and eps (batch, 6, side, side); u_t is formed in float64. A
    network with 3 channels out is compared with eps_m.
    """
    mean, factor = perturbation_kernel(params, t.numpy(), NUMERICAL_EPS)
    a, L = (torch.from_numpy(entry).to(x_0.device)[..., None, None, None] for entry in (mean, factor))
    eps_x, eps_m = eps.double().chunk(2, dim=1)
    x = a[:, 0] * x_0 + L[:, 0, 0] * eps_x
    m = a[:, 1] * x_0 + L[:, 1, 0] * eps_x + L[:, 1, 1] * eps_m
    u = torch.cat((x, m), dim=1).float().contiguous(memory_format=torch.channels_last)
    with torch.autocast(u.device.type, torch.bfloat16, enabled=u.device.type == "cuda"):
        predicted = network(u, t.float().to(u.device))
    return eps[:, -predicted.shape[1] :].float() - predicted.float()


def squared_errors(network: nn.Module, params: Parameters, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The mean square of `errors` of each sample, (batch,)."""
    return errors(network, params, x_0, t, eps).square().flatten(1).mean(1)


def errors_of_means(error: Tensor) -> Tensor:
    """The mean square of the channels' means of errors (batch, channels, side, side), times the pixels: 1 of noise."""
    return error.mean((2, 3)).square().mean() * error[0, 0].numel()


class State:
    """What a run carries from step to step; `step` is the number of steps done, `losses` the mean of every `LOG`.

    `interrupted`: the number of the signal that ended this call of `train`, 0 if none did.
    """

    def __init__(
        self, config: TrainingConfig, device: torch.device, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would seed accelerators too
            network = NCSNpp(config.network)
        if weights is not None:
            network.load_state_dict(weights)
        self.config, self.device = config, device
        self.network = network.to(device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.averages = [
            average
            for average, weight in zip(self.average.parameters(), self.network.parameters(), strict=True)
            if weight.requires_grad
        ]
        self.optimizer = torch.optim.Adam(self.weights, lr=config.learning_rate, fused=True)
        self.step, self.seconds, self.interrupted = 0, 0.0, 0
        self.losses: list[float] = []
        self.pending = torch.zeros((), dtype=torch.float64, device=device)

    def advance(self, images: Tensor) -> None:
        """One step on `images`, uint8 (n, 3, side, side)."""
        config = self.config
        torch.manual_seed(hashed(config.seed, self.step))
        index = torch.from_numpy(places(config.seed, self.step * config.batch, config.batch, len(images)))
        x_0 = to_unit(images[index.to(images.device)].to(self.device))
        if config.flips:
            flip = torch.rand(config.batch, 1, 1, 1, device=self.device) < 0.5
            x_0 = torch.where(flip, x_0.flip(-1), x_0)
        t = EARLIEST + (config.params.T - EARLIEST) * torch.rand(config.batch, dtype=torch.float64)
        eps = torch.randn(config.batch, 2 * x_0.shape[1], *x_0.shape[2:], device=self.device)
        error = errors(self.network, config.params, x_0, t, eps)
        loss = error.square().mean()
        self.optimizer.zero_grad()
        (loss + config.mean_weight * errors_of_means(error) if config.mean_weight else loss).backward()
        nn.utils.clip_grad_norm_(self.weights, config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(self.step)
        self.optimizer.step()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, weight in zip(self.averages, self.weights, strict=True):
                average.lerp_(weight, 1 - decay)
            self.pending += loss.detach()
        self.step += 1
        if self.step % LOG == 0:
            self.losses.append(float(self.pending) / LOG)
            self.pending.zero_()
            if not math.isfinite(self.losses[-1]):
                raise ValueError(f"the loss is {self.losses[-1]} after step {self.step}; lower the learning rate")

    @property
    def loss(self) -> float:
        """The last point of the curve; before the first, the mean of all steps so far (nan if there are none)."""
        return self.losses[-1] if self.losses else float(self.pending) / (self.step or math.nan)

    def content(self, digest: str) -> dict[str, Any]:
        """All of it, as tensors, numbers, strings and containers of those."""
        return {
            "config": self.config.described(),
            "data": digest,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "pending": self.pending.cpu(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """The opposite of `content`."""
        self.network.load_state_dict(content["network"])
        self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.pending.copy_(content["pending"])
        self.step, self.seconds, self.losses = content["step"], content["seconds"], list(content["losses"])


def train(
    config: TrainingConfig,
    images: NDArray[np.uint8],
    output: str | Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    save_minutes: float = 5.0,
    device: str | torch.device | None = None,
    progress: bool = True,
    weights: Mapping[str, Tensor] | None = None,
) -> State:
    """Train until `steps` in all are done, or for `minutes` more; resumes where `output` holds an earlier run's state.

    images: uint8 (n, 3, side, side). device: None takes a GPU if there is one. weights: of the network where a new run
    begins (`config.begins` says which they are), None: random ones. The state is written to
    output/state.pt, whole or not at all, every `save_minutes` and at the end; so is the loss curve, losses.csv. A
    first interrupt (SIGINT, SIGTERM) ends the run after the step in progress and saves it.
    Raises ValueError on images of another size, a missing length, steps beyond a cool-down's last, or a state of
    another configuration or other data.
    """
    if config.cool_down:
        steps = config.last if steps is None else steps
        if steps > config.last:
            raise ValueError(f"steps = {steps}: the rate is 0 from step {config.last} on; begin a run from its weights")
    if steps is None and minutes is None:
        raise ValueError("the length is missing; give steps (in all), minutes (of this call), or both")
    channels, side = config.network.in_ch // 2, config.network.image_size
    if images.dtype != np.uint8 or images.shape[1:] != (channels, side, side) or not len(images):
        rule = f"the network is for uint8 (n, {channels}, {side}, {side}), n >= 1"
        raise ValueError(f"images {images.dtype} {images.shape}: {rule}")
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    output = Path(output)
    make_folder(output)
    digest = digest_of(images)
    state = State(config, chosen, weights)
    if (output / STATE).exists():
        state.restore(read_state(output, config, digest))
    data = torch.from_numpy(images)
    data = data.to(chosen) if chosen.type == "cuda" else data

    began, before, saved = time.monotonic(), state.seconds, time.monotonic()
    first = state.step
    forked = torch.random.fork_rng(devices=[chosen] if chosen.type == "cuda" else [])
    with forked, interruptible() as interrupted, _bar(steps, minutes, first, progress) as show:
        while not interrupted():
            now = time.monotonic()
            state.seconds = before + now - began
            if (steps is not None and state.step >= steps) or (minutes is not None and now - began >= 60 * minutes):
                break
            if now - saved >= 60 * save_minutes:
                save(state, output, digest)
                saved = now
            state.advance(data)
            show(state, time.monotonic() - began)
        state.interrupted = interrupted()
    save(state, output, digest)
    return state


def digest_of(images: NDArray[np.uint8]) -> str:
    """What a state remembers of its data: the SHA-256 of the pixels, in order."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def save(state: State, output: Path, digest: str) -> None:
    """Write the state and the loss curve to the folder `output`; `digest` names the data."""
    buffer = io.BytesIO()
    torch.save(state.content(digest), buffer)
    write_atomically(output / STATE, buffer.getvalue())
    rows = [f"{LOG * (place + 1)},{loss:.6f}" for place, loss in enumerate(state.losses)]
    write_atomically(output / CURVE, "\n".join(["step,loss", *rows, ""]).encode())


def read_state(output: str | Path, config: TrainingConfig | None = None, digest: str | None = None) -> dict[str, Any]:
    """The content of output/state.pt. Raises ValueError if it cannot be read, or is of another `config` or data."""
    path = Path(output) / STATE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not {"config", "data"} <= content.keys():
            raise ValueError("it holds no configuration with its data")
    except Exception as error:  # a broken file raises a dozen kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{str(path)!r} is not the state of a training run: {reason}; choose another folder"
        ) from error
    if config is not None and content["config"] != config.described():
        name, old, new = _difference(content["config"], config.described())
        raise ValueError(
            f"{str(path)!r} is a run with {name} = {old}, not {new}; continue with that, or choose another folder"
        )
    if digest is not None and content["data"] != digest:
        raise ValueError(f"{str(path)!r} was trained on other images; give the same, or choose another folder")
    return content


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first entry that two unequal configurations have different: its name, and both values."""
    name = next(name for name in {**old, **new} if old.get(name) != new.get(name))
    a, b = old.get(name), new.get(name)
    return _difference(a, b) if isinstance(a, Mapping) and isinstance(b, Mapping) else (name, a, b)


def export(
    output: str | Path, path: str | Path, notes: Mapping[str, str] | None = None, dtype: torch.dtype = torch.float16
) -> None:
    """Write the moving average of the run in the folder `output` as safetensors, for `checkpoint.load_checkpoint`.

    Weights are rounded to `dtype`, the Fourier frequencies stay float32: they multiply log t by up to 300, so that
    rounded to float16 they would turn phases by tenths of a radian. The metadata hold the configuration, the steps and
    images seen, the SHA-256 of the data, the loss curve, and `notes`. Raises ValueError on a missing or broken state,
    and on weights that `dtype` cannot hold.
    """
    content = read_state(output)
    described = content["config"]
    config = Config(**described["network"])
    weights = {
        name: weight if name.endswith(".W") and weight.ndim == 1 else weight.to(dtype)
        for name, weight in content["average"].items()
    }
    if bad := [name for name, weight in weights.items() if not bool(weight.isfinite().all())]:
        raise ValueError(f"{bad[0]} is too large for {dtype}, or the training diverged; choose another dtype")
    story = {
        "training": json.dumps({name: value for name, value in described.items() if name not in ("network", "params")}),
        "steps": str(content["step"]),
        "images_seen": str(content["step"] * described["batch"]),
        "seconds": f"{content['seconds']:.0f}",
        "data_sha256": content["data"],
        "losses": json.dumps({"steps_per_point": LOG, "loss": [round(loss, 5) for loss in content["losses"]]}),
    }
    save_network(path, weights, config, Parameters(**described["params"]), story | dict(notes or {}))


@torch.no_grad()
def held_out_loss(
    network: NCSNpp,
    params: Parameters,
    images: NDArray[np.uint8],
    seed: int = 0,
    batch: int = 64,
    progress: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The training loss on other images: times (n,) and the squared error of each of n images at its time (n,).

    Image j has time EARLIEST + (T - EARLIEST) (j' + 1/2) / n, j' a permutation of j, so times are stratified; times
    and noise are functions of (seed, n), not of `batch`. No flips; the network in evaluation mode. Their mean
    estimates the loss, and their standard deviation over sqrt(n) bounds its standard error.
    """
    network.eval()
    device = next(network.parameters()).device
    n = len(images)
    t = EARLIEST + (params.T - EARLIEST) * (permutation(seed, 0, n) + 0.5) / n
    generator = torch.Generator().manual_seed(hashed(seed, n))
    errors = []
    for first in tqdm(range(0, n, batch), disable=not progress, unit="batch"):
        x_0 = to_unit(images[first : first + batch])
        eps = torch.randn(len(x_0), 2 * x_0.shape[1], *x_0.shape[2:], generator=generator)
        times = torch.from_numpy(t[first : first + batch])
        errors.append(squared_errors(network, params, x_0.to(device), times, eps.to(device)).double().cpu())
    return t, torch.cat(errors).numpy()


# --- Progress ---


@contextlib.contextmanager
def _bar(
    steps: int | None, minutes: float | None, first: int, progress: bool
) -> Iterator[Callable[[State, float], None]]:
    """A progress bar over steps, or over minutes where only they are given; tqdm adds the time left."""
    total, start, unit = (steps, min(first, steps), "steps") if steps is not None else (minutes or 0, 0, "min")
    form = "{percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} " + unit + " [{elapsed}<{remaining}{postfix}]"
    interval = 5 if sys.stderr.isatty() else 30  # a log file grows slowly
    with tqdm(total=total, initial=start, disable=not progress, mininterval=interval, bar_format=form) as bar:

        def show(state: State, elapsed: float) -> None:
            if progress and (state.step % LOG == 0 or state.step == steps):
                rate = (state.step - first) * state.config.batch / elapsed
                loss = f"loss {state.losses[-1]:.4f}" if state.losses else "loss of fewer steps than a mean takes"
                bar.set_postfix_str(f"step {state.step}, {loss}, {rate:.0f} images/s", refresh=False)
                bar.update((state.step if steps is not None else min(elapsed / 60, total)) - bar.n)

        yield show
