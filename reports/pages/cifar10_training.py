"""What a training run shows for itself: its loss curve, held-out loss, samples and model card, and its weights.

Everything is a function of a finished run's state and is written beside it; a card is written again with each run, but
for its section on use, which is the user's.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from numpy.typing import NDArray

from ...integrators.catalogue import CATALOGUE
from ...integrators.grids import time_grid
from ...integrators.sampler import draw_prior, sample
from ...theory.model import PSLD_DIFFUSION
from ...verification.cifar10.model import CIFAR10, NetworkScore, training
from ...verification.files import write_atomically
from ..figures import as_svg, cifar10_figures
from .templates import template

Images = NDArray[np.uint8]

# Of the catalogue's stochastic schemes this one comes closest to CIFAR-10's spectrum with 100 evaluations, of which one
# denoises (exact moments, quadratic grid).
SAMPLER, STEPS = CATALOGUE["ROBA"], 99
CARD = "model.md"
_USE = "## For, and not for"
_BATCH = 64  # samples at once
_GAP, _SCALE = 2, 2  # white pixels between samples, and how large one of their pixels is


def write_results(
    state: training.State,
    data: str,
    images: Images,
    held_out: Images | None,
    output: Path,
    samples: int,
    export_path: Path | None,
    published: int = CIFAR10.published_images,
) -> dict[str, Any]:
    """Write the curve, the samples, the card and, if asked, the weights; what they say, as plain values.

    state: of the run in the folder `output`, on `images` called `data`. held_out: None measures no held-out loss.
    samples: how many, 0 draws none. published: images that the papers' model saw. Raises ValueError on weights that are
    not finite.
    """
    seen = state.step * state.config.batch
    answer: dict[str, Any] = {
        "output": str(output),
        "state": str(output / training.STATE),
        "steps": state.step,
        "images_seen": seen,
        "passes": seen / len(images),
        "seconds": state.seconds,
        "images_per_second": seen / state.seconds if state.seconds else None,
        "device": str(state.device),
        "loss": state.loss,
        "losses": {"steps_per_point": training.LOG, "loss": state.losses},
        "held_out_loss": None if held_out is None else _held_out_loss(state, held_out),
        "data": {"name": data, "images": len(images), "sha256": training.digest_of(images)},
        "config": state.config.described(),
        "weights": sum(weight.numel() for weight in state.network.parameters()),
        "trained": date.today().isoformat(),
        "files": [training.STATE, training.CURVE],
        "export": None,
    }
    if (figure := cifar10_figures.training(answer)) is not None:
        write_atomically(output / "loss.svg", as_svg(figure))
        answer["files"].append("loss.svg")
    if export_path is not None:
        notes = {"trained": answer["trained"], "data": f"{data}, {len(images)} images"}
        if answer["held_out_loss"]:
            notes["held_out_loss"] = json.dumps(answer["held_out_loss"])
        training.export(output, export_path, notes)
        answer["export"] = str(export_path)
    if samples:
        write_atomically(output / "samples.png", _png(_draw(state, samples)))
        answer["files"].append("samples.png")
    path = output / CARD
    answer["files"].append(CARD)
    write_atomically(path, _card(answer, samples, published, path.read_text() if path.exists() else "").encode())
    return answer


def as_text(answer: Mapping[str, Any]) -> str:
    """The answer of `write_results` in four lines."""
    seen = f"{answer['images_seen']:,} images, {answer['passes']:.3g} passes over {answer['data']['images']:,}"
    rate = "" if answer["images_per_second"] is None else f", {answer['images_per_second']:.1f} images/s"
    held = f"; held out {_held_out_text(answer)}" if answer["held_out_loss"] else ""
    folder = Path(answer["output"])
    written = [str(folder / name) for name in answer["files"][1:]] + ([answer["export"]] if answer["export"] else [])
    return (
        f"{answer['state']}: {answer['steps']:,} steps, {seen}\n"
        f"loss {_loss_text(answer)}{held}\n"
        f"{answer['seconds'] / 60:.1f} minutes in all{rate}, {answer['device']}\n"
        f"wrote {', '.join(written)}"
    )


def _held_out_loss(state: training.State, images: Images) -> dict[str, Any]:
    """Of the averaged weights: the mean over the images, each at one time, and its standard error."""
    _, errors = training.held_out_loss(state.average, state.config.params, images, progress=sys.stderr.isatty())
    n = len(errors)
    error = float(errors.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return {"value": float(errors.mean()), "standard_error": error, "images": n}


def _draw(state: training.State, count: int) -> Images:
    """Samples 0 .. count - 1 of the averaged weights, uint8 (count, side, side, 3)."""
    params, network = state.config.params, state.config.network
    score, taus = NetworkScore(state.average, params), time_grid("quadratic", STEPS, params)
    event = (network.in_ch // 2, network.image_size, network.image_size)
    parts = []
    for numbers in torch.arange(count, device=state.device).split(_BATCH):
        start = draw_prior(PSLD_DIFFUSION, params, numbers, event, dtype=torch.float32)
        parts.append(sample(SAMPLER, score, start, taus, params, samples=numbers, denoise=True)[:, 0].cpu())
    pixels = (127.5 * (torch.cat(parts) + 1)).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()


def _png(images: Images) -> bytes:
    """The images in rows, as square as they go."""
    count, side = len(images), images.shape[1]
    columns = math.ceil(math.sqrt(count))
    cell = side + _GAP
    sheet = np.full((-(-count // columns) * cell - _GAP, columns * cell - _GAP, 3), 255, dtype=np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        sheet[row * cell : row * cell + side, column * cell : column * cell + side] = image
    buffer = io.BytesIO()
    large = sheet.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    matplotlib.image.imsave(buffer, large, format="png", metadata=dict[Any, Any](Software=None))
    return buffer.getvalue()


def _loss_text(answer: Mapping[str, Any]) -> str:
    steps = answer["losses"]["steps_per_point"] if answer["losses"]["loss"] else answer["steps"]
    return f"{answer['loss']:.4f}, the mean of {'the last ' * bool(answer['losses']['loss'])}{steps} steps"


def _held_out_text(answer: Mapping[str, Any]) -> str:
    held = answer["held_out_loss"]
    if held is None:
        return "not measured"
    return f"{held['value']:.4f} +- {held['standard_error']:.4f} on {held['images']:,} images"


def _card(answer: Mapping[str, Any], samples: int, published: int, before: str) -> str:
    """The model card; of the one `before`, what the user says about its use."""
    use = (
        f"{_USE}\n\nFor: (say what it was trained for; this section is yours, and is kept when the card is written "
        "again)\n\nNot for: comparing with published FIDs, which are of a larger model, trained for longer.\n"
    )
    fields = {"fields": lambda values: ", ".join(f"{name} {value}" for name, value in values.items())}
    return template("model.md.j2", fields).render(
        answer,
        title=Path(answer["output"]).resolve().name,
        run={name: value for name, value in answer["config"].items() if name not in ("network", "params")},
        published_images=published,
        loss_text=_loss_text(answer),
        held_out_text=_held_out_text(answer),
        samples=samples,
        sampler=SAMPLER.name,
        evaluations=STEPS * SAMPLER.nfe_per_step + 1,
        use=before[before.index(_USE) :] if _USE in before else use,
    )
