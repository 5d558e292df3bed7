"""`weakorder cifar10 train`: what it keeps, what it shows, what it refuses, and that nothing is lost on the way.

The networks are tiny and the images few and random: nothing here says how good a trained network is. No assertion is
statistical.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tiny_models import same
from torch import Tensor
from weakorder.reports.commands import cifar10 as cifar10_cli
from weakorder.reports.commands import cli
from weakorder.reports.pages import cifar10_training
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model import AFHQV2, CELEBA64, CIFAR10, TrainingConfig, training
from weakorder.verification.cifar10.model.checkpoint import fingerprint, load_checkpoint
from weakorder.verification.cifar10.model.network import ABLATION_MOMENTUM, PUBLISHED, Config
from weakorder.verification.cifar10.model.training import held_out_loss, read_state

TINY = ("--nf", "4", "--ch-mult", "1,1", "--attention", "none", "--batch", "2", "--warmup", "2", "--samples", "0")
NETWORK = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), dropout=0.0)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command on two folders' worth of images, in a folder of its own, on the processor."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels[:7])
    np.savez(tmp_path / "test.npz", images=pixels[7:])
    monkeypatch.chdir(tmp_path)

    def command(output: str, *arguments: str, tiny: tuple[str, ...] = TINY, data: str = "images.npz") -> Outcome:
        words = ["cifar10", "train", data, "-o", output, "--device", "cpu", *tiny, *arguments]
        monkeypatch.setattr(sys, "argv", ["weakorder", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Outcome(int(stop.value.code or 0), *capsys.readouterr())

    return command


def done(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    return outcome


def strict(text: str) -> Any:
    """Raises ValueError on anything but one value of standard JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("words", [("cifar10", "--help"), ("cifar10", "train", "--help")], ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    heavy = ["numpy", "sympy", "scipy", "torch", "matplotlib", "jinja2"]
    script = (
        f"import sys\nfrom weakorder.reports.commands import cli\nsys.argv = ['weakorder', *{words!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('LOADED', [name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("LOADED []")
    assert "train" in result.stdout


def test_the_same_command_goes_on_as_if_it_had_not_stopped(run: Run) -> None:
    done(run("whole", "--steps", "4"))
    done(run("parts", "--steps", "2"))
    done(run("parts", "--steps", "4"))
    whole = read_state("whole")
    assert same(whole, read_state("parts"))
    assert whole["config"] == TrainingConfig(network=NETWORK, batch=2, warmup=2).described()
    done(run("other", "--steps", "4", "--seed", "1"))
    assert not same(whole["network"], read_state("other")["network"])


def test_a_run_may_begin_from_another_ones_weights_and_end_at_rate_0(run: Run) -> None:
    done(run("first", "--steps", "3", "--export", "first.safetensors"))
    more = ("--steps", "4", "--begin", "first.safetensors", "--cool-down", "2", "--mean-weight", "1")
    done(run("second", *more))
    config = read_state("second")["config"]
    begun = load_checkpoint("first.safetensors").network.state_dict()
    assert (config["cool_down"], config["last"], config["mean_weight"]) == (2, 4, 1.0)
    assert config["begins"] == fingerprint(begun)
    moved = read_state("second")["network"]
    assert all((moved[name] - weight).abs().max() < 0.01 for name, weight in begun.items())  # four steps of 1e-3
    assert not same(moved, dict(begun))
    done(run("parts", *more))
    assert run("second", "--steps", "4").err.startswith("weakorder: error: 'second/state.pt' is a run with")
    assert run("second", *more, "--seed", "1").code == 2


def test_the_json_is_strict_and_says_what_is_on_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG", 2)
    outcome = done(run("out", "--steps", "4", "--test", "test.npz", "--samples", "3", "--json"))
    answer, state = strict(outcome.out), read_state("out")
    assert (answer["steps"], answer["images_seen"], answer["passes"]) == (4, 8, 8 / 7)
    assert answer["losses"] == {"steps_per_point": 2, "loss": state["losses"]}
    assert answer["loss"] == state["losses"][-1]
    assert answer["config"] == state["config"]
    assert answer["data"] == {"name": "images.npz", "images": 7, "sha256": state["data"]}
    assert set(answer["files"]) == {path.name for path in Path("out").iterdir()}
    assert Path("out/loss.svg").read_text().startswith("<?xml")

    images = np.load("test.npz")["images"].transpose(0, 3, 1, 2)
    restored = training.State(TrainingConfig(network=NETWORK, batch=2, warmup=2), torch.device("cpu"))
    restored.restore(state)
    errors = held_out_loss(restored.average, Parameters(), images)[1]
    assert answer["held_out_loss"]["value"] == errors.mean()
    assert answer["held_out_loss"]["standard_error"] == errors.std(ddof=1) / np.sqrt(5)
    assert held_out_loss(restored.network, Parameters(), images)[1].mean() != errors.mean(), "not the average's"

    text = done(run("out", "--steps", "4", "--test", "test.npz")).out
    assert f"loss {answer['loss']:.4f}, the mean of the last 2 steps; held out {errors.mean():.4f} +- " in text


def test_one_held_out_image_has_no_standard_error(run: Run) -> None:
    np.savez("one.npz", images=np.zeros((1, 32, 32, 3), np.uint8))
    answer = strict(done(run("out", "--steps", "1", "--test", "one.npz", "--json")).out)
    assert answer["held_out_loss"]["standard_error"] is None
    assert answer["losses"]["loss"] == []
    assert not Path("out/loss.svg").exists(), "a curve without a point is not drawn"


def test_the_exported_file_is_the_average_and_the_card_tells_its_story(run: Run) -> None:
    done(run("out", "--steps", "3", "--test", "test.npz", "--export", "model.safetensors", "--nu", "4.5"))
    loaded, state = load_checkpoint("model.safetensors"), read_state("out")
    assert loaded.network.config == NETWORK
    assert loaded.params == Parameters(nu=4.5)
    assert json.loads(loaded.metadata["held_out_loss"])["images"] == 5
    for name, weight in loaded.network.state_dict().items():
        exact = state["average"][name]
        assert torch.equal(weight, exact if name == "all_modules.0.W" else exact.half().float())
    assert not same(state["average"], state["network"])
    card = Path("out/model.md").read_text()
    for fact in ("images.npz, 7 images", state["data"], "3 steps, 6 images", "nu 4.5", "nf 4", "on 5 images"):
        assert fact in card


def test_what_the_user_says_on_the_card_about_its_use_is_kept(run: Run) -> None:
    done(run("out", "--steps", "1"))
    card = Path("out/model.md")
    before, heading, _ = card.read_text().partition("## For, and not for")
    card.write_text(before + heading + "\n\nFor: the test of the card.\n")
    done(run("out", "--steps", "2"))
    text = card.read_text()
    assert text.endswith("## For, and not for\n\nFor: the test of the card.\n")
    assert "1 steps" in before
    assert "2 steps" in text


@pytest.mark.nightly
def test_samples_are_a_function_of_the_state_and_of_their_number(run: Run) -> None:
    done(run("out", "--steps", "1", "--samples", "5"))
    picture = imread("out/samples.png")
    assert picture.shape[:2] == (2 * (2 * 34 - 2), 2 * (3 * 34 - 2)), "2 rows of 3, pixels doubled, 2 between samples"
    again = Path("out/samples.png").read_bytes()
    done(run("out", "--steps", "1", "--samples", "5"))
    assert Path("out/samples.png").read_bytes() == again
    done(run("out", "--steps", "3", "--samples", "5"))
    assert Path("out/samples.png").read_bytes() != again


def test_a_sheet_shows_every_image_in_its_place(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "sheet.png").write_bytes(cifar10_training._png(images))
    sheet = np.rint(255 * imread(tmp_path / "sheet.png")[::2, ::2, :3]).astype(np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, 2)
        assert np.array_equal(sheet[34 * row :][:32, 34 * column :][:, :32], image)
    assert (sheet[34:, 34:] == 255).all(), "the fourth place is empty"


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGTERM])
def test_an_interrupted_run_saves_itself_and_says_how_to_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    advance = training.State.advance

    def interrupted(state: training.State, images: Tensor) -> None:
        advance(state, images)
        if state.step == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(training.State, "advance", interrupted)
        stopped = run("stopped", "--minutes", "5", "--json")
    assert (stopped.code, stopped.out) == (128 + number, "")
    assert stopped.err.splitlines()[-1] == (
        f"weakorder: interrupted: {Path('stopped/state.pt')} holds 3 steps; the same command goes on"
    )
    assert {path.name for path in Path("stopped").iterdir()} == {"state.pt", "losses.csv"}
    done(run("stopped", "--steps", "5"))
    done(run("whole", "--steps", "5"))
    assert same(read_state("stopped"), read_state("whole"))


