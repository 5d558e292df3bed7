"""The part of a prepared run that trains the shipped model further (tests/benchmarks/gpu.py).

It starts from the shipped weights, or a state of an earlier run, and keeps the device busy: images, times, the
coefficients of the perturbation kernel, flips, noise, gradients, Adam and the average are all on it, and one CUDA graph
holds a whole step of the compiled network in bfloat16. The learning rate grows for `WARMUP` steps, then falls like a
cosine of the share of the time that is over, to nothing at its end.

The loss is training's, plus `mean_weight` times the square of the error's white component in each channel,

    mean |e|^2 + mean_weight * (sum of e over a channel's pixels)^2 / pixels,    e = eps - eps_theta(u_t, t),

the mean over channels: the mean of an image is one number among a thousand, and the plain loss hardly sees it. Both
terms are least for the conditional expectation, so that the optimum is the same. Times are stratified within a batch,
drawn from 2^20 that are stratified in (0, 1] with their exact coefficients: a table is needed as these are float64 of a
closed form that the device does not have.
"""

from __future__ import annotations

import copy
import io
import json
import lzma
import math
import os
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WARMUP, CLIP, LOG = 300, 1.0, 50
SAVE = 60.0  # seconds between states
CLOSING = 25.0  # seconds kept for what is measured after training
EVENT = (3, 32, 32)
MODES = (
    (True, True),
    (True, False),
    (False, True),
    (False, False),
)  # compiled, and in a CUDA graph: the first that works


def mode() -> int:
    """Which of `MODES` is tried: a process starts again with the next when one fails."""
    return int(os.environ.get("WEAKORDER_MODE", "0"))


def write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def read(path: str, work: Path) -> NDArray[np.uint8]:
    """Images of any form that the package reads, also compressed once more."""
    from weakorder.verification.cifar10.data import load_images

    source = Path(path)
    if source.suffix == ".xz":
        target = work / source.stem
        with lzma.open(source) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
        source = target
    return load_images(source)


