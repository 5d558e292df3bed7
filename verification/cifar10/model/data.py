"""CIFAR-10 as users have it, checked before it is read: the archive or its folder, an npz file, a zip of images.

Images are uint8 (n, 3, 32, 32), in their file's order; the network's data are `pixels` / 127.5 - 1, in [-1, 1].
Nothing is downloaded. The archive is python pickles, which may run code: each is compared with its published MD5 first,
so only the known files are ever opened. Other data sets are folders or zips of images (`pictures`).
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
www.cs.toronto.edu/~kriz/cifar.html (cifar-10-python.tar.gz and its checksum).
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...targets import read_images
from . import pictures
from .datasets import CELEBA64, CIFAR10, CIFAR10_ARCHIVE, DataSet

ARCHIVE_MD5 = CIFAR10_ARCHIVE[1]
FOLDER = "cifar-10-batches-py"
BATCHES = {
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}
FORMS = (
    "give cifar-10-python.tar.gz, its folder cifar-10-batches-py, an npz file with `images`, uint8 (n, 32, 32, 3), "
    "or a zip of 32 x 32 JPEG or PNG files"
)


def load_images(
    path: str | Path,
    split: Literal["train", "test"] = "train",
    dataset: DataSet = CIFAR10,
    crop: int | None = None,
) -> NDArray[np.uint8]:
    """The images of a file or folder, uint8 (n, 3, side, side).

    split: which batches of the original archive or folder (50,000 images for "train", 10,000 for "test"); an npz or
    zip file holds one split and is taken whole, a zip in the order of its sorted names. dataset: what they are of;
    another than CIFAR-10 is read by `pictures.read_pictures`. crop: its centre crop. Raises ValueError, in one line
    that names the file, if it is missing, damaged or something else, or its checksum is not the published one.
    """
    path = Path(path)
    forms = pictures.forms(dataset) if dataset.resized else FORMS
    if split not in BATCHES:
        raise ValueError(f"split {split!r} is unknown; choose {' or '.join(BATCHES)}")
    if crop is not None and not dataset.resized:
        raise ValueError(f"crop = {crop}: {dataset.name}'s images are taken as they are; drop it")
    try:
        if not path.exists():
            raise ValueError(f"there is no such file; {forms}")
        if path.suffix == ".npz" and not path.is_dir():
            return read_images(path, dataset.side)
        if dataset.resized:
            return pictures.read_pictures(path, split, dataset, crop)
        if path.is_dir():
            return _folder(path, split)
        if zipfile.is_zipfile(path):
            return pictures.read_zip(path, pictures.whole(dataset), FORMS)
        return _archive(path, split)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if str(path) in message else f"{str(path)!r}: {message}") from error
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{str(path)!r} cannot be read: {reason}; {forms}") from error


def images_of(path: str | Path, side: int, crop: int | None = None) -> NDArray[np.uint8]:
    """Anybody's images, uint8 (n, 3, side, side): CIFAR-10's archive or folder as they are, 32 x 32; else a folder or
    zip of pictures, each resized to `side` (its centre `crop` first), or an npz file. Raises ValueError as
    `load_images`."""
    path = Path(path)
    batches = (path / FOLDER, path / next(iter(BATCHES["train"])))
    known = path.name == CIFAR10_ARCHIVE[0] or any(batch.exists() for batch in batches)
    return load_images(path, "train", CIFAR10 if known else replace(CELEBA64, side=side, archive=None), crop)


def to_unit(images: NDArray[np.uint8] | Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """uint8 pixels as data in [-1, 1], pixel / 127.5 - 1, of the same shape."""
    return torch.as_tensor(images).to(dtype) / 127.5 - 1


def _check(name: str, content: bytes, published: str) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != published:
        raise ValueError(f"{name} has MD5 {found}, the published one is {published}; fetch it again")


def _batch(name: str, content: bytes, published: str) -> NDArray[np.uint8]:
    """One batch of the archive: rows of 3072 bytes, channel after channel."""
    _check(name, content, published)
    return pickle.loads(content, encoding="bytes")[b"data"].reshape(-1, 3, 32, 32)


def _folder(path: Path, split: str) -> NDArray[np.uint8]:
    inner = path / FOLDER
    path = inner if inner.is_dir() else path
    batches = BATCHES[split]
    if missing := [name for name in batches if not (path / name).is_file()]:
        raise ValueError(f"it has no {missing[0]}; {FORMS}")
    return np.concatenate([_batch(name, (path / name).read_bytes(), md5) for name, md5 in batches.items()])


def _archive(path: Path, split: str) -> NDArray[np.uint8]:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        raise ValueError(f"it is of no known form; {FORMS}")
    _check("it", content, ARCHIVE_MD5)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {name: archive.extractfile(f"{FOLDER}/{name}") for name in BATCHES[split]}
        return np.concatenate([_batch(n, file.read(), BATCHES[split][n]) for n, file in files.items() if file])
