"""`weakorder celeba64 study` and `train`: the implementation of `cifar10` on images of 64 x 64, from a zip of pictures.

The networks are tiny and the pictures few and random. No assertion is statistical.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from weakorder.reports.commands.cli import cli
from weakorder.reports.pages import cifar10_training
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model import CELEBA64, Config, NCSNpp, load_checkpoint, load_images, to_unit
from weakorder.verification.cifar10.study.frechet import Moments, frechet_distance

TINY = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), dropout=0.0, image_size=64)
CELLS = ("--schemes", "ROBA", "SSCS", "--nfe", "9", "-n", "3", "--refinement", "0", "--batch", "3")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, [*words])


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in the layout of the public archive."""
    path, rng = tmp_path_factory.mktemp("celeba") / "faces.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as file:
        for number in range(1, 6):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)).save(buffer, "png")
            file.writestr(f"img_align_celeba/{number:06}.png", buffer.getvalue())
    return path


@pytest.fixture(scope="module")
def unstated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose file does not show of which images it is."""
    network, generator = NCSNpp(TINY), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    path = tmp_path_factory.mktemp("network") / "tiny_gamma=0.005_nu=4.005.ckpt"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.usefixtures("undrawn")
def test_a_study_is_of_64_x_64_images_and_without_data_it_predicts_nothing(unstated: Path, tmp_path: Path) -> None:
    words = ("celeba64", "study", "--checkpoint", str(unstated), *CELLS, "-o", str(tmp_path / "study"), "--json")
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)
    with np.load(next(tmp_path.rglob("cells/*/*.npz"))) as arrays:
        assert arrays["x"].shape == (3, 3, 64, 64)
    assert results["model"]["network"]["image_size"] == 64
    assert results["model"]["parameters"]["gamma"] == CELEBA64.params.gamma
    assert results["settings"]["dataset"] == "CelebA-64"
    assert results["settings"]["data"] is None
    for scheme in results["schemes"]:
        (cell,) = scheme["cells"]
        assert cell["frechet"] == {"pixels": {}, "inception": None}  # no images, no yardstick of features
        assert (cell["predicted"], cell["predicted_to_data"], cell["published_fid"]) == (None, None, None)
    page = (tmp_path / "study" / "index.html").read_text()
    assert "on a CelebA-64 score network" in page
    assert "64 × 64, assumed: the file does not state it" in page
    assert "is left out: it takes the covariance of CelebA-64" in page
    assert "Table 3" not in page
    assert "CIFAR-10" not in page


@pytest.mark.usefixtures("undrawn")
def test_a_study_with_data_measures_and_predicts_distances_to_them(unstated: Path, faces: Path, tmp_path: Path) -> None:
    words = (
        "--schemes",
        "SSCS",
        "--nfe",
        "4",
        "-n",
        "3",
        "--batch",
        "3",
        "--refinement",
        "0",
        "-o",
        str(tmp_path / "study"),
        "--json",
    )
    given = ("--checkpoint", str(unstated), "--data", str(faces), "--crop", "140")
    result = invoke("celeba64", "study", *given, *words)
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)
    (cell,) = results["schemes"][0]["cells"]
    pixels = load_images(faces, dataset=CELEBA64, crop=140)
    own = Moments.of_samples(np.concatenate([np.load(path)["x"] for path in sorted(tmp_path.rglob("cells/*/*.npz"))]))
    expected = frechet_distance(own, Moments.of_samples(to_unit(pixels).numpy()))
    assert cell["frechet"]["pixels"]["to_data"] == pytest.approx(expected, rel=1e-9)
    assert cell["predicted_to_data"] > 0
    whole = frechet_distance(own, Moments.of_samples(to_unit(load_images(faces, dataset=CELEBA64)).numpy()))
    assert abs(whole - expected) > 1e-6 * expected  # the crop is seen
    page = (tmp_path / "study" / "index.html").read_text()
    assert "centre crops of 140 x 140, resized to 64 x 64" in page
    assert "covariance, that of the images of" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no network of CelebA-64 ships; give yours with --checkpoint FILE"),
        (("--checkpoint", "NET", "--crop", "140"), "--crop 140 is of the pictures of --data; give both"),
        (("--checkpoint", "NET", "--fid"), "--fid compares with CelebA-64's training images; give them with --data"),
        (("--checkpoint", "NET", "--side", "63"), "image_size = 63"),
        (("--checkpoint", "NET", "--gamma", "0.01"), "gamma = 0.005, not 0.01|gamma = 0.01"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], message: str, unstated: Path, tmp_path: Path) -> None:
    given = [str(unstated) if word == "NET" else word for word in words]
    result = invoke("celeba64", "study", *given, "-o", str(tmp_path / "study"))
    assert isinstance(result.exception, ValueError), result.output
    assert any(part in str(result.exception) for part in message.split("|"))
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "study").exists()


def test_a_network_trained_on_pictures_states_its_side_and_is_refused_for_cifar10(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10_training, "STEPS", 2)  # of the samples that it shows
    made = tmp_path / "net.safetensors"
    network = ("--nf", "4", "--ch-mult", "1,1", "--attention", "none", "--batch", "2", "--warmup", "2")
    length = ("--steps", "1", "--samples", "1", "--device", "cpu")
    words = (str(faces), "-o", str(tmp_path / "run"), *network, *length, "--export", str(made))
    result = invoke("celeba64", "train", *words)
    assert result.exit_code == 0, result.output
    found = load_checkpoint(made)
    assert found.is_stated
    assert found.network.config.image_size == 64
    assert found.params == Parameters(gamma=0.005, nu=4.005)
    assert "as in the published code, which does not keep the aspect ratio" in found.metadata["data"]
    card = (tmp_path / "run" / "model.md").read_text()
    assert "the papers' model saw 101,299,500" in card
    refused = invoke("cifar10", "study", "--checkpoint", str(made), "-o", str(tmp_path / "study"))
    assert "a network of 64 x 64 images (as its configuration says), and CIFAR-10 is 32 x 32; give weakorder " in str(
        refused.exception
    )
    refused = invoke("afhqv2", "train", str(faces), "-o", str(tmp_path / "a"), "--steps", "1", "--network", "ablation")
    assert "network 'ablation': AFHQv2-128 has compact, published; choose one" in str(refused.exception)