def images_of(context: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images to train on and held out; without data noise, which a rehearsal is content with."""
    options = context.options
    if not options.data:
        noise = np.random.default_rng(0).integers(0, 256, (64, *EVENT), dtype=np.uint8)
        return noise[:48], noise[48:]
    train = read(options.data, context.work)
    if options.test:
        return train, read(options.test, context.work)
    order = np.random.default_rng(0).permutation(len(train))
    held = min(2000, len(train) // 5)
    return train[np.sort(order[held:])], train[np.sort(order[:held])]


class Times:
    """Stratified times with the kernel's coefficients: t, a_x, a_m, l_xx, l_mx, l_mm, columns of (n, 6) float32."""

    def __init__(self, params: Any, count: int) -> None:
        from weakorder.verification.cifar10.checkpoint import NUMERICAL_EPS
        from weakorder.verification.cifar10.training import EARLIEST
        from weakorder.verification.gaussian import perturbation_kernel

        places = (np.arange(count) + np.random.default_rng(1).random(count)) / count
        t = EARLIEST + (params.T - EARLIEST) * places
        rows = []
        for chunk in np.array_split(t, max(1, count >> 14)):
            mean, factor = perturbation_kernel(params, chunk, NUMERICAL_EPS)
            rows.append(np.column_stack((chunk, mean, factor[:, 0, 0], factor[:, 1, 0], factor[:, 1, 1])))
        self.rows = np.concatenate(rows).astype(np.float32)


class Trainer:
    """The state of a run on the device, and its step."""

    def __init__(self, context: Any, network: nn.Module, images: Tensor, times: Tensor) -> None:
        options = context.options
        device = torch.device(context.device)
        self.device, self.batch = device, (4 if context.tiny else options.batch)
        self.mean_weight, self.ema_decay = options.mean_weight, options.ema_decay
        self.images, self.times = images, times
        self.network = network.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        pairs = zip(self.network.parameters(), self.average.parameters(), strict=True)
        trained = [(weight, average) for weight, average in pairs if weight.requires_grad]
        self.weights, self.averages = [w for w, _ in trained], [a for _, a in trained]
        cuda = device.type == "cuda"
        self.lr = torch.tensor(0.0, device=device)
        self.decay = torch.tensor(0.0, device=device)
        self.optimizer = torch.optim.Adam(self.weights, lr=self.lr if cuda else 0.0, fused=cuda, capturable=cuda)
        self.sums = torch.zeros(2, device=device)  # of the loss, and of the mean's part, since the last point
        self.step, self.losses = 0, list[float]()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.compiled = self.loss
        if MODES[mode()][0]:
            self.compiled = torch.compile(self.loss, backend="inductor" if cuda else "aot_eager")

    def loss(self, images: Tensor, flip: Tensor, rows: Tensor, eps: Tensor) -> Tensor:
        """(2,): the loss of `training.squared_errors`, and the mean's part."""
        x_0 = images.float() / 127.5 - 1
        x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
        t, a_x, a_m, l_xx, l_mx, l_mm = (rows[:, k, None, None, None] for k in range(6))
        eps_x, eps_m = eps[:, :3], eps[:, 3:]
        u = torch.cat((a_x * x_0 + l_xx * eps_x, a_m * x_0 + l_mx * eps_x + l_mm * eps_m), dim=1)
        predicted = self.network(u.contiguous(memory_format=torch.channels_last), t.flatten())
        error = eps - predicted.float()
        white = error.mean((2, 3)).square().mean() * (error.shape[2] * error.shape[3])
        return torch.stack((error.square().mean(), white))

    def once(self) -> None:
        """A step with the learning rate and decay that are set."""
        n, device = self.batch, self.device
        images = self.images[torch.randint(len(self.images), (n,), device=device)]
        flip = torch.rand(n, device=device) < 0.5
        places = (torch.arange(n, device=device) + torch.rand(n, device=device)) * (len(self.times) / n)
        rows = self.times[places.long().clamp_(max=len(self.times) - 1)]
        eps = torch.randn(n, 6, *EVENT[1:], device=device)
        with torch.autocast(device.type, torch.bfloat16):
            parts = self.compiled(images, flip, rows, eps)
        (parts[0] + self.mean_weight * parts[1]).backward()
        nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.graph is None)
        with torch.no_grad():
            change = torch._foreach_sub(self.weights, self.averages)
            torch._foreach_mul_(change, 1 - self.decay)
            torch._foreach_add_(self.averages, change)
            self.sums += parts.detach()

    def warm_up(self, context: Any) -> dict[str, float]:
        """Compile, with a learning rate of 0; then record a CUDA graph of a step."""
        began = time.time()
        before = self.saved()
        self.set(0.0, 0.0)
        self.once()
        self.sync()
        compiled = time.time() - began
        context.record("stage", "to be recorded as a graph")
        if self.device.type == "cuda" and MODES[mode()][1]:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.once()
            torch.cuda.current_stream().wait_stream(stream)
            self.sync()
            graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                self.once()
            self.graph = graph
            self.graph.replay()
            self.sync()
        self.restore(before)
        return {"compile_seconds": compiled, "seconds": time.time() - began, "graph": self.graph is not None}

    def set(self, lr: float, decay: float) -> None:
        self.lr.fill_(lr)
        self.decay.fill_(decay)
        if self.device.type != "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = lr

    def advance(self, lr: float) -> None:
        self.set(lr, min(self.ema_decay, (1 + self.step) / (10 + self.step)))
        if self.graph is not None:
            self.graph.replay()
        else:
            self.once()
        self.step += 1

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def saved(self) -> dict[str, Any]:
        """Copies on the CPU: weights, averages, Adam's moments and number of steps."""
        moments = [self.optimizer.state.get(weight, {}) for weight in self.weights]
        return {
            "network": {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()},
            "average": {k: v.detach().cpu().clone() for k, v in self.average.state_dict().items()},
            "moments": [{k: v.detach().cpu().clone() for k, v in each.items()} for each in moments],
            "step": self.step,
        }

    @torch.no_grad()
    def restore(self, content: dict[str, Any]) -> None:
        """In place: a graph keeps addresses."""
        for module, name in ((self.network, "network"), (self.average, "average")):
            for key, value in module.state_dict().items():
                value.copy_(content[name][key])
        for weight, each in zip(self.weights, content["moments"], strict=True):
            for key, value in self.optimizer.state[weight].items():
                value.copy_(each[key]) if key in each else value.zero_()
        self.sums.zero_()
        self.step = content["step"]


