"""Pictures of any shape as a network's data: a folder or a zip of JPEG and PNG files, cropped and resized one by one.

How a picture becomes side x side decides FID, so it is a choice, and named. As published, the whole picture is resized,

    torchvision's Resize((side, side)) of a PIL image:   Pillow's resize to (side, side), bilinear over the filter's
                                                         support, that is with antialiasing;

the aspect ratio is not kept: of an aligned CelebA image, 178 x 218, heights shrink by 18% more than widths. Much of the
literature on diffusion models takes the central square of 140 (or 148) pixels first, which keeps it: `crop`.
Source: the code of Pandey and Mandt, arXiv 2303.01748 (datasets, util.get_dataset); Song et al., arXiv 2011.13456
(the crop of 140).
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .datasets import DataSet

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png")
SPLITS = ("train", "test")

Fit = Callable[[str, "Image"], "Image"]


def forms(dataset: DataSet) -> str:
    """What `read_pictures` reads, in words."""
    archive = f"{dataset.archive[0]}, " if dataset.archive else ""
    return (
        f"give {archive}a folder or a zip of JPEG or PNG files, each of which is resized to {dataset.size}, or an npz "
        f"file with `images`, uint8 (n, {dataset.side}, {dataset.side}, 3)"
    )


def prepared(dataset: DataSet, crop: int | None, is_npz: bool = False) -> str:
    """What is done to each picture, in words."""
    if is_npz or not dataset.resized:
        return f"{dataset.size} as they are"
    resized = f"resized to {dataset.size} (Pillow, bilinear with antialiasing)"
    if crop is None:
        return f"whole images {resized}, as in the published code, which does not keep the aspect ratio"
    return f"centre crops of {crop} x {crop}, {resized}; the published code does not crop"


def read_pictures(path: Path, split: str, dataset: DataSet, crop: int | None) -> NDArray[np.uint8]:
    """The pictures of a folder or zip, uint8 (n, 3, side, side), in the order of their sorted names.

    split: where there are folders named train and test, the pictures in that one; elsewhere all, as published. crop:
    the side of the central square that is resized; None resizes the whole. Raises ValueError if there are none, one
    cannot be read or is smaller than the crop, or the public archive does not have its checksum.
    """
    if crop is not None and crop < 1:
        raise ValueError(f"crop = {crop}: give the side of a square, such as 140")
    fit = _resized(dataset, crop)
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
        names = {file.relative_to(path).as_posix(): file for file in found}
        return _stacked(_of_split(names, split), lambda name: names[name].read_bytes(), fit, forms(dataset))
    if not zipfile.is_zipfile(path):
        raise ValueError(f"it is of no known form; {forms(dataset)}")
    if dataset.archive is not None and path.name == dataset.archive[0]:
        _check_archive(path, dataset.archive[1])
    return read_zip(path, fit, forms(dataset), split)


def read_zip(path: Path, fit: Fit, rule: str = "", split: str | None = None) -> NDArray[np.uint8]:
    """The JPEG and PNG files of a zip, in the order of their names, each as `fit` makes it; see `read_pictures`."""
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if name.lower().endswith(SUFFIXES)]
        return _stacked(sorted(names) if split is None else _of_split(names, split), file.read, fit, rule)


def whole(dataset: DataSet) -> Fit:
    """Pictures that have the data set's side already; others are refused."""

    def fit(name: str, image: Image) -> Image:
        if image.size != (dataset.side, dataset.side):
            raise ValueError(f"{name} is {image.width} x {image.height}; the images are {dataset.size}; scale it")
        return image

    return fit


def _resized(dataset: DataSet, crop: int | None) -> Fit:
    """Pictures of any shape, cropped and resized."""
    from PIL.Image import Resampling

    def fit(name: str, image: Image) -> Image:
        if crop is not None:
            if crop > min(image.size):
                raise ValueError(f"{name} is {image.width} x {image.height}, too small for a crop of {crop}; give less")
            left, top = (image.width - crop) // 2, (image.height - crop) // 2
            image = image.crop((left, top, left + crop, top + crop))
        return image.resize((dataset.side, dataset.side), Resampling.BILINEAR)

    return fit


def _of_split(names: Iterable[str], split: str) -> list[str]:
    """The names within a folder of that split, sorted; all if no split has a folder."""
    names = sorted(names)
    if any(part in SPLITS for name in names for part in name.split("/")[:-1]):
        return [name for name in names if split in name.split("/")[:-1]]
    return names


def _stacked(names: list[str], content: Callable[[str], bytes], fit: Fit, rule: str) -> NDArray[np.uint8]:
    """The pictures of those names, uint8 (n, 3, side, side); a bar shows where a terminal waits for many."""
    from PIL import Image, UnidentifiedImageError

    if not names:
        raise ValueError(f"it holds no JPEG or PNG files; {rule}")
    images = np.empty((0, 0, 0, 0), np.uint8)
    for place, name in enumerate(tqdm(names, unit="image", delay=2, disable=not sys.stderr.isatty(), leave=False)):
        try:
            image = Image.open(io.BytesIO(content(name))).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{name} is no image that can be read; mend it, or take it out") from error
        pixels = np.asarray(fit(name, image)).transpose(2, 0, 1)
        if place == 0:
            images = np.empty((len(names), *pixels.shape), np.uint8)
        images[place] = pixels
    return images


def _check_archive(path: Path, published: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != published:
        raise ValueError(
            f"it has MD5 {found}, the published one is {published}; fetch it again, or give your own another name"
        )
