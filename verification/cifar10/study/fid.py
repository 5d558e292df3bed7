"""FID on the papers' protocol: the Frechet distance (cifar10.study.frechet) of Inception features.

The numbers of the papers are those of the library torch-fidelity (0.3.0), of 50,000 samples against CIFAR-10's 50,000
training images, samples as bytes by truncation,

    byte = floor(clip(255 (x / 2 + 1/2), 0, 255)).

So the library computes them here too, network and distance both; it is an optional extra, pip install
'weakorder[fid]'. Inception's weights (95 MB) are a file of its release; they are read from a path, or from where torch
keeps what it fetched, or fetched there. Their SHA-256 is known: no other file gives an FID, and no other is opened,
since the library would run code that it holds.

An FID depends on the number of samples, fewer have a higher one (Chong and Forsyth, arXiv 1911.07023): one of another
number of images comes with a warning.
Source: Heusel et al., arXiv 1706.08500; Pandey and Mandt, arXiv 2303.01748 (the protocol);
github.com/toshas/torch-fidelity.
"""

from __future__ import annotations

import hashlib
import importlib
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

INCEPTION = "inception-v3-compat"  # the library's name for TensorFlow's Inception of 2015
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
PROTOCOL = 50_000
_ROWS = 1024  # images that are made float64 at once


class Fid(NamedTuple):
    """A Frechet distance of features, and what makes it incomparable with published FIDs: None if nothing does."""

    value: float
    warning: str | None


def to_uint8(x: ArrayLike | Tensor) -> NDArray[np.uint8]:
    """Samples (n, ...), data in [-1, 1], as bytes: clipped and truncated, as published, in float64.

    Real pixels come back as they were or, where pixel / 127.5 - 1 was rounded down, one less. Raises ValueError on what
    is not finite.
    """
    rows = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if not np.isfinite(rows).all():
        raise ValueError("samples that are not finite are no images; leave out those that diverged")
    images = np.empty(rows.shape, np.uint8)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        images[part] = np.clip(255 * (rows[part].astype(np.float64) / 2 + 0.5), 0, 255)  # the cast truncates
    return images


def fid(
    samples: NDArray[np.uint8],
    data: NDArray[np.uint8],
    weights: Path | None = None,
    extractor: str = INCEPTION,
    cache: Path | None = None,
    device: torch.device | None = None,
) -> Fid:
    """The FID of samples, uint8 (n, 3, side, side) by `to_uint8`, against data, uint8 (m, 3, side, side), n, m >= 2.

    weights: Inception's; None: where torch keeps them, fetched if they are not there. extractor: another network of
    the library, by the name that it is registered under, with its own weights. cache: a folder where statistics of the
    data are kept for the next call with the same data and network (they take as long as those of 50,000 samples, about
    an hour on 2 cores); a registered network that changes needs another folder. device: where the network
    runs; None is the CPU.
    Raises ValueError, in one line, if the extra or the weights are missing, and on images that are none.
    """
    for name, images in (("samples", samples), ("data", data)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(images) < 2:
            raise ValueError(f"{name} are {images.dtype} {images.shape}: give uint8 (n, 3, side, side), n >= 2")
    library = load_library()
    if extractor == INCEPTION:
        weights = find_weights(weights)
    key = hashlib.sha256(np.ascontiguousarray(data).data).hexdigest()[:16]
    if weights is not None:
        key += f"-{_digest(weights)[:16]}"
    on_gpu = device is not None and device.type == "cuda"
    chosen = torch.cuda.device(device) if on_gpu else nullcontext()  # the library takes the current one
    with chosen:
        found = library.calculate_metrics(
            input1=_Images(samples),
            input2=_Images(data),
            input2_cache_name=f"weakorder-{key}" if cache else None,
            cache=cache is not None,
            cache_root=str(cache) if cache else None,
            fid=True,
            feature_extractor=extractor,
            feature_extractor_weights_path=None if weights is None else str(weights),
            cuda=on_gpu,
            save_cpu_ram=True,  # the images are in memory: no processes to read them
            verbose=False,
        )
    for features in [] if cache is None else cache.glob(f"weakorder-{key}-*-features-*.pt"):
        features.unlink()  # 400 MB of which only mean and covariance are needed
    numbers = len(samples), len(data)
    warning = (
        f"of {numbers[0]:,} samples against {numbers[1]:,} images, not {PROTOCOL:,} against {PROTOCOL:,}: "
        "fewer have a higher FID, so it does not compare with published ones"
    )
    return Fid(float(found[library.KEY_METRIC_FID]), None if numbers == (PROTOCOL, PROTOCOL) else warning)


def load_library() -> ModuleType:
    """torch-fidelity. Raises ValueError if it is not installed, or not with a torchvision that fits torch."""
    try:
        return importlib.import_module("torch_fidelity")
    except ImportError as error:
        raise ValueError(f"FID takes torch-fidelity ({error}); install it: pip install 'weakorder[fid]'") from error
    except RuntimeError as error:  # torchvision's compiled part was built for another torch, as CUDA's
        version = metadata.version("torchvision").split("+")[0]
        raise ValueError(
            f"torchvision, which torch-fidelity needs, does not fit torch {torch.__version__}; install its twin, "
            f"for CPUs: pip install torchvision=={version} --index-url https://download.pytorch.org/whl/cpu"
        ) from error


def find_weights(path: Path | None = None) -> Path:
    """Inception's weights: the file `path`, or (None) where torch keeps what it fetched; fetched if it is not there.

    Raises ValueError if there is no such file, it cannot be fetched, or it is another one.
    """
    url = importlib.import_module(f"{load_library().__name__}.feature_extractor_inceptionv3").URL_INCEPTION_V3
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1] if path is None else path
    if path is None and not place.is_file():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(place), WEIGHTS_SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"Inception's weights cannot be fetched ({reason}); get {url}, give its path") from error
    if not place.is_file():
        raise ValueError(f"there is no file {str(place)!r}; get Inception's weights, {url}")
    if (found := _digest(place)) != WEIGHTS_SHA256:
        raise ValueError(f"{str(place)!r} has SHA-256 {found[:8]}..., Inception's {WEIGHTS_SHA256[:8]}...; get {url}")
    return place


class _Images(Dataset[Tensor]):
    """Images as the library reads them, one by one."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.images[index])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