BAD = [
    ((), "the length is missing; give --steps N"),
    (("--steps", "0"), "0 is out of range; it must be >= 1"),
    (("--steps", "4", "--nf", "\u0664"), "is not an integer; write it like 2"),
    (("--minutes", "0"), "minutes = 0.0: it must be positive and finite"),
    (("--minutes", "nan"), "minutes = nan"),
    (("--minutes", "inf"), "minutes = inf"),
    (("--steps", "4", "--batch", "0"), "batch = 0: it must be >= 1"),
    (("--steps", "4", "--learning-rate", "nan"), "learning_rate = nan: it must be in (0, 1)"),
    (("--steps", "4", "--warmup", "0"), "warmup = 0"),
    (("--steps", "4", "--clip", "0"), "clip = 0.0"),
    (("--steps", "4", "--ema-decay", "1"), "ema_decay = 1.0"),
    (("--steps", "4", "--seed", "-1"), "seed = -1"),
    (("--minutes", "1", "--cool-down", "2"), "cool_down = 2: the end is missing; give --steps N"),
    (("--steps", "4", "--cool-down", "5"), "cool_down = 5: it must be from 0 to the run's last step, 4"),
    (("--steps", "4", "--mean-weight", "-1"), "mean_weight = -1.0: it must be >= 0"),
    (("--steps", "4", "--begin", "shipped"), "its network has nf = 32, not 4"),
    (("--steps", "4", "--begin", "none.safetensors"), "none.safetensors"),
    (("--steps", "4", "--seed", str(2**63)), "it must be an integer in [0, 2^63)"),
    (("--steps", "4", "--dropout", "1"), "dropout = 1.0"),
    (("--steps", "4", "--nf", "6"), "nf = 6 is not a network's; it is a positive multiple of 4"),
    (("--steps", "4", "--nf", "100000"), "weights take at least"),
    (("--steps", "4", "--nf", "32", "--ch-mult", f"1,{10**15}"), "too large; choose smaller ones"),
    (("--steps", "4", "--nf", "32", "--ch-mult", f"1,{10**30}"), "too large; choose smaller ones"),
    (("--steps", "4", "--batch", "1000000000"), "choose a smaller --batch or network"),
    (("--steps", "4", "--ch-mult", "1,x"), "'1,x' is not a list of ints"),
    (("--steps", "4", "--ch-mult", "1,1,1,1,1,1,1"), "image_size = 32"),
    (("--steps", "4", "--res-blocks", "0"), "0 is out of range; it must be from 1 to 64"),
    (("--steps", "4", "--attention", "15"), "attention = 15: the sides are 32, 16; choose of them, or none"),
    (("--steps", "4", "--attention", "all"), "Invalid value for '--attention': 'all' is not a list of ints"),
    (("--steps", "4", "--no-fir"), "add --fir, or --no-pyramid"),
    (("--steps", "4", "--network", "huge"), "'huge' is not one of"),
    (("--steps", "4", "--gamma", "-1"), "gamma = -1 is negative"),
    (("--steps", "4", "--device", "warp"), "device 'warp' cannot be used here"),
    (("--steps", "4", "--samples", "-1"), "-1 is out of range; it must be from 0 to 1024"),
    (("--steps", "4", "--test", "none.npz"), "none.npz"),
    (("--steps", "4", "--test", "images.npz"), "'images.npz' holds the training images"),
    (("--steps", "4", "--export", "model.pt"), "name it FILE.safetensors"),
    (("--steps", "4", "--export", "no/model.safetensors"), "make it first"),
    # The folder holds another run than these ask for.
    (
        ("--steps", "4", "--nf", "8"),
        "a run with nf = 4, not 8; continue with that, or choose another folder",
    ),
    (("--steps", "4", "--seed", "1"), "seed = 0, not 1"),
    (("--steps", "4", "--nu", "4"), "nu = 4.01, not 4.0"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)[:7].transpose(0, 3, 1, 2)
    config = TrainingConfig(network=NETWORK, batch=2, warmup=2)
    training.train(config, np.ascontiguousarray(images), folder, steps=2, device="cpu", progress=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_a_refused_run_is_one_line_and_changes_no_file(
    run: Run, trained: dict[str, bytes], arguments: tuple[str, ...], message: str
) -> None:
    Path("out").mkdir()
    for name, content in trained.items():
        Path("out", name).write_bytes(content)
    outcome = run("out", *arguments, "--json")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("weakorder: error: ")
    assert message in outcome.err
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == trained


def test_the_run_that_the_others_are_refused_beside_is_continued(run: Run, trained: dict[str, bytes]) -> None:
    Path("out").mkdir()
    for name, content in trained.items():
        Path("out", name).write_bytes(content)
    done(run("out", "--steps", "4"))
    assert read_state("out")["step"] == 4


@pytest.mark.parametrize(("data", "message"), [("none.npz", "there is no such file"), ("note.txt", "no known form")])
def test_data_that_cannot_be_read_make_no_folder(run: Run, data: str, message: str) -> None:
    Path("note.txt").write_text("no images")
    outcome = run("out", "--steps", "1", data=data)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err
    assert not Path("out").exists()


@pytest.mark.parametrize("output", ["", ".", "images.npz"])
def test_what_is_no_folder_is_refused(run: Run, output: str) -> None:
    outcome = run(output, "--steps", "1")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)


def test_too_little_memory_is_said_with_its_cure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory:\nyou tried to allocate 1 PB")

    monkeypatch.setattr(training.State, "advance", fails)
    outcome = run("out", "--steps", "1")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].endswith("choose a smaller --batch")


