"""What a training run gives: weights as a file, held-out loss, samples and their colours (training.py)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.theory.model import PSLD_DIFFUSION
from weakorder.verification.cifar10.model.checkpoint import Checkpoint, NetworkScore, save_network
from weakorder.verification.cifar10.model.training import held_out_loss

from .parts import EVENT, Context
from .trainer import CLIP, LOG, WARMUP, Trainer


def story(trainer: Trainer, earlier: dict[str, Any], digest: str) -> dict[str, Any]:
    """What was trained, in numbers: this run's after those of `earlier`; the data by their digest."""
    return {
        "steps": earlier["steps"] + trainer.done,
        "images_seen": earlier["images_seen"] + trainer.done * trainer.batch,
        "seconds": earlier["seconds"] + trainer.seconds,
        "losses": [*earlier["losses"], *(round(loss, 5) for loss in trainer.losses)],
        "data_sha256": digest,
    }


def after(
    context: Context, trainer: Trainer, told: dict[str, Any], held_out: Any, start: Any, checkpoint: Checkpoint
) -> None:
    """The weights as a file; held-out loss, colour drift and samples, of the new weights and those of `checkpoint`,
    which training started from."""
    average, params = trainer.average, checkpoint.params
    old = start.to(trainer.device, memory_format=torch.channels_last).eval()

    def exported(losses: dict[str, Any] | None = None) -> str:
        export(context, trainer, told, losses, checkpoint)
        return "model.safetensors"

    context.attempt("export", exported)
    networks = {"new": average, "old": old}
    losses = context.attempt("held_out_loss", lambda: held_out_losses(networks, params, held_out, context))
    if isinstance(losses, dict) and "new" in losses:
        new = losses["new"]
        context.attempt("export", lambda: exported(new))
    context.attempt("samples", lambda: grid(context, average, params))
    for name, network in networks.items():
        context.attempt(f"colour_drift {name}", lambda n=network: colour_drift(context, n, params))
    real = held_out.astype(np.float64).mean((2, 3)) / 127.5 - 1
    context.record("colour_drift real", {"rms_channel_mean": float(np.sqrt((real**2).mean())), "images": len(real)})


def export(
    context: Context, trainer: Trainer, told: dict[str, Any], losses: dict[str, Any] | None, checkpoint: Checkpoint
) -> None:
    """model.safetensors: the average's weights in float16, and the story of the last run in the metadata."""
    how = {name: getattr(trainer, name) for name in ("batch", "mean_weight", "ema_decay")} | {
        "learning_rate": context.options.learning_rate,
        "warmup": WARMUP,
        "clip": CLIP,
        "schedule": "cosine of the share of time, to 0",
        "start": f"a network that had seen {checkpoint.metadata['images_seen']} images",
    }
    metadata = {
        "training": json.dumps(how),
        "steps": str(told["steps"]),
        "images_seen": str(told["images_seen"]),
        "seconds": f"{told['seconds']:.0f}",
        "data_sha256": told["data_sha256"],
        "losses": json.dumps({"steps_per_point": LOG, "loss": told["losses"]}),
    }
    metadata |= {"held_out_loss": json.dumps(losses)} if losses else {}
    weights = {
        name: weight.cpu() if name.endswith(".W") and weight.ndim == 1 else weight.cpu().half()
        for name, weight in trainer.average.state_dict().items()
    }
    save_network(context.out / "model.safetensors", weights, checkpoint.network.config, checkpoint.params, metadata)


def held_out_losses(networks: dict[str, Any], params: Any, images: Any, context: Context) -> dict[str, Any]:
    """Of each network: the mean, its standard error; and of the first less the second, image by image."""
    errors = {
        name: held_out_loss(network, params, images, batch=8 if context.tiny else 1000)[1]
        for name, network in networks.items()
    }
    first, second = errors.values()
    return {name: mean_of(rows) for name, rows in errors.items()} | {"new - old": mean_of(first - second)}


def mean_of(rows: NDArray[np.float64]) -> dict[str, Any]:
    """A mean as metadata have it."""
    return {
        "value": float(rows.mean()),
        "standard_error": float(rows.std(ddof=1) / math.sqrt(len(rows))),
        "images": len(rows),
    }


def samples(context: Context, network: Any, params: Any, scheme: str, steps: int, count: int, seed: int) -> Tensor:
    """x of `count` samples, unclipped, (count, 3, 32, 32)."""
    numbers = torch.arange(count, device=context.device)
    u = draw_prior(PSLD_DIFFUSION, params, numbers, EVENT, seed)
    taus = time_grid("quadratic", 2 if context.tiny else steps, params)
    score = NetworkScore(network, params)
    return sample(CATALOGUE[scheme], score, u, taus, params, samples=numbers, seed=seed, denoise=True)[:, 0]


def colour_drift(context: Context, network: Any, params: Any) -> dict[str, float]:
    """The root mean square of the channels' means, of samples of the probability flow and of the SDE."""
    count = 4 if context.tiny else 256
    found: dict[str, float] = {"samples": count}
    for scheme, steps in (("RVV", 50), ("ROBA", 99)):
        x = samples(context, network, params, scheme, steps, count, 0)
        found[scheme] = float(x.mean((2, 3)).square().mean().sqrt())
    return found


def grid(context: Context, network: Any, params: Any) -> dict[str, Any]:
    """samples.png."""
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
