"""`weakorder cifar10 ...`, `celeba64 ...`, `afhqv2 ...`: a score network of the published kind on a user's images.

`train` turns its options into a `TrainingConfig`, trains (cifar10.model.training, which also resumes), and shows
what came of it (cifar10_training). All of a run is in one folder:

    state.pt      everything a resumed run needs            losses.csv, loss.svg    the loss curve
    model.md      what was run, on what, and how well       samples.png             images from the averaged weights

Whatever can be refused is refused before the first step, and a refused run changes no file.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...verification.cifar10.model import NAMES
from .cifar10_study import study_of
from .lines import print_json
from .options import CROP, JSON, MODEL, REAL, WHOLE, Numbers, Whole, together
from .values import check_device, parameters

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ...verification.cifar10.model import DataSet, TrainingConfig

    Images = NDArray[np.uint8]

_BYTES_PER_WEIGHT = 20  # in float32: the weight, its gradient, two moments, its average


_LENGTH = together(
    click.option("--steps", type=Whole(1), help="Train until so many steps are done in all."),
    click.option("--minutes", type=REAL, help="Train for so many minutes more; with --steps, whichever ends first."),
)
_NETWORK = together(
    click.option(
        "--network",
        type=click.Choice(["compact", "published", "ablation"]),
        default="compact",
        show_default=True,
        help="Where the options below start: the model that ships, or one of the papers with its batch and rate.",
    ),
    click.option("--nf", type=WHOLE, help="Base width, a multiple of 4."),
    click.option("--ch-mult", type=Numbers(int), help="The width of each level over nf; each halves the side."),
    click.option("--res-blocks", "num_res_blocks", type=Whole(1, 64), help="Residual blocks per level."),
    click.option("--attention", metavar="N,...|none", help="The sides that have attention."),
    click.option("--embedding", "embedding_type", type=click.Choice(["fourier", "positional"]), help="Of the time."),
    click.option("--fir/--no-fir", default=None, help="Resample with a filter, or a box."),
    click.option("--pyramid/--no-pyramid", default=None, help="Feed the input to every level; it needs --fir."),
    click.option("--dropout", type=REAL, help="While training, in [0, 1)."),
)
_RUN = together(
    click.option("--batch", type=WHOLE, help="Images per step; compact 32, the others 128."),
    click.option("--learning-rate", type=REAL, help="Of Adam; compact 1e-3, the others 2e-4."),
    click.option("--warmup", type=WHOLE, help="Steps until it is reached; compact 500, the others 5000."),
    click.option("--clip", type=REAL, help="The gradient's largest norm; default 1."),
    click.option("--ema-decay", type=REAL, help="Of the averaged weights, in [0, 1); default 0.9999."),
    click.option("--flips/--no-flips", default=None, help="Mirror half of the images; default: do."),
    click.option("--seed", type=WHOLE, help="Of weights, noise and order; default 0."),
    click.option("--cool-down", type=WHOLE, help="Let the rate fall to 0, as a cosine, over the last N of --steps."),
    click.option("--mean-weight", type=REAL, help="Of the error in the channels' means, >= 0; default 0."),
    click.option(
        "--begin",
        metavar="FILE|shipped",
        help="Begin a new run from a file's weights, or the shipped model's.",
    ),
)
_RESULT = together(
    click.option("--test", "test_data", type=click.Path(path_type=Path), help="Images for the held-out loss, as DATA."),
    click.option(
        "--samples",
        type=Whole(0, 1024),
        default=36,
        show_default=True,
        help="Images in samples.png, of 100 evaluations each; 0: none.",
    ),
    click.option(
        "--export",
        "export_path",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE.safetensors",
        help="Write the averaged weights, float16, as `--checkpoint` reads them; replaced.",
    ),
    click.option("--device", help="cpu or cuda[:N]; default: a GPU if there is one (mixed precision there)."),
)


def group_of(key: str) -> click.Group:
    """The commands of the data set called `key`."""

    @click.group(key, help=f"The model on {NAMES[key]}: train a score network, and study schemes on it.")
    def group() -> None: ...

    @group.command(help=_train.__doc__)
    @click.argument("data", type=click.Path(path_type=Path))
    @click.option(
        "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run."
    )
    @_LENGTH
    @_NETWORK
    @_RUN
    @_RESULT
    @CROP
    @JSON
    @MODEL
    def train(**options: Any) -> None:
        _train(key, **options)

    group.add_command(study_of(key))
    return group


def _train(
    key: str,
    data: Path,
    output: Path,
    steps: int | None,
    minutes: float | None,
    test_data: Path | None,
    samples: int,
    export_path: Path | None,
    device: str | None,
    crop: int | None,
    as_json: bool,
    cool_down: int | None,
    begin: str | None,
    **given: Any,
) -> None:
    """Train a score network on DATA: an npz file with `images`, or a zip of images; of CIFAR-10 cifar-10-python.tar.gz
    or its folder, else img_align_celeba.zip or a folder of pictures, each resized (--crop).

    The same command goes on where the folder's run ended, as if it had not. To stop it, interrupt it: it saves. To make
    samples or a file of a finished run, repeat it with --samples or --export. Exit code 0, 2 on bad input, 130 when
    interrupted (143 by SIGTERM): every step done is then kept, but samples and card are written at a run's end.
    """
    _let_waiting_threads_sleep()
    from ...verification.cifar10.model import DATASETS, keep_freed_memory, load_images, memory_for, prepared, training

    dataset = DATASETS[key]
    if steps is None and minutes is None:
        raise ValueError("the length is missing; give --steps N (in all), --minutes M (of this call), or both")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"minutes = {minutes}: it must be positive and finite; 60 is an hour")
    if cool_down and steps is None:
        raise ValueError(f"cool_down = {cool_down}: the end is missing; give --steps N (in all)")
    end = {"cool_down": cool_down, "last": steps} if cool_down else {}
    config = _config(given | end, dataset)
    config, weights = _begun(config, begin, dataset)
    chosen = _device(device)
    _check_memory(config, chosen)
    images = load_images(data, "train", dataset, crop)
    held_out = None if test_data is None else _held_out(test_data, images, dataset, crop)
    _check_files(output, export_path)
    if chosen.type == "cpu":
        keep_freed_memory()
    with memory_for(config.batch):
        state = training.train(config, images, output, steps=steps, minutes=minutes, device=chosen, weights=weights)
    if state.interrupted:
        click.echo(
            f"weakorder: interrupted: {output / training.STATE} holds {state.step} steps; the same command goes on",
            err=True,
        )
        sys.exit(128 + state.interrupted)
    from ..pages import cifar10_training

    name = f"{data.name}, {prepared(dataset, crop, data.suffix == '.npz')}" if dataset.resized else data.name
    results = (state, name, images, held_out, output, samples, export_path, dataset.published_images)
    answer = cifar10_training.write_results(*results)
    if as_json:
        print_json(answer)
    else:
        click.echo(cifar10_training.as_text(answer))


# --- Before the first step ---


def _let_waiting_threads_sleep() -> None:
    """Threads that wait for each other spin by default, which on busy processors takes the time of those that work
    (60 images/s instead of 4). They read the variable when torch is loaded."""
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _config(given: dict[str, Any], dataset: DataSet) -> TrainingConfig:
    """What the options say, and where they are None what the data set's network of that name has."""
    from dataclasses import replace

    from ...verification.cifar10.model import TrainingConfig

    given = {name: value for name, value in given.items() if value is not None}

    def take(*names: str) -> dict[str, Any]:
        return {name: given.pop(name) for name in names if name in given}

    name = given.pop("network")
    model = {"gamma": dataset.params.gamma, "nu": dataset.params.nu}
    params = parameters("cpu", model | take("gamma", "nu", "kappa", "beta_min", "beta_max", "eps"))
    start = TrainingConfig()
    start = replace(start, network=replace(start.network, image_size=dataset.side))
    if name in dataset.recipes:
        recipe = dataset.recipes[name]
        start = TrainingConfig(
            network=recipe.network, batch=recipe.batch, learning_rate=recipe.learning_rate, warmup=5000
        )
    elif name != "compact":
        raise ValueError(f"network {name!r}: {dataset.name} has {', '.join(['compact', *dataset.recipes])}; choose one")
    network = take("nf", "ch_mult", "num_res_blocks", "embedding_type", "fir", "dropout")
    if "pyramid" in given:
        network["progressive_input"] = "residual" if given.pop("pyramid") else "none"
    pyramid = network.get("progressive_input", start.network.progressive_input) == "residual"
    if pyramid and not network.get("fir", start.network.fir):
        raise ValueError("the pyramid resamples with the filter: add --fir, or --no-pyramid")
    # As published: without noise in the position the score is that of the momentum alone.
    network["out_ch"] = start.network.in_ch // (2 if params.gamma == 0 else 1)
    attention = given.pop("attention", None)
    shape = replace(start.network, **network)
    if attention is not None:
        option = click.Option(["--attention"])
        sides = [] if attention == "none" else Numbers(int).convert(attention, option, None)
        if not set(sides) <= set(shape.sides):
            levels = ", ".join(map(str, shape.sides))
            raise ValueError(f"attention = {attention}: the sides are {levels}; choose of them, or none")
        shape = replace(shape, attn_resolutions=tuple(sides))
    return replace(start, network=shape, params=params, **given)