def given(**values: Any) -> dict[str, Any]:
    return {"network": "compact"} | values


def test_the_networks_of_the_papers_have_their_training_and_options_change_what_they_name() -> None:
    papers = TrainingConfig(network=PUBLISHED, batch=128, learning_rate=2e-4, warmup=5000)
    assert cifar10_cli._config(given(), CIFAR10) == TrainingConfig()
    assert cifar10_cli._config(given(network="published"), CIFAR10) == papers
    momentum = cifar10_cli._config(given(network="ablation", gamma=0.0, nu=4.0), CIFAR10)
    assert (momentum.network, momentum.params) == (ABLATION_MOMENTUM, Parameters(gamma=0.0, nu=4.0))
    changed = cifar10_cli._config(
        given(embedding_type="positional", fir=False, pyramid=False, attention="32,8"), CIFAR10
    )
    network = changed.network
    assert (network.embedding_type, network.fir, network.progressive_input) == ("positional", False, "none")
    assert network.attn_resolutions == (32, 8)
    assert (changed.batch, network.nf) == (TrainingConfig().batch, TrainingConfig().network.nf)
    faces = cifar10_cli._config(given(network="published"), CELEBA64)
    assert faces == replace(papers, network=CELEBA64.recipes["published"].network, params=CELEBA64.params)
    animals = cifar10_cli._config(given(network="published"), AFHQV2)
    assert (animals.batch, animals.learning_rate, animals.network.image_size) == (64, 1e-4, 128)


def test_waiting_threads_sleep_unless_torch_is_there_or_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is put back
    monkeypatch.delenv("OMP_WAIT_POLICY")
    cifar10_cli._let_waiting_threads_sleep()
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.delitem(sys.modules, "torch")
    cifar10_cli._let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    cifar10_cli._let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