def training(context: Any) -> None:
    """Train until the time is over, and say what it gave."""
    from weakorder.verification.cifar10.study import open_checkpoint

    began = time.time()
    torch.backends.cudnn.benchmark = True
    checkpoint, name = open_checkpoint(None, {})
    start = copy.deepcopy(checkpoint.network)
    tables: list[Times] = []
    thread = threading.Thread(target=lambda: tables.append(Times(checkpoint.params, 1 << (8 if context.tiny else 20))))
    thread.start()
    images, held_out = images_of(context)
    held_out = held_out[:16] if context.tiny else held_out
    thread.join()
    context.record(
        "data", {"images": len(images), "held_out": len(held_out), "seconds": time.time() - began, "start": name}
    )
    torch.manual_seed(int.from_bytes(os.urandom(4), "big") if context.options.resume else 2026)
    data = torch.from_numpy(images).to(context.device)
    trainer = Trainer(context, checkpoint.network, data, torch.from_numpy(tables[0].rows).to(context.device))
    for weight in trainer.weights:
        weight.requires_grad_(True)
    try:
        context.record("warm_up", {"mode": MODES[mode()]} | trainer.warm_up(context))
    except Exception as error:
        traceback.print_exc()
        if mode() + 1 == len(MODES):
            raise
        write(context.work / f"mode{mode()}_failed.txt", f"{type(error).__name__}: {error}"[-3000:].encode())
        sys.stdout.flush()
        compiles = "graph" in context.found.get("stage", "")
        os.environ["WEAKORDER_MODE"] = str(mode() + 1 if compiles or mode() > 1 else 2)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    earlier = resume(context, trainer)
    digest = digest_of(images)
    context.prepared()
    run(context, trainer, earlier, digest)
    after(context, trainer, earlier, digest, held_out, start, checkpoint.params)


def digest_of(images: NDArray[np.uint8]) -> str:
    from weakorder.verification.cifar10.training import digest_of as of

    return of(images)


def resume(context: Any, trainer: Trainer) -> dict[str, Any]:
    """Take up the state of an earlier run; what was seen before, the shipped model's training included."""
    seen = {"images_seen": 445_408, "seconds": 0.0, "losses": [], "steps": 0}
    if not context.options.resume:
        return seen
    folder = Path(context.options.resume)
    content = torch.load(folder / "network.pt", map_location="cpu", weights_only=True)
    content |= torch.load(folder / "moments.pt", map_location="cpu", weights_only=True)
    trainer.restore(content)
    story = content["story"]
    context.record("resumed", {key: story[key] for key in ("steps", "images_seen", "seconds")})
    trainer.step = 10_000  # the average is warm
    return {key: story[key] for key in seen}