def _begun(
    config: TrainingConfig, begin: str | None, dataset: DataSet
) -> tuple[TrainingConfig, dict[str, torch.Tensor] | None]:
    """The configuration of a run that begins from the weights of a file, with them."""
    if begin is None:
        return config, None
    from dataclasses import asdict, replace

    from ...verification.cifar10.model import fingerprint
    from ...verification.cifar10.study import open_checkpoint

    given = {name: value for name, value in asdict(config.params).items() if name != "T"}
    path = None if begin == "shipped" else Path(begin)
    found, name = open_checkpoint(path, given, dataset=dataset, side=config.network.image_size)
    old, new = asdict(found.network.config), asdict(config.network)
    if differs := [f"{entry} = {old[entry]}, not {new[entry]}" for entry in old if old[entry] != new[entry]]:
        raise ValueError(f"{name}: its network has {'; '.join(differs)}; ask for that, or begin from another")
    weights = dict(found.network.state_dict())
    return replace(config, begins=fingerprint(weights)), weights


def _device(device: str | None) -> torch.device:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    chosen = torch.device(device)
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r}: times and states are float64 here; choose cpu or cuda")
    return chosen


def _check_memory(config: TrainingConfig, device: torch.device) -> None:
    """Raises ValueError if what training surely takes is more than there is: the weights with what Adam keeps of them,
    and of every image two numbers (in bfloat16) per channel and pixel of each residual block."""
    import torch

    from ...verification.cifar10.model import NCSNpp, free_memory

    network = config.network
    try:
        with torch.device("meta"):
            weights = sum(weight.numel() for weight in NCSNpp(network).parameters())
    except (RuntimeError, OverflowError, TypeError) as error:  # torch's words for shapes beyond 64 bits
        raise ValueError(f"nf = {network.nf}, ch_mult = {network.ch_mult}: too large; choose smaller ones") from error
    blocks = 2 * network.num_res_blocks + 1
    pixels = sum(width * side**2 for width, side in zip(network.widths, network.sides, strict=True))
    needed, free = _BYTES_PER_WEIGHT * weights + 4 * config.batch * blocks * pixels, free_memory(device)
    if needed > free:
        raise ValueError(
            f"batch = {config.batch} and {weights:.3g} weights take at least {needed / 2**30:.3g} GiB to train, "
            f"{device} has {free / 2**30:.3g} free; choose a smaller --batch or network"
        )


def _held_out(path: Path, images: Images, dataset: DataSet, crop: int | None) -> Images:
    """The test images. Raises ValueError if they are the training images, or cannot be read."""
    import numpy as np

    from ...verification.cifar10.model import load_images

    held_out = load_images(path, "test", dataset, crop)
    if np.array_equal(held_out, images):
        raise ValueError(f"{str(path)!r} holds the training images; give others for --test, or drop it")
    return held_out


def _check_files(output: Path, export_path: Path | None) -> None:
    """Raises ValueError or OSError, before hours are spent, if results could not be written; makes the folder."""
    from ...verification.cifar10.model import STATE
    from ...verification.files import check_writable, make_folder

    if not str(output).strip() or str(output) == ".":
        raise ValueError("no folder to write to; name one with -o DIR")
    if export_path is not None and export_path.suffix != ".safetensors":
        raise ValueError(f"{str(export_path)!r}: the weights are written as safetensors; name it FILE.safetensors")
    make_folder(output)
    check_writable(output / STATE)
    if export_path is not None:
        check_writable(export_path)
