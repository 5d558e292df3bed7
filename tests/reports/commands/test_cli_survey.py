"""`weakorder report diffusers` and `k-diffusion`: the options of a library's page."""

import numpy as np
import pytest
from PIL import Image
from weakorder.reports.pages import survey as page_of_survey
from weakorder.verification.exact import cifar10_spectrum


@pytest.fixture
def run(line):
    """The command line in this process: exit code, stdout, stderr."""
    return line


@pytest.fixture
def asked(monkeypatch):
    """What surveys are asked for, in the place of doing them."""
    found = []

    def run_survey(library, progress, workers, configurations, targets, spectrum, data):
        found.append((library, targets, spectrum, data))
        known = {"images": spectrum.images, "dimensions": spectrum.mean.size, "name": data}
        shown = {"library": library, "targets": list(targets), "data": known, "date": "2026-11-28", "versions": {}}
        shown["coverage"] = {"surveyed": 0, "of": 0, "others": {}}
        return shown | dict.fromkeys(("steps", "budgets", "grids", "schedules", "samplers", "findings"), ())

    monkeypatch.setattr(page_of_survey, "run_survey", run_survey)
    return found


@pytest.fixture
def pictures(tmp_path):
    """Nine pictures of 6 x 8 pixels."""
    folder = tmp_path / "cats"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (9, 8, 6, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("words", "targets"), [([], ("gaussian",)), (["--target", "mixture"], ("gaussian", "mixture"))]
)
def test_the_option_puts_the_mixture_on_the_page(run, asked, tmp_path, words, targets):
    code, out, err = run("report", "diffusers", "-o", str(tmp_path), *words)
    assert (code or 0, out) == (0, f"wrote {tmp_path / 'diffusers.html'}\n"), err
    assert asked == [("diffusers", targets, cifar10_spectrum(), "CIFAR-10")]
    assert ("diffusers --target mixture</code>" in (tmp_path / "diffusers.html").read_text()) == bool(words)


def test_the_page_is_to_the_users_own_images(run, asked, pictures, tmp_path):
    code, _, err = run(
        "report", "diffusers", "k-diffusion", "-o", str(tmp_path), "--data", str(pictures), "--side", "4"
    )
    assert not code, err
    assert [(library, data) for library, _, _, data in asked] == [("diffusers", "cats"), ("k-diffusion", "cats")]
    spectrum = asked[0][2]
    assert (spectrum.images, spectrum.mean.size) == (9, 48)
    assert np.count_nonzero(spectrum.variances > 1e-12) == 8  # nine images about their mean
    assert "Distances are to cats (9 images)" in (tmp_path / "diffusers.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ROBA", "--target", "mixture"], "--target mixture is for the pages of diffusers and k-diffusion; drop it"),
        (["ROBA", "--data", "cats"], "--data cats is for the pages of diffusers and k-diffusion; drop it, or name"),
        (
            ["--crop", "3"],
            "--crop 3 is for the pages of diffusers and k-diffusion; drop it, or name one of these alone",
        ),
        (["diffusers", "--crop", "3"], "--crop 3 is of the pictures of --data; give both"),
        (["diffusers", "--data", "nowhere"], "there is no such file"),
    ],
)
def test_only_a_librarys_page_takes_them_and_whole(run, asked, tmp_path, words, said):
    code, out, err = run("report", *words, "-o", str(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert asked == []
