"""Makes cifar10_features.npz: mean and covariance of real images' features (cifar10.study.features).

    python -m weakorder.verification.data.make_cifar10_features IMAGES

IMAGES: CIFAR-10 in any form that `load_images` reads, its training images. To be run anew whenever the network that
ships changes: the file states which one it was made with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ..cifar10.model import load_images, to_unit
from ..cifar10.study import Moments, frechet_distance, shipped_network, yardstick
from ..cifar10.study.features import features

TARGET = Path(__file__).with_name("cifar10_features.npz")


def main() -> None:
    """Write the file beside this script and print what the README states."""
    parser = argparse.ArgumentParser(description="Make cifar10_features.npz from CIFAR-10's images.")
    parser.add_argument("images", type=Path, help="the archive, its folder, an npz file or a zip of images")
    parser.add_argument("-o", "--output", type=Path, default=TARGET, help="another file to write")
    arguments = parser.parse_args()
    images = load_images(arguments.images)
    rows, made = features(to_unit(images, torch.float32)), yardstick(shipped_network())
    moments = Moments.of_samples(rows)
    np.savez_compressed(
        arguments.output, mean=moments.mean, factor=moments.factor, images=np.array(len(images)), yardstick=made
    )
    halves = frechet_distance(Moments.of_samples(rows[::2]), Moments.of_samples(rows[1::2]))
    print(f"{arguments.output.name}: {arguments.output.stat().st_size} bytes, {len(images)} images, {made}")
    print(f"total variance {(moments.factor**2).sum():.5g}, two halves of the images are {halves:.3g} apart")


if __name__ == "__main__":
    main()