def run(context: Any, trainer: Trainer, earlier: dict[str, Any], digest: str) -> None:
    options = context.options
    first = trainer.step
    budget = context.left() - (0.5 if context.tiny else CLOSING)
    budget = min(budget, options.train_seconds or budget)
    if context.tiny:
        budget = min(budget, options.train_seconds or 3.0)
    began = saved_at = time.monotonic()
    peak, white = options.learning_rate, list[float]()
    good = trainer.saved()
    times = list[float]()
    while (elapsed := time.monotonic() - began) < budget:
        share = elapsed / budget
        rate = peak * min(1.0, (trainer.step - first + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * share))
        trainer.advance(rate)
        done = trainer.step - first
        if done % LOG == 0 or context.tiny:
            loss, mean_part = (trainer.sums / (1 if context.tiny else LOG)).tolist()
            trainer.sums.zero_()
            if not math.isfinite(loss) or (trainer.losses and loss > 10 * trainer.losses[0] + 0.1):
                context.record("diverged", {"step": done, "loss": loss, "rate": rate})
                peak *= 0.3
                step = trainer.step
                trainer.restore(good)
                trainer.step = step
                continue
            trainer.losses.append(loss)
            white.append(mean_part)
            times.append(time.monotonic() - began)
            if time.monotonic() - saved_at > SAVE:
                good = trainer.saved()
                save(context, good, story(trainer, earlier, done, times[-1], digest))
                saved_at = time.monotonic()
                summary(context, trainer, white, done, times)
    trainer.sync()
    seconds = time.monotonic() - began
    save(context, trainer.saved(), story(trainer, earlier, trainer.step - first, seconds, digest))
    summary(context, trainer, white, trainer.step - first, [*times, seconds])
    trainer.done, trainer.seconds = trainer.step - first, seconds


