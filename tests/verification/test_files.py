"""Files are written whole or not at all, and what the system refuses is one line that names the file and the cure."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.commands import cli
from weakorder.theory.cache import cached
from weakorder.theory.model import Parameters
from weakorder.verification import files
from weakorder.verification.cifar10.model import training
from weakorder.verification.cifar10.model.network import Config
from weakorder.verification.files import check_writable, make_folder, write_atomically
from weakorder.verification.sampled import monte_carlo
from weakorder.verification.targets.named import make_target


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the system itself stops the write half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refusing(number: int) -> Any:
    """An os.fdopen whose files the system does not let be written."""

    class File:
        def __init__(self, handle: int, mode: str) -> None:
            self.handle = handle

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self.handle)

        def write(self, content: bytes) -> None:
            os.write(self.handle, content[:1])
            raise OSError(number, os.strerror(number))

    return File


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EROFS, "not read-only"),
        (errno.EACCES, "that you may write to"),
        (errno.EIO, "choose another place"),
    ],
)
def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(
    number: int, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.json"
    path.write_bytes(b"before")
    monkeypatch.setattr(files.os, "fdopen", refusing(number))
    with pytest.raises(OSError, match=r"kept\.json") as caught:
        write_atomically(path, b"after")
    monkeypatch.undo()
    message = str(caught.value)
    assert os.strerror(number) in message
    assert cure in message
    assert message.endswith("the file that was there is kept")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"kept.json": b"before"}


def test_a_disk_that_fills_up_half_way_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"before")
    with room_for(10_000), pytest.raises(OSError, match=r"large'.*ulimit -f"):
        write_atomically(path, bytes(20_000))
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"before"]


def test_a_folder_that_cannot_be_made_or_written_to_is_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match=r"new': No space left on device; make room"):
        make_folder(tmp_path / "new")
    monkeypatch.undo()
    monkeypatch.setattr(files.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"cannot write to .*: No space left on device; make room"):
        check_writable(tmp_path / "file")


def test_a_full_disk_in_a_training_run_leaves_the_state_of_before(tmp_path: Path) -> None:
    shape = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), dropout=0.0)
    config = training.TrainingConfig(network=shape, batch=2, warmup=2)
    images = np.zeros((2, 3, 32, 32), np.uint8)

    def train(steps: int) -> None:
        training.train(config, images, tmp_path, steps=steps, device=torch.device("cpu"), progress=False)

    train(1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with room_for(10_000), pytest.raises(OSError, match=r"state.pt'.*the file that was there is kept"):
        train(2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    train(2)
    assert training.read_state(tmp_path)["step"] == 2


def test_a_full_disk_in_a_monte_carlo_study_leaves_its_checkpoint(tmp_path: Path) -> None:
    target = make_target("banana", Parameters())

    def study(**more: Any) -> None:
        options = {"accuracy": 0.5, "checkpoint": tmp_path / "kept.npz"} | more
        monte_carlo.study_target(CATALOGUE["ROBA"], target, steps=(4, 8, 16, 32), evaluations=2e5, **options)

    study()
    before = (tmp_path / "kept.npz").read_bytes()
    with room_for(1000), pytest.raises(OSError, match=r"kept.npz'.*the file that was there is kept"):
        study(accuracy=0.4)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"kept.npz": before}


def test_an_answer_that_standard_output_does_not_take_is_one_line(tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom weakorder.reports.commands import cli\n"
        "sys.argv = ['weakorder', 'moments', 'ROBA']\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\ncli.main()"
    )
    with (tmp_path / "answer").open("w") as file:
        run = subprocess.run(
            [sys.executable, "-c", script], stdout=file, stderr=subprocess.PIPE, text=True, check=False
        )
    assert run.returncode == 2
    assert run.stderr == (
        "weakorder: error: File too large; raise the limit on file sizes (ulimit -f), then repeat the command\n"
    )


def test_a_derivation_that_cannot_be_kept_is_given_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(tmp_path))
    with room_for(10):
        assert cached(("a test",), lambda: list(range(100))) == list(range(100))
    assert not list(tmp_path.iterdir()), "half a file is left behind"


def test_a_report_into_a_full_disk_is_one_line_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "argv", ["weakorder", "report", "-o", str(tmp_path / "report")])
    monkeypatch.setattr(files.tempfile, "TemporaryFile", full)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert "No space left on device; make room there" in err
