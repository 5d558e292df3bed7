"""The part of a prepared run that trains the shipped model further (tests/benchmarks/gpu).

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
from weakorder.verification.cifar10.model import load_images
from weakorder.verification.cifar10.model.training import digest_of
from weakorder.verification.cifar10.study.design import open_checkpoint

from .after import after, story
from .parts import EVENT, Context, write
from .trainer import LOG, MODES, WARMUP, Times, Trainer, mode

SAVE = 60.0  # seconds between states
CLOSING = 25.0  # seconds kept for what is measured after training


def read(path: str, work: Path) -> NDArray[np.uint8]:
    """Images of any form that the package reads, also compressed once more."""
    source = Path(path)
    if source.suffix == ".xz":
        target = work / source.stem
        with lzma.open(source) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
        source = target
    return load_images(source)


def images_of(context: Context) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
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


def training(context: Context) -> None:
    """Train until the time is over, and say what it gave."""
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
    earlier = resume(context, trainer, int(checkpoint.metadata["images_seen"]))
    digest = digest_of(images)
    context.prepared()
    run(context, trainer, earlier, digest)
    after(context, trainer, story(trainer, earlier, digest), held_out, start, checkpoint)


def resume(context: Context, trainer: Trainer, images_seen: int) -> dict[str, Any]:
    """Take up the state of an earlier run; what was seen before, `images_seen` of the model that ships included."""
    seen = {"images_seen": images_seen, "seconds": 0.0, "losses": [], "steps": 0}
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


def run(context: Context, trainer: Trainer, earlier: dict[str, Any], digest: str) -> None:
    """Steps until the time is over. A loss that explodes goes back to the last good state, at 0.3 times the rate."""
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
                trainer.done, trainer.seconds = done, times[-1]
                save(context, good, story(trainer, earlier, digest))
                saved_at = time.monotonic()
                summary(context, trainer, white, done, times)
    trainer.sync()
    trainer.done, trainer.seconds = trainer.step - first, time.monotonic() - began
    save(context, trainer.saved(), story(trainer, earlier, digest))
    summary(context, trainer, white, trainer.done, [*times, trainer.seconds])


def summary(context: Context, trainer: Trainer, white: list[float], steps: int, times: list[float]) -> None:
    """Record how far it is, with curves of about 200 points."""
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


def save(context: Context, content: dict[str, Any], told: dict[str, Any]) -> None:
    """network.pt and moments.pt, each whole: together they are the state."""
    for file, names in (("network.pt", ("network", "average", "step")), ("moments.pt", ("moments",))):
        buffer = io.BytesIO()
        torch.save({name: content[name] for name in names} | {"story": told}, buffer)
        write(context.out / file, buffer.getvalue())