def summary(context: Any, trainer: Trainer, white: list[float], steps: int, times: list[float]) -> None:
    memory = torch.cuda.max_memory_allocated() if trainer.device.type == "cuda" else None
    thin = max(1, len(trainer.losses) // 200)
    blocks = [trainer.losses[k : k + thin] for k in range(0, len(trainer.losses), thin)]
    whites = [white[k : k + thin] for k in range(0, len(white), thin)]
    entry = {
        "steps": steps,
        "images": steps * trainer.batch,
        "batch": trainer.batch,
        "seconds": times[-1],
        "images_per_second": steps * trainer.batch / times[-1],
        "steps_per_point": LOG * thin,
        "losses": [round(sum(block) / len(block), 6) for block in blocks],
        "mean_losses": [round(sum(block) / len(block), 6) for block in whites],
        "mean_weight": trainer.mean_weight,
        "memory": memory,
    }
    context.record("training", entry)


def story(trainer: Trainer, earlier: dict[str, Any], steps: int, seconds: float, digest: str) -> dict[str, Any]:
    return {
        "steps": earlier["steps"] + steps,
        "images_seen": earlier["images_seen"] + steps * trainer.batch,
        "seconds": earlier["seconds"] + seconds,
        "losses": [*earlier["losses"], *(round(loss, 5) for loss in trainer.losses)],
        "data_sha256": digest,
    }


def save(context: Any, content: dict[str, Any], told: dict[str, Any]) -> None:
    """network.pt and moments.pt, each whole: together they are the state."""
    for file, names in (("network.pt", ("network", "average", "step")), ("moments.pt", ("moments",))):
        buffer = io.BytesIO()
        torch.save({name: content[name] for name in names} | {"story": told}, buffer)
        write(context.out / file, buffer.getvalue())


# --- After training ---------------------------------------------------------------------------------------------------


def after(
    context: Any, trainer: Trainer, earlier: dict[str, Any], digest: str, held_out: Any, start: Any, params: Any
) -> None:
    """The weights as a file; held-out loss, colour drift and samples, of the new weights and the old."""
    average, old = trainer.average, start.to(trainer.device, memory_format=torch.channels_last).eval()
    told = story(trainer, earlier, trainer.done, trainer.seconds, digest)

    def exported(losses: dict[str, Any] | None = None) -> str:
        from weakorder.verification.cifar10.checkpoint import save_network

        weights = {
            name: weight.cpu() if name.endswith(".W") and weight.ndim == 1 else weight.cpu().half()
            for name, weight in average.state_dict().items()
        }
        names = ("batch", "mean_weight", "ema_decay")
        how = {name: getattr(trainer, name) for name in names} | {
            "learning_rate": context.options.learning_rate,
            "warmup": WARMUP,
            "clip": CLIP,
            "schedule": "cosine of the share of time, to 0",
            "start": "cifar10_compact.safetensors of 445,408 images",
        }
        metadata = {
            "training": json.dumps(how),
            "steps": str(told["steps"]),
            "images_seen": str(told["images_seen"]),
            "seconds": f"{told['seconds']:.0f}",
            "data_sha256": digest,
            "losses": json.dumps({"steps_per_point": LOG, "loss": told["losses"]}),
        }
        metadata |= {"held_out_loss": json.dumps(losses)} if losses else {}
        save_network(context.out / "model.safetensors", weights, average.config, params, metadata)
        return "model.safetensors"

    context.attempt("export", exported)
    losses = context.attempt(
        "held_out_loss", lambda: held_out_losses({"new": average, "old": old}, params, held_out, context)
    )
    if isinstance(losses, dict) and "new" in losses:
        new = losses["new"]
        context.attempt("export", lambda: exported({k: new[k] for k in ("loss", "standard_error", "images")}))
    context.attempt("samples", lambda: grid(context, average, params))
    for name, network in (("new", average), ("old", old)):
        context.attempt(f"colour_drift {name}", lambda n=network: colour_drift(context, n, params))
    real = held_out.astype(np.float64).mean((2, 3)) / 127.5 - 1
    context.record("colour_drift real", {"rms_channel_mean": float(np.sqrt((real**2).mean())), "images": len(real)})


def held_out_losses(networks: dict[str, Any], params: Any, images: Any, context: Any) -> dict[str, Any]:
    from weakorder.verification.cifar10.training import held_out_loss

    found: dict[str, Any] = {}
    for name, network in networks.items():
        _, errors = held_out_loss(network, params, images, batch=8 if context.tiny else 1000)
        found[name] = {
            "loss": float(errors.mean()),
            "standard_error": float(errors.std() / math.sqrt(len(errors))),
            "images": len(errors),
        }
    return found


def samples(context: Any, network: Any, params: Any, scheme: str, steps: int, count: int, seed: int) -> Tensor:
    from weakorder.integrators.catalogue import CATALOGUE
    from weakorder.integrators.grids import time_grid
    from weakorder.integrators.sampler import draw_prior, sample
    from weakorder.theory.model import PSLD_DIFFUSION
    from weakorder.verification.cifar10.checkpoint import NetworkScore

    numbers = torch.arange(count, device=context.device)
    u = draw_prior(PSLD_DIFFUSION, params, numbers, EVENT, seed)
    taus = time_grid("quadratic", 2 if context.tiny else steps, params)
    score = NetworkScore(network, params)
    return sample(CATALOGUE[scheme], score, u, taus, params, samples=numbers, seed=seed, denoise=True)[:, 0]


def colour_drift(context: Any, network: Any, params: Any) -> dict[str, float]:
    """The root mean square of the channels' means, of samples of the probability flow and of the SDE."""
    count = 4 if context.tiny else 256
    found: dict[str, float] = {"samples": count}
    for scheme, steps in (("RVV", 50), ("ROBA", 99)):
        x = samples(context, network, params, scheme, steps, count, 0)
        found[scheme] = float(x.mean((2, 3)).square().mean().sqrt())
    return found


def grid(context: Any, network: Any, params: Any) -> dict[str, Any]:
    from PIL import Image

    side = 2 if context.tiny else 8
    x = samples(context, network, params, "ROBA", 99, side * side, 1)
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy().transpose(0, 2, 3, 1)
    sheet = np.full((side * 34 + 2, side * 34 + 2, 3), 255, np.uint8)
    for k, image in enumerate(pixels):
        top, left = 2 + 34 * (k // side), 2 + 34 * (k % side)
        sheet[top : top + 32, left : left + 32] = image
    big = Image.fromarray(sheet)
    big.resize((2 * big.width, 2 * big.height), Image.Resampling.NEAREST).save(context.out / "samples.png")
    return {"file": "samples.png", "scheme": "ROBA", "steps": 99, "samples": side * side, "seed": 1}
