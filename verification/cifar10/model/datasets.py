"""The data sets of the published models, as values: what images they are of, and which networks were trained on them.

A network reads images of any side that its levels can halve, so a side belongs to the data set. None of the data are
here (but for what data/README.md says of CIFAR-10's): a data set says how a user's copy of it is read (`data`).
Source: Pandey and Mandt, arXiv 2303.01748, appendix D, and their code's configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....theory.model import Parameters
from .names import NAMES, RESIZED
from .network import ABLATION, PUBLISHED, Config

CIFAR10_ARCHIVE = ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")


@dataclass(frozen=True)
class Recipe:
    """A published network and how it was trained: images per step (over all devices) and the rate of Adam."""

    network: Config
    batch: int = 128
    learning_rate: float = 2e-4


@dataclass(frozen=True)
class DataSet:
    """Images (n, channels, side, side) and the models of them.

    key: the command's word. training_images: as many the published networks were trained on. epochs: how often the one
    called "published" saw each. params: its diffusion. recipes: by name, of the published networks. archive: the public
    file of images that has a published checksum, and its MD5. ships: whether a network, images and their statistics
    ship.
    """

    key: str
    side: int
    training_images: int
    epochs: int
    params: Parameters
    recipes: Mapping[str, Recipe]
    channels: int = 3
    archive: tuple[str, str] | None = None
    ships: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return NAMES[self.key]

    @property
    def resized(self) -> bool:
        """Whether pictures of any shape are resized to the side, or must have it."""
        return self.key in RESIZED

    @property
    def published_images(self) -> int:
        """How many images the network called "published" saw, one as often as there were passes."""
        return self.epochs * self.training_images

    @property
    def size(self) -> str:
        """Width and height in words."""
        return f"{self.side} x {self.side}"


CIFAR10 = DataSet(
    key="cifar10",
    side=32,
    training_images=50_000,
    epochs=2500,
    params=Parameters(),
    recipes={"published": Recipe(PUBLISHED), "ablation": Recipe(ABLATION)},
    archive=CIFAR10_ARCHIVE,
    ships=True,
)
CELEBA64 = DataSet(
    key="celeba64",
    side=64,
    training_images=202_599,
    epochs=500,
    params=Parameters(gamma=0.005, nu=4.005),
    recipes={
        "published": Recipe(Config(ch_mult=(1, 2, 2, 2), num_res_blocks=4, dropout=0.1, image_size=64)),
        "ablation": Recipe(
            Config(
                ch_mult=(1, 1, 2, 2, 2),
                num_res_blocks=4,
                dropout=0.1,
                embedding_type="positional",
                fir=False,
                progressive_input="none",
                image_size=64,
            )
        ),
    },
    archive=("img_align_celeba.zip", "00d2c5bc6d35e252742224ab0c1e8fcb"),
)
AFHQV2 = DataSet(
    key="afhqv2",
    side=128,
    training_images=14_336,
    epochs=2000,
    params=Parameters(),
    recipes={
        "published": Recipe(
            Config(
                ch_mult=(1, 2, 2, 2, 3),
                num_res_blocks=2,
                dropout=0.2,
                embedding_type="positional",
                fir=False,
                progressive_input="none",
                image_size=128,
            ),
            batch=64,
            learning_rate=1e-4,
        ),
    },
)
DATASETS = {dataset.key: dataset for dataset in (CIFAR10, CELEBA64, AFHQV2)}
